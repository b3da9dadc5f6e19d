"""lhotse's cuts of recordings, for the readers of corpora. Messages begin with the place that names a recording."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from lhotse import MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut.data import DataCut
from lhotse.utils import fastcopy

from asrkern.data._files import recording_seconds
from asrkern.data.formats import is_readable

# The rates that transcription accepts. Others would need filters of any size.
_RATES_HZ = (1_000, 384_000)


def read_recording(path: Path, where: str, recording_id: str | None = None) -> Recording:
    """A recording, by its header, which says its rate.

    Args:
        recording_id: its name; None: the path.

    Raises:
        ValueError: it is no recording, has no samples, or too low or high a rate.
    """
    check_name(str(path), where)
    try:
        recording = Recording.from_file(path, recording_id=recording_id or str(path))
    except Exception as error:  # lhotse wraps its readers' errors in classes of its own
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}: {brief(error)}") from None
    check_rate(recording.sampling_rate, where)
    if is_readable(path):
        # Some headers do not tell the length, and lhotse takes libsndfile's guess.
        seconds = recording_seconds(path, where)
        samples = round(seconds * recording.sampling_rate)
        recording = fastcopy(recording, num_samples=samples, duration=seconds)
    elif recording.num_samples < 1:
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}, which has no samples")
    return recording


def check_rate(rate: object, where: str) -> None:
    """Raise ValueError unless this is a possible rate of a recording."""
    if not isinstance(rate, int) or not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise ValueError(
            f"{where}: expected a rate of {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz, received {rate!r}"
        )


def check_name(path: str, where: str) -> None:
    """Raise ValueError for a name that would become a command: lhotse gives names of .sph files to a shell as they are."""
    if path.lower().endswith(".sph") and shlex.quote(path) != path:
        raise ValueError(f"{where}: expected a plain name of a NIST Sphere file, received {path!r}")


def brief(error: Exception) -> str:
    """What is wrong, without lhotse's list of all readers that it tried: the first one knows."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line.rpartition(">: ")[2] for line in lines if line.startswith("Exception #0")), lines[0])


def make_cut(
    recording: Recording,
    supervision: SupervisionSegment,
    where: str,
    *,
    start: float = 0.0,
    duration: float = math.inf,
    excess_seconds: float = 0.0,
    channel: int | list[int] | None = None,
) -> DataCut:
    """A cut with this supervision, which is made as long as the cut.

    Args:
        start: in seconds.
        duration: in seconds; cut off at the end of the recording.
        excess_seconds: how far beyond that end it may reach, since manifests round.
        channel: index or indices of the recording's channels; None for all.

    Raises:
        ValueError: the recording does not have this part, or the part is shorter than a sample.
    """
    left = recording.duration - start
    if start < 0 or (math.isfinite(duration) and duration > left + excess_seconds):
        raise ValueError(
            f"{where}: expected {duration} s from {start} s on, received a recording of {recording.duration:.3f} s"
        )
    # lhotse rounds sums of durations to a nanosecond.
    duration = round(min(duration, left), 8)
    if duration * recording.sampling_rate < 0.5:
        raise ValueError(
            f"{where}: expected at least one sample from {start} s on, received {duration} s "
            f"of a recording of {recording.duration:.3f} s"
        )
    supervision.recording_id, supervision.start, supervision.duration = recording.id, 0.0, duration
    if channel is None or channel == recording.channel_ids:
        cut = recording.to_cut()
        return fastcopy(cut, id=supervision.id, start=start, duration=duration, supervisions=[supervision])
    wanted = {channel} if isinstance(channel, int) else set(channel)
    if not wanted or not wanted <= set(recording.channel_ids):
        raise ValueError(f"{where}: expected of the channels {recording.channel_ids}, received {channel}")
    kind = MonoCut if isinstance(channel, int) else MultiCut
    return kind(supervision.id, start, duration, channel, [supervision], recording=recording)

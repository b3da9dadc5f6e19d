"""The soak test of streams, for two minutes in place of two hours."""

import pytest

from asrkern.decoder import CTCBeamDecoder
from benchmarks.decoder.soak_stream import LABELS, main, make_words, noise, soak, speech


@pytest.mark.parametrize("kind", ["speech", "noise"])
def test_figures_at_each_mark(kind):
    chunks = speech(make_words()) if kind == "speech" else noise()
    decoder = CTCBeamDecoder(LABELS, beam_width=5)
    first, second = soak(decoder, chunks, [1, 2])
    assert (first["minutes"], second["minutes"]) == (1, 2)
    assert 10 < first["words told"] < second["words told"]
    assert all(row["partial ms"] > 0 and row["process MiB"] > 1 for row in (first, second))


def test_a_recording_that_is_too_short_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--hours", "0.1"])
    assert "--hours: expected more than 10 minutes" in capsys.readouterr().err

"""What an import brings along: nothing that only training, or only the command line, needs."""

import subprocess
import sys

HEAVY = ("lightning", "pytorch_lightning", "lhotse", "rapidfuzz", "matplotlib", "tensorboard", "typer")


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "default::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def imported(names: str, *packages: str) -> set[str]:
    """Those of the packages that a fresh interpreter has after importing names."""
    return set(packages) & set(run(f"import sys, {names}\nprint(*sys.modules)").stdout.split())


def test_asrkern_needs_nothing_of_the_extras() -> None:
    names = "asrkern, asrkern.models, asrkern.decoder, asrkern.data, asrkern.training"
    assert not imported(names, *HEAVY, "pydantic")


def test_a_recognizer_needs_nothing_of_training() -> None:
    names = "asrkern.recognizer, asrkern.recognizer.subtitles"
    assert imported(names, *HEAVY, "asrkern.training", "pydantic") == {"pydantic"}


def test_old_paths_say_where_it_is_now() -> None:
    done = run(
        "from asrkern.training.transcription import Transcriber\n"
        "from asrkern.training.checkpoint import Recognizer, load, read_header\n"
        "from asrkern import recognizer\n"
        "assert Transcriber is recognizer.Transcriber and load is recognizer.load"
    )
    for line, (old, new) in enumerate((("transcription", "transcription"), ("checkpoint", "saved")), 1):
        said = f"asrkern.training.{old} is deprecated: it is asrkern.recognizer.{new} now"
        assert f"<string>:{line}: DeprecationWarning: {said}" in done.stderr

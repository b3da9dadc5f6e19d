"""What imports what: no import runs up, and none brings along what only training or the command line needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "asrkern"
# Each room may import those before it.
ROOMS = (
    "ops",
    "reference",
    "nn",
    "data",
    "decoder",
    "models",
    "recognizer",
    "corpus",
    "serve",
    "training",
    "cli",
)

HEAVY = ("lightning", "pytorch_lightning", "lhotse", "rapidfuzz", "matplotlib", "tensorboard", "typer")


def rooms_of(path: Path) -> Iterator[str]:
    """The rooms that a file imports from, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"asrkern.{alias.name}" for alias in node.names] if module == "asrkern" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("asrkern."))


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_up(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    assert files and not {(path.name, up) for path in files for up in above & set(rooms_of(path))}


def test_commands_for_trained_models_need_nothing_of_training() -> None:
    for name in ("transcribe", "serve", "convert", "decode", "lm"):
        assert "training" not in set(rooms_of(ROOT / "cli" / f"{name}.py")), name


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


def test_parts_are_there_when_they_are_asked_for() -> None:
    code = (
        "import sys, asrkern\n"
        "print('asrkern.nn' in sys.modules, 'asrkern.models' in sys.modules)\n"
        "print(asrkern.nn.GRU.__name__, asrkern.decoder.CTCBeamDecoder.__name__, hasattr(asrkern, 'nothing'))\n"
    )
    assert run(code).stdout.split() == ["False", "False", "GRU", "CTCBeamDecoder", "False"]


def test_every_package_that_is_described_is_such_a_part() -> None:
    described = {path.stem.split(".")[1] for path in (ROOT.parent / "docs/api").glob("asrkern.*.md")}
    code = "import asrkern; print(*asrkern._PARTS); print(*(getattr(asrkern, name).__name__ for name in asrkern._PARTS))"
    parts, names = map(str.split, run(code).stdout.splitlines())
    assert set(parts) == described and names == [f"asrkern.{name}" for name in parts]


def test_importing_asrkern_registers_the_operations() -> None:
    code = "import torch, asrkern; print(torch.ops.asrkern.cpu_isa() != '', 'nn' in dir(asrkern))"
    assert run(code).stdout.split() == ["True", "True"]


def test_help_needs_neither_torch_nor_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "asrkern", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "transcribe" in done.stdout
    imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "asrkern.cli.app" in imports and not imports & {"torch", "numpy"}


def test_nor_does_help_of_any_command_or_wrong_usage() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['asrkern']\n"
        "sys.modules.update(torch=None, numpy=None)\n"
        "from asrkern.cli.app import app\n"
        "from typer.main import get_command\n"
        "from typer.testing import CliRunner\n"
        "commands = get_command(app).commands\n"
        "paths = [[name] for name in commands] + [['lm', name] for name in commands['lm'].commands]\n"
        "for path in paths:\n"
        "    helped = CliRunner().invoke(app, [*path, '--help'])\n"
        "    assert helped.exit_code == 0 and 'Example: asrkern' in helped.stdout, path\n"
        "    wrong = CliRunner().invoke(app, [*path, '--nothing'])\n"
        "    assert wrong.exit_code == 2 and wrong.stderr.count('\\n') == 1, path\n"
        "print(len(paths))\n"
    )
    assert int(run(code).stdout) > 15


def test_imports_change_nothing_that_others_see() -> None:
    """Only a recurrent layer that is made lets torch.compile trace it, by a flag of the whole process."""
    code = (
        "import sys, torch, torch._dynamo.config as config\n"
        "def seen():\n"
        "    return list(sys.meta_path), config.allow_rnn, torch.get_num_threads(), torch.nn.GRU.forward, torch.compile\n"
        "before = seen()\n"
        "import asrkern, asrkern.nn, asrkern.models, asrkern.decoder, asrkern.data\n"
        "print(seen() == before)\n"
        "layer = asrkern.nn.GRU(3, 4)\n"
        "print(config.allow_rnn)\n"
    )
    assert run(code).stdout.split() == ["True", "True"]
    code = (
        "import torch._dynamo.config as config, asrkern.nn\n"
        # As torch.export does.
        "with config.patch(allow_rnn=True):\n"
        "    pass\n"
        "layer = asrkern.nn.GRU(3, 4)\n"
        "print(config.allow_rnn)\n"
    )
    assert run(code).stdout.split() == ["True"]
    code = (
        "import sys, pickle, copy, torch, asrkern.nn\n"
        "before = list(sys.meta_path)\n"
        "print('torch._dynamo' in sys.modules)\n"
        "layer = copy.deepcopy(pickle.loads(pickle.dumps(asrkern.nn.LSTM(3, 4))))\n"
        "asrkern.nn.GRU(3, 4)\n"
        "import importlib.util\n"
        "importlib.util.find_spec('torch._dynamo')\n"
        "print(len(sys.meta_path) - len(before), 'torch._dynamo' in sys.modules)\n"
        "import torch._dynamo\n"
        "print(torch._dynamo.config.allow_rnn, sys.meta_path == before)\n"
    )
    assert run(code).stdout.split() == ["False", "1", "False", "True", "True"]

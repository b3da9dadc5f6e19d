"""Files that are there whole or not at all: kills, other writers, disks that are full."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asrkern import _atomic_write
from asrkern._atomic_write import atomic_write, is_full


def test_a_kill_while_writing_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    child = os.fork()
    if child == 0:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    # The next writer removes what it left, whatever that writer's file is called.
    with atomic_write(tmp_path / "y") as temporary:
        temporary.write_text("after")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x", "y"]


def test_what_others_are_writing_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".asrkern-no").write_text("another's file")
    (tmp_path / ".asrkern-killed-while-it-was-made.tmp").mkdir()
    with atomic_write(tmp_path / "x") as first:
        first.write_text("first")
        child = os.fork()
        if child == 0:
            _atomic_write._looked.clear()
            with atomic_write(tmp_path / "y") as second:
                second.write_text("second")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert first.read_text() == "first"
        _atomic_write._looked.clear()
        with atomic_write(tmp_path / "x") as third:
            third.write_text("third")
        assert (tmp_path / "x").read_text() == "third"
    assert (tmp_path / "x").read_text() == "first" and (tmp_path / "y").read_text() == "second"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".asrkern-no", "x", "y"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(_atomic_write.fcntl, "flock", refuse)
    (tmp_path / ".asrkern-elsewhere.tmp").mkdir()
    (tmp_path / ".asrkern-elsewhere.tmp" / "lock").touch()
    with atomic_write(tmp_path / "x") as temporary:
        temporary.write_text("after")
    # Whether that writer still writes cannot be known.
    assert sorted(file.name for file in tmp_path.iterdir()) == [".asrkern-elsewhere.tmp", "x"]


def _write_often(path: Path, process: int) -> None:
    def write(thread: int) -> None:
        content = bytes([4 * process + thread]) * 50_000
        for _ in range(15):
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    failed: list[object] = []
    threading.excepthook = failed.append
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(bool(failed))


def test_many_writers_of_one_path(tmp_path: Path) -> None:
    """Sixteen threads of four processes; whatever is read is one of their files, whole."""
    path = tmp_path / "x"
    path.write_bytes(bytes(50_000))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, process)) for process in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert len(content) == 50_000 and len(set(content)) == 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system's own limit, which stands for a disk's end."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


_WRITERS = {
    "torch": lambda path: torch.save({"w": torch.ones(300_000)}, path),
    "torch, legacy": lambda path: torch.save(
        {"w": torch.ones(300_000)}, path, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda path: save_file({"w": torch.ones(300_000)}, path),
    "bytes": lambda path: path.write_bytes(bytes(1_200_000)),
}


@pytest.mark.parametrize("writer", _WRITERS)
def test_what_the_system_refuses_is_said_in_its_words(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    refused = pytest.raises(
        OSError, match=r"x: cannot be written: File too large; the previous one is untouched$"
    )
    with _largest_file(100_000), refused as raised, atomic_write(path) as temporary:
        _WRITERS[writer](temporary)
    assert raised.value.errno == errno.EFBIG and not is_full(raised.value)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", _WRITERS)
def test_a_full_disk(tmp_path: Path, writer: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        path = disk / "x"
        path.write_text("before")
        said = r"x: cannot be written: No space left on device \([\d.]+ MiB are free\); the previous one is untouched$"
        with pytest.raises(OSError, match=said) as raised, atomic_write(path) as temporary:
            _WRITERS[writer](temporary)
        assert raised.value.errno == errno.ENOSPC and is_full(raised.value)
        assert path.read_text() == "before" and list(disk.iterdir()) == [path]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_error_of_the_writer_s_own_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), atomic_write(tmp_path / "x"):
        raise KeyError("mine")
    with pytest.raises(OSError, match=r"x: cannot be written: .*No such file.*other'; there is none"):  # noqa: SIM117
        with atomic_write(tmp_path / "x") as temporary:
            shutil.copyfile(tmp_path / "other", temporary)
    missing = tmp_path / "none" / "x"
    with (
        pytest.raises(OSError, match=r"none/x: cannot be written: .*No such file.*none.;") as raised,
        atomic_write(missing),
    ):
        pass
    assert raised.value.errno == errno.ENOENT
    assert not list(tmp_path.iterdir())


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "x") as temporary:
            save_file({"w": torch.ones(2)}, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_failure_leaves_the_previous_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    untouched = pytest.raises(OSError, match=r"x: cannot be written: full; the previous one is untouched")
    with untouched, atomic_write(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_links_stay_and_what_they_point_to_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "x", tmp_path / "link"
    path.write_text("before")
    link.symlink_to(path)
    with atomic_write(link) as temporary:
        temporary.write_text("after")
    assert link.is_symlink() and path.read_text() == "after"


def test_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder: cannot be written"), atomic_write(folder) as temporary:
        temporary.write_text("after")
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())


def test_what_is_no_ordinary_file_is_written_itself(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(pipe) as target:
        target.write_text("through")
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)

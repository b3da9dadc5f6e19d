import os
from pathlib import Path

import pytest

from asrkern._atomic_write import atomic_write


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

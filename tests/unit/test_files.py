import os
import signal
from pathlib import Path

import pytest

from morphmlp.files import UNFINISHED, atomic_file, atomic_write


def test_text_is_utf8_and_bytes_stay_as_they_are(tmp_path: Path) -> None:
    atomic_write(tmp_path / "text", "\u00e9\n")
    atomic_write(tmp_path / "bytes", b"\0\r\n")
    assert (tmp_path / "text").read_bytes() == "\u00e9\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\0\r\n"


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, "before")

    def write_half() -> None:
        with atomic_file(file) as unfinished:
            unfinished.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "before")]


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "a", "x")


def test_a_killed_writer_leaves_the_earlier_file_and_an_unfinished_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, "before")
    child = os.fork()
    if not child:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        atomic_write(file, "after")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path != file and path.name.endswith(UNFINISHED)]


def test_a_file_and_its_name_are_on_the_disk_when_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()))
    atomic_write(tmp_path / "a", "x")
    assert synced[0].name.endswith(UNFINISHED)
    assert synced[1:] == [tmp_path]
    with atomic_file(tmp_path / "b", sync=False) as unfinished:
        unfinished.touch()
    assert len(synced) == 2

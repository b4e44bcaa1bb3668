"""What long work prints where there is no terminal, lines with the time, none of them twice; and the log next to it."""

import errno
import re

import pytest

from morphmlp import progress
from morphmlp.errors import ConfigError
from morphmlp.progress import LoggedProgress, TerminalProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    seconds = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def lines(capsys):
    """The lines without the time of day, which each has."""
    found = capsys.readouterr().err.splitlines()
    assert all(re.match(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d ", line) for line in found)
    return [line[9:] for line in found]


def test_lines_carry_the_time_of_day(capsys):
    shown = TerminalProgress()
    shown.line("starting")
    shown.line("a table\nof two rows")
    assert lines(capsys) == ["starting", "a table", "of two rows"]


def test_work_that_moves_is_told_every_few_seconds(capsys, clock):
    shown = TerminalProgress()
    shown.phase("training", total=9, unit="steps")
    for step in range(1, 10):
        shown.update(step, f"loss {step}")
        clock[0] += 2.0
    assert [line.partition(",")[0] for line in lines(capsys)] == [f"training: {step}/9 steps" for step in (1, 4, 7, 9)]


def test_work_that_stands_still_is_told_once(capsys, clock):
    shown = TerminalProgress()
    shown.phase("verify", total=3, unit="videos")
    for done in (0, 0, 0, 1, 1, 3, 3, 3):
        clock[0] += 60.0
        shown.update(done)
    assert [line.partition(",")[0] for line in lines(capsys)] == [f"verify: {done}/3 videos" for done in (0, 1, 3)]


def test_a_line_is_told_again_only_when_something_was_told_in_between(capsys, clock):
    shown = TerminalProgress()
    shown.phase("training", total=9, unit="steps")
    for _ in range(3):
        shown.line("waiting for workers")
    clock[0] += 60.0
    shown.update(1)
    shown.line("waiting for workers")
    told = [line.partition(",")[0] for line in lines(capsys)]
    assert told == ["waiting for workers", "training: 1/9 steps", "waiting for workers"]


class Screen:
    """Notes what it's told."""

    def __init__(self):
        self.told = []

    def phase(self, title, *, total, unit):
        self.told.append((title, total, unit))

    def update(self, done, note=""):
        self.told.append((done, note))

    def line(self, text):
        self.told.append(text)


def logged(path):
    return [line.split(maxsplit=2)[2] for line in path.read_text().splitlines()]


def test_the_log_has_every_line_and_an_update_a_minute(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    screen, path = Screen(), tmp_path / "log.txt"
    log = LoggedProgress(screen, path)
    log.phase("training", total=300, unit="steps")
    for step in range(0, 301, 20):
        now[0] = float(step)
        log.update(step, "loss 1.0")
    log.line("done")
    kept = [0, 60, 120, 180, 240, 300]
    assert logged(path) == [*(f"training: {step}/300 steps, loss 1.0" for step in kept), "done"]
    assert screen.told == [
        ("training", 300, "steps"),
        *((step, "loss 1.0") for step in range(0, 301, 20)),
        "done",
    ]


def test_lines_wait_for_the_folder(tmp_path, capsys):
    log = LoggedProgress(Screen(), tmp_path / "run" / "log.txt")
    log.line("early")
    (tmp_path / "run").mkdir()
    log.line("late")
    assert logged(tmp_path / "run" / "log.txt") == ["early", "late"]
    assert capsys.readouterr().err == ""


def test_a_user_s_fault_is_kept_in_its_words_and_a_defect_with_its_traceback(tmp_path):
    log = LoggedProgress(Screen(), tmp_path / "log.txt")
    for error in (ConfigError(["a: wrong", "b: wrong"]), OSError(errno.EBADF, "bad")):
        with pytest.raises(type(error)), log.last_words():
            raise error
    told = logged(tmp_path / "log.txt")
    assert told[:3] == ["ended: a: wrong", "b: wrong", "Traceback (most recent call last):"]
    assert told[-1] == "OSError: [Errno 9] bad"

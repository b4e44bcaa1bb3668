"""What long work prints where there is no terminal: lines with the time, none of them twice."""

import re

import pytest

from morphmlp import progress
from morphmlp.progress import TerminalProgress


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

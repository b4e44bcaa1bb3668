"""When the parts of a command's start were over."""

import time

import psutil
import pytest

from morphmlp.start_marks import Part, StartMarks, start_in_words, start_parts


@pytest.fixture
def path(tmp_path):
    return tmp_path / "start.jsonl"


def marked(path, *parts):
    marks = StartMarks(path)
    for part, at in parts:
        marks.mark(part, at=at)


def test_each_part_lasts_from_the_end_of_the_one_before_it(path):
    marked(path, (Part.COMMAND, 100), (Part.IMPORTS, 102), (Part.RAY, 103.5))
    marked(path, (Part.STEP, 110), (Part.WORKER, 106))
    assert start_parts(path) == {Part.IMPORTS: 2, Part.RAY: 1.5, Part.WORKER: 2.5, Part.STEP: 4}
    said = "first step 10.0 s after the command began (seconds: imports 2.0, Ray 1.5, worker 2.5, first step 4.0)"
    assert start_in_words(path) == said


def test_the_last_command_counts_and_of_its_workers_the_first(path):
    marked(path, (Part.COMMAND, 1), (Part.IMPORTS, 2), (Part.STEP, 9))
    marked(path, (Part.COMMAND, 20), (Part.IMPORTS, 21), (Part.STEP, 25), (Part.STEP, 40))
    assert start_parts(path) == {Part.IMPORTS: 1, Part.STEP: 4}


def test_a_clock_that_is_behind_takes_nothing_away(path):
    marked(path, (Part.COMMAND, 100), (Part.WORKER, 90), (Part.STEP, 103))
    assert start_parts(path) == {Part.WORKER: 0, Part.STEP: 3}


@pytest.mark.parametrize("parts", [(), ((Part.WORKER, 5), (Part.STEP, 6))])
def test_without_a_commands_beginning_nothing_is_said(path, parts):
    marked(path, *parts)
    assert (start_parts(path), start_in_words(path)) == ({}, None)


def test_a_commands_marks_begin_with_its_process_and_wait_for_their_file(path):
    marks = StartMarks.of_command()
    assert not path.exists()
    marks.keep_in(path)
    marks.mark(Part.RAY)
    parts = start_parts(path)
    assert list(parts) == [Part.IMPORTS, Part.RAY]
    age_s = time.time() - psutil.Process().create_time()
    assert sum(parts.values()) == pytest.approx(age_s, abs=1.5)  # psutil knows the machine's start to a second

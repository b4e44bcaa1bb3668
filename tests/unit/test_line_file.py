import os
import threading

import pytest

from morphmlp.line_file import JsonLines, LineFile, WaitingLines, read_json_lines, remove_truncated_line


@pytest.fixture
def full_disk(monkeypatch):
    """Within it, half of every line fits onto the disk."""
    write = os.write

    def half(file, text):
        return write(file, text[: len(text) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("morphmlp.line_file.os.write", half)
        yield patch


def drained(lines):
    found = []
    while batch := lines.oldest():
        found += [line.strip() for line in batch]
        lines.drop(batch)
    return found


def test_lines_come_out_in_order_and_survive_their_process(tmp_path):
    first = WaitingLines(tmp_path / "w")
    for word in ("one", "two", "three"):
        first.append(word)
    first.drop(first.oldest()[:1])
    first.close()
    second = WaitingLines(tmp_path / "w")
    second.append("four")
    assert drained(second) == ["one", "two", "three", "four"]  # dropped ones leave the file when all are dropped
    assert second.empty()
    assert (tmp_path / "w").stat().st_size == 0


def test_more_than_memory_should_hold_comes_in_portions(tmp_path):
    lines = WaitingLines(tmp_path / "w")
    sent = [f"{number} {'x' * 300_000}" for number in range(10)] + ["y" * 3_000_000]
    for line in sent:
        lines.append(line)
    assert len(lines.oldest()) < 5
    assert drained(lines) == sent


def test_what_a_full_disk_refuses_is_neither_lost_nor_truncated(tmp_path, full_disk):
    log, lines = LineFile(tmp_path / "log"), WaitingLines(tmp_path / "w")
    lines.append("first")
    log.append("first")
    assert (tmp_path / "log").read_text() == ""
    assert lines.oldest() == ["first\n"]
    full_disk.undo()
    log.append("second")
    lines.append("second")
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
    assert drained(lines) == ["first", "second"]


def test_what_another_writer_appends_meanwhile_is_not_cut_off_with_a_refused_line(tmp_path, monkeypatch):
    log, other = LineFile(tmp_path / "log"), LineFile(tmp_path / "log")
    write, others = os.write, threading.Thread(target=other.append, args=("other",))

    def half(file, text):
        if text == b"other\n":
            return write(file, text)
        others.start()
        others.join(0.2)  # it waits for the first one's lock
        return write(file, text[: len(text) // 2])

    monkeypatch.setattr("morphmlp.line_file.os.write", half)
    log.append("first")
    others.join()
    monkeypatch.undo()
    assert (tmp_path / "log").read_text() == "other\n"
    log.append("second")
    assert (tmp_path / "log").read_text() == "other\nfirst\nsecond\n"


def test_lines_taken_from_memory_may_reach_the_disk_before_they_are_dropped(tmp_path, full_disk):
    lines = WaitingLines(tmp_path / "w")
    lines.append("first")
    taken = lines.oldest()
    full_disk.undo()
    lines.append("second")
    lines.drop(taken)
    assert drained(lines) == ["second"]


def test_lines_of_others_are_on_disk_at_once_and_the_owner_deals_with_them(tmp_path):
    owner, other = WaitingLines(tmp_path / "w"), WaitingLines(tmp_path / "w")
    owner.append("first")
    assert owner.oldest() == ["first\n"]
    other.append("second")
    assert (tmp_path / "w").read_text() == "first\nsecond\n"  # wherever either is killed now
    assert not other.empty()
    assert drained(owner) == ["first", "second"]
    assert other.empty()


def test_what_others_append_while_a_line_waits_in_memory_is_not_dropped_for_it(tmp_path, full_disk):
    owner, other = WaitingLines(tmp_path / "w"), WaitingLines(tmp_path / "w")
    owner.append("first")
    taken = owner.oldest()
    full_disk.undo()
    other.append("other's")
    owner.drop(taken)
    assert drained(owner) == ["other's"]


def test_no_line_of_another_is_lost_when_the_owner_empties_the_file(tmp_path):
    owner, other = WaitingLines(tmp_path / "w"), WaitingLines(tmp_path / "w")
    sent = [f"line {number}" for number in range(2000)]

    def append():
        for line in sent:
            other.append(line)

    appending, found = threading.Thread(target=append), []
    appending.start()
    while appending.is_alive():
        found += drained(owner)
    appending.join()
    assert found + drained(owner) == sent


def test_lines_that_never_reached_the_disk_can_be_dropped(tmp_path, full_disk):
    lines = WaitingLines(tmp_path / "w")
    lines.append("first")
    lines.drop(lines.oldest())
    assert lines.empty()
    lines.append("second")
    assert drained(lines) == ["second"]


def test_another_owner_is_waited_for(tmp_path):
    first, second = WaitingLines(tmp_path / "w"), WaitingLines(tmp_path / "w")
    first.append("first")
    assert first.oldest() == ["first\n"]
    second.append("second")
    assert second.oldest() == []
    assert not second.empty()
    first.close()
    assert drained(second) == ["first", "second"]


def test_a_line_that_a_crash_left_unfinished_takes_no_other_with_it(tmp_path):
    (tmp_path / "w").write_text("first\nsec")
    lines = WaitingLines(tmp_path / "w")
    lines.append("third")
    assert drained(lines) == ["first", "third"]


@pytest.mark.parametrize(("text", "left"), [("a\nb", "a\n"), ("a\n", "a\n"), ("ab", ""), ("", "")])
def test_a_line_that_a_crash_left_unfinished_is_removed(tmp_path, text, left):
    path = tmp_path / "w"
    path.write_text(text)
    remove_truncated_line(path)
    assert path.read_text() == left


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    remove_truncated_line(tmp_path / "w")
    assert list(read_json_lines(tmp_path / "w")) == []


def test_a_truncated_line_is_left_out_and_the_rest_read(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b'{"a": 1}\n{"a": {"a": 2}\n\0\0\n{"a": 3}\n{"a"')
    assert [line["a"] for line in read_json_lines(path)] == [1, 3]


def test_lines_are_read_as_they_come_and_none_in_part(tmp_path):
    path = tmp_path / "w"
    lines, path_later = JsonLines(path), tmp_path / "w"
    assert list(lines.read()) == []
    with path_later.open("a") as file:
        for text, found in [
            ('{"a": 1}\n{"a":', [1]),
            (" 2", []),
            ("}\n", [2]),
            ("", []),
            ('{"a": "\u00e9"}\n', ["\u00e9"]),
        ]:
            file.write(text)
            file.flush()
            assert [line["a"] for line in lines.read()] == found
    assert list(JsonLines(path, from_end=True).read()) == []

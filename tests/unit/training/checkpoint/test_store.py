"""Checkpoints in a folder and in an object store: whole, or refused by name; never run."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from object_storage import ObjectStorage

from morphmlp.errors import CheckpointError, StorageError
from morphmlp.tasks.scores import TOP1, ScoreName
from morphmlp.training.checkpoint.content import FORMAT, write_content
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore

WHAT_IS_KEPT = ["checkpoint.pt", "complete.json"]


def facts_of(step, score=None):
    return CheckpointFacts(epoch=step // 10, step=step, score=score)


def content_of(step):
    return {"format": FORMAT, "step": step, "model": {"weight": torch.full((100_000,), float(step))}}


def save(store, step, score=None):
    return store.save(content_of(step), facts_of(step, score))


def steps(store):
    return [checkpoint.facts.step for checkpoint in store.stored()]


def names_in(store):
    """Everything in the store's folder, hidden or not."""
    return sorted(path.name for path in Path(store.location).iterdir())


def newest(store):
    """The step of the newest checkpoint by its content, and what was told."""
    lines = []
    found = store.newest(lines.append)
    if found is None:
        return None, lines
    checkpoint, content = found
    assert torch.equal(content["model"]["weight"], content_of(checkpoint.facts.step)["model"]["weight"])
    return content["step"], lines


@pytest.fixture
def objects():
    return ObjectStorage()


@pytest.fixture(params=["folder", "object store"])
def store(request, tmp_path, objects):
    if request.param == "folder":
        return CheckpointStore.of(str(tmp_path), "demo")
    return CheckpointStore(objects.filesystem(), f"{tmp_path}/demo/checkpoints")


@pytest.fixture
def folder_store(tmp_path):
    return CheckpointStore.of(str(tmp_path), "demo")


@pytest.fixture
def object_store(tmp_path, objects):
    return CheckpointStore(objects.filesystem(), f"{tmp_path}/demo/checkpoints")


def test_an_empty_store_has_no_newest_checkpoint(store):
    assert store.stored() == []
    assert newest(store) == (None, [])


def test_what_was_saved_is_read_back(store):
    saved = store.save(content_of(123), CheckpointFacts(epoch=12, step=123, score=51.5))
    assert store.stored() == [saved]
    assert saved.facts == CheckpointFacts(epoch=12, step=123, score=51.5)
    assert saved.name.startswith("step-00000123-")
    assert torch.equal(store.read(saved.name)["model"]["weight"], content_of(123)["model"]["weight"])
    assert newest(store) == (123, [])


def test_a_checkpoint_lies_in_the_run_s_folder(store, tmp_path):
    saved = save(store, 1)
    folder = tmp_path / "demo" / "checkpoints" / saved.name
    assert saved.location == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == WHAT_IS_KEPT
    assert names_in(store) == [saved.name]
    marker = json.loads((folder / "complete.json").read_text())
    assert marker["size"] == (folder / "checkpoint.pt").stat().st_size


def test_a_relative_storage_stays_where_it_was_when_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore.of("runs", "demo")
    monkeypatch.chdir("/")
    save(store, 1)
    assert (tmp_path / "runs" / "demo" / "checkpoints").is_dir()


def test_checkpoints_are_ordered_by_step_and_those_of_one_step_by_time(store):
    saved = [save(store, step) for step in (100, 20, 100)]
    assert store.stored() == [saved[1], saved[0], saved[2]]
    assert len({checkpoint.name for checkpoint in saved}) == 3


def test_runs_under_one_storage_are_kept_apart(tmp_path):
    one, other = CheckpointStore.of(str(tmp_path), "one"), CheckpointStore.of(str(tmp_path), "other")
    save(one, 1)
    last = save(other, 2)
    other.prune(last, keep_last=1, best_by=None, log=pytest.fail)
    assert (steps(one), steps(other)) == ([1], [2])


def test_content_of_another_format_is_not_saved(store):
    with pytest.raises(ValueError, match="morphmlp-checkpoint-1"):
        store.save({"format": "morphmlp-checkpoint-1"}, facts_of(1))
    assert store.stored() == []


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(truncate, "truncated: it has "), (flip_a_bit, "damaged"), (Path.unlink, "truncated: it has no checkpoint.pt")],
)
def test_a_harmed_checkpoint_is_told_by_name_and_the_one_before_is_used(harm, reason, store):
    save(store, 1)
    harmed = save(store, 2)
    harm(Path(harmed.location, "checkpoint.pt"))
    step, (line,) = newest(store)
    assert step == 1
    assert line.startswith(f"checkpoint left out: {harmed.location}: {reason}")
    with pytest.raises(CheckpointError, match=reason):
        store.read(harmed.name)


def test_a_run_does_not_start_afresh_over_checkpoints_that_cannot_be_read(store):
    harmed = [save(store, step) for step in (1, 2)]
    for checkpoint in harmed:
        truncate(Path(checkpoint.location, "checkpoint.pt"))
    with pytest.raises(CheckpointError, match="none of its checkpoints can be read") as caught:
        newest(store)
    assert all(checkpoint.name in str(caught.value) for checkpoint in harmed)
    assert "\n" not in str(caught.value)


GARBLED = {
    "empty": "",
    "half": '{"format": "morphmlp-checkpoint-3", "size": 12',
    "no object": "12",
    "too little": '{"format": "morphmlp-checkpoint-3"}',
}


@pytest.mark.parametrize("kind", GARBLED)
def test_a_checkpoint_with_a_garbled_marker_is_left_out_by_name(kind, store):
    save(store, 1)
    garbled = save(store, 2)
    Path(garbled.location, "complete.json").write_text(GARBLED[kind])
    assert steps(store) == [1]
    step, (line,) = newest(store)
    assert step == 1
    assert f"{garbled.name}: its complete.json is garbled or not ours" in line


def test_a_garbled_marker_does_not_let_a_run_start_afresh(store):
    Path(save(store, 2).location, "complete.json").write_text("{")
    with pytest.raises(CheckpointError, match="none of its checkpoints can be read"):
        newest(store)


def test_a_marker_of_another_format_is_left_out_by_name(store):
    marker = Path(save(store, 2).location, "complete.json")
    marker.write_text(marker.read_text().replace(FORMAT, "morphmlp-checkpoint-9"))
    assert steps(store) == []
    with pytest.raises(CheckpointError, match="'morphmlp-checkpoint-9', not 'morphmlp-checkpoint-3'"):
        newest(store)


def test_a_checkpoint_without_a_marker_is_left_out_by_name(store):
    save(store, 1)
    unmarked = save(store, 2)
    Path(unmarked.location, "complete.json").unlink()
    assert steps(store) == [1]
    step, (line,) = newest(store)
    assert step == 1
    assert f"{unmarked.name}: no complete checkpoint, it has no complete.json" in line
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        store.read(unmarked.name)


def test_a_folder_that_lost_its_only_marker_does_not_let_a_run_start_afresh(folder_store):
    Path(save(folder_store, 1).location, "complete.json").unlink()
    with pytest.raises(CheckpointError, match="none of its checkpoints can be read"):
        newest(folder_store)


def test_an_object_store_where_the_first_writer_died_lets_the_run_start_afresh(object_store):
    Path(save(object_store, 1).location, "complete.json").unlink()
    step, (line,) = newest(object_store)
    assert step is None
    assert "no complete checkpoint" in line


def test_other_files_and_folders_are_neither_listed_nor_removed(store):
    saved = save(store, 1)
    for name in ("step-best", "checkpoint_000001", ".cache", ".step-1.unfinished"):
        Path(store.location, name).mkdir()
    Path(store.location, "notes.txt").write_text("mine")
    last = save(store, 2)
    store.prune(last, keep_last=1, best_by=None, log=pytest.fail)
    assert steps(store) == [2]
    others = [".cache", ".step-1.unfinished", "checkpoint_000001", "notes.txt", "step-best"]
    assert names_in(store) == sorted([*others, last.name])
    assert saved.name not in names_in(store)


def with_content(store, write):
    """A checkpoint whose marker vouches for a content that was written some other way."""
    saved = save(store, 9)
    path = Path(saved.location, "checkpoint.pt")
    write(path)
    marker = json.loads(Path(saved.location, "complete.json").read_text())
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    Path(saved.location, "complete.json").write_text(
        json.dumps({**marker, "size": path.stat().st_size, "sha256": digest})
    )
    return saved


def test_pickled_code_is_never_run(store, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    save(store, 1)
    for write in (
        lambda path: path.write_bytes(pickle.dumps({"format": FORMAT, "model": Malicious()}, protocol=2)),
        lambda path: torch.save({"format": FORMAT, "model": Malicious()}, path),
    ):
        saved = with_content(store, write)
        with pytest.raises(CheckpointError, match="not ours: ") as caught:
            store.read(saved.name)
        assert "\n" not in str(caught.value)
    step, lines = newest(store)
    assert step == 1
    assert len(lines) == 2
    assert not (tmp_path / "harm").exists()
    torch.load(Path(saved.location, "checkpoint.pt"), weights_only=False)
    assert (tmp_path / "harm").exists()  # so it would have run


@pytest.mark.parametrize("content", [{"model": {}}, {"format": "morphmlp-checkpoint-1"}, [1, 2]])
def test_content_of_something_else_is_refused_by_name(content, store):
    save(store, 1)
    others = with_content(store, lambda path: torch.save(content, path))
    step, (line,) = newest(store)
    assert step == 1
    assert f"{others.name}: not ours: its content isn't of format 'morphmlp-checkpoint-3'" in line


@pytest.mark.parametrize("room", [0, 1000, 300_000])
def test_a_failing_write_leaves_nothing_and_keeps_the_earlier_ones(room, objects, object_store):
    saved = save(object_store, 1)
    objects.writes_fail_after = room
    with pytest.raises(CheckpointError, match="No space left on device; earlier checkpoints are kept") as caught:
        save(object_store, 2)
    assert object_store.location in str(caught.value)
    assert names_in(object_store) == [saved.name]
    objects.writes_fail_after = None
    save(object_store, 3)
    assert steps(object_store) == [1, 3]


def test_what_cannot_be_cleaned_up_is_not_taken_for_whole_and_goes_with_the_next_save(objects, object_store):
    objects.writes_fail_after, objects.deletes_fail = 1000, True
    with pytest.raises(CheckpointError, match="No space left"):
        save(object_store, 1)
    assert len(names_in(object_store)) == 1
    assert steps(object_store) == []
    objects.writes_fail_after, objects.deletes_fail = None, False
    saved = save(object_store, 2)
    assert names_in(object_store) == [saved.name]


def test_a_storage_that_cannot_be_listed_is_no_empty_one(objects, object_store):
    save(object_store, 1)
    objects.listing_fails = True
    for use in (newest, CheckpointStore.stored, lambda store: save(store, 2)):
        with pytest.raises(StorageError, match="can't be listed: the network is down"):
            use(object_store)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, None])
@pytest.mark.parametrize("file", ["complete.json", "checkpoint.pt"])
def test_a_checkpoint_that_cannot_be_read_now_is_not_left_out_for_an_older_one(
    file, number, objects, object_store, monkeypatch
):
    save(object_store, 1)
    save(object_store, 2)
    open_stream = objects.open_input_stream

    def fail(path):
        if "step-00000002" in path and path.endswith(file):
            raise OSError(number, "slow down") if number else OSError("AWS Error SLOW_DOWN during GetObject")
        return open_stream(path)

    monkeypatch.setattr(objects, "open_input_stream", fail)
    with pytest.raises(StorageError, match=r"step-00000002-.*; fix the storage, or move this checkpoint away"):
        newest(object_store)


def test_two_tries_to_write_the_same_fail_with_the_same_words(objects, object_store):
    objects.writes_fail_after = 100
    words = set()
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            save(object_store, 1)
        words.add(str(caught.value))
    assert len(words) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "demo").write_text("a file in the way")
    with pytest.raises(CheckpointError, match=r"demo/checkpoints: can't be written: Not a directory"):
        save(CheckpointStore.of(str(tmp_path), "demo"), 1)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://bucket/runs", "^nothing://bucket/runs: can't be used as storage: "),
        ("nothing://key:secret@bucket/runs?option=secret", "^nothing://bucket/runs: can't be used as storage: "),
    ],
)
def test_an_address_of_no_known_kind_is_refused_without_its_secrets(address, message):
    with pytest.raises(CheckpointError, match=message):
        CheckpointStore.of(address, "demo")


@pytest.fixture(scope="module")
def dead_writers(tmp_path_factory):
    """The storage in which writers of three runs came to grief over step 2, and what they said."""
    storage = tmp_path_factory.mktemp("runs")
    for run_name in ("truncated", "killed", "full"):
        save(CheckpointStore.of(str(storage), run_name), 1)
    program = Path(__file__).parents[1] / "dying_writers.py"
    ended = subprocess.run([sys.executable, program, storage], capture_output=True, text=True, check=True, timeout=120)
    return storage, ended.stdout


@pytest.mark.parametrize(("how", "signal_number"), [("truncated", signal.SIGXFSZ), ("killed", signal.SIGKILL)])
def test_a_writer_that_dies_leaves_the_one_before_and_hidden_remains(how, signal_number, dead_writers):
    storage, output = dead_writers
    assert f"{how}: {-signal_number}\n" in output
    store = CheckpointStore.of(str(storage), how)
    (before,) = store.stored()
    hidden, name = names_in(store)
    assert hidden.startswith(".step-00000002-")
    assert name == before.name
    assert newest(store) == (1, [])
    after = save(store, 3)
    assert names_in(store) == sorted([before.name, after.name])


def test_a_full_disk_is_told_and_leaves_the_one_before(dead_writers):
    storage, output = dead_writers
    assert "full: 0\n" in output
    assert "can't be written: File too large; earlier checkpoints are kept" in output
    store = CheckpointStore.of(str(storage), "full")
    assert newest(store) == (1, [])
    assert len(names_in(store)) == 1


LOSS = ScoreName(key="loss", title="loss", unit="", higher_is_better=False)
SCORES = {1: 10.0, 2: 50.0, 3: None, 4: 50.0, 5: 40.0, 6: None}


@pytest.mark.parametrize(
    ("keep_last", "best_by", "kept"),
    [
        (1, None, [6]),
        (2, None, [5, 6]),
        (1, TOP1, [4, 6]),
        (1, LOSS, [1, 6]),
        (3, TOP1, [4, 5, 6]),
        (9, None, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_newest_and_the_best_are_kept(keep_last, best_by, kept, store):
    for step, score in SCORES.items():
        last = save(store, step, score)
    store.prune(last, keep_last=keep_last, best_by=best_by, log=pytest.fail)
    assert steps(store) == kept
    assert len(names_in(store)) == len(kept)


def test_the_best_is_found_again_and_where_it_is_truncated_the_next_best_and_that_is_told(store):
    saved = {step: save(store, step, score) for step, score in SCORES.items()}
    assert store.best(TOP1, pytest.fail)[0] == saved[4]
    assert store.best(LOSS, pytest.fail)[0] == saved[1]
    truncate(Path(saved[4].location, "checkpoint.pt"))
    lines = []
    found, content = store.best(TOP1, lines.append)
    assert (found, content["step"]) == (saved[2], 2)
    assert "checkpoint left out" in lines[0]
    assert saved[4].name in lines[0]


def test_there_is_no_best_where_nothing_was_validated_whatever_else_is_truncated(store):
    assert store.best(TOP1, pytest.fail) is None
    save(store, 1)
    Path(save(store, 2).location, "complete.json").write_text("{")
    assert store.best(TOP1, lambda line: None) is None
    assert newest(store)[0] == 1


def test_no_best_is_kept_where_nothing_was_validated(store):
    save(store, 1)
    store.prune(save(store, 2), keep_last=1, best_by=TOP1, log=pytest.fail)
    assert steps(store) == [2]


def test_a_truncated_checkpoint_of_a_later_step_does_not_count_as_one_of_the_newest(store):
    save(store, 5)
    truncate(Path(save(store, 10, score=90.0).location, "checkpoint.pt"))
    assert newest(store)[0] == 5
    store.prune(save(store, 7, score=50.0), keep_last=1, best_by=TOP1, log=pytest.fail)
    assert steps(store) == [7]


def test_a_delete_that_fails_is_told_and_leaves_no_half_checkpoint(objects, object_store):
    old, last = save(object_store, 1), save(object_store, 2)
    objects.deletes_fail = True
    lines = []
    object_store.prune(last, keep_last=1, best_by=None, log=lines.append)
    assert lines == [f"{old.location}: an old checkpoint that can't be removed: Permission denied"]
    assert newest(object_store) == (2, [])


def test_old_checkpoints_that_cannot_be_listed_stay(objects, object_store):
    last = save(object_store, 1)
    objects.listing_fails = True
    lines = []
    object_store.prune(last, keep_last=1, best_by=None, log=lines.append)
    assert lines == [f"old checkpoints stay: {object_store.location}: can't be listed: the network is down"]


@pytest.mark.parametrize("fails_at", ["marker", "content"])
def test_a_removal_cut_short_leaves_nothing_that_is_taken_for_whole(fails_at, objects, object_store, monkeypatch):
    old, last = save(object_store, 1), save(object_store, 2)

    def fail(*_):
        raise OSError("cut short")

    monkeypatch.setattr(objects, "delete_file" if fails_at == "marker" else "delete_dir", fail)
    object_store.prune(last, keep_last=1, best_by=None, log=lambda _: None)
    assert steps(object_store) == ([1, 2] if fails_at == "marker" else [2])
    if fails_at == "marker":
        assert object_store.read(old.name)["step"] == 1
    monkeypatch.undo()
    object_store.prune(save(object_store, 3), keep_last=1, best_by=None, log=pytest.fail)
    assert len(names_in(object_store)) == 1


def test_a_stream_that_keeps_what_is_not_sent_is_told_to_send_it():
    class SlowStream:
        waiting = most = 0

        def write(self, data):
            self.waiting += len(data)
            self.most = max(self.most, self.waiting)

        def flush(self):
            self.waiting = 0

    stream = SlowStream()
    write_content(stream, {"format": FORMAT, "moments": [torch.zeros(4_000_000) for _ in range(10)]})
    assert stream.most < 100e6

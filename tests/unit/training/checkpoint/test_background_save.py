"""Checkpoints written during the training: the newest waits, required ones are never passed over, failures are told."""

import errno
import gc
import time
import weakref

import pytest
import torch
from object_storage import ObjectStorage

from morphmlp.errors import StorageError
from morphmlp.tasks.scores import TOP1
from morphmlp.training.checkpoint.background_save import BackgroundSaver
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore

LONG_S = 30.0


@pytest.fixture
def objects():
    storage = ObjectStorage()
    yield storage
    storage.may_write.set()


@pytest.fixture
def store(objects, tmp_path):
    return CheckpointStore(objects.filesystem(), f"{tmp_path}/demo/checkpoints")


@pytest.fixture
def saver(store):
    return saver_of(store)


def saver_of(store, **changes):
    return BackgroundSaver(store, **{"keep_last": 10, "best_by": None, "retry_after_s": 0.0, **changes})


def submit(saver, step, *, required=False, score=None):
    content = {"format": FORMAT, "step": step, "model": {"weight": torch.full((1000,), float(step))}}
    saver.submit(content, CheckpointFacts(epoch=0, step=step, score=score), required=required)


def hold(objects, saver, step):
    """Submit a snapshot whose writing doesn't come to an end before `may_write` is set."""
    objects.may_write.clear()
    submit(saver, step)
    assert objects.opened.wait(LONG_S)


def release(objects, saver):
    objects.may_write.set()
    saver.finish(LONG_S)


def steps(store):
    return [checkpoint.facts.step for checkpoint in store.stored()]


def test_a_snapshot_is_saved(saver, store):
    assert (saver.last_saved, saver.seconds_of_last) == (None, None)
    submit(saver, 1, score=5.0)
    saver.finish(LONG_S)
    assert saver.last_saved == store.stored()[0]
    assert saver.last_saved.facts == CheckpointFacts(epoch=0, step=1, score=5.0)
    assert saver.seconds_of_last > 0
    assert saver.notes() == []


def test_finish_without_snapshots_returns(saver):
    saver.finish(0.0)


def test_slow_storage_does_not_hold_up_training(objects, saver, store):
    hold(objects, saver, 1)
    submit(saver, 2)
    assert steps(store) == []  # and yet submit() came back
    release(objects, saver)
    assert steps(store) == [1, 2]
    assert saver.notes() == []


def test_a_newer_snapshot_takes_the_waiting_one_s_place_and_that_is_told(objects, saver, store):
    hold(objects, saver, 1)
    for step in (2, 3, 4):
        submit(saver, step)
    (note,) = saver.notes()
    assert note.startswith("checkpoints at steps 2, 3 were passed over: writing one takes longer than the distance to")
    assert saver.notes() == []
    release(objects, saver)
    assert steps(store) == [1, 4]


def test_storage_that_stays_slow_is_told_ever_more_rarely(objects, saver):
    hold(objects, saver, 1)
    told = {}
    for step in range(2, 25):
        submit(saver, step)
        for note in saver.notes():
            told[step] = note
    assert list(told) == [3, 4, 6, 10, 18]  # 1, 2, 4, 8 and 16 were passed over
    assert told[18].startswith("checkpoints at steps 15, 16, 17 and 13 before them were passed over: ")
    release(objects, saver)


def test_a_required_snapshot_is_never_passed_over(objects, saver, store):
    hold(objects, saver, 1)
    submit(saver, 2, required=True)
    submit(saver, 3)
    submit(saver, 4)
    submit(saver, 5, required=True)
    (note,) = saver.notes()
    assert note.startswith("checkpoints at steps 3, 4 were passed over")
    release(objects, saver)
    assert steps(store) == [1, 2, 5]


def test_old_checkpoints_are_removed_after_each_save(store):
    saver = saver_of(store, keep_last=1, best_by=TOP1)
    for step, score in ((1, 60.0), (2, 50.0), (3, None)):
        submit(saver, step, score=score, required=True)
    saver.finish(LONG_S)
    assert steps(store) == [1, 3]


def test_a_failing_removal_is_told(objects, store):
    saver = saver_of(store, keep_last=1)
    objects.deletes_fail = True
    submit(saver, 1, required=True)
    submit(saver, 2, required=True)
    saver.finish(LONG_S)
    (note,) = saver.notes()
    assert "an old checkpoint that can't be removed" in note
    assert saver.last_saved.facts.step == 2


def test_a_failed_save_is_told_and_training_goes_on(objects, store):
    first = saver_of(store)
    submit(first, 1)
    first.finish(LONG_S)
    saver = saver_of(store, restored=first.last_saved)
    objects.writes_fail_after = 100
    submit(saver, 2)
    saver.finish(LONG_S)
    (note,) = saver.notes()
    assert note.startswith(f"checkpoint at step 2 could not be written: {store.location}: ")
    assert "No space left on device" in note
    assert note.endswith("; training continues, the last good one is step 1")
    assert saver.last_saved == first.last_saved
    assert saver.seconds_of_last is None


def test_a_failed_save_without_an_earlier_one_says_so(objects, saver):
    objects.writes_fail_after = 100
    submit(saver, 2)
    saver.finish(LONG_S)
    assert saver.notes()[0].endswith("; training continues, there is no earlier one")


def test_after_a_failure_the_next_snapshot_is_saved(objects, saver, store):
    hold(objects, saver, 1)
    objects.writes_fail_after = 100
    submit(saver, 2, required=True)
    objects.may_write.set()
    wait_for_note(saver, "at step 2 could not be written")
    submit(saver, 3, required=True)
    wait_for_note(saver, "at step 2 is given up for a newer one")
    objects.writes_fail_after = None
    saver.finish(LONG_S)
    assert steps(store) == [3]


def wait_for_note(saver, text):
    notes, begun = [], time.monotonic()
    while not any(text in note for note in notes):
        assert time.monotonic() - begun < LONG_S, notes
        notes += saver.notes()
        time.sleep(0.001)


def failing_writes(objects, monkeypatch, *, times):
    """Let the first so many writes fail; returns the list of all."""
    open_stream, calls = objects.open_output_stream, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise OSError(errno.EROFS, "read-only")
        return open_stream(*arguments)

    monkeypatch.setattr(objects, "open_output_stream", fail)
    return calls


def test_the_last_checkpoint_waits_in_memory_for_as_long_as_is_stated_and_then_the_error_says_all(objects, store):
    first = saver_of(store)
    submit(first, 1)
    first.finish(LONG_S)
    saver, lines = saver_of(store, restored=first.last_saved), []
    objects.writes_fail_after = 100
    submit(saver, 2, required=True)
    with pytest.raises(StorageError) as caught:
        saver.finish(0.2, log=lines.append)
    refused, waiting = lines
    assert refused.endswith("it is kept in memory and tried again, the last good one is step 1")
    assert waiting.startswith(f"waiting up to 0 s (checkpoint.wait_for_storage_s) for {store.location} to take the")
    assert str(caught.value).startswith(
        f"the checkpoint at step 2, tried for 0 s: {store.location}: can't be written: "
    )
    assert "No space left on device" in str(caught.value)
    assert str(caught.value).endswith("the same command continues from step 1")
    assert steps(store) == [1]


def test_the_last_checkpoint_is_written_once_there_is_room(objects, saver, store, monkeypatch):
    calls, lines = failing_writes(objects, monkeypatch, times=5), []
    submit(saver, 2, required=True)
    saver.finish(LONG_S, log=lines.append)
    lines += saver.notes()
    assert steps(store) == [2]
    assert len(calls) == 5 + 2  # content and marker
    assert sum("could not be written" in line for line in lines) == 1
    assert sum("waiting up to" in line for line in lines) <= 1
    assert lines[-1] == "the checkpoint at step 2 is written now"


def test_whoever_is_in_a_hurry_tries_twice(objects, saver, monkeypatch):
    calls = failing_writes(objects, monkeypatch, times=1000)
    submit(saver, 2, required=True)
    with pytest.raises(StorageError, match=r"Read-only file system.* the same command begins anew"):
        saver.finish(LONG_S, hurry=lambda: len(calls) >= 2)
    assert 2 <= len(calls) < 1000


def test_a_refused_checkpoint_is_given_up_for_a_newer_one_only(objects, saver, store):
    objects.writes_fail_after = 100
    submit(saver, 2, required=True)
    wait_for_note(saver, "at step 2 could not be written")
    submit(saver, 3, required=True)
    wait_for_note(saver, "at step 2 is given up for a newer one")
    objects.writes_fail_after = None
    saver.finish(LONG_S)
    assert steps(store) == [3]


def test_a_required_checkpoint_that_is_not_written_in_time_is_an_error(objects, saver):
    hold(objects, saver, 1)
    submit(saver, 2, required=True)
    with pytest.raises(StorageError, match=r"the checkpoint at step 2 isn't written after 0.0[0-9]+ s; .* begins anew"):
        saver.finish(0.01)


def test_another_checkpoint_that_is_not_written_in_time_is_told(objects, saver):
    hold(objects, saver, 1)
    saver.finish(0.01)
    assert saver.notes() == ["the checkpoint at step 1 isn't written after 0.01 s"]


def test_no_snapshot_is_taken_after_the_end(saver):
    saver.finish(LONG_S)
    with pytest.raises(RuntimeError, match="after finish"):
        submit(saver, 1)


def test_a_defect_is_raised_where_training_can_see_it(saver):
    saver.submit({"format": "something else"}, CheckpointFacts(epoch=0, step=1, score=None))
    with pytest.raises(ValueError, match="something else"):
        saver.finish(LONG_S)


@pytest.mark.parametrize("room", [None, 100])
def test_a_snapshot_s_memory_is_free_once_it_was_written_or_given_up(room, objects, saver):
    objects.writes_fail_after = room
    weight = torch.zeros(1000)
    freed = weakref.ref(weight)
    saver.submit({"format": FORMAT, "weight": weight}, CheckpointFacts(epoch=0, step=1, score=None), required=True)
    del weight
    if room is None:
        saver.finish(LONG_S)
    else:
        with pytest.raises(StorageError):
            saver.finish(0.05)
    begun = time.monotonic()
    while freed() is not None and time.monotonic() - begun < LONG_S:  # until the thread has let go of it
        gc.collect()
    assert freed() is None

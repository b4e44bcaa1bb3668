"""A worker's books: when it saves, what it reports and when it stops. Nothing of Ray is started."""

import itertools
import json
import math
import time
from types import SimpleNamespace

import pytest
import tiny_training as tiny
import torch
from driven_worker import Training

from morphmlp.config.loading import config_from_mapping, config_to_mapping, with_overrides
from morphmlp.errors import StorageError
from morphmlp.record import Metrics
from morphmlp.start_marks import Part, StartMarks, start_in_words, start_parts
from morphmlp.tasks.scores import TOP1
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore
from morphmlp.training.loop.loop import RoundSummary
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.loop.step_guard import SkippedStep
from morphmlp.training.record.report import points_of
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers import ray_trainer, ray_worker, resume
from morphmlp.training.workers.stops import Stop, StopReason, write_stop_request

STEPS_PER_EPOCH = 2
STOP = Stop(reason=StopReason.REQUESTED, detail="SIGTERM")


@pytest.fixture
def reports(monkeypatch):
    """What the worker reports; its validation gives as many percent as epochs are done."""
    told = []

    epochs = itertools.count(1)

    def score(model, batches, *, task, device, too_many):
        return tiny.counts_of(4, top1=next(epochs), top5=4, loss_sum=1.0), []

    monkeypatch.setattr(ray_worker.ray.train, "report", told.append)
    monkeypatch.setattr(ray_worker, "_node_leaves", lambda: False)
    monkeypatch.setattr(ray_worker, "score_single_views", score)
    return told


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_the_last_step_of_an_epoch_is_saved_with_the_scores_of_its_validation_only(reports, folder):
    training = Training(folder)
    training.run()
    assert training.saving.saved == [(1, None), (2, 25.0), (3, None), (4, 50.0)]


def test_where_the_time_before_the_first_step_went_is_said_once(reports, folder):
    command = StartMarks(folder.start)
    command.mark(Part.COMMAND, at=time.time() - 30)
    command.mark(Part.IMPORTS, at=time.time() - 20)
    Training(folder).run()
    parts = start_parts(folder.start)
    assert list(parts) == [Part.IMPORTS, Part.WORKER, Part.MODEL, Part.CLIPS, Part.STEP]
    assert sum(parts.values()) >= 30
    notes = [note for report in reports for note in report.get("notes", []) if "after the command began" in note]
    assert notes == [start_in_words(folder.start)]


def test_a_run_that_no_command_marks_says_nothing_of_its_start(reports, folder):
    Training(folder).run()
    assert not any("after the command began" in note for report in reports for note in report.get("notes", []))


def test_the_last_step_of_a_run_that_ends_inside_an_epoch_is_saved_with_its_scores_only(reports, folder):
    training = Training(folder, **{"train.max_steps": 3})
    training.run()
    assert training.saving.saved == [(1, None), (2, 25.0), (3, 50.0)]


def test_the_last_step_of_an_epoch_is_reported_together_with_its_validation(reports, folder):
    Training(folder).run()
    found = [{point.key: point.step for point in points_of(report)} for report in reports]
    steps = [(points.get(Metrics.TRAIN_LOSS), points.get(TOP1.val_metric)) for points in found]
    assert steps == [(1, None), (2, 1), (3, None), (4, 2), (None, None)]


def test_whoever_is_asked_to_stop_at_the_last_step_of_an_epoch_validates_first(reports, folder):
    training = Training(folder)
    calls = iter([False, True])
    training.worker.guard.wants_to_stop = lambda: next(calls, False)
    write_stop_request(folder.stop_request, STOP)
    training.run()
    assert training.saving.saved == [(1, None), (2, 25.0), (2, 25.0)]  # the last one is that of the stop
    assert reports[-1] == {"stopped": {"reason": "requested", "detail": "SIGTERM"}}
    assert {point.key for report in reports for point in points_of(report)} >= {TOP1.val_metric}


EARLY = {"train.epochs": 5, "train.early_stopping": {"epochs": 2}}


def scores_by_epoch(monkeypatch, hits, state_of):
    """Validation finds so many of 4 videos right, by epochs that are done."""

    def score(model, batches, *, task, device, too_many):
        return tiny.counts_of(4, top1=hits[state_of().cursor.epoch], top5=4, loss_sum=1.0), []

    monkeypatch.setattr(ray_worker, "score_single_views", score)


def test_training_that_no_longer_improves_ends_with_its_last_epoch_saved_once(reports, folder, monkeypatch):
    training = Training(folder, **EARLY)
    scores_by_epoch(monkeypatch, {1: 1, 2: 3, 3: 3, 4: 2, 5: 4}, lambda: training.state)
    training.run()
    assert training.saving.saved[-1] == (8, 50.0)
    assert training.saving.saved.count((8, 50.0)) == 1
    assert training.saving.last
    detail = "no top-1 better than 75.00 of epoch 2 in the 2 epochs since (train.early_stopping)"
    assert reports[-1] == {"stopped": {"reason": "no_improvement", "detail": detail}}


def test_the_plans_own_end_is_no_early_one(reports, folder, monkeypatch):
    training = Training(folder, **{**EARLY, "train.epochs": 3})
    scores_by_epoch(monkeypatch, {1: 2, 2: 2, 3: 2}, lambda: training.state)
    training.run()
    assert "stopped" not in reports[-1]


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_resumed_run_ends_early_where_it_would_have(steps, reports, folder, monkeypatch):
    """After the eighth step it had ended, but was killed before it could say so."""
    hits = {1: 1, 2: 3, 3: 3, 4: 2, 5: 4}
    training = Training(folder, **EARLY)
    scores_by_epoch(monkeypatch, hits, lambda: training.state)
    contents = {}
    kept = training.saving.save

    def save(**facts):
        kept(**facts)
        config = training.job.config
        contents[training.saving.saved[-1][0]] = snapshot(training.state, config=config, data_fingerprint="12:abc")

    training.saving.save = save
    training.run()
    ended, taken = reports[-1], training.saving.saved

    resumed = Training(folder, **EARLY)
    scores_by_epoch(monkeypatch, hits, lambda: resumed.state)
    restore(resumed.state, checkpoint_from(contents[steps]), config=resumed.job.config, data_fingerprint="12:abc")
    resumed.run()
    assert reports[-1] == ended
    assert resumed.saving.saved == [saved for saved in taken if saved[0] > steps]
    assert tiny.equal(resumed.state.model.state_dict(), training.state.model.state_dict())


def test_a_worker_shows_that_it_lives_in_each_step_and_validation_where_reports_are_long_in_coming(
    reports, folder, monkeypatch
):
    def score(model, batches, **others):
        return tiny.counts_of(len(list(batches)), top1=1, top5=1, loss_sum=1.0), []

    monkeypatch.setattr(ray_worker, "score_single_views", score)
    training = Training(folder, **{"execution.report_every_steps": 20})
    training.clips.validation = lambda: [SimpleNamespace(cpu_s=0.0)] * 3
    training.run()
    assert not folder.progress.exists()  # it was quick
    monkeypatch.setattr(ray_worker, "_SIGN_EVERY_S", 0.0)
    training = Training(folder, **{"execution.report_every_steps": 20})
    training.clips.validation = lambda: [SimpleNamespace(cpu_s=0.0)] * 3
    training.run()
    assert folder.progress.read_text().splitlines() == ["{}"] * 2 * (STEPS_PER_EPOCH + 3)


def test_whoever_is_asked_to_stop_inside_an_epoch_saves_and_stops_at_once(reports, folder):
    training = Training(folder)
    training.worker.guard.wants_to_stop = lambda: True
    write_stop_request(folder.stop_request, STOP)
    training.run()
    assert {step for step, _ in training.saving.saved} == {1}
    assert reports[-1] == {"stopped": {"reason": "requested", "detail": "SIGTERM"}}


def test_a_run_that_is_continued_keeps_the_head_that_it_has_trained(tmp_path):
    """It was asked to replace the file's head; that was done when it began."""
    (tmp_path / "w.pth").touch()  # it isn't read again
    start_from = {"start_from.weights": str(tmp_path / "w.pth"), "start_from.replace_head": True}
    config = config_from_mapping(with_overrides(config_to_mapping(tiny.CONFIG), start_from))
    trained = tiny.new_state(config, tiny.CPU)
    with torch.no_grad():
        trained.model.head.weight.fill_(0.25)
    store = CheckpointStore.of(str(tmp_path), "run")
    store.save(
        snapshot(trained, config=config, data_fingerprint="12:abc"), CheckpointFacts(epoch=0, step=0, score=None)
    )
    state = tiny.new_state(config, tiny.CPU)
    beginning = resume.resume_or_start(
        state,
        store,
        config=config,
        data_fingerprint="12:abc",
        class_names=[],
        progress=tmp_path / "progress.jsonl",
        first=True,
    )
    assert (state.model.head.weight == 0.25).all()
    assert [note for note in beginning.notes if "head" in note] == []


@pytest.mark.parametrize(
    ("asked", "waits", "raises"),
    [
        pytest.param(STOP, "no time to wait", False, id="a signal: the run ends all the same"),
        pytest.param(
            Stop(reason=StopReason.MORE_WORKERS), "waiting", True, id="more workers: they would take the steps again"
        ),
        pytest.param(None, "waiting", True, id="the end of the plan"),
    ],
)
def test_storage_that_takes_no_checkpoint_is_waited_for_unless_the_run_is_to_end(asked, waits, raises, reports, folder):
    training = Training(folder)
    training.saving.refuses = True
    if asked is not None:
        write_stop_request(folder.stop_request, asked)
        training.worker.guard.wants_to_stop = lambda: True
    if raises:
        with pytest.raises(StorageError, match="full"):
            training.run()
    else:
        training.run()
        assert "stopping without a checkpoint of this step: the disk is full" in reports[-2]["notes"]
        assert reports[-1] == {"stopped": asked.to_plain()}
    assert json.loads(folder.progress.read_text()) == {"notes": [waits]}


class StoreThatFails:
    """Can't be read so many times."""

    def __init__(self, times):
        self.times = times

    def newest(self, log):
        self.times -= 1
        if self.times >= 0:
            raise StorageError("the mount is gone")


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
def test_a_checkpoint_to_continue_from_is_waited_for(patience_s, folder, monkeypatch):
    monkeypatch.setattr(resume, "READ_AGAIN_S", 0.0)
    waits = {"patience_s": patience_s, "progress": folder.progress, "first": True}
    if not patience_s:
        with pytest.raises(StorageError, match="gone"):
            resume.newest_for_all(StoreThatFails(3), [], **waits)
    else:
        assert resume.newest_for_all(StoreThatFails(3), [], **waits) == (None, None)
        (line,) = folder.progress.read_text().splitlines()
        assert "the mount is gone; waiting up to 60 s for it" in line


def test_too_many_broken_training_videos_end_the_run_at_that_step_and_not_at_the_next_report(reports, folder):
    fields = {"execution.report_every_steps": 20, "ingest.max_quarantined_share": 0.25}
    training = Training(folder, broken=range(12), **fields)
    training.run()
    assert reports[-1] == {"stopped": {"reason": "too_many_broken", "split": "train", "detail": "6 of 12 train videos"}}
    assert training.saving.saved == [(1, None), (1, None)]  # as due, and for the stop
    assert len(reports) == 2


def test_broken_videos_of_an_epoch_are_weighed_before_its_validation(reports, folder, monkeypatch):
    monkeypatch.delattr(ray_worker, "score_single_views")
    training = Training(folder, broken=range(12), **{"ingest.max_quarantined_share": 0.75})
    training.run()
    assert reports[-1] == {
        "stopped": {"reason": "too_many_broken", "split": "train", "detail": "12 of 12 train videos"}
    }


@pytest.mark.parametrize(
    ("score", "epochs", "saved"),
    [
        (None, 2, [(2, 25.0), (3, None), (4, 50.0)]),
        (None, 1, [(2, 25.0)]),
        (20.0, 2, [(3, None), (4, 25.0)]),  # stopped for another reason, with its score
    ],
)
def test_a_run_stopped_for_broken_videos_at_an_epochs_end_validates_that_epoch_when_it_continues(
    score, epochs, saved, reports, folder
):
    fields = {"train.epochs": epochs}
    stopped = Training(folder, broken=range(12), **fields, **{"ingest.max_quarantined_share": 0.75})
    stopped.run()
    assert stopped.saving.saved == [(1, None), (2, None)]
    content = snapshot(stopped.state, config=stopped.job.config, data_fingerprint="12:abc")
    resumed = Training(folder, **fields)
    restore(resumed.state, checkpoint_from(content), config=resumed.job.config, data_fingerprint="12:abc")
    reports.clear()
    resumed.run(CheckpointFacts(epoch=1, step=2, score=score))
    assert resumed.saving.saved == saved
    scores = [point.step for report in reports for point in points_of(report) if point.key == TOP1.val_metric]
    assert scores == list(range(1 if score is None else 2, epochs + 1))


def test_the_share_of_broken_videos_begins_anew_with_each_epoch(reports, folder):
    training = Training(folder, broken=[3, 5], **{"ingest.max_quarantined_share": 0.25})
    training.run()
    assert "stopped" not in reports[-1]


def test_a_training_set_that_is_gone_ends_the_run_long_before_the_share_of_the_whole(reports, folder):
    training = Training(folder, num_videos=100_000, broken=range(12), **{"ingest.max_quarantined_share": 0.01})
    training.run()
    assert reports[-1] == {
        "stopped": {
            "reason": "too_many_broken",
            "split": "train",
            "detail": "12 of the first 12 of 100000 train videos",
        }
    }


def test_a_validation_with_too_many_broken_videos_gives_no_score_and_ends_the_run(reports, folder, monkeypatch):
    def score(model, batches, *, task, device, too_many):
        assert [too_many(broken) for broken in (0, 1, 2)] == [False, False, True]
        return tiny.counts_of(1, top1=1, top5=1, loss_sum=1.0), [tiny.broken_video(9)] * 2

    monkeypatch.setattr(ray_worker, "score_single_views", score)
    training = Training(folder, **{"ingest.max_quarantined_share": 0.25})
    training.run()
    assert reports[-1] == {"stopped": {"reason": "too_many_broken", "split": "val", "detail": "2 of 4 val videos"}}
    assert training.saving.saved[-2:] == [(2, None), (2, None)]  # never the best one
    assert training.worker.catch_up(CheckpointFacts(epoch=1, step=2, score=None)).split == "val"  # not yet repaired
    assert not {point.key for report in reports for point in points_of(report)} & {TOP1.val_metric, Metrics.VAL_LOSS}


def test_too_many_skipped_steps_end_with_the_command_that_repeats_the_last_one(reports, tmp_path):
    training = Training(RunFolder(tmp_path / "my run"), **{"execution.max_skipped_steps": 3})
    last = SkippedStep(step=6, epoch=0, loss=math.nan, grad_norm=math.inf)
    training.worker.guard = SimpleNamespace(gave_up=True, last_skipped=last, broken_videos=0, stop_requested=False)
    stop = training.worker.should_stop(RoundSummary(step=7, totals=tiny.totals_of()))
    assert stop == Stop(reason=StopReason.DIVERGED, step=7)
    fault = ray_trainer._fault(stop, training.job.folder, ingest=training.job.config.ingest, max_skipped=3)
    assert str(fault).startswith(
        "3 steps in a row had a loss or gradient that isn't finite (execution.max_skipped_steps), the last one step 7; "
        f"repeat it with `python pipelines/replay.py '{tmp_path}/my run' 7`; lower optim.lr"
    )

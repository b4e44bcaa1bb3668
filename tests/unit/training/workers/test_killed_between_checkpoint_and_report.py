"""A worker that is killed at any moment costs the record nothing. Nothing of Ray is started."""

import time
from functools import partial

import pytest
import tiny_training as tiny
from driven_worker import Training

from morphmlp.record import Metrics
from morphmlp.tasks.scores import TOP1
from morphmlp.training.checkpoint.saving import Saving, run_store
from morphmlp.training.record.accounting import read_windows, without_repeats
from morphmlp.training.record.report import read_points
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers import ray_worker
from morphmlp.training.workers.ray_record import RecordReports
from morphmlp.training.workers.resume import resume_or_start

DATA = "12:abc"
STEPS = 4
REPORTS_ON_THE_WAY = 3
"""What a worker has reported and the controller hasn't taken in, at the most."""


class KilledError(BaseException):
    """A worker is killed here."""


class Moments:
    """Counts the moments of a run at which a worker may be killed, and kills it at one."""

    def __init__(self, fatal=None):
        self.fatal, self.seen = fatal, 0

    def pass_by(self):
        self.seen += 1
        if self.seen == self.fatal:
            raise KilledError


class SavingAtOnce(Saving):
    """A checkpoint is complete before training continues; the worker may be killed before that, and after it."""

    def __init__(self, *parts, moments, **others):
        super().__init__(*parts, **others)
        self.moments = moments

    def save(self, **facts):
        self.moments.pass_by()
        before = self._saver.last_saved
        super().save(**facts)
        while self._saver.last_saved is before:
            time.sleep(0.001)
        self.moments.pass_by()


class Record(RecordReports):
    """The controller's side, whose points stay in the progress file."""

    _record = property(lambda self: self)

    def metrics(self, points):
        pass

    def tags(self, tags):
        pass


class Run:
    """A run and its workers, one start after the other."""

    def __init__(self, folder, monkeypatch, **fields):
        self.folder = RunFolder(folder)
        self.fields = {**fields}
        self.monkeypatch = monkeypatch

    def start(self, *, fatal=None, lost=0):
        """Start a worker and kill it at a moment; its last so many reports don't arrive. Whether it came to its end."""
        moments, waiting = Moments(fatal), []
        record = Record(_Nowhere(), self.folder, manifests=())

        def report(told):
            moments.pass_by()
            waiting.append(told)
            if len(waiting) > lost:
                record.after_report(None, [waiting.pop(0)], None)
            moments.pass_by()

        def score(model, batches, *, task, device, too_many):
            return tiny.counts_of(4, top1=2, top5=4, loss_sum=1.0), []

        self.monkeypatch.setattr(ray_worker.ray.train, "report", report)
        self.monkeypatch.setattr(ray_worker, "_node_leaves", lambda: False)
        self.monkeypatch.setattr(ray_worker, "score_single_views", score)
        try:
            self._train(moments)
        except KilledError:
            return False
        for told in waiting:
            record.after_report(None, [told], None)
        return True

    def _train(self, moments):
        def saving(job, state, reporter):
            store = run_store(job.config.checkpoint, self.folder)
            others = {"config": job.config, "data_fingerprint": DATA, "recipe": reporter.recipe, "restored": None}
            return SavingAtOnce(state, store, **others, unrecorded=reporter.unrecorded, moments=moments)

        training = Training(self.folder, saving=saving, **self.fields)
        config = training.job.config
        beginning = resume_or_start(
            training.state,
            run_store(config.checkpoint, self.folder),
            config=config,
            data_fingerprint=DATA,
            class_names=[],
            progress=self.folder.progress,
            first=True,
        )
        training.worker.report_start(beginning.notes, beginning.unrecorded)
        training.run(beginning.facts)

    def points(self, key):
        return {point.step: point.value for point in read_points(self.folder.progress) if point.key == key}


class _Nowhere:
    uri = run_id = ""


EACH_STEP = {"checkpoint.every_steps": 1, "execution.report_every_steps": 1}
SELDOM = {"checkpoint.every_steps": 1, "execution.report_every_steps": 20}
"""Reports at the ends of epochs only, every second step; the checkpoints between them are of a report's middle."""
AFTER_CHECKPOINT, BEFORE_NEXT_CHECKPOINT = 4, 7
"""Moments of a worker that reports each step: two around its first report, two around each checkpoint and report."""
AFTER_NEXT_CHECKPOINT = 6
"""Of one that reports seldom."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = Run(tmp_path_factory.mktemp("undisturbed"), monkeypatch, **EACH_STEP)
        assert run.start()
    return run


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    return partial(Run, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("rhythm", "killed", "steps"),
    [
        (EACH_STEP, {"fatal": AFTER_CHECKPOINT, "lost": 0}, [1, 2, 3, 4]),
        (EACH_STEP, {"fatal": BEFORE_NEXT_CHECKPOINT, "lost": REPORTS_ON_THE_WAY}, [1, 2, 3, 4]),
        (SELDOM, {"fatal": AFTER_CHECKPOINT, "lost": 0}, [1, 2, 3, 4]),
        (SELDOM, {"fatal": AFTER_NEXT_CHECKPOINT, "lost": REPORTS_ON_THE_WAY}, [2, 4]),
    ],
)
def test_workers_that_are_killed_at_each_of_their_checkpoints_cost_the_record_nothing(
    run_of, undisturbed, rhythm, killed, steps
):
    run = run_of(**rhythm)
    for _ in range(STEPS):
        run.start(**killed)
    assert run.start()
    assert list(run.points(Metrics.TRAIN_LOSS)) == steps
    for key in (Metrics.TRAIN_EPOCH_LOSS, TOP1.val_metric):
        assert run.points(key).keys() == undisturbed.points(key).keys(), key
    losses, expected = run.points(Metrics.TRAIN_LOSS), undisturbed.points(Metrics.TRAIN_LOSS)
    windows = without_repeats(read_windows(run.folder.progress))
    assert sum(window.steps for window in windows) == STEPS
    trained = {window.step: window for window in windows if window.steps}
    mean = sum(losses[step] * window.clips for step, window in trained.items()) / sum(
        window.clips for window in windows
    )
    assert mean == pytest.approx(sum(expected.values()) / STEPS, rel=1e-5)

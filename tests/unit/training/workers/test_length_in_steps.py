"""A training whose length is in steps: validated inside epochs, stopped anywhere, continued as if nothing had been."""

import copy
import json

import pytest
import tiny_training as tiny
import torch
import torch.distributed as dist
from driven_worker import STEPS_PER_EPOCH, Training
from forked_workers import start_workers

from morphmlp.data.stream.plan import Cursor
from morphmlp.record import Metrics
from morphmlp.tasks.scores import TOP1
from morphmlp.training.checkpoint.store import CheckpointFacts
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.record.report import points_of
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers import ray_worker
from morphmlp.training.workers.stops import Stop, StopReason, write_stop_request

STOP = Stop(reason=StopReason.REQUESTED, detail="SIGTERM")
HITS = {step: min(step, 2) for step in range(20)}
"""Videos of 4 that validation finds right, by steps: no score is better than that of step 2."""
LENGTHS = {
    "inside epochs": ({"train.steps": 7, "execution.validate_every_steps": 3}, [3, 6, 7]),
    "max_steps inside a round": (
        {"train.steps": 9, "train.max_steps": 5, "execution.validate_every_steps": 3},
        [3, 5],
    ),
    "once an epoch": ({"train.steps": 5}, [2, 4, 5]),
    "every step": ({"train.steps": 3, "execution.validate_every_steps": 1}, [1, 2, 3]),
    "at the end": ({"train.steps": 5, "execution.validate_every_steps": 100}, [5]),
    "ends early": (
        {"train.steps": 19, "execution.validate_every_steps": 3, "train.early_stopping": {"steps": 3}},
        [3, 6],
    ),
}


class KilledError(Exception):
    """The process was killed here."""


class Run:
    """A training as the record and the store see it, over all its starts."""

    def __init__(self, monkeypatch, folder, fields):
        self.folder, self.fields, self.points, self.saved = RunFolder(folder), fields, [], []
        self.contents = {}
        """By steps: the newest checkpoint and its score."""
        self.ended = None
        self.training = None
        monkeypatch.setattr(ray_worker.ray.train, "report", self._report)
        monkeypatch.setattr(ray_worker, "_node_leaves", lambda: False)
        monkeypatch.setattr(ray_worker, "score_single_views", self._score)
        self.killed_in_validation_of = None

    def start(self, *, asked_at=None):
        """Train from the newest checkpoint on, until the end or until asked to stop at a step."""
        self.training = training = Training(self.folder, **self.fields)
        facts = None
        if self.contents:
            step = max(self.contents)
            content, score = copy.deepcopy(self.contents[step])  # training goes on in an optimiser's tensors as loaded
            restore(training.state, checkpoint_from(content), config=training.job.config, data_fingerprint="12:abc")
            facts = CheckpointFacts(epoch=0, step=step, score=score)
        training.saving.keep = self._keep
        if asked_at is not None:
            write_stop_request(self.folder.stop_request, STOP)
            training.worker.guard.wants_to_stop = lambda: self.step + 1 == asked_at
        training.run(facts)
        self.folder.stop_request.unlink(missing_ok=True)
        return training

    @property
    def step(self):
        return self.training.worker._step

    @property
    def validations(self):
        """Steps with the loss of their validation, which is that of the weights."""
        return [(point.step, point.value) for point in self.points if point.key == Metrics.VAL_LOSS]

    @property
    def weights(self):
        return self.training.state.model.state_dict()

    def _report(self, report):
        self.points += points_of(report)
        self.ended = report.get("stopped")

    def _keep(self, step, score):
        self.saved.append((step, score))
        content = snapshot(self.training.state, config=self.training.job.config, data_fingerprint="12:abc")
        self.contents[step] = (content, score)

    def _score(self, model, batches, *, task, device, too_many):
        if self.step == self.killed_in_validation_of:
            raise KilledError
        model.eval()  # as scoring does
        loss = sum(float(parameter.detach().abs().sum()) for parameter in model.parameters())
        return tiny.counts_of(4, top1=HITS[self.step], top5=4, loss_sum=loss), []


@pytest.fixture(params=LENGTHS)
def case(request):
    return LENGTHS[request.param]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Of each length one run that nothing disturbed."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, (fields, _) in LENGTHS.items():
            runs[name] = Run(patch, tmp_path_factory.mktemp("undisturbed"), fields)
            runs[name].start()
    return runs


@pytest.fixture
def undisturbed(request, case, ends):
    return ends[request.node.callspec.params["case"]]


@pytest.fixture
def run(case, undisturbed, tmp_path, monkeypatch):
    run = Run(monkeypatch, tmp_path / "run", case[0])
    run.folder.root.mkdir()
    return run


def same_end(run, undisturbed):
    assert tiny.equal(run.weights, undisturbed.weights)
    assert run.saved[-1] == undisturbed.saved[-1]
    assert run.ended == undisturbed.ended


def test_validations_fall_on_their_steps_and_epochs_are_read_on(case, undisturbed):
    steps = case[1]
    assert [step for step, _ in undisturbed.validations] == steps
    assert undisturbed.saved == [
        (step, 25.0 * HITS[step] if step in steps else None) for step in range(1, steps[-1] + 1)
    ]
    epochs = -(-steps[-1] // STEPS_PER_EPOCH)
    assert undisturbed.training.clips.asked == [Cursor(epoch=epoch) for epoch in range(epochs)]


def test_a_validation_leaves_the_training_as_it_is(case, undisturbed, run):
    run.fields = {**case[0], "execution.validate_every_steps": 100, "train.early_stopping": None}
    run.fields["train.max_steps"] = case[1][-1]
    run.start()
    assert tiny.equal(run.weights, undisturbed.weights)


def test_a_run_that_is_asked_to_stop_anywhere_continues_to_the_same_end(case, undisturbed, run):
    """At a round's last step it validates first; nothing is validated twice."""
    for step in range(1, case[1][-1]):
        run.points, run.contents = [], {}
        run.start(asked_at=step)
        assert (run.ended, run.step) == (STOP.to_plain(), step)
        run.start()
        same_end(run, undisturbed)
        assert run.validations == undisturbed.validations


def test_a_run_that_is_killed_anywhere_continues_to_the_same_end(case, undisturbed, run):
    for step in range(1, case[1][-1]):
        run.points = [point for point in undisturbed.points if point.step <= step]
        run.contents = {step: undisturbed.contents[step]}
        run.start()
        same_end(run, undisturbed)
        assert run.validations == undisturbed.validations


def test_a_run_that_is_killed_in_a_validation_validates_there_when_it_continues(case, undisturbed, run):
    for step in case[1]:
        run.points, run.contents = [], {}
        run.killed_in_validation_of = step
        with pytest.raises(KilledError):
            run.start()
        assert max(run.contents, default=0) == step - 1  # its last step is saved with the score only
        run.killed_in_validation_of = None
        run.start()
        same_end(run, undisturbed)
        assert run.validations == undisturbed.validations


def test_a_checkpoint_between_a_rounds_last_step_and_its_score_is_validated_when_the_run_continues(
    case, undisturbed, run
):
    """Too many broken videos stop a run there."""
    for step in case[1]:
        run.points, run.contents = [], {step: (undisturbed.contents[step][0], None)}
        run.start()
        assert run.validations == [found for found in undisturbed.validations if found[0] >= step]
        assert tiny.equal(run.weights, undisturbed.weights)


def test_a_run_of_so_many_epochs_and_one_of_as_many_steps_are_alike(tmp_path, monkeypatch):
    losses = []
    for fields in ({"train.epochs": 3}, {"train.steps": 6, "execution.validate_every_steps": 5}):
        run = Run(monkeypatch, tmp_path, fields)
        run.start()
        losses.append([point.value for point in run.points if point.key == Metrics.TRAIN_LOSS])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_run_that_ends_early_says_after_how_many_steps(tmp_path, monkeypatch):
    run = Run(monkeypatch, tmp_path, LENGTHS["ends early"][0])
    run.start()
    detail = "no top-1 better than 50.00 of step 3 in the 3 steps since (train.early_stopping)"
    assert run.ended == {"reason": "no_improvement", "detail": detail}


def test_the_mean_loss_of_a_round_goes_by_its_last_step(tmp_path, monkeypatch):
    run = Run(monkeypatch, tmp_path, LENGTHS["inside epochs"][0])
    run.start()
    losses = {point.step: point.value for point in run.points if point.key == Metrics.TRAIN_LOSS}
    means = {point.step: point.value for point in run.points if point.key == Metrics.TRAIN_ROUND_LOSS}
    assert means == pytest.approx(
        {
            3: sum(losses[step] for step in (1, 2, 3)) / 3,
            6: sum(losses[step] for step in (4, 5, 6)) / 3,
            7: losses[7],
        }
    )
    assert Metrics.TRAIN_EPOCH_LOSS not in {point.key for point in run.points}
    assert {point.step for point in run.points if point.key == TOP1.val_metric} == {3, 6, 7}


def test_broken_videos_are_weighed_by_epochs_whatever_the_rounds(tmp_path, monkeypatch):
    """Two of twelve are broken: over the rounds' three steps they'd be met up to four times."""
    fields = {**LENGTHS["inside epochs"][0], "ingest.max_quarantined_share": 0.25}
    run = Run(monkeypatch, tmp_path, fields)
    run.training = training = Training(run.folder, broken=[3, 5], **fields)
    training.run()
    assert run.ended is None


STARTS = ((3, 3), (2, None))
"""Workers of each start, and the step at which they are asked to stop."""
IN_TURN = {"train.steps": 8, "execution.validate_every_steps": 3}


def train_in_turn(rank, workers, folder, number, asked_at):
    """One worker of one start; the first keeps the points and the checkpoint."""
    torch.set_num_threads(1)
    folder = RunFolder(folder)
    meeting = f"file://{folder.root}/meeting{number}"
    if workers > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    training = Training(folder, worker=rank, workers=workers, **IN_TURN)
    points, facts = [], None
    if number:
        content, facts = torch.load(folder.root / f"start{number - 1}.pt", weights_only=False)
        restore(training.state, checkpoint_from(content), config=training.job.config, data_fingerprint="12:abc")

    def score(model, batches, *, task, device, too_many):
        model.eval()
        if rank:
            return task.no_counts(), []
        loss = sum(float(parameter.detach().abs().sum()) for parameter in model.parameters())
        return tiny.counts_of(4, top1=HITS[training.worker._step], top5=4, loss_sum=loss), []

    ray_worker.ray.train.report = lambda report: points.extend(points_of(report))
    ray_worker._node_leaves = lambda: False
    ray_worker.score_single_views = score
    training.worker.guard.wants_to_stop = lambda: rank == 0 and training.worker._step + 1 == asked_at
    training.run(facts if rank == 0 else None)
    if rank == 0:
        step, score_then = training.saving.saved[-1]
        content = snapshot(training.state, config=training.job.config, data_fingerprint="12:abc")
        torch.save((content, CheckpointFacts(epoch=0, step=step, score=score_then)), folder.root / f"start{number}.pt")
        found = [(point.key, point.step, point.value) for point in points]
        (folder.root / f"points{number}.json").write_text(json.dumps(found))
    if workers > 1:
        dist.destroy_process_group()


@pytest.mark.long
def test_one_two_and_three_workers_validate_at_the_same_steps_and_end_alike(tmp_path, monkeypatch):
    """Three stop at a round's end, inside an epoch of the plan; two finish."""
    alone = Run(monkeypatch, tmp_path / "alone", IN_TURN)
    alone.folder.root.mkdir()
    alone.start()
    folder = RunFolder(tmp_path)
    points = []
    for number, (workers, asked_at) in enumerate(STARTS):
        write_stop_request(folder.stop_request, STOP)
        start_workers(train_in_turn, workers, tmp_path, number, asked_at, count=workers)
        points += json.loads((tmp_path / f"points{number}.json").read_text())
    validations = [(step, value) for key, step, value in points if key == Metrics.VAL_LOSS]
    assert [step for step, _ in validations] == [step for step, _ in alone.validations] == [3, 6, 8]
    assert [loss for _, loss in validations] == pytest.approx([loss for _, loss in alone.validations], rel=1e-4)
    losses = [value for key, _, value in points if key == Metrics.TRAIN_LOSS]
    expected = [point.value for point in alone.points if point.key == Metrics.TRAIN_LOSS]
    assert len(losses) == 8
    assert losses == pytest.approx(expected, rel=1e-4)
    last, _ = torch.load(tmp_path / "start1.pt", weights_only=False)
    for name, value in alone.weights.items():
        assert torch.allclose(last["model"][name].float(), value.float(), rtol=1e-3, atol=1e-4), name

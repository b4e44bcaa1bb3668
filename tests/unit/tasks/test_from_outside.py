"""A data set, a task and a metric that the package doesn't know: trained, validated and tested without touching it.

What each of them is made of stands here in one place: a function that writes a manifest, a class with the task's
methods, and a class with the metric's counts.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import torch
from einops import reduce
from PIL import Image
from stored_scores import HEADER
from torch import nn

from morphmlp.config import load_config
from morphmlp.config.model import ModelConfig
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan, TrainPlan
from morphmlp.evaluation import ray_evaluator
from morphmlp.evaluation.ray_evaluator import Scorer, ScorerPool
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.evaluation.validation import score_single_views
from morphmlp.models.backbone import Backbone
from morphmlp.tasks.classification import Classification, ClassificationCounts
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.scores import ScoreName
from morphmlp.tasks.task import Counts, network_input, share, zero
from morphmlp.training.loop.loop import Recipe, StepSummary, fit
from morphmlp.training.loop.state import checkpoint_from, new_state, restore, snapshot
from morphmlp.training.record.report import points_of
from morphmlp.training.record.reporter import Reporter

CPU = torch.device("cpu")
LEVELS = 4
POLICY = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=20.0))
CONFIG = load_config(
    Path(__file__).parents[1] / "small_experiment.yaml",
    {
        "model.depths": [1, 1, 1, 1],
        "model.temporal": "none",
        "clip.sampling": "segments",
        "clip.num_frames": 1,
        "clip.frame_stride": None,
        "augment.repeats": 1,
        "mixing.mixup": 0.0,
        "mixing.cutmix": 0.0,
        "optim.lr": 3e-3,
        "optim.warmup_epochs": 0,
        "train.epochs": 6,
    },
)


# The data set: pictures of an even grey, whose label is its level.


def prepare_greys(folder):
    """Write the pictures and their manifest."""
    rng = np.random.default_rng(0)
    labels = [number % LEVELS for number in range(16)]
    for number, level in enumerate(labels):
        (folder / f"grey{number}").mkdir()
        pixels = rng.integers(0, 20, (40, 48, 3)) + level * 70
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"grey{number}" / "00001.png")
    manifest = manifest_from_rows(
        video_ids=[f"grey{number}" for number in range(len(labels))],
        paths=[str(folder / f"grey{number}") for number in range(len(labels))],
        labels=labels,
        splits=["train"] * len(labels),
        sizes_bytes=[1] * len(labels),
        class_names=[f"level {level}" for level in range(LEVELS)],
    )
    write_manifest(manifest, folder / "greys.parquet")


# The task: a number instead of a class, of which a small error is better than a great one.


class RegressionNetwork(Backbone):
    def __init__(self, config, *, num_frames, crop_size):
        super().__init__(config, num_frames=num_frames, crop_size=crop_size)
        self.value = nn.Linear(sum(config.embed_dims), 1)
        self.reset_parameters()

    def forward(self, clips):
        maps = self.forward_features(clips)
        return self.value(torch.cat([reduce(one, "b c ... -> b c", "mean") for one in maps], dim=1))[:, 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorCounts(Counts):
    error_sum: torch.Tensor = field(default_factory=zero)

    def scores(self):
        return {"mae": share(self.error_sum, self.num_videos)}


@dataclass(frozen=True, kw_only=True)
class LevelRegression:
    model: ModelConfig
    scores = (ScoreName(key="mae", title="mean error", unit="levels", higher_is_better=False),)

    def network(self):
        return RegressionNetwork(self.model, num_frames=1, crop_size=CONFIG.clip.crop_size)

    def train_clips(self):
        return TrainClips(clip=CONFIG.clip, augment=CONFIG.augment)

    def val_clips(self):
        return ViewClips(clip=CONFIG.clip, views=SINGLE_VIEW)

    def test_clips(self):
        return ViewClips(clip=CONFIG.clip, views=CONFIG.test)

    def targets(self, labels):
        return labels.float()

    def notes(self, videos):
        return []

    def mix(self, clips, targets, rng):
        return clips, targets

    def loss_sum(self, outputs, targets):
        return ((outputs.float() - targets) ** 2).sum()

    def no_counts(self):
        return ErrorCounts()

    def counts(self, outputs, labels):
        return ErrorCounts(
            num_videos=zero() + len(labels),
            loss_sum=self.loss_sum(outputs, labels).double(),
            error_sum=(outputs - labels).abs().sum().double(),
        )

    def validated(self, network, batch, device):
        return self.counts(self.values(network, batch.clips, device), batch.labels)

    def outcomes(self, network, clips, maps, device):
        return [self.values(network, views, device).mean().numpy().tobytes() for views in clips]

    def values(self, network, clips, device):
        with torch.inference_mode():
            return network.eval()(network_input(clips, network, device))

    def predictions(self, manifest, outcomes):
        rows = sorted(outcomes)
        table = manifest.table.select(["video_id", "label"]).take(rows)
        return table.append_column("value", pa.array([np.frombuffer(outcomes[row], np.float32)[0] for row in rows]))

    def further_scores(self, table):
        return {}

    def intervals(self, table):
        return {}

    def count_predictions(self, table):
        return self.counts(torch.tensor(table["value"].to_pylist()), torch.tensor(table["label"].to_pylist()))

    def confusion(self, table):
        return None


# The metric: another score of classification, counted by class.


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassMeanCounts(ClassificationCounts):
    videos: torch.Tensor = field(default_factory=lambda: torch.zeros(LEVELS, dtype=torch.float64))
    right: torch.Tensor = field(default_factory=lambda: torch.zeros(LEVELS, dtype=torch.float64))

    def scores(self):
        seen = self.videos > 0
        return {**super().scores(), "class_mean": 100 * float((self.right[seen] / self.videos[seen]).mean())}


@dataclass(frozen=True, kw_only=True)
class WithClassMean(Classification):
    scores: tuple[ScoreName, ...] = (*Classification.scores, ScoreName(key="class_mean", title="mean over classes"))

    def no_counts(self):
        return ClassMeanCounts()

    def counts(self, outputs, labels):
        right = labels[outputs.argmax(dim=1) == labels]
        own = super().counts(outputs, labels)
        return ClassMeanCounts(**vars(own), videos=self.by_class(labels), right=self.by_class(right))

    def by_class(self, labels):
        return torch.bincount(labels, minlength=LEVELS).double()


class Greys:
    """Decoded clips of the data set, as a run gets them from Ray Data."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.plan = TrainPlan.of(CONFIG.train, num_videos=len(manifest))

    def batches(self, plans, extractor):
        shape = ClipShape(clips_per_video=extractor.clips_per_video, num_frames=1, crop_size=CONFIG.clip.crop_size)
        return assemble(
            iter(self.tables(plans, extractor)), iter(plans), manifest=self.manifest, stage="val", shape=shape
        )

    def tables(self, plans, extractor):
        decode = DecodeTask(extractor=extractor, policy=POLICY)
        return [decode(request_table(self.manifest, [plan])) for plan in plans]

    def train(self, cursor):
        plans = list(self.plan.micro_batches(cursor, worker=0, num_workers=1))
        batches = self.batches(plans, task_of(CONFIG).train_clips())
        for _ in range(len(plans) // self.plan.micro_batches_per_step):
            yield [next(batches) for _ in range(self.plan.micro_batches_per_step)]

    def all_rows(self):
        return [MicroBatchPlan(epoch=0, step=0, index=0, rows=np.arange(len(self.manifest)))]


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("greys")
    prepare_greys(folder)
    yield Greys(read_manifest(folder / "greys.parquet").available())
    isolated_videos("pyav", POLICY.limits).close()


def trained(task, greys):
    state = new_state(task, train=CONFIG.train, optim=CONFIG.optim, device=CPU)
    recipe = Recipe.of(CONFIG, plan=greys.plan, task=task)
    summaries = list(fit(state, state.model, greys, recipe=recipe, device=CPU))
    return state, recipe, [summary for summary in summaries if isinstance(summary, StepSummary)]


def counts_of_test(task, state, greys):
    """The test as a run does it, without its cluster."""
    pool = ScorerPool(num_workers=1, cpus_per_worker=1, device="cpu", node_labels={})
    scorer = Scorer(task, state.model.state_dict(), pool)
    tables = [scorer(table) for table in greys.tables(greys.all_rows(), task.test_clips())]
    with TemporaryDirectory() as folder, ScoreStore.create(folder, HEADER) as store:
        result = ray_evaluator._collected(
            tables, greys.manifest, task, store=store, broken_limit=0.0, progress=lambda done: None
        )
    return task.count_predictions(result.predictions)


def validated(task, state, recipe, greys):
    """The validation's points in the record."""
    clips = greys.batches(greys.all_rows(), task.val_clips())
    counts, _ = score_single_views(state.model, clips, task=task, device=CPU)
    counts = task.no_counts().unpack(counts.pack())  # as workers exchange them
    reporter = Reporter(recipe=recipe, first=True, gmacs_per_view=1.0)
    reporter.add_validation(counts, [], at=1)
    return {point.key: point.value for point in points_of(reporter.take())}


def test_a_task_with_a_head_a_loss_and_a_score_of_its_own_is_trained_validated_and_tested(greys):
    task = LevelRegression(model=CONFIG.model)
    state, recipe, steps = trained(task, greys)
    losses = [float(step.totals.loss_sum / step.totals.clips) for step in steps]
    assert np.mean(losses[-2:]) < 0.7 * np.mean(losses[:2])
    points = validated(task, state, recipe, greys)
    assert points.keys() == {"val/mae", "val/loss", "val/num_videos"}
    counts = counts_of_test(task, state, greys)
    assert (int(counts.num_videos), counts.scores()["mae"]) == (16, pytest.approx(points["val/mae"], abs=0.3))


def test_a_metric_of_its_own_stands_in_the_record_beside_the_others(greys):
    task = WithClassMean(**vars(task_of(CONFIG)) | {"scores": WithClassMean.scores})
    state, recipe, _ = trained(task, greys)
    points = validated(task, state, recipe, greys)
    assert points.keys() == {"val/top1", "val/top5", "val/class_mean", "val/loss", "val/num_videos"}
    assert points["val/class_mean"] == pytest.approx(points["val/top1"])  # the classes are alike in size
    assert counts_of_test(task, state, greys).scores().keys() == {"top1", "top5", "class_mean"}


def test_the_state_of_another_task_is_saved_and_resumed(greys):
    task = LevelRegression(model=CONFIG.model)
    state, *_ = trained(task, greys)
    content = snapshot(state, config=CONFIG, data_fingerprint="1:a")
    again = new_state(task, train=replace(CONFIG.train, seed=5), optim=CONFIG.optim, device=CPU)
    restore(again, checkpoint_from(content), config=CONFIG, data_fingerprint="1:a")
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in state.model.state_dict().items())

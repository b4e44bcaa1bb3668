"""Segmentation in the training loop: scenes from files, by one to three workers, stopped and resumed, broken or not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked_workers import start_workers
from torch.nn.parallel import DistributedDataParallel

from morphmlp.config import load_config
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan, TrainPlan
from morphmlp.data.synthetic.scenes import write_ade20k_standin
from morphmlp.evaluation.validation import score_single_views
from morphmlp.tasks.factory import task_of
from morphmlp.training.loop.loop import Recipe, StepSummary, fit
from morphmlp.training.loop.state import checkpoint_from, new_state, restore, snapshot

CPU = torch.device("cpu")
CONFIG = load_config(
    Path(__file__).parents[2] / "small_segmentation.yaml",
    {
        "model.num_classes": 8,
        "model.depths": [1, 1, 1, 1],
        "segmentation.decoder": "upernet",
        "segmentation.auxiliary_weight": 0.4,
        "segmentation.dropout": 0.0,
        "clip.crop_size": 64,
        "clip.short_edge": 64,
        "model.chunk_crop_size": 32,
        "train.global_batch_size": 6,
        "train.epochs": 2,
        "optim.lr": 3e-3,
        "optim.warmup_epochs": 0,
    },
)
TASK = task_of(CONFIG)
STEPS, BROKEN = 8, 5


class Scenes:
    """Micro-batches of a worker, decoded in this process."""

    def __init__(self, manifest, *, worker=0, num_workers=1):
        self.manifest, self.worker, self.num_workers = manifest, worker, num_workers
        self.plan = TrainPlan.of(CONFIG.train, num_videos=len(manifest))

    def batches(self, plans, extractor):
        policy = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=60.0))
        decode = DecodeTask(extractor=extractor, policy=policy)
        for plan in plans:
            tables = iter([decode(request_table(self.manifest, [plan]))])
            yield from assemble(
                tables, iter([plan]), manifest=self.manifest, stage="train", shape=ClipShape.of(extractor)
            )

    def train(self, cursor):
        steps = {}
        for plan in self.plan.micro_batches(cursor, worker=self.worker, num_workers=self.num_workers):
            steps.setdefault(plan.step, []).append(plan)
        for plans in steps.values():
            yield list(self.batches(plans, TASK.train_clips()))

    def validation(self):
        rows = torch.arange(len(self.manifest)).numpy()
        plans = [MicroBatchPlan(epoch=0, step=0, index=row, rows=rows[row : row + 1]) for row in rows]
        return self.batches(plans, TASK.val_clips())


def steps_of(scenes, state, network=None, *, count=STEPS):
    recipe, found = Recipe.of(CONFIG, plan=scenes.plan, task=TASK), []
    for summary in fit(state, network or state.model, scenes, recipe=recipe, device=CPU):
        found += [summary] if isinstance(summary, StepSummary) else []
        if len(found) == count:
            break
    return found


def losses_of(steps):
    return [float(step.totals.loss_sum / step.totals.clips) for step in steps]


def fresh_state():
    return new_state(TASK, train=CONFIG.train, optim=CONFIG.optim, device=CPU)


def train_as_worker(rank, workers, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{workers}", rank=rank, world_size=workers)
    state = fresh_state()
    network = DistributedDataParallel(state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
    scenes = Scenes(read_manifest(Path(folder) / "train.parquet"), worker=rank, num_workers=workers)
    steps = steps_of(scenes, state, network)
    torch.save((losses_of(steps), [len(step.broken) for step in steps]), Path(folder) / f"{workers}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of which one has a map that can't be read."""
    folder = tmp_path_factory.mktemp("scenes")
    write_ade20k_standin(folder, train=24, val=4)
    table = read_manifest(folder / "train.parquet").table
    Path(table["map_path"][BROKEN].as_py()).write_bytes(b"\x89PNG and no more")
    yield folder
    isolated_videos("pyav", Limits(timeout_s=60.0)).close()


@pytest.fixture(scope="module")
def alone(folder):
    """State and steps of one process, and what a checkpoint in the middle holds."""
    scenes, state = Scenes(read_manifest(folder / "train.parquet")), fresh_state()
    first = steps_of(scenes, state, count=STEPS // 2 + 1)
    kept = snapshot(state, config=CONFIG, data_fingerprint="24:a")
    return state, [*first, *steps_of(scenes, state, count=STEPS - len(first))], kept


def test_a_network_learns_scenes_and_a_broken_map_costs_its_image_alone(folder, alone):
    state, steps, _ = alone
    assert len(steps) == STEPS
    losses = losses_of(steps)
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])
    broken = [video for step in steps for video in step.broken]
    assert {video.video_id for video in broken} == {"ADE_train_00000006"}
    assert len(broken) == 2  # once an epoch
    assert sum(int(step.totals.clips) for step in steps) == 2 * 24 - 2
    counts, left_out = score_single_views(
        state.model, Scenes(read_manifest(folder / "train.parquet")).validation(), task=TASK, device=CPU
    )
    assert (int(counts.num_videos), len(left_out)) == (23, 1)
    labelled = counts.confusion.sum()
    assert labelled > 0
    assert 0 < counts.scores()["miou"] <= 100


def test_a_training_that_was_stopped_between_two_steps_ends_with_identical_weights(folder, alone):
    state, steps, kept = alone
    again = new_state(TASK, train=replace(CONFIG.train, seed=9), optim=CONFIG.optim, device=CPU)
    restore(again, checkpoint_from(kept), config=CONFIG, data_fingerprint="24:a")
    rest = steps_of(Scenes(read_manifest(folder / "train.parquet")), again, count=STEPS // 2 - 1)
    assert losses_of(rest) == losses_of(steps[STEPS // 2 + 1 :])
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in state.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_follow_the_loss_curve_of_one(folder, alone, workers):
    """With three, each has one micro-batch a step, and one of them may have lost all its images."""
    start_workers(train_as_worker, workers, str(folder), count=workers)
    found = [torch.load(folder / f"{workers}-{rank}.pt") for rank in range(workers)]
    assert all(losses == found[0][0] for losses, _ in found)
    assert found[0][0] == pytest.approx(losses_of(alone[1]), rel=1e-3)
    assert sum(sum(broken) for _, broken in found) == 2

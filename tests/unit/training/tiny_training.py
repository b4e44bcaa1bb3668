"""A training that takes a second: a small MorphMLP, clips drawn from the row's number, and a list to read them from.

Not a test module, so that two processes can import it by its name.
"""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.config import load_config
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import TrainPlan, random_generator
from morphmlp.tasks.classification import ClassificationCounts
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import zero
from morphmlp.training.loop import state as states
from morphmlp.training.loop.length import Length
from morphmlp.training.loop.loop import Recipe, StepSummary, StepTotals, fit

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
CPU = torch.device("cpu")
CLASSES = 4
REPEATS = 2
CONFIG = load_config(
    SMALL,
    {
        "model.depths": [1, 1, 1, 1],
        "model.embed_dims": [16, 16, 16, 16],
        "clip.num_frames": 2,
        "train.global_batch_size": 6,
        "train.micro_batch_size": 2,
        "optim.lr": 1e-3,
    },
)


def new_state(config=CONFIG, device=CPU, *, precision="fp32"):
    """A fresh state of an experiment."""
    return states.new_state(task_of(config), train=config.train, optim=config.optim, device=device, precision=precision)


def totals_of(loss_sum=0.0, clips=0.0, broken=0.0, skipped=0.0, **others):
    """The totals of a step."""
    numbers = {field.name: 0.0 for field in fields(StepTotals)} | others
    numbers |= {"loss_sum": loss_sum, "clips": clips, "broken": broken, "skipped": skipped}
    return StepTotals(**{name: torch.tensor(float(value)) for name, value in numbers.items()})


def counts_of(num_videos, *, top1=0, top5=0, loss_sum=0.0):
    """Counts of a validation."""
    numbers = {"num_videos": num_videos, "top1_hits": top1, "top5_hits": top5, "loss_sum": loss_sum}
    return ClassificationCounts(**{name: zero() + value for name, value in numbers.items()})


def recipe_of(config=CONFIG, *, num_videos=12, max_steps=None, epochs=None):
    plan = TrainPlan(
        num_videos=num_videos,
        global_batch_size=config.train.global_batch_size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
    )
    length = Length.of(config, steps_per_epoch=plan.steps_per_epoch)
    return Recipe(
        plan=plan,
        task=task_of(config),
        optim=config.optim,
        length=replace(length, whole=epochs or length.whole, max_steps=max_steps),
        clips_per_video=REPEATS,
    )


def clip_of(row, epoch, repeat):
    """Noise in which one colour (or none) is bright, by the class; the same for the same row, epoch and repeat."""
    clip = random_generator(0, epoch, f"v{row}", repeat).integers(0, 128, (2, 32, 32, 3))
    if row % CLASSES < 3:
        clip[..., row % CLASSES] += 100
    return clip.astype(np.uint8)


def broken_video(row):
    return BrokenVideo(
        video_id=f"v{row}",
        path=f"v{row}.mp4",
        size_bytes=None,
        mtime=None,
        stage="train",
        error="DecodeError",
        message="truncated",
        decoder="pyav",
        decoder_version="1",
    )


def micro_batch_of(plan, broken=()):
    good = [row for row in plan.rows.tolist() if row not in broken]
    clips = [clip_of(row, plan.epoch, repeat) for row in good for repeat in range(REPEATS)]
    return MicroBatch(
        plan=plan,
        clips=torch.from_numpy(np.stack(clips)) if clips else torch.empty(0, 2, 32, 32, 3, dtype=torch.uint8),
        labels=torch.tensor([row % CLASSES for row in good for _ in range(REPEATS)], dtype=torch.int64),
        rows=np.array(good, dtype=np.int64),
        broken=tuple(broken_video(row) for row in plan.rows.tolist() if row in broken),
    )


class ListClips:
    """Clips from a list: what a worker trains on, without files or Ray."""

    def __init__(self, plan, *, worker=0, num_workers=1, broken=()):
        self.plan, self.worker, self.num_workers, self.broken = plan, worker, num_workers, broken
        self.asked = []

    def train(self, cursor):
        self.asked.append(cursor)
        steps = {}
        for plan in self.plan.micro_batches(cursor, worker=self.worker, num_workers=self.num_workers):
            steps.setdefault(plan.step, []).append(plan)
        for plans in steps.values():
            yield [micro_batch_of(plan, self.broken) for plan in plans]

    def validation(self):
        return iter(())


def freeze_batch_norm(model):
    """Keep BatchNorm in evaluation mode, so that clips don't see each other."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return model


def hold_biases_before_batch_norm(model):
    """Their true gradient is 0, so that Adam would blow up its rounding error; running means would follow."""
    for convolution in (model.patch_embed1.proj1, model.patch_embed1.proj2):
        convolution.bias.requires_grad_(False)


def train(recipe, *, config=CONFIG, state=None, broken=(), prepare=None):
    """Train alone; returns the state and the summaries."""
    state = state or new_state(config, CPU)
    if prepare:
        prepare(state.model)
    clips = ListClips(recipe.plan, broken=broken)
    return state, list(fit(state, state.model, clips, recipe=recipe, device=CPU))


def losses_of(summaries):
    """Mean loss of every step."""
    return [(s.totals.loss_sum / s.totals.clips.clamp(min=1)).item() for s in summaries if isinstance(s, StepSummary)]


def train_as_worker(rank, workers, folder, recipe, broken_sets):
    """One of several gloo workers; trains once for each set of broken videos and writes what it saw."""
    train_jobs_as_worker(rank, workers, folder, [(CONFIG, recipe)] * len(broken_sets), broken_sets)


def train_jobs_as_worker(rank, workers, folder, jobs, broken_sets=None):
    """One of several gloo workers; carries out each job, an experiment and its recipe, and writes what it saw."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    for number, ((config, recipe), broken) in enumerate(zip(jobs, broken_sets or [()] * len(jobs), strict=True)):
        state = new_state(config, CPU)
        hold_biases_before_batch_norm(state.model)
        network = DistributedDataParallel(state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        clips = ListClips(recipe.plan, worker=rank, num_workers=workers, broken=broken)
        summaries = list(fit(state, network, clips, recipe=recipe, device=CPU))
        steps = [summary for summary in summaries if isinstance(summary, StepSummary)]
        torch.save(
            {
                "losses": losses_of(summaries),
                "totals": [summary.totals.pack().tolist() for summary in summaries],
                "grad_norms": [summary.grad_norm.item() for summary in steps],
                "broken": [video.video_id for summary in steps for video in summary.broken],
                "model": state.model.state_dict(),
            },
            Path(folder) / f"case{number}-worker{rank}.pt",
        )
    dist.destroy_process_group()


def equal(one, other):
    """Whether two contents of checkpoints are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return one == other


class Poison:
    """Makes the network's output NaN in chosen forward passes."""

    def __init__(self, model, passes):
        self.passes, self.count = passes, -1
        model.head.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        self.count += 1
        return output * float("nan") if self.count in self.passes else output


def without_randomness(config=CONFIG):
    """The same experiment without drop path, mixing and repeats of noise."""
    return replace(
        config,
        model=replace(config.model, drop_path_rate=0.0),
        mixing=replace(config.mixing, mixup=0.0, cutmix=0.0),
    )

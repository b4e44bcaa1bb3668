"""What is left of a run after a stop, held against the plan and against the undisturbed run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.drill import DrillError
from morphmlp.drill.demo_run import DemoRun
from morphmlp.record import Metrics
from morphmlp.tracking import RunWriter, find_run
from morphmlp.training.checkpoint.store import CheckpointStore
from morphmlp.training.record.ledger import History, StepVideos

Losses = Mapping[int, tuple[float, ...]]
"""Recorded losses by step."""
Comparison = Literal["bit-identical", "within 1e-4"]
"""How weights are compared: every tensor of the checkpoint the same bit for bit; or, where the number of workers
changed on the way, those of the model within float rounding, relative to the greatest weight of each tensor."""
ROUNDING = 1e-4


@dataclass(frozen=True, kw_only=True)
class Remains:
    """What a finished run leaves."""

    repeated: int
    """Videos that the final weights saw more than once in an epoch."""
    lost: int
    """Planned videos that they never saw, and those that a step took which plans others."""
    redone_steps: int
    """Steps taken again: work that was lost, not data."""
    attempts: int
    """Groups of workers."""
    checkpoint_steps: int
    """Steps in the last checkpoint."""
    weights: Mapping[str, Tensor]
    """Every tensor of the last checkpoint: model, averages, optimiser."""
    losses: Losses
    """Points of the training loss in the record, by step: one each where nothing is lost or doubled."""


@dataclass(frozen=True, kw_only=True)
class Consumption:
    """A history held against the plan. A run that loses nothing has four times zero and its broken videos."""

    repeated: int
    """How often a video was trained on again in the same epoch."""
    lost: int
    """Videos that their epoch planned and no step of it consumed."""
    out_of_place: int
    """How often a video was consumed by a step that plans others."""
    broken: int
    """Planned, but they couldn't be decoded: nobody took their place."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two sets of weights."""

    equal: bool
    comparison: Comparison
    greatest: float
    """Greatest difference of the model's weights, relative to the greatest weight of the tensor; 0 where all are the
    same."""


def remains_of(run: DemoRun) -> Remains:
    """Read ledger, last checkpoint and record of a finished run.

    Raises:
        DrillError: Something of it isn't there.
    """
    config, manifest = run.config, read_manifest(run.demo.videos / "train.parquet").available()
    plan = TrainPlan.of(config.train, num_videos=len(manifest))
    history = run.history()
    found = consumption(history, plan, manifest.table["video_id"].to_pylist(), total_steps=run.demo.steps)
    newest = CheckpointStore.of(run.checkpoint_storage, run.name).newest(lambda _: None)
    if newest is None:
        raise DrillError(f"{run.checkpoint_storage}: the run left no checkpoint")
    stored, content = newest
    return Remains(
        repeated=found.repeated,
        lost=found.lost + found.out_of_place,
        redone_steps=history.redone_steps,
        attempts=len(history.attempts),
        checkpoint_steps=stored.facts.step,
        weights=dict(tensors_of(content)),
        losses=_recorded_losses(run, config.dataset),
    )


def consumption(history: History, plan: TrainPlan, video_ids: Sequence[str], *, total_steps: int) -> Consumption:
    """Hold a history against the plan of the run.

    Args:
        history: Of the whole run.
        plan: Of the run.
        video_ids: Of the available training videos, in the manifest's order.
        total_steps: Steps that the run was to take.
    """
    repeated = lost = out_of_place = broken = 0
    steps = {**{step: StepVideos() for step in range(total_steps)}, **history.steps}
    for epoch in sorted({step // plan.steps_per_epoch for step in steps}):
        first = epoch * plan.steps_per_epoch
        planned: Counter[str] = Counter()
        trained: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        own = _planned_ids(plan, epoch, video_ids)
        for step in (step for step in steps if first <= step < first + plan.steps_per_epoch):
            wanted = own[step - first] if step < total_steps else set()
            found = steps[step]
            planned.update(wanted)
            trained.update(found.videos)
            left_out.update(found.broken)
            out_of_place += sum(name not in wanted for name in (*found.videos, *found.broken))
        repeated += sum(count - 1 for count in trained.values())
        lost += sum(name not in trained and name not in left_out for name in planned)
        broken += len(left_out)
    return Consumption(repeated=repeated, lost=lost, out_of_place=out_of_place, broken=broken)


def _planned_ids(plan: TrainPlan, epoch: int, video_ids: Sequence[str]) -> list[set[str]]:
    """The ids of every step of an epoch."""
    found: list[set[str]] = [set() for _ in range(plan.steps_per_epoch)]
    for micro_batch in plan.micro_batches(Cursor(epoch=epoch), worker=0, num_workers=1):
        found[micro_batch.step].update(video_ids[row] for row in micro_batch.rows.tolist())
    return found


def tensors_of(content: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside nested dicts, lists and tuples, with its path as in `model.head.weight`."""
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from tensors_of(value, f"{path}.{name}" if path else str(name))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from tensors_of(value, f"{path}.{number}")


def difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], comparison: Comparison) -> Difference:
    """Compare two checkpoints' tensors.

    Raises:
        DrillError: They aren't of the same network.
    """
    if shapes(weights) != shapes(expected):
        odd = sorted(dict(shapes(weights).items() ^ shapes(expected).items()))
        raise DrillError(f"the checkpoints hold different tensors: {', '.join(odd[:5])}")
    greatest = max(
        (_relative(value, expected[name]) for name, value in weights.items() if name.startswith("model.")),
        default=0.0,
    )
    identical = all(_same_bits(value, expected[name]) for name, value in weights.items())
    equal = identical if comparison == "bit-identical" else greatest <= ROUNDING
    return Difference(equal=equal, comparison=comparison, greatest=greatest)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor."""
    return {name: (value.shape, value.dtype) for name, value in weights.items()}


def greatest_loss_difference(
    losses: Mapping[int, tuple[float, ...]], expected: Mapping[int, tuple[float, ...]]
) -> float:
    """Greatest relative difference of the losses of a step that both records have; infinity where they share none."""
    shared = losses.keys() & expected.keys()
    return max((abs(losses[step][0] / expected[step][0] - 1) for step in shared), default=float("inf"))


def _same_bits(value: Tensor, expected: Tensor) -> bool:
    return torch.equal(
        value.contiguous().flatten().view(torch.uint8), expected.contiguous().flatten().view(torch.uint8)
    )


def _relative(value: Tensor, expected: Tensor) -> float:
    if not value.numel() or not value.is_floating_point():
        return 0.0
    furthest = (value.double() - expected.double()).abs().max().item()
    return furthest / max(expected.double().abs().max().item(), torch.finfo(torch.float32).tiny)


def _recorded_losses(run: DemoRun, experiment: str) -> dict[int, tuple[float, ...]]:
    found = find_run(run.tracking_uri, run_name=run.name, experiment=experiment)
    if found is None:
        raise DrillError(f"{run.tracking_uri}: holds no run {run.name}")
    points = RunWriter(run.tracking_uri, found.run_id).history([Metrics.TRAIN_LOSS])
    steps: dict[int, list[float]] = {}
    for point in points:
        steps.setdefault(point.step, []).append(point.value)
    return {step: tuple(values) for step, values in steps.items()}


def doubled_points(losses: Losses) -> int:
    """Points of the record beyond one a step."""
    return sum(len(values) - 1 for values in losses.values())


def missing_points(losses: Losses, expected: Losses) -> int:
    """Steps that the record has no point of though the other one has: holes in its curves."""
    return len(expected.keys() - losses.keys())

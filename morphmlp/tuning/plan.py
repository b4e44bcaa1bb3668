"""What a sweep will do, in words, before anything starts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from pydantic import JsonValue

from morphmlp.config.sweep import NoScheduler, SweepConfig
from morphmlp.training.accounting import TRAINING_PASSES
from morphmlp.tuning.space import ImpossiblePoint, Point, Space, short_names, text_of

SHOWN_POINTS = 40
SHOWN_IMPOSSIBLE = 12


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """How fast a cluster trains."""

    gmacs_per_s: float
    """Billion multiply-accumulates a second, forward and backward, over all workers of a trial."""
    source: str
    """The run that it was measured in."""


def plan_text(space: Space, sweep: SweepConfig, *, speed: TrainingSpeed | None, num_videos: int | None) -> str:
    """The plan: points with their cost and time, then what is moved, what is left out, and why.

    Args:
        space: The points.
        sweep: The sweep.
        speed: How fast trials train; None where no run tells.
        num_videos: Of the training manifest; None where there is none yet.
    """
    seeds = len(sweep.seeds)
    proposed = sweep.search.kind == "optuna"
    number = sweep.search.num_points if sweep.search.kind == "optuna" else len(space.points)
    hours = {index: _hours(point, speed, num_videos) for index, point in enumerate(space.points[:SHOWN_POINTS])}
    rows = [
        (
            *map(text_of, point.values.values()),
            f"{point.cost.gmacs:.3g}",
            f"{point.cost.params / 1e6:.3g}",
            _text(hours[index]),
        )
        for index, point in enumerate(space.points[:SHOWN_POINTS])
    ]
    headers = [name.replace("_", " ") for name in short_names(list(space.points[0].values))]
    table = pd.DataFrame(rows, columns=[*headers, "GMAC", "params (M)", "hours"])
    align = ["left"] * len(headers) + ["right"] * 3
    lines = [
        f"{sweep.search.kind} search, {number} points x {seeds} seed(s) = {number * seeds} trials, "
        f"{sweep.max_concurrent_trials} at a time",
        "",
        *(["The points are proposed from results; one of them could be:", ""] if proposed else []),
        table.to_markdown(index=False, disable_numparse=True, colalign=align),
        *([f"... and {len(space.points) - len(rows)} more"] if len(space.points) > len(rows) else []),
        "",
        _time_line(space, sweep, speed, num_videos, number=number),
        *space.notes,
        *_moved(space.points),
        *_left_out(space.impossible),
    ]
    return "\n".join(lines) + "\n"


def _hours(point: Point, speed: TrainingSpeed | None, num_videos: int | None) -> float | None:
    """Hours of a trial's training."""
    if speed is None or num_videos is None:
        return None
    config = point.config
    clips = num_videos * config.augment.repeats * config.train.epochs
    if config.train.max_steps is not None:
        steps = config.train.max_steps * config.train.global_batch_size * config.augment.repeats
        clips = min(clips, steps)
    return clips * point.cost.gmacs * TRAINING_PASSES / speed.gmacs_per_s / 3600


def _time_line(
    space: Space, sweep: SweepConfig, speed: TrainingSpeed | None, num_videos: int | None, *, number: int
) -> str:
    if num_videos is None:
        return "Hours are unknown: the training manifest isn't there yet."
    if speed is None:
        return "Hours are unknown: no finished run of this data set on this hardware is recorded yet."
    known = [_hours(point, speed, num_videos) or 0.0 for point in space.points]
    total = sum(known) / len(known) * number * len(sweep.seeds)
    early = "" if isinstance(sweep.scheduler, NoScheduler) else " at most, since trials are stopped early"
    return (
        f"Training takes {_text(total / sweep.max_concurrent_trials)} hours{early}, at {speed.gmacs_per_s:.3g} GMAC/s "
        f"as in {speed.source}; starts and tests come on top."
    )


def _moved(points: Sequence[Point]) -> list[str]:
    moved = [point for point in points if point.replaces is not None]
    if not moved:
        return []
    lines = [f"- {_words(point.replaces or {})} -> {_words(point.values)}" for point in moved[:SHOWN_IMPOSSIBLE]]
    more = [f"- and {len(moved) - len(lines)} more"] if len(moved) > len(lines) else []
    return ["", f"Moved to what is possible and in the budget: {len(moved)}", "", *lines, *more]


def _left_out(impossible: Sequence[ImpossiblePoint]) -> list[str]:
    if not impossible:
        return []
    lines = [f"- {point.title}: {reason}" for point in impossible[:SHOWN_IMPOSSIBLE] for reason in point.reasons]
    if len(impossible) > SHOWN_IMPOSSIBLE:
        fields = Counter(reason.partition(": ")[0] for point in impossible for reason in set(point.reasons))
        kinds = ", ".join(f"{field} {count}" for field, count in fields.most_common(6))
        lines.append(f"- and {len(impossible) - SHOWN_IMPOSSIBLE} more; broken rules by field: {kinds}")
    return ["", f"Impossible, left out: {len(impossible)}", "", *lines]


def _words(values: Mapping[str, JsonValue]) -> str:
    names = short_names(list(values))
    return ", ".join(f"{name} {text_of(value)}" for name, value in zip(names, values.values(), strict=True))


def _text(hours: float | None) -> str:
    return "" if hours is None else f"{hours:.3g}"

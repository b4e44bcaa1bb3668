"""What a sweep will do and how long it takes, in words, before anything starts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import NoScheduler, SweepConfig
from morphmlp.data.manifest import read_manifest
from morphmlp.environment import hardware
from morphmlp.errors import MorphMLPError
from morphmlp.record import Metrics, Tags
from morphmlp.tracking import read_runs, tracking_uri
from morphmlp.training.record.accounting import TRAINING_PASSES
from morphmlp.tuning.space.space import ImpossiblePoint, Point, Space, counted, named, short_names, text_of

SHOWN_POINTS = 40
SHOWN_IMPOSSIBLE = 12
"""Points, or reasons where more points are impossible."""


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """How fast a cluster trains."""

    gmacs_per_s: float
    """Billion multiply-accumulates a second, forward and backward, over all workers of a trial."""
    source: str
    """The run that it was measured in."""


def known_speed(dataset: str) -> TrainingSpeed | None:
    """The speed of the newest finished run of a data set on this hardware; None where there is none."""
    try:
        runs = read_runs(tracking_uri(), dataset=dataset)
    except MorphMLPError:
        return None
    speed, where = f"metrics.{Metrics.RUN_GMACS_PER_S}", f"tags.{Tags.HARDWARE}"
    if runs.empty or speed not in runs or where not in runs:
        return None
    same = runs[(runs[where] == hardware()) & runs[speed].gt(0)]
    if same.empty:
        return None
    newest = same.iloc[0]
    return TrainingSpeed(gmacs_per_s=float(newest[speed]), source=f"run {newest['run_name']}")


def num_videos(manifest: str) -> int | None:
    """Videos of a manifest; None where it isn't there (yet)."""
    try:
        return len(read_manifest(manifest, only=["video_id"]))
    except MorphMLPError:
        return None


def plan_text(space: Space, sweep: SweepConfig, *, speed: TrainingSpeed | None, videos: int | None) -> str:
    """The plan: points with their cost and time, then what is moved, what is left out, and why.

    Where no run shows how fast trials train, or there is no training manifest to count videos of, hours stay unknown.
    """
    seeds = len(sweep.seeds)
    proposed = sweep.search.kind == "optuna"
    number = space.num_points(sweep)
    hours = [
        None
        if speed is None or clips is None
        else clips * point.cost.gmacs * TRAINING_PASSES / speed.gmacs_per_s / 3600
        for point, clips in zip(space.points, _clips(space.points, videos), strict=True)
    ]
    rows = [
        (
            *map(text_of, point.values.values()),
            f"{point.cost.gmacs:.3g}",
            f"{point.cost.params / 1e6:.3g}",
            _text(taken),
        )
        for point, taken in zip(space.points[:SHOWN_POINTS], hours, strict=False)
    ]
    headers = [name.replace("_", " ") for name in short_names(list(space.points[0].values))]
    align = ["left"] * len(headers) + ["right"] * 3
    headers += ["GMAC", "params (M)", "hours"]
    lines = [
        f"{sweep.search.kind} search, {number} points x {seeds} seed(s) = {number * seeds} trials, "
        f"{sweep.max_concurrent_trials} at a time",
        "",
        *(["The points are proposed from results; one of them could be:", ""] if proposed else []),
        tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align),
        *([f"... and {len(space.points) - len(rows)} more"] if len(space.points) > len(rows) else []),
        "",
        _time_line(sweep, speed, hours, number=number),
        *space.notes,
        *_moved(space.points),
        *_left_out(space.impossible),
    ]
    return "\n".join(lines) + "\n"


def _clips(points: Sequence[Point], videos: int | None) -> list[int | None]:
    """Clips that a trial of each point trains on, where the number of videos is known."""
    known: dict[str, int] = {}
    clips: list[int | None] = []
    for point in points:
        # Points that differ in other fields see as many; of a great space few experiments need be made.
        key = repr([value for name, value in point.values.items() if name.startswith(("augment.", "train."))])
        if videos is not None and key not in known:
            known[key] = _clips_of(point.config, videos)
        clips.append(known.get(key))
    return clips


def _clips_of(config: ExperimentConfig, videos: int) -> int:
    train, repeats = config.train, config.augment.repeats
    limits = [steps * min(train.global_batch_size, videos) for steps in (train.steps, train.max_steps) if steps]
    return min([*limits, *([] if train.epochs is None else [videos * train.epochs])]) * repeats


def _time_line(sweep: SweepConfig, speed: TrainingSpeed | None, hours: Sequence[float | None], *, number: int) -> str:
    """How long the sweep of so many points takes, from the hours of a trial of each that is known."""
    if speed is None:
        return "Hours are unknown: no finished run of this data set on this hardware is recorded yet."
    known = [taken for taken in hours if taken is not None]
    if not known:
        return "Hours are unknown: the training manifest isn't there yet."
    trials = number * len(sweep.seeds)
    total = sum(known) / len(known) * trials
    together = min(sweep.max_concurrent_trials, trials)
    parallel = ""
    if together > 1:
        parallel = f" ({_text(total / together)} with {together} at a time, where they don't slow each other down)"
    early = "" if isinstance(sweep.scheduler, NoScheduler) else " at most, since trials are stopped early"
    return (
        f"Training takes {_text(total)} hours{parallel}{early}, at {speed.gmacs_per_s:.3g} GMAC/s as in "
        f"{speed.source}; starts and tests come on top."
    )


def _moved(points: Sequence[Point]) -> list[str]:
    moved = [point for point in points if point.replaces is not None]
    if not moved:
        return []
    lines = [f"- {named(point.replaces or {})} -> {named(point.values)}" for point in moved[:SHOWN_IMPOSSIBLE]]
    more = [f"- and {len(moved) - len(lines)} more"] if len(moved) > len(lines) else []
    return ["", f"Moved to what is possible and in the budget: {len(moved)}", "", *lines, *more]


def _left_out(impossible: Sequence[ImpossiblePoint]) -> list[str]:
    """The points that can't run, or, where there are many, the reasons and for how many points each holds."""
    if not impossible:
        return []
    head = ["", f"Impossible, left out: {len(impossible)}", ""]
    if len(impossible) <= SHOWN_IMPOSSIBLE:
        return head + [f"- {point.title}: {reason}" for point in impossible for reason in point.reasons]
    reasons = Counter(reason for point in impossible for reason in dict.fromkeys(point.reasons)).most_common()
    lines = [f"- {counted(count, 'point')}: {reason}" for reason, count in reasons[:SHOWN_IMPOSSIBLE]]
    rest = {reason for reason, _ in reasons[SHOWN_IMPOSSIBLE:]}
    if rest:
        fields = Counter(
            field
            for point in impossible
            for field in {reason.partition(": ")[0] for reason in point.reasons if reason in rest}
        )
        kinds = ", ".join(f"{field} ({counted(count, 'point')})" for field, count in sorted(fields.items()))
        lines.append(f"- and {len(rest)} more reasons, by field: {kinds}")
    return head + lines


def _text(hours: float | None) -> str:
    if hours is None:
        return ""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"

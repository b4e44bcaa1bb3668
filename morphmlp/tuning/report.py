"""What a sweep prints and records: its plan, its table, its figure, its JSON. Pure functions of points and outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from pydantic import JsonValue

from morphmlp.tuning.space import ImpossiblePoint, Point, Space, short_names, text_of

TRIAL_COLUMNS = ("GMAC", "params (M)", "top-1", "n videos", "state", "run id")
_BLUE = "#2a6f97"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of a point; numbers are missing where it failed."""

    point: Mapping[str, JsonValue]
    title: str
    state: str
    """`finished` or `failed`."""
    run_id: str | None
    """MLflow run; none where the trial failed before it was opened."""
    top1: float | None
    """Percent of `num_videos`."""
    top5: float | None
    num_videos: int | None
    """Test videos scored."""
    gmacs: float
    """Of one view."""
    params: int
    wall_s: float | None
    error: str | None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found; the JSON of `--json`."""

    parent_run_id: str
    run_name: str
    wall_s: float
    trials: tuple[Trial, ...]
    impossible: tuple[ImpossiblePoint, ...]

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Trials without a result."""
        return tuple(trial for trial in self.trials if trial.state == "failed")


def plan_text(space: Space) -> str:
    """The plan, before anything starts: points with their cost, then what is left out and why."""
    points = pd.DataFrame([(*_cells(point.values), *_cost(point)) for point in space.points])
    points.columns = pd.Index([*_headers(space.points[0].values), *TRIAL_COLUMNS[:2]])
    text = f"Points: {len(space.points)}\n\n{_markdown(points)}\n"
    if space.impossible:
        text += f"\nImpossible, left out: {len(space.impossible)}\n\n"
        text += "".join(f"- {point.title}: {reason}\n" for point in space.impossible for reason in point.reasons)
    return text


def trial_table(trials: Sequence[Trial]) -> str:
    """One row per trial, in the grid's order, as Markdown; a failed one shows its reason."""
    rows = [
        (
            *_cells(trial.point),
            f"{trial.gmacs:.3g}",
            f"{trial.params / 1e6:.3g}",
            "" if trial.top1 is None else f"{trial.top1:.1f}",
            "" if trial.num_videos is None else str(trial.num_videos),
            trial.state if trial.error is None else f"failed: {trial.error}".replace("|", "\\|"),
            (trial.run_id or "")[:8],
        )
        for trial in trials
    ]
    return _markdown(pd.DataFrame(rows, columns=[*_headers(trials[0].point), *TRIAL_COLUMNS])) + "\n"


def sweep_figure(trials: Sequence[Trial], *, title: str) -> Figure:
    """Top-1 against GMAC, one labelled dot per finished trial."""
    figure = Figure(figsize=(6.5, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="GMAC of one view", ylabel="test top-1 (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.25, y=0.12)
    dots: dict[tuple[float, float], list[str]] = {}
    for trial in trials:
        if trial.top1 is not None:
            dots.setdefault((trial.gmacs, trial.top1), []).append(trial.title)
    for (gmacs, top1), titles in dots.items():
        axes.plot(gmacs, top1, color=_BLUE, marker="o", markersize=5)
        axes.annotate(
            "\n".join(titles), (gmacs, top1), xytext=(7, 0), textcoords="offset points", fontsize=8, va="center"
        )
    if len({gmacs for gmacs, _ in dots}) == 1:
        # Chunk lengths, for one, don't change the arithmetic: a tick at the one value, not a scale of its digits.
        axes.set_xticks([next(iter(dots))[0]])
    return figure


def _headers(values: Mapping[str, JsonValue]) -> list[str]:
    return [name.replace("_", " ") for name in short_names(list(values))]


def _cells(values: Mapping[str, JsonValue]) -> list[str]:
    return [text_of(value) for value in values.values()]


def _cost(point: Point) -> tuple[str, str]:
    return f"{point.cost.gmacs:.3g}", f"{point.cost.params / 1e6:.3g}"


def _markdown(table: pd.DataFrame) -> str:
    numbers = {"GMAC", "params (M)", "top-1", "n videos"}
    align = ["right" if column in numbers else "left" for column in table.columns]
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)

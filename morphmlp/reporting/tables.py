"""Tables: published numbers next to measured ones, as Markdown, CSV or LaTeX.

Pure functions of one YAML file and a frame of runs (`tracking.read_runs`). A measured number never
stands without its number of videos and its fingerprint, and a cell that nobody measured stays empty.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import pandas as pd
from pydantic import JsonValue, TypeAdapter, ValidationError
from tabulate import tabulate

from morphmlp.config.loading import LATER_FIELDS, LATER_SECTIONS
from morphmlp.config.model import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.errors import ConfigError
from morphmlp.models.cost import ModelCost, planned_cost
from morphmlp.models.presets import preset
from morphmlp.record import Metrics, Tags
from morphmlp.reporting.published import (
    Others,
    PublishedImage,
    PublishedNetwork,
    PublishedSegmentation,
    PublishedVideo,
)
from morphmlp.tasks.scores import MIOU, SCORES, TOP1, TOP5, ScoreName, scores_of

Style = Literal["markdown", "csv", "latex"]
Cell = TypeVar("Cell")

_SCORED = ("published top-1", "published top-5", "measured top-1", "delta", "measured top-5")
_RUN = ("fingerprint", "commit", "run")
VIDEO_COLUMNS = ("model", "frames", "views", "params (M)", "GMAC/view", *_SCORED, "n videos", *_RUN)
IMAGE_COLUMNS = (
    *("model", "resolution", "params (M)", "printed (M)", "GMAC", "printed GFLOPs"),
    *(*_SCORED, "n images", *_RUN),
)
SEGMENTATION_COLUMNS = (
    *("model", "crops", "params (M)", "printed (M)", "GMAC", "published mIoU", "measured mIoU", "delta", "95 %"),
    *("n images", *_RUN),
)
_TEXT_COLUMNS = {"model", "views", *_RUN, "experiment", "start", "temporal", "test", "95 %", "source"}


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A finished run that was tested whole."""

    run_id: str
    run_name: str
    dataset: str
    params: Mapping[str, JsonValue]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """Those of its task, the primary one first."""
        return scores_of(str(self.params["task"]))

    @property
    def is_image(self) -> bool:
        """Whether its network takes images."""
        return self.params.get("model.temporal") == "none"

    @property
    def resolution(self) -> JsonValue:
        """Rows and columns of its test's crops, pixels."""
        return self.params.get("test.crop_size") or self.params.get("clip.crop_size")

    def has(self, params: Mapping[str, JsonValue]) -> bool:
        """Whether it was recorded with these; of what is None nothing was recorded, or null."""
        sections = {name.rpartition(".")[0] for name in self.params}
        return all(self.params.get(name) == value and name not in sections for name, value in params.items())

    @property
    def commit(self) -> str:
        dirty = self.tags.get(Tags.GIT_DIRTY) == "true"
        return self.tags.get(Tags.GIT_COMMIT, "")[:7] + ("+" if dirty else "")


_MODEL = TypeAdapter(ModelConfig)
_SEGMENTATION = TypeAdapter(SegmentationConfig)
_LATER_PARAMS: Mapping[str, JsonValue] = {
    **{name: value for name, value in LATER_FIELDS.items() if not name.startswith(LATER_SECTIONS)},
    "test.single_crop": "centre",
}
"""Parameters that older runs were recorded without, with their values then."""


def published_table(rows: Sequence[PublishedNetwork], runs: pd.DataFrame) -> pd.DataFrame:
    """Published rows of one data set, each with the latest run of the same network, views and length on its data.

    A sweep's trial, a run that `train.max_steps` or `train.early_stopping` may have ended, or one without its test's
    item count or its fingerprint, doesn't count.
    """
    measured = [run for run in _measured(runs) if Tags.PARENT not in run.tags]
    cells = []
    for row in rows:
        run = next((run for run in measured if run.dataset == row.dataset and run.has(row.expected_params())), None)
        cells.append(_segmentation_cells(row, run) if isinstance(row, PublishedSegmentation) else _cells(row, run))
    columns = {PublishedImage: IMAGE_COLUMNS, PublishedSegmentation: SEGMENTATION_COLUMNS}
    return pd.DataFrame(cells, columns=list(columns.get(type(rows[0]), VIDEO_COLUMNS)), dtype=str)


def measured_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The latest tested run of each experiment on a data set, by name; no trials, none stopped by `train.max_steps`.

    Where all are of image networks, nothing is said of frames and views; where all segment, it's said how images were
    seen, and what the primary score lies in.
    """
    latest: dict[str, _Measured] = {}
    for run in _measured(runs):
        if run.dataset == dataset and Tags.PARENT not in run.tags and run.params.get("train.max_steps") is None:
            latest.setdefault(run.tags.get(Tags.EXPERIMENT, run.run_name), run)
    scores = tuple(dict.fromkeys(score for run in latest.values() for score in run.scores)) or scores_of(
        "classification"
    )
    images = bool(latest) and all(run.is_image for run in latest.values())
    network = ("params (M)", "GMAC", "resolution") if images else ("temporal", "params (M)", "GMAC/view", "views")
    segments = bool(latest) and all(run.params["task"] == "segmentation" for run in latest.values())
    columns = [
        *("experiment", *network, *(("test",) if segments else ())),
        *(score.title if score.unit == "%" else f"{score.title} ({score.unit})" for score in scores),
        *(("95 %",) if segments else ()),
        *("n images" if images else "n videos", "train loss", "fingerprint", "commit", "wall time (min)"),
    ]
    cells = [
        (name, *_cells_alone(run, scores, images=images, segments=segments)) for name, run in sorted(latest.items())
    ]
    return pd.DataFrame(cells, columns=columns, dtype=str)


def others_table(groups: Iterable[Others], dataset: str) -> pd.DataFrame:
    """Published numbers on one data set that aren't measured here; columns that no row fills are left out."""
    rows = [(row, group.source) for group in groups if group.dataset == dataset for row in group.rows]
    score = MIOU.title if dataset == "ade20k" else TOP1.title
    table = pd.DataFrame(
        {
            "model": [row.model for row, _ in rows],
            "params (M)": ["" if row.params_m is None else f"{row.params_m:g}" for row, _ in rows],
            "GFLOPs": ["" if row.gflops_total is None else f"{row.gflops_total:g}" for row, _ in rows],
            score: [_percent(row.score) for row, _ in rows],
            "top-5": [_percent(row.top5) for row, _ in rows],
            "source": [source for _, source in rows],
        },
        dtype=str,
    )
    return table.loc[:, (table != "").any()]


def render(table: pd.DataFrame, *, style: Style) -> str:
    """A table as text; LaTeX needs the package booktabs."""
    if style == "csv":
        return table.to_csv(index=False)
    align = ["left" if column in _TEXT_COLUMNS else "right" for column in table.columns]
    form = {"markdown": "pipe", "latex": "latex_booktabs"}[style]
    # Tabulate rejects alignments of columns that an empty table doesn't have.
    rows = table.to_numpy().tolist() or [[""] * len(align)]
    return tabulate(rows, headers=list(table.columns), tablefmt=form, colalign=align, disable_numparse=True) + "\n"


def _measured(runs: pd.DataFrame) -> list[_Measured]:
    """Runs with a test result, its number of videos and a fingerprint, newest first."""
    if runs.empty:
        return []
    found = []
    for record in runs.sort_values("start_time", ascending=False, kind="stable").to_dict("records"):
        cells = {str(name): value for name, value in record.items() if not pd.isna(value)}
        run = _Measured(
            run_id=cells["run_id"],
            run_name=cells["run_name"],
            dataset=cells["dataset"],
            params={**_LATER_PARAMS, **{name: _parsed(text) for name, text in _under("params.", cells).items()}},
            tags=_under("tags.", cells),
            metrics=_under("metrics.", cells),
        )
        if run.params["task"] not in SCORES:  # recorded by another version
            continue
        if {run.scores[0].test_metric, Metrics.TEST_NUM_VIDEOS} <= run.metrics.keys() and Tags.FINGERPRINT in run.tags:
            found.append(run)
    return found


def _under(prefix: str, cells: Mapping[str, Cell]) -> dict[str, Cell]:
    return {name.removeprefix(prefix): value for name, value in cells.items() if name.startswith(prefix)}


def _parsed(text: str) -> JsonValue:
    """A parameter's value; strings are logged bare, everything else as JSON."""
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value


@cache
def _cost(
    model: ModelConfig,
    num_frames: int,
    crop_size: int,
    view_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> ModelCost:
    return planned_cost(
        model, num_frames=num_frames, crop_size=crop_size, view_size=view_size, segmentation=segmentation
    )


def _cost_cells(cost: ModelCost | None) -> tuple[str, str]:
    return (
        ("", "")
        if cost is None
        else (f"{cost.params / 1e6:.1f}", f"{cost.gmacs:.1f}" if cost.gmacs >= 1 else f"{cost.gmacs:.3f}")
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _cells(row: PublishedVideo | PublishedImage, run: _Measured | None) -> tuple[str, ...]:
    chosen = preset(row.preset)
    params, gmacs = _cost_cells(_cost(chosen.model, chosen.num_frames, chosen.crop_size))
    network: tuple[str, ...]
    if isinstance(row, PublishedImage):
        network = str(row.resolution), params, f"{row.params_m:g}", gmacs, f"{row.gflops:.1f}"
    else:
        network = str(row.frames), row.views, params, gmacs
    top5 = "" if run is None else _percent(run.metrics.get(TOP5.test_metric))
    measured = _against(run, TOP1, row.top1)
    return (row.model, *network, _percent(row.top1), _percent(row.top5), *measured, top5, *_run_cells(run))


def _segmentation_cells(row: PublishedSegmentation, run: _Measured | None) -> tuple[str, ...]:
    params, gmacs = _cost_cells(_cost(row.network, 1, row.crop_size, segmentation=row.segmentation))
    interval = "" if run is None else _interval(run, MIOU)
    network = str(row.crop_size), params, f"{row.params_m:.1f}", gmacs
    return (row.model, *network, _percent(row.miou), *_against(run, MIOU, row.miou), interval, *_run_cells(run))


def _against(run: _Measured | None, score: ScoreName, published: float) -> tuple[str, str]:
    """What a run reached, and the difference from what is published."""
    if run is None:
        return "", ""
    reached = run.metrics[score.test_metric]
    return _percent(reached), f"{reached - published:+.1f}"


def _interval(run: _Measured, score: ScoreName) -> str:
    """What the score lies in with 95 %, where that was recorded."""
    low, high = (run.metrics.get(f"{score.test_metric}_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def _run_cells(run: _Measured | None) -> tuple[str, ...]:
    """On how many items, and which run."""
    if run is None:
        return ("",) * 4
    count = f"{run.metrics[Metrics.TEST_NUM_VIDEOS]:.0f}"
    return count, run.tags[Tags.FINGERPRINT], run.commit, f"{run.run_name} ({run.run_id[:8]})"


def _cells_alone(run: _Measured, scores: Sequence[ScoreName], *, images: bool, segments: bool) -> tuple[str, ...]:
    loss = run.metrics.get(Metrics.TRAIN_EPOCH_LOSS, run.metrics.get(Metrics.TRAIN_LOSS))
    wall_s = run.metrics.get(Metrics.RUN_WALL_S)
    cost, temporal = _cost_cells(_run_cost(run)), str(run.params.get("model.temporal", ""))
    return (
        *((*cost, str(run.resolution or "")) if images else (temporal, *cost, _views(run))),
        *((_seen(run),) if segments else ()),
        *(_percent(run.metrics.get(score.test_metric)) for score in scores),
        *((_interval(run, scores[0]),) if segments else ()),
        f"{run.metrics[Metrics.TEST_NUM_VIDEOS]:.0f}",
        "" if loss is None else f"{loss:.3f}",
        run.tags[Tags.FINGERPRINT],
        run.commit,
        "" if wall_s is None else f"{wall_s / 60:.1f}",
    )


def _views(run: _Measured) -> str:
    crops = run.params.get("test.num_crops")
    left = "left " if crops == 1 and run.params["test.single_crop"] == "left" else ""
    words = []
    for name, word in (("test.num_clips", "clip"), ("test.num_crops", f"{left}crop")):
        count = run.params.get(name, "?")
        words.append(f"{count} {word}{'' if count == 1 else 's'}")
    size = f" of {run.resolution} px" if run.params.get("test.crop_size") else ""
    return " x ".join(words) + size + (", best checkpoint" if run.params["test.checkpoint"] == "best" else "")


def _seen(run: _Measured) -> str:
    """How a run's test looked at an image."""
    best = ", best checkpoint" if run.params["test.checkpoint"] == "best" else ""
    try:
        section = _section(run)
    except ValidationError:
        return ""
    return "" if section is None else section.test.in_words + best


def _run_cost(run: _Measured) -> ModelCost | None:
    """The cost of a run's network, or nothing where the run was recorded under another schema."""
    frames, crop_size, view_size = map(run.params.get, ("clip.num_frames", "clip.crop_size", "test.crop_size"))
    if not isinstance(frames, int) or not isinstance(crop_size, int):
        return None
    try:
        model = _MODEL.validate_json(json.dumps(_under("model.", run.params)), strict=True)
        return _cost(model, frames, crop_size, view_size if isinstance(view_size, int) else None, _section(run))
    except (ValidationError, ConfigError):
        return None


def _section(run: _Measured) -> SegmentationConfig | None:
    """What a run was recorded with of segmentation.

    Raises:
        ValidationError: It was recorded under another schema.
    """
    section = _under("segmentation.", run.params)
    if not section:
        return None
    own = {name: value for name, value in section.items() if "." not in name}
    text = json.dumps({**own, "test": _under("test.", section)})
    return _SEGMENTATION.validate_json(text, strict=True)

"""Tables: published numbers next to measured ones, as Markdown, CSV or LaTeX.

Pure functions of one YAML file and a frame of runs (`tracking.read_runs`). A measured number never
stands without its number of videos and its fingerprint, and a cell that nobody measured stays empty.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pandas as pd
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from tabulate import tabulate

from morphmlp.config.loading import read_yaml
from morphmlp.config.schema import ModelConfig
from morphmlp.config.values import STRICT, PositiveFloat, PositiveInt
from morphmlp.errors import ConfigError
from morphmlp.models.cost import ModelCost, model_cost
from morphmlp.models.presets import preset
from morphmlp.record import Metrics, Tags
from morphmlp.tasks.scores import SCORES, TOP1, ScoreName, scores_of

Style = Literal["markdown", "csv", "latex"]
Cell = TypeVar("Cell")
Percent = Annotated[float, Field(ge=0, le=100)]

PUBLISHED_COLUMNS = (
    *("model", "frames", "views", "params (M)", "GMAC/view", "published top-1", "measured top-1", "delta"),
    *("n videos", "fingerprint", "commit", "run"),
)
OTHER_COLUMNS = ("data set", "metric", "published", "source")
_TEXT_COLUMNS = {
    *("model", "views", "fingerprint", "commit", "run", "experiment", "temporal", "data set", "metric", "source")
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedVideo:
    """One published number of a video model."""

    dataset: Literal["k400", "ssv1", "ssv2"]
    """Data set whose validation split was scored."""
    model: str
    """Name in print."""
    preset: str
    """The same network in `models.presets`."""
    frames: PositiveInt
    """Frames per clip."""
    frame_stride: PositiveInt | None
    """Source frames between two clip frames; null where frames come from equal segments."""
    epochs: PositiveInt
    """Length of the published training; a run of another length isn't compared with the number."""
    views: Annotated[str, Field(pattern=r"^\d+ clips? x \d+ crops?$")]
    """Views of a video, in words."""
    top1: Percent
    """Top-1, percent."""
    top5: Percent | None
    """Top-5, percent; null where the source has none."""
    gflops_total: PositiveFloat
    """Multiply-accumulates over all views as printed, billions."""
    source: str
    """Where the row can be read."""
    note: str | None
    """What to know before relying on it."""

    @property
    def num_views(self) -> tuple[int, int]:
        """Clips and crops per video."""
        clips, _, _, crops, _ = self.views.split()
        return int(clips), int(crops)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedOther:
    """A published number of a task that isn't measured here."""

    dataset: Literal["in1k", "ade20k"]
    """Data set."""
    metric: str
    """What the number is, with its unit."""
    value: Percent
    """The number."""
    source: str
    """Where it can be read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Published:
    """Everything in `experiments/published.yaml`."""

    videos: tuple[PublishedVideo, ...]
    others: tuple[PublishedOther, ...]


@plain_dataclass(frozen=True, kw_only=True)
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
    def commit(self) -> str:
        dirty = self.tags.get(Tags.GIT_DIRTY) == "true"
        return self.tags.get(Tags.GIT_COMMIT, "")[:7] + ("+" if dirty else "")


_PUBLISHED = TypeAdapter(Published)
_MODEL = TypeAdapter(ModelConfig)
_LATER_PARAMS: Mapping[str, JsonValue] = {
    "task": "classification",
    "test.single_crop": "centre",
    "test.checkpoint": "last",
}
"""Parameters that older runs were recorded without, with their values then."""


def load_published(path: str | Path) -> Published:
    """Read `published.yaml`.

    Raises:
        ConfigError: The file is missing or holds something else; all faults together.
    """
    try:
        return _PUBLISHED.validate_json(json.dumps(read_yaml(path)), strict=True)
    except ValidationError as error:
        places = ((".".join(str(part) for part in detail["loc"]), detail["msg"]) for detail in error.errors())
        raise ConfigError([f"{path}: {place}: {message}" for place, message in places]) from None


def published_table(rows: Iterable[PublishedVideo], runs: pd.DataFrame) -> pd.DataFrame:
    """Published rows, each with the latest run of the same network, clip, views and epochs on its data.

    A sweep's trial, a run that `train.max_steps` or `train.early_stopping` may have ended, or one without its test's
    video count or its fingerprint, doesn't count.
    """
    measured = [run for run in _measured(runs) if Tags.PARENT not in run.tags]
    cells = []
    for row in rows:
        chosen = preset(row.preset)
        cost = _cost(chosen.model, chosen.num_frames, chosen.crop_size)
        expected = _expected_params(row)
        run = next(
            (run for run in measured if run.dataset == row.dataset and expected.items() <= run.params.items()), None
        )
        cells.append(
            (row.model, str(row.frames), row.views, *_cost_cells(cost), f"{row.top1:.1f}", *_measured_cells(row, run))
        )
    return pd.DataFrame(cells, columns=list(PUBLISHED_COLUMNS), dtype=str)


def measured_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The latest tested run of each experiment on a data set, by name; no trials, none stopped by `train.max_steps`."""
    latest: dict[str, _Measured] = {}
    for run in _measured(runs):
        if run.dataset == dataset and Tags.PARENT not in run.tags and run.params.get("train.max_steps") is None:
            latest.setdefault(run.tags.get(Tags.EXPERIMENT, run.run_name), run)
    scores = tuple(dict.fromkeys(score for run in latest.values() for score in run.scores)) or scores_of(
        "classification"
    )
    columns = [
        *("experiment", "temporal", "params (M)", "GMAC/view", "views"),
        *(score.title if score.unit == "%" else f"{score.title} ({score.unit})" for score in scores),
        *("n videos", "train loss", "fingerprint", "commit", "wall time (min)"),
    ]
    cells = [(name, *_cells_alone(run, scores)) for name, run in sorted(latest.items())]
    return pd.DataFrame(cells, columns=columns, dtype=str)


def other_table(rows: Iterable[PublishedOther]) -> pd.DataFrame:
    """Published numbers of tasks that aren't measured here."""
    cells = [(row.dataset, row.metric, f"{row.value:.1f}", row.source) for row in rows]
    return pd.DataFrame(cells, columns=list(OTHER_COLUMNS), dtype=str)


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


def _expected_params(row: PublishedVideo) -> dict[str, JsonValue]:
    """The parameters that a run must have to stand next to a published row.

    The published one-crop test takes the centre on Kinetics, the left crop on Something-Something. A checkpoint that
    was chosen by validation, whose videos these data sets test on, reads higher and doesn't stand there.
    """
    chosen = preset(row.preset)
    clips, crops = row.num_views
    model = {f"model.{name}": value for name, value in _MODEL.dump_python(chosen.model, mode="json").items()}
    dense: dict[str, JsonValue] = {"clip.sampling": "dense", "clip.frame_stride": row.frame_stride}
    return {
        **model,
        **(dense if row.frame_stride is not None else {"clip.sampling": "segments"}),
        "clip.num_frames": chosen.num_frames,
        "clip.crop_size": chosen.crop_size,
        "test.num_clips": clips,
        "test.num_crops": crops,
        **({"test.single_crop": "centre" if row.dataset == "k400" else "left"} if crops == 1 else {}),
        "test.checkpoint": "last",
        "train.epochs": row.epochs,
        "train.max_steps": None,
        "train.early_stopping": None,
    }


@cache
def _cost(model: ModelConfig, num_frames: int, crop_size: int) -> ModelCost:
    return model_cost(model, num_frames=num_frames, crop_size=crop_size)


def _cost_cells(cost: ModelCost | None) -> tuple[str, str]:
    return (
        ("", "")
        if cost is None
        else (f"{cost.params / 1e6:.1f}", f"{cost.gmacs:.1f}" if cost.gmacs >= 1 else f"{cost.gmacs:.3f}")
    )


def _measured_cells(row: PublishedVideo, run: _Measured | None) -> tuple[str, ...]:
    if run is None:
        return ("",) * 6
    top1 = run.metrics[TOP1.test_metric]
    return (
        f"{top1:.1f}",
        f"{top1 - row.top1:+.1f}",
        f"{run.metrics[Metrics.TEST_NUM_VIDEOS]:.0f}",
        run.tags[Tags.FINGERPRINT],
        run.commit,
        f"{run.run_name} ({run.run_id[:8]})",
    )


def _cells_alone(run: _Measured, scores: Sequence[ScoreName]) -> tuple[str, ...]:
    loss = run.metrics.get(Metrics.TRAIN_EPOCH_LOSS, run.metrics.get(Metrics.TRAIN_LOSS))
    wall_s = run.metrics.get(Metrics.RUN_WALL_S)
    tested = [run.metrics.get(score.test_metric) for score in scores]
    return (
        str(run.params.get("model.temporal", "")),
        *_cost_cells(_run_cost(run)),
        _views(run),
        *("" if value is None else f"{value:.1f}" for value in tested),
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
    return " x ".join(words) + (", best checkpoint" if run.params["test.checkpoint"] == "best" else "")


def _run_cost(run: _Measured) -> ModelCost | None:
    """The cost of a run's network, or nothing where the run was recorded under another schema."""
    frames, crop_size = run.params.get("clip.num_frames"), run.params.get("clip.crop_size")
    if not isinstance(frames, int) or not isinstance(crop_size, int):
        return None
    try:
        model = _MODEL.validate_json(json.dumps(_under("model.", run.params)), strict=True)
        return _cost(model, frames, crop_size)
    except (ValidationError, ConfigError):
        return None

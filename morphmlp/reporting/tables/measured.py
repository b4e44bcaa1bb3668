"""Finished runs that were tested whole, as tables see them: trainings and evaluations alike, no trials of sweeps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import pandas as pd
from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.config.loading import LATER_FIELDS, LATER_SECTIONS
from morphmlp.config.model import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.errors import ConfigError
from morphmlp.models.planned_cost import ModelCost, planned_cost
from morphmlp.record import Metrics, Tags
from morphmlp.tasks.intervals import wilson
from morphmlp.tasks.scores import FURTHER_SCORES, SCORES, ScoreName, scores_of

LATER_PARAMS: Mapping[str, JsonValue] = {
    **{name: value for name, value in LATER_FIELDS.items() if not name.startswith(LATER_SECTIONS)},
    "test.single_crop": "centre",
}
"""Parameters that older runs were recorded without, with their values then."""
Cell = TypeVar("Cell")
_MODEL = TypeAdapter(ModelConfig)
_SEGMENTATION = TypeAdapter(SegmentationConfig)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished run that was tested whole."""

    run_id: str
    run_name: str
    dataset: str
    date: str
    """Day of its start, UTC, ISO 8601."""
    params: Mapping[str, JsonValue]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """Those of its task, the primary one first, and last what it recorded of those that only a test gives."""
        task = str(self.params["task"])
        return (
            *scores_of(task),
            *(score for score in FURTHER_SCORES.get(task, ()) if score.test_metric in self.metrics),
        )

    @property
    def experiment(self) -> str:
        """The configuration's name."""
        return self.tags.get(Tags.EXPERIMENT, self.run_name)

    @property
    def identity(self) -> str:
        """Its name and the beginning of its id; whether it tested a file of weights."""
        return f"{self.run_name} ({self.run_id[:8]}{', weights of a file' if self.evaluates == '' else ''})"

    @property
    def evaluates(self) -> str | None:
        """Of an evaluation the id of the run that trained its weights, empty where none is known; None of others."""
        return self.tags.get(Tags.EVALUATES)

    @property
    def weights(self) -> str | None:
        """SHA-256 of the tensors that were tested; None where it wasn't recorded."""
        return self.tags.get(Tags.WEIGHTS)

    @property
    def is_image(self) -> bool:
        """Whether its network takes images."""
        return self.params.get("model.temporal") == "none"

    @property
    def num_scored(self) -> int:
        """Test items that have a score."""
        return int(self.metrics[Metrics.TEST_NUM_VIDEOS])

    @property
    def num_quarantined(self) -> int | None:
        """Test items that couldn't be decoded; None where it wasn't recorded."""
        count = self.metrics.get(Metrics.TEST_NUM_QUARANTINED)
        return None if count is None else int(count)

    @property
    def test_copy(self) -> str:
        """Which items were to be tested, `N:hash of their ids`; empty where it wasn't recorded."""
        return self.tags.get(Tags.DATA_TEST, "")

    @property
    def commit(self) -> str:
        """Of the code; with + where files differed from it."""
        dirty = self.tags.get(Tags.GIT_DIRTY) == "true"
        return self.tags.get(Tags.GIT_COMMIT, "")[:7] + ("+" if dirty else "")

    @property
    def resolution(self) -> JsonValue:
        """Rows and columns of its test's crops, pixels."""
        return self.params.get("test.crop_size") or self.params.get("clip.crop_size")

    @property
    def views(self) -> str:
        """The views of a video, in words."""
        crops = self.params.get("test.num_crops")
        left = "left " if crops == 1 and self.params["test.single_crop"] == "left" else ""
        words = []
        for name, word in (("test.num_clips", "clip"), ("test.num_crops", f"{left}crop")):
            count = self.params.get(name, "?")
            words.append(f"{count} {word}{'' if count == 1 else 's'}")
        size = f" of {self.resolution} px" if self.params.get("test.crop_size") else ""
        return " x ".join(words) + size + self._chosen

    @property
    def seen(self) -> str:
        """How a test of segmentation looked at an image, in words."""
        try:
            section = self._section()
        except ValidationError:
            return ""
        return "" if section is None else section.test.in_words + self._chosen

    @property
    def num_views(self) -> int | None:
        """Views of an item; None where it wasn't recorded, and of segmentation, whose images are seen in other ways."""
        counts = [self.params.get(name) for name in ("test.num_clips", "test.num_crops")]
        if self.params["task"] == "segmentation":
            return None
        clips, crops = counts
        return clips * crops if isinstance(clips, int) and isinstance(crops, int) else None

    @property
    def total_gmacs(self) -> float | None:
        """Billion multiply-accumulates for one item; None where views or network weren't recorded, or sizes vary."""
        cost = self.cost
        if cost is None:
            return None
        if self.params["task"] != "segmentation":
            return None if self.num_views is None else cost.gmacs * self.num_views
        section = self._section()
        test = None if section is None else section.test
        once = test is not None and test.mode == "whole" and tuple(test.scales) == (1.0,) and not test.flip
        return cost.gmacs if once else None

    def interval(self, score: ScoreName) -> tuple[float, float] | None:
        """What a score lies in with 95 %: as it was recorded, else Wilson's where the score is a share of the items."""
        low, high = (self.metrics.get(f"{score.test_metric}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            return low, high
        value = self.metrics.get(score.test_metric)
        if value is None or not score.of_videos or not self.num_scored:
            return None
        ends = wilson(value / 100, self.num_scored)
        return 100 * float(ends[0]), 100 * float(ends[1])

    def has(self, params: Mapping[str, JsonValue]) -> bool:
        """Whether it was recorded with these; of what is None nothing was recorded, or null."""
        sections = {name.rpartition(".")[0] for name in self.params}
        return all(self.params.get(name) == value and name not in sections for name, value in params.items())

    @cached_property
    def cost(self) -> ModelCost | None:
        """The cost of its network, or nothing where it was recorded under another schema."""
        frames, crop_size, view_size = map(self.params.get, ("clip.num_frames", "clip.crop_size", "test.crop_size"))
        if not isinstance(frames, int) or not isinstance(crop_size, int):
            return None
        try:
            model = _MODEL.validate_json(json.dumps(_under("model.", self.params)), strict=True)
            return cost_of(model, frames, crop_size, view_size if isinstance(view_size, int) else None, self._section())
        except (ValidationError, ConfigError):
            return None

    @property
    def _chosen(self) -> str:
        return ", best checkpoint" if self.params["test.checkpoint"] == "best" else ""

    def _section(self) -> SegmentationConfig | None:
        """What it was recorded with of segmentation.

        Raises:
            ValidationError: It was recorded under another schema.
        """
        section = _under("segmentation.", self.params)
        if not section:
            return None
        own = {name: value for name, value in section.items() if "." not in name}
        text = json.dumps({**own, "test": _under("test.", section)})
        return _SEGMENTATION.validate_json(text, strict=True)


def measured_runs(runs: pd.DataFrame) -> list[Measured]:
    """Runs with a test result, its number of items and a fingerprint, newest first; no trials of sweeps.

    Args:
        runs: As `tracking.read_runs` gives them.
    """
    if runs.empty:
        return []
    found = []
    ordered = runs.sort_values("start_time", ascending=False, kind="stable")
    known = ordered.notna().to_numpy()
    columns = [str(name) for name in ordered.columns]
    for values, there in zip(ordered.itertuples(index=False, name=None), known, strict=True):
        cells = {name: value for name, value, is_there in zip(columns, values, there, strict=True) if is_there}
        tags, metrics = _under("tags.", cells), _under("metrics.", cells)
        task = cells.get("params.task")  # others were recorded by another version
        if Tags.PARENT in tags or Tags.FINGERPRINT not in tags or task not in SCORES:
            continue
        if {scores_of(task)[0].test_metric, Metrics.TEST_NUM_VIDEOS} <= metrics.keys():
            params = {name: _parsed(text) for name, text in _under("params.", cells).items()}
            run = Measured(
                run_id=cells["run_id"],
                run_name=cells["run_name"],
                dataset=cells["dataset"],
                date=cells["start_time"].date().isoformat(),
                params={**LATER_PARAMS, **params},
                tags=tags,
                metrics=metrics,
            )
            found.append(run)
    return found


@cache
def cost_of(
    model: ModelConfig,
    num_frames: int,
    crop_size: int,
    view_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> ModelCost:
    """Parameters and GMAC of one view."""
    return planned_cost(
        model, num_frames=num_frames, crop_size=crop_size, view_size=view_size, segmentation=segmentation
    )


def _under(prefix: str, cells: Mapping[str, Cell]) -> dict[str, Cell]:
    return {name.removeprefix(prefix): value for name, value in cells.items() if name.startswith(prefix)}


@cache
def _parsed(text: str) -> JsonValue:
    """A parameter's value; strings are logged bare, everything else as JSON."""
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value

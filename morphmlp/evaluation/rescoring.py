"""Scores made of what tests stored, without a model: other views, another way of folding, several tests as one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.config.values import Fold
from morphmlp.data.columns import SEGMENTED
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.comparison import Paired, paired
from morphmlp.evaluation.coverage import Coverage, fingerprint_of, missing_labels, score_bounds
from morphmlp.evaluation.score_header import ScoreHeader
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.evaluation.views import COLUMNS, Folded, ViewChoice, ensemble, fold_parts, numbers_of, spread
from morphmlp.tasks.answers import Answers
from morphmlp.tasks.intervals import Estimate
from morphmlp.tasks.scores import ScoreName, further_scores_of, scores_of
from morphmlp.tasks.segmentation.bootstrap import score_differences, score_intervals
from morphmlp.tasks.segmentation.confusion import confusion_scores, table_confusion

SEGMENTED_COLUMNS = tuple(name for name in SEGMENTED.names if name != "prediction")
"""Columns of `SEGMENTED` that scores are made of."""


@dataclass(frozen=True, kw_only=True)
class ChosenViews:
    """Which views of a test count, as a command names them; by default all."""

    clips: str | None = None
    """Clips by their numbers from 1, as in `1-4,7`."""
    crops: str | None = None
    num_clips: int | None = None
    """So many clips, evenly spread over those that there are."""
    num_crops: int | None = None

    @property
    def all(self) -> bool:
        """Whether that's every view."""
        return self == ChosenViews()

    def of(self, header: ScoreHeader) -> ViewChoice:
        """The views of a test.

        Raises:
            EvaluationError: It has no such views.
        """
        return ViewChoice(
            clips=_chosen(self.clips, self.num_clips, of=header.num_clips, what="clips"),
            crops=_chosen(self.crops, self.num_crops, of=header.num_crops, what="crops"),
        )


ALL_VIEWS = ChosenViews()


@dataclass(frozen=True, eq=False, kw_only=True)
class Rescored:
    """Scores of classified videos, and what they are of."""

    headers: Sequence[ScoreHeader]
    """Of each test: several are one ensemble."""
    views: str
    """In words."""
    fold: Fold
    video_ids: pa.Array
    answers: Answers
    coverage: Coverage
    bounds: Mapping[str, tuple[float, float]]
    """Where missing videos could take each score, percent; empty where none is missing."""
    curve: pd.DataFrame | None
    """Top-1 by number of views, of a single test; None of an ensemble."""

    @property
    def name(self) -> str:
        """Of the run, or of the runs together."""
        return " + ".join(header.run_name for header in self.headers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class; a class that has none has its number."""
        named = self.headers[0].class_names
        return (*named, *map(str, range(len(named), self.answers.num_classes)))

    def scores(self) -> list[tuple[ScoreName, float, Estimate | None]]:
        """Each score with its value, and its interval where it has one."""
        values, estimates = self.answers.values(), self.answers.estimates()
        names = (*scores_of("classification"), *further_scores_of("classification"))
        return [(name, values[name.key], estimates.get(name.key)) for name in names]


@dataclass(frozen=True, eq=False, kw_only=True)
class Resegmented:
    """Scores of segmented images, and what they are of."""

    header: ScoreHeader
    store: Path
    """The folder of the scores."""
    table: pa.Table
    """Columns `SEGMENTED_COLUMNS`."""
    coverage: Coverage
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def name(self) -> str:
        """Of the run."""
        return self.header.run_name

    def scores(self) -> list[tuple[ScoreName, float, Estimate | None]]:
        """Each score with its value and its interval."""
        return [
            (name, self.values[name.key], Estimate(value=self.values[name.key], low=low, high=high))
            for name in scores_of("segmentation")
            for low, high in [self.intervals[name.key]]
        ]


class Stores:
    """The stores of a command, with the videos that count in all of them."""

    def __init__(self, paths: Sequence[Path], *, intersect: bool) -> None:
        """Open them.

        Raises:
            EvaluationError: A store is damaged or empty, they have other classes, or other videos without `intersect`.
        """
        self.stores = [ScoreStore.open(path) for path in paths]
        first = self.stores[0].header
        for store in self.stores:
            _require_same_classes(first, store, self.stores[0].root)
            if not store.ids():
                raise EvaluationError(f"{store.root}: no {store.header.items} are scored there yet")
        self.common = self._common(intersect=intersect)

    def rescored(
        self, chosen: ChosenViews = ALL_VIEWS, *, fold: Fold = "sum-logits", places: Sequence[int] | None = None
    ) -> Rescored:
        """The scores of the stores at these places (all), several as an ensemble.

        Raises:
            EvaluationError: They have no such views, or hold no classified videos.
        """
        stores = self.stores if places is None else [self.stores[place] for place in places]
        first = stores[0].header
        if first.task != "classification":
            raise EvaluationError(
                f"{stores[0].root}: holds segmented {first.items}, of which one score each is stored: "
                "neither views nor ensembles can be made of them"
            )
        parts, curves, words = list[Folded](), list[pd.DataFrame](), list[str]()
        for store in stores:
            choice = chosen.of(store.header)
            folded, curve = fold_parts(
                self._parts(store, COLUMNS),
                num_clips=store.header.num_clips,
                num_crops=store.header.num_crops,
                choice=choice,
                fold=fold,
            )
            parts.append(folded)
            curves.append(curve)
            words.append(_views_in_words(store.header, choice, chosen))
        _require_same_labels(parts, stores)
        whole = ensemble(parts, fold)
        coverage = _coverage(stores[0], whole.video_ids, whole.labels)
        answers = whole.answers()
        missing = coverage.num_missing and not coverage.left_out
        return Rescored(
            headers=[store.header for store in stores],
            views=" + ".join(words),
            fold=fold,
            video_ids=whole.video_ids,
            answers=answers,
            coverage=coverage,
            bounds=score_bounds(answers, coverage, missing_labels(stores[0].header, whole.video_ids))
            if missing
            else {},
            curve=curves[0] if len(stores) == 1 and len(curves[0]) > 1 else None,
        )

    def resegmented(self, place: int = 0) -> Resegmented:
        """The scores of the segmented images of the store at this place."""
        store = self.stores[place]
        tables = list(self._parts(store, SEGMENTED_COLUMNS))
        table, num_classes = pa.concat_tables(tables).combine_chunks(), store.header.num_classes
        return Resegmented(
            header=store.header,
            store=store.root,
            table=table,
            coverage=_coverage(store, table["video_id"].combine_chunks(), np.zeros(table.num_rows, np.int64)),
            values=confusion_scores(table_confusion(table, num_classes=num_classes)),
            intervals=score_intervals(table, num_classes=num_classes),
        )

    def _common(self, *, intersect: bool) -> pa.Array | None:
        """Ids that all stores have; None where that's all of each."""
        first = self.stores[0]
        common = first.ids().intersection(*(store.ids() for store in self.stores[1:]))
        other = next((store for store in self.stores if store.ids() != first.ids()), None)
        if other is None:
            return None
        if not common:
            raise EvaluationError(f"{first.root} and {other.root} have no {first.header.items} in common")
        if not intersect:
            here, there = first.ids() - other.ids(), other.ids() - first.ids()
            example = min(here or there)
            raise EvaluationError(
                f"{first.root} and {other.root} are of different {first.header.items}: {len(here):,} are in the first "
                f"alone, {len(there):,} in the second ({example}, ...); --intersect scores on the {len(common):,} that "
                "all have"
            )
        return pa.array(sorted(common), pa.string())

    def _parts(self, store: ScoreStore, columns: Sequence[str]) -> Iterator[pa.Table]:
        for part in store.in_order(columns):
            yield part if self.common is None else part.filter(pc.is_in(part["video_id"], value_set=self.common))


def compared(first: Rescored, second: Rescored) -> Paired:
    """Two tests' answers to the same videos."""
    return paired(first.answers.right, second.answers.right)


def compared_images(first: Resegmented, second: Resegmented) -> Mapping[str, tuple[Estimate, float]]:
    """By score how much better the first is on the same images, and a p-value, by paired bootstrap."""
    return score_differences(first.table, second.table, num_classes=first.header.num_classes)


def _coverage(store: ScoreStore, video_ids: pa.Array, labels: npt.NDArray[np.int64]) -> Coverage:
    return Coverage(
        num_listed=store.header.num_videos,
        num_scored=len(video_ids),
        quarantined=store.broken(),
        fingerprint=store.header.data_fingerprint,
        scored_fingerprint=fingerprint_of(video_ids, labels),
        left_out=len(store.ids()) - len(video_ids),
    )


def _chosen(numbers: str | None, count: int | None, *, of: int, what: str) -> tuple[int, ...]:
    if numbers is not None and count is not None:
        raise EvaluationError(f"--{what} and --num-{what}: choose one, {what} by number or how many")
    if numbers is not None:
        return numbers_of(numbers, of=of, option=f"--{what}", what=what)
    if count is None:
        return tuple(range(of))
    if not 1 <= count <= of:
        raise EvaluationError(f"--num-{what} {count}: the scores have {of} {what}")
    return spread(count, of)


def _views_in_words(header: ScoreHeader, choice: ViewChoice, chosen: ChosenViews) -> str:
    return header.views if chosen.all else choice.in_words(header.num_clips, header.num_crops)


def _require_same_classes(first: ScoreHeader, store: ScoreStore, first_root: Path) -> None:
    header = store.header
    if header.task != first.task:
        raise EvaluationError(f"{store.root} is of task {header.task}, {first_root} of {first.task}")
    if (header.class_names, header.num_classes) != (first.class_names, first.num_classes):
        pairs = zip(first.class_names, header.class_names, strict=False)
        differs = next((f": class {place} is {a!r} and {b!r}" for place, (a, b) in enumerate(pairs) if a != b), "")
        raise EvaluationError(
            f"{first_root} and {store.root} have other classes, {first.num_classes} and {header.num_classes}{differs}; "
            "only scores of the same classes can be put together or compared"
        )


def _require_same_labels(parts: Sequence[Folded], stores: Sequence[ScoreStore]) -> None:
    for part, store in zip(parts[1:], stores[1:], strict=True):
        if (differs := part.labels != parts[0].labels).any():
            row = int(differs.argmax())
            raise EvaluationError(
                f"video {part.video_ids[row].as_py()} is of class {parts[0].labels[row]} in {stores[0].root} and of "
                f"{part.labels[row]} in {store.root}; make both tests with one manifest"
            )

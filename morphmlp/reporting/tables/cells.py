"""The cells of the tables: published numbers next to measured ones, measured ones alone, other networks' numbers.

Pure functions of one YAML file and of runs. A measured number never stands without its number of items, what they were
and its fingerprint, and a cell that nobody measured stays empty.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from morphmlp.models.planned_cost import ModelCost
from morphmlp.models.presets import preset
from morphmlp.record import Metrics, Tags
from morphmlp.reporting.tables.measured import Measured, cost_of
from morphmlp.reporting.tables.published import Others
from morphmlp.reporting.tables.published_rows import (
    PublishedImage,
    PublishedNetwork,
    PublishedSegmentation,
    PublishedVideo,
)
from morphmlp.tasks.scores import MIOU, TOP1, TOP5, ScoreName, scores_of

INTERVAL = "95 %"
_SCORED = (
    *("published top-1", "published top-5", "measured top-1", f"top-1 {INTERVAL}", "delta"),
    *("measured top-5", f"top-5 {INTERVAL}"),
)
_RUN = ("quarantined", "test ids", "fingerprint", "commit", "date", "run")
VIDEO_COLUMNS = (
    *("model", "frames", "views", "params (M)", "GMAC/view", "GMAC x views", "printed GFLOPs"),
    *(*_SCORED, "n videos", *_RUN),
)
IMAGE_COLUMNS = (
    *("model", "resolution", "params (M)", "printed (M)", "GMAC", "printed GFLOPs"),
    *(*_SCORED, "n images", *_RUN),
)
SEGMENTATION_COLUMNS = (
    *("model", "crops", "params (M)", "printed (M)", "GMAC"),
    *("published mIoU", "measured mIoU", f"mIoU {INTERVAL}", "delta", "n images", *_RUN),
)
_WHICH_WEIGHTS = ("test.checkpoint", "test.weights")
"""Fields of a test that choose its weights; the others say how it looks at an item."""
_COLUMNS = {PublishedImage: IMAGE_COLUMNS, PublishedSegmentation: SEGMENTATION_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table's cells as they are printed, and the letters that say which test items its scores are of."""

    cells: pd.DataFrame
    """All texts; empty where nothing is known."""
    marks: Mapping[int, str] = field(default_factory=dict)
    """By row the letter that its measured scores carry; none where all were tested on the same items."""
    marked: tuple[str, ...] = ()
    """Columns of scores, to which the marks belong."""
    notes: tuple[str, ...] = ()
    """What the letters mean."""
    runs: tuple[Measured | None, ...] = ()
    """By row the run that was measured."""


def published_table(rows: Sequence[PublishedNetwork], runs: Iterable[Measured]) -> Table:
    """Published rows of one data set, each with the latest run of the same network, views and length on its data.

    A run that `train.max_steps` or `train.early_stopping` may have ended doesn't count.

    Args:
        rows: Of one kind, at least one.
        runs: Newest first.
    """
    own = [run for run in runs if run.dataset == rows[0].dataset]
    found = [fitting_run(row, own) for row in rows]
    cells = [
        _segmentation_cells(row, run) if isinstance(row, PublishedSegmentation) else _cells(row, run)
        for row, run in zip(rows, found, strict=True)
    ]
    columns = _COLUMNS.get(type(rows[0]), VIDEO_COLUMNS)
    marked = [name for name in columns if name.startswith("measured ")]
    return _table(cells, columns, marked, found)


def fitting_run(row: PublishedNetwork, runs: Iterable[Measured]) -> Measured | None:
    """The first run that may stand next to a published number.

    An evaluation may where its weights are those that a finished training of the published length tested itself, or a
    file's, of whose training nothing is known.
    """
    own, expected = [run for run in runs if run.dataset == row.dataset], row.expected_params()
    training = {name: value for name, value in expected.items() if name in _WHICH_WEIGHTS or "test." not in name}
    trained = {run.weights for run in own if run.evaluates is None and run.has(training)} - {None}
    for run in own:
        if run.has(expected) and (not run.evaluates or run.weights in trained):
            return run
    return None


def measured_table(runs: Iterable[Measured], dataset: str) -> Table:
    """The latest run of each experiment, views and test items on a data set, by name; none cut by `train.max_steps`."""
    return runs_table(latest_runs(runs, dataset))


def runs_table(shown: Sequence[Measured]) -> Table:
    """Runs on one data set, each with its scores.

    Where all are of image networks, nothing is said of frames and views; where all segment, it's said how images were
    seen.
    """
    scores = tuple(dict.fromkeys(score for run in shown for score in run.scores)) or scores_of("classification")
    images = bool(shown) and all(run.is_image for run in shown)
    segments = bool(shown) and all(run.params["task"] == "segmentation" for run in shown)
    network = (
        ("params (M)", "GMAC", "resolution")
        if images
        else ("temporal", "params (M)", "GMAC/view", "views", "GMAC x views")
    )
    titles = [score.title if score.unit == "%" else f"{score.title} ({score.unit})" for score in scores]
    columns = [
        *("experiment", *network, *(("test",) if segments else ())),
        *(name for title in titles for name in (title, f"{title} {INTERVAL}")),
        *("n images" if images else "n videos", "quarantined", "test ids", "train loss"),
        *("fingerprint", "commit", "date", "wall time (min)", "run"),
    ]
    cells = [_cells_alone(run, scores, images=images, segments=segments) for run in shown]
    return _table(cells, columns, titles, shown)


def latest_runs(runs: Iterable[Measured], dataset: str) -> list[Measured]:
    """The latest of each experiment, way of looking and test items, by name; newest first where names are the same."""
    latest: dict[tuple[str, str, str], Measured] = {}
    for run in runs:
        if run.dataset == dataset and run.params.get("train.max_steps") is None:
            seen = run.seen if run.params["task"] == "segmentation" else run.views
            latest.setdefault((run.experiment, seen, run.test_copy), run)
    return sorted(latest.values(), key=lambda run: run.experiment)


def others_table(groups: Iterable[Others], dataset: str) -> Table:
    """Published numbers on one data set that aren't measured here; columns that no row fills are left out."""
    rows = [(row, group.source) for group in groups if group.dataset == dataset for row in group.rows]
    score = MIOU.title if dataset == "ade20k" else TOP1.title
    cells = pd.DataFrame(
        {
            "model": [row.model for row, _ in rows],
            "kind": [row.family for row, _ in rows],
            "pretrained on": [row.pretrained or "" for row, _ in rows],
            "params (M)": ["" if row.params_m is None else f"{row.params_m:g}" for row, _ in rows],
            "GFLOPs": ["" if row.gflops_total is None else f"{row.gflops_total:g}" for row, _ in rows],
            score: [_percent(row.score) for row, _ in rows],
            "top-5": [_percent(row.top5) for row, _ in rows],
            "source": [source for _, source in rows],
        },
        dtype=str,
    )
    return Table(cells=cells.loc[:, (cells != "").any()])


def _table(
    cells: Sequence[Sequence[str]], columns: Sequence[str], marked: Sequence[str], runs: Sequence[Measured | None]
) -> Table:
    """Scores of runs on different test items get letters, and a note says which items these are."""
    copies = list(dict.fromkeys(run.test_copy for run in runs if run is not None))
    letters = {copy: letter_of(place) for place, copy in enumerate(copies)} if len(copies) > 1 else {}
    notes = [f"Scores with different letters are of different test items and don't rank: {_named(letters)}."]
    return Table(
        cells=pd.DataFrame(cells, columns=list(columns), dtype=str),
        marks={row: letters[run.test_copy] for row, run in enumerate(runs) if run is not None and letters},
        marked=tuple(marked),
        notes=tuple(notes) if letters else (),
        runs=tuple(runs),
    )


def letter_of(place: int) -> str:
    """From a to z, then aa, ab and so on."""
    more, own = divmod(place, 26)
    return (letter_of(more - 1) if more else "") + "abcdefghijklmnopqrstuvwxyz"[own]


def _named(letters: Mapping[str, str]) -> str:
    parts = []
    for copy, letter in letters.items():
        count, _, ids = copy.partition(":")
        parts.append(f"{letter} {count} items, ids {ids}" if ids else f"{letter} items that weren't recorded")
    return "; ".join(parts)


def cost_cells(cost: ModelCost | None, views: int | None = None) -> tuple[str, ...]:
    """Million parameters and GMAC of one view, and with `views` GMAC of all of them; empty where nothing is known."""
    if cost is None:
        return ("",) * (2 if views is None else 3)
    every = (cost.gmacs,) if views is None else (cost.gmacs, cost.gmacs * views)
    return (f"{cost.params / 1e6:.1f}", *(f"{gmacs:.1f}" if gmacs >= 1 else f"{gmacs:.3f}" for gmacs in every))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _cells(row: PublishedVideo | PublishedImage, run: Measured | None) -> tuple[str, ...]:
    chosen = preset(row.preset)
    cost = cost_of(chosen.model, chosen.num_frames, chosen.crop_size)
    network: tuple[str, ...]
    if isinstance(row, PublishedImage):
        params, gmacs = cost_cells(cost)
        network = str(row.resolution), params, f"{row.params_m:g}", gmacs, f"{row.gflops:.1f}"
    else:
        clips, crops = row.num_views
        network = str(row.frames), row.views, *cost_cells(cost, clips * crops), f"{row.gflops_total:g}"
    top5 = ("", "") if run is None else (_percent(run.metrics.get(TOP5.test_metric)), _interval(run, TOP5))
    published = _percent(row.top1), _percent(row.top5)
    return (row.model, *network, *published, *_against(run, TOP1, row.top1), *top5, *_run_cells(run))


def _segmentation_cells(row: PublishedSegmentation, run: Measured | None) -> tuple[str, ...]:
    params, gmacs = cost_cells(cost_of(row.network, 1, row.crop_size, segmentation=row.segmentation))
    network = str(row.crop_size), params, f"{row.params_m:.1f}", gmacs
    return (row.model, *network, _percent(row.miou), *_against(run, MIOU, row.miou), *_run_cells(run))


def _against(run: Measured | None, score: ScoreName, published: float) -> tuple[str, str, str]:
    """What a run reached, its interval, and the difference from what is published."""
    if run is None:
        return "", "", ""
    reached = run.metrics[score.test_metric]
    return _percent(reached), _interval(run, score), f"{reached - published:+.1f}"


def _reached(run: Measured, score: ScoreName) -> str:
    value = run.metrics.get(score.test_metric)
    return _percent(value) if value is None or score.unit == "%" else f"{value:.3f}"


def _interval(run: Measured, score: ScoreName) -> str:
    """What a score lies in with 95 %, where that is known."""
    return "" if (ends := run.interval(score)) is None else "{:.1f} to {:.1f}".format(*ends)


def _items(run: Measured) -> tuple[str, str, str]:
    """How many items were scored, how many couldn't be, and which were to be."""
    lost = run.num_quarantined
    return str(run.num_scored), "" if lost is None else str(lost), run.test_copy


def _run_cells(run: Measured | None) -> tuple[str, ...]:
    """On how many items, and which run."""
    if run is None:
        return ("",) * 7
    return (*_items(run), run.tags[Tags.FINGERPRINT], run.commit, run.date, run.identity)


def _cells_alone(run: Measured, scores: Sequence[ScoreName], *, images: bool, segments: bool) -> tuple[str, ...]:
    cost, views = run.cost, run.num_views
    if images:
        network = *cost_cells(cost), str(run.resolution or "")
    else:
        *of_one, of_all = cost_cells(cost, views or 0)
        network = str(run.params.get("model.temporal", "")), *of_one, run.views, of_all if views else ""
    loss = run.metrics.get(Metrics.TRAIN_EPOCH_LOSS, run.metrics.get(Metrics.TRAIN_LOSS))
    wall_s = run.metrics.get(Metrics.RUN_WALL_S)
    found = [(_reached(run, score), _interval(run, score)) for score in scores]
    return (
        *(run.experiment, *network, *((run.seen,) if segments else ())),
        *(cell for pair in found for cell in pair),
        *_items(run),
        "" if loss is None else f"{loss:.3f}",
        *(run.tags[Tags.FINGERPRINT], run.commit, run.date),
        "" if wall_s is None else f"{wall_s / 60:.1f}",
        run.identity,
    )

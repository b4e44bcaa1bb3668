"""The folder that an evaluation's report is: `report.html`, which needs nothing else, and its tables and pictures.

Tables are CSV; `videos.parquet` has every video's answer.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from morphmlp.data.decoding.protocol import VideoOpener
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.rescoring import Rescored, Resegmented
from morphmlp.files import atomic_file, atomic_write
from morphmlp.reporting.evaluation.figures import classes_figure, reliability_figure, views_figure
from morphmlp.reporting.evaluation.words import (
    cheapest_in_words,
    compared_in_words,
    ends_in_words,
    headers_of,
    mark_of,
    score_rows,
)
from morphmlp.reporting.evaluation.worst_images import worst_sheets, worst_table
from morphmlp.reporting.evaluation.wrong_videos import manifest_of, wrong_rows, wrong_sheets, wrong_table
from morphmlp.reporting.figures import confusion_figure
from morphmlp.reporting.segmentation import class_table as segmented_classes
from morphmlp.reporting.segmentation import pairs_figure
from morphmlp.tasks.answers import class_table, confused_pairs
from morphmlp.tasks.segmentation.confusion import table_confusion

PAGE = "report.html"
MOST_SHOWN = 24
"""Wrong videos, or worst images, with pictures."""
MOST_LISTED = 200
"""Wrong videos that the page lists; a file has all."""
MOST_PAIRS = 30

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(
    folder: Path,
    scored: Rescored | Resegmented,
    *,
    against: Rescored | Resegmented | None = None,
    videos: VideoOpener | None = None,
) -> Path:
    """Write the report into a folder; returns its page.

    With `videos` pictures of the surest wrong ones, or of the worst segmented ones, are in it.

    Raises:
        EvaluationError: The folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context({"text.parse_math": False}):  # the name of a class is no formula
            if isinstance(scored, Rescored):
                assert against is None or isinstance(against, Rescored)
                page = _classified(folder, scored, against, videos)
            else:
                assert against is None or isinstance(against, Resegmented)
                page = _segmented(folder, scored, against, videos)
        atomic_write(folder / PAGE, page)
    except OSError as error:
        raise EvaluationError(f"--report {folder}: can't be written: {error.strerror or error}") from None
    return folder / PAGE


def _classified(folder: Path, scored: Rescored, against: Rescored | None, videos: VideoOpener | None) -> str:
    answers, names = scored.answers, scored.class_names
    classes, pairs = class_table(answers, names), confused_pairs(answers, names, most=10_000)
    wrong = wrong_table(scored)
    tables = {"classes": classes, "pairs": pairs, "reliability": answers.reliability, "wrong": wrong}
    figures = {
        "confusion": confusion_figure(answers.confusion, names, items=scored.headers[0].items),
        "classes": classes_figure(classes, mean=answers.mean_class_accuracy.value),
        "reliability": reliability_figure(answers.reliability, ece=answers.ece),
    }
    if scored.curve is not None:
        tables["views"], figures["views"] = scored.curve, views_figure(scored.curve)
    pictured, note = _pictures(scored, wrong, videos)
    figures |= {f"wrong-{number}": sheet for number, sheet in enumerate(pictured, start=1)}
    if against is not None:
        tables["changed_classes"] = changed_classes(scored, against)
    _write(folder, tables, figures)
    _write_videos(folder / "videos.parquet", scored)
    return _page(
        scored,
        against,
        comparison=None if against is None else compared_in_words(scored, against),
        changed=tables.get("changed_classes"),
        figures=figures,
        classes=classes,
        confused=pairs.head(MOST_PAIRS),
        curve=None if scored.curve is None else scored.curve.to_dict("records"),
        cheapest=None if scored.curve is None else cheapest_in_words(scored.curve),
        wrong=wrong,
        note=note,
    )


def _segmented(folder: Path, scored: Resegmented, against: Resegmented | None, videos: VideoOpener | None) -> str:
    k = scored.header.num_classes
    names = [*scored.header.class_names, *map(str, range(len(scored.header.class_names), k))]
    matrix, classes = table_confusion(scored.table, num_classes=k), segmented_classes(scored.table, names)
    worst, figures = worst_table(scored), {"pairs": pairs_figure(matrix, names)}
    pictured, note = _panels(scored, worst, videos, names)
    figures |= {f"worst-{number}": sheet for number, sheet in enumerate(pictured, start=1)}
    tables = {"classes": classes, "images": worst}
    _write(folder, tables, figures)
    return _page(
        scored,
        against,
        comparison=None if against is None else compared_in_words(scored, against),
        changed=None,
        figures=figures,
        classes=classes,
        confused=None,
        curve=None,
        cheapest=None,
        wrong=worst,
        note=note,
    )


def changed_classes(first: Rescored, second: Rescored) -> pd.DataFrame:
    """Of each class its accuracy in both, and how many of its videos only one gets right; greatest difference first."""
    one, other = (class_table(each.answers, first.class_names) for each in (first, second))
    right, other_right, labels = first.answers.right, second.answers.right, first.answers.labels
    k = first.answers.num_classes
    table = pd.DataFrame(
        {
            "class": one["class"],
            "videos": one["videos"],
            "first": one["accuracy"],
            "second": other["accuracy"],
            "only_first": pd.Series(labels[right & ~other_right]).value_counts().reindex(range(k), fill_value=0),
            "only_second": pd.Series(labels[~right & other_right]).value_counts().reindex(range(k), fill_value=0),
        }
    )
    order = (table["only_first"] - table["only_second"]).abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _pictures(scored: Rescored, wrong: pd.DataFrame, videos: VideoOpener | None) -> tuple[list[Figure], str | None]:
    """Contact sheets of the surest wrong videos; or why there are none."""
    if videos is None or wrong.empty:
        return [], None
    manifest = manifest_of(scored.headers[0], scored.video_ids)
    if isinstance(manifest, str):
        return [], manifest
    rows = list(wrong_rows(wrong.head(MOST_SHOWN), manifest, videos))
    return wrong_sheets(rows, of=len(wrong)), None


def _panels(
    scored: Resegmented, worst: pd.DataFrame, videos: VideoOpener | None, names: Sequence[str]
) -> tuple[list[Figure], str | None]:
    """Panels of the worst images; or why there are none."""
    if videos is None or worst.empty:
        return [], None
    manifest = manifest_of(scored.header, scored.table["video_id"])
    if isinstance(manifest, str):
        return [], manifest
    return worst_sheets(scored, worst.head(MOST_SHOWN), manifest, videos, names), None


def _write(folder: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Figure]) -> None:
    for old in (*folder.glob("wrong-*.png"), *folder.glob("worst-*.png")):  # of an earlier report, which had more
        old.unlink()
    for name, table in tables.items():
        atomic_write(folder / f"{name}.csv", table.to_csv(index=False))
    for name, figure in figures.items():
        atomic_write(folder / f"{name}.png", _png(figure))


def _write_videos(path: Path, scored: Rescored) -> None:
    """Each video's label, guesses and their probabilities, as Parquet."""
    answers = scored.answers
    table = pa.table(
        {
            "video_id": scored.video_ids,
            "label": pa.array(answers.labels, pa.int32()),
            "place": pa.array(answers.ranks + 1, pa.int32()),
            "guesses": pa.array(list(answers.guesses.astype("int32"))),
            "probabilities": pa.array(list(answers.shares.astype("float32"))),
        }
    )
    with atomic_file(path) as unfinished:
        pq.write_table(table, unfinished)


def _page(
    scored: Rescored | Resegmented,
    against: Rescored | Resegmented | None,
    *,
    comparison: str | None,
    changed: pd.DataFrame | None,
    figures: Mapping[str, Figure],
    classes: pd.DataFrame,
    confused: pd.DataFrame | None,
    curve: Sequence[Mapping[object, object]] | None,
    cheapest: str | None,
    wrong: pd.DataFrame | None,
    note: str | None,
) -> str:
    headers = headers_of(scored)
    every = [*headers, *([] if against is None else headers_of(against))]
    return _TEMPLATES.get_template("page.html").render(
        scored=scored,
        classified=isinstance(scored, Rescored),
        headers=every,
        mark=mark_of(every),
        num_own=len(headers),
        items=headers[0].items,
        dataset=headers[0].dataset,
        views=scored.views if isinstance(scored, Rescored) else headers[0].views,
        fold=scored.fold if isinstance(scored, Rescored) else None,
        rows=score_rows(scored),
        comparison=comparison,
        changed=None if changed is None else changed.head(MOST_PAIRS).to_dict("records"),
        images={name: base64.b64encode(_png(figure)).decode() for name, figure in figures.items()},
        class_columns=list(classes.columns),
        classes=classes.to_dict("records"),
        confused=[] if confused is None else confused.to_dict("records"),
        curve=curve,
        cheapest=cheapest,
        num_wrong=0 if wrong is None else len(wrong),
        wrong=[] if wrong is None else wrong.head(MOST_LISTED).to_dict("records"),
        most_listed=MOST_LISTED,
        most_shown=MOST_SHOWN,
        note=note,
        ends=ends_in_words,
    )


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()

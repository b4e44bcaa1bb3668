"""Scores of a video's views folded into one answer: any of its clips and crops, by logits or probabilities.

A test stores the logits of every view, so that no model is needed to know what fewer views would have given.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from morphmlp.config.values import Fold
from morphmlp.errors import EvaluationError
from morphmlp.tasks.answers import GUESSES, Answers, answers_of, ranks_of
from morphmlp.tasks.intervals import wilson

COLUMNS = ("video_id", "label", "view_logits")
"""Columns of `morphmlp.data.columns.PREDICTIONS` that folding needs."""
CLOSE = 0.1
"""Percentage points below the best within which a cheaper setting is as good."""
_MOST_COUNTS = 12
"""Numbers of clips on a curve."""

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ViewChoice:
    """Some of a test's views: these clips with these crops, counted from 0."""

    clips: tuple[int, ...]
    crops: tuple[int, ...]

    @property
    def num_views(self) -> int:
        """Views of a video."""
        return len(self.clips) * len(self.crops)

    def in_words(self, num_clips: int, num_crops: int) -> str:
        """`4 of 10 clips x 3 crops`, of a test with so many."""
        return f"{_part(len(self.clips), num_clips, 'clip')} x {_part(len(self.crops), num_crops, 'crop')}"


def spread(count: int, of: int) -> tuple[int, ...]:
    """So many of the numbers from 0, evenly spread from the first to the last; a single one is in the middle."""
    if count == 1:
        return ((of - 1) // 2,)
    return tuple(np.linspace(0, of - 1, count).round().astype(int).tolist())


def numbers_of(text: str, *, of: int, option: str, what: str) -> tuple[int, ...]:
    """The numbers, from 0, that a text such as `1-4,7` names from 1.

    Raises:
        EvaluationError: It isn't such a text, names one twice, or one that isn't there.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None:
            raise EvaluationError(f"{option} {text}: {part!r} is no number; right are numbers from 1, as in 1-4,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= of:
            raise EvaluationError(f"{option} {text}: the scores have {what} 1 to {of}, and no {part.strip()}")
        found.extend(range(first - 1, last))
    if len(set(found)) < len(found):
        raise EvaluationError(f"{option} {text}: names a number twice")
    return tuple(sorted(found))


@dataclass(frozen=True, eq=False, kw_only=True)
class Folded:
    """One score for each class and video: the mean over the views, of logits or of probabilities."""

    video_ids: pa.Array
    labels: npt.NDArray[np.int64]
    means: npt.NDArray[np.floating]
    """`[n k]`."""
    num_views: int
    of_probabilities: bool

    def answers(self) -> Answers:
        """What the scores answer."""
        if not self.of_probabilities:
            return answers_of(self.means, self.labels)
        with np.errstate(divide="ignore"):  # the logarithm of a probability of 0
            return answers_of(np.log(self.means), self.labels)


def fold_parts(
    parts: Iterable[pa.Table], *, num_clips: int, num_crops: int, choice: ViewChoice, fold: Fold
) -> tuple[Folded, pd.DataFrame]:
    """Fold the views of a table (`COLUMNS`) that comes in parts; and its `curve` over all settings, in the same pass.

    Raises:
        EvaluationError: A video has other views than `num_clips` clips x `num_crops` crops.
    """
    of_probabilities = fold.endswith("probabilities")
    curve = _Curve(num_clips, num_crops)
    ids, labels, means = [pa.array([], pa.string())], [np.zeros(0, np.int64)], list[Logits]()
    for part in parts:
        if not part.num_rows:
            continue
        views = view_scores(part, num_clips=num_clips, num_crops=num_crops)
        if of_probabilities:
            views = softmax(views, axis=-1)
        of_part = part["label"].to_numpy().astype(np.int64)
        means.append(_mean_of(views, choice).astype(np.float32))
        curve.count(views, of_part)
        ids.append(part["video_id"].combine_chunks())
        labels.append(of_part)
    folded = Folded(
        video_ids=pa.concat_arrays(ids),
        labels=np.concatenate(labels),
        means=np.concatenate(means) if means else np.zeros((0, 1), np.float32),
        num_views=choice.num_views,
        of_probabilities=of_probabilities,
    )
    return folded, curve.table()


def view_scores(table: pa.Table, *, num_clips: int, num_crops: int) -> Logits:
    """The logits of a table's views as `[n clips crops k]`, on the table's own memory where it's in one piece.

    Raises:
        EvaluationError: A video has another number of views, or they have different numbers of classes.
    """
    of_views = table["view_logits"].combine_chunks()
    views = pc.list_value_length(of_views).to_numpy()
    if (views != num_clips * num_crops).any():
        row = int(np.argmax(views != num_clips * num_crops))
        raise EvaluationError(
            f"video {table['video_id'][row].as_py()} has logits of {views[row]} views, the scores' header says "
            f"{num_clips} x {num_crops}; it was written by something else"
        )
    of_classes = of_views.flatten()
    classes = pc.list_value_length(of_classes).to_numpy()
    if (classes != classes[0]).any():
        raise EvaluationError(f"views have logits of {classes.min()} and of {classes.max()} classes")
    logits: Logits = of_classes.flatten().to_numpy().reshape(table.num_rows, num_clips, num_crops, classes[0])
    return logits


def ensemble(parts: Sequence[Folded], fold: Fold) -> Folded:
    """Several tests of the same videos as one: a sum weighs each by its views, a mean weighs all alike.

    Raises:
        EvaluationError: They aren't of the same videos with the same labels.
    """
    first, *others = parts
    if any(not first.video_ids.equals(other.video_ids) for other in others):
        raise EvaluationError("an ensemble needs scores of the same videos")
    views = [part.num_views if fold.startswith("sum") else 1 for part in parts]
    means = sum((weight / sum(views)) * part.means for weight, part in zip(views, parts, strict=True))
    return Folded(
        video_ids=first.video_ids,
        labels=first.labels,
        means=np.asarray(means),
        num_views=sum(part.num_views for part in parts),
        of_probabilities=first.of_probabilities,
    )


def cheapest(curve: pd.DataFrame) -> int:
    """Of a curve's settings the row with the fewest views whose top-1 is within `CLOSE` points of the best."""
    close = curve[curve["top1"] >= curve["top1"].max() - CLOSE - 1e-9]
    return int(close.sort_values(["views", "top1"], ascending=[True, False], kind="stable").index[0])


class _Curve:
    """Right answers by number of clips and crops, counted over parts of a table."""

    def __init__(self, num_clips: int, num_crops: int) -> None:
        counts = np.unique(np.linspace(1, num_clips, min(num_clips, _MOST_COUNTS)).round().astype(int)).tolist()
        self._crops = [spread(count, num_crops) for count in sorted({1, num_crops})]
        self._clips = [spread(count, num_clips) for count in counts]
        self._hits = np.zeros((len(self._crops), len(self._clips), 2), dtype=np.int64)
        self._videos = 0

    def count(self, views: Logits, labels: npt.NDArray[np.int64]) -> None:
        """Count a part's videos: scores `[n clips crops k]` and true classes."""
        self._videos += len(labels)
        for place, crops in enumerate(self._crops):
            of_clips = views[:, :, crops].sum(axis=2, dtype=np.float64)
            for number, clips in enumerate(self._clips):
                ranks = ranks_of(of_clips[:, clips].sum(axis=1), labels)
                self._hits[place, number] += (np.count_nonzero(ranks == 0), np.count_nonzero(ranks < GUESSES))

    def table(self) -> pd.DataFrame:
        """By setting: `clips`, `crops`, `views`, `top1` with `low` and `high`, `top5`; percent."""
        rows = []
        with np.errstate(invalid="ignore"):
            shares = self._hits / self._videos if self._videos else np.full(self._hits.shape, np.nan)
        low, high = wilson(shares[..., 0], self._videos)
        for place, crops in enumerate(self._crops):
            for number, clips in enumerate(self._clips):
                cell = (place, number)
                rows.append(
                    {
                        "clips": len(clips),
                        "crops": len(crops),
                        "views": len(clips) * len(crops),
                        "top1": 100 * shares[(*cell, 0)],
                        "low": 100 * low[cell],
                        "high": 100 * high[cell],
                        "top5": 100 * shares[(*cell, 1)],
                    }
                )
        return pd.DataFrame(rows).sort_values(["views", "crops"], kind="stable", ignore_index=True)


def _mean_of(views: Logits, choice: ViewChoice) -> npt.NDArray[np.float64]:
    chosen = views[:, list(choice.clips)][:, :, list(choice.crops)]
    mean: npt.NDArray[np.float64] = chosen.mean(axis=(1, 2), dtype=np.float64)
    return mean


def _part(count: int, of: int, word: str) -> str:
    ending = "" if of == 1 else "s"
    return f"{of} {word}{ending}" if count == of else f"{count} of {of} {word}{ending}"

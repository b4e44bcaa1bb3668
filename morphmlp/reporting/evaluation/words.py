"""What an evaluation says in words and rows, on the terminal and in its report; nothing is drawn."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from morphmlp.evaluation.comparison import interval_text, p_text
from morphmlp.evaluation.rescoring import Rescored, Resegmented, compared, compared_images
from morphmlp.evaluation.score_header import ScoreHeader
from morphmlp.evaluation.views import CLOSE, cheapest
from morphmlp.tasks.intervals import Estimate
from morphmlp.tasks.scores import ScoreName


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A score as the page and the terminal print it."""

    name: ScoreName
    value: float
    interval: tuple[float, float] | None
    bounds: tuple[float, float] | None
    """Where missing videos could take it."""

    def in_words(self) -> str:
        """The score with its interval."""
        return self.name.in_words(self.value, self.interval)


def score_rows(scored: Rescored | Resegmented) -> list[ScoreRow]:
    """All scores of an evaluation."""
    bounds: Mapping[str, tuple[float, float]] = scored.bounds if isinstance(scored, Rescored) else {}

    def row(name: ScoreName, value: float, estimate: Estimate | None) -> ScoreRow:
        interval = None if estimate is None else (estimate.low, estimate.high)
        return ScoreRow(name=name, value=value, interval=interval, bounds=bounds.get(name.key))

    return [row(*score) for score in scored.scores()]


def lines_of(scored: Rescored | Resegmented) -> Iterator[str]:
    """An evaluation on the terminal."""
    rows = score_rows(scored)
    header = headers_of(scored)[0]
    views = f"{scored.views}, {scored.fold}" if isinstance(scored, Rescored) else header.views
    yield f"{scored.name} on {header.dataset} ({views})"
    yield "  " + ", ".join(row.in_words() for row in rows)
    yield f"  of {scored.coverage.in_words(header.items)}"
    if bounded := [f"{row.name.title} {ends_in_words(row.bounds)}" for row in rows if row.bounds is not None]:
        yield f"  were those missing scored too: {', '.join(bounded)}"
    if isinstance(scored, Rescored) and scored.curve is not None:
        yield f"  {cheapest_in_words(scored.curve)}"


def cheapest_in_words(curve: pd.DataFrame) -> str:
    """The best setting of a curve, and the cheapest that is as good."""
    settings = curve.to_dict("records")
    best, cheap = settings[int(curve["top1"].argmax())], settings[cheapest(curve)]
    found = f"best of the numbers of views: {setting_in_words(best)}, top-1 {best['top1']:.2f}"
    if cheap["views"] >= best["views"]:
        return f"{found}; nothing cheaper is within {CLOSE:g} points"
    return f"{found}; cheapest within {CLOSE:g} points: {setting_in_words(cheap)}, {cheap['top1']:.2f}"


def setting_in_words(setting: Mapping[Hashable, Any]) -> str:
    """`4 clips x 3 crops` of a row of a curve."""
    clips, crops = int(setting["clips"]), int(setting["crops"])
    return f"{clips} clip{'' if clips == 1 else 's'} x {crops} crop{'' if crops == 1 else 's'}"


def mark_of(headers: Sequence[ScoreHeader]) -> str | None:
    """Says where tests are of different test sets, whose scores don't stand in one row; None where they are of one."""
    sets = list(dict.fromkeys(header.data_fingerprint for header in headers))
    if len(sets) < 2:
        return None
    return (
        f"different test sets ({', '.join(sets)}): scored on the {headers[0].items} that all have, so that no score "
        "here is one of a whole set"
    )


def headers_of(scored: Rescored | Resegmented) -> Sequence[ScoreHeader]:
    """What the tests of an evaluation were of."""
    return scored.headers if isinstance(scored, Rescored) else [scored.header]


def compared_in_words(scored: Rescored | Resegmented, against: Rescored | Resegmented) -> str:
    """What two evaluations of the same videos say of each other."""
    if isinstance(scored, Rescored) and isinstance(against, Rescored):
        return compared(scored, against).in_words(scored.name, against.name)
    assert isinstance(scored, Resegmented)
    assert isinstance(against, Resegmented)
    found = compared_images(scored, against)
    differences = "; ".join(
        f"{name.title} {interval_text(found[name.key][0])}, p {p_text(found[name.key][1])}"
        for name, _, _ in scored.scores()
    )
    return f"{scored.name} against {against.name} on the same {scored.table.num_rows:,} images: {differences}"


def ends_in_words(interval: tuple[float, float]) -> str:
    """`76.45-77.62`."""
    return f"{interval[0]:.2f}-{interval[1]:.2f}"

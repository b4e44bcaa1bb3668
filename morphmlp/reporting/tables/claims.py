"""What the paper's abstracts claim, next to the same from the numbers in print and from those measured here."""

from collections.abc import Sequence

import pandas as pd

from morphmlp.reporting.tables.cells import Table, fitting_run
from morphmlp.reporting.tables.measured import Measured
from morphmlp.reporting.tables.published import TITLES, Claim, Other, Published
from morphmlp.reporting.tables.published_rows import PublishedNetwork, PublishedSegmentation
from morphmlp.tasks.scores import MIOU, TOP1

COLUMNS = ("claim", "of", "source", "numbers", "claimed", "computed", "holds", "measured here")


def claims_table(published: Published, runs: Sequence[Measured]) -> Table:
    """A row for each claim: its words, the numbers that it follows from, what they give, and whether that is it.

    `holds` goes by the numbers in print, rounded as the claim is. `measured here` puts the run that stands next to the
    row in its place, with the interval of the difference that its own test leaves.
    """
    cells = [_cells(claim, published, runs) for claim in published.claims]
    return Table(cells=pd.DataFrame(cells, columns=list(COLUMNS), dtype=str))


def _cells(claim: Claim, published: Published, runs: Sequence[Measured]) -> tuple[str, ...]:
    row, rival = published.claimant(claim), max(published.rivals(claim), key=lambda other: other.score)
    gflops, gained = row.printed_gflops, round(row.score - rival.score, 2)
    share = None if gflops is None or rival.gflops_total is None else 100 * gflops / rival.gflops_total
    claimed, computed = [], []
    holds = gained > 0 if claim.points is None else round(gained, 1) == claim.points
    if claim.gflops_percent is not None:
        claimed.append(f"{claim.gflops_percent} % of the GFLOPs")
        holds = holds and share is not None and round(share) == claim.gflops_percent
    if share is not None:
        computed.append(f"{share:.1f} % of the GFLOPs")
    claimed.append("better" if claim.points is None else f"{claim.points:+.1f}")
    computed.append(f"{gained:+.1f}")
    numbers = f"{_named(row.title, row.score, gflops)}; {_named(rival.model, rival.score, rival.gflops_total)}"
    if claim.family is not None:
        numbers += f" (best of {claim.family} in {claim.among or 'all that was read'})"
    return (
        *(claim.words, TITLES[claim.dataset], claim.source, numbers),
        *(", ".join(claimed), ", ".join(computed), "yes" if holds else "no", _measured(row, rival, runs)),
    )


def _named(name: str, score: float, gflops: float | None) -> str:
    return f"{name}: {score:g}" + ("" if gflops is None else f" at {gflops:g} G")


def _measured(row: PublishedNetwork, rival: Other, runs: Sequence[Measured]) -> str:
    run = fitting_run(row, runs)
    if run is None:
        return ""
    score = MIOU if isinstance(row, PublishedSegmentation) else TOP1
    reached, ends = run.metrics[score.test_metric], run.interval(score)
    between = "" if ends is None else f" ({ends[0] - rival.score:+.1f} to {ends[1] - rival.score:+.1f})"
    return f"{reached - rival.score:+.1f}{between}, {reached:.1f} on {run.num_scored} items, {run.identity}"

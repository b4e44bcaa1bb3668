"""All tables as one HTML page that needs nothing else: filtered, sorted, with scores against arithmetic to hover over.

The template is `page.html`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from morphmlp.reporting import hover_svg
from morphmlp.reporting.tables.cells import latest_runs, runs_table
from morphmlp.reporting.tables.compute_panel import COLOURS, OURS, SHAPES, compute_panel, family_of, points_of
from morphmlp.reporting.tables.document import NOTES, Part, claims_part, others_part, published_part
from morphmlp.reporting.tables.measured import Measured
from morphmlp.reporting.tables.published import TITLES, Published
from morphmlp.reporting.tables.render import TEXT_COLUMNS, without_empty
from morphmlp.tasks.scores import scores_of

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # every text of the user is escaped; only panels, which escape theirs, are marked as HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
KIND_TITLES = {"published": "MorphMLP, published", "others": "other networks", "measured": "measured"}
SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "P": "✚", "X": "✖", "*": "★"}
"""What the legend shows for matplotlib's marks."""
_THEMED = {
    **{hover_svg.INK: "var(--ink)", hover_svg.MUTED: "var(--muted)", hover_svg.LINES: "var(--line)"},
    **{colour: f"var(--{kind})" for kind, colour in COLOURS.items()},
}
"""Colours of a panel that the page replaces by its own, of day or night."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table on the page."""

    identity: str
    family: str
    older: bool
    """Whether a later run of the same experiment was tested in the same way on the same items."""
    mark: str
    """Letter of its test items; empty where all are the same."""
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One table on the page."""

    part: Part
    columns: tuple[str, ...]
    marked: frozenset[str]
    """Columns of scores, which carry the rows' letters."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one data set."""

    dataset: str
    title: str
    panel: Markup | None
    undrawn: int
    """Rows of networks whose arithmetic isn't known."""
    listings: tuple[Listing, ...]


def tables_page(published: Published, runs: Sequence[Measured], datasets: Sequence[str], *, subtitle: str) -> str:
    """The whole page.

    Args:
        published: What is in print.
        runs: All that were tested, newest first.
        datasets: Those to show, in this order.
        subtitle: Where the runs are from and when they were read.
    """
    sections = [section_of(published, runs, dataset) for dataset in datasets]
    families = {row.family for section in sections for listing in section.listings for row in listing.rows}
    return _TEMPLATES.get_template("page.html").render(
        subtitle=subtitle,
        sections=sections,
        claims=_listing(claims_part(published, runs), [], []),
        num_runs=len(runs),
        families={name: SIGNS[shape] for name, shape in SHAPES.items() if name in families},
        kinds=KIND_TITLES,
        titles=KIND_TITLES | {"claims": "What the paper claims"},
        colours=COLOURS,
        text_columns=TEXT_COLUMNS,
    )


def section_of(published: Published, runs: Sequence[Measured], dataset: str) -> Section:
    """A data set's panel and tables, with every run on it."""
    own = [run for run in runs if run.dataset == dataset]
    listings = []
    if dataset in TITLES:
        ours = [OURS if row.preset else "convolution" for row in published.models(dataset)]
        others = [row.family for group in published.others if group.dataset == dataset for row in group.rows]
        listings.append(_listing(published_part(published, runs, dataset), ours))
        listings.append(_listing(others_part(published, dataset), others))
    if own:
        latest = {run.run_id for run in latest_runs(own, dataset)}
        part = Part(kind="measured", dataset=dataset, title="measured", note=NOTES["measured"], table=runs_table(own))
        older = [run.run_id not in latest for run in own]
        listings.insert(1, _listing(part, [family_of(run) for run in own], older))
    points = list(points_of(published, own, dataset))
    score = scores_of(str(own[0].params["task"]))[0].title if own else ("mIoU" if dataset == "ade20k" else "top-1")
    return Section(
        dataset=dataset,
        title=TITLES.get(dataset, f"Data set {dataset}"),
        panel=_themed(compute_panel(points, score=score)) if points else None,
        undrawn=sum(len(listing.rows) for listing in listings) - len(points),
        listings=tuple(listings),
    )


def _listing(part: Part, families: Sequence[str], older: Sequence[bool] = ()) -> Listing:
    shown = without_empty(part.table.cells)
    rows = [
        Row(
            identity=f"{part.dataset}-{part.kind}-{place}",
            family=families[place] if families else "",
            older=bool(older) and older[place],
            mark=part.table.marks.get(place, ""),
            cells=cells,
        )
        for place, cells in enumerate(shown.itertuples(index=False, name=None))
    ]
    columns = tuple(str(name) for name in shown.columns)
    return Listing(part=part, columns=columns, marked=frozenset(part.table.marked), rows=tuple(rows))


def _themed(panel: Markup) -> Markup:
    text = str(panel)
    for colour, variable in _THEMED.items():
        text = text.replace(colour, variable)
    return Markup(text)

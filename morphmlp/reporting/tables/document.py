"""All tables in order, each with its title and note, as one text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from morphmlp.errors import ConfigError
from morphmlp.reporting.tables.cells import Table, measured_table, others_table, published_table
from morphmlp.reporting.tables.claims import claims_table
from morphmlp.reporting.tables.measured import Measured
from morphmlp.reporting.tables.published import TITLES, Published
from morphmlp.reporting.tables.render import Style, render, to_latex

Kind = Literal["published", "measured", "others", "claims"]

_PERCENT = "95 %: as recorded, else Wilson's interval of so many items. Commit with +: uncommitted changes."
_OF_IDS = "Test ids: how many items were to be tested, and a hash of their names; published copies aren't known."
NOTES = {
    "videos": (
        "Published: MTLab/MorphMLP README at commit 62ebe80, top-5 of arXiv 2111.12527v1, trained from ImageNet-1K "
        "weights; printed GFLOPs are multiply-accumulates over all views. GMAC: billion multiply-accumulates; params "
        "and GMAC are computed here. Scores in percent over all views."
    ),
    "images": (
        "Published: arXiv 2111.12527v1, Table 2, trained on ImageNet-1K alone, 300 epochs. Params and GMAC (billion "
        "multiply-accumulates) are computed here, next to what is printed. Scores in percent on one centre crop."
    ),
    "segmentations": (
        "Published: arXiv 2111.12527v1, Table 6, Semantic FPN from ImageNet-1K weights, one scale; steps and batch as "
        "docs/decisions/0021-segmentation-recipe.md reads the paper. Params and GMAC are computed here, at that size."
    ),
    "run": f"{_OF_IDS} {_PERCENT}",
    "nobody": "Nothing of this is measured in the record that was read.",
    "measured": (
        "Latest run of each experiment, way of testing and test items; no trials of sweeps. Scores over all views, in "
        f"percent where no unit stands with them. {_OF_IDS} {_PERCENT}"
    ),
    "others": (
        "As printed where `source` says, in percent; GFLOPs over all views. Mixed: by convolution and attention. What "
        "it was pretrained on is given where it was read."
    ),
    "claims": (
        "Holds: the numbers in print give the claim, rounded as it is. Measured here: the run that stands next to the "
        "row, against the same number in print, in percentage points."
    ),
}


MARKS = ("<!-- tables.py --update writes from here -->", "<!-- to here -->")
"""Lines of a Markdown file between which the published tables stand."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table with what stands above and below it."""

    kind: Kind
    dataset: str
    """Empty for the claims, which are of several."""
    title: str
    note: str
    table: Table


def dataset_parts(published: Published, runs: Sequence[Measured], dataset: str) -> Iterator[Part]:
    """The tables of a data set with published numbers: those, all that was measured, and other networks."""
    yield published_part(published, runs, dataset)
    if any(run.dataset == dataset for run in runs):
        yield measured_part(runs, dataset)
    yield others_part(published, dataset)


def published_part(published: Published, runs: Sequence[Measured], dataset: str) -> Part:
    """The published rows of a data set."""
    table = published_table(published.models(dataset), runs)
    kind = {"imagenet": "images", "ade20k": "segmentations"}.get(dataset, "videos")
    note = f"{NOTES[kind]} {NOTES['run' if any(table.runs) else 'nobody']}"
    return Part(kind="published", dataset=dataset, title=TITLES[dataset], note=note, table=table)


def others_part(published: Published, dataset: str) -> Part:
    """The numbers of other networks."""
    title, table = f"{TITLES[dataset]}: other networks", others_table(published.others, dataset)
    return Part(kind="others", dataset=dataset, title=title, note=NOTES["others"], table=table)


def measured_part(runs: Sequence[Measured], dataset: str) -> Part:
    """The table of all that was measured on a data set."""
    title = f"{TITLES[dataset]}: measured" if dataset in TITLES else f"Data set {dataset}"
    table = measured_table(runs, dataset)
    return Part(kind="measured", dataset=dataset, title=title, note=NOTES["measured"], table=table)


def claims_part(published: Published, runs: Sequence[Measured]) -> Part:
    """The table of what the paper claims."""
    table = claims_table(published, runs)
    return Part(kind="claims", dataset="", title="What the paper claims", note=NOTES["claims"], table=table)


def all_parts(published: Published, runs: Sequence[Measured]) -> list[Part]:
    """Every table: data sets with published numbers, the paper's claims, all other data sets that runs are on."""
    parts = [part for dataset in TITLES for part in dataset_parts(published, runs, dataset)]
    others = sorted({run.dataset for run in runs} - TITLES.keys())
    return [*parts, claims_part(published, runs), *(measured_part(runs, dataset) for dataset in others)]


def as_text(parts: Sequence[Part], *, style: Style, level: int = 2) -> str:
    """The tables below each other; of a CSV there can be one only.

    Args:
        parts: In their order.
        style: Of all of them.
        level: Of the titles in Markdown.
    """
    return "\n".join(
        titled(render(part.table, style=style), part.title, part.note, style=style, level=level) for part in parts
    )


def titled(text: str, title: str, note: str, *, style: Style, level: int = 2) -> str:
    """A table under its title, with its note; a CSV stays bare."""
    if style == "csv":
        return text
    if style == "latex":
        return f"% {to_latex(title)}\n{text}% {to_latex(note)}\n"
    return f"{'#' * level} {title}\n\n{text}\n{note}\n"


def with_published_tables(text: str, published: Published) -> str:
    """A Markdown text with the published tables, which need no record, between its marks.

    Raises:
        ConfigError: It hasn't each mark once, in their order.
    """
    first, last = MARKS
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    if [text.count(mark) for mark in MARKS] != [1, 1] or not rest.count(last):
        raise ConfigError([f"the tables go between the lines {first!r} and {last!r}; each must be there once"])
    unread = f" {NOTES['nobody']}"
    parts = [replace(part, note=part.note.removesuffix(unread)) for part in all_parts(published, [])]
    return f"{before}{first}\n\n{as_text(parts, style='markdown', level=3)}\n{last}{after}"

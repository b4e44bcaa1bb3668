"""Print the tables: published numbers next to those measured here, and the results on every other data set.

python pipelines/tables.py --dataset k400 --format latex --output k400.tex
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from morphmlp.cli import run
from morphmlp.errors import ConfigError

PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"
TITLES = {"k400": "Kinetics-400", "ssv1": "Something-Something V1", "ssv2": "Something-Something V2"}
"""Data sets with published numbers; the others' tables hold what was measured here alone."""
NOTE = (
    "Published: MTLab/MorphMLP README at commit 62ebe80, trained from ImageNet-1K weights. GMAC: multiply-accumulates "
    "of one view, params and GMAC computed here. Top-1 in percent over all views. Commit with +: uncommitted changes."
)
MEASURED_NOTE = "Latest run of each experiment. Top-1 and top-5 in percent over all views."


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Published numbers beside those measured here; cells that nobody measured stay empty."""

    dataset: str | None = None
    """One table only, by the experiments' `dataset`; by default all."""
    format: Literal["markdown", "csv", "latex"] = "markdown"
    """csv holds one table and needs --dataset; latex needs the package booktabs."""
    output: Path | None = None
    """File to write; by default the terminal."""


def main() -> None:
    """Read the runs, join, render, write."""
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.format == "csv" and arguments.dataset is None:
        raise ConfigError(["--format csv: holds one table; choose it with --dataset"])
    text = tables(arguments)
    if arguments.output is None:
        print(text, end="")
        return
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"--output {arguments.output}: can't be written: {error.strerror}"]) from None


def tables(arguments: Arguments) -> str:
    """The asked-for tables as one text."""
    from morphmlp.tracking import read_runs, tracking_uri

    runs = read_runs(tracking_uri())
    recorded = set() if runs.empty else set(runs["dataset"])
    if arguments.dataset not in (None, *TITLES, *recorded):
        known = ", ".join((*TITLES, *sorted(recorded - TITLES.keys())))
        raise ConfigError([f"--dataset {arguments.dataset}: no run on it is recorded; there are {known}"])

    from morphmlp.reporting.tables import load_published, measured_table, other_table, published_table, render

    published = load_published(PUBLISHED)
    parts = []
    every = (*TITLES, *sorted(recorded - TITLES.keys()))
    for dataset in every if arguments.dataset is None else (arguments.dataset,):
        rows = [row for row in published.videos if row.dataset == dataset]
        table = published_table(rows, runs) if dataset in TITLES else measured_table(runs, dataset)
        title, note = (TITLES[dataset], NOTE) if dataset in TITLES else (f"Data set {dataset}", MEASURED_NOTE)
        parts.append(titled(render(table, style=arguments.format), title, note, style=arguments.format))
    if arguments.dataset is None:
        text = render(other_table(published.others), style=arguments.format)
        parts.append(titled(text, "Published, not measured here", "", style=arguments.format))
    return "\n".join(parts)


def titled(table: str, title: str, note: str, *, style: str) -> str:
    """A table under its title, with its note; a CSV stays bare."""
    if style == "csv":
        return table
    if style == "latex":
        return f"% {title}\n{table}" + (f"% {note}\n" if note else "")
    return f"## {title}\n\n{table}" + (f"\n{note}\n" if note else "")


if __name__ == "__main__":
    run(main)

"""Print the tables: published numbers next to those measured here, and the results on every other data set.

python pipelines/tables.py --dataset k400 --format latex --output k400.tex
"""

from pathlib import Path
from typing import Literal, get_args

import click

from morphmlp.cli import A_PATH, SETTINGS, run
from morphmlp.errors import ConfigError

Style = Literal["markdown", "csv", "latex"]
PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"
TITLES = {"k400": "Kinetics-400", "ssv1": "Something-Something V1", "ssv2": "Something-Something V2"}
"""Data sets with published numbers; the others' tables hold what was measured here alone."""
NOTE = (
    "Published: MTLab/MorphMLP README at commit 62ebe80, trained from ImageNet-1K weights. GMAC: multiply-accumulates "
    "of one view, params and GMAC computed here. Top-1 in percent over all views. Commit with +: uncommitted changes."
)
MEASURED_NOTE = "Latest run of each experiment. Scores over all views, in percent where no unit stands with them."


@click.command(context_settings=SETTINGS)
@click.option("--dataset", metavar="NAME", help="one table only, by the experiments' `dataset`; by default all")
@click.option(
    "--format",
    "style",
    type=click.Choice(get_args(Style)),
    default="markdown",
    help="csv holds one table and needs --dataset; latex needs the package booktabs",
)
@click.option("--output", type=A_PATH, metavar="FILE", help="file to write; by default the terminal")
def main(dataset: str | None, style: Style, output: Path | None) -> None:
    """Print the tables: published numbers next to those measured here; cells that nobody measured stay empty."""
    if style == "csv" and dataset is None:
        raise ConfigError(["--format csv: holds one table; choose it with --dataset"])
    text = tables(dataset, style=style)
    if output is None:
        print(text, end="")
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"--output {output}: can't be written: {error.strerror}"]) from None


def tables(dataset: str | None, *, style: Style) -> str:
    """The table of one data set, or all of them, as one text."""
    from morphmlp.tracking import read_runs, tracking_uri

    runs = read_runs(tracking_uri())
    recorded = set() if runs.empty else set(runs["dataset"])
    if dataset not in (None, *TITLES, *recorded):
        known = ", ".join((*TITLES, *sorted(recorded - TITLES.keys())))
        raise ConfigError([f"--dataset {dataset}: no run on it is recorded; there are {known}"])

    from morphmlp.reporting.tables import load_published, measured_table, other_table, published_table, render

    published = load_published(PUBLISHED)
    parts = []
    every = (*TITLES, *sorted(recorded - TITLES.keys()))
    for name in every if dataset is None else (dataset,):
        rows = [row for row in published.videos if row.dataset == name]
        table = published_table(rows, runs) if name in TITLES else measured_table(runs, name)
        title, note = (TITLES[name], NOTE) if name in TITLES else (f"Data set {name}", MEASURED_NOTE)
        parts.append(titled(render(table, style=style), title, note, style=style))
    if dataset is None:
        text = render(other_table(published.others), style=style)
        parts.append(titled(text, "Published, not measured here", "", style=style))
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

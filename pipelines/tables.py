"""Print the tables: published numbers next to those measured here, and the results on every other data set.

python pipelines/tables.py --dataset k400 --format latex --output k400.tex
python pipelines/tables.py --dataset demo --steps-to 97
"""

from functools import partial
from pathlib import Path
from typing import Literal, get_args

import click

from morphmlp.cli import A_PATH, SETTINGS, run
from morphmlp.errors import ConfigError

Style = Literal["markdown", "csv", "latex"]
PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"
NOTES = {
    "videos": (
        "Published: MTLab/MorphMLP README at commit 62ebe80, top-5 of arXiv 2111.12527v1, trained from ImageNet-1K "
        "weights. GMAC: multiply-accumulates of one view, params and GMAC computed here. Scores in percent over all "
        "views. Commit with +: uncommitted changes."
    ),
    "images": (
        "Published: arXiv 2111.12527v1, Table 2, trained on ImageNet-1K alone, 300 epochs. Params and GMAC (billion "
        "multiply-accumulates) are computed here, next to what is printed. Scores in percent on one centre crop. "
        "Commit with +: uncommitted changes."
    ),
    "segmentations": (
        "Published: arXiv 2111.12527v1, Table 6, Semantic FPN from ImageNet-1K weights, one scale; steps and batch as "
        "docs/decisions/0021-segmentation-recipe.md reads the paper. Params and GMAC are computed here, at that size. "
        "95 %: bootstrap over images. Commit with +: uncommitted changes."
    ),
    "measured": "Latest run of each experiment. Scores over all views, in percent where no unit stands with them.",
    "others": "As printed in the paper, in percent; GFLOPs over all views.",
}

STEPS_NOTE = "Up to the first validation that was so good; empty where none was."


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
@click.option(
    "--steps-to",
    type=float,
    metavar="SCORE",
    help="instead: after how many steps each run on --dataset validated so well first",
)
def main(dataset: str | None, style: Style, output: Path | None, steps_to: float | None) -> None:
    """Print the tables: published numbers next to those measured here; cells that nobody measured stay empty."""
    if style == "csv" and dataset is None:
        raise ConfigError(["--format csv: holds one table; choose it with --dataset"])
    if steps_to is None:
        text = tables(dataset, style=style)
    elif dataset is None:
        raise ConfigError(["--steps-to: needs --dataset; it compares runs on the same data"])
    else:
        text = steps(dataset, steps_to, style=style)
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

    from morphmlp.reporting.published import TITLES, load_published
    from morphmlp.reporting.tables import measured_table, others_table, published_table, render

    recorded = set() if runs.empty else set(runs["dataset"])
    every = (*TITLES, *sorted(recorded - TITLES.keys()))
    if dataset not in (None, *every):
        raise ConfigError([f"--dataset {dataset}: no run on it is recorded; there are {', '.join(every)}"])
    published = load_published(PUBLISHED)
    parts = []
    for name in every if dataset is None else (dataset,):
        rows = published.models(name)
        table = published_table(rows, runs) if rows else measured_table(runs, name)
        kind = {"imagenet": "images", "ade20k": "segmentations"}.get(name, "videos") if rows else "measured"
        title = TITLES.get(name, f"Data set {name}")
        parts.append(titled(render(table, style=style), title, NOTES[kind], style=style))
        if rows and style != "csv":
            others = render(others_table(published.others, name), style=style)
            parts.append(titled(others, f"{title}: other networks", NOTES["others"], style=style))
    return "\n".join(parts)


def steps(dataset: str, at_least: float, *, style: Style) -> str:
    """The table of how long the runs on a data set took to a score, as a text."""
    from morphmlp.reporting.steps_to_score import steps_table
    from morphmlp.reporting.tables import render
    from morphmlp.tracking import read_history, read_runs, tracking_uri

    uri = tracking_uri()
    runs = read_runs(uri, dataset=dataset)
    if runs.empty:
        raise ConfigError([f"--dataset {dataset}: no finished run on it is recorded"])
    table = render(steps_table(runs, partial(read_history, uri), at_least=at_least), style=style)
    return titled(table, f"Data set {dataset}: steps to {at_least:g}", STEPS_NOTE, style=style)


def titled(table: str, title: str, note: str, *, style: str) -> str:
    """A table under its title, with its note; a CSV stays bare."""
    if style == "csv":
        return table
    if style == "latex":
        return f"% {title}\n{table}" + (f"% {note}\n" if note else "")
    return f"## {title}\n\n{table}" + (f"\n{note}\n" if note else "")


if __name__ == "__main__":
    run(main)

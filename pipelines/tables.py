"""Print the tables: published numbers next to those measured here, and the results on every other data set.

python pipelines/tables.py --dataset k400 --format latex --output k400.tex
python pipelines/tables.py --claims
python pipelines/tables.py --html build/tables.html
python pipelines/tables.py --update experiments/README.md
python pipelines/tables.py --dataset demo --steps-to 97
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from morphmlp.cli import A_PATH, SETTINGS, run
from morphmlp.errors import ConfigError
from morphmlp.files import atomic_write

if TYPE_CHECKING:
    from morphmlp.reporting.tables.measured import Measured
    from morphmlp.reporting.tables.published import Published

Style = Literal["markdown", "csv", "latex"]
PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"
STEPS_NOTE = "Up to the first validation that was so good; empty where none was."


@click.command(context_settings=SETTINGS)
@click.option("--dataset", metavar="NAME", help="one data set only, by the experiments' `dataset`; by default all")
@click.option(
    "--format",
    "style",
    type=click.Choice(get_args(Style)),
    default="markdown",
    help="csv holds one table and needs --dataset or --claims; latex needs the package booktabs",
)
@click.option("--output", type=A_PATH, metavar="FILE", help="file to write; by default the terminal")
@click.option("--html", type=A_PATH, metavar="FILE", help="all of it as one page to look at: plots, filters, every run")
@click.option("--measured", is_flag=True, help="the measured numbers alone, of every experiment and way of testing")
@click.option("--claims", is_flag=True, help="what the paper claims alone, computed from the numbers it follows from")
@click.option(
    "--update", type=A_PATH, metavar="FILE", help="write the published tables into a Markdown file, between its marks"
)
@click.option(
    "--steps-to",
    type=float,
    metavar="SCORE",
    help="instead: after how many steps each run on --dataset validated so well first",
)
def main(
    *,
    dataset: str | None,
    style: Style,
    output: Path | None,
    html: Path | None,
    measured: bool,
    claims: bool,
    update: Path | None,
    steps_to: float | None,
) -> None:
    """Print the tables: published numbers next to those measured here; cells that nobody measured stay empty."""
    _choose_one({"--output": output, "--html": html, "--update": update})
    _choose_one({"--measured": measured or None, "--claims": claims or None, "--steps-to": steps_to})
    if claims and dataset is not None:
        raise ConfigError(["--claims: are of several data sets; leave out --dataset"])
    if update is not None:
        write(update, updated(update), "--update")
        print(f"written: {update}")
        return
    if html is not None:
        write(html, page(dataset), "--html")
        print(f"written: {html}")
        return
    if style == "csv" and dataset is None and not claims:
        raise ConfigError(["--format csv: holds one table; choose it with --dataset"])
    if steps_to is None:
        text = tables(dataset, style=style, measured=measured, claims=claims)
    elif dataset is None:
        raise ConfigError(["--steps-to: needs --dataset; it compares runs on the same data"])
    else:
        text = steps(dataset, steps_to, style=style)
    if output is None:
        print(text, end="")
    else:
        write(output, text, "--output")


def tables(dataset: str | None, *, style: Style, measured: bool = False, claims: bool = False) -> str:
    """The tables of one data set, or all of them, as one text."""
    from morphmlp.reporting.tables.document import all_parts, as_text

    published, runs = load(dataset)
    parts = all_parts(published, runs)
    if claims:
        parts = [part for part in parts if part.kind == "claims"]
    elif measured:
        parts = [part for part in parts if part.kind == "measured" and dataset in (None, part.dataset)]
    elif dataset is not None:
        parts = [part for part in parts if part.dataset == dataset]
    return as_text(parts[:1] if style == "csv" else parts, style=style)


def updated(file: Path) -> str:
    """A Markdown file's text with the published tables as they are now.

    Raises:
        ConfigError: It can't be read, or has no marks.
    """
    from morphmlp.reporting.tables.document import with_published_tables
    from morphmlp.reporting.tables.published import load_published

    try:
        return with_published_tables(file.read_text(encoding="utf-8"), load_published(PUBLISHED))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--update {file}: can't be read: {error}"]) from None


def page(dataset: str | None) -> str:
    """The page of one data set, or of all that something is published or measured of."""
    from morphmlp.reporting.tables.page import tables_page
    from morphmlp.reporting.tables.published import TITLES
    from morphmlp.tracking import tracking_uri, without_login

    published, runs = load(dataset)
    known = [*TITLES, *sorted({run.dataset for run in runs} - TITLES.keys())]
    read = f"{len(runs)} tested runs of {without_login(tracking_uri())}, read on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return tables_page(published, runs, known if dataset is None else [dataset], subtitle=read)


def load(dataset: str | None) -> "tuple[Published, list[Measured]]":
    """What is published, and the tested runs on a data set, or all.

    Raises:
        ConfigError: Nothing is published of the data set, and no run on it is recorded.
    """
    from morphmlp.reporting.tables.measured import measured_runs
    from morphmlp.reporting.tables.published import TITLES, load_published
    from morphmlp.tracking import read_runs, tracking_uri

    published, uri = load_published(PUBLISHED), tracking_uri()
    frame = read_runs(uri, dataset=dataset)
    if frame.empty and dataset is not None and dataset not in TITLES:
        known = [*TITLES, *sorted({*read_runs(uri)["dataset"]} - TITLES.keys())]
        raise ConfigError([f"--dataset {dataset}: no run on it is recorded; there are {', '.join(known)}"])
    return published, measured_runs(frame)


def steps(dataset: str, at_least: float, *, style: Style) -> str:
    """The table of how long the runs on a data set took to a score, as a text."""
    from morphmlp.reporting.tables.cells import Table
    from morphmlp.reporting.tables.document import titled
    from morphmlp.reporting.tables.render import render
    from morphmlp.reporting.tables.steps_to_score import steps_table
    from morphmlp.tracking import read_history, read_runs, tracking_uri

    uri = tracking_uri()
    runs = read_runs(uri, dataset=dataset)
    if runs.empty:
        raise ConfigError([f"--dataset {dataset}: no finished run on it is recorded"])
    table = Table(cells=steps_table(runs, partial(read_history, uri), at_least=at_least))
    title = f"Data set {dataset}: steps to {at_least:g}"
    return titled(render(table, style=style), title, STEPS_NOTE, style=style)


def _choose_one(given: Mapping[str, object]) -> None:
    """Refuse options that exclude each other.

    Raises:
        ConfigError: Several are there.
    """
    if len(there := [option for option, value in given.items() if value is not None]) > 1:
        raise ConfigError([f"{', '.join(there)}: choose one"])


def write(path: Path, text: str, option: str) -> None:
    """Write a file that the user named by an option.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)
    except OSError as error:
        raise ConfigError([f"{option} {path}: can't be written: {error.strerror}"]) from None


if __name__ == "__main__":
    run(main)

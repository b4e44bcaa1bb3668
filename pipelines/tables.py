"""Print the tables: published numbers beside those measured here, and the demo's own.

python pipelines/tables.py --dataset k400 --format latex --output k400.tex
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from morphmlp.cli import run
from morphmlp.errors import ConfigError

Dataset = Literal["k400", "ssv1", "ssv2", "demo"]
PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"
TITLES: dict[Dataset, str] = {
    "k400": "Kinetics-400",
    "ssv1": "Something-Something V1",
    "ssv2": "Something-Something V2",
    "demo": "Demo",
}
NOTE = (
    "Published: MTLab/MorphMLP README at commit 62ebe80, trained from ImageNet-1K weights. GMAC: multiply-accumulates "
    "of one view, params and GMAC computed here. Top-1 in percent over all views. Commit with +: uncommitted changes."
)
DEMO_NOTE = "Latest run of each experiment. Top-1 and top-5 in percent over all views."


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Published numbers beside those measured here; cells that nobody measured stay empty."""

    dataset: Dataset | None = None
    """One table only; by default all."""
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

    runs = read_runs(tracking_uri(), dataset=arguments.dataset)

    from morphmlp.reporting.tables import demo_table, load_published, other_table, published_table, render

    published = load_published(PUBLISHED)
    parts = []
    for dataset in TITLES if arguments.dataset is None else (arguments.dataset,):
        rows = [row for row in published.videos if row.dataset == dataset]
        table = demo_table(runs) if dataset == "demo" else published_table(rows, runs)
        note = DEMO_NOTE if dataset == "demo" else NOTE
        parts.append(titled(render(table, style=arguments.format), TITLES[dataset], note, style=arguments.format))
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

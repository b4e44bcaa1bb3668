"""What the recorded runs are doing: progress, speed, stalls, lost workers and nodes, time left and cost.

python pipelines/status.py --watch 10
python pipelines/status.py --run first --prices nodes.yaml

Reads MLflow's record, from any machine that reaches it; the cluster of --address or RAY_ADDRESS adds what it knows.
"""

import json as plain_json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from morphmlp.cli import A_PATH, COUNT, SECONDS, SETTINGS, json_option, run, write_json
from morphmlp.errors import ConfigError, StoreAwayError

if TYPE_CHECKING:
    from morphmlp.reporting.status.bill import Prices
    from morphmlp.reporting.status.reading import Found, StatusReader

STDOUT = Path("-")


@click.command(context_settings=SETTINGS)
@click.option("--run", "name", metavar="NAME", help="one run in detail, with its curves and last events")
@click.option("--last", type=COUNT, metavar="N", help="also the N newest runs that have ended")
@click.option("--all", "everything", is_flag=True, help="also all runs that have ended")
@click.option("--watch", type=SECONDS, metavar="SECONDS", help="look again after so many seconds, until Ctrl-C")
@click.option("--prices", type=A_PATH, metavar="FILE", help="node types with prices, as for size_cluster.py")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="the cluster's head, or http://HOST:PORT of its dashboard; by default RAY_ADDRESS",
)
@json_option
def main(
    *,
    name: str | None,
    last: int | None,
    everything: bool,
    watch: float | None,
    prices: Path | None,
    address: str | None,
    json: Path | None,
) -> None:
    """Print what the recorded runs are doing. With --json - only JSON is printed."""
    if sum((name is not None, last is not None, everything)) > 1:
        raise ConfigError(["--run, --last, --all: choose one"])
    rates = None if prices is None else _prices(prices)

    from morphmlp.reporting.status.reading import StatusReader
    from morphmlp.tracking import tracking_uri

    reader = StatusReader(
        tracking_uri(),
        name=name,
        ended=None if everything else last or 0,
        prices=rates,
        address=address or os.environ.get("RAY_ADDRESS"),
        address_by="--address" if address else "RAY_ADDRESS",
    )
    if watch is None:
        _show(reader.look(), json)
    else:
        _watch(reader, json, every_s=watch)


def _prices(path: Path) -> "Prices":
    from morphmlp.reporting.status.bill import Prices
    from morphmlp.sizing.nodes import Nodes

    nodes = Nodes.read(path)
    return Prices(hour=nodes.hour, currency=nodes.currency)


def _show(found: "Found", json: Path | None) -> None:
    from morphmlp.reporting.status.view import console, draw

    if json == STDOUT:
        print(plain_json.dumps(asdict(found), indent=2), flush=True)
        return
    screen = console()
    screen.print(draw(found, width=screen.width))
    write_json(json, found)


def _watch(reader: "StatusReader", json: Path | None, *, every_s: float) -> None:
    """Look again and again; a store that goes away after the first look is waited for."""
    from rich.live import Live

    from morphmlp.reporting.status.view import console, draw

    found, screen = reader.look(), console()
    live = Live(console=screen, auto_refresh=False) if screen.is_terminal and json != STDOUT else None
    if live is not None:
        live.start()
    try:
        while True:
            if live is None:
                _show(found, json)
            else:
                live.update(draw(found, width=screen.width), refresh=True)
                write_json(json, found)
            time.sleep(every_s)
            try:
                found = reader.look()
            except StoreAwayError as error:
                found = replace(found, away=str(error))
    finally:
        if live is not None:
            live.stop()


if __name__ == "__main__":
    run(main)

"""Runs on the terminal: a table, one run in detail, and what a cluster says."""

import os
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from morphmlp.cluster.state import ClusterState
from morphmlp.reporting.status import recorded
from morphmlp.reporting.status.reading import Found
from morphmlp.reporting.status.run_status import ENDED, WELL, RunStatus, State
from morphmlp.reporting.status.words import money, rate, seconds, span, sparkline

PLAIN_WIDTH = 200
"""Letters of a line where no terminal says otherwise: into a file, through a pipe."""
_ANY_WIDTH = 10_000
_STYLES = {
    State.STALLED: "bold red",
    State.DRIVER_GONE: "bold red",
    State.FAILED: "red",
    State.INTERRUPTED: "yellow",
    State.STOPPED: "yellow",
    State.FINISHED: "dim",
}
_CURVE = 48
_TREND = 0.1
"""Changes of speed that are worth an arrow."""


def console() -> Console:
    """Standard output; colours on a terminal only."""
    found = Console(highlight=False, soft_wrap=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=PLAIN_WIDTH)


def draw(found: Found, *, width: int) -> RenderableType:
    """All that was found, in so many columns."""
    if found.in_detail:
        body = run_detail(found.runs[0])
    elif found.runs:
        body = run_table(found.runs, width=width)
    else:
        body = Text(f"no run is running in {found.store}; --last 5 shows the newest that have ended")
    about = [Text(found.no_cluster)] if found.cluster is None else cluster_lines(found.cluster, now_ms=found.at_ms)
    seen = time.strftime("%H:%M:%S", time.localtime(found.at_ms / 1000))
    away = [Text(f"{found.away}; above is what was seen at {seen}", style="bold red")] if found.away else []
    return Group(body, Text(), *about, *away)


def run_table(runs: Sequence[RunStatus], *, width: int) -> RenderableType:
    """A row for each run, and below what is wrong with it; where rows are too long a few lines for each."""
    filled = [title for title in _COLUMNS if any(_COLUMNS[title](run) for run in runs)]
    for columns in (filled, [title for title in filled if title != "experiment"]):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for title in columns:
            table.add_column(title, no_wrap=True)
        for run in runs:
            table.add_row(*(Text(_COLUMNS[title](run), style=_style(title, run)) for title in columns))
        if Console(width=_ANY_WIDTH).measure(table).maximum <= width:
            remarks = [
                Text(f"{run.name}: {remark}", style=_style("state", run)) for run in runs for remark in run.remarks
            ]
            return Group(table, *([Text()] if remarks else []), *remarks)
    return Group(*(Padding(_block(run), (0, 0, 1, 0)) for run in runs))


def run_detail(run: RunStatus) -> RenderableType:
    """All of a run, with its curves and last events."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in (
        ("run", f"{run.name} ({run.experiment or 'no experiment'} on {run.dataset}), MLflow run {run.run_id}"),
        *((title, _COLUMNS[title](run)) for title in _COLUMNS if title != "run"),
        ("began with them", "" if run.workers_since_s is None else f"{span(run.workers_since_s)} ago"),
        ("last step", "" if run.step_s is None else seconds(run.step_s)),
        ("speed", _curve(run.speeds, "clips/s")),
        ("loss", _curve(run.losses, "")),
    ):
        if text:
            table.add_row(name, Text(text, style=_style(name, run)))
    events = [Text(f"  {_when(at)}  {text}") for at, text in run.events]
    more = run.num_events - len(run.events)
    title = "last events, newest first" + (f" ({more} more in events.jsonl of the run)" if more > 0 else "") + ":"
    return Group(
        table,
        *(Text(remark, style=_style("state", run)) for remark in run.remarks),
        *([Text(), Text(title, style="bold"), *events] if events else []),
    )


def cluster_lines(cluster: ClusterState, *, now_ms: int) -> Iterator[Text]:
    """The cluster in a line, and one for each machine that it has lost."""
    alive = [node for node in cluster.nodes if node.alive]
    cpus, gpus = sum(node.cpus for node in alive), sum(node.gpus for node in alive)
    yield Text(f"cluster {cluster.address}: {len(alive)} nodes alive ({cpus} CPUs, {gpus} GPUs)")
    for node in cluster.lost[:5]:
        when = "" if node.ended_ms is None else f" for {span(max(now_ms - node.ended_ms, 0) / 1000)}"
        yield Text(f"node {node.name} is gone{when}" + (f": {node.why}" if node.why else ""), style="yellow")
    if len(cluster.lost) > 5:
        yield Text(f"and {len(cluster.lost) - 5} nodes that are gone for longer")


def _block(run: RunStatus) -> RenderableType:
    """A run in a few lines."""
    facts = [
        f"{title} {text}" for title in _COLUMNS if title not in ("run", "state") and (text := _COLUMNS[title](run))
    ]
    return Group(
        Text.assemble((run.name, "bold"), "  ", (run.state, _style("state", run))),
        Text("  " + ", ".join(facts)),
        *(Text(f"  {remark}", style=_style("state", run)) for remark in run.remarks),
    )


def _style(title: str, run: RunStatus) -> str:
    if title != "state":
        return "dim" if run.state is State.FINISHED else ""
    return _STYLES.get(run.state, "green")


def _last_report(run: RunStatus) -> str:
    of = "began " if run.state is State.STARTING else "ended " if run.state in ENDED.values() else ""
    return f"{of}{span(run.age_s)} ago"


def _steps(run: RunStatus) -> str:
    if run.step is None:
        return ""
    if not run.total_steps:
        return f"{run.step:,}"
    share = min(run.step / run.total_steps, 1)
    return f"{run.step:,}/{run.total_steps:,} {int(share * 100)}%"


def _speed(run: RunStatus) -> str:
    if run.clips_per_s is None or run.state not in WELL:
        return ""
    trend = run.trend
    changed = "" if trend is None or abs(trend) < _TREND else f" {'↑' if trend > 0 else '↓'}{abs(trend):.0%}"
    return rate(run.clips_per_s) + changed


def _workers(run: RunStatus) -> str:
    if run.workers is None or run.state in ENDED.values():
        return ""
    asked = run.workers_asked
    if asked is None or run.workers == asked[1]:
        return str(run.workers)
    least, most = asked
    return f"{run.workers} of {most if least == most else f'{least}-{most}'}"


def _cost(run: RunStatus) -> str:
    if run.cost is None:
        return ""
    to_end = "" if run.cost_to_end is None else f" of {money(run.cost_to_end, '')}"
    return f"{money(run.cost, '')}{to_end} {run.currency}".rstrip()


_COLUMNS: dict[str, Callable[[RunStatus], str]] = {
    "run": lambda run: run.name,
    "experiment": lambda run: run.experiment or run.dataset,
    "state": lambda run: str(run.state),
    "epoch": lambda run: "" if run.epoch is None else f"{run.epoch}/{run.epochs}",
    "steps": _steps,
    "clips/s": _speed,
    "waits": lambda run: "" if run.wait_share is None else f"{run.wait_share:.0%}",
    "last report": _last_report,
    "workers": _workers,
    "left": lambda run: "" if run.left_s is None else span(run.left_s),
    "cost": _cost,
    "score": lambda run: run.score or "",
}
"""Columns by title; one that is empty for all runs is left out."""


def _curve(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    return f"{sparkline(values, _CURVE)} {rate(values[0])} to {rate(values[-1])} {unit}".rstrip()


def _when(at: str) -> str:
    return at.removesuffix("+00:00").replace("T", " ") + " UTC" if recorded.time_ms(at) is not None else at

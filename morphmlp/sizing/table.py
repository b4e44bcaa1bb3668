"""A cluster's size for the terminal, one quantity a line, each with its arithmetic."""

from tabulate import tabulate

from morphmlp.sizing.arithmetic import BUSY, Size
from morphmlp.sizing.inputs import Costs, Work
from morphmlp.sizing.nodes import Nodes

Row = tuple[str, str]


def size_table(size: Size, work: Work, costs: Costs, nodes: Nodes | None) -> str:
    """All of it."""
    rows = [
        *_steps(size, work, costs, counted=nodes is not None),
        *_traffic(size, work),
        ("an epoch", f"{size.epoch_s / 60:,.1f} min with validation, {size.epochs_per_day:,.1f} a day"),
        (
            "the recipe",
            f"{size.hours:,.1f} h: {work.steps:,} steps and {work.validations} validations, without its test",
        ),
        *([] if nodes is None else _nodes(size, nodes)),
        ("step by", f"{costs.step.measured_by} ({costs.step.described()})"),
        ("decoding by", costs.decoded_by),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _steps(size: Size, work: Work, costs: Costs, *, counted: bool) -> list[Row]:
    times = size.times
    return [
        (
            "GPUs that work",
            f"{times.workers} of {size.gpus}: a step has {work.micro_batches} micro-batches of "
            f"{work.micro_batch} videos, and a worker takes whole ones",
        ),
        (
            "a step",
            f"{times.step_s * 1000:.4g} ms: {times.compute_s * 1000:.4g} computing, "
            f"{times.exchange_s * 1000:.4g} exchanging gradients"
            + ("" if counted else " (not counted without --prices)"),
        ),
        ("GPUs busy", f"{size.busy:.1%} of the time"),
        ("clips", f"{size.clips_per_s:,.1f} a second = {work.clips_per_step} clips / {times.step_s:.4g} s"),
        (
            "decode cores",
            f"{size.cores}, {size.cores_per_worker} a worker: {size.clips_per_s:,.1f} clips/s x "
            f"{costs.decode_s * 1000:.4g} core-ms{_grown(costs)} / {BUSY:.0%} (ingest.cpus: {size.cores})",
        ),
        ("object store", f"{size.object_store_bytes / 2**30:,.1f} GiB of clips that wait"),
    ]


def _grown(costs: Costs) -> str:
    if costs.full_cores is None:
        return ""
    alone_ms = costs.decode_s * 1000 / costs.decode_growth
    return f" ({alone_ms:.4g} alone x {costs.decode_growth:.3f} with all {costs.full_cores} cores busy)"


def _traffic(size: Size, work: Work) -> list[Row]:
    files, clips = size.file_bytes_per_s, size.clip_bytes_per_s
    return [
        (
            "files to ingest",
            "not known without a manifest that holds sizes, or --video-mb"
            if files is None
            else _rate(files, size.ingest_nodes),
        ),
        (
            "clips to GPUs",
            f"out of ingest {_rate(clips, size.ingest_nodes)}; into training {_rate(clips, size.train_nodes)}"
            if size.train_nodes
            else _rate(clips),
        ),
        ("gradients", f"{work.gradient_bytes / 1e6:,.0f} MB; each worker sends {_rate(size.gradient_bytes_per_s)}"),
    ]


def _nodes(size: Size, nodes: Nodes) -> list[Row]:
    cost = size.cost or 0.0
    return [
        ("training nodes", f"{size.train_nodes} with {nodes.train.gpus} GPUs"),
        (
            "ingest nodes",
            f"{size.ingest_nodes} with {nodes.ingest.cpus} CPUs; the first thing such a node runs out of: "
            f"{size.ingest_limit}",
        ),
        ("cost", f"{cost:,.0f} {nodes.currency}: {cost / size.hours:,.2f} an hour"),
    ]


def _rate(total: float, nodes: int | None = None) -> str:
    return f"{total / 1e6:,.1f} MB/s" + (f", {total / nodes / 1e6:,.1f} a node" if nodes else "")

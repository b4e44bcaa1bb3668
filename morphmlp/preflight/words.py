"""A report as tables and a verdict."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from morphmlp.preflight.checks import CHECKS, gbit
from morphmlp.preflight.report import ClusterReport, Fault, NodeFacts, NodeReport
from morphmlp.training.loop.device_choices import gib

_GIB = 2**30


def tables(report: ClusterReport, faults: Sequence[Fault]) -> str:
    """A row for each check, and one for each node."""
    rows = []
    for check in CHECKS:
        seen, count = _SEEN[check](report), sum(fault.check == check for fault in faults)
        result = f"{count} fault{'s' if count > 1 else ''}" if count else "ok" if seen else "not run"
        rows.append((check, result, seen))
    checks = tabulate(rows, headers=("check", "result", "seen"), disable_numparse=True)
    nodes = tabulate(map(_node_row, report.nodes), headers=_NODE_COLUMNS, disable_numparse=True)
    return f"{checks}\n\n{nodes}"


def verdict(report: ClusterReport, faults: Sequence[Fault]) -> str:
    """In a line."""
    nodes = _counted(report)
    skipped = [check for check in CHECKS if not _SEEN[check](report) and not any(f.check == check for f in faults)]
    left_out = f" (not run: {', '.join(skipped)})" if skipped else ""
    if not faults:
        return f"green: nothing wrong on {nodes}{left_out}"
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''} on {nodes}{left_out}; each says what to do"


_NODE_COLUMNS = ("node", "role", "GPUs", "clips/s a core", "free, least", "shm", "open files", "clock")


def _node_row(node: NodeReport) -> tuple[str, ...]:
    role = " + ".join(name for name, has in (("train", node.trains), ("decode", node.decodes)) if has) or "-"
    facts = node.facts
    if facts is None:
        return (node.name, role, "?", "?", "?", "?", "?", "?")
    return (
        node.name,
        role,
        str(node.gpus),
        "-" if node.decoded is None or node.decoded.clips_per_s is None else f"{node.decoded.clips_per_s:.1f}",
        gib(_least_free(facts)),
        gib(facts.shm.total_bytes),
        str(facts.open_files),
        f"{node.clock_ahead_s:+.3f} s",
    )


def _least_free(facts: NodeFacts) -> int:
    return min(disk.free_bytes for disk in facts.disks.values())


def _facts(report: ClusterReport) -> list[NodeFacts]:
    return [node.facts for node in report.nodes if node.facts is not None]


def _counted(report: ClusterReport) -> str:
    return f"{len(report.nodes)} node{'' if len(report.nodes) == 1 else 's'}"


def _nodes(report: ClusterReport) -> str:
    train, decode = sum(node.trains for node in report.nodes), sum(node.decodes for node in report.nodes)
    return f"{_counted(report)}: {train} for training, {decode} for decoding"


def _versions(report: ClusterReport) -> str:
    names = ("python", "ray", "torch", "CUDA", "driver", "code")
    return ", ".join(f"{name} {report.here[name]}" for name in names if report.here.get(name, "none") != "none")


def _gpus(report: ClusterReport) -> str:
    if report.needs.misfit is not None:
        return "workers don't fit"
    return f"device {report.needs.device}, {sum(node.gpus for node in report.nodes)} GPUs"


def _files(report: ClusterReport) -> str:
    return f"{len(report.files)} not as they should be" if report.files else "storage and videos seen by all"


def _range(values: Iterable[float], form: str, unit: str) -> str:
    found = sorted(values)
    if not found:
        return ""
    low, high = format(found[0], form), format(found[-1], form)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _memory(report: ClusterReport) -> str:
    if (needs := report.needs.memory) is None:
        return ""
    shares = [
        sum(needs.workers(node.workers, node.memory_bytes).values()) / node.memory_bytes
        for node in report.nodes
        if node.workers and node.memory_bytes
    ]
    return f"workers take {_range(shares, '.0%', '')} of their nodes" if shares else ""


def _decode_memory(report: ClusterReport) -> str:
    if (needs := report.needs.memory) is None or not any(node.decode_tasks for node in report.nodes):
        return ""
    most = max(report.nodes, key=lambda node: node.decode_tasks)
    return (
        f"up to {most.decode_tasks} tasks a node, {gib(sum(needs.decoding(most.decode_tasks).values()))}; "
        f"{gib(most.decode_tasks * needs.decoder_limit)} if each came to ingest.decoder_memory_mb"
    )


def _record(report: ClusterReport) -> str:
    return "takes no runs" if report.record is not None else "takes runs and artifacts"


def _decoding(report: ClusterReport) -> str:
    samples = [node.decoded for node in report.nodes if node.decoded is not None]
    if not samples:
        return ""
    rates = _range((sample.clips_per_s for sample in samples if sample.clips_per_s), ".1f", " clips/s a core")
    return f"{samples[0].videos} videos on each node, {rates}"


def _pairs(report: ClusterReport) -> str:
    if not report.pairs:
        return ""
    rates = _range((gbit(pair.bytes_per_s) for pair in report.pairs if pair.bytes_per_s), ".2f", " Gbit/s")
    return f"{len(report.pairs)} pair{'s' if len(report.pairs) > 1 else ''}, {rates or 'none adds up'}"


def _steps(report: ClusterReport) -> str:
    if (steps := report.steps) is None:
        return ""
    rate = "" if steps.step_s is None else f", {steps.step_s:.2f} s a step"
    return (
        f"{steps.steps} steps of {steps.workers} worker{'s' if steps.workers > 1 else ''}{rate}, first batch after "
        f"{steps.start_s:.1f} s, {steps.wall_s:.0f} s in all"
    )


_SEEN = {
    "answer": _nodes,
    "lost": lambda report: f"{sum(node.lost for node in report.nodes)} nodes",
    "versions": _versions,
    "gpus": _gpus,
    "files": _files,
    "disk": lambda report: _range((_least_free(facts) / _GIB for facts in _facts(report)), ".1f", " GiB free"),
    "shm": lambda report: _range((facts.shm.total_bytes / _GIB for facts in _facts(report)), ".1f", " GiB"),
    "memory": _memory,
    "decode memory": _decode_memory,
    "open files": lambda report: _range((facts.open_files for facts in _facts(report)), "d", ""),
    "clock": lambda report: _range(
        (abs(node.clock_ahead_s) for node in report.nodes if node.facts is not None), ".3f", " s apart"
    ),
    "MLflow": _record,
    "decoding": _decoding,
    "all-reduce": _pairs,
    "steps": _steps,
}
"""What a check looked at, in a few words; nothing where it wasn't run."""

"""What is wrong with a report: one small function for each check, and what to do about each fault."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from morphmlp.preflight.memory import decode_misfit, gpu_misfit, misfit
from morphmlp.preflight.report import RAY, ClusterReport, Fault, NodeFacts, NodeReport
from morphmlp.training.loop.device_choices import gib

CLOCK_S = 2.0
"""By which clocks may differ: more than time servers leave, less than what orders events and expires tokens."""
OPEN_FILES = 4096
"""Ray warns below this that connections may fail."""
RAY_DISK_SHARE = 0.05
"""Ray makes no objects on disk, and tasks fail, where less of its disk is free than this share."""
SLOW_SHARE = 0.5
"""A node or link that does less than this share of the others' median isn't as they are; loads differ by less."""
_EVERYWHERE = ("python", "ray", "morphmlp", "code")
_WORKING = ("torch", "numpy", "pyarrow")
_ON_GPU = ("driver", "CUDA")
_PACKAGES = {"pyav": "av"}
"""Of decoders that aren't named as their package is."""


def silent_nodes(report: ClusterReport) -> Iterator[Fault]:
    """Nodes that didn't answer."""
    for node in report.nodes:
        if node.silent is not None and not node.lost:
            yield Fault(check="answer", where=node.name, what=node.silent, remedy="a mounted disk may hang there")


def lost_nodes(report: ClusterReport) -> Iterator[Fault]:
    """Nodes that left while they were asked."""
    for node in report.nodes:
        if node.lost:
            yield Fault(
                check="lost",
                where=node.name,
                what=node.silent or "is gone",
                remedy="look at its machine and network, and at Ray's log there",
            )


def versions(report: ClusterReport) -> Iterator[Fault]:
    """Whatever must be the same on all nodes, those that train or decode, or those with GPUs, and isn't."""
    decoder = _PACKAGES.get(report.needs.decoder, report.needs.decoder)
    on_gpu = _ON_GPU if report.needs.device == "cuda" else ()
    for name in (*_EVERYWHERE, *_WORKING, decoder, *on_gpu):
        asked = [
            (node, facts.versions.get(name, "none"))
            for node, facts in _seen(report)
            if name in _EVERYWHERE or (node.trains if name in _ON_GPU else node.trains or node.decodes)
        ]
        own = None if name in _ON_GPU else report.here.get(name)
        right = own or (Counter(version for _, version in asked).most_common(1)[0][0] if asked else "")
        for node, version in asked:
            if version != right:
                others = "this machine" if own else "most nodes"
                yield Fault(
                    check="versions",
                    where=node.name,
                    what=f"{name} {version}, {others} {right}",
                    remedy=_VERSION_REMEDIES.get(name, "install the same there"),
                )


_VERSION_REMEDIES = {
    "code": "bring the same files there, or ship them with the job (`ray job submit --working-dir .`)",
    "driver": "install the same NVIDIA driver there, or leave the node out",
    "CUDA": "install the same build of torch there",
}


def gpus(report: ClusterReport) -> Iterator[Fault]:
    """Workers that don't fit, and GPUs that Ray counts with and the driver or torch doesn't have."""
    if report.needs.misfit is not None:
        yield _from_line("gpus", report.needs.misfit)
    for node, facts in _seen(report):
        if report.needs.device != "cuda" or not node.trains:
            continue
        if len(facts.gpus) < node.gpus:
            yield Fault(
                check="gpus",
                where=node.name,
                what=f"Ray counts {node.gpus} GPUs, the driver shows {len(facts.gpus)}",
                remedy="look at `nvidia-smi` there: one may have fallen off the bus; restart the node, or its Ray",
            )
        if facts.versions.get("CUDA", "none") == "none":
            yield Fault(
                check="gpus",
                where=node.name,
                what=f"torch {facts.versions.get('torch', 'none')} is built without CUDA",
                remedy="install a build of torch for GPUs there",
            )


def files(report: ClusterReport) -> Iterator[Fault]:
    """Storage and videos that some node doesn't see, each line with what would be right."""
    for line in report.files:
        yield _from_line("files", line)


def decoding(report: ClusterReport) -> Iterator[Fault]:
    """Videos that don't decode on a node, and nodes that decode more slowly than others."""
    for node in report.nodes:
        if node.decoded is not None and node.decoded.broken:
            path, reason = next(iter(node.decoded.broken.items()))
            yield Fault(
                check="decoding",
                where=node.name,
                what=f"{len(node.decoded.broken)} of {node.decoded.videos} videos don't decode, as {path} ({reason})",
                remedy="repair or replace the files; `pipelines/prepare.py verify` finds all of them",
            )
    rates = {node.name: node.decoded.clips_per_s for node in report.nodes if node.decoded and node.decoded.clips_per_s}
    for name, rate, usual in _slow(rates):
        yield Fault(
            check="decoding",
            where=name,
            what=f"{rate:.1f} clips/s a core, the median of the nodes is {usual:.1f}",
            remedy="look for other work on it, a throttled CPU or a slow disk",
        )


def disks(report: ClusterReport) -> Iterator[Fault]:
    """Disks without the space that a run needs."""
    for node, facts in _seen(report):
        for field, disk in facts.disks.items():
            needed = RAY_DISK_SHARE * disk.total_bytes if field == RAY else report.needs.free_bytes.get(field, 0)
            if disk.free_bytes < needed:
                whose = "Ray's files lie" if field == RAY else f"{field} lies"
                yield Fault(
                    check="disk",
                    where=node.name,
                    what=f"{gib(disk.free_bytes)} free of {gib(disk.total_bytes)} at {disk.path}, where {whose}",
                    remedy=f"make room for {gib(needed)}, or name another disk",
                )


def shared_memory(report: ClusterReport) -> Iterator[Fault]:
    """Nodes whose object store doesn't fit into their shared memory, so that it lies on a disk."""
    for node, facts in _seen(report):
        if (node.trains or node.decodes) and facts.shm.total_bytes < node.object_store_bytes:
            yield Fault(
                check="shm",
                where=node.name,
                what=f"{facts.shm.path} has {gib(facts.shm.total_bytes)}, Ray's object store "
                f"{gib(node.object_store_bytes)}, which then lies on a disk",
                remedy="start the container with a larger --shm-size, or Ray with a smaller --object-store-memory",
            )


def memory(report: ClusterReport) -> Iterator[Fault]:
    """Nodes and GPUs that can't hold the workers that come there."""
    if (needs := report.needs.memory) is None:
        return
    for node in report.nodes:
        alone = len(report.nodes) == 1
        found = misfit(needs, workers=node.workers, memory=node.memory_bytes, alone=alone)
        if found is None and node.workers and node.facts is not None:
            found = gpu_misfit(needs, node.facts.gpu_bytes)
        if found is not None:
            yield Fault(check="memory", where=node.name, what=found[0], remedy=found[1])


def decode_memory(report: ClusterReport) -> Iterator[Fault]:
    """Nodes that hold their workers, but not as many decode tasks next to them as they have CPUs for."""
    if (needs := report.needs.memory) is None:
        return
    for node in report.nodes:
        found = decode_misfit(needs, workers=node.workers, tasks=node.decode_tasks, memory=node.memory_bytes)
        if found is not None:
            yield Fault(check="decode memory", where=node.name, what=found[0], remedy=found[1])


def open_files(report: ClusterReport) -> Iterator[Fault]:
    """Nodes on which processes may have few files and connections open."""
    for node, facts in _seen(report):
        if facts.open_files < OPEN_FILES:
            yield Fault(
                check="open files",
                where=node.name,
                what=f"a process may have {facts.open_files} files open",
                remedy="run `ulimit -n 65536` before `ray start` there (limits.conf makes it last)",
            )


def clocks(report: ClusterReport) -> Iterator[Fault]:
    """Clocks that differ by more than the question's own time explains."""
    for node, _ in _seen(report):
        if abs(node.clock_ahead_s) - node.clock_error_s > CLOCK_S:
            way = "ahead of" if node.clock_ahead_s > 0 else "behind"
            yield Fault(
                check="clock",
                where=node.name,
                what=f"{abs(node.clock_ahead_s):.1f} s {way} this machine's",
                remedy="let a time server set both (chrony, systemd-timesyncd)",
            )


def record(report: ClusterReport) -> Iterator[Fault]:
    """An MLflow store that doesn't take a run."""
    if report.record is not None:
        yield Fault(
            check="MLflow",
            where="this machine",
            what=report.record,
            remedy="start the server, or fix MLFLOW_TRACKING_URI or its login",
        )


def all_reduce(report: ClusterReport) -> Iterator[Fault]:
    """Pairs that add up wrong or not at all, and links slower than the others."""
    for pair in report.pairs:
        if pair.fault is not None:
            yield Fault(
                check="all-reduce",
                where=" - ".join(pair.nodes),
                what=pair.fault,
                remedy="open all ports between the nodes; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, set where Ray is "
                "started, choose the network",
            )
    rates = {" - ".join(pair.nodes): pair.bytes_per_s for pair in report.pairs if pair.bytes_per_s is not None}
    for name, rate, usual in _slow(rates):
        yield Fault(
            check="all-reduce",
            where=name,
            what=f"{gbit(rate):.2f} Gbit/s, the median of the pairs is {gbit(usual):.2f}",
            remedy="look at the link's negotiated speed and errors (`ethtool`, `ip -s link`) on both",
        )


def steps(report: ClusterReport) -> Iterator[Fault]:
    """First steps that failed, or whose numbers aren't finite."""
    if report.steps is None:
        return
    if report.steps.fault is not None:
        yield Fault(
            check="steps", where="training", what=report.steps.fault, remedy="a training would end at the same place"
        )
    elif report.steps.skipped:
        yield Fault(
            check="steps",
            where="training",
            what=f"{report.steps.skipped} of {report.steps.steps} steps had a loss or gradient that isn't finite",
            remedy="lower optim.lr, or look at the weights that the training starts from",
        )


Check = Callable[[ClusterReport], Iterator[Fault]]
CHECKS: Mapping[str, Check] = {
    "answer": silent_nodes,
    "lost": lost_nodes,
    "versions": versions,
    "gpus": gpus,
    "files": files,
    "disk": disks,
    "shm": shared_memory,
    "memory": memory,
    "decode memory": decode_memory,
    "open files": open_files,
    "clock": clocks,
    "MLflow": record,
    "decoding": decoding,
    "all-reduce": all_reduce,
    "steps": steps,
}
"""In the order in which they stand in the table."""
STOPPING = ("answer", "versions", "memory")
"""Checks of which a fault keeps a training from starting: it would fail, or mean something else. The
others are said, and may be what the user knows; clocks that are far off are refused when a run joins the cluster."""


def faults_of(report: ClusterReport, names: Sequence[str] = tuple(CHECKS)) -> list[Fault]:
    """All faults, in the order of the checks."""
    return [fault for name in names for fault in CHECKS[name](report)]


def gbit(bytes_per_s: float) -> float:
    """Gbit/s."""
    return bytes_per_s * 8 / 1e9


def _from_line(check: str, line: str) -> Fault:
    """A fault that was already put in words: `field: what; what would be right`."""
    field, _, rest = line.partition(": ")
    what, _, remedy = rest.rpartition("; ")
    return Fault(check=check, where=field, what=what or rest, remedy=remedy if what else "see docs/operations.md")


def _seen(report: ClusterReport) -> Iterator[tuple[NodeReport, NodeFacts]]:
    return ((node, node.facts) for node in report.nodes if node.facts is not None)


def _slow(rates: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Those that are slower than most; of two nobody can say which is usual."""
    if len(rates) < 3:
        return
    usual = median(rates.values())
    yield from ((name, rate, usual) for name, rate in rates.items() if rate < SLOW_SHARE * usual)

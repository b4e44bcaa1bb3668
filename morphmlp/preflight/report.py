"""What is seen before a run: of each node, between pairs of nodes, and in the first steps; plain values, for JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morphmlp.preflight.memory import TrainingMemory


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system, by a path on it."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What a node says of itself."""

    versions: Mapping[str, str]
    """Of Python, packages, the project's code, and of the GPU driver and CUDA where there are any; by name."""
    gpus: tuple[str, ...]
    """Names of the GPUs that the driver shows."""
    disks: Mapping[str, Disk]
    """By the field that names the folder; `RAY` is the disk of Ray's own files."""
    shm: Disk
    open_files: int
    """How many files a process may have open."""
    gpu_bytes: int = 0
    """Memory of the smallest GPU; 0 where there is none."""


RAY = "ray"


@dataclass(frozen=True, kw_only=True)
class DecodeSample:
    """Some videos of the manifests, decoded on one core of a node."""

    videos: int
    clips_per_s: float | None
    """Training clips a CPU second, median; None where none could be decoded."""
    broken: Mapping[str, str]
    """Reasons by path."""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """One node."""

    name: str
    """Host name and address."""
    trains: bool
    decodes: bool
    gpus: int = 0
    """That Ray counts with."""
    memory_bytes: int = 0
    """That Ray counts with for processes and its object store; 0 where nobody knows."""
    object_store_bytes: int = 0
    """Size of Ray's object store."""
    workers: int = 0
    """Most training workers that may come."""
    decode_tasks: int = 0
    """Most decode tasks at a time, with these workers there."""
    facts: NodeFacts | None = None
    silent: str | None = None
    """Why there are no facts."""
    lost: bool = False
    """It left the cluster while it was asked."""
    clock_ahead_s: float = 0.0
    """By which its clock is ahead of the command's machine."""
    clock_error_s: float = 0.0
    """Half the time of the question's way there and back."""
    decoded: DecodeSample | None = None


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """All-reduces between two nodes, or two processes of one."""

    nodes: tuple[str, str]
    fault: str | None = None
    """Why there is no result: no connection, no answer, or a wrong sum."""
    bytes_per_s: float | None = None
    """Bytes of the vector over the median time; for two, what the link carried each way."""


@dataclass(frozen=True, kw_only=True)
class StepsReport:
    """The first training steps of all workers, with real videos and a checkpoint."""

    steps: int
    workers: int
    fault: str | None = None
    start_s: float = 0.0
    """From the workers being ready to their first batch."""
    step_s: float | None = None
    """Median over the steps after the first."""
    skipped: int = 0
    """Steps whose loss or gradient wasn't finite."""
    wall_s: float = 0.0
    """Of the whole, workers' start and checkpoint included."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the experiment needs of the nodes."""

    device: str = "cpu"
    decoder: str = "pyav"
    misfit: str | None = None
    """Why the workers and decoding don't fit; None where they do."""
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    """Free space on a disk, by the field that names its folder."""
    memory: "TrainingMemory | None" = None
    """None where no placement is known."""


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """All that was seen."""

    needs: Needs
    here: Mapping[str, str]
    """Versions of the machine that asks, as `NodeFacts.versions`."""
    nodes: tuple[NodeReport, ...]
    files: tuple[str, ...] = ()
    """Lines about storage and videos that some node doesn't see."""
    record: str | None = None
    """Why MLflow can't be written to; None where it can, or wasn't tried."""
    pairs: tuple[PairReport, ...] = ()
    steps: StepsReport | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something to fix."""

    check: str
    where: str
    """Node, pair of nodes or field."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}; {self.remedy}"

"""What a node says of itself before a run, without torch, which takes seconds to import."""

import importlib.metadata
import importlib.util
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from morphmlp.environment import git_tree, package_blobs
from morphmlp.preflight.report import RAY, Disk, NodeFacts

_PACKAGES = ("ray", "morphmlp", "torch", "numpy", "pyarrow", "av", "decord", "torchcodec", "simplejpeg")
_NONE = "none"
_SHM = "/dev/shm"
_OUTPUT = Path("/proc/self/fd/1")


def node_facts(folders: Mapping[str, str]) -> NodeFacts:
    """Versions, GPUs, limits, and the disks of these folders (by field) and of Ray's own files."""
    drivers, gpus, gpu_bytes = _gpus()
    versions = {"python": platform.python_version(), "code": git_tree(package_blobs())[:12]}
    versions |= {name: _version(name) for name in _PACKAGES}
    return NodeFacts(
        versions={**versions, "driver": drivers, "CUDA": _cuda_of_torch()},
        gpus=gpus,
        disks={field: disk_at(folder) for field, folder in {**folders, RAY: ray_folder()}.items()},
        shm=disk_at(_SHM),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        gpu_bytes=gpu_bytes,
    )


def disk_at(folder: str) -> Disk:
    """The file system that a folder is on, or would be."""
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return Disk(path=str(there), total_bytes=usage.total, free_bytes=usage.free)


def ray_folder() -> str:
    """Where Ray keeps a node's logs and spilled objects, as a process of Ray's sees it by its own log."""
    log = _OUTPUT.readlink() if _OUTPUT.is_symlink() else Path()
    return str(log.parent) if "/session_" in str(log) else tempfile.gettempdir()


def _gpus() -> tuple[str, tuple[str, ...], int]:
    """The driver's version, the names of the GPUs that it shows, and the memory of the smallest."""
    try:
        shown = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return _NONE, (), 0
    rows = [line.split(", ", 2) for line in shown.stdout.splitlines() if line.count(", ") >= 2]
    sizes = [int(size) * 2**20 for _, size, _ in rows if size.isdigit()]  # MiB, or [N/A]
    return (rows[0][0] if rows else _NONE), tuple(name for _, _, name in rows), min(sizes, default=0)


def _cuda_of_torch() -> str:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return _NONE
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    built_with = re.search(r"^cuda\b.*= '([^']+)'", text, re.MULTILINE)
    return built_with[1] if built_with else _NONE


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _NONE

"""What a run ran on and with: commit, package versions, hardware; nothing that names a machine or a person."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from morphmlp.record import Tags

_PACKAGES = ("morphmlp", "torch", "ray", "av", "decord", "torchcodec", "mlflow", "pyarrow")
_UNKNOWN = "unknown"


def environment_tags(folder: str | Path = ".") -> dict[str, str]:
    """Tags with the git state of `folder`, the versions of python and packages, and this machine's CPU and memory.

    The commit is `unknown` outside a git repository. GPU names aren't here: only the workers see them.
    """
    commit = _git("rev-parse", "HEAD", folder=folder)
    changes = _git("status", "--porcelain", folder=folder)
    versions = {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {
        Tags.GIT_COMMIT: commit or _UNKNOWN,
        Tags.GIT_DIRTY: _UNKNOWN if changes is None or commit is None else str(bool(changes)).lower(),
        Tags.HARDWARE: hardware(),
        **{Tags.VERSION + name: version for name, version in versions.items()},
    }


def hardware() -> str:
    """CPU model, logical cores, memory, as in `AMD EPYC 7B13, 8 cores, 31 GiB`."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_cpu_model()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB"


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str, folder: str | Path) -> str | None:
    """What git prints, or nothing where it is missing, fails, or `folder` isn't in a repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()

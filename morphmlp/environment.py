"""What a run ran on and with: commit, package versions, hardware, and which command of whom it was.

Nothing here names a machine; `source_tags` alone names a person.
"""

import getpass
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from morphmlp.record import Tags

_PACKAGES = ("morphmlp", "torch", "ray", "av", "decord", "torchcodec", "mlflow", "pyarrow")
_UNKNOWN = "unknown"
COMMIT_VARIABLE = "MORPHMLP_GIT_COMMIT"
"""Names the commit where there is no repository: code that was copied to a cluster, or submitted to it."""


def environment_tags(folder: str | Path = ".") -> dict[str, str]:
    """Tags with the git state of `folder`, the versions of python and packages, and this machine's CPU and memory.

    Outside a git repository the commit is that of MORPHMLP_GIT_COMMIT, or `unknown`; the code's own tag is known
    anywhere. GPU names aren't here: only the workers see them.
    """
    commit = _git("rev-parse", "HEAD", folder=folder)
    changes = _git("status", "--porcelain", folder=folder)
    versions = {name: package_version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {
        Tags.GIT_COMMIT: git_commit(folder),
        Tags.GIT_DIRTY: _UNKNOWN if changes is None or commit is None else str(bool(changes)).lower(),
        Tags.CODE: git_tree(package_blobs()),
        Tags.HARDWARE: hardware(),
        **{Tags.VERSION + name: version for name, version in versions.items()},
    }


def source_tags(*, submitted: bool) -> dict[str, str]:
    """Tags with which MLflow's pages say where a run comes from: script, commit, repository, user, command.

    `submitted`: the command was submitted to a cluster as a job.
    """
    folder = Path(__file__).parent
    commit = _commit(folder)
    branch = _git("symbolic-ref", "--short", "HEAD", folder=folder)
    origin = _git("remote", "get-url", "origin", folder=folder)
    script = _from_root(sys.argv[0])
    known = {Tags.SOURCE_COMMIT: commit, Tags.SOURCE_BRANCH: branch, Tags.SOURCE_REPOSITORY: origin and _public(origin)}
    return {
        Tags.SOURCE_NAME: script,
        Tags.SOURCE_TYPE: "JOB" if submitted else "LOCAL",
        Tags.USER: _user(),
        Tags.COMMAND: shlex.join(["python", script, *sys.argv[1:]]),
        **{tag: text for tag, text in known.items() if text},
    }


def _from_root(script: str) -> str:
    """A script's path from the folder that holds this package; the repository's root, wherever a job unpacked it."""
    path = Path(script).absolute()
    root = Path(__file__).parent.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else script


def _public(address: str) -> str:
    """An address without a login, which may be a token; `git@host:path` is no URL and stays."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.scheme else address


def _user() -> str:
    """The tracking server's name for the user, else the login name; `LOGNAME` gives it where a job has another one."""
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have it
        return _UNKNOWN


def git_commit(folder: str | Path = ".") -> str:
    """The commit of `folder`, outside a repository that of MORPHMLP_GIT_COMMIT, or `unknown`."""
    return _commit(folder) or _UNKNOWN


def _commit(folder: str | Path) -> str | None:
    return _git("rev-parse", "HEAD", folder=folder) or os.environ.get(COMMIT_VARIABLE)


@cache
def package_blobs() -> dict[str, str]:
    """Git's name for the content of each file of this package, by its path in it."""
    return blob_reader()("morphmlp")


def blob_reader() -> Callable[[str], dict[str, str]]:
    """What finds these for a package by name, none where it isn't there.

    It travels with its text to other machines, whose own package may be old.
    """

    def read(package: str) -> dict[str, str]:
        import hashlib  # noqa: PLC0415
        import importlib.util  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        found = importlib.util.find_spec(package)
        if found is None or not found.origin:
            return {}
        root = Path(found.origin).parent
        blobs = {}
        for file in root.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                content = file.read_bytes()
                text = b"blob %d\0" % len(content) + content
                blobs[file.relative_to(root).as_posix()] = hashlib.sha1(text).hexdigest()
        return blobs

    return read


def git_tree(blobs: Mapping[str, str]) -> str:
    """Git's name for a folder of such files, none executable, as `git rev-parse COMMIT:FOLDER` prints it."""
    entries, folders = {}, dict[str, dict[str, str]]()
    for path, blob in blobs.items():
        name, _, inside = path.partition("/")
        if inside:
            folders.setdefault(name, {})[inside] = blob
        else:
            entries[name] = f"100644 {name}\0".encode() + bytes.fromhex(blob)
    for name, inner in folders.items():  # git sorts folders as if their names ended in a slash
        entries[f"{name}/"] = f"40000 {name}\0".encode() + bytes.fromhex(git_tree(inner))
    content = b"".join(line for _, line in sorted(entries.items()))
    return hashlib.sha1(b"tree %d\0" % len(content) + content).hexdigest()


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


def package_version(package: str) -> str:
    """The version that is installed, or that none is."""
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

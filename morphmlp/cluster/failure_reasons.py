"""Why processes of a cluster failed, in one line: the cause, not advice, and not what the survivors noticed of it.

Knows Ray's errors by their shape only.
"""

import re
from collections.abc import Mapping, Sequence

from morphmlp.errors import MorphMLPError, StorageError, storage_fault

_LONGEST_REASON = 300
_NOTICED = re.compile(r"gloo|nccl|closed by peer|reset by peer|DistBackendError|DistNetworkError|DistStoreError", re.I)
_EXIT_DETAIL = re.compile(
    r"Worker exit detail: (?P<detail>.*?)(?: (?:There are some potential root|Some common) causes.*)?$"
)
_ADVICE = re.compile(
    r"(?:Refer to|To see|To adjust|To disable|See|Set|Check|Tip|Try|For more|Consider|Increase|Please)\b", re.I
)
"""How sentences of Ray's begin that aren't about what happened."""
_STACK = re.compile(r'\s*File "|\s+\^|frame #\d|\[.*\] [EFIW] |@ |\*\*\*')
_MEMORY = re.compile(
    r"Memory on the node \(IP: (?P<ip>[^,)]+).*? was (?P<used>[\d.]+)GB(?: used)? / (?P<limit>[\d.]+)GB"
)
_ENDED = re.compile(r"Selected to kill: .*?name=(?P<name>[^,]+),")
_USER = re.compile(r"^(\d+)\s+([\d.]+)\s+(\S.*)$", re.M)
_FOLDERS = re.compile(r"(?<!\S)/\S*/(?=\S)")
_USERS_NAMED = 3
_LONGEST_COMMAND = 50


def failure_text(errors: Mapping[int, BaseException]) -> str:
    """What failed on which worker; workers that only lost their connection to a failed one are left out."""
    reasons = {rank: failure_reason(error) for rank, error in sorted(errors.items())}
    causes = {rank: reason for rank, reason in reasons.items() if not _NOTICED.search(reason)} or reasons
    ranks_of: dict[str, list[int]] = {}
    for rank, reason in causes.items():
        ranks_of.setdefault(reason, []).append(rank)
    return "; ".join(f"worker {', '.join(map(str, ranks))} failed: {reason}" for reason, ranks in ranks_of.items())


def root_failure(error: BaseException) -> BaseException:
    """What an error is about: Ray wraps what its health check met, what its controller met, and what a task raised."""
    for wrapped in ("health_check_failure", "controller_failure", "cause"):
        inner = getattr(error, wrapped, None)
        if isinstance(inner, BaseException):
            return root_failure(inner)
    return error


def users_fault(error: BaseException) -> MorphMLPError | None:
    """What of a failure the user can fix: the project's own errors, and full or broken disks; None for others."""
    error = root_failure(error)
    if isinstance(error, MorphMLPError):
        return error
    if type(error).__name__ == "OutOfDiskError":
        return StorageError(
            "the disk of Ray's object store is full (`TMPDIR`); the same command continues with room there"
        )
    return storage_fault(error)


def failure_reason(error: BaseException) -> str:
    """The cause of one error in a line."""
    error = root_failure(error)
    if isinstance(error, MorphMLPError):
        return "; ".join(str(error).splitlines())[:_LONGEST_REASON]
    if getattr(error, "preempted", False):
        return "its node was taken away (preempted)"
    text = str(error).strip()
    if (memory := _memory_text(text)) is not None:
        return memory
    lines = text.splitlines() or ["no message"]
    if "actor" in text and "died" in text:  # a process that is gone; Ray's text has many lines
        detail = next((found["detail"] for line in lines if (found := _EXIT_DETAIL.search(line))), _cause(lines))
        return f"its process is gone: {detail}"[:_LONGEST_REASON]
    # Of a lost connection all but the first line are frames of a stack, of lacking memory a list of processes.
    first = _NOTICED.search(lines[0]) or type(error).__name__ == "OutOfMemoryError"
    said = lines[0].strip() if first else _cause(lines)
    return f"{type(error).__name__}: {said}"[:_LONGEST_REASON]


def _cause(lines: Sequence[str]) -> str:
    """The last line that is neither advice nor a frame of a stack, without the advice at its end."""
    for line in reversed(lines):
        if line.strip() and not _ADVICE.match(line.strip()) and not _STACK.match(line):
            sentences = re.split(r"(?<=[.!]) ?(?=[A-Z])", line.strip())
            kept = [sentence for sentence in sentences if not _ADVICE.match(sentence)]
            return " ".join(kept).rstrip(".")
    return lines[-1].strip()


def _memory_text(text: str) -> str | None:
    """What Ray says of a node whose memory ran out, on which it ended processes; None where it says no such thing."""
    if (node := _MEMORY.search(text)) is None:
        return None
    users = [
        f"{_FOLDERS.sub('', command)[:_LONGEST_COMMAND].strip()} ({float(gigabytes):.1f} GB, process {pid})"
        for pid, gigabytes, command in _USER.findall(text)[:_USERS_NAMED]
    ]
    ended = ", ".join(dict.fromkeys(found["name"] for found in _ENDED.finditer(text))) or "a process"
    in_use = f"{float(node['used']):.1f} of {float(node['limit']):.1f} GB in use"
    most = f"; most of it was used by {', '.join(users)}" if users else ""
    return f"node {node['ip']} ran out of memory ({in_use}), so Ray ended {ended}{most}"

"""Why workers failed, in one line: the cause, not what the survivors noticed of it.

Knows Ray's errors by their shape only.
"""

import re
from collections.abc import Mapping

from morphmlp.errors import MorphMLPError

_LONGEST_REASON = 300
_NOTICED = re.compile(r"gloo|nccl|closed by peer|reset by peer|DistBackendError|DistNetworkError|DistStoreError", re.I)
_EXIT_DETAIL = re.compile(r"Worker exit detail: (?P<detail>.*?)(?: There are some potential root causes.*)?$")


def failure_text(errors: Mapping[int, BaseException]) -> str:
    """What failed on which worker; workers that only lost their connection to a failed one are left out.

    Args:
        errors: Exception of each failed worker, as Ray Train gives them.
    """
    reasons = {rank: _reason(error) for rank, error in sorted(errors.items())}
    causes = {rank: reason for rank, reason in reasons.items() if not _NOTICED.search(reason)} or reasons
    ranks_of: dict[str, list[int]] = {}
    for rank, reason in causes.items():
        ranks_of.setdefault(reason, []).append(rank)
    return "; ".join(f"worker {', '.join(map(str, ranks))} failed: {reason}" for reason, ranks in ranks_of.items())


def _reason(error: BaseException) -> str:
    inner = getattr(error, "health_check_failure", None) or getattr(error, "cause", None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    if isinstance(error, MorphMLPError):
        return "; ".join(str(error).splitlines())[:_LONGEST_REASON]
    if getattr(error, "preempted", False):
        return "its node was taken away (preempted)"
    text = str(error).strip()
    lines = text.splitlines() or ["no message"]
    # Of a worker that hangs, Ray's last line is about a setting; of a lost connection it's a frame of a stack.
    says_it_first = type(error).__name__ == "WorkerHealthCheckTimeoutError" or _NOTICED.search(lines[0])
    last = lines[0 if says_it_first else -1].strip()
    if "actor" in text and "died" in text:  # a process that is gone; Ray's text has many lines
        detail = next((found["detail"] for line in lines if (found := _EXIT_DETAIL.search(line))), last)
        return f"its process is gone: {detail}"[:_LONGEST_REASON]
    return f"{type(error).__name__}: {last}"[:_LONGEST_REASON]

"""All-reduces between two processes: who meets whom and when, the sum that must come out, the time that it takes."""

import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median

import torch
import torch.distributed as dist

ELEMENTS = 2**24
"""Of the vector, 64 MiB: long enough that the link counts and not the latency."""
ROUNDS = 5
MEETING_S = 60.0
"""Time for two processes to find each other, and for each all-reduce."""
_PERIOD = 1021


def rounds_of_pairs(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Every pair once, in rounds in which nobody has two partners (the circle method)."""
    ring: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    rounds = []
    for _ in range(len(ring) - 1):
        facing = zip(ring[: len(ring) // 2], reversed(ring[len(ring) // 2 :]), strict=True)
        rounds.append([(one, other) for one, other in facing if one is not None and other is not None])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def all_reduce_rounds(address: str, *, rank: int, backend: str, elements: int = ELEMENTS) -> float | str:
    """Meet the other process, and add vectors up; bytes a second, or what is wrong with the sum.

    `address` is `host:port` on the machine of rank 0. Raises what torch raises where they don't meet.
    """
    host, _, port = address.rpartition(":")
    device = torch.device("cuda" if backend == "nccl" else "cpu")
    dist.init_process_group(
        backend,
        init_method=f"tcp://{f'[{host}]' if ':' in host else host}:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=MEETING_S),
    )
    try:
        pattern = (torch.arange(elements, device=device) % _PERIOD).float()  # small whole numbers: sums are exact
        times, wrong = [], 0
        for turn in range(ROUNDS + 1):
            vector = pattern * (rank + 1 + turn)
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(vector)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
            wrong = max(wrong, int((vector != pattern * (3 + 2 * turn)).sum()))
        return f"{wrong} of {elements} sums are wrong" if wrong else 4 * elements / median(times[1:])
    finally:
        dist.destroy_process_group()

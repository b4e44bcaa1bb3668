"""What a device reaches at most here: bytes a second that a copy moves, and operations a second of a matrix product."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_TRIES = 5
_COPY_BYTES = {"cpu": 64 * 2**20, "cuda": 2**31}
"""Larger than what caches hold."""
_SIDE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Measured, with the threads that torch has now."""

    bytes_per_s: float
    """Read and written by a copy."""
    flops_per_s: float
    """Of a square matrix product."""
    precision: str

    def least_s(self, *, moved: int, flops: int) -> float:
        """Seconds that so many bytes and operations take at least, one next to the other."""
        return max(moved / self.bytes_per_s, flops / self.flops_per_s)

    def bound(self, *, moved: int, flops: int) -> str:
        """Which of them it is."""
        return "memory" if moved / self.bytes_per_s >= flops / self.flops_per_s else "compute"


def measure_peaks(device: torch.device, *, in_16_bit: bool) -> Peaks:
    """The best of some tries."""
    kind = torch.bfloat16 if in_16_bit else torch.float32
    source = torch.ones(_COPY_BYTES[device.type] // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    side = _SIDE[device.type]
    left = torch.ones(side, side, dtype=kind, device=device)
    product_s = _best_s(lambda: left @ left, device)
    return Peaks(
        bytes_per_s=2 * source.numel() / copy_s,
        flops_per_s=2 * side**3 / product_s,
        precision="16 bit" if in_16_bit else "fp32",
    )


def _best_s(action: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(_TRIES + 1):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])

"""CPU time of a step in its present order and in the published one: one process, one thread, interleaved.

Once with the memory of the C library as it is, once as a worker on CPUs sets it (`kept_memory`). The network runs in a
thread that isn't the main one, as under Ray Train. Run as a program it answers one request from standard input.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.step_bytes import is_product
from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import config_to_mapping
from morphmlp.models.build import build_network
from morphmlp.models.network import Network
from morphmlp.models.published_form import as_published
from morphmlp.training.loop.loop import autocast
from morphmlp.training.loop.state import Precision
from morphmlp.training.workers.kept_memory import KEPT


@dataclass(frozen=True, kw_only=True)
class OrderTimes:
    """Forward and backward passes without an optimiser; medians over the rounds."""

    memory: str
    """`as it is` or `kept`."""
    present_s: float
    """CPU seconds, the system's included."""
    published_s: float
    speedup: float
    """Published over present: median over the rounds, pair by pair."""
    products_s: float
    """Of the present order, in matrix products and convolutions: what no other order of steps can save."""
    peak_bytes: int
    """Most memory of the process."""

    @property
    def limit(self) -> float:
        """The speed-up if a step were nothing but its products."""
        return self.published_s / self.products_s


def compare_orders(
    config: ExperimentConfig, *, precision: Precision, clips: int, rounds: int, log: Callable[[str], None]
) -> list[OrderTimes]:
    """Time both orders of a step of so many clips, in a process of each kind of memory."""
    request = json.dumps(
        {"config": config_to_mapping(config), "precision": precision, "clips": clips, "rounds": rounds}
    )
    found = []
    for memory, settings in (("as it is", {}), ("kept", KEPT)):
        log(f"memory {memory}")
        environment = {name: value for name, value in os.environ.items() if name not in KEPT} | dict(settings)
        done = subprocess.run(
            [sys.executable, "-m", "morphmlp.benchmarks.step_orders"],
            input=request,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found.append(OrderTimes(memory=memory, **json.loads(done.stdout)))
    return found


def orders_table(found: list[OrderTimes]) -> str:
    """A line for each kind of memory."""
    rows = [
        (
            one.memory,
            f"{one.present_s:.2f}",
            f"{one.published_s:.2f}",
            f"{one.speedup:.2f}",
            f"{one.products_s:.2f}",
            f"{one.limit:.2f}",
            f"{one.peak_bytes / 2**30:.1f}",
        )
        for one in found
    ]
    headers = ("memory", "present (s)", "published (s)", "speed-up", "products (s)", "limit", "peak (GiB)")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6))


def _measured(config: ExperimentConfig, *, precision: Precision, clips: int, rounds: int) -> dict[str, float]:
    networks = {"present": _network(config).fit_to(torch.device("cpu")), "published": as_published(_network(config))}
    batch = torch.randn(clips, *networks["present"].input_shape)
    for network in networks.values():
        _pass(network, batch, precision)  # takes memory
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _, name in interleaved(list(networks), rounds):
        began = time.process_time()
        _pass(networks[name], batch, precision)
        times[name].append(time.process_time() - began)
    with _Products() as products:
        _pass(networks["present"], batch, precision)
    return {
        **{f"{name}_s": median(seconds) for name, seconds in times.items()},
        "speedup": median_ratio(times["published"], times["present"]),
        "products_s": products.seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _network(config: ExperimentConfig) -> Network:
    torch.manual_seed(0)
    clip = config.clip
    return build_network(config.model, num_frames=clip.num_frames, crop_size=clip.crop_size).train()


def _pass(network: Network, batch: Tensor, precision: Precision) -> None:
    network.zero_grad(set_to_none=True)
    with autocast(batch.device, precision):
        logits = network(batch)
    logits.float().sum().backward()


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the CPU time of matrix products and convolutions in this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        began = time.thread_time()
        results = func(*args, **(kwargs or {}))
        if is_product(func):
            self.seconds += time.thread_time() - began
        return results


def serve() -> None:
    """Answer the request of standard input."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    config = config_from_mapping(request.pop("config"))
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
        found = thread.submit(_measured, config, **request).result()
    print(json.dumps(found))


if __name__ == "__main__":
    serve()

"""What training processes on one machine's cores cost each other: by computing at once, and by exchanging gradients.

Each core has a process that takes steps of one micro-batch, as a run's worker does, on clips in memory. Rounds are
interleaved: one process alone; all at once, each for itself; all at once with DistributedDataParallel over gloo.

Run as a program it is one such process: the first line of standard input is its order (JSON), each further line a
number of steps; each answer is one JSON list, seconds and CPU seconds of a step.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from pydantic import JsonValue
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.benchmarks.busy_process import BusyProcess
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.step_loop import prepared_state, run_steps
from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import config_to_mapping

ALONE, AT_ONCE, TOGETHER = "alone", "at once", "together"
_PROGRAM = "morphmlp.benchmarks.shared_cores"


@dataclass(frozen=True, kw_only=True)
class SharedCores:
    """Medians over interleaved rounds; processes have one thread each."""

    processes: int
    """At once: one for each core."""
    micro_batch: int
    step_s: float
    """A step of one micro-batch, of a process alone."""
    contention: float
    """CPU time of a step while all compute, over that of a process alone: memory and caches are shared."""
    exchange_s: float
    """What a step takes longer where the processes exchange gradients: after each other's, and by hand-over."""
    exchange_cpu_s: float
    """The CPU time of a process, its threads for communication included, that a step then takes more."""
    rounds: int
    steps_per_round: int


def measure_shared_cores(
    config: ExperimentConfig, *, rounds: int, steps: int, processes: int | None = None
) -> SharedCores:
    """Measure on this machine's cores, or with so many processes; `config` has one micro-batch a step."""
    number = processes or len(os.sched_getaffinity(0))
    cpu: dict[str, list[float]] = {ALONE: [], AT_ONCE: [], TOGETHER: []}
    wall: dict[str, list[float]] = {ALONE: [], AT_ONCE: [], TOGETHER: []}
    with ExitStack() as stack:
        meeting = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="morphmlp-"))) / "meeting"
        order: dict[str, JsonValue] = {"config": config_to_mapping(config), "meeting": None, "rank": 0, "world": 1}
        apart = [stack.enter_context(BusyProcess(_PROGRAM, order)) for _ in range(number)]
        together = order | {"meeting": str(meeting), "world": number}
        joined = [stack.enter_context(BusyProcess(_PROGRAM, together | {"rank": rank})) for rank in range(number)]
        sides = {ALONE: apart[:1], AT_ONCE: apart, TOGETHER: joined}
        for _, side in interleaved(list(sides), rounds + 1):
            for process in sides[side]:
                process.begin(steps)
            answers = [process.end() for process in sides[side]]
            wall[side].append(sum(seconds for seconds, _ in answers) / len(answers))
            cpu[side].append(sum(seconds for _, seconds in answers) / len(answers))
    # The first round of each is warm-up.
    return SharedCores(
        processes=number,
        micro_batch=config.train.micro_batch_size,
        step_s=median(wall[ALONE][1:]),
        contention=max(1.0, median_ratio(cpu[AT_ONCE][1:], cpu[ALONE][1:])),
        exchange_s=exchange(wall),
        exchange_cpu_s=exchange(cpu),
        rounds=rounds,
        steps_per_round=steps,
    )


def exchange(seconds: Mapping[str, Sequence[float]]) -> float:
    """What a step takes more together than at once: the median over rounds of each way, the first one left out."""
    pairs = zip(seconds[TOGETHER][1:], seconds[AT_ONCE][1:], strict=True)
    return max(0.0, median(together - at_once for together, at_once in pairs))


def serve() -> None:
    """Answer rounds from standard input."""
    order = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    config, device = config_from_mapping(order["config"]), torch.device("cpu")
    if order["meeting"] is not None:
        dist.init_process_group(
            "gloo", init_method=f"file://{order['meeting']}", rank=order["rank"], world_size=order["world"]
        )
    state = prepared_state(config, device)
    network: nn.Module = state.model
    if order["meeting"] is not None:
        network = DistributedDataParallel(state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
    steps = run_steps(config, state, device=device, network=network)
    for line in sys.stdin:
        began_s, cpu_s, number = time.perf_counter(), time.process_time(), int(line)
        for _ in islice(steps, number):
            pass
        spent_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        print(json.dumps([seconds / number for seconds in spent_s]), flush=True)


if __name__ == "__main__":
    serve()

"""How much more CPU time work takes while other cores of its node are busy: optimiser steps, decoding, and both.

Processes do nothing but one kind of work, as a run's worker or a decode task does it. Each round measures, in an order
of its own, one of them alone and crowds of 2, 4, .. up to one a core, and two a core where steps are measured: all
alike, and each kind as the only one among processes of the other.

Run as a program it is one such process: the first line of standard input is its order (JSON), each further line a
number of seconds; each answer is one JSON list, steps or clips and the CPU seconds that they took.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import torch
from tabulate import tabulate

from morphmlp.benchmarks.busy_process import BusyProcess
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.step_loop import prepared_state, run_steps
from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import config_to_mapping, with_overrides
from morphmlp.errors import ConfigError
from morphmlp.sizing.contention import COMPUTING, DECODING, Contention, Crowd
from morphmlp.sizing.measured import clip_fields, decode_work

SEVERAL = "several micro-batches"
"""Work that is measured alone only: a step of `MICRO_BATCHES`, which has one optimiser's step as any other."""
MICRO_BATCHES = 4
_AT_ONCE = 4
"""Videos that a decoding process decodes between two looks at the clock."""
_PROGRAM = "morphmlp.benchmarks.busy_cores"


@dataclass(frozen=True, kw_only=True)
class BusyCores(Contention):
    """Medians over interleaved rounds; processes have one thread each."""

    experiment: str
    micro_batch: int
    """Videos of it, one a step."""
    videos: int
    """Training videos that were decoded."""
    rounds: int
    round_s: float

    def in_words(self) -> str:
        """What the table doesn't say."""
        words = []
        if COMPUTING in self.alone_s:
            words.append(
                f"a step of {self.micro_batch} videos takes {1000 * self.alone_s[COMPUTING]:.1f} CPU-ms alone, "
                f"{1000 * self.optimiser_s:.1f} of them whatever its micro-batches"
            )
        if DECODING in self.alone_s:
            words.append(
                f"a clip {1000 * self.alone_s[DECODING]:.2f}, and {self.full(DECODING):.3f} times as much where all "
                f"{self.cores} cores decode"
            )
        return "; ".join([*words, f"medians of {self.rounds} interleaved rounds of {self.round_s:g} s"])


Side = tuple[tuple[str, int], ...]
"""Processes of each kind that work at the same time."""


def measure_busy_cores(
    config: ExperimentConfig,
    *,
    work: Sequence[str],
    videos: int,
    rounds: int,
    round_s: float,
    cores: int | None = None,
    on_round: Callable[[int], None] = lambda number: None,
) -> BusyCores:
    """Measure on this machine's cores, or with so many processes; `config` has one micro-batch a step.

    Raises:
        ManifestError: There is no manifest of training videos to decode.
        ConfigError: Not one of them could be decoded.
    """
    cores = cores or len(os.sched_getaffinity(0))
    crowds = planned_crowds(work, cores)
    sides = list(dict.fromkeys([_alone(kind) for kind in work] + [_side(*crowd) for crowd in crowds]))
    if DECODING in work:
        decode_work(config, videos=1)  # its faults are the user's
    if COMPUTING in work:
        sides.append(_alone(SEVERAL))
    cpu_s = _measured(config, sides, videos=videos, rounds=rounds, round_s=round_s, on_round=on_round)
    alone = {kind: cpu_s[_alone(kind), kind] for kind in [*work, *([SEVERAL] if COMPUTING in work else [])]}
    return BusyCores(
        cores=cores,
        alone_s={kind: median(alone[kind]) for kind in work},
        optimiser_s=optimiser_s(alone[COMPUTING], alone[SEVERAL]) if COMPUTING in work else 0.0,
        crowds=[
            Crowd(
                work=kind,
                beside=beside,
                processes=number,
                cpu_ratio=median_ratio(cpu_s[_side(kind, beside, number), kind], alone[kind]),
            )
            for kind, beside, number in crowds
        ],
        clip_fields=clip_fields(config),
        experiment=config.name,
        micro_batch=config.train.micro_batch_size,
        videos=videos if DECODING in work else 0,
        rounds=rounds,
        round_s=round_s,
    )


def planned_crowds(work: Sequence[str], cores: int) -> list[tuple[str, str, int]]:
    """Kinds of work, what is beside it, and processes: 2, 4, .. to one a core; two a core where steps are measured."""
    numbers = [number for number in (2**power for power in range(1, cores.bit_length())) if number < cores]
    numbers += [cores] if cores > 1 else []
    numbers += [2 * cores] if COMPUTING in work else []
    return [(kind, beside, number) for number in numbers for kind in work for beside in work]


def _alone(kind: str) -> Side:
    return ((kind, 1),)


def _side(kind: str, beside: str, number: int) -> Side:
    return ((kind, number),) if kind == beside else tuple(sorted([(kind, 1), (beside, number - 1)]))


def optimiser_s(one: Sequence[float], several: Sequence[float]) -> float:
    """Of a step what its micro-batches don't add up to: with one o + m, with k of them o + k m."""
    found = [(MICRO_BATCHES * short - long) / (MICRO_BATCHES - 1) for short, long in zip(one, several, strict=True)]
    return max(0.0, median(found))


def _measured(
    config: ExperimentConfig,
    sides: Sequence[Side],
    *,
    videos: int,
    rounds: int,
    round_s: float,
    on_round: Callable[[int], None],
) -> dict[tuple[Side, str], list[float]]:
    """CPU seconds of a step, or of a clip, by side and kind, one a round; a round for warming up isn't among them."""
    needed = {kind: max(dict(side).get(kind, 0) for side in sides) for side in sides for kind, _ in side}
    cpu_s: dict[tuple[Side, str], list[float]] = {}
    names = {str(side): side for side in sides}
    with ExitStack() as stack:
        processes = {
            kind: [stack.enter_context(_process(config, kind, videos)) for _ in range(number)]
            for kind, number in needed.items()
        }
        for number, name in interleaved(list(names), rounds + 1):
            side = names[name]
            busy = {kind: processes[kind][:count] for kind, count in side}
            for kind, seconds in _round(busy, round_s).items():
                if not seconds:
                    raise ConfigError(
                        [f"data.train: not one of {videos} videos of {config.data.train} could be decoded"]
                    )
                cpu_s.setdefault((side, kind), []).append(seconds)
            on_round(number + 1)
    return {key: found[1:] for key, found in cpu_s.items()}


def _round(busy: Mapping[str, Sequence[BusyProcess]], round_s: float) -> dict[str, float]:
    """CPU seconds of a step, or of a clip, by kind, over all processes of it; 0 where they got nothing done."""
    for processes in busy.values():
        for process in processes:
            process.begin(round_s)
    found = {}
    for kind, processes in busy.items():
        answers = [process.end() for process in processes]
        done = sum(number for number, _ in answers)
        found[kind] = sum(spent_s for _, spent_s in answers) / done if done else 0.0
    return found


def _process(config: ExperimentConfig, kind: str, videos: int) -> BusyProcess:
    experiment = config_to_mapping(config)
    if kind == SEVERAL:
        videos_per_step = MICRO_BATCHES * config.train.micro_batch_size
        experiment = with_overrides(experiment, {"train.global_batch_size": videos_per_step})
    return BusyProcess(_PROGRAM, {"config": experiment, "kind": kind, "videos": videos})


def busy_cores_table(found: BusyCores) -> str:
    """As Markdown, a crowd a row."""
    words = {COMPUTING: "optimiser step", DECODING: "decoding"}
    rows = [
        (words[crowd.work], words[crowd.beside], crowd.processes, f"{crowd.cpu_ratio:.3f}")
        for crowd in sorted(found.crowds, key=lambda crowd: (crowd.work, crowd.beside, crowd.processes))
    ]
    heads = ["work", "all other processes", "processes", "CPU time over that alone"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def serve() -> None:
    """Answer rounds from standard input."""
    order = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    config = config_from_mapping(order["config"])
    work = _decoding(config, order["videos"]) if order["kind"] == DECODING else _steps(config)
    for line in sys.stdin:
        until_s, done, cpu_s = time.perf_counter() + float(line), 0, 0.0
        while time.perf_counter() < until_s:
            more, spent_s = work()
            done, cpu_s = done + more, cpu_s + spent_s
        print(json.dumps([done, cpu_s]), flush=True)


def _steps(config: ExperimentConfig) -> Callable[[], tuple[int, float]]:
    device = torch.device("cpu")
    steps = run_steps(config, prepared_state(config, device), device=device)

    def step() -> tuple[int, float]:
        began_s = time.process_time()
        next(steps)
        return 1, time.process_time() - began_s

    return step


def _decoding(config: ExperimentConfig, videos: int) -> Callable[[], tuple[int, float]]:
    task, table, clips_per_video = decode_work(config, videos=videos)
    parts = cycle([table.slice(start, _AT_ONCE) for start in range(0, len(table), _AT_ONCE)])

    def decode() -> tuple[int, float]:
        result = task(next(parts)).select(["cpu_s", "error"]).to_pylist()
        good = [row["cpu_s"] for row in result if not row["error"]]
        return len(good) * clips_per_video, sum(good)

    return decode


if __name__ == "__main__":
    serve()

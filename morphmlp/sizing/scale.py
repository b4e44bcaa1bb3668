"""Where more GPUs stop helping: the simulations over numbers of GPUs and ways to fill them, as table and picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from morphmlp.errors import ConfigError
from morphmlp.sizing.arithmetic import Size, size_cluster
from morphmlp.sizing.inputs import GIGABIT, Costs, Work
from morphmlp.sizing.losses import Interruptions, simulate_run
from morphmlp.sizing.nodes import Nodes
from morphmlp.sizing.steps import Setting, SimulatedSteps, scattered, simulate_steps

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
WARM_UP, STEPS, TASKS = 40, 160, 6
"""Steps of a simulation, or more: until each worker has read so many times all tasks that its buffer holds."""
MOST_STEPS = 4000
RUNS = 20
"""Whole trainings, of which the mean is taken."""


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What the simulation needs and no single measurement gives; 0 leaves an effect out."""

    step_variation: float
    """Standard deviation of a micro-batch's time over its mean."""
    decode_variation: float
    """The same of a decode task."""
    restart_s: float
    """From a lost node to the first step with all workers."""
    stall_s: float
    """What a checkpoint delays training by."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One way to fill so many GPUs."""

    way: str
    gpus: int
    size: Size
    steps: SimulatedSteps
    clips_per_s: float
    efficiency: float
    """Clips a second for each GPU over those of a single GPU that never waits, at the experiment's micro-batch."""
    hours: float
    """The recipe's training, losses of nodes included."""
    losses: float
    overhead: float
    """Time for losses and checkpoints over that without."""


def simulate(
    work: Work, costs: Costs, *, gpus: int, nodes: Nodes, assumed: Assumed, way: str, single: float
) -> Simulated:
    """One cell of the table, at the size that the arithmetic gives."""
    size = size_cluster(work, costs, gpus=gpus, nodes=nodes)
    times, rng = size.times, np.random.default_rng((assumed.seed, gpus, work.videos_per_step, work.micro_batch))
    per_node = min(nodes.train.gpus, times.workers)
    setting = Setting(
        workers=times.workers,
        micro_batches=work.micro_batches,
        micro_batch=work.micro_batch,
        micro_s=costs.step.seconds(work.micro_batch * work.clips_per_video),
        exchange_s=times.gradients_s,
        buckets=times.buckets,
        decode_s=costs.decode_s * work.clips_per_video,
        cores=size.cores_per_worker,
        task_videos=work.task_videos,
        link_s=work.video_bytes / (nodes.train.network_gbit * GIGABIT),
        workers_per_node=per_node,
    )
    buffer = 4 * size.cores_per_worker * work.task_videos / (work.videos_per_step / times.workers)
    warm_up = min(MOST_STEPS, max(WARM_UP, math.ceil(2 * buffer)))
    steps = simulate_steps(
        setting,
        steps=min(MOST_STEPS, max(STEPS, math.ceil(TASKS * buffer / 4))),
        warm_up=warm_up,
        compute=scattered(rng, assumed.step_variation),
        decode=scattered(rng, assumed.decode_variation),
    )
    work_s = size.hours * 3600 + work.steps * (steps.step_s - times.step_s)
    lost = nodes.train.losses_per_1000_h * (size.train_nodes or 1) / 1000
    interruptions = Interruptions(
        loss_every_s=3600 / lost if lost else math.inf,
        save_every_s=work.save_every_s or work_s,
        restart_s=assumed.restart_s,
        stall_s=assumed.stall_s,
    )
    runs = [simulate_run(work_s, interruptions, rng) for _ in range(RUNS if lost else 1)]
    wall_s = sum(run.wall_s for run in runs) / len(runs)
    clips_per_s = work.clips_per_step / steps.step_s
    return Simulated(
        way=way,
        gpus=gpus,
        size=size,
        steps=steps,
        clips_per_s=clips_per_s,
        efficiency=clips_per_s / gpus / single,
        hours=wall_s / 3600,
        losses=sum(run.losses for run in runs) / len(runs),
        overhead=wall_s / work_s - 1,
    )


def ways(work: Work) -> dict[str, Callable[[int], Work]]:
    """How so many GPUs can be filled: as the recipe says, with smaller micro-batches, with more videos a step."""

    def resized(videos: int, micro_batch: int) -> Work:
        epochs = work.steps / work.steps_per_epoch
        per_epoch = max(1, work.videos // videos)
        return replace(
            work,
            videos_per_step=videos,
            micro_batch=micro_batch,
            steps_per_epoch=per_epoch,
            steps=max(1, round(epochs * per_epoch)),
        )

    batch, micro = work.videos_per_step, work.micro_batch
    return {
        f"{batch} videos a step in micro-batches of {micro}": lambda gpus: work,
        f"{batch} videos a step, divided over all GPUs": lambda gpus: resized(batch, min(micro, max(1, batch // gpus))),
        f"{micro} videos a GPU and step": lambda gpus: resized(max(batch, micro * gpus), micro),
    }


def simulate_all(
    work: Work, costs: Costs, *, nodes: Nodes, assumed: Assumed, gpus: Sequence[int] = GPUS, log: Callable[[str], None]
) -> list[Simulated]:
    """All ways over all numbers of GPUs; ways that need a step nobody measured are left out, and said so."""
    single = work.micro_batch * work.clips_per_video / costs.step.seconds(work.micro_batch * work.clips_per_video)
    found = []
    for way, changed in ways(work).items():
        for number in gpus:
            filled = changed(number)
            if filled.videos_per_step > work.videos:
                continue
            try:
                found.append(simulate(filled, costs, gpus=number, nodes=nodes, assumed=assumed, way=way, single=single))
            except ConfigError as error:
                log(f"{way}, {number} GPUs: left out: {error}")
                break
    return found


def scale_table(found: Sequence[Simulated], *, currency: str) -> str:
    """As Markdown."""
    rows = [
        [
            one.way,
            one.gpus,
            one.size.times.workers,
            f"{one.steps.step_s * 1000:.0f}",
            f"{one.clips_per_s:,.0f}",
            f"{one.efficiency:.0%}",
            f"{one.steps.exchange_share:.0%}",
            f"{one.steps.slower_wait_share:.0%}",
            f"{one.steps.data_wait_share:.1%}",
            f"{one.size.cores:,}",
            f"{one.losses:.1f}",
            f"{one.overhead:.1%}",
            f"{one.hours:,.1f}",
            "" if one.size.cost is None else f"{one.size.cost / one.size.hours * one.hours:,.0f}",
        ]
        for one in found
    ]
    heads = [
        "filled by",
        "GPUs",
        "of them at work",
        "step (ms)",
        "clips/s",
        "of linear",
        "exchange",
        "slower workers",
        "data",
        "decode cores",
        "losses",
        "their cost",
        "hours",
        currency,
    ]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def scale_figure(found: Sequence[Simulated]) -> Figure:
    """Clips a second over GPUs, and the share of linear growth that each way reaches."""
    figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
    speed, share = figure.subplots(1, 2)
    colors = ("#8d99ae", "#c8553d", "#2a6f97")
    gpus = sorted({one.gpus for one in found})
    base = next(one for one in found if one.gpus == gpus[0])
    linear = base.clips_per_s / base.gpus / base.efficiency
    speed.plot(gpus, [linear * number for number in gpus], color="black", linestyle=":", linewidth=1, label="linear")
    for way, color in zip(dict.fromkeys(one.way for one in found), colors, strict=False):
        its = [one for one in found if one.way == way]
        numbers = [one.gpus for one in its]
        speed.plot(numbers, [one.clips_per_s for one in its], color=color, marker="o", markersize=3, label=way)
        share.plot(numbers, [100 * one.efficiency for one in its], color=color, marker="o", markersize=3)
    for axes, title, unit in ((speed, "Speed", "clips/s"), (share, "Share of linear growth", "%")):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_xticks(gpus, [str(number) for number in gpus])
        axes.set_xlabel("GPUs")
        axes.set_ylabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    speed.set_yscale("log")
    share.set_ylim(0, 105)
    speed.legend(frameon=False, fontsize=8)
    return figure

"""Commands of benchmark.py that measure a network's step, its parts and what delays it."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
from pydantic import JsonValue

from morphmlp.cli import A_PATH, COUNT, SECONDS, json_option, write_json

DEMO = "experiments/demo/morphmlp_demo.yaml"


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--rounds", type=COUNT, default=20, help="rounds of each side")
@click.option("--steps", type=COUNT, help="steps of a round, one report each; by default the experiment's")
@click.option("--clips", type=COUNT, help="clips of a step, in one micro-batch; by default the experiment's")
@json_option
def train_step(*, config: str, rounds: int, steps: int | None, clips: int | None, json: Path | None) -> None:
    """A step of a run under Ray Train against one of a plain loop."""
    from morphmlp.benchmarks.ray_train_step import compare_train_step
    from morphmlp.cluster.ray_cluster import ray_session
    from morphmlp.config import load_config

    shorter: dict[str, JsonValue] = {}
    if clips is not None:
        shorter |= {f"train.{size}_batch_size": clips for size in ("global", "micro")}
        shorter |= {"augment.repeats": 1}
    if steps is not None:
        shorter["execution.report_every_steps"] = steps
    experiment = load_config(config, {"cluster.num_workers": 1, **shorter})
    print(f"{rounds} rounds with {config}, one worker", file=sys.stderr)
    with ray_session(experiment.cluster, experiment.ingest, micro_batches=1) as placement:
        result = compare_train_step(experiment, placement, rounds=rounds)
    print(
        f"a run's step takes {result.ratio:.3f} times that of a plain loop in a script ({1000 * result.run_step_s:.1f} "
        f"ms against {1000 * result.script_step_s:.1f} ms), {result.loop_ratio:.3f} times that of the plain loop in "
        f"the same process ({1000 * result.plain_step_s:.1f} ms), on {result.device} in {result.precision}; "
        f"medians of {result.rounds} interleaved rounds of {result.steps_per_round} steps, one report each"
    )
    write_json(json, result)


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--micro-batch", type=COUNT, help="videos of a micro-batch; by default the experiment's")
@click.option("--rounds", type=COUNT, default=10, help="rounds of each side")
@click.option("--steps", type=COUNT, default=8, help="steps of a round, one micro-batch each")
@json_option
def shared_cores(*, config: str, micro_batch: int | None, rounds: int, steps: int, json: Path | None) -> None:
    """What workers that compute on one machine's CPUs cost each other."""
    from morphmlp.benchmarks.shared_cores import measure_shared_cores
    from morphmlp.config import load_config

    videos = micro_batch or load_config(config).train.micro_batch_size
    sizes: dict[str, JsonValue] = {f"train.{size}_batch_size": videos for size in ("global", "micro")}
    experiment = load_config(config, {"cluster.num_workers": 1, **sizes})
    found = measure_shared_cores(experiment, rounds=rounds, steps=steps)
    print(
        f"a step of {found.micro_batch} videos takes {1000 * found.step_s:.1f} ms in one process alone; with "
        f"{found.processes} at once each needs {found.contention:.3f} times the CPU time, and exchanging gradients "
        f"takes {1000 * found.exchange_s:.1f} ms more, with {1000 * found.exchange_cpu_s:.1f} ms of each one's CPU; "
        f"medians of {found.rounds} interleaved rounds of {found.steps_per_round} steps"
    )
    write_json(json, found)


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--micro-batch", type=COUNT, help="videos of a micro-batch; by default the experiment's")
@click.option("--work", type=click.Choice(["all", "decoding"]), default="all", help="decoding alone: for ingest nodes")
@click.option("--videos", type=COUNT, default=32, help="training videos that are decoded")
@click.option("--rounds", type=COUNT, default=6, help="rounds of each crowd")
@click.option("--seconds", type=SECONDS, default=1.0, help="length of a round")
@json_option
def busy_cores(
    *, config: str, micro_batch: int | None, work: str, videos: int, rounds: int, seconds: float, json: Path | None
) -> None:
    """What CPU time grows by as the cores of a node fill up: of optimiser steps on CPUs, and of decoding."""
    from morphmlp.benchmarks.busy_cores import busy_cores_table, measure_busy_cores
    from morphmlp.config import load_config
    from morphmlp.progress import TerminalProgress
    from morphmlp.sizing.contention import COMPUTING, DECODING

    size = micro_batch or load_config(config).train.micro_batch_size
    sizes: dict[str, JsonValue] = {f"train.{name}_batch_size": size for name in ("global", "micro")}
    experiment = load_config(config, {"cluster.num_workers": 1, **sizes})
    with TerminalProgress() as progress:
        progress.phase("busy cores", total=rounds + 1, unit="rounds")
        found = measure_busy_cores(
            experiment,
            work=[DECODING] if work == "decoding" else [COMPUTING, DECODING],
            videos=videos,
            rounds=rounds,
            round_s=seconds,
            on_round=progress.update,
        )
    print(busy_cores_table(found))
    print(found.in_words())
    write_json(json, found)


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--rounds", type=COUNT, default=10, help="rounds of each variant")
@click.option("--steps", type=COUNT, default=10, help="steps of a round")
@click.option("--videos", type=COUNT, help="videos of a step; by default the experiment's")
@click.option("--micro-batch", type=COUNT, help="videos of a micro-batch; by default the experiment's")
@click.option("--threads", type=COUNT, default=1, help="threads of a step on CPUs")
@json_option
def step_variants(
    *,
    config: str,
    rounds: int,
    steps: int,
    videos: int | None,
    micro_batch: int | None,
    threads: int,
    json: Path | None,
) -> None:
    """A step with other arithmetic, with compiled and with recomputed blocks."""
    import torch

    from morphmlp.benchmarks.block_limits import limits_table
    from morphmlp.benchmarks.step_variants import compare_variants, variants_table

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shorter: dict[str, JsonValue] = {"train.micro_batch_size": micro_batch} if micro_batch else {}
    if videos is not None:
        shorter["train.global_batch_size"] = videos
    found = compare_variants(
        config,
        shorter,
        rounds=rounds,
        steps=steps,
        device=device,
        log=lambda line: print(line, file=sys.stderr),
    )
    print(variants_table(found))
    print(
        f"{found.clips_per_step} clips a step, medians of {found.rounds} interleaved rounds of {found.steps_per_round} "
        f"steps, on {found.device}\n"
    )
    print(limits_table(found.blocks))
    reached = ", ".join(
        f"{name} products {peak.flops_per_s / 1e12:.2f} TFLOP/s" for name, peak in sorted(found.peaks.items())
    )
    copied = max(peak.bytes_per_s for peak in found.peaks.values())
    print(f"limits by counted bytes and what the device reaches here: copies {copied / 1e9:.0f} GB/s, {reached}")
    write_json(json, found)


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--clips", type=COUNT, default=16, help="clips of a step")
@click.option("--compiled", is_flag=True, help="compiled blocks too, by the plan of torch's compiler for CPUs: minutes")
@json_option
def step_bytes(*, config: str, clips: int, compiled: bool, json: Path | None) -> None:
    """Bytes and kernels of a step, counted without a clock or a GPU, against the published order of steps."""
    from morphmlp.benchmarks.step_bytes import bytes_table, compare_bytes
    from morphmlp.config import load_config

    experiment = load_config(config)
    found = compare_bytes(experiment, clips=clips)
    print(bytes_table(found))
    print(
        f"forward and backward of {clips} clips in eager mode, every operation's operands and results; products: the "
        "ratio if matrix products and convolutions were all"
    )
    blocks = []
    if compiled:
        from morphmlp.benchmarks.compiled_bytes import blocks_table, compare_blocks

        blocks = compare_blocks(experiment, clips=clips)
        print(f"\n{blocks_table(blocks)}")
    parts = {"parts": [asdict(row) for row in found], "blocks": [asdict(row) for row in blocks]}
    write_json(json, {"clips": clips, **parts})


@click.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--clips", type=COUNT, default=4, help="clips of a step")
@click.option("--rounds", type=COUNT, default=5, help="rounds of each order")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="arithmetic")
@json_option
def step_orders(*, config: str, clips: int, rounds: int, precision: Literal["fp32", "bf16"], json: Path | None) -> None:
    """CPU time of a step in one thread against the published order of steps."""
    from morphmlp.benchmarks.step_orders import compare_orders, orders_table
    from morphmlp.config import load_config

    found = compare_orders(
        load_config(config),
        precision=precision,
        clips=clips,
        rounds=rounds,
        log=lambda line: print(line, file=sys.stderr),
    )
    print(orders_table(found))
    print(f"forward and backward of {clips} clips, {precision}, one thread, CPU time, {rounds} interleaved rounds")
    write_json(json, [asdict(times) for times in found])


@click.command()
@click.option("--draws", type=COUNT, default=6, help="networks and clips of each model")
@click.option("--clips", type=COUNT, default=2, help="clips of a draw")
@click.option("--frames", type=COUNT, default=4, help="of a clip")
@click.option("--precision", type=click.Choice(["bf16", "fp16"]), default="bf16", help="arithmetic")
@click.option("--fused", is_flag=True, help="also with fused kernels, in Triton's interpreter: minutes a draw")
@json_option
def step_precision(*, draws: int, clips: int, frames: int, precision: str, fused: bool, json: Path | None) -> None:
    """How far 16-bit logits are from fp32, against the published order of steps; on CPUs."""
    import torch

    from morphmlp.benchmarks.step_precision import PRESETS, losses_table, precision_losses

    if fused and os.environ.get("TRITON_INTERPRET") != "1":
        raise click.UsageError("--fused computes on CPUs in Triton's interpreter: set TRITON_INTERPRET=1")
    torch.set_num_threads(1)
    kind = torch.bfloat16 if precision == "bf16" else torch.float16
    found = precision_losses(
        PRESETS,
        draws=draws,
        clips=clips,
        num_frames=frames,
        kind=kind,
        log=lambda line: print(line, file=sys.stderr),
        fused=fused,
    )
    print(losses_table(found))
    print(f"root mean square of the error of logits over that of fp32's, {draws} draws, {precision}")
    write_json(json, [asdict(loss) for loss in found])


@click.command()
@click.option("--preset", type=click.Choice(["t", "s", "b"]), default="s", help="published image model")
@click.option("--size", type=COUNT, default=512, help="rows and columns of the images, pixels")
@click.option("--images", type=COUNT, default=1, help="of them in a pass")
@click.option("--rounds", type=COUNT, default=11, help="rounds of each way")
@click.option("--threads", type=COUNT, default=1, help="threads on CPUs")
@json_option
def chunk_shapes(*, preset: str, size: int, images: int, rounds: int, threads: int, json: Path | None) -> None:
    """A backbone on large images, by chunk shape, against as many pixels in crops of 224."""
    import torch

    from morphmlp.benchmarks.chunk_shapes import measure_chunk_shapes, shapes_table

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = measure_chunk_shapes(
        f"morphmlp_{preset}_image", size=size, images=images, rounds=rounds, device=device, precision=precision
    )
    print(shapes_table(found))
    print(f"forward passes of {images} images of {size} px, {rounds} interleaved rounds, {device}, {precision}")
    write_json(json, [asdict(cost) for cost in found])


@click.command()
@click.option("--preset", type=click.Choice(["s", "b"]), default="s", help="published model, 16x4")
@click.option("--clips", type=COUNT, default=1, help="clips of a step")
@click.option("--rounds", type=COUNT, default=3, help="checkpoints")
@click.option("--steps", type=COUNT, default=2, help="steps before each of them")
@click.option("--threads", type=COUNT, default=1, help="threads of a step on CPUs")
@click.option("--storage", type=A_PATH, help="folder to write to; by default where temporary files are")
@json_option
def checkpoint_stall(
    *, preset: str, clips: int, rounds: int, steps: int, threads: int, storage: Path | None, json: Path | None
) -> None:
    """What a checkpoint delays training by, in steps."""
    import torch

    from morphmlp.benchmarks.checkpoint_stall import measure_stall, stall_config

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = stall_config(preset, clips=clips)
    print(f"{rounds} checkpoints of {config.name} on {device}", file=sys.stderr)
    result = measure_stall(config, device=device, storage=storage, rounds=rounds, plain=steps)
    print(
        f"a checkpoint delays training by {result.stall_steps:.2f} steps ({result.stall_s:.2f} s, a step takes "
        f"{result.step_s:.2f} s): {result.standstill_s:.2f} s of standstill, and steps that take {result.slowdown:.3f} "
        f"times as long while {result.written_bytes / 1e6:.0f} MB are written in {result.write_s:.1f} s"
    )
    write_json(json, result)


@click.command()
@click.option("--output", type=A_PATH, required=True, metavar="DIR", help="folder for results and traces")
@click.option("--budget-s", type=SECONDS, default=840.0, help="time for all of it, seconds")
@click.option("--dry-run", is_flag=True, help="the demo's network in the place of each, on any machine, in a minute")
@json_option
def gpu_session(*, output: Path, budget_s: float, dry_run: bool, json: Path | None) -> None:
    """The published models on one lent GPU, S and B at 16 and 32 frames, in a quarter of an hour."""
    from morphmlp.benchmarks.gpu_session import run_session, session_table

    found = run_session(output, budget_s=budget_s, dry_run=dry_run, log=lambda line: print(line, file=sys.stderr))
    print(session_table(found))
    write_json(json, [asdict(result) for result in found])


STEP_COMMANDS = (
    train_step,
    shared_cores,
    busy_cores,
    step_variants,
    step_bytes,
    step_orders,
    step_precision,
    chunk_shapes,
    checkpoint_stall,
    gpu_session,
)

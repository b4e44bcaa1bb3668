"""Measure what a user can't see from the outside; every figure is a ratio from interleaved rounds.

    python pipelines/benchmark.py decoders --videos DIR     which decoder to choose for these files
    python pipelines/benchmark.py ingest                    decoding and ingest, on videos made on the spot
    python pipelines/benchmark.py ingest-ahead              what ingest takes from training while it is ahead of it
    python pipelines/benchmark.py shared-decoding           what trials of a sweep save that share decoded clips
    python pipelines/benchmark.py planner                   the plan of a sweep with 100,000 candidates
    python pipelines/benchmark.py fuzz                      what a decoder makes of damaged files
    python pipelines/benchmark.py train-step                what a run adds to a step of a plain loop
    python pipelines/benchmark.py step-variants             what 16-bit arithmetic, compilation, recomputation do to it
    python pipelines/benchmark.py checkpoint-stall          what a checkpoint of the S model delays training by

The figures mean something on an otherwise idle machine.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from pydantic import JsonValue

from morphmlp.cli import run, whole_number, write_json
from morphmlp.config.values import DecoderName
from morphmlp.targets import json_file

VIDEOS = Path("build/benchmark-videos")
"""Where the videos that measurements make for themselves are kept."""


def main() -> None:
    """Run the measurement that the first argument names."""
    arguments = _parser().parse_args()
    arguments.measure(arguments)


def train_step(arguments: argparse.Namespace) -> None:
    """Compare a training step of a run, under Ray Train, with one of a plain loop."""
    from morphmlp.benchmarks.ray_train_step import compare_train_step
    from morphmlp.cluster.ray_cluster import ray_session
    from morphmlp.config import load_config

    shorter: dict[str, JsonValue] = {}
    if arguments.clips is not None:
        shorter |= {f"train.{size}_batch_size": arguments.clips for size in ("global", "micro")}
        shorter |= {"augment.repeats": 1}
    if arguments.steps is not None:
        shorter["execution.report_every_steps"] = arguments.steps
    config = load_config(arguments.config, {"cluster.num_workers": 1, **shorter})
    print(f"{arguments.rounds} rounds with {arguments.config}, one worker", file=sys.stderr)
    with ray_session(config.cluster, config.ingest, micro_batches=1) as placement:
        result = compare_train_step(config, placement, rounds=arguments.rounds)
    print(
        f"a run's step takes {result.ratio:.3f} times that of a plain loop in a script ({1000 * result.run_step_s:.1f} "
        f"ms against {1000 * result.script_step_s:.1f} ms), {result.loop_ratio:.3f} times that of the plain loop in "
        f"the same process ({1000 * result.plain_step_s:.1f} ms), on {result.device} in {result.precision}; "
        f"medians of {result.rounds} interleaved rounds of {result.steps_per_round} steps, one report each"
    )
    write_json(arguments.json, result)


def step_variants(arguments: argparse.Namespace) -> None:
    """Compare steps of an experiment with other arithmetic, compiled and recomputed blocks."""
    import torch

    from morphmlp.benchmarks.step_variants import compare_variants, variants_table

    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shorter: dict[str, JsonValue] = {"train.micro_batch_size": arguments.micro_batch} if arguments.micro_batch else {}
    if arguments.videos is not None:
        shorter["train.global_batch_size"] = arguments.videos
    found = compare_variants(
        arguments.config,
        shorter,
        rounds=arguments.rounds,
        steps=arguments.steps,
        device=device,
        told=lambda line: print(line, file=sys.stderr),
    )
    print(variants_table(found))
    print(
        f"{found.clips_per_step} clips a step, medians of {found.rounds} interleaved rounds of {found.steps_per_round} "
        f"steps, on {found.device}"
    )
    write_json(arguments.json, found)


def checkpoint_stall(arguments: argparse.Namespace) -> None:
    """Measure what a checkpoint delays training by."""
    import torch

    from morphmlp.benchmarks.checkpoint_stall import measure_stall, stall_config

    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = stall_config(arguments.preset, clips=arguments.clips)
    print(f"{arguments.rounds} checkpoints of {config.name} on {device}", file=sys.stderr)
    result = measure_stall(
        config, device=device, storage=arguments.storage, rounds=arguments.rounds, plain=arguments.steps
    )
    print(
        f"a checkpoint delays training by {result.stall_steps:.2f} steps ({result.stall_s:.2f} s, a step takes "
        f"{result.step_s:.2f} s): {result.standstill_s:.2f} s of standstill, and steps that take {result.slowdown:.3f} "
        f"times as long while {result.written_bytes / 1e6:.0f} MB are written in {result.write_s:.1f} s"
    )
    write_json(arguments.json, result)


def decoders(arguments: argparse.Namespace) -> None:
    """Compare the decoders on a folder of videos, and say which to choose."""
    from morphmlp.benchmarks.decoder_comparison import compare_decoders, comparison_table, some_videos
    from morphmlp.progress import TerminalProgress

    videos = some_videos(arguments.videos, limit=arguments.limit)
    with TerminalProgress() as progress:
        progress.phase("decoders", total=len(videos), unit="videos")
        result = compare_decoders(videos, timeout_s=arguments.timeout_s, told=progress.update)
    print(comparison_table(result))
    print(result.advice)
    write_json(arguments.json, result)


def ingest(arguments: argparse.Namespace) -> None:
    """Measure decoding and ingest."""
    from morphmlp.benchmarks.ray_ingest_figures import figures_table, measure_ingest
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        result = measure_ingest(VIDEOS, quick=arguments.quick, progress=progress)
    print(figures_table(result))
    write_json(arguments.json, result)


def ingest_ahead(arguments: argparse.Namespace) -> None:
    """Measure what ingest takes from the training beside it once it is ahead."""
    from morphmlp.benchmarks.ray_ingest_ahead import measure_ingest_ahead
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        found = measure_ingest_ahead(rounds=arguments.rounds, progress=progress)
    print(
        f"beside ingest that is ahead, work of the training process takes {found.ratio:.2f} times as long as alone "
        f"({found.work_s:.2f} s); {found.unpaced_ratio:.2f} times where Ray Data's scheduling loop keeps no pace; "
        f"medians of {found.rounds} interleaved rounds"
    )
    write_json(arguments.json, found)


def shared_decoding(arguments: argparse.Namespace) -> None:
    """Measure what trials save that share decoded clips."""
    from morphmlp.benchmarks.ray_shared_decoding import measure_shared_decoding
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        found = measure_shared_decoding(VIDEOS, videos=arguments.videos, rounds=arguments.rounds, progress=progress)
    print(
        f"{found.trials} trials that share clips: {found.eight_trials_ratio:.2f} times the CPU time of ingest "
        f"({found.shared_cpu_ms:.1f} against {found.apart_cpu_ms:.1f} ms a clip), {found.decodes_ratio:.2f} times the "
        f"decodes of one trial; a clip of {found.clip_mb:.1f} MB: decoded {found.decode_cpu_ms:.1f} ms, decoded and "
        f"kept {found.miss_cpu_ms:.1f}, found {found.hit_cpu_ms:.1f}, by the object store "
        f"{found.object_store_cpu_ms:.1f}; medians of {found.rounds} interleaved rounds of {found.videos} videos"
    )
    write_json(arguments.json, found)


def planner(arguments: argparse.Namespace) -> None:
    """Time the plan of a large sweep."""
    from morphmlp.benchmarks.large_plan import measure_planner

    found = measure_planner(adjust=arguments.adjust)
    print(
        f"{found.candidates:,} candidates, {found.possible:,} of them possible: planned in {found.wall_s:.1f} s "
        f"({found.cpu_s:.1f} CPU-seconds)"
    )
    write_json(arguments.json, found)


def fuzz(arguments: argparse.Namespace) -> None:
    """Damage small videos from a seed and count what becomes of each."""
    from morphmlp.benchmarks.fuzzing import fuzz, in_words
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        result = fuzz(decoder=arguments.decoder, files=arguments.files, seed=arguments.seed, progress=progress)
    print(*in_words(result), sep="\n")
    write_json(arguments.json, result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_decoders(commands)
    _add_ingest(commands)
    _add_ingest_ahead(commands)
    _add_shared_decoding(commands)
    _add_planner(commands)
    _add_fuzz(commands)
    _add_train_step(commands)
    _add_step_variants(commands)
    _add_checkpoint_stall(commands)
    for command in commands.choices.values():
        command.add_argument("--json", type=json_file, help="write the result as JSON")
    return parser


def _add_decoders(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("decoders", help="cost, wrong frames and errors of each decoder on your own files")
    command.set_defaults(measure=decoders)
    command.add_argument("--videos", type=Path, required=True, help="folder of videos; folders inside are looked into")
    command.add_argument(
        "--limit", type=whole_number, default=50, help="videos at most, evenly over the folder (%(default)s)"
    )
    command.add_argument("--timeout-s", type=float, default=60.0, help="patience with a decoder, seconds (%(default)s)")


def _add_ingest(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("ingest", help="clips per second against decord and a DataLoader; 10 million videos")
    command.set_defaults(measure=ingest)
    command.add_argument("--quick", action="store_true", help="fewer rounds: coarser figures in a quarter of the time")


def _add_ingest_ahead(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("ingest-ahead", help="what ingest takes from training while it is ahead of it")
    command.set_defaults(measure=ingest_ahead)
    command.add_argument("--rounds", type=whole_number, default=7, help="turns of each side (default: %(default)s)")


def _add_shared_decoding(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "shared-decoding", help="eight trials on the same data, with one decode or with eight"
    )
    command.set_defaults(measure=shared_decoding)
    command.add_argument(
        "--videos", type=whole_number, default=64, help="videos that every trial reads (default: %(default)s)"
    )
    command.add_argument("--rounds", type=whole_number, default=3, help="rounds of each way (default: %(default)s)")


def _add_planner(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("planner", help="the plan of a sweep over 100,000 candidates")
    command.set_defaults(measure=planner)
    command.add_argument("--adjust", action="store_true", help="bring every point into a band of GMAC by its depths")


def _add_fuzz(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("fuzz", help="what a decoder makes of damaged files")
    command.set_defaults(measure=fuzz)
    command.add_argument("--files", type=whole_number, default=2000, help="damaged files (default: %(default)s)")
    command.add_argument("--decoder", default="pyav", choices=get_args(DecoderName), help="default: %(default)s")
    command.add_argument("--seed", type=int, default=0, help="root of every draw (default: %(default)s)")


def _add_train_step(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("train-step", help="a step of a run under Ray Train against one of a plain loop")
    command.set_defaults(measure=train_step)
    command.add_argument("--config", default="experiments/demo/morphmlp_demo.yaml", help="experiment file")
    command.add_argument("--rounds", type=whole_number, default=20, help="rounds of each side (default: %(default)s)")
    command.add_argument(
        "--steps", type=whole_number, help="steps of a round, one report each (default: the experiment's)"
    )
    command.add_argument(
        "--clips", type=whole_number, help="clips of a step, in one micro-batch (default: the experiment's)"
    )


def _add_step_variants(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("step-variants", help="a step in fp32, with compiled and with recomputed blocks")
    command.set_defaults(measure=step_variants)
    command.add_argument("--config", default="experiments/demo/morphmlp_demo.yaml", help="experiment file")
    command.add_argument("--rounds", type=whole_number, default=10, help="turns of each (default: %(default)s)")
    command.add_argument("--steps", type=whole_number, default=10, help="steps of a turn (default: %(default)s)")
    command.add_argument("--videos", type=whole_number, help="videos of a step (default: the experiment's)")
    command.add_argument("--micro-batch", type=whole_number, help="videos of a micro-batch (default: the experiment's)")
    command.add_argument(
        "--threads", type=whole_number, default=1, help="threads of a step on CPUs (default: %(default)s)"
    )


def _add_checkpoint_stall(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("checkpoint-stall", help="what a checkpoint delays training by, in steps")
    command.set_defaults(measure=checkpoint_stall)
    command.add_argument(
        "--preset", choices=("s", "b"), default="s", help="published model, 16x4 (default: %(default)s)"
    )
    command.add_argument("--clips", type=whole_number, default=1, help="clips of a step (default: %(default)s)")
    command.add_argument("--rounds", type=whole_number, default=3, help="checkpoints (default: %(default)s)")
    command.add_argument(
        "--steps", type=whole_number, default=2, help="steps before each of them (default: %(default)s)"
    )
    command.add_argument(
        "--threads", type=whole_number, default=1, help="threads of a step on CPUs (default: %(default)s)"
    )
    command.add_argument("--storage", type=Path, help="folder to write to; by default where temporary files are")


if __name__ == "__main__":
    run(main)

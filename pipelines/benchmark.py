"""Measure what a user can't see from the outside; every figure is a ratio from interleaved rounds.

    python pipelines/benchmark.py decoders --videos DIR     which decoder to choose for these files
    python pipelines/benchmark.py ingest                    decoding and ingest, on videos made on the spot
    python pipelines/benchmark.py ingest --images           images, against torchvision and timm
    python pipelines/benchmark.py ingest --scenes           images with label maps, against OpenCV
    python pipelines/benchmark.py ingest-ahead              what ingest takes from training while it is ahead of it
    python pipelines/benchmark.py image-storage             what reading one image out of a tar or Parquet costs
    python pipelines/benchmark.py segmentation-baselines    what segmentation scores by single pixels alone
    python pipelines/benchmark.py shared-decoding           what trials of a sweep save that share decoded clips
    python pipelines/benchmark.py evaluation                what 30 views of one decode cost, against 30 decodes
    python pipelines/benchmark.py tables                    what tables.py takes where 500 runs are recorded
    python pipelines/benchmark.py planner                   the plan of a sweep with 100,000 candidates
    python pipelines/benchmark.py fuzz                      what a decoder makes of damaged files
    python pipelines/benchmark.py train-step                what a run adds to a step of a plain loop
    python pipelines/benchmark.py shared-cores              what workers on one machine's CPUs cost each other
    python pipelines/benchmark.py step-variants             what 16-bit arithmetic, compilation, recomputation do to it
    python pipelines/benchmark.py step-bytes                what it moves, against the published order of steps
    python pipelines/benchmark.py chunk-shapes              what images cost whose maps the chunks don't divide
    python pipelines/benchmark.py checkpoint-stall          what a checkpoint of the S model delays training by

The figures mean something on an otherwise idle machine.
"""

import sys
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import get_args

import click
from pydantic import JsonValue

from morphmlp.cli import A_PATH, COUNT, SECONDS, SETTINGS, json_option, run, write_json
from morphmlp.config.values import DecoderName

VIDEOS = Path("build/benchmark-videos")
"""Where the videos that measurements make for themselves are kept."""
IMAGES = Path("build/benchmark-images/stored")
"""The same for images, in the forms in which data sets are held."""
PHOTOGRAPHS = Path("build/benchmark-images/photographs")
LABELLED = Path("build/benchmark-images/labelled")
DEMO = "experiments/demo/morphmlp_demo.yaml"


@click.group(context_settings=SETTINGS)
def main() -> None:
    """Measure what a user can't see from the outside; every figure is a ratio from interleaved rounds."""


@main.command()
@click.option("--videos", type=A_PATH, required=True, help="folder of videos; folders inside are searched too")
@click.option("--limit", type=COUNT, default=50, help="videos at most, evenly over the folder")
@click.option("--timeout-s", type=SECONDS, default=60.0, help="longest wait for a decoder's answer, seconds")
@json_option
def decoders(*, videos: Path, limit: int, timeout_s: float, json: Path | None) -> None:
    """Cost, wrong frames and errors of each decoder on your own files, and which to choose."""
    from morphmlp.benchmarks.decoder_comparison import compare_decoders, comparison_table, some_videos
    from morphmlp.progress import TerminalProgress

    paths = some_videos(videos, limit=limit)
    with TerminalProgress() as progress:
        progress.phase("decoders", total=len(paths), unit="videos")
        result = compare_decoders(paths, timeout_s=timeout_s, on_progress=progress.update)
    print(comparison_table(result))
    print(result.advice)
    write_json(json, result)


@main.command()
@click.option("--quick", is_flag=True, help="fewer rounds: coarser figures in a quarter of the time")
@click.option("--images", is_flag=True, help="images instead, against torchvision's DataLoader and timm's loader")
@click.option("--scenes", is_flag=True, help="images with label maps, against a DataLoader with OpenCV")
@json_option
def ingest(*, quick: bool, images: bool, scenes: bool, json: Path | None) -> None:
    """Clips per second against decord and a DataLoader; the plan of 10 million videos."""
    from morphmlp.benchmarks.ray_images import images_table, measure_images
    from morphmlp.benchmarks.ray_ingest_figures import figures_table, measure_ingest
    from morphmlp.benchmarks.ray_scenes import measure_scenes, scenes_table
    from morphmlp.progress import TerminalProgress

    if scenes:
        with TerminalProgress() as progress:
            cut = measure_scenes(LABELLED, quick=quick, progress=progress)
        print(scenes_table(cut))
        write_json(json, cut)
        return
    if images:
        with TerminalProgress() as progress:
            found = measure_images(PHOTOGRAPHS, quick=quick, progress=progress)
        print(images_table(found))
        write_json(json, found)
        return
    with TerminalProgress() as progress:
        result = measure_ingest(VIDEOS, quick=quick, progress=progress)
    print(figures_table(result))
    write_json(json, result)


@main.command()
@click.option("--rounds", type=COUNT, default=7, help="rounds of each side")
@json_option
def ingest_ahead(*, rounds: int, json: Path | None) -> None:
    """What ingest takes from training while it is ahead of it."""
    from morphmlp.benchmarks.ray_ingest_ahead import measure_ingest_ahead
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        found = measure_ingest_ahead(rounds=rounds, progress=progress)
    print(
        f"next to ingest that is ahead, work of the training process takes {found.ratio:.2f} times as long as alone "
        f"({found.work_s:.2f} s); {found.unpaced_ratio:.2f} times where Ray Data's scheduling loop keeps no pace; "
        f"medians of {found.rounds} interleaved rounds"
    )
    write_json(json, found)


@main.command()
@click.option("--rounds", type=COUNT, default=5, help="rounds of each form")
@json_option
def image_storage(*, rounds: int, json: Path | None) -> None:
    """Bytes and CPU time of one image in a tar, in Parquet, and by Arrow's row groups."""
    from morphmlp.benchmarks.image_storage import measure_image_storage, storage_table
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        progress.phase("image storage", total=rounds, unit="rounds")
        found = measure_image_storage(IMAGES, rounds=rounds, on_round=progress.update)
    print(storage_table(found))
    write_json(json, [asdict(cost) for cost in found])


@main.command()
@click.option("--train", type=A_PATH, required=True, help="manifest whose pixels are counted")
@click.option("--test", type=A_PATH, required=True, help="manifest whose images are scored")
@json_option
def segmentation_baselines(*, train: Path, test: Path, json: Path | None) -> None:
    """What the most frequent class, and a class for each colour, score on label maps."""
    from morphmlp.benchmarks.segmentation_baselines import baselines_table, measure_baselines
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        found = measure_baselines(train, test, progress=progress)
    print(baselines_table(found))
    write_json(json, [asdict(each) for each in found])


@main.command()
@click.option("--videos", type=COUNT, default=64, help="videos that every trial reads")
@click.option("--rounds", type=COUNT, default=3, help="rounds of each way")
@json_option
def shared_decoding(*, videos: int, rounds: int, json: Path | None) -> None:
    """Eight trials on the same data, with one decode or with eight."""
    from morphmlp.benchmarks.ray_shared_decoding import measure_shared_decoding
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        found = measure_shared_decoding(VIDEOS, videos=videos, rounds=rounds, progress=progress)
    print(
        f"{found.trials} trials that share clips: {found.eight_trials_ratio:.2f} times the CPU time of ingest "
        f"({found.shared_cpu_ms:.1f} against {found.separate_cpu_ms:.1f} ms a clip), {found.decodes_ratio:.2f} times "
        f"the decodes of one trial; a clip of {found.clip_mb:.1f} MB: decoded {found.decode_cpu_ms:.1f} ms, decoded "
        f"and kept {found.miss_cpu_ms:.1f}, found {found.hit_cpu_ms:.1f}, by the object store "
        f"{found.object_store_cpu_ms:.1f}; medians of {found.rounds} interleaved rounds of {found.videos} videos"
    )
    write_json(json, found)


@main.command()
@click.option("--videos", type=COUNT, default=4, help="videos whose views are decoded")
@click.option("--rounds", type=COUNT, default=5, help="rounds of each way")
@json_option
def evaluation(*, videos: int, rounds: int, json: Path | None) -> None:
    """30 views of a video from one decode, and from a decode each."""
    from morphmlp.benchmarks.stored_forms import real_size_videos
    from morphmlp.benchmarks.view_decoding import measure_view_decoding
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        progress.line(f"making videos in {VIDEOS}, where they aren't there yet")
        paths = real_size_videos(VIDEOS.absolute())[:videos]
        progress.phase("views", total=rounds, unit="rounds")
        found = measure_view_decoding(paths, rounds=rounds, on_progress=progress.update)
    print(
        f"{found.views} views of one decode: {found.views30_ratio:.3f} times the CPU time of a decode each "
        f"({found.together_cpu_ms:.0f} against {found.apart_cpu_ms:.0f} ms a video); medians of {found.rounds} "
        f"interleaved rounds of {found.videos} videos"
    )
    write_json(json, found)


@main.command()
@click.option("--adjust", is_flag=True, help="bring every point into a band of GMAC by its depths")
@json_option
def planner(*, adjust: bool, json: Path | None) -> None:
    """The plan of a sweep over 100,000 candidates."""
    from morphmlp.benchmarks.large_plan import measure_planner

    found = measure_planner(adjust=adjust)
    print(
        f"{found.candidates:,} candidates, {found.possible:,} of them possible: planned in {found.wall_s:.1f} s "
        f"({found.cpu_s:.1f} CPU-seconds)"
    )
    write_json(json, found)


@main.command()
@click.option("--files", type=COUNT, default=2000, help="damaged files")
@click.option("--decoder", type=click.Choice(get_args(DecoderName)), default="pyav")
@click.option("--seed", type=int, default=0, help="root of every draw")
@json_option
def fuzz(*, files: int, decoder: DecoderName, seed: int, json: Path | None) -> None:
    """Damage small videos from a seed, and count what a decoder makes of each."""
    from morphmlp.benchmarks.fuzzing import fuzz, in_words
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        result = fuzz(decoder=decoder, files=files, seed=seed, progress=progress)
    print(*in_words(result), sep="\n")
    write_json(json, result)


@main.command()
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


@main.command()
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
        f"takes {1000 * found.exchange_s:.1f} ms more; medians of {found.rounds} interleaved rounds of "
        f"{found.steps_per_round} steps"
    )
    write_json(json, found)


@main.command()
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
        f"steps, on {found.device}"
    )
    write_json(json, found)


@main.command()
@click.option("--config", default=DEMO, help="experiment file")
@click.option("--clips", type=COUNT, default=16, help="clips of a step")
@json_option
def step_bytes(*, config: str, clips: int, json: Path | None) -> None:
    """Bytes and kernels of a step, counted without a clock or a GPU, against the published order of steps."""
    from morphmlp.benchmarks.step_bytes import bytes_table, compare_bytes
    from morphmlp.config import load_config

    found = compare_bytes(load_config(config), clips=clips)
    print(bytes_table(found))
    print(f"forward and backward of {clips} clips in eager mode, every operation's operands and results")
    write_json(json, {"clips": clips, "parts": [asdict(row) for row in found]})


@main.command()
@click.option("--runs", type=COUNT, default=500, help="invented runs in the record, a fifth of them trials of sweeps")
@click.option("--rounds", type=COUNT, default=3, help="rounds of each command")
@json_option
def tables(*, runs: int, rounds: int, json: Path | None) -> None:
    """Seconds of `tables.py` on an embedded record of many runs: all tables, one data set, the page."""
    import tempfile

    from morphmlp.benchmarks.many_runs import fill_store, measure_tables
    from morphmlp.progress import TerminalProgress

    with tempfile.TemporaryDirectory() as folder, TerminalProgress() as progress:
        store = Path(folder) / "mlruns" / "mlflow.db"
        store.parent.mkdir()
        progress.phase("invented runs", total=runs, unit="runs")
        recorded = count(1)
        fill_store(f"sqlite:///{store}", runs=runs, on_run=lambda: progress.update(next(recorded)))
        progress.phase("tables", total=rounds, unit="rounds")
        done = count(1)
        found = measure_tables(Path(folder), runs=runs, rounds=rounds, on_round=lambda: progress.update(next(done)))
    print(found.in_words())
    write_json(json, found)


@main.command()
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


@main.command()
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


if __name__ == "__main__":
    run(main)

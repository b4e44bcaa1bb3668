"""Measure what a user can't see from the outside; every figure is a ratio from interleaved rounds.

    python pipelines/benchmark.py decoders --videos DIR     which decoder to choose for these files
    python pipelines/benchmark.py ingest                    decoding and ingest, on videos made on the spot
    python pipelines/benchmark.py ingest --images           images, against torchvision and timm
    python pipelines/benchmark.py ingest --scenes           images with label maps, against OpenCV
    python pipelines/benchmark.py ingest-ahead              what ingest takes from training while it is ahead of it
    python pipelines/benchmark.py clip-parts                where the CPU time of a training clip goes
    python pipelines/benchmark.py image-storage             what reading one image out of a tar or Parquet costs
    python pipelines/benchmark.py segmentation-baselines    what segmentation scores by single pixels alone
    python pipelines/benchmark.py shared-decoding           what trials of a sweep save that share decoded clips
    python pipelines/benchmark.py evaluation                what 30 views of one decode cost, against 30 decodes
    python pipelines/benchmark.py serve --checkpoint RUN --videos DIR    what serve.py answers under load
    python pipelines/benchmark.py tables                    what tables.py takes where 500 runs are recorded
    python pipelines/benchmark.py planner                   the plan of a sweep with 100,000 candidates
    python pipelines/benchmark.py fuzz                      what a decoder makes of damaged files
    python pipelines/benchmark.py start                     what a user waits for the first step, and first scores
    python pipelines/benchmark.py train-step                what a run adds to a step of a plain loop
    python pipelines/benchmark.py shared-cores              what workers on one machine's CPUs cost each other
    python pipelines/benchmark.py busy-cores                what CPU time grows by as a node's cores fill up
    python pipelines/benchmark.py step-variants             what 16-bit arithmetic, compilation, recomputation do to it
    python pipelines/benchmark.py step-bytes                what it moves, against the published order of steps
    python pipelines/benchmark.py step-orders               its CPU time in one thread, against that order
    python pipelines/benchmark.py step-precision            what 16-bit arithmetic costs the logits, against that order
    python pipelines/benchmark.py chunk-shapes              what images cost whose maps the chunks don't divide
    python pipelines/benchmark.py gpu-session --output DIR  the published models on a GPU lent for a quarter of an hour
    python pipelines/benchmark.py checkpoint-stall          what a checkpoint of the S model delays training by

The figures mean something on an otherwise idle machine.
"""

from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import get_args

import click
from benchmark_ingest import INGEST_COMMANDS, VIDEOS
from benchmark_start import start
from benchmark_step import STEP_COMMANDS

from morphmlp.cli import A_PATH, COUNT, SECONDS, SETTINGS, json_option, run, write_json
from morphmlp.config.values import DecoderName

IMAGES = Path("build/benchmark-images/stored")
"""Where images, in the forms in which data sets are held, are kept."""


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
@click.option("--checkpoint", required=True, metavar="WEIGHTS", help="as for serve.py")
@click.option("--config", metavar="FILE", help="as for serve.py")
@click.option(
    "--videos",
    type=A_PATH,
    required=True,
    help="folder of videos to send, of images where the network takes these; folders inside are searched too",
)
@click.option("--requests", type=COUNT, default=200, help="files that are sent")
@click.option("--clients", type=COUNT, default=8, help="senders at the same time")
@click.option("--replicas", type=COUNT, default=1, help="as for serve.py")
@click.option("--decoders", type=COUNT, default=2, help="as for serve.py")
@json_option
def serve(
    *,
    checkpoint: str,
    config: str | None,
    videos: Path,
    requests: int,
    clients: int,
    replicas: int,
    decoders: int,
    json: Path | None,
) -> None:
    """Answers, times and memory of serve.py under load, and how it recovers from a killed replica."""
    from morphmlp.benchmarks.serving_load import measure_serving
    from morphmlp.progress import TerminalProgress

    arguments = ["--checkpoint", checkpoint, *([] if config is None else ["--config", config])]
    arguments += ["--replicas", str(replicas), "--decoders", str(decoders), "--max-queued", str(clients)]
    with TerminalProgress() as progress:
        progress.phase("serving", total=requests, unit="requests")
        found = measure_serving(arguments, videos, requests=requests, clients=clients, on_request=progress.update)
    print(found.in_words())
    write_json(json, found)


@main.command()
@click.option("--checkpoint", required=True, metavar="RUN", help="a run whose test's videos are there")
@click.option("--config", metavar="FILE", help="experiment file; by default the run's")
@click.option("--videos", type=COUNT, default=200, help="videos of its test, the first ones")
@click.option("--hop", default="2", metavar="TIME", help="from one window to the next, as for features.py")
@click.option("--rounds", type=COUNT, default=3, help="rounds of features and of a test")
@json_option
def features(*, checkpoint: str, config: str | None, videos: int, hop: str, rounds: int, json: Path | None) -> None:
    """Clips a second and core of features beside a test's; features of a killed extraction, byte by byte."""
    import tempfile

    from morphmlp.benchmarks.feature_extraction import measure_features
    from morphmlp.progress import TerminalProgress

    with tempfile.TemporaryDirectory() as folder, TerminalProgress() as progress:
        found = measure_features(
            checkpoint, config, Path(folder), videos=videos, hop=hop, rounds=rounds, progress=progress
        )
    print(found.in_words())
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


for command in (*INGEST_COMMANDS, start, *STEP_COMMANDS):
    main.add_command(command)


if __name__ == "__main__":
    run(main)

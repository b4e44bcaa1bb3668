"""Commands of benchmark.py that measure how videos and images become batches."""

from pathlib import Path

import click

from morphmlp.cli import COUNT, json_option, write_json

VIDEOS = Path("build/benchmark-videos")
"""Where the videos that measurements make for themselves are kept."""
PHOTOGRAPHS = Path("build/benchmark-images/photographs")
"""The same for images."""
LABELLED = Path("build/benchmark-images/labelled")


@click.command()
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


@click.command()
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


@click.command()
@click.option("--rounds", type=COUNT, default=5, help="clips of each of 16 videos")
@json_option
def clip_parts(*, rounds: int, json: Path | None) -> None:
    """CPU time of a training clip by part, from its file to the table of a decode task."""
    from morphmlp.benchmarks.clip_parts import measure_clip_parts, parts_table
    from morphmlp.benchmarks.stored_forms import real_size_videos
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:
        progress.line(f"making videos in {VIDEOS}, where they aren't there yet")
        paths = real_size_videos(VIDEOS.absolute())
        progress.phase("parts of clips", total=rounds, unit="rounds")
        found = measure_clip_parts(paths, rounds=rounds, on_progress=progress.update)
    print(parts_table(found))
    print(f"{found.clips} clips; {found.packets:.0f} packets of each go through the codec")
    write_json(json, found)


INGEST_COMMANDS = (ingest, ingest_ahead, clip_parts)

"""Repeat one step of a run and look into it, in one process and without a cluster.

    python pipelines/replay.py RUN STEP

RUN is a run's folder or its name, STEP the step's number in the record, from 1. A step that was skipped is taken with
the state that it met; any other from the newest checkpoint before it, with the steps in between trained again.
"""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import JsonValue

from morphmlp.cli import A_PATH, COUNT, SETTINGS, json_option, run, write_json
from morphmlp.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from morphmlp.training.replay.one_process import SeenMicroBatch
    from morphmlp.training.replay.replay import RecordedRun, ReplayedStep

PICTURES = (".png", ".pdf", ".svg")


@click.command(context_settings=SETTINGS)
@click.argument("name", metavar="RUN")
@click.argument("number", metavar="STEP", type=COUNT)
@click.option("--storage", type=A_PATH, default="runs", help="folder of runs by name")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="by default as the run was configured")
@click.option(
    "--workers", type=COUNT, help="add up as so many workers do; by default as recorded, else as configured, else 1"
)
@click.option("--contact-sheet", type=A_PATH, metavar="FILE", help="draw the clips of the step (.png, .pdf, .svg)")
@json_option
def main(
    *,
    name: str,
    number: int,
    storage: Path,
    device: str | None,
    workers: int | None,
    contact_sheet: Path | None,
    json: Path | None,
) -> None:
    """Repeat one step of a run and look into it, in one process and without a cluster.

    RUN is a run's folder or its name, STEP the step's number in the record, from 1. On CPUs the steps of one or two
    workers come out bit for bit; sums of more workers, and of GPUs, are rounded in an order that nothing records.
    """
    if contact_sheet is not None and contact_sheet.suffix not in PICTURES:
        raise ConfigError([f"--contact-sheet: {contact_sheet} must end in .png, .pdf or .svg"])

    import torch

    from morphmlp.progress import TerminalProgress
    from morphmlp.training.replay.replay import open_run, replay

    recorded = open_run(name, storage=storage)
    torch.set_num_threads(recorded.config.cluster.cpus_per_worker)  # sums depend on it
    torch_device = _device(device or recorded.config.cluster.device)
    with TerminalProgress() as progress:
        step = replay(recorded, number, device=torch_device, num_workers=workers, progress=progress)
    print(*in_words(step), sep="\n")
    if contact_sheet is not None:
        _draw(recorded, step, contact_sheet)
    write_json(json, plain_values(dataclasses.asdict(step)))


def in_words(step: "ReplayedStep") -> list[str]:
    """The lines that are printed."""
    lines = [
        f"{step.run}: step {step.step} (epoch {step.epoch}), {step.num_workers} worker(s), {step.precision}, "
        f"{step.device}",
        f"state: {step.from_state}"
        + (f"; steps trained again up to this one: {step.steps_before}" if step.steps_before else ""),
    ]
    for batch in step.micro_batches:
        lines += _micro_batch_in_words(batch)
    outcome = "skipped" if step.skipped else "taken"
    lines.append(f"step: loss {step.loss:.9g}, gradient norm {step.grad_norm:.9g} before clipping, {outcome}")
    if step.as_recorded is not None:
        same = "the same" if step.as_recorded else "not the same"
        lines.append(f"the run: loss {step.recorded_loss:.9g}, gradient norm {step.recorded_grad_norm:.9g}: {same}")
    return lines


def plain_values(value: JsonValue) -> JsonValue:
    """A result for JSON, which has no infinities and no NaN: these become `inf`, `-inf` and `nan`."""
    if isinstance(value, dict):
        return {key: plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _micro_batch_in_words(batch: "SeenMicroBatch") -> list[str]:
    pixels = "no clips" if batch.pixel_min is None else f"grey levels {batch.pixel_min} to {batch.pixel_max}"
    norms = ", ".join(f"{name} {norm:.4g}" for name, norm in batch.grad_norms.items())
    logits = "none of the logits is finite"
    if batch.logits_finite:
        share = "" if batch.logits_finite == 1 else f", {100 * batch.logits_finite:.4g} % of them finite"
        logits = f"logits {batch.logits_min:.4g} to {batch.logits_max:.4g}{share}"
    lines = [
        f"micro-batch {batch.index} (worker {batch.worker}): loss {batch.loss:.6g}, {batch.clips} clips, {pixels}, "
        f"{logits}",
        *(
            f"  {video.video_id}  {video.path}  {video.label} {video.class_name}"
            + (f"  left out: {video.broken}" if video.broken else "")
            for video in batch.videos
        ),
        f"  gradient norms: {norms}",
    ]
    if batch.first_not_finite is not None:
        lines.append(f"  the first output that isn't finite: {batch.first_not_finite}")
    if batch.not_finite:
        more = batch.num_not_finite - len(batch.not_finite)
        lines.append(
            f"  gradients that aren't finite: {', '.join(batch.not_finite)}" + (f" and {more} more" * (more > 0))
        )
    return lines


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(["device cuda: this machine has none; --device cpu rounds differently, but shows the same"])
    return torch.device(name)


def _draw(recorded: "RecordedRun", step: "ReplayedStep", path: Path) -> None:
    from morphmlp.data.clips.scenes import TrainScenes
    from morphmlp.data.decoding.isolation.isolated import isolated_videos
    from morphmlp.data.manifest import Manifest
    from morphmlp.data.stream.decode_task import decode_limits
    from morphmlp.reporting.clip_rows import training_rows
    from morphmlp.reporting.contact_sheet import contact_sheet
    from morphmlp.reporting.scene_sheet import scene_rows, scene_sheet

    config, extractor = recorded.config, recorded.recipe.task.train_clips()
    order = [video.video_id for batch in step.micro_batches for video in batch.videos]
    rows = [video.row for batch in step.micro_batches for video in batch.videos]
    videos = Manifest(recorded.videos.table.take(rows), recorded.videos.class_names)
    opener = isolated_videos(config.ingest.decoder, decode_limits(config.ingest), config.ingest.image_decoder)
    seed, epoch = config.train.seed, step.epoch - 1
    title = f"{recorded.folder.root.name}: step {step.step}"
    if isinstance(extractor, TrainScenes):
        scenes = list(scene_rows(videos, opener, extractor, rows=range(len(order)), seed=seed, epoch=epoch))
        sheet = scene_sheet(scenes, videos.class_names, title=title)
    else:
        clips = training_rows(
            videos, opener, clip=config.clip, augment=config.augment, seed=seed, epoch=epoch, count=len(order)
        )
        in_order = sorted(clips, key=lambda row: order.index(row.video_id))
        sheet = contact_sheet(in_order, title=f"{title}, before mixing")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path)
    print(f"{path}: the step's clips before mixing")


if __name__ == "__main__":
    run(main)

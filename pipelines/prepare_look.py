"""`prepare.py look`: a picture of what an experiment trains on or validates with.

python pipelines/prepare.py look --config FILE --output FILE.png [--split train|val] [--augment.erase 1.0]
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from morphmlp.cli import A_PATH, COUNT, parse_overrides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from morphmlp.config.schema import ExperimentConfig
    from morphmlp.data.decoding.protocol import VideoOpener
    from morphmlp.data.manifest import Manifest


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Every field of the experiment can be overridden, as in --augment.erase 1.0.",
)
@click.option("--config", type=A_PATH, required=True, metavar="FILE", help="experiment file")
@click.option("--output", type=A_PATH, required=True, metavar="FILE", help="picture to write (.png, .pdf, .svg)")
@click.option("--videos", type=COUNT, default=6, help="videos to show, all their clips")
@click.option("--split", type=click.Choice(["train", "val"]), default="train", help="whose clips")
@click.option("--epoch", type=int, default=0, help="epoch of the training clips")
@click.argument("fields", nargs=-1, type=click.UNPROCESSED, metavar="[--FIELD VALUE]...")
def look(*, config: Path, output: Path, videos: int, split: str, epoch: int, fields: tuple[str, ...]) -> None:
    """A picture of an experiment's clips, after sampling and augmentation."""
    from morphmlp.config import load_config
    from morphmlp.errors import ConfigError

    if output.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError([f"--output: {output} must end in .png, .pdf or .svg"])
    experiment = load_config(config, parse_overrides(fields))

    from morphmlp.data.decoding.isolation.isolated import IsolatedVideos
    from morphmlp.data.manifest import read_manifest
    from morphmlp.data.stream.decode_task import decode_limits

    training = split == "train"
    path = experiment.data.train if training else experiment.data.val
    manifest = read_manifest(path).available()
    if manifest.task != experiment.task:
        raise ConfigError([f"data.{split}: {path} is for {manifest.task}, the experiment is {experiment.task}"])
    of_epoch = f", epoch {epoch}, seed {experiment.train.seed}" if training else ""
    with IsolatedVideos(experiment.ingest.decoder, decode_limits(experiment.ingest)) as opened:
        sheet = _scene_sheet if experiment.segmentation is not None else _clip_sheet
        figure, shown, broken = sheet(
            experiment, manifest, opened, epoch=epoch if training else None, count=videos, title=of_epoch
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    print(f"{output}: {shown}" + (f", {broken} {manifest.items} can't be used" if broken else ""))


def _clip_sheet(
    experiment: "ExperimentConfig",
    manifest: "Manifest",
    videos: "VideoOpener",
    *,
    epoch: int | None,
    count: int,
    title: str,
) -> "tuple[Figure, str, int]":
    """The picture of an epoch's first training clips, or of validation's (None); what it shows, and what it can't."""
    from morphmlp.reporting.clip_rows import training_rows, validation_rows
    from morphmlp.reporting.contact_sheet import contact_sheet

    clip, seed = experiment.clip, experiment.train.seed
    if epoch is not None:
        found = training_rows(
            manifest, videos, clip=clip, augment=experiment.augment, seed=seed, epoch=epoch, count=count
        )
    else:
        found = validation_rows(manifest, videos, clip=clip, count=count)
    rows = list(found)
    broken = sum(row.clip is None for row in rows)
    split = "val" if epoch is None else "train"
    return (
        contact_sheet(rows, title=f"{experiment.name}: {split} clips{title}"),
        f"{len(rows) - broken} clips",
        broken,
    )


def _scene_sheet(
    experiment: "ExperimentConfig",
    manifest: "Manifest",
    videos: "VideoOpener",
    *,
    epoch: int | None,
    count: int,
    title: str,
) -> "tuple[Figure, str, int]":
    """The same of images with label maps."""
    from morphmlp.data.clips.scenes import TrainScenes, WholeScenes
    from morphmlp.data.stream.plan import epoch_order
    from morphmlp.reporting.scene_sheet import scene_rows, scene_sheet

    assert experiment.segmentation is not None
    seed = experiment.train.seed
    order, kind = list(range(len(manifest))), "val images"
    extractor = (WholeScenes if epoch is None else TrainScenes)(
        clip=experiment.clip, segmentation=experiment.segmentation, num_classes=experiment.model.num_classes
    )
    if epoch is not None:
        order, kind = epoch_order(len(manifest), seed=seed, epoch=epoch).tolist(), "train crops"
    rows = list(scene_rows(manifest, videos, extractor, rows=order[:count], seed=seed, epoch=epoch or 0))
    broken = sum(row.image is None for row in rows)
    figure = scene_sheet(rows, manifest.class_names, title=f"{experiment.name}: {kind}{title}")
    return figure, f"{len(rows) - broken} {kind}", broken

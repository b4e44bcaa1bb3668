"""The commands of `prepare.py` of images: ImageNet-1K, Fashion-MNIST, and stills of the demo."""

from pathlib import Path
from typing import Literal

import click

from morphmlp.cli import A_PATH
from morphmlp.targets import writable_folder

output_folder = click.option(
    "--output",
    type=A_PATH,
    required=True,
    metavar="DIR",
    callback=lambda context, option, path: writable_folder(path, "--output"),
    help="folder to write",
)


@click.command("fashion-mnist")
@click.argument("source", type=A_PATH, metavar="SOURCE")
@output_folder
@click.option(
    "--form",
    type=click.Choice(["folder", "tar", "parquet"]),
    default="folder",
    help="class folders, WebDataset's tar shards, or the hub's Parquet shards",
)
def fashion_mnist(*, source: Path, output: Path, form: Literal["folder", "tar", "parquet"]) -> None:
    """Fashion-MNIST: the four official files in the folder SOURCE to JPEGs and manifests."""
    from morphmlp.data.datasets.fashion_mnist import write_fashion_mnist

    write_fashion_mnist(source, output, form=form)
    report_manifests(output)


@click.command("demo-stills")
@output_folder
@click.option("--train", type=int, default=6000, help="train images")
@click.option("--val", type=int, default=500, help="val images")
@click.option("--seed", type=int, default=0, help="root of every random draw")
def demo_stills(*, output: Path, train: int, val: int, seed: int) -> None:
    """Single frames of the demo's scenes, whose class is what the shape does at that moment."""
    from morphmlp.data.synthetic.demo_stills import write_demo_stills

    write_demo_stills(output, train=train, val=val, seed=seed)
    report_manifests(output)


@click.command()
@click.argument("folder", type=A_PATH, required=False, metavar="[DIR]")
@output_folder
@click.option("--train", type=A_PATH, help="training images: class folders, an archive, a shard or a folder of shards")
@click.option("--val", type=A_PATH, help="validation images; a flat folder or archive needs the devkit")
@click.option("--devkit", type=A_PATH, help="ILSVRC2012_devkit_t12.tar.gz, or the folder that it unpacks to")
@click.option("--classes", type=A_PATH, help="class names in label order; by default sorted, as the devkit's are")
def imagenet(
    *,
    folder: Path | None,
    output: Path,
    train: Path | None,
    val: Path | None,
    devkit: Path | None,
    classes: Path | None,
) -> None:
    """ImageNet-1K to manifests: class folders, the official archives, WebDataset or Parquet shards, read in place."""
    from morphmlp.data.datasets.imagenet.prepare import ImageSources, find_sources, read_images
    from morphmlp.data.manifest import write_manifest
    from morphmlp.errors import ConfigError
    from morphmlp.progress import TerminalProgress

    named = {split: path for split, path in (("train", train), ("val", val)) if path is not None}
    if (folder is None) == (not named):
        raise ConfigError(["DIR: name the folder that holds train and val, or them: --train PATH --val PATH"])
    found = ImageSources(splits=named) if folder is None else find_sources(folder)
    sources = ImageSources(splits=found.splits, devkit=devkit or found.devkit, classes=classes)
    with TerminalProgress() as progress:
        progress.phase("reading", total=0, unit="images")
        done = read_images(sources, log=lambda split, count: progress.update(count, split))
    for split, manifest in done.manifests.items():
        path = output / f"{split}.parquet"
        write_manifest(manifest, path)
        print(
            f"{path}: {len(manifest):,} images of {len(manifest.class_names):,} classes from {sources.splits[split]}, "
            f"fingerprint {manifest.fingerprint()}"
        )
    for note in done.notes:
        print(f"note: {note}")


def report_manifests(output: Path) -> None:
    """Print what the manifests of a folder hold."""
    from morphmlp.data.manifest import SPLITS, read_manifest

    for split in SPLITS:
        path = output / f"{split}.parquet"
        if path.exists():
            manifest = read_manifest(path)
            classes = len(manifest.class_names)
            print(
                f"{path}: {len(manifest)} {manifest.items} of {classes} classes, fingerprint {manifest.fingerprint()}"
            )

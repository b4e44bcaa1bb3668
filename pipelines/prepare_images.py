"""The commands of `prepare.py` that write images: Fashion-MNIST, and stills of the demo."""

from pathlib import Path

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
def fashion_mnist(*, source: Path, output: Path) -> None:
    """Fashion-MNIST: the four official files in the folder SOURCE to JPEGs and manifests."""
    from morphmlp.data.datasets.fashion_mnist import write_fashion_mnist

    write_fashion_mnist(source, output)
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

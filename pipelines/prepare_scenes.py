"""The commands of `prepare.py` for segmentation: ADE20K, and anyone's own images and label maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from prepare_images import output_folder

from morphmlp.cli import A_PATH

if TYPE_CHECKING:
    from morphmlp.data.datasets.ade20k import Maps
    from morphmlp.data.datasets.scene_pairs import Log, PreparedScenes

LEFT_OUT = "left-out.tsv"
leave_out_faulty = click.option(
    "--leave-out-faulty", is_flag=True, help=f"go on without pairs that can't be used, and list them in {LEFT_OUT}"
)


@click.command()
@click.argument("folder", type=A_PATH, metavar="DIR")
@output_folder
@click.option(
    "--maps",
    type=click.Choice(["as-released", "reduced"]),
    default="as-released",
    help="label maps with 0 for other objects and classes from 1 on, or already brought to 0 to 149 and 255",
)
@leave_out_faulty
def ade20k(*, folder: Path, output: Path, maps: "Maps", leave_out_faulty: bool) -> None:
    """ADEChallengeData2016 as it lies in DIR to manifests: every label map is looked at."""
    from morphmlp.data.datasets.ade20k import read_ade20k

    with _looking() as log:
        done = read_ade20k(folder, maps=maps, leaves_out=leave_out_faulty, log=log)
    _write(done, output)


@click.command()
@click.option("--images", type=A_PATH, required=True, metavar="DIR", help="images; folders train, val, test are splits")
@click.option(
    "--masks", type=A_PATH, required=True, metavar="DIR", help="label maps under the same names, laid out alike"
)
@click.option("--classes", type=A_PATH, required=True, metavar="FILE", help="class names in label order, one a line")
@output_folder
@click.option("--zero-is-ignored", is_flag=True, help="0 is no class, and the first class is stored as 1")
@click.option("--image-suffix", default="", help="end of images' names that maps don't have, as _leftImg8bit")
@click.option("--mask-suffix", default="", help="end of maps' names that images don't have, as _gtFine_labelTrainIds")
@click.option("--split", default="80/10/10", help="shares of train, val and test, where no folders say them")
@click.option("--seed", type=int, default=0, help="another one divides otherwise")
@click.option("--group-pattern", help="what stays in one split, by file names, as '(.+)_frame[0-9]+'")
@leave_out_faulty
def segmentation(
    *,
    images: Path,
    masks: Path,
    classes: Path,
    output: Path,
    zero_is_ignored: bool,
    image_suffix: str,
    mask_suffix: str,
    split: str,
    seed: int,
    group_pattern: str | None,
    leave_out_faulty: bool,
) -> None:
    """Your own images and label maps to manifests: grey or palette PNGs, one class number a pixel."""
    from morphmlp.data.datasets.masks import MaskFolders, read_masks
    from morphmlp.data.datasets.splits import SplitRule
    from morphmlp.data.manifest import SPLITS, read_manifest

    folders = MaskFolders(
        images=images,
        maps=masks,
        classes=classes,
        zero_is_ignored=zero_is_ignored,
        image_suffix=image_suffix,
        map_suffix=mask_suffix,
        group_pattern=group_pattern,
    )
    rule = SplitRule.parse(split, seed=seed)
    kept: dict[str, str] = {}
    for each in SPLITS:
        if (path := output / f"{each}.parquet").exists():
            kept |= dict.fromkeys(read_manifest(path, only=()).table["video_id"].to_pylist(), each)
    with _looking() as log:
        done = read_masks(folders, rule, kept=kept, leaves_out=leave_out_faulty, log=log)
    _write(done, output)


@contextmanager
def _looking() -> "Iterator[Log]":
    """What shows how many pairs have been looked at."""
    from morphmlp.progress import TerminalProgress

    with TerminalProgress() as progress:

        def log(done: int, total: int) -> None:
            if not done:
                progress.phase("looking at images and label maps", total=total, unit="pairs")
            progress.update(done)

        yield log


def _write(done: "PreparedScenes", output: Path) -> None:
    from morphmlp.data.manifest import write_manifest, writing
    from morphmlp.files import atomic_write

    for split, manifest in done.manifests.items():
        path = output / f"{split}.parquet"
        write_manifest(manifest, path)
        usable = len(manifest.available())
        left_out = f" ({len(manifest) - usable:,} unavailable)" if usable < len(manifest) else ""
        print(
            f"{path}: {len(manifest):,} images with label maps{left_out} of {len(manifest.class_names):,} classes, "
            f"fingerprint {manifest.fingerprint()}"
        )
    for note in done.notes:
        print(f"note: {note}")
    path = output / LEFT_OUT
    if done.left_out:
        with writing(path):
            atomic_write(path, "".join(f"{line}\n" for line in ("split\tid\tfault\twords", *done.left_out)))
        print(f"{path}: {len(done.left_out):,} pairs that can't be used")
    else:
        path.unlink(missing_ok=True)

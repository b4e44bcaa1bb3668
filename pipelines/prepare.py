"""Make manifests of data sets, and make the demo data set itself.

    python pipelines/prepare.py k400 --annotations FILE --videos DIR --output FILE.parquet [--classes FILE]
    python pipelines/prepare.py demo --output DIR

All faults of the annotations are told at once, each with its line, and nothing is written then.
"""

import argparse
from pathlib import Path

from morphmlp import cli


def main() -> None:
    """Read the arguments and prepare one data set."""
    arguments = _parser().parse_args()
    arguments.prepare(arguments)


def prepare_k400(arguments: argparse.Namespace) -> None:
    """Kinetics: from published annotations and a folder of videos to a manifest."""
    from morphmlp.data.annotations import read_annotations
    from morphmlp.data.class_list import read_class_list
    from morphmlp.data.manifest import write_manifest

    class_names = read_class_list(arguments.classes) if arguments.classes else None
    found = read_annotations(
        arguments.annotations,
        videos=arguments.videos,
        split=arguments.split,
        class_names=class_names,
        allow_missing=arguments.allow_missing,
    )
    write_manifest(found.manifest, arguments.output)
    for line in found.missing[: arguments.show]:
        print(f"missing: {line}")
    if len(found.missing) > arguments.show:
        print(f"missing: and {len(found.missing) - arguments.show} more")
    names = found.manifest.class_names
    if class_names is None:
        print(f"classes: {found.class_order}; say --classes where another order is meant")
    print(
        f"{arguments.output}: {len(found.manifest)} videos ({len(found.missing)} missing) of {len(names)} classes "
        f"({found.form}), fingerprint {found.manifest.fingerprint()}"
    )


def prepare_demo(arguments: argparse.Namespace) -> None:
    """The demo: write the videos, then their manifests by way of annotations in the layout of Kinetics."""
    from morphmlp.data.manifest import SPLITS, read_manifest
    from morphmlp.data.synthetic import write_demo_dataset, write_realistic_videos

    write = write_realistic_videos if arguments.real_size else write_demo_dataset
    write(arguments.output, train=arguments.train, val=arguments.val, test=arguments.test, seed=arguments.seed)
    for split in SPLITS:
        path = arguments.output / f"{split}.parquet"
        if path.exists():
            manifest = read_manifest(path)
            size = sum(manifest.table["size_bytes"].to_pylist()) / 1e6
            print(
                f"{path}: {len(manifest)} videos of {len(manifest.class_names)} classes, {size:.1f} MB, "
                f"fingerprint {manifest.fingerprint()}"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="k400|demo")

    k400 = commands.add_parser("k400", help="Kinetics: annotations and videos to a manifest")
    k400.set_defaults(prepare=prepare_k400)
    k400.add_argument("--annotations", type=Path, required=True, help="path,label list, or the official CSV")
    k400.add_argument("--videos", type=Path, required=True, help="folder that holds the videos")
    k400.add_argument("--output", type=Path, required=True, help="manifest to write (.parquet)")
    k400.add_argument(
        "--classes",
        type=Path,
        help="class names in label order: one per line, `name<TAB>id` lines, or a manifest of another split; "
        "by default the CSV's labels in alphabetical order, or the numbers 0 to 399 for a list",
    )
    k400.add_argument("--split", choices=("train", "val", "test"), help="by default what the annotations say")
    k400.add_argument("--allow-missing", action="store_true", help="record missing videos and go on")
    k400.add_argument("--show", type=int, default=20, help="missing videos to name with --allow-missing (20)")

    demo = commands.add_parser("demo", help="small videos whose class only the order of two events tells")
    demo.set_defaults(prepare=prepare_demo)
    demo.add_argument("--output", type=Path, required=True, help="folder to write")
    for split, count in (("train", 2000), ("val", 160), ("test", 240)):
        demo.add_argument(f"--{split}", type=int, default=count, help=f"{split} videos ({count})")
    demo.add_argument("--seed", type=int, default=0, help="root of every random draw (0)")
    demo.add_argument(
        "--real-size", action="store_true", help="340x256 videos of 10 s with sound instead, to try full-size models"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)

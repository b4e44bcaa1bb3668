"""Make manifests of data sets, and make the demo data sets themselves.

    python pipelines/prepare.py k400 --annotations FILE --videos DIR --output FILE.parquet [--classes FILE]
    python pipelines/prepare.py ssv1|ssv2 --annotations FILE --videos DIR --output FILE.parquet [--classes FILE]
    python pipelines/prepare.py verify MANIFEST [--output FILE.parquet]
    python pipelines/prepare.py transcode MANIFEST --output DIR [--short-edge 320]
    python pipelines/prepare.py pack MANIFEST --output DIR
    python pipelines/prepare.py demo --output DIR
    python pipelines/prepare.py standin ssv1|ssv2 --output DIR
    python pipelines/prepare.py look --config FILE --output FILE.png [--split train|val] [--augment.erase 1.0]

All faults of the annotations are told at once, each with its line, and nothing is written then. `verify`, `transcode`
and `pack` run on the cluster of RAY_ADDRESS, or on this machine; the same command continues one that was stopped.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from morphmlp import cli
from morphmlp.config.values import DecoderName
from morphmlp.errors import RunStoppedError
from morphmlp.preparation.transcode_settings import PRESETS
from morphmlp.stop_signals import signal_of

if TYPE_CHECKING:
    from morphmlp.data.datasets.matching import Annotations
    from morphmlp.preparation.copy_tasks import CopyTask
    from morphmlp.progress import LoggedProgress


def main() -> None:
    """Read the arguments and prepare one data set."""
    parser = _parser()
    arguments, rest = parser.parse_known_args()
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = rest
    arguments.prepare(arguments)


def prepare_k400(arguments: argparse.Namespace) -> None:
    """Kinetics: from published annotations and a folder of videos to a manifest."""
    from morphmlp.data.datasets.annotations import read_annotations
    from morphmlp.data.datasets.class_list import read_class_list

    found = read_annotations(
        arguments.annotations,
        videos=arguments.videos,
        split=arguments.split,
        class_names=read_class_list(arguments.classes) if arguments.classes else None,
        allow_missing=arguments.allow_missing,
        frame_template=arguments.frame_template,
    )
    _write_and_tell(found, arguments)


def prepare_something(arguments: argparse.Namespace) -> None:
    """Something-Something: from published annotations and a folder of videos or frames to a manifest."""
    from morphmlp.data.datasets.something import read_something, read_templates

    found = read_something(
        arguments.annotations,
        version=arguments.version,
        videos=arguments.videos,
        split=arguments.split,
        class_names=read_templates(arguments.classes) if arguments.classes else None,
        allow_missing=arguments.allow_missing,
        frame_template=arguments.frame_template,
    )
    _write_and_tell(found, arguments)


def _write_and_tell(found: "Annotations", arguments: argparse.Namespace) -> None:
    from morphmlp.data.datasets.video_folder import require_text
    from morphmlp.data.manifest import write_manifest
    from morphmlp.errors import ManifestError

    require_text(str(arguments.output), "--output")
    if arguments.output.resolve() == arguments.annotations.resolve():
        raise ManifestError(f"--output: {arguments.output} holds the annotations; the manifest needs a name of its own")
    write_manifest(found.manifest, arguments.output)
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in found.missing[: arguments.show]:
        print(f"missing: {line}")
    if len(found.missing) > arguments.show:
        print(f"missing: and {len(found.missing) - arguments.show} more")
    names = found.manifest.class_names
    if arguments.classes is None:
        print(f"classes: {found.class_order}; say --classes where another order is meant")
    print(
        f"{arguments.output}: {len(found.manifest)} videos ({len(found.missing)} missing) of {len(names)} classes "
        f"({found.form}), fingerprint {found.manifest.fingerprint()}"
    )


def prepare_demo(arguments: argparse.Namespace) -> None:
    """The demo: write the videos, then their manifests by way of annotations in the layout of Kinetics."""
    from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset, write_realistic_videos

    write = write_realistic_videos if arguments.real_size else write_demo_dataset
    write(arguments.output, train=arguments.train, val=arguments.val, test=arguments.test, seed=arguments.seed)
    _tell_generated(arguments.output)


def prepare_standin(arguments: argparse.Namespace) -> None:
    """A stand-in for Something-Something: write its videos in the official formats, then their manifests."""
    from morphmlp.data.synthetic.something_standin import write_standin

    write_standin(
        arguments.output, version=arguments.version, train=arguments.train, val=arguments.val, seed=arguments.seed
    )
    _tell_generated(arguments.output)


def _tell_generated(output: Path) -> None:
    from morphmlp.data.manifest import SPLITS, read_manifest

    for split in SPLITS:
        path = output / f"{split}.parquet"
        if path.exists():
            manifest = read_manifest(path)
            classes = len(manifest.class_names)
            print(f"{path}: {len(manifest)} videos of {classes} classes, fingerprint {manifest.fingerprint()}")


def prepare_verify(arguments: argparse.Namespace) -> None:
    """Decode every video of a manifest and write down what there is; broken videos are a finding, not a failure."""
    from morphmlp.preparation.ray_verify import VerifyFiles, verify_manifest
    from morphmlp.preparation.verification import VerifyTask

    task = VerifyTask(
        decoder=arguments.decoder,
        timeout_s=arguments.decode_timeout_s,
        memory_mb=arguments.decoder_memory_mb,
        keeps_cut_short=arguments.cut_short == "keep",
    )
    output = arguments.output or arguments.manifest
    with _job(VerifyFiles(manifest=output).log) as progress:
        done = verify_manifest(arguments.manifest, output, task, again=arguments.again, progress=progress)
        progress.keep(done.text)
    print(done.text)
    for path in (done.files.manifest, done.files.quarantine, done.files.found, done.files.picture):
        print(path)


def prepare_transcode(arguments: argparse.Namespace) -> None:
    """Smaller copies that cost less to cut clips from, with a manifest of their own."""
    from morphmlp.preparation.copies import CopyFiles
    from morphmlp.preparation.copy_tasks import TranscodeTask
    from morphmlp.preparation.transcode_settings import TranscodeSettings

    settings = TranscodeSettings(
        short_edge=arguments.short_edge,
        gop=arguments.gop,
        crf=arguments.crf,
        preset=arguments.preset,
        b_frames=arguments.b_frames,
    )
    files = CopyFiles(folder=arguments.output.absolute(), name=arguments.manifest.stem)
    _make_copies(
        arguments,
        TranscodeTask(files=files, transcoding=settings, timeout_s=arguments.timeout_s),
        again=arguments.again,
    )


def prepare_pack(arguments: argparse.Namespace) -> None:
    """One archive for each folder of frames, with a manifest of their own."""
    from morphmlp.preparation.copies import CopyFiles
    from morphmlp.preparation.copy_tasks import PackTask

    files = CopyFiles(folder=arguments.output.absolute(), name=arguments.manifest.stem)
    _make_copies(arguments, PackTask(files=files), again=False)


def _make_copies(arguments: argparse.Namespace, task: "CopyTask", *, again: bool) -> None:
    from morphmlp.preparation.ray_copies import copy_job, make_copies

    job = copy_job(arguments.manifest, task, again=again)
    with _job(task.files.log) as progress:
        done = make_copies(job, progress=progress)
        progress.keep(done.text)
    print(done.text)
    for path in (done.files.manifest, done.files.quarantine, done.files.found):
        print(path)


@contextmanager
def _job(log: Path) -> "Iterator[LoggedProgress]":
    """A Ray session for a job over a data set, with what it says in a file too.

    Raises:
        RunStoppedError: By a signal; the same command continues it.
    """
    from morphmlp.cluster.ray_cluster import job_session
    from morphmlp.progress import LoggedProgress, TerminalProgress

    try:
        with TerminalProgress() as progress, job_session():
            logged = LoggedProgress(progress, log)
            with logged.last_words():
                yield logged
    except KeyboardInterrupt as stop:
        raise RunStoppedError(
            "stopped; the same command continues, finished videos are kept", signum=signal_of(stop)
        ) from None


def prepare_look(arguments: argparse.Namespace) -> None:
    """A contact sheet of an experiment's clips, as training or validation gets them."""
    from morphmlp.config import load_config
    from morphmlp.errors import ConfigError

    if arguments.output.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError([f"--output: {arguments.output} must end in .png, .pdf or .svg"])
    config = load_config(arguments.config, cli.parse_overrides(arguments.overrides))

    from morphmlp.data.decoding.isolation.isolated import IsolatedVideos
    from morphmlp.data.manifest import read_manifest
    from morphmlp.data.stream.decode_task import decode_limits
    from morphmlp.reporting.contact_sheet import contact_sheet, training_rows, validation_rows

    training = arguments.split == "train"
    manifest = read_manifest(config.data.train if training else config.data.val).available()
    with IsolatedVideos(config.ingest.decoder, decode_limits(config.ingest)) as videos:
        if training:
            rows = list(training_rows(config, manifest, videos, count=arguments.videos, epoch=arguments.epoch))
        else:
            rows = list(validation_rows(config, manifest, videos, count=arguments.videos))
    epoch = f", epoch {arguments.epoch}, seed {config.train.seed}" if training else ""
    figure = contact_sheet(rows, title=f"{config.name}: {arguments.split} clips{epoch}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output)
    broken = sum(row.clip is None for row in rows)
    print(f"{arguments.output}: {len(rows) - broken} clips" + (f", {broken} videos can't be used" if broken else ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_k400(commands)
    _add_something(commands)
    _add_demo(commands)
    _add_standin(commands)
    _add_verify(commands)
    _add_transcode(commands)
    _add_pack(commands)
    _add_look(commands)
    return parser


def _add_k400(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    k400 = commands.add_parser("k400", help="Kinetics: annotations and videos to a manifest")
    k400.set_defaults(prepare=prepare_k400)
    _add_annotations(
        k400,
        annotations="list of paths and class ids, or the official CSV or JSON (docs/data.md has all forms)",
        videos="folder that holds the videos",
        classes="class names in label order: one per line, lines with ids from 0 (`name<TAB>id`, `id,name`, `id name`) "
        "or JSON, or a manifest of another split; "
        "by default the CSV's labels in alphabetical order, or the numbers 0 to 399 for a list",
    )


def _add_something(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for version, official in (("ssv1", "CSV"), ("ssv2", "JSON")):
        something = commands.add_parser(
            version, help=f"Something-Something V{version[-1]}: annotations and videos to a manifest"
        )
        something.set_defaults(prepare=prepare_something, version=version)
        _add_annotations(
            something,
            annotations=f"list of paths and class ids, with frame counts or without, or the official {official}",
            videos="folder of <id>/ with frames, <id>.zip with frames"
            + (", or <id>.webm" if version == "ssv2" else ""),
            classes="the official label file, or a manifest of another split; templates without ids are put in "
            "alphabetical order; by default those of the annotations, or the numbers 0 to 173 for a list",
        )


def _add_annotations(parser: argparse.ArgumentParser, *, annotations: str, videos: str, classes: str) -> None:
    parser.add_argument("--annotations", type=Path, required=True, help=annotations)
    parser.add_argument("--videos", type=Path, required=True, help=videos)
    parser.add_argument("--output", type=Path, required=True, help="manifest to write (.parquet)")
    parser.add_argument("--classes", type=Path, help=classes)
    parser.add_argument("--split", choices=("train", "val", "test"), help="by default what the annotations say")
    parser.add_argument(
        "--frame-template",
        help="how frames are named in folders of frames, as img_%%05d.jpg; only where folders hold other pictures too",
    )
    parser.add_argument("--allow-missing", action="store_true", help="record missing videos and go on")
    parser.add_argument("--show", type=int, default=20, help="missing videos to name with --allow-missing (20)")


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser("demo", help="small videos whose class only the order of two events tells")
    demo.set_defaults(prepare=prepare_demo)
    demo.add_argument("--output", type=Path, required=True, help="folder to write")
    for split, count in (("train", 2000), ("val", 160), ("test", 240)):
        demo.add_argument(f"--{split}", type=int, default=count, help=f"{split} videos ({count})")
    demo.add_argument("--seed", type=int, default=0, help="root of every random draw (0)")
    demo.add_argument(
        "--real-size", action="store_true", help="340x256 videos of 10 s with sound instead, to try full-size models"
    )


def _add_standin(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    standin = commands.add_parser("standin", help="small videos in the official formats of Something-Something")
    standin.set_defaults(prepare=prepare_standin)
    standin.add_argument("version", choices=("ssv1", "ssv2"), help="whose formats")
    standin.add_argument("--output", type=Path, required=True, help="folder to write")
    for split, count in (("train", 800), ("val", 160)):
        standin.add_argument(f"--{split}", type=int, default=count, help=f"{split} videos ({count})")
    standin.add_argument("--seed", type=int, default=0, help="root of every random draw (0)")


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verify = commands.add_parser("verify", help="decode every video: fill the manifest, list what's broken, draw it")
    verify.set_defaults(prepare=prepare_verify)
    verify.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest to verify (.parquet)")
    verify.add_argument("--output", type=Path, help="manifest to write; by default MANIFEST itself")
    verify.add_argument(
        "--decoder", choices=get_args(DecoderName), default="pyav", help="decoder of video files (pyav)"
    )
    verify.add_argument(
        "--decode-timeout-s", type=_positive, default=120.0, help="give up a decoder that stands still, seconds (120)"
    )
    verify.add_argument(
        "--decoder-memory-mb",
        type=cli.whole_number,
        default=4096,
        help="memory that decoding one video may take, MB (4096)",
    )
    verify.add_argument(
        "--cut-short", choices=("keep", "quarantine"), default="keep", help="files that end before their length (keep)"
    )
    verify.add_argument("--again", action="store_true", help="decode also videos whose file hasn't changed since")


def _add_transcode(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    transcode = commands.add_parser("transcode", help="smaller copies of video files that are cheap to cut clips from")
    transcode.set_defaults(prepare=prepare_transcode)
    transcode.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest of the originals (.parquet)")
    transcode.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for copies and manifest")
    transcode.add_argument(
        "--short-edge", type=int, default=320, help="shorter side at most, pixels; nothing is enlarged (320)"
    )
    transcode.add_argument("--gop", type=int, default=16, help="frames from key frame to key frame (16)")
    transcode.add_argument("--b-frames", type=int, default=3, help="skippable frames in a row, 0-16 (3)")
    transcode.add_argument("--crf", type=int, default=22, help="x264's quality, 0-51, lower is better (22)")
    transcode.add_argument("--preset", choices=PRESETS, default="veryfast", help="x264's effort (veryfast)")
    transcode.add_argument(
        "--timeout-s",
        type=_positive,
        default=120.0,
        help="a video that stands still so long is given up, seconds (120)",
    )
    transcode.add_argument("--again", action="store_true", help="transcode copies once more, which loses quality twice")


def _add_pack(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pack = commands.add_parser("pack", help="one archive for each folder of frames")
    pack.set_defaults(prepare=prepare_pack)
    pack.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest of folders of frames (.parquet)")
    pack.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for archives and manifest")


def _add_look(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    look = commands.add_parser(
        "look",
        allow_abbrev=False,
        help="a picture of an experiment's clips, after sampling and augmentation",
        epilog="Every field of the experiment can be overridden, as in --augment.erase 1.0.",
    )
    # What isn't known here are overrides.
    look.set_defaults(prepare=prepare_look, overrides=[])
    look.add_argument("--config", type=Path, required=True, metavar="FILE", help="experiment file")
    look.add_argument("--output", type=Path, required=True, metavar="FILE", help="picture to write (.png, .pdf, .svg)")
    look.add_argument("--videos", type=cli.whole_number, default=6, help="videos to show, all their clips (6)")
    look.add_argument("--split", choices=("train", "val"), default="train", help="whose clips (train)")
    look.add_argument("--epoch", type=int, default=0, help="epoch of the training clips (0)")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


if __name__ == "__main__":
    cli.run(main, long=True)

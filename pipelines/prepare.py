"""Make manifests of data sets, and make the demo data sets themselves.

    python pipelines/prepare.py folder DIR --output DIR2 [--split 80/10/10] [--starter finetune --weights FILE]
    python pipelines/prepare.py k400 --annotations FILE --videos DIR --output FILE.parquet [--classes FILE]
    python pipelines/prepare.py ssv1|ssv2 --annotations FILE --videos DIR --output FILE.parquet [--classes FILE]
    python pipelines/prepare.py imagenet DIR --output DIR2 [--devkit FILE]
    python pipelines/prepare.py ade20k DIR --output DIR2
    python pipelines/prepare.py segmentation --images DIR --masks DIR --classes FILE --output DIR2
    python pipelines/prepare.py verify MANIFEST [--output FILE.parquet]
    python pipelines/prepare.py transcode MANIFEST --output DIR [--short-edge 320]
    python pipelines/prepare.py pack MANIFEST --output DIR
    python pipelines/prepare.py demo --output DIR
    python pipelines/prepare.py demo-stills --output DIR
    python pipelines/prepare.py standin ssv1|ssv2|imagenet|ade20k --output DIR
    python pipelines/prepare.py fashion-mnist SOURCE --output DIR [--form folder|tar|parquet]
    python pipelines/prepare.py look --config FILE --output FILE.png [--split train|val] [--augment.erase 1.0]

All faults of the annotations are reported at once, each with its line, and nothing is written then. `verify`,
`transcode` and `pack` run on the cluster of RAY_ADDRESS, or on this machine; the same command continues one that was
stopped.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import click
from prepare_folder import folder
from prepare_images import demo_stills, fashion_mnist, imagenet, output_folder, report_manifests
from prepare_look import look
from prepare_scenes import ade20k, segmentation

from morphmlp.cli import A_PATH, COUNT, SECONDS, SETTINGS, run
from morphmlp.config.values import DecoderName
from morphmlp.errors import RunStoppedError
from morphmlp.preparation.transcode_settings import PRESETS
from morphmlp.stop_signals import signal_of

if TYPE_CHECKING:
    from morphmlp.data.datasets.matching import Annotations
    from morphmlp.preparation.copy_tasks import CopyTask
    from morphmlp.progress import LoggedProgress

Version = Literal["ssv1", "ssv2"]
SPLIT = click.Choice(["train", "val", "test"])
manifest_argument = click.argument("manifest", type=A_PATH, metavar="MANIFEST")


@click.group(context_settings=SETTINGS)
def main() -> None:
    """Make manifests of data sets, check and copy their videos, and make the demo data sets themselves."""


for command in (folder, fashion_mnist, imagenet, demo_stills, ade20k, segmentation, look):
    main.add_command(command)


class Source(TypedDict):
    """What is said of a published data set on the command line."""

    annotations: Path
    videos: Path
    output: Path
    classes: Path | None
    split: str | None
    frame_template: str | None
    allow_missing: bool
    show: int


def source_options(*, annotations: str, videos: str, classes: str) -> Callable[[Callable[..., Any]], Any]:
    """The options of a published data set, with help for what differs between them."""
    options = (
        click.option("--annotations", type=A_PATH, required=True, help=annotations),
        click.option("--videos", type=A_PATH, required=True, help=videos),
        click.option("--output", type=A_PATH, required=True, help="manifest to write (.parquet)"),
        click.option("--classes", type=A_PATH, help=classes),
        click.option("--split", type=SPLIT, help="by default what the annotations say"),
        click.option(
            "--frame-template",
            help="names of frames in folders of frames, as img_%05d.jpg; only where folders hold other pictures too",
        ),
        click.option("--allow-missing", is_flag=True, help="record missing videos and continue"),
        click.option("--show", type=int, default=20, help="missing videos to name"),
    )

    def decorate(command: Callable[..., Any]) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@main.command()
@source_options(
    annotations="list of paths and class ids, or the official CSV or JSON (docs/data.md has all forms)",
    videos="folder that holds the videos",
    classes="class names in label order: one per line, lines with ids from 0 (`name<TAB>id`, `id,name`, `id name`) or "
    "JSON, or a manifest of another split; by default the CSV's labels in alphabetical order, or the numbers 0 to 399 "
    "for a list",
)
def k400(**source: Unpack[Source]) -> None:
    """Kinetics: annotations and videos to a manifest."""
    from morphmlp.data.datasets.annotations import read_annotations
    from morphmlp.data.datasets.class_list import read_class_list

    found = read_annotations(
        source["annotations"],
        videos=source["videos"],
        split=source["split"],
        class_names=read_class_list(source["classes"]) if source["classes"] else None,
        allow_missing=source["allow_missing"],
        frame_template=source["frame_template"],
    )
    _write_and_report(found, source)


OFFICIAL_LABELS = (
    "the official label file, or a manifest of another split; templates without ids are put in alphabetical order; by "
    "default those of the annotations, or the numbers 0 to 173 for a list"
)


@main.command()
@source_options(
    annotations="list of paths and class ids, with frame counts or without, or the official CSV",
    videos="folder of <id>/ with frames, <id>.zip with frames",
    classes=OFFICIAL_LABELS,
)
def ssv1(**source: Unpack[Source]) -> None:
    """Something-Something V1: annotations and videos to a manifest."""
    _something("ssv1", source)


@main.command()
@source_options(
    annotations="list of paths and class ids, with frame counts or without, or the official JSON",
    videos="folder of <id>/ with frames, <id>.zip with frames, or <id>.webm",
    classes=OFFICIAL_LABELS,
)
def ssv2(**source: Unpack[Source]) -> None:
    """Something-Something V2: annotations and videos to a manifest."""
    _something("ssv2", source)


def _something(version: Version, source: Source) -> None:
    from morphmlp.data.datasets.annotations import read_annotations
    from morphmlp.data.datasets.something import SOMETHING, read_templates

    found = read_annotations(
        source["annotations"],
        data_set=SOMETHING[version],
        videos=source["videos"],
        split=source["split"],
        class_names=read_templates(source["classes"]) if source["classes"] else None,
        allow_missing=source["allow_missing"],
        frame_template=source["frame_template"],
    )
    _write_and_report(found, source)


def _write_and_report(found: "Annotations", source: Source) -> None:
    from morphmlp.data.datasets.video_folder import require_text
    from morphmlp.data.manifest import write_manifest
    from morphmlp.errors import ManifestError

    output, show = source["output"], source["show"]
    require_text(str(output), "--output")
    if output.resolve() == source["annotations"].resolve():
        raise ManifestError(f"--output: {output} holds the annotations; the manifest needs a name of its own")
    write_manifest(found.manifest, output)
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in found.missing[:show]:
        print(f"missing: {line}")
    if len(found.missing) > show:
        print(f"missing: and {len(found.missing) - show} more")
    names = found.manifest.class_names
    if source["classes"] is None:
        print(f"classes: {found.class_order}; say --classes where another order is meant")
    print(
        f"{output}: {len(found.manifest)} videos ({len(found.missing)} missing) of {len(names)} classes "
        f"({found.form}), fingerprint {found.manifest.fingerprint()}"
    )


@main.command()
@output_folder
@click.option("--train", type=int, default=2000, help="train videos")
@click.option("--val", type=int, default=160, help="val videos")
@click.option("--test", type=int, default=240, help="test videos")
@click.option("--seed", type=int, default=0, help="root of every random draw")
@click.option("--real-size", is_flag=True, help="340x256 videos of 10 s with sound instead, to try full-size models")
def demo(*, output: Path, train: int, val: int, test: int, seed: int, real_size: bool) -> None:
    """Small videos whose class depends only on the order of two events."""
    from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset, write_realistic_videos

    write = write_realistic_videos if real_size else write_demo_dataset
    write(output, train=train, val=val, test=test, seed=seed)
    report_manifests(output)


@main.command()
@click.argument("version", type=click.Choice([*get_args(Version), "imagenet", "ade20k"]))
@output_folder
@click.option("--train", type=int, default=800, help="train videos or images")
@click.option("--val", type=int, default=160, help="val videos or images")
@click.option("--seed", type=int, default=0, help="root of every random draw")
def standin(*, version: Version | Literal["imagenet", "ade20k"], output: Path, train: int, val: int, seed: int) -> None:
    """Small videos in the official formats of Something-Something, or images in the layouts of ImageNet and ADE20K."""
    if version == "ade20k":
        from morphmlp.data.synthetic.scenes import write_ade20k_standin

        write_ade20k_standin(output, train=train, val=val, seed=seed)
    elif version == "imagenet":
        from morphmlp.data.synthetic.imagenet_standin import write_imagenet_standin

        write_imagenet_standin(output, train=train, val=val, seed=seed)
    else:
        from morphmlp.data.synthetic.something_standin import write_standin

        write_standin(output, version=version, train=train, val=val, seed=seed)
    report_manifests(output)


@main.command()
@manifest_argument
@click.option("--output", type=A_PATH, help="manifest to write; by default MANIFEST itself")
@click.option("--decoder", type=click.Choice(get_args(DecoderName)), default="pyav", help="decoder of video files")
@click.option("--decode-timeout-s", type=SECONDS, default=120.0, help="give up a decoder that stands still, seconds")
@click.option("--decoder-memory-mb", type=COUNT, default=4096, help="memory that decoding one video may take, MB")
@click.option(
    "--cut-short", type=click.Choice(["keep", "quarantine"]), default="keep", help="files that end before their length"
)
@click.option("--again", is_flag=True, help="decode also videos whose file hasn't changed since")
def verify(
    *,
    manifest: Path,
    output: Path | None,
    decoder: DecoderName,
    decode_timeout_s: float,
    decoder_memory_mb: int,
    cut_short: str,
    again: bool,
) -> None:
    """Decode every video: fill the manifest, list what's broken, draw it."""
    from morphmlp.preparation.ray_verify import VerifyFiles, VerifyTask, verify_manifest

    task = VerifyTask(
        decoder=decoder,
        timeout_s=decode_timeout_s,
        memory_mb=decoder_memory_mb,
        keeps_cut_short=cut_short == "keep",
    )
    target = output or manifest
    files = VerifyFiles(manifest=target)
    with _job(files.log) as progress:
        done = verify_manifest(manifest, target, task, again=again, progress=progress)
        progress.keep(done.text)
    print(done.text)
    for path in (files.manifest, files.quarantine, files.found, files.picture):
        print(path)


@main.command()
@manifest_argument
@output_folder
@click.option("--short-edge", type=int, default=320, help="shorter side at most, pixels; nothing is enlarged")
@click.option("--gop", type=int, default=16, help="frames from key frame to key frame")
@click.option("--b-frames", type=int, default=3, help="skippable frames in a row, 0-16")
@click.option("--crf", type=int, default=22, help="x264's quality, 0-51, lower is better")
@click.option("--preset", type=click.Choice(PRESETS), default="veryfast", help="x264's effort")
@click.option("--timeout-s", type=SECONDS, default=120.0, help="a video that stands still so long is given up, seconds")
@click.option("--again", is_flag=True, help="transcode copies once more, which loses quality twice")
def transcode(*, manifest: Path, output: Path, timeout_s: float, again: bool, **settings: Any) -> None:
    """Smaller copies of video files that are cheap to cut clips from."""
    from morphmlp.preparation.copies import CopyFiles
    from morphmlp.preparation.copy_tasks import TranscodeTask
    from morphmlp.preparation.transcode_settings import TranscodeSettings

    files = CopyFiles(folder=output.absolute(), name=manifest.stem)
    task = TranscodeTask(files=files, transcoding=TranscodeSettings(**settings), timeout_s=timeout_s)
    _make_copies(manifest, task, again=again)


@main.command()
@manifest_argument
@output_folder
def pack(*, manifest: Path, output: Path) -> None:
    """One archive for each folder of frames."""
    from morphmlp.preparation.copies import CopyFiles
    from morphmlp.preparation.copy_tasks import PackTask

    files = CopyFiles(folder=output.absolute(), name=manifest.stem)
    _make_copies(manifest, PackTask(files=files), again=False)


def _make_copies(manifest: Path, task: "CopyTask", *, again: bool) -> None:
    from morphmlp.preparation.ray_copies import copy_job, make_copies

    job = copy_job(manifest, task, again=again)
    files = task.files
    with _job(files.log) as progress:
        done = make_copies(job, progress=progress)
        progress.keep(done.text)
    print(done.text)
    for path in (files.manifest, files.quarantine, files.found):
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


if __name__ == "__main__":
    run(main, long=True)

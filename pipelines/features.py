"""Write features of videos or images to disk, a file for each, over the cluster: for action detection, search, probes.

    python pipelines/features.py data/thumos.parquet --checkpoint runs/mine --window 16 --hop 8 --output feats
    python pipelines/features.py my-videos --checkpoint runs/mine --stage 3 --hop 1s --format parquet --output feats

It runs on the cluster of RAY_ADDRESS, or on this machine; the same command continues one that was stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from morphmlp.cli import A_PATH, COUNT, SETTINGS, parse_overrides, run
from morphmlp.config.loading import check_overrides
from morphmlp.errors import ConfigError, RunStoppedError
from morphmlp.stop_signals import signal_of
from morphmlp.targets import writable_folder

if TYPE_CHECKING:
    from morphmlp.prediction.features import Form, Stage

STAGES = ("1", "2", "3", "4", "pooled", "logits")
FORMS = ("npy", "parquet")


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.argument("source", type=A_PATH, metavar="MANIFEST|DIR")
@click.option(
    "--checkpoint",
    required=True,
    metavar="WEIGHTS",
    help="a run (name, folder or MLflow id), a checkpoint's folder, a file",
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    default="pooled",
    help="a stage's map averaged over space and time, what the head gets (pooled), or logits",
)
@click.option("--window", metavar="FRAMES[xSTRIDE]", help="as in 16x4, 16 is 16x1; by default the network's own clip")
@click.option("--hop", metavar="TIME", help="to the next window: 8 frames, or 2s; by default a window's length")
@click.option(
    "--output",
    type=A_PATH,
    required=True,
    metavar="DIR",
    callback=lambda context, option, path: writable_folder(path, "--output"),
    help="folder to write",
)
@click.option("--format", "form", type=click.Choice(FORMS), default="npy", help="a file's form; parquet has times too")
@click.option("--tasks-per-gpu", type=COUNT, default=4, help="processes that share a GPU, each decoding on a CPU")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    source: Path,
    checkpoint: str,
    config: str | None,
    stage: "Stage",
    window: str | None,
    hop: str | None,
    output: Path,
    form: "Form",
    tasks_per_gpu: int,
    overrides: tuple[str, ...],
) -> None:
    """Write features of videos or images to disk, a file for each, over the cluster.

    Any field of the experiment can be overridden, as in --test.num-crops 1. What is finished stays: the same command
    continues after any stop.
    """
    fields = parse_overrides(overrides, context.command.params)
    check_overrides(fields, path=config)
    from morphmlp.cluster.ray_cluster import job_session
    from morphmlp.prediction.features import FeatureFiles, videos_to_extract
    from morphmlp.prediction.ray_features import Extraction, extract_features
    from morphmlp.prediction.sliding import sliding
    from morphmlp.prediction.trained import find_trained
    from morphmlp.progress import LoggedProgress, TerminalProgress

    files = FeatureFiles(folder=output)
    try:
        with TerminalProgress() as progress:
            trained = find_trained(checkpoint, config=config, overrides=fields, classes=None, log=progress.line)
            if trained.config.segmentation is not None and (window, hop) != (None, None):
                raise ConfigError(["--window, --hop: this network segments images, which have no time; leave them out"])
            job = Extraction(
                source=source,
                videos=videos_to_extract(source, images=trained.config.clip.num_frames == 1),
                trained=trained,
                windows=sliding(trained.config.test_clip, window=window, hop=hop, to_the_end=False),
                stage=stage,
                form=form,
                files=files,
                gpu_tasks=tasks_per_gpu,
            )
            files.claim(job.settings())
            with job_session():
                logged = LoggedProgress(progress, files.log)
                with logged.last_words():
                    words = extract_features(job, progress=logged)
    except KeyboardInterrupt as stop:
        raise RunStoppedError(
            "stopped; the same command continues, finished videos are kept", signum=signal_of(stop)
        ) from None
    print(words)
    print(files.index)


if __name__ == "__main__":
    run(main, long=True)

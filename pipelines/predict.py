"""Predict what is in videos or images: names and probabilities, of the whole or over time.

    python pipelines/predict.py holiday.mp4 --checkpoint runs/mine
    python pipelines/predict.py lecture.mp4 --checkpoint runs/mine --window 16x4 --hop 2s --annotate lecture-named.mp4
    python pipelines/predict.py holiday.mp4 --checkpoint runs/mine --explain why.mp4 --explain-stage 3
    find /data -name '*.mp4' | python pipelines/predict.py - --checkpoint runs/mine --json predictions.jsonl
    python pipelines/predict.py photos/ --checkpoint weights.pth --config experiments/imagenet/morphmlp_t.yaml

The weights are a run's (by its name, folder or MLflow id), a checkpoint's, or a file's. Without --window a video is
looked at as the test does it, by the same code.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import click
from pydantic import JsonValue

from morphmlp.cli import A_PATH, COUNT, SETTINGS, parse_overrides, run
from morphmlp.config.loading import check_overrides
from morphmlp.config.shapes import NUM_STAGES
from morphmlp.errors import ConfigError

STAGE = click.IntRange(1, NUM_STAGES)


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.argument("inputs", nargs=-1, type=click.UNPROCESSED, metavar="VIDEO|DIR|- ...")
@click.option(
    "--checkpoint",
    required=True,
    metavar="WEIGHTS",
    help="a run (name, folder or MLflow id), a checkpoint's folder, a file",
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option(
    "--classes", type=A_PATH, metavar="FILE", help="class names; by default those of the experiment's manifests"
)
@click.option("--top", type=COUNT, default=5, metavar="COUNT", help="classes to name")
@click.option("--window", metavar="FRAMESxSTRIDE", help="look at windows that slide over a video, as in 16x4")
@click.option(
    "--hop", metavar="TIME", help="from one window to the next: 2s, or 8 frames; by default a window's length"
)
@click.option("--json", metavar="FILE|-", help="write one JSON object a line for each file; - is standard output")
@click.option(
    "--annotate",
    type=A_PATH,
    metavar="FILE|DIR",
    help="write the video with its names and a timeline (.mp4), an image with its names or label map (.png)",
)
@click.option(
    "--explain",
    type=A_PATH,
    metavar="FILE|DIR",
    help="write where the network looks for a class, how it weighs branches and mixes moments (.mp4, .gif, .png)",
)
@click.option("--explain-stage", type=STAGE, metavar="1-4", help="stage whose map --explain shows; by default the last")
@click.option("--explain-class", metavar="NAME|NUMBER", help="class that --explain is about; by default the top guess")
@click.option("--force", is_flag=True, help="let --annotate and --explain replace files that exist")
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    inputs: tuple[str, ...],
    checkpoint: str,
    config: str | None,
    classes: Path | None,
    top: int,
    window: str | None,
    hop: str | None,
    json: str | None,
    annotate: Path | None,
    explain: Path | None,
    explain_stage: int | None,
    explain_class: str | None,
    force: bool,
) -> None:
    """Predict what is in videos or images: names and probabilities, of the whole or over time.

    Videos and folders come first; - reads paths from standard input, one a line. Any field of the experiment can be
    overridden behind them, as in --test.num-clips 10. What can't be used is named, and the others go on; the exit code
    is then 2.
    """
    named, overrides = _divided(inputs, context.command.params)
    if not named:
        raise ConfigError(
            ["VIDEO: is missing; name videos, images or folders of them, or - for a list on standard input"]
        )
    check_overrides(overrides, path=config)
    for option, value in (("--explain-stage", explain_stage), ("--explain-class", explain_class)):
        if value is not None and explain is None:
            raise ConfigError([f"{option}: says more of --explain FILE, which is missing"])
    from morphmlp.prediction.command import ExplainArguments, PredictArguments, predict_files

    predict_files(
        PredictArguments(
            inputs=named,
            checkpoint=checkpoint,
            config=config,
            overrides=overrides,
            classes=classes,
            top=top,
            window=window,
            hop=hop,
            json=json,
            annotate=annotate,
            explain=None
            if explain is None
            else ExplainArguments(target=explain, stage=explain_stage or NUM_STAGES, label=explain_class),
            force=force,
        ),
        stdin=BytesIO() if sys.stdin is None else sys.stdin.buffer,
    )


def _divided(
    words: Sequence[str], parameters: Sequence[click.Parameter]
) -> tuple[tuple[str, ...], Mapping[str, JsonValue]]:
    """What to look at, and the overrides behind it."""
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    return tuple(os.fspath(word) for word in words[:first]), parse_overrides(words[first:], parameters)


if __name__ == "__main__":
    run(main)

"""Test weights on an experiment's videos: scores in a store, and a run of their own in the record.

    python pipelines/evaluate.py --checkpoint k400-s-16x4-20261129
    python pipelines/evaluate.py --checkpoint weights.pth --config experiments/k400/morphmlp_s_16x4.yaml
    python pipelines/evaluate.py --checkpoint first --test.num-clips 10 --test.num-crops 3 --scores scores/first-10x3
    python pipelines/evaluate.py --rescore scores/first-10x3 --num-clips 4 --against runs/second/scores --report report

The weights are a run's, by its name, folder or MLflow id, a checkpoint's folder, or a file. Without --config they are
tested as their run tested them. The same command continues a test that was stopped. --rescore needs no weights: it
scores what stores hold, on any of their views, several stores as one ensemble.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from evaluate_rescore import RescoreArguments, report_of, rescore, rescore_options

from morphmlp.cli import A_PATH, SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.config.loading import check_overrides
from morphmlp.errors import ConfigError

UNSCORED_SHOWN = 10
"""Videos without a score that are named on the terminal."""


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.option(
    "--checkpoint", metavar="WEIGHTS", help="a run (name, folder or MLflow id), a checkpoint's folder, a file"
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option("--scores", type=A_PATH, metavar="DIR", help="the score store; by default in cluster.storage/evaluations")
@click.option("--report", type=A_PATH, metavar="DIR", help="write a report there: a page, tables, pictures")
@json_option
@rescore_options
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    checkpoint: str | None,
    config: str | None,
    scores: Path | None,
    report: Path | None,
    json: Path | None,
    overrides: tuple[str, ...],
    **stored: Any,
) -> None:
    """Test weights on an experiment's videos, each video decoded once for all views.

    Any field of the experiment can be overridden, as in --test.num-clips 10 --test.num-crops 3 or
    --data.test other.parquet. What is scored is kept at once: the same command continues after any stop.
    """
    if stored["stores"]:
        stored["stores"] += _further_stores(overrides, context.command.params)
        _refuse({"--checkpoint": checkpoint, "--config": config, "--scores": scores}, "--rescore takes stores alone")
        rescore(RescoreArguments(**stored, report=report, json=json))
        return
    fields = parse_overrides(overrides, context.command.params)
    _refuse({option_of(name): value for name, value in stored.items()}, "needs --rescore STORE")
    if checkpoint is None:
        raise ConfigError(
            ["--checkpoint WEIGHTS: is missing; it names a run, a checkpoint's folder or a file of weights"]
        )
    check_overrides(fields, path=config)

    from morphmlp.experiment.ray_evaluation import EvaluationArguments, evaluate

    result = evaluate(EvaluationArguments(checkpoint=checkpoint, config=config, overrides=fields, scores=scores))
    print(result.in_words())
    for line in result.unscored[:UNSCORED_SHOWN]:
        print(f"not scored: {line}")
    if len(result.unscored) > UNSCORED_SHOWN:
        print(f"not scored: and {len(result.unscored) - UNSCORED_SHOWN} more, see quarantine.parquet of the run")
    print(f"scores of every view: {result.store}")
    if report is not None:
        print(f"report: {report_of(Path(result.store), report)}")
    write_json(json, result)


def option_of(name: str) -> str:
    """The option of an argument."""
    return f"--{name.replace('_', '-')}"


def _further_stores(words: Sequence[str], parameters: Sequence[click.Parameter]) -> tuple[Path, ...]:
    """The stores behind the first one of `--rescore`."""
    if options := [word.partition("=")[0] for word in words if word.startswith("--")]:
        parse_overrides([f"{option}=0" for option in options], parameters)  # says what a misspelt one may have meant
        chosen_by = "--num-clips, --num-crops, --clips, --crops"
        raise ConfigError([f"{options[0]}: --rescore tests nothing anew; stored views are chosen by {chosen_by}"])
    return tuple(map(Path, words))


def _refuse(given: Mapping[str, object], reason: str) -> None:
    """Refuse options that don't go with the others."""
    if faults := [f"{name}: {reason}" for name, value in given.items() if value not in (None, False, ())]:
        raise ConfigError(faults)


if __name__ == "__main__":
    run(main, long=True)

"""Test weights on an experiment's videos: scores in a store, and a run of their own in the record.

    python pipelines/evaluate.py --checkpoint k400-s-16x4-20261129
    python pipelines/evaluate.py --checkpoint weights.pth --config experiments/k400/morphmlp_s_16x4.yaml
    python pipelines/evaluate.py --checkpoint first --test.num-clips 10 --test.num-crops 3 --scores scores/first-10x3

The weights are a run's, by its name, folder or MLflow id, a checkpoint's folder, or a file. Without --config they are
tested as their run tested them. The same command continues a test that was stopped.
"""

from pathlib import Path

import click

from morphmlp.cli import A_PATH, SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.errors import ConfigError

UNSCORED_SHOWN = 10
"""Videos without a score that are named on the terminal."""


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.option(
    "--checkpoint", metavar="WEIGHTS", help="a run (name, folder or MLflow id), a checkpoint's folder, a file"
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option("--scores", type=A_PATH, metavar="DIR", help="the score store; by default in cluster.storage/evaluations")
@json_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    *,
    checkpoint: str | None,
    config: str | None,
    scores: Path | None,
    json: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Test weights on an experiment's videos, each video decoded once for all views.

    Any field of the experiment can be overridden, as in --test.num-clips 10 --test.num-crops 3 or
    --data.test other.parquet. What is scored is kept at once: the same command continues after any stop.
    """
    fields = parse_overrides(overrides, context.command.params)
    if checkpoint is None:
        raise ConfigError(
            ["--checkpoint WEIGHTS: is missing; it names a run, a checkpoint's folder or a file of weights"]
        )

    from morphmlp.experiment.ray_evaluation import EvaluationArguments, evaluate

    result = evaluate(EvaluationArguments(checkpoint=checkpoint, config=config, overrides=fields, scores=scores))
    print(result.in_words())
    for line in result.unscored[:UNSCORED_SHOWN]:
        print(f"not scored: {line}")
    if len(result.unscored) > UNSCORED_SHOWN:
        print(f"not scored: and {len(result.unscored) - UNSCORED_SHOWN} more, see quarantine.parquet of the run")
    print(f"scores of every view: {result.store}")
    write_json(json, result)


if __name__ == "__main__":
    run(main, long=True)

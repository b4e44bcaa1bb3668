"""Export a trained network for other programs, with proof that it is the same, a card and a script that uses it.

    python pipelines/export.py --checkpoint k400-s-16x4-20261129 --to onnx --output exported/k400-onnx
    python pipelines/export.py --checkpoint weights.pth --config experiments/k400/morphmlp_s_16x4.yaml \
        --classes kinetics_400_categroies.txt --to torch-export --output exported/k400
    python exported/k400-onnx/use_model.py

The weights are a run's, by its name, folder or MLflow id, a checkpoint's folder, or a file, as for evaluate.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from morphmlp.cli import A_PATH, SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.config.loading import check_overrides

if TYPE_CHECKING:
    from morphmlp.export.forms import FormName

FORM_NAMES = ("onnx", "torch-export", "safetensors", "pyfunc", "hub")


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.option(
    "--checkpoint",
    required=True,
    metavar="WEIGHTS",
    help="a run (name, folder or MLflow id), a checkpoint's folder, a file",
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option("--to", "form", type=click.Choice(FORM_NAMES), required=True, help="what to export as")
@click.option("--output", type=A_PATH, required=True, metavar="DIR", help="a new or empty folder")
@click.option(
    "--classes", type=A_PATH, metavar="FILE", help="names of the classes, a list or a manifest; else the experiment's"
)
@json_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    checkpoint: str,
    config: str | None,
    form: "FormName",
    output: Path,
    classes: Path | None,
    json: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Export a trained network: the model with any batch size, its facts as JSON, a card, and a script that runs it.

    onnx and torch-export need nothing of this package to run, pyfunc brings it along, safetensors are the weights
    alone, and so is hub, as a repository of the Hugging Face Hub. Logits are compared with the network's before
    anything is handed over. Any field of the experiment can be overridden, as in --test.weights raw or
    --test.crop-size 256.
    """
    fields = parse_overrides(overrides, context.command.params)
    check_overrides(fields, path=config)

    from morphmlp.experiment.exporting import ExportArguments, export

    result = export(
        ExportArguments(
            checkpoint=checkpoint, config=config, overrides=fields, form=form, output=output, classes=classes
        )
    )
    for line in result.notes:
        print(line)
    print(result.in_words())
    print(f"try it: python {output / 'use_model.py'}{' FILE' if form == 'pyfunc' else ''}")
    if form == "hub":
        print(f"publish it: hf upload NAME/MODEL {output}")
    write_json(json, result)


if __name__ == "__main__":
    run(main)

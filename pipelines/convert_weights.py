"""Convert weights between safetensors and the released checkpoints' form; names stay, values stay bit for bit.

    python pipelines/convert_weights.py IN OUT.safetensors
    python pipelines/convert_weights.py IN OUT.pth [--container pyslowfast]

IN is a released checkpoint (bare or PySlowFast's), a checkpoint of this project, or safetensors.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from morphmlp.cli import A_PATH, SETTINGS, json_option, run, write_json
from morphmlp.errors import ConfigError

if TYPE_CHECKING:
    from morphmlp.training.weights.file import WeightsFile


@click.command(context_settings=SETTINGS)
@click.argument("source", type=A_PATH, metavar="IN")
@click.argument("output", type=A_PATH, metavar="OUT")
@click.option(
    "--container",
    type=click.Choice(["bare", "pyslowfast"]),
    help="form of a .pth file: weights alone (the default), or `model_state` with a `cfg`, as PySlowFast loads it",
)
@click.option(
    "--averaged/--no-averaged",
    default=None,
    help="take a checkpoint's moving averages, where it has them, or its own weights; by default those that its run "
    "tests, as training starts from them too",
)
@click.option(
    "--class-order", type=A_PATH, help="file of `name<TAB>row` lines: the head's rows as they are; needs --classes"
)
@click.option(
    "--classes",
    type=A_PATH,
    help="the order to bring the head's rows into: a manifest, or a list as `prepare.py --classes` takes it",
)
@click.option("--force", is_flag=True, help="write over a file that exists")
@json_option
def main(
    *,
    source: Path,
    output: Path,
    container: Literal["bare", "pyslowfast"] | None,
    averaged: bool | None,
    class_order: Path | None,
    classes: Path | None,
    force: bool,
    json: Path | None,
) -> None:
    """Convert weights between safetensors and the released checkpoints' form; values stay bit for bit.

    IN is a released checkpoint (bare or PySlowFast's), a checkpoint of this project, or safetensors. The ending of OUT,
    .safetensors or .pth, says which form is written.
    """
    _check(output, container=container, class_order=class_order, classes=classes, force=force)

    from morphmlp.training.weights.file import read_weights, write_weights

    file = read_weights(source, averaged=averaged)
    print(file.in_words)
    if file.stated is None:
        print("its chunk lengths aren't in the file, and can't be read from any shape")
    if class_order is not None and classes is not None:
        file = _in_class_order(file, class_order, classes)
    write_weights(file, output, container=container or "bare")
    written = read_weights(output)
    print(f"{output}: {len(written.state)} tensors, sha256 {written.sha256}")
    write_json(
        json,
        {
            "source": str(file.path),
            "source_sha256": file.sha256,
            "container": file.container,
            "averaged": file.averaged,
            **dataclasses.asdict(file.description),
            "output": str(output),
            "output_sha256": written.sha256,
        },
    )


def _check(output: Path, *, container: str | None, class_order: Path | None, classes: Path | None, force: bool) -> None:
    """Refuse what can't be done before anything is read."""
    faults = []
    if output.suffix not in (".safetensors", ".pth"):
        faults.append(f"{output}: must end in .safetensors or .pth, which says what form to write")
    elif container is not None and output.suffix != ".pth":
        faults.append(f"--container {container}: is for .pth files, {output} isn't one")
    if output.exists() and not force:
        faults.append(f"{output}: exists already; --force writes over it")
    if (class_order is None) != (classes is None):
        faults.append("--class-order and --classes: only together, the order that rows have and the one they get")
    if faults:
        raise ConfigError(faults)


def _in_class_order(file: "WeightsFile", class_order: Path, classes: Path) -> "WeightsFile":
    from morphmlp.data.datasets.class_list import read_class_list
    from morphmlp.models.weights.fit import class_rows, with_head_rows

    where = f"--class-order {class_order}"
    rows = class_rows(read_class_list(class_order), read_class_list(classes), where=where)
    if len(rows) != file.description.num_classes:
        raise ConfigError([f"{where}: names {len(rows)} rows, the head has {file.description.num_classes or 'none'}"])
    return dataclasses.replace(file, state=with_head_rows(file.state, rows))


if __name__ == "__main__":
    run(main)

"""Convert weights between safetensors and the released checkpoints' form; names stay, values stay bit for bit.

    python pipelines/convert_weights.py IN OUT.safetensors
    python pipelines/convert_weights.py IN OUT.pth [--container pyslowfast]

IN is a released checkpoint (bare or PySlowFast's), a checkpoint of this project, or safetensors.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from morphmlp.cli import run, write_json
from morphmlp.errors import ConfigError

if TYPE_CHECKING:
    from morphmlp.training.weights.file import WeightsFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to convert, and into which form."""

    source: tyro.conf.Positional[Path]
    """The weights to read."""
    output: tyro.conf.Positional[Path]
    """The file to write; its ending, .safetensors or .pth, says in which form."""
    container: Literal["bare", "pyslowfast"] | None = None
    """Form of a .pth file: weights alone (the default), or `model_state` with a `cfg`, as PySlowFast loads it."""
    averaged: bool = True
    """Take a checkpoint's moving averages, where it has them, as training starts from them too."""
    class_order: Path | None = None
    """File of `name<TAB>row` lines: the head's rows as they are; needs --classes."""
    classes: Path | None = None
    """The order to bring the head's rows into: a manifest, or a list as `prepare.py --classes` takes it."""
    force: bool = False
    """Write over a file that exists."""
    json: Path | None = None
    """File to write the description to."""


def main() -> None:
    """Read, describe, convert."""
    arguments = tyro.cli(Arguments, description=__doc__)
    _check(arguments)

    from morphmlp.training.weights.file import read_weights, write_weights

    file = read_weights(arguments.source, averaged=arguments.averaged)
    print(file.in_words)
    if file.stated is None:
        print("its chunk lengths aren't in the file, and no shape tells them")
    if arguments.class_order is not None and arguments.classes is not None:
        file = _in_class_order(file, arguments.class_order, arguments.classes)
    write_weights(file, arguments.output, container=arguments.container or "bare")
    written = read_weights(arguments.output)
    print(f"{arguments.output}: {len(written.state)} tensors, sha256 {written.sha256}")
    write_json(
        arguments.json,
        {
            "source": str(file.path),
            "source_sha256": file.sha256,
            "container": file.container,
            "averaged": file.averaged,
            **dataclasses.asdict(file.description),
            "output": str(arguments.output),
            "output_sha256": written.sha256,
        },
    )


def _check(arguments: Arguments) -> None:
    """Refuse what can't be done before anything is read."""
    faults = []
    if arguments.output.suffix not in (".safetensors", ".pth"):
        faults.append(f"{arguments.output}: must end in .safetensors or .pth, which says what form to write")
    elif arguments.container is not None and arguments.output.suffix != ".pth":
        faults.append(f"--container {arguments.container}: is for .pth files, {arguments.output} isn't one")
    if arguments.output.exists() and not arguments.force:
        faults.append(f"{arguments.output}: exists already; --force writes over it")
    if (arguments.class_order is None) != (arguments.classes is None):
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

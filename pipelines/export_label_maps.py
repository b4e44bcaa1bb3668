"""Write what a segmentation run predicted for its test images as PNGs, one for each image and named like it.

    python pipelines/export_label_maps.py RUN --output DIR

RUN is a run's folder, its name, or the file of its predictions. By default the maps have the form in which ADE20K's
test server takes them: class + 1 in 8 bits.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from morphmlp.cli import A_PATH, SETTINGS, run
from morphmlp.targets import writable_folder

if TYPE_CHECKING:
    from morphmlp.reporting.label_maps import Form

WORDS = {
    "submission": "class + 1 in 8 bits",
    "classes": "the class in 8 bits",
    "palette": "the class in 8 bits, with a palette",
}
"""By form, what a pixel holds."""


@click.command(context_settings=SETTINGS)
@click.argument("source", metavar="RUN")
@click.option(
    "--output",
    type=A_PATH,
    required=True,
    metavar="DIR",
    callback=lambda context, option, path: writable_folder(path, "--output"),
    help="folder to write",
)
@click.option("--storage", type=A_PATH, default="runs", help="folder of runs by name")
@click.option(
    "--form",
    type=click.Choice(list(WORDS)),
    default="submission",
    help=f"what a pixel holds: {'; '.join(f'{form}: {words}' for form, words in WORDS.items())}",
)
def main(*, source: str, output: Path, storage: Path, form: "Form") -> None:
    """Write what a segmentation run predicted for its test images as PNGs, one for each image and named like it.

    RUN is a run's folder, its name, or the file of its predictions. Files that are there already are never replaced.
    """
    from morphmlp.progress import TerminalProgress
    from morphmlp.reporting.label_maps import export_label_maps, predictions_of

    predictions = predictions_of(source, storage)
    with TerminalProgress() as progress:
        progress.phase("writing", total=0, unit="images")
        count = export_label_maps(predictions, output, form=form, on_progress=lambda done, of: progress.update(done))
    print(f"{output}: {count:,} label maps of {predictions}, {WORDS[form]}")


if __name__ == "__main__":
    run(main)

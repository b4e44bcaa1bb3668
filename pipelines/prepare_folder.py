"""`prepare.py folder`: anyone's own videos or images, from class folders or a CSV to a first experiment.

python pipelines/prepare.py folder DIR --output DIR2 [--split 80/10/10] [--seed 0]
python pipelines/prepare.py folder --train DIR --val DIR [--test DIR] --output DIR2
python pipelines/prepare.py folder DIR --csv FILE --output DIR2
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from morphmlp.cli import A_PATH, COUNT, SETTINGS, run
from morphmlp.errors import ConfigError, MorphMLPError

if TYPE_CHECKING:
    from morphmlp.data.datasets.own_folder import OwnVideos
    from morphmlp.models.presets import Preset
    from morphmlp.preparation.own_data import PreparedOwnData


class Given(TypedDict):
    """The options, by their names."""

    folder: Path | None
    output: Path
    csv: Path | None
    train: Path | None
    val: Path | None
    test: Path | None
    split: str | None
    seed: int
    group_column: str | None
    group_pattern: str | None
    items: Literal["videos", "images"] | None
    classes: Path | None
    name: str | None
    starter: Literal["scratch", "finetune"] | None
    weights: Path | None
    look_at: int


@click.command(context_settings=SETTINGS)
@click.argument("folder", type=A_PATH, required=False, metavar="[DIR]")
@click.option("--output", type=A_PATH, required=True, help="folder for manifests, class list and experiment")
@click.option("--csv", type=A_PATH, help="columns path (from DIR, or the CSV's folder on), label and, if wanted, split")
@click.option("--train", type=A_PATH, help="class folders of the training videos, instead of DIR")
@click.option("--val", type=A_PATH, help="class folders of the validation videos")
@click.option("--test", type=A_PATH, help="class folders of the test videos; by default the test scores validation's")
@click.option("--split", help="shares of train, val and test, or of train and val  [default: 80/10/10]")
@click.option("--seed", type=int, default=0, help="another one divides otherwise")
@click.option("--group-column", help="column of --csv that names the source: its clips stay in one split")
@click.option("--group-pattern", help="the same by file names, as in '(.+)_clip[0-9]+'")
@click.option("--items", type=click.Choice(["videos", "images"]), help="what to take where class folders hold both")
@click.option("--classes", type=A_PATH, help="names in label order; by default alphabetical, new ones at the end")
@click.option("--name", help="of the data set in record and tables; by default that of the output folder")
@click.option(
    "--starter", type=click.Choice(["scratch", "finetune"]), help="kind of the experiment  [default: scratch]"
)
@click.option("--weights", type=A_PATH, help="weights or checkpoint to fine-tune")
@click.option("--look-at", type=COUNT, default=200, help="videos to open for their lengths, rates and sizes")
def folder(**given: Unpack[Given]) -> None:
    """Your own videos or images: DIR, a folder for each class, to manifests and a first experiment."""
    from morphmlp.config.values import name_faults

    by_split = {
        split: path
        for split, path in (("train", given["train"]), ("val", given["val"]), ("test", given["test"]))
        if path is not None
    }
    dataset = given["name"] or given["output"].resolve().name
    if faults := [*_option_faults(given, by_split), *name_faults(dataset, "--name")]:
        raise ConfigError(faults)

    from morphmlp.data.datasets.splits import SplitRule
    from morphmlp.preparation.own_data import OwnDataJob, prepare_own_data
    from morphmlp.progress import TerminalProgress

    rule = SplitRule.parse(given["split"] or "80/10/10", seed=given["seed"])
    stated = None if given["weights"] is None else _network_of(given["weights"])
    found = _find(given, by_split)
    source = {"folder": given["folder"], "csv": given["csv"], **by_split}
    job = OwnDataJob(
        output=given["output"],
        dataset=dataset,
        source={name: str(path.absolute()) for name, path in source.items() if path is not None},
        rule=rule,
        group_column=given["group_column"],
        group_pattern=given["group_pattern"],
        classes=given["classes"],
        starter=given["starter"] or ("scratch" if given["weights"] is None else "finetune"),
        weights=None if given["weights"] is None else str(given["weights"]),
        stated=stated,
        look_at=given["look_at"],
    )
    with TerminalProgress() as progress:
        done = prepare_own_data(found, job, progress=progress)
    _report(found, done)


def _option_faults(given: Given, by_split: Mapping[str, Path]) -> list[str]:
    """Options that contradict each other, or lack another one."""
    table = given["csv"]
    own = given["folder"] is not None or table is not None
    class_folders = [path for path in (given["folder"], *by_split.values()) if path is not None and table is None]
    faults = {
        "DIR: is missing; name a folder of class folders, or --train DIR --val DIR, or --csv FILE": (
            not own and not by_split
        ),
        "--train, --val, --test: name splits that are divided already; DIR, --csv and --split are for others": (
            bool(by_split) and (own or given["split"] is not None)
        ),
        "--train and --val: both are needed where one of the splits is named": (
            bool(by_split) and not {"train", "val"} <= by_split.keys()
        ),
        "--group-column: is a column of --csv, which isn't given": given["group_column"] is not None and table is None,
        "--group-column, --group-pattern: only one of them can name the sources": (
            given["group_column"] is not None and given["group_pattern"] is not None
        ),
        f"--output: {given['output']} lies among the class folders and would be one; name a folder elsewhere": (
            any(given["output"].resolve().is_relative_to(path.resolve()) for path in class_folders)
        ),
        "--weights: are for --starter finetune": given["weights"] is not None and given["starter"] == "scratch",
        "--items: is for class folders; a CSV lists what is meant": given["items"] is not None and table is not None,
    }
    return [fault for fault, is_one in faults.items() if is_one]


def _find(given: Given, by_split: Mapping[str, Path]) -> "OwnVideos":
    from morphmlp.data.datasets.own_folder import joined, read_class_folders, read_own_csv

    table, root = given["csv"], given["folder"]
    if table is not None:
        return read_own_csv(table, root=root or table.absolute().parent, group_column=given["group_column"])
    if root is not None:
        return read_class_folders(root, items=given["items"])
    return joined([read_class_folders(path, items=given["items"], split=split) for split, path in by_split.items()])


def _network_of(path: Path) -> "Preset":
    """The network of a file of weights, as it states itself or as the published one of its shapes."""
    from morphmlp.models.presets import PRESETS
    from morphmlp.training.weights.file import read_weights

    try:
        file = read_weights(path)
    except MorphMLPError as error:
        raise ConfigError([f"--weights: {line}" for line in str(error).splitlines()]) from None
    if file.stated is not None:
        return file.stated
    found = file.description
    for known in PRESETS.values():
        same = (known.model.depths, known.model.embed_dims) == (found.depths, found.embed_dims)
        if same and known.num_frames in (found.possible_frames or (16,)) and known.model.temporal == "mixed":
            return known
    raise ConfigError(
        [
            f"--weights: {path}: doesn't state its network, and it is no published one ({found.in_words}); write its "
            "model into the experiment file by hand"
        ]
    )


def _report(found: "OwnVideos", done: "PreparedOwnData") -> None:
    """Counts that add up, notes, and what was written."""
    rest = ", ".join(f"{count} {kind}" for kind, count in sorted(found.passed_over.items()))
    print(f"found: {len(found.videos)} {found.items}; passed over: {rest or 'nothing'}")
    for split, manifest in done.manifests.items():
        classes = Counter(manifest.table["label"].to_pylist())
        fewest, most = min(classes.values()), max(classes.values())
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        print(
            f"{split}: {len(manifest)} {found.items} of {len(classes)} classes, {each} each, "
            f"fingerprint {manifest.fingerprint()}"
        )
    for note in done.notes:
        print(f"note: {note}")
    for path in done.files:
        print(path)
    print(f"next: python pipelines/train.py --config {shlex.quote(str(done.files[-1]))}")


if __name__ == "__main__":
    run(folder)

"""`evaluate.py --rescore`: scores of stores alone, without a model; and the report of any evaluation.

python pipelines/evaluate.py --rescore scores/a --num-clips 4 --report report
python pipelines/evaluate.py --rescore scores/a scores/b --against scores/c --intersect
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from morphmlp.cli import A_PATH, write_json
from morphmlp.config.values import Fold
from morphmlp.errors import ConfigError

if TYPE_CHECKING:
    from morphmlp.evaluation.rescoring import Rescored, Resegmented

Command = TypeVar("Command", bound=Callable[..., None])


def rescore_options(command: Command) -> Command:
    """The options of `--rescore`, as `RescoreArguments` names them."""
    options = [
        click.option(
            "--rescore",
            "stores",
            type=A_PATH,
            multiple=True,
            metavar="STORE...",
            help="score what stores hold, without a model; several are one ensemble",
        ),
        click.option("--num-clips", type=int, help="so many of a store's clips, evenly spread"),
        click.option("--num-crops", type=int, help="so many of its crops; 1 is the centre one"),
        click.option("--clips", metavar="NUMBERS", help="these clips of a store, from 1, as in 1-4,7"),
        click.option("--crops", metavar="NUMBERS", help="these crops of a store, from 1"),
        click.option(
            "--fold",
            type=click.Choice(get_args(Fold)),
            help="how views become one score, sum-logits by default; of several stores a sum weighs each by its views",
        ),
        click.option("--against", type=A_PATH, metavar="STORE", help="compare with this store, on all of its views"),
        click.option("--intersect", is_flag=True, help="score on the videos that all stores have"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class RescoreArguments:
    """What `--rescore` was asked to do."""

    stores: tuple[Path, ...]
    """Several are one ensemble."""
    clips: str | None = None
    crops: str | None = None
    num_clips: int | None = None
    num_crops: int | None = None
    fold: Fold | None = None
    against: Path | None = None
    """A store to compare with, on all of its views."""
    intersect: bool = False
    """Score on the videos that all stores have."""
    report: Path | None = None
    json: Path | None = None

    @property
    def chosen(self) -> dict[str, object]:
        """Options that choose views or their fold, by their name."""
        of_all = {"clips": self.clips, "crops": self.crops, "num-clips": self.num_clips, "num-crops": self.num_crops}
        return {name: value for name, value in {**of_all, "fold": self.fold}.items() if value is not None}


def rescore(arguments: RescoreArguments) -> None:
    """Score stores, print the scores, and write the report and the JSON that were asked for."""
    from morphmlp.reporting.evaluation.words import compared_in_words, headers_of, lines_of, mark_of

    scored, against = _scored(arguments)
    if (mark := mark_of([*headers_of(scored), *([] if against is None else headers_of(against))])) is not None:
        print(f"note: {mark}")
    for line in lines_of(scored):
        print(line)
    if against is not None:
        for line in lines_of(against):
            print(line)
        print(compared_in_words(scored, against))
    if arguments.report is not None:
        print(f"report: {_report(arguments.report, scored, against)}")
    if arguments.json is not None:
        write_json(arguments.json, _as_json(scored, against))


def report_of(store: Path, folder: Path) -> Path:
    """Write the report of a store with all of its views; returns its page."""
    scored, _ = _scored(RescoreArguments(stores=(store,)))
    return _report(folder, scored, None)


def _scored(
    arguments: RescoreArguments,
) -> "tuple[Rescored | Resegmented, Rescored | Resegmented | None]":
    """The scores of the stores, and those of the one that they are compared with."""
    from morphmlp.evaluation.rescoring import ChosenViews, Stores

    own = list(range(len(arguments.stores)))
    further = [] if arguments.against is None else [arguments.against]
    if arguments.intersect and len(own) + len(further) < 2:
        raise ConfigError(["--intersect: needs a second store; it scores on the videos that all have"])
    stores = Stores([*arguments.stores, *further], intersect=arguments.intersect)
    first = stores.stores[0]
    if first.header.task == "segmentation":
        if arguments.chosen or len(own) > 1:
            asked = ", ".join(f"--{name}" for name in arguments.chosen) or "several stores"
            raise ConfigError(
                [f"{asked}: {first.root} holds segmented {first.header.items}, of which one answer each is stored"]
            )
        return stores.resegmented(), stores.resegmented(1) if further else None
    views = ChosenViews(
        clips=arguments.clips, crops=arguments.crops, num_clips=arguments.num_clips, num_crops=arguments.num_crops
    )
    fold = arguments.fold or "sum-logits"
    scored = stores.rescored(views, fold=fold, places=own)
    return scored, stores.rescored(fold=fold, places=[len(own)]) if further else None


def _report(folder: Path, scored: "Rescored | Resegmented", against: "Rescored | Resegmented | None") -> Path:
    from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
    from morphmlp.reporting.evaluation.report import write_report

    with IsolatedVideos("pyav", Limits(timeout_s=60.0)) as videos:
        return write_report(folder, scored, against=against, videos=videos)


def _as_json(scored: "Rescored | Resegmented", against: "Rescored | Resegmented | None") -> dict[str, object]:
    """Scores, intervals, bounds and coverage; the curve; and the comparison."""
    from morphmlp.evaluation.rescoring import Rescored, Resegmented, compared, compared_images

    found = _plain(scored)
    if isinstance(scored, Rescored) and isinstance(against, Rescored):
        pairs = compared(scored, against)
        found["against"] = _plain(against)
        found["comparison"] = {
            **asdict(pairs),
            "p_value": pairs.p_value,
            "difference": asdict(pairs.difference),
        }
    if isinstance(scored, Resegmented) and isinstance(against, Resegmented):
        found["against"] = _plain(against)
        found["comparison"] = {
            key: {"p_value": p_value, "difference": asdict(estimate)}
            for key, (estimate, p_value) in compared_images(scored, against).items()
        }
    return found


def _plain(scored: "Rescored | Resegmented") -> dict[str, object]:
    from morphmlp.evaluation.rescoring import Rescored
    from morphmlp.reporting.evaluation.words import headers_of

    coverage, headers = scored.coverage, headers_of(scored)
    found: dict[str, object] = {
        "run_names": [header.run_name for header in headers],
        "run_ids": [header.run_id for header in headers],
        "views": scored.views if isinstance(scored, Rescored) else headers[0].views,
        "scores": {name.key: value for name, value, _ in scored.scores()},
        "intervals": {
            name.key: [estimate.low, estimate.high] for name, _, estimate in scored.scores() if estimate is not None
        },
        "num_listed": coverage.num_listed,
        "num_scored": coverage.num_scored,
        "num_quarantined": len(coverage.quarantined),
        "num_left_out": coverage.left_out,
        "fingerprint": coverage.fingerprint,
        "fingerprints": [header.data_fingerprint for header in headers],
        "scored_fingerprint": coverage.scored_fingerprint,
    }
    if isinstance(scored, Rescored):
        found |= {"fold": scored.fold, "bounds": {key: list(ends) for key, ends in scored.bounds.items()}}
        if scored.curve is not None:
            found["curve"] = scored.curve.to_dict("records")
    return found

"""The files that a sweep ends with: its page, its picture, and its best points as experiment files."""

import json
from collections.abc import Mapping
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.errors import SweepError
from morphmlp.files import atomic_write
from morphmlp.tuning.report.effects import effects
from morphmlp.tuning.report.page import page
from morphmlp.tuning.report.panels import picture
from morphmlp.tuning.report.ranking import RankedPoint, Ranking, ranked
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.space.space import label_of

PAGE_FILE, PICTURE_FILE = "sweep_report.html", "sweep_report.png"
MOST_CLOSE = 5
"""The best point and those that can't be distinguished from it."""
MOST_ON_FRONTS = 10


def write_report(
    result: SweepResult,
    folder: Path,
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> tuple[Path, ...]:
    """Write the page and the picture; both say the same.

    `importances` are by dotted field, where the search weighed them; `note` is a line about what was asked.
    """
    ranking = ranked(result)
    found = effects(ranking)
    written = folder / PAGE_FILE, folder / PICTURE_FILE
    atomic_write(written[0], page(result, ranking, found, title=title, importances=importances, note=note))
    atomic_write(written[1], picture(ranking, found, title=title))
    return written


def write_winners(result: SweepResult, configs: Mapping[str, ExperimentConfig], folder: Path) -> tuple[Path, ...]:
    """Write a file for the best point, for those indistinguishable from it, and for those on a front of some cost.

    Files are called `<rank>_<values>.yaml`; comments on top say where the values come from.

    `configs` has each point's experiment by the point's title.

    Raises:
        SweepError: A point's experiment isn't given.
    """
    ranking = ranked(result)
    written = []
    for point in winning(ranking):
        if point.title not in configs:
            raise SweepError(f"winners: {point.title}: its experiment isn't among the {len(configs)} given")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{point.rank:03d}_{label_of(point.point)}.yaml"
        comment = _comment(result, point, len(ranking.points), file)
        atomic_write(file, f"{comment}{config_to_yaml(configs[point.title])}")
        written.append(file)
    return tuple(written)


def winning(ranking: Ranking) -> list[RankedPoint]:
    """The best point, those indistinguishable from it, and those on a front of some cost."""
    close = [point for point in ranking.points if point.group in ("best", "indistinguishable")][:MOST_CLOSE]
    return [*close, *[point for point in ranking.points if point.fronts and point not in close][:MOST_ON_FRONTS]]


def _comment(result: SweepResult, point: RankedPoint, number: int, file: Path) -> str:
    group = f", {point.group}" + (" from the best" if point.group == "indistinguishable" else "")
    lines = [
        f"Sweep {result.run_name}, MLflow run {result.parent_run_id}: rank {point.rank} of {number} points{group}.",
        f"Values: {json.dumps(dict(point.point))}",
        f"Test {result.primary.title} {point.score}; on the front of: {', '.join(point.fronts) or 'nothing'}.",
        f"Runs: {', '.join(trial.run_id or 'none' for trial in point.finished)}",
        f"python pipelines/train.py --config {file}",
    ]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)

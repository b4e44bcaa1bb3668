"""The best points of a sweep as experiment files, ready to be trained."""

import json
from collections.abc import Mapping
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.errors import SweepError
from morphmlp.tuning.report.ranking import RankedPoint, Ranking, ranked
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.space.space import label_of

MOST_CLOSE = 5
"""The best point and those that can't be told apart from it."""
MOST_ON_FRONTS = 10


def write_winners(result: SweepResult, configs: Mapping[str, ExperimentConfig], folder: Path) -> tuple[Path, ...]:
    """Write a file for the best point, for those not separable from it, and for those on a front of some cost.

    Files are called `<rank>_<values>.yaml`; comments on top tell where the values come from.

    Args:
        result: The sweep.
        configs: Each point's experiment by the point's title.
        folder: Made where it's missing; only where there is something to write.

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
        config = configs[point.title]
        comment = _comment(result, point, len(ranking.points), file)
        file.write_text(f"{comment}{config_to_yaml(config)}", encoding="utf-8")
        written.append(file)
    return tuple(written)


def winning(ranking: Ranking) -> list[RankedPoint]:
    """The best point, those not separable from it, and those on a front of some cost."""
    close = [point for point in ranking.points if point.group in ("best", "not separable")][:MOST_CLOSE]
    return [*close, *[point for point in ranking.points if point.fronts and point not in close][:MOST_ON_FRONTS]]


def _comment(result: SweepResult, point: RankedPoint, number: int, file: Path) -> str:
    group = f", {point.group}" + (" from the best" if point.group == "not separable" else "")
    lines = [
        f"Sweep {result.run_name}, MLflow run {result.parent_run_id}: rank {point.rank} of {number} points{group}.",
        f"Values: {json.dumps(dict(point.point))}",
        f"Test top-1 {point.score}; on the front of: {', '.join(point.fronts) or 'nothing'}.",
        f"Runs: {', '.join(trial.run_id or 'none' for trial in point.finished)}",
        f"python pipelines/train.py --config {file}",
    ]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)

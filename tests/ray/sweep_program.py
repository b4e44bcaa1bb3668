"""Runs a sweep over given points in a process of its own, so that its Ray session is its own too.

Arguments: a folder with `base.yaml`, `sweep.yaml` and `points.json`, a list of values. Writes `result.json`.
"""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import load_sweep
from morphmlp.tuning.run.ray_sweep import run_sweep
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, Space


class Screen:
    """Shows nothing."""

    def phase(self, title, *, total, unit):
        pass

    def update(self, done, note=""):
        pass

    def line(self, text):
        print(text, file=sys.stderr)


def main(root):
    base, sweep = read_yaml(root / "base.yaml"), load_sweep(root / "sweep.yaml")
    planner = Planner(sweep, base)
    points = [planner.point(values) for values in json.loads((root / "points.json").read_text())]
    space = Space(
        points=tuple(point for point in points if not isinstance(point, ImpossiblePoint)),
        impossible=tuple(point for point in points if isinstance(point, ImpossiblePoint)),
    )
    folder = SweepFolder(root=root / "runs" / sweep.name)
    result = run_sweep(sweep, base, space, folder, progress=Screen())
    (root / "result.json").write_bytes(TypeAdapter(SweepResult).dump_json(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

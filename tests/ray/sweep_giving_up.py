"""`pipelines/sweep.py`, in which the second trial is given up after its first epoch, whatever it scores."""

import runpy
import sys
from pathlib import Path

from morphmlp.tuning.run import ray_sweep
from morphmlp.tuning.search.scheduler import GiveUp, SweepScheduler

GIVEN_UP, REASON = 2, "given up by the test"


class GivesUpTheSecond(SweepScheduler):
    """Scores of tiny networks are noise; this one's opinion isn't."""

    def on_score(self, number, epoch, score):
        return GiveUp(reason=REASON) if number == GIVEN_UP else None


if __name__ == "__main__":
    ray_sweep.SweepScheduler = GivesUpTheSecond
    pipeline = Path(__file__).parents[2] / "pipelines" / "sweep.py"
    sys.argv[0] = str(pipeline)
    runpy.run_path(str(pipeline), run_name="__main__")

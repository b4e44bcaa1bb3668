"""`pipelines/sweep.py`, in which the scheduler gives up the second trial after its first epoch, whatever it scores."""

import runpy
import sys
from pathlib import Path

from morphmlp.tuning.run import ray_sweep
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner

GIVEN_UP, REASON = 2, "given up by the test"


class GivesUpTheSecond(AshaPruner):
    """Scores of tiny networks are noise; this one's opinion isn't."""

    def take(self, number, epoch, top1):
        if number == GIVEN_UP:
            self.stopped[number] = REASON
        return super().take(number, epoch, top1)


if __name__ == "__main__":
    ray_sweep.AshaPruner = GivesUpTheSecond
    pipeline = Path(__file__).parents[2] / "pipelines" / "sweep.py"
    sys.argv[0] = str(pipeline)
    runpy.run_path(str(pipeline), run_name="__main__")

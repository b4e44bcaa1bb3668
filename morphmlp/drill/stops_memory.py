"""The stops of a machine whose memory runs out: any of a training's processes may be the one that is killed."""

import random
import signal

from morphmlp.drill.demo_run import DemoRun
from morphmlp.drill.outcome import Remains
from morphmlp.drill.processes import kill, processes_named
from morphmlp.drill.stops import Stop, continued


class HelpersKilled(Stop):
    """Actors of Ray Data's that a training can do without die."""

    name = "helpers-killed"
    words = "helpers of Ray Data are killed, one after the other"
    latest_step = 0.4
    processes: tuple[str, ...] = ("_StatsActor", "_AutoscalingCoordinatorActor")
    pause = 2
    """Steps between two of them."""

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill each."""
        for name in self.processes:
            kill_soon(run, name, rng)
            run.wait_for_step(run.last_step() + self.pause)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The first workers trained to the end."""
        continued(remains)
        return f"{', '.join(self.processes)} killed"


class DecodingKilled(HelpersKilled):
    """Decode tasks' processes and their decoders die."""

    name = "decoding-killed"
    words = "a decode task's process and a decoder's are killed"
    processes = ("ray::MapBatches", "morphmlp.data.decoding.isolation.child")


def kill_soon(run: DemoRun, name: str, rng: random.Random) -> None:
    """Kill a process of this name as soon as there is one.

    Raises:
        DrillError: The run ends before.
    """
    found: list[int] = []

    def there() -> bool:
        found[:] = processes_named(run.folder, name)
        return bool(found)

    run.wait_until(there, what=f"have a process {name}")
    kill(rng.choice(found), signal.SIGKILL)

"""The stops that strike what a run leans on: a cluster's nodes, the MLflow server, object storage."""

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from morphmlp.drill import DrillError
from morphmlp.drill.demo_run import DemoRun, Surroundings
from morphmlp.drill.outcome import Comparison, Remains
from morphmlp.drill.processes import training_workers
from morphmlp.drill.services import Nodes, Server, SlowLink, local_nodes, mlflow_server, object_store
from morphmlp.drill.stops import Stop, said, started_again

SERVER_AWAY_S = 10.0
"""How long the MLflow server is away, at least; also so many steps that several reports meet no server."""
SERVER_AWAY_STEPS = 4
SLOW_BYTES_PER_S = 200_000
"""Pace of object storage: a checkpoint of the demo, 11 MB, takes a minute."""
WORKERS_LINGER_S = 60.0
"""How long workers may outlive the command."""
PASSED_OVER = "passed over"


class OnNodes(Stop):
    """Strikes a cluster whose head decodes, with a node for each of two training workers."""

    workers = "2"

    def __init__(self) -> None:
        """Start nothing yet."""
        self._nodes: Nodes | None = None

    @contextlib.contextmanager
    def surroundings(self, folder: Path, temporary: Path) -> Iterator[Surroundings]:
        """A cluster of three nodes."""
        with local_nodes(folder, temporary) as nodes:
            nodes.add("first")
            nodes.add("second")
            self._nodes = nodes
            yield Surroundings(
                environment={"RAY_ADDRESS": nodes.address, "RAY_TMPDIR": str(temporary)},
                overrides={
                    "cluster.num_workers": self.workers,
                    "cluster.resize_check_s": "2",
                    "ingest.node_labels": "{node-role: ingest}",
                },
            )

    @property
    def nodes(self) -> Nodes:
        """The cluster's."""
        if self._nodes is None:
            raise DrillError("the cluster hasn't been started")
        return self._nodes


class NodeLost(OnNodes):
    """One of two nodes goes without notice, another one comes."""

    name = "node-lost"
    words = "one of two nodes is lost, later another one joins"

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Remove either; the new one joins when the workers are seen to be gone."""
        self.nodes.remove(rng.choice(["first", "second"]))
        self.nodes.add("third")

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The workers started twice in one command."""
        return started_again(remains)


class Elastic(OnNodes):
    """The run shrinks and grows again."""

    name = "elastic"
    words = "one of two nodes is lost, the run continues with one worker, a node joins, it grows to two"
    workers = "{min: 1, max: 2}"
    comparison: Comparison = "within 1e-4"
    latest_step = 0.3

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Remove one node; a new one joins as soon as the smaller group trains."""
        self.nodes.remove(rng.choice(["first", "second"]))
        run.wait_until(lambda: _sizes(run)[-1:] == [1], what="continue with one worker")
        self.nodes.add("third")
        run.wait_until(lambda: _sizes(run)[-1:] == [2], what="grow to two workers again")

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The ledger shows how many workers took part."""
        sizes = _sizes(run)
        if 1 not in sizes or sizes[-1] != 2:
            raise DrillError(f"the run didn't shrink and grow; its groups had {sizes} workers")
        return "workers: " + " -> ".join(map(str, sizes))


class MlflowDown(Stop):
    """The record can't be written for a while."""

    name = "mlflow-down"
    words = "the MLflow server is killed and comes back later"

    def __init__(self) -> None:
        """Start nothing yet."""
        self._server: Server | None = None
        self._words = ""

    @contextlib.contextmanager
    def surroundings(self, folder: Path, temporary: Path) -> Iterator[Surroundings]:
        """A server of its own, whose database is read afterwards."""
        del temporary
        with mlflow_server(folder) as server:
            self._server = server
            yield Surroundings(
                environment={"MLFLOW_TRACKING_URI": server.address},
                tracking_uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}",
            )

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill the server, see that training continues, start it again on the same port."""
        if self._server is None:
            raise DrillError("the MLflow server hasn't been started")
        began, at_step = time.monotonic(), run.last_step()
        self._server.down()
        run.wait_until(
            lambda: run.last_step() >= at_step + SERVER_AWAY_STEPS and time.monotonic() - began > SERVER_AWAY_S,
            what=f"take {SERVER_AWAY_STEPS} steps without the MLflow server",
        )
        steps = run.last_step() - at_step
        self._server.up()
        self._words = f"{steps} steps without a server, {time.monotonic() - began:.0f} s"

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """Every step's loss is in the record once."""
        expected = set(range(1, run.demo.steps + 1))
        if missing := sorted(expected - remains.losses.keys()):
            raise DrillError(f"the record lacks the loss of steps {missing}")
        return f"{self._words}; every step is recorded once"


class SlowStorage(Stop):
    """Object storage becomes so slow that writing a checkpoint takes longer than the steps to the next one."""

    name = "slow-storage"
    words = "checkpoints go to S3 (a stand-in), whose link is slow for a while"

    def __init__(self) -> None:
        """Start nothing yet."""
        self._link: SlowLink | None = None

    @contextlib.contextmanager
    def surroundings(self, folder: Path, temporary: Path) -> Iterator[Surroundings]:
        """An object store, and a link to it."""
        del temporary
        with object_store(folder) as server:
            link = SlowLink(int(server.address.rpartition(":")[2]))
            with contextlib.closing(link):
                self._link = link
                options = f"scheme=http&endpoint_override=127.0.0.1:{link.port}&region=us-east-1"
                yield Surroundings(overrides={"checkpoint.storage": f"s3://key:secret@drill/runs?{options}"})

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Slow the link down until the run has passed a checkpoint over."""
        if self._link is None:
            raise DrillError("the object store hasn't been started")
        self._link.bytes_per_s = SLOW_BYTES_PER_S
        run.wait_until(lambda: any(PASSED_OVER in line for line in run.said()), what="pass a checkpoint over")
        self._while_slow(run)
        self._link.bytes_per_s = None

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The run said that checkpoints were passed over, and continued with the same workers."""
        if remains.attempts != 1:
            raise DrillError(f"the run should have continued; its workers started {remains.attempts} times")
        return said(run, PASSED_OVER)

    def _while_slow(self, run: DemoRun) -> None:
        """More harm while a checkpoint is on its way; here none."""


class UploadKilled(SlowStorage):
    """The command dies in the middle of an upload."""

    name = "upload-killed"
    words = "the command is killed while a checkpoint is on its way to S3 (a stand-in)"
    ends_run = True

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The workers started twice."""
        return started_again(remains)

    def _while_slow(self, run: DemoRun) -> None:
        run.signal(signal.SIGKILL)
        run.wait_for_end()
        deadline = time.monotonic() + WORKERS_LINGER_S
        while training_workers(run.folder, run.files.ledger) and time.monotonic() < deadline:
            time.sleep(0.1)


def _sizes(run: DemoRun) -> list[int]:
    """Workers of each group that has begun a step."""
    return [attempt.num_workers for attempt in run.history().attempts if attempt.steps]

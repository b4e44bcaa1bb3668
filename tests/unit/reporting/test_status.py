"""Runs as `status.py` shows them, read from a real store that MLflow's own client has filled."""

import contextlib
import fcntl
import io
import json
import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import pytest
from empty_store import empty_store
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from rich.console import Console

from morphmlp.cluster.state import ClusterState, JobState, NodeState
from morphmlp.errors import ConfigError, StoreAwayError
from morphmlp.record import MetricPoint, RunSummary
from morphmlp.reporting.status.bill import Prices
from morphmlp.reporting.status.reading import Found, StatusReader
from morphmlp.reporting.status.run_status import Seen, run_status
from morphmlp.reporting.status.view import cluster_lines, draw
from morphmlp.reporting.status.words import rate, seconds, span, sparkline
from morphmlp.sizing.nodes import Nodes, NodeType
from morphmlp.tracking import recent_runs

PARAMS = {
    "task": "classification",
    "train.epochs": "10",
    "train.steps": "null",
    "train.max_steps": "null",
    "train.global_batch_size": "8",
    "augment.repeats": "2",
    "execution.report_every_steps": "5",
    "execution.validate_every_epochs": "1",
    "execution.validate_every_steps": "null",
    "cluster.num_workers.min": "1",
    "cluster.num_workers.max": "4",
    "cluster.cpus_per_worker": "3",
}
TAGS = {
    "morphmlp.experiment": "mine",
    "morphmlp.data.train": "165:abc",  # 20 steps an epoch, 5 videos left out
    "morphmlp.trained_on": "4 x H100",
}
STEP = {"step_s": 0.9, "data_wait_s": 0.25, "compute_s": 0.5, "all_reduce_s": 0.15, "other_s": 0.1}
"""Seconds of a step and of its parts."""


@dataclass(frozen=True)
class Recorded:
    """What a run has recorded, a minute or an hour ago."""

    minutes: float = 60.0
    """Since it began."""
    reports: Sequence[tuple[int, float, float]] = ()
    """Step, seconds ago, clips a second."""
    points: Sequence[tuple[str, float, float, int]] = ()
    """Others: metric, value, seconds ago, step."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    begun: float | None = None
    """Seconds since its last command began."""
    event: tuple[int, float, str] | None = None
    """How many there were; the last one's seconds ago and text."""
    earlier_event: float | None = None
    """Seconds ago of the one before."""
    status: str = "RUNNING"

    def metrics(self, now):
        speeds = [
            (f"train/{key}", value, ago, step)
            for step, ago, speed in self.reports
            for key, value in {**STEP, "clips_per_s": speed, "loss": 1 / step}.items()
        ]
        return [
            MetricPoint(key, value, step, now - int(ago * 1000)) for key, value, ago, step in (*speeds, *self.points)
        ]

    def all_tags(self):
        events = (
            {}
            if self.event is None
            else {"morphmlp.events": f"{self.event[0]}; last {utc(self.event[1])}: {self.event[2]}"}
        )
        if self.earlier_event is not None:
            events["morphmlp.earlier_events"] = f"{utc(self.earlier_event)} x"
        begun = {} if self.begun is None else {"morphmlp.begun": utc(self.begun)}
        return {**TAGS, **self.tags, **events, **begun}

    def judged(self, **options):
        """Without a store."""
        now = int(time.time() * 1000)
        metrics = sorted(self.metrics(now), key=lambda point: point.step)
        latest = {point.key: point for point in metrics}
        run = RunSummary(
            **{"run_id": "1", "run_name": "run", "experiment": "k400", "status": self.status, "end_ms": None},
            **{
                "start_ms": now - int(self.minutes * 60_000),
                "tags": self.all_tags(),
                "params": {**PARAMS, **self.params},
            },
            **{"latest": latest, "metrics": {key: point.value for key, point in latest.items()}},
        )
        speeds, starts = ([p for p in metrics if p.key == f"train/{key}"] for key in ("clips_per_s", "workers"))
        return run_status(run, Seen(speeds=speeds, starts=starts), now_ms=now, **options)


class Store:
    def __init__(self, uri):
        self.uri, self.client = uri, MlflowClient(uri)
        self.experiment = self.client.create_experiment("k400")
        self.count = 0

    def run(self, recorded):
        """The name of a run that MLflow's client has written."""
        self.count += 1
        now = int(time.time() * 1000)
        run = self.client.create_run(
            self.experiment, run_name=f"run-{self.count}", start_time=now - int(recorded.minutes * 60_000)
        )
        self.client.log_batch(
            run.info.run_id,
            metrics=[Metric(point.key, point.value, point.timestamp_ms, point.step) for point in recorded.metrics(now)],
            params=[Param(*entry) for entry in {**PARAMS, **recorded.params}.items()],
            tags=[RunTag(*entry) for entry in recorded.all_tags().items()],
        )
        if recorded.status != "RUNNING":
            self.client.set_terminated(run.info.run_id, recorded.status)
        return run.info.run_name

    def look(self, name, **options):
        [found] = StatusReader(self.uri, name=name, **options).look().runs
        json.dumps(asdict(found), allow_nan=False)
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('status') / 'mlflow.db'}"
    empty_store(uri)
    return Store(uri)


def steady(last, *, ago, speed=16.0):
    """Reports every 5 steps, 5 s apart, the last of them after so many steps and seconds ago."""
    return [(step, ago + last - step, speed) for step in range(5, last + 1, 5)]


def utc(seconds_ago):
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - seconds_ago))


NEXT_HAS_SCORES = steady(15, ago=1000), steady(15, ago=2400), steady(55, ago=1000)
"""The next report comes after a validation; none was timed, or one that took 5 s with its steps."""


@pytest.mark.parametrize(
    ("state", "remark", "reports", "more"),
    [
        ("starting", None, (), {"minutes": 2}),
        ("stalled", "no report since its start 7 min ago", (), {"minutes": 7}),
        ("training", None, steady(50, ago=20), {}),
        ("training", None, steady(50, ago=100), {}),
        ("stalled", "no report for 12 min; last step took 900 ms", steady(50, ago=720), {}),
        (
            *("stalled", "no report for 12 min", steady(50, ago=720)),
            {"points": [("system/gpu-1/cpu_utilization_percentage", 3.0, 5, 715)]},
        ),
        ("training", None, steady(55, ago=3), {}),
        ("validating", None, NEXT_HAS_SCORES[0], {}),
        ("stalled", "no report for 40 min; last step took 900 ms; a validation is due", NEXT_HAS_SCORES[1], {}),
        ("stalled", "; a validation is due", NEXT_HAS_SCORES[2], {}),
        ("testing", None, steady(200, ago=5000), {}),
        ("testing", None, steady(50, ago=5000), {"points": [("run/worker_hours", 1.0, 4000, 0)]}),
        # continued by another command
        ("starting", None, steady(50, ago=3000), {"begun": 60}),
        ("stalled", "no report since its start 9 min ago", steady(50, ago=3000), {"begun": 540}),
        ("interrupted", "3 min ago: worker 1 failed", steady(50, ago=250), {"event": (1, 180, "worker 1 failed")}),
        ("stalled", "no report for 15 min", steady(50, ago=900), {"event": (1, 850, "x")}),
        # the second event since the last report, which doesn't begin the wait anew
        (
            *("stalled", "2 events, the last 3 min ago: nothing from the workers", steady(50, ago=900)),
            {"event": (2, 200, "nothing from the workers"), "earlier_event": 600},
        ),
        ("training", "3 events, the last 5 min ago: a loss", steady(50, ago=9), {"event": (3, 300, "a loss")}),
        ("running", None, (), {"tags": {"morphmlp.kind": "sweep"}}),
        ("finished", None, steady(200, ago=0), {"status": "FINISHED"}),
        ("failed", "no space left", (), {"status": "FAILED", "tags": {"morphmlp.error": "no space left"}}),
        ("stopped", "by Ctrl-C", (), {"status": "KILLED", "tags": {"morphmlp.error": "stopped by Ctrl-C"}}),
        (
            *("training", "1 of 4 workers for 10 min, 3 before", steady(50, ago=9)),
            {"points": [("train/workers", 3, 3000, 0), ("train/workers", 1, 600, 20)]},
        ),
        ("training", "its last report is from 5 min ahead: clocks differ", steady(50, ago=-300), {}),
    ],
)
def test_states_and_what_is_said_of_them(store, state, remark, reports, more):
    found = store.look(store.run(Recorded(reports=reports, **more)))
    assert found.state == state
    assert found.remarks == () if remark is None else remark in " | ".join(found.remarks)


def test_a_run_is_as_far_and_as_fast_as_its_points_say(store):
    # 4 clips a second, then 8; a report is 5 steps of 16 clips: 20 s, then 10 s
    slow = [(5 * k, 41 + 20 * (36 - k), 4.0) for k in range(1, 36)]
    fast = [(5 * k, 10 * (40 - k) - 9, 8.0) for k in range(36, 40)]
    found = store.look(
        store.run(
            Recorded(minutes=20, reports=slow + fast, points=[("val/top1", 61.25, 6, 9), ("train/workers", 4, 900, 0)])
        )
    )
    assert (found.step, found.total_steps, found.epoch, found.epochs) == (195, 200, 10, 10)
    assert found.wait_share == pytest.approx(0.25)
    assert (found.clips_per_s, found.step_s, found.trend) == (8.0, 0.9, pytest.approx(1.0))
    assert found.left_s == pytest.approx(5 * 2.0)  # by its last epoch
    assert (found.workers, found.workers_asked, found.score) == (4, (1, 4), "top-1 61.2 (val)")
    assert len(found.speeds) == len(found.losses) == 39


@pytest.mark.parametrize(
    ("params", "total", "epochs"),
    [
        ({}, 200, 10),
        ({"train.max_steps": "30"}, 30, 2),
        ({"train.epochs": "null", "train.steps": "50"}, 50, 3),
        ({"train.global_batch_size": "1000"}, 10, 10),  # an epoch is one step
        ({"train.epochs": "ten"}, None, None),
        ({"train.epochs": "0"}, None, None),
        ({"train.epochs": "[1"}, None, None),
        ({"train.global_batch_size": "-8"}, None, None),
        ({"execution.report_every_steps": "x", "augment.repeats": "true"}, 200, 10),
    ],
)
def test_the_length_comes_from_parameters(params, total, epochs):
    found = Recorded(params=params, reports=steady(5, ago=5)).judged()
    assert (found.total_steps, found.epochs) == (total, epochs)
    assert found.step == 5


NODES = Nodes(
    currency="EUR",
    train=NodeType(cpus=16, gpus=2, memory_gib=1, network_gbit=1, hour_price=5),
    ingest=NodeType(cpus=8, memory_gib=1, network_gbit=1, hour_price=2),
    head_hour_price=1,
)
OWN = {"cluster.gpu_hour_price": "3", "cluster.cpu_hour_price": "0.5"}
INGEST = {"ingest.node_labels.node-role": "ingest"}


@pytest.mark.parametrize(
    ("params", "tags", "prices", "hour"),
    [
        ({}, {}, None, None),
        (OWN, {}, None, 4 * 3 + 12 * 0.5),
        (OWN, {"morphmlp.ingest_cpus": "10"}, None, 4 * 3 + 22 * 0.5),
        (OWN, {"morphmlp.trained_on": "4 CPU workers"}, None, 12 * 0.5),
        ({"cluster.gpu_hour_price": "3"}, {"morphmlp.trained_on": "4 CPU workers"}, None, None),
        ({"cluster.gpu_hour_price": "-3"}, {}, None, None),
        (OWN, {"morphmlp.ingest_cpus": "10"}, NODES, 2 * 5 + 1),
        (INGEST, {"morphmlp.ingest_cpus": "10"}, NODES, 2 * 5 + 2 * 2 + 1),
        (INGEST, {"morphmlp.ingest_cpus": "10", "morphmlp.trained_on": "4 CPU workers"}, NODES, 5 + 2 * 2 + 1),
    ],
)
def test_cost_is_time_at_work_times_price(params, tags, prices, hour):
    # began 100 s ago; 40 s to the first report, 20 s between reports; the last 20 s ago
    reports = [(5, 60, 4.0), (10, 40, 4.0), (15, 20, 4.0)]
    run = Recorded(minutes=100 / 60, params=params, tags=tags, reports=reports, points=[("train/workers", 4, 95, 0)])
    found = run.judged(prices=prices and Prices(hour=prices.hour, currency=prices.currency))
    if hour is None:
        assert (found.cost, found.cost_to_end) == (None, None)
        return
    assert found.cost == pytest.approx(100 / 3600 * hour, rel=0.03)  # the test takes time, too
    assert found.cost_to_end == pytest.approx((100 + 185 * 4) / 3600 * hour, rel=0.03)


def test_a_night_in_which_no_command_was_at_work_costs_nothing(store):
    night = 12 * 3600
    reports = [(5, night + 40, 4.0), (10, night + 20, 4.0), (15, 20, 4.0)]
    starts = [("train/workers", 4, night + 60, 0), ("train/workers", 2, 30, 10)]
    name = store.run(Recorded(minutes=(night + 60) / 60, params=OWN, reports=reports, points=starts))
    both = (40 * (4 * 3 + 12 * 0.5) + 40 * (2 * 3 + 6 * 0.5)) / 3600
    assert store.look(name).cost == pytest.approx(both, rel=0.03)


@pytest.mark.parametrize(("hours", "cost"), [([("run/worker_hours", 8.0, 5, 0)], 2 * 18.0), ([], None)])
def test_of_runs_that_ended_the_hours_are_known_without_their_points(store, hours, cost):
    name = store.run(Recorded(params=OWN, status="FINISHED", points=[("train/workers", 4, 95, 0), *hours]))
    [found] = [run for run in StatusReader(store.uri, ended=None).look().runs if run.name == name]
    assert found.cost == cost


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308])
def test_values_that_make_no_sense_are_left_out(store, value):
    keys = ("clips_per_s", *STEP, "loss", "workers")
    odd = [(f"train/{key}", value, ago, step) for step, ago in ((12, 30), (14, 25), (15, 20)) for key in keys]
    found = store.look(store.run(Recorded(params=OWN, reports=steady(10, ago=25), points=odd)))
    drawn(StatusReader(store.uri, name=found.name).look(), width=120)
    assert found.state in ("training", "validating")
    assert found.left_s is None or found.left_s >= 0


@pytest.mark.parametrize(
    "tags",
    [{"morphmlp.events": text} for text in ("", "many", "7; last Tuesday: x", "7; last 2026-01-01T00:00:00: x")]
    + [{"morphmlp.data.train": text} for text in ("", "many", "0:abc", "-4:abc")]
    + [{"morphmlp.begun": "Tuesday"}, {"morphmlp.begun": "9999-01-01T00:00:00+00:00"}, {"morphmlp.ingest_cpus": "x"}],
)
def test_tags_that_make_no_sense_are_left_out(tags):
    found = Recorded(params=OWN, tags=tags, reports=steady(10, ago=5)).judged()
    assert "run" in drawn(
        Found(at_ms=0, store="", runs=(found,), in_detail=True, cluster=None, no_cluster=""), width=120
    )


@pytest.mark.parametrize(
    ("held", "ago", "state"), [(True, 300, "stalled"), (False, 300, "driver gone"), (False, 5, "training")]
)
def test_a_lock_that_nobody_holds_tells_that_the_command_is_gone(store, tmp_path, held, ago, state):
    name = store.run(Recorded(params={"cluster.storage": str(tmp_path)}, reports=steady(50, ago=ago)))
    (tmp_path / name).mkdir()
    with (tmp_path / name / "lock").open("w") as lock:
        lock.write("process 7 on there")
        lock.flush()
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        found = store.look(name)
    assert found.state == state
    assert ("process 7 on there no longer holds" in str(found.remarks)) == (state == "driver gone")


def test_reports_that_wait_for_mlflow_are_no_stall(store, tmp_path):
    name = store.run(Recorded(params={"cluster.storage": str(tmp_path)}, reports=steady(50, ago=600)))
    (tmp_path / name).mkdir()
    (tmp_path / name / "progress.jsonl").write_text("{}\n")
    found = store.look(name)
    assert found.state == "training"
    assert "MLflow lacks the reports of the last 10 min" in str(found.remarks)


NODE = NodeState(node_id="n1", name="head (10.0.0.1)", alive=True, gpus=0, cpus=4, ended_ms=None, why="")
LOST = NodeState(node_id="n2", name="t2 (10.0.0.2)", alive=False, gpus=2, cpus=8, ended_ms=1, why="missed checks")


@pytest.mark.parametrize(
    ("ray_job", "gone"),
    [
        ("01 n1", None),
        ("02 n1", "Ray job 02 has ended"),
        ("01 n2", "its node t2 (10.0.0.2) left the cluster"),
        ("02 n9", None),  # of another cluster
        ("09 n1", None),
        ("", None),
    ],
)
def test_a_cluster_knows_whose_command_is_gone(ray_job, gone):
    jobs = {"01": JobState(alive=True, ended_ms=None), "02": JobState(alive=False, ended_ms=5)}
    assert ClusterState(address="a", nodes=[NODE, LOST], jobs=jobs).gone(ray_job) == gone


def test_a_machine_that_is_back_is_not_lost():
    back = replace(NODE, node_id="n4", name="t1 (10.0.0.1)")
    before = replace(back, node_id="n3", alive=False, ended_ms=7)
    earlier = replace(LOST, node_id="n0", ended_ms=0)
    cluster = ClusterState(address="a", nodes=[NODE, back, LOST, before, earlier], jobs={})
    assert cluster.lost == [LOST]
    first, *others = map(str, cluster_lines(cluster, now_ms=60_001))
    assert first == "cluster a: 2 nodes alive (8 CPUs, 0 GPUs)"
    assert others == ["node t2 (10.0.0.2) is gone for 60 s: missed checks"]


def drawn(found, *, width):
    screen = Console(file=io.StringIO(), width=width)
    screen.print(draw(found, width=width))
    return screen.file.getvalue()


def test_all_is_said_in_any_width(store):
    name = store.run(Recorded(params=OWN, reports=steady(50, ago=720), points=[("train/workers", 4, 5000, 0)]))
    table, detail = StatusReader(store.uri).look(), StatusReader(store.uri, name=name).look()
    for width in (40, 80, 140):
        text = drawn(table, width=width)
        assert max(map(len, text.splitlines())) <= width
        words = " ".join(text.split())
        for part in (name, "50/200 25%", "no report for 12 min; last step took 900 ms", "no cluster was asked"):
            assert part in words
        assert "no report for 12 min; last step took 900 ms" in " ".join(drawn(detail, width=width).split())


def test_last_events_are_in_the_detail(store):
    earlier = "2026-01-01T10:00:00+00:00 worker 0 failed: x", "2026-01-01T09:00:00+00:00 restarted: y"
    tags = {"morphmlp.earlier_events": "\n".join(earlier)}
    name = store.run(Recorded(tags=tags, event=(3, 5, "a node is gone"), reports=steady(10, ago=1)))
    lines = drawn(StatusReader(store.uri, name=name).look(), width=140).splitlines()
    assert [line.strip() for line in lines if "UTC" in line][1:] == [
        "2026-01-01 10:00:00 UTC  worker 0 failed: x",
        "2026-01-01 09:00:00 UTC  restarted: y",
    ]


def test_a_store_that_is_not_there_has_no_runs_and_stays_so(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    assert "no run is running in sqlite:" in drawn(StatusReader(uri).look(), width=200)
    with pytest.raises(ConfigError, match="no run of that name"):
        StatusReader(uri, name="x").look()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stranger():
    """The address of a server that takes connections and speaks neither HTTP nor any database's language."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def answer():
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    connection.sendall(b"?")
                    connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield "{}:{}".format(*server.getsockname())
        ended.set()
        thread.join()


@pytest.mark.parametrize("scheme", ["http://", "postgresql+psycopg://me:secret@"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_store_that_does_not_answer_is_one_line_without_a_password(scheme, listens, stranger):
    address = stranger if listens else "127.0.0.1:9"
    with pytest.raises(StoreAwayError) as raised:
        StatusReader(f"{scheme}{address}/mlflow").look()
    assert len(str(raised.value).splitlines()) == 1
    assert "secret" not in str(raised.value)
    assert address in str(raised.value)


def test_as_many_ended_runs_as_were_asked_for(store):
    ages = (0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
    names = [store.run(Recorded(minutes=age, status="RUNNING" if k % 2 else "FINISHED")) for k, age in enumerate(ages)]

    def found(**asked):
        return [names.index(run.run_name) for run in recent_runs(store.uri, **asked) if run.run_name in names]

    assert found() == [5, 3, 1]
    assert found(ended=2) == [5, 4, 3, 2, 1]
    assert found(ended=None) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("length_s", "words"),
    [
        (0, "0 s"),
        (99, "99 s"),
        (120, "2 min"),
        (5940, "99 min"),
        (7200, "2 h"),
        (12000, "3 h 20 min"),
        (4e5, "4 d 15 h"),
    ],
)
def test_spans(length_s, words):
    assert span(length_s) == words


def test_numbers_and_curves():
    assert [seconds(value) for value in (0.084, 3.21, 240.0)] == ["84 ms", "3.21 s", "4 min"]
    assert [rate(value) for value in (0.5, 12.34, 1234.5)] == ["0.5", "12.3", "1,234"]
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([5, 5], 10) == "▁▁"
    assert sparkline([], 10) == ""

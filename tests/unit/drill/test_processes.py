"""A drill finds and ends its own processes, and no others; and it sees how far a run has come."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphmlp.drill import DrillError
from morphmlp.drill.demo_run import Demo, DemoRun, Surroundings, trial_folders
from morphmlp.drill.processes import end_marked, marked_environment, marked_processes, train_controller, training_worker

WAITS = "import sys, time; print('up', flush=True); time.sleep(60)"


def start(code, environment):
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


@pytest.fixture
def two_trials(tmp_path):
    """A waiting process of each of two trials."""
    started = {name: start(WAITS, marked_environment(tmp_path / name, {})) for name in ("one", "one-more")}
    yield tmp_path, started
    for process in started.values():
        process.kill()
        process.communicate()


def test_only_a_trials_own_processes_are_ended(two_trials):
    folder, started = two_trials
    own, other = started["one"], started["one-more"]
    assert marked_processes(folder / "one") == [own.pid]
    end_marked(folder / "one")
    assert own.wait(10) == -signal.SIGKILL
    assert other.poll() is None
    assert marked_processes(folder / "one-more") == [other.pid]


def test_a_worker_is_found_by_its_open_ledger(tmp_path):
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    code = f"file = open({str(ledger / '1-0a1b2c3d-worker1-of-2.jsonl')!r}, 'a'); {WAITS}"
    process = start(code, marked_environment(tmp_path, {}))
    try:
        assert training_worker(tmp_path, ledger, 1) == process.pid
        with pytest.raises(DrillError, match="no training worker 0"):
            training_worker(tmp_path, ledger, 0)
    finally:
        process.kill()
        process.communicate()


def test_the_controller_is_found_by_its_name(tmp_path):
    with pytest.raises(DrillError, match="no controller is running"):
        train_controller(tmp_path)
    process = subprocess.Popen(
        ["ray::TrainController.run", "-c", WAITS],
        executable=sys.executable,
        env=marked_environment(tmp_path, {}),
        stdout=subprocess.PIPE,
    )
    try:
        process.stdout.readline()
        assert train_controller(tmp_path) == process.pid
    finally:
        process.kill()
        process.communicate()


PIPELINE = """
import json, sys, time
from pathlib import Path

ledger = Path("runs/drill/ledger")
ledger.mkdir(parents=True)
with (ledger / "1-0a1b2c3d-worker0-of-1.jsonl").open("w") as file:
    steps = [{"step": step, "epoch": 0, "videos": [], "broken": []} for step in range(3)]
    for line in [{"first_step": 0, "worker": 0, "num_workers": 1}, *steps]:
        print(json.dumps(line), file=file, flush=True)
        time.sleep(0.1)
print("the last word", file=sys.stderr)
sys.exit("--train.max-steps=5" in sys.argv or 3)
"""


@pytest.fixture
def run(tmp_path):
    """A run of a pipeline that begins three steps and fails."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    demo = Demo(script=tmp_path / "pipeline.py", config=Path("demo.yaml"), videos=tmp_path, steps=5)
    with trial_folders(tmp_path / "trial") as temporary:
        yield DemoRun(demo, tmp_path / "trial", temporary, Surroundings())
    assert not temporary.exists()


def test_a_step_is_waited_for_and_a_failure_told(run):
    run.start()
    run.wait_for_step(1)
    assert run.last_step() >= 1
    with pytest.raises(DrillError, match="code 3: the last word"):
        run.finish()
    assert run.seconds > 0


def test_a_command_whose_reader_is_killed_is_heard_no_more(run):
    run.surroundings = Surroundings(piped=True)
    run.start()
    run.wait_for_step(0)
    run.lose_reader()
    assert run.wait_for_end() == 1  # this pipeline doesn't outlast its reader
    assert run.said() == []


def test_what_is_said_through_a_reader_is_known_too(run):
    run.surroundings = Surroundings(piped=True)
    run.start()
    assert run.wait_for_end() == 3
    deadline = time.monotonic() + 30
    while not run.said() and time.monotonic() < deadline:  # the reader may be behind
        time.sleep(0.01)
    run.lose_reader()
    assert run.said() == ["the last word"]


def test_a_step_that_never_comes_is_an_error(run):
    run.start()
    with pytest.raises(DrillError, match="ended before it could begin step 3: the last word"):
        run.wait_for_step(3)


def test_what_a_trial_leaves_running_is_ended(tmp_path):
    with trial_folders(tmp_path / "trial"):
        process = start(WAITS, marked_environment(tmp_path / "trial", {}))
    assert process.wait(10) == -signal.SIGKILL
    process.communicate()

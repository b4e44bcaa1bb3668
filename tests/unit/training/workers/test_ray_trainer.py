"""What an error of Ray Train's means for the run; nothing of Ray is started."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import exceptions as ray_exceptions
from ray.train import ControllerError, RunConfig, WorkerGroupError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from morphmlp.errors import CheckpointError, ClusterError, StorageError
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers import ray_trainer
from morphmlp.training.workers.supervision import Ending

OUT_OF_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, \
ID: 46760525) was 22.43GB used / 23.54GB limit (0.953219)
Selected to kill: (Actor(4a66): job ID=01, task name=TrainController.run, required resources={}, pid=7)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
18715\t15.10\tpython other_work.py
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/"""


class WorkerGroupStartupTimeoutError(Exception):
    """Looks as Ray's."""


@pytest.fixture
def end_of(monkeypatch, tmp_path):
    """The end of workers whose `fit` raises an error."""
    monkeypatch.setattr(ray_trainer, "alive_nodes", dict)
    monkeypatch.setattr(ray_trainer, "lost_node", lambda nodes, wait_s: False)
    monkeypatch.setattr(ray_trainer, "free_places", Path.exists)
    folder = RunFolder(tmp_path)
    job = SimpleNamespace(placement=SimpleNamespace(on_cluster=False), folder=folder)

    def end_of(error, *, workers_ran=True):
        def fail():
            if workers_ran:
                folder.places.touch()
            raise error

        monkeypatch.setattr(ray_trainer, "_trainer", lambda job, record: SimpleNamespace(fit=fail))
        return ray_trainer.Fit(job, None).end()

    return end_of


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ray_exceptions.OutOfMemoryError(OUT_OF_MEMORY), id="the controller itself"),
        pytest.param(ControllerError(ray_exceptions.OutOfMemoryError(OUT_OF_MEMORY)), id="what the controller needs"),
    ],
)
def test_a_controller_that_was_ended_for_memory_is_a_failure_that_names_who_used_it(error, end_of):
    end = end_of(error)
    assert (end.ending, end.fault, end.recorded) == (Ending.FAILED, None, False)
    assert end.reason == (
        "the controller of the workers failed: node 10.0.0.7 ran out of memory (22.4 of 23.5 GB in use), so Ray ended "
        "TrainController.run; most of it was used by python other_work.py (15.1 GB, process 18715)"
    )


def test_a_controller_that_holds_places_nobody_knows_of_ends_the_command(end_of, tmp_path):
    """New workers would wait for ever for what it holds until the session ends."""
    RunFolder(tmp_path).places.touch()  # of an earlier start
    with pytest.raises(ClusterError, match=r"ran out of memory .*; the same command continues"):
        end_of(ray_exceptions.OutOfMemoryError(OUT_OF_MEMORY), workers_ran=False)


@pytest.mark.parametrize(
    ("error", "ending", "reason"),
    [
        (ray_exceptions.WorkerCrashedError(), Ending.FAILED, "The worker died unexpectedly"),
        (ControllerError(RuntimeError("no placement\nSee the logs.")), Ending.FAILED, "RuntimeError: no placement"),
        (ControllerError(WorkerGroupStartupTimeoutError("not in time")), Ending.NOT_STARTED, "not in time"),
        (WorkerGroupError("x", {0: ValueError("bad")}), Ending.FAILED, "worker 0 failed: ValueError: bad"),
    ],
)
def test_each_error_has_its_end(error, ending, reason, end_of):
    end = end_of(error)
    assert end.ending is ending
    assert reason in end.reason


@pytest.mark.parametrize(
    "error",
    [
        WorkerGroupError("x", {0: OSError(errno.ENOSPC, "full", "/runs/a/ledger.jsonl")}),
        ControllerError(OSError(errno.ENOSPC, "full", "/runs/a/ledger.jsonl")),
    ],
)
def test_a_disk_s_fault_in_a_worker_or_the_controller_is_one_of_storage(error, end_of):
    fault = end_of(error).fault
    assert isinstance(fault, StorageError)
    assert str(fault).startswith("/runs/a/ledger.jsonl: No space left on device")


def test_the_project_s_own_error_is_the_fault(end_of):
    own = CheckpointError("truncated")
    assert end_of(WorkerGroupError("x", {1: own, 0: ValueError("y")})).fault is own


def test_a_defect_outside_of_ray_is_raised(end_of):
    with pytest.raises(ZeroDivisionError):
        end_of(ZeroDivisionError("ours"))


@pytest.mark.filterwarnings("ignore:.* deprecated:DeprecationWarning")  # Ray copies its own settings
def test_what_is_left_out_is_still_what_ray_would_add(tmp_path):
    """Ray's names: where it renames them, their processes are back."""
    run = RunConfig(name="x", storage_path=str(tmp_path))
    rays, ours = (
        {type(each).__name__ for each in kind(print, run_config=run)._create_default_callbacks()}
        for kind in (DataParallelTrainer, ray_trainer._Trainer)
    )
    assert rays - ours == set(ray_trainer.NEEDLESS)

"""What failed, in a line: out of what Ray and PyTorch say of it."""

import errno
import pickle
import socket

import pytest
from ray import exceptions as ray_exceptions

from morphmlp.cluster.failure_reasons import failure_reason, failure_text, users_fault
from morphmlp.errors import CheckpointError, ConfigError, DecodeError, StorageError, disk_faults_located


class ActorDiedError(Exception):
    """Looks as Ray's."""


class WorkerHealthCheckTimeoutError(Exception):
    """Looks as Ray's."""


class WorkerHealthCheckFailedError(Exception):
    """Looks as Ray's."""

    def __init__(self, failure):
        super().__init__(f"A worker health check failed.\nWorker info: ...\n{failure}")
        self.health_check_failure = failure


DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tpid: 123
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The process \
is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called."""


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        (
            {
                0: RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"),
                1: WorkerHealthCheckFailedError(ActorDiedError(DIED)),
            },
            "worker 1 failed: its process is gone: Worker unexpectedly exits with a connection error code 2. "
            "End of file.",
        ),
        (
            {0: ConfigError(["a: wrong", "b: wrong"]), 1: ConfigError(["a: wrong", "b: wrong"])},
            "worker 0, 1 failed: a: wrong; b: wrong",
        ),
        (
            {2: ValueError("x"), 0: DecodeError("v.mp4: truncated")},
            "worker 0 failed: v.mp4: truncated; worker 2 failed: ValueError: x",
        ),
        (
            {
                0: RuntimeError("Connection closed by peer [127.0.0.1]:1\nframe #0: <lambda> (a.py(129))"),
                1: ValueError("x"),
            },
            "worker 1 failed: ValueError: x",
        ),
        ({0: RuntimeError("Connection reset by peer")}, "worker 0 failed: RuntimeError: Connection reset by peer"),
        (
            {0: WorkerHealthCheckTimeoutError("A health check has been hanging for 60 s.\nSet X to increase it.")},
            "worker 0 failed: WorkerHealthCheckTimeoutError: A health check has been hanging for 60 s",
        ),
        ({0: KeyError()}, "worker 0 failed: KeyError: no message"),
    ],
)
def test_a_failure_is_told_by_its_cause(errors, text):
    assert failure_text(errors) == text


OUT_OF_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. \
Memory on the node (IP: 192.0.2.2, ID: 46760525) was 2.43GB used / 23.54GB limit (0.103219)
OOM kill reason: Memory usage 2609008640B exceeded threshold of 505530016B (2.0% of 25276502016B limit)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(4a66b054): job ID=01000000, lease ID=84e19e0b, \
task name=TrainController.__init__, required resources={}, pid=21748, actual memory used=0.05GB, worker ID=26de996f)
]
Total non-selected idle workers: 1
Total non-selected idle workers USS bytes: 0.04GB
To see more information about memory usage on this node, use `ray logs raylet.out -ip 192.0.2.2`
Top 10 memory users: PID	MEM(GB)	COMMAND
18715	1.10	/opt/conda/envs/a/bin/python /home/me/b/preprocess_everything.py --threads 64 --and --many --more
19193	0.09	python pipelines/train_demo.py
18826	0.08	ray::map_batches
21748	0.05	ray::TrainController.run
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/ray-observability/user-guides/debug-apps/debug-memory.html."""


def test_a_node_out_of_memory_is_told_with_who_used_it_and_no_web_page():
    text = failure_reason(ray_exceptions.OutOfMemoryError(OUT_OF_MEMORY))
    assert text == (
        "node 192.0.2.2 ran out of memory (2.4 of 23.5 GB in use), so Ray ended TrainController.__init__; "
        "most of it was used by python preprocess_everything.py --threads 64 --and (1.1 GB, process 18715), "
        "python pipelines/train_demo.py (0.1 GB, process 19193), ray::map_batches (0.1 GB, process 18826)"
    )


def test_memory_that_ran_out_is_said_in_whatever_words_ray_has_for_it():
    error = ray_exceptions.OutOfMemoryError("No memory was left on 10.0.0.7.\n18715 1.10 python preprocess.py")
    assert failure_reason(error) == "OutOfMemoryError: No memory was left on 10.0.0.7."


OBJECT = "ab" * 28


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ray_exceptions.WorkerCrashedError(), "WorkerCrashedError: The worker died unexpectedly while executing"),
        (ray_exceptions.LocalRayletDiedError(), "LocalRayletDiedError: The task's local raylet died"),
        (
            ray_exceptions.ObjectLostError(OBJECT, None, "here"),
            f"ObjectLostError: All copies of {OBJECT} have been lost",
        ),
        (ray_exceptions.OwnerDiedError(OBJECT, None, "here"), "OwnerDiedError: The object's owner has exited"),
        (ray_exceptions.RuntimeEnvSetupError("no space"), "RuntimeEnvSetupError: no space"),
        (
            ray_exceptions.NodeDiedError("The node died: 10.0.0.7\nCheck its logs."),
            "NodeDiedError: The node died: 10.0",
        ),
        (ray_exceptions.ActorUnschedulableError("no CPU"), "ActorUnschedulableError: The actor is not schedulable: no"),
        (ray_exceptions.ObjectStoreFullError("Failed."), "ObjectStoreFullError: The local object store is full of obj"),
    ],
)
def test_of_every_error_of_rays_the_cause_is_told_and_no_advice(error, cause):
    text = failure_reason(error)
    assert text.startswith(cause)
    assert not [word for word in ("Check", "Refer", "environment variable", "Tip", "http") if word in text]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "full", "/runs/a/ledger/x.jsonl"), "/runs/a/ledger/x.jsonl: No space left on device"),
        (OSError(errno.EROFS, "ro"), "Read-only file system"),
        (ray_exceptions.OutOfDiskError("no"), "the disk of Ray's object store"),
        (WorkerHealthCheckFailedError(OSError(errno.EDQUOT, "quota")), "Disk quota exceeded"),
    ],
)
def test_a_disk_s_fault_is_one_of_storage_whoever_met_it(error, fault):
    found = users_fault(error)
    assert isinstance(found, StorageError)
    assert str(found).startswith(fault)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (OSError(errno.ENOSPC, "full"), f"a disk of {socket.gethostname()}: No space left on device"),
        (OSError(errno.ENOSPC, "full", "/runs/a/x.jsonl"), "/runs/a/x.jsonl: No space left on device"),
    ],
)
def test_a_worker_s_full_disk_is_named_on_the_driver_s_host_too(error, where):
    with pytest.raises(OSError, match="full") as caught, disk_faults_located():
        raise error
    there = pickle.loads(pickle.dumps(caught.value))
    assert str(users_fault(there)).startswith(where)


def test_an_error_that_is_no_disk_s_names_no_disk():
    with pytest.raises(BrokenPipeError) as caught, disk_faults_located():
        raise OSError(errno.EPIPE, "broken")
    assert caught.value.filename is None


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), FileNotFoundError(2, "x"), ActorDiedError(DIED)])
def test_other_faults_are_not_the_user_s(error):
    assert users_fault(error) is None


def test_the_project_s_own_error_is_found_inside_of_others():
    own = CheckpointError("truncated")
    assert users_fault(WorkerHealthCheckFailedError(own)) is own

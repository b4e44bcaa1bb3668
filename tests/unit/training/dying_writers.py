"""A program that dies, or runs out of room, while it saves: `python dying_writers.py STORAGE`, a run for each way."""

import os
import resource
import signal
import sys

import torch

from morphmlp.errors import CheckpointError
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore

MOST_BYTES = 100_000
"""Less than the content's size."""


def die_in_the_middle_of_the_content():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def be_killed_before_it_is_seen():
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def save_after(trouble, store):
    """In a process of its own; how it ended as `os.waitpid` says it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    trouble()
    content = {"format": FORMAT, "model": {"weight": torch.zeros(1_000_000)}}
    try:
        store.save(content, CheckpointFacts(epoch=0, step=2, score=None))
    except CheckpointError as error:
        print(error, flush=True)
    os._exit(0)


TROUBLES = {
    "truncated": die_in_the_middle_of_the_content,
    "killed": be_killed_before_it_is_seen,
    "full": run_out_of_room,
}

if __name__ == "__main__":
    for run_name, trouble in TROUBLES.items():
        ended = save_after(trouble, CheckpointStore.of(sys.argv[1], run_name))
        print(f"{run_name}: {os.waitstatus_to_exitcode(ended)}", flush=True)

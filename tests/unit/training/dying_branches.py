"""A program that is killed while it branches, at one place after the other: `python dying_branches.py TEMPLATE OUT`.

TEMPLATE holds the runs `donor` and `member` and the file `new.yaml`; OUT gets a copy for each place, named by its
number.
"""

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

from morphmlp.config import load_config
from morphmlp.training.checkpoint.branching import branch
from morphmlp.training.checkpoint.store import CheckpointStore
from morphmlp.training.record.run_folder import RunFolder

EFFECTS = ("open", "os.rename", "os.remove", "os.mkdir")


def branch_in(storage):
    store, donor_store = (CheckpointStore.of(str(storage), name) for name in ("member", "donor"))
    branch(
        RunFolder(storage / "member"),
        store,
        donor=donor_store.stored()[-1],
        donor_store=donor_store,
        config=load_config(storage / "new.yaml"),
    )


def die_before(place, storage):
    """In a process of its own: die before it touches a file of the run for the so many-th time; whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    places = count()

    def watch(event, arguments):
        touched = event in EFFECTS and str(arguments[0]).startswith(str(storage / "member"))
        if touched and next(places) == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    branch_in(storage)
    os._exit(0)


if __name__ == "__main__":
    template, out = map(Path, sys.argv[1:])
    for place in count():
        shutil.copytree(template, out / str(place))
        if not die_before(place, out / str(place)):
            break

"""Two commands on one run: the second is refused, and the lock ends with its holder."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from morphmlp.errors import RunInUseError
from morphmlp.training.record.run_folder import RunFolder, lock_holder_gone, run_lock

HOLD = """
import sys, time
from pathlib import Path
from morphmlp.training.record.run_folder import RunFolder, run_lock

with run_lock(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_command_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "my-run")
    folder.root.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunInUseError, match=rf"my-run: .*process {holder.pid} on .*another name"), run_lock(folder):
            pass
        assert lock_holder_gone(folder) is None
    finally:
        os.kill(holder.pid, signal.SIGKILL)  # no time to tidy up
        holder.communicate()
    assert str(lock_holder_gone(folder)).startswith(f"process {holder.pid} on ")
    with run_lock(folder):
        assert folder.lock.read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_can_be_taken_again_after_its_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert lock_holder_gone(folder) is None
    for _ in range(2):
        with run_lock(folder):
            pass
    assert len(folder.lock.read_text().splitlines()) == 1


def test_a_glance_at_the_lock_refuses_nobody(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with run_lock(folder):
        pass
    glance = folder.lock.open()
    fcntl.flock(glance, fcntl.LOCK_SH)
    threading.Timer(0.01, glance.close).start()
    with run_lock(folder):
        pass

"""Ray on one node of a Slurm job, started by deploy/slurm.sh.

python deploy/slurm_node.py HEAD FOLDER OPTION...     `ray start` with these options

HEAD is the head's address, FOLDER Ray's local one. Slurm sends SIGTERM to every process of a job that it ends; Ray
doesn't hear it, so that the run can save. SIGUSR1 ends Ray on this node and removes the folder.
"""

import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import psutil


def main() -> None:
    """Until Ray has ended, or is told to."""
    head, folder, *options = sys.argv[1:]
    # What is started inherits both.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    address = f"--node-ip-address={own_address(head)}"
    ray = subprocess.Popen(
        ["ray", "start", "--block", "--disable-usage-stats", f"--temp-dir={folder}", address, *options]
    )
    while ray.poll() is None and not signal.sigtimedwait({signal.SIGUSR1}, 1):
        pass
    while started := psutil.Process().children(recursive=True):
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=5)
    shutil.rmtree(folder, ignore_errors=True)


def own_address(head: str) -> str:
    """The address from which this node reaches the head; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to_head:
        to_head.connect((head, 1))
        return str(to_head.getsockname()[0])


if __name__ == "__main__":
    main()

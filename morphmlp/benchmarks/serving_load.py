"""`pipelines/serve.py` under load: clients that send files at the same time, memory, and a replica that is killed.

The command runs as a user runs it, in processes of its own; here are clients alone.
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from morphmlp.benchmarks.decoder_comparison import some_videos
from morphmlp.benchmarks.process_cpu import process_tree
from morphmlp.errors import ClusterError, ManifestError

HOST = "127.0.0.1"
_SERVE = Path(__file__).parents[2] / "pipelines" / "serve.py"
_REPLICA = "ServeReplica"
_READY = "metrics: "
_START_S, _RECOVER_S, _END_S = 300.0, 120.0, 60.0
_LOOK_EVERY_S = 0.5
_ALONE = 20
"""Requests of a single client."""
_OK = 200


@dataclass(frozen=True, kw_only=True)
class ServingLoad:
    """What was measured."""

    requests: int
    clients: int
    lost: int
    """Requests without an answer, or with another status than 200."""
    p50_s: float
    p99_s: float
    requests_per_s: float
    alone_p50_s: float
    """Of a single client."""
    memory_mb: float
    """Of all processes of the server, before the load; shared pages are counted once."""
    peak_memory_mb: float
    """The most during the load."""
    memory_after_mb: float
    recovered_s: float
    """From the kill of a replica to the next answer."""
    files_left: int
    """Uploads that are still on the disk at the end."""

    def in_words(self) -> str:
        """For the terminal."""
        return (
            f"{self.requests} requests from {self.clients} clients: {self.lost} lost, p50 {self.p50_s:.2f} s, p99 "
            f"{self.p99_s:.2f} s, {self.requests_per_s:.1f} a second; a single client: p50 {self.alone_p50_s:.2f} s\n"
            f"memory of all processes: {self.memory_mb:,.0f} MB before, at most {self.peak_memory_mb:,.0f} MB, "
            f"{self.memory_after_mb:,.0f} MB after; {self.files_left} uploads left on the disk\n"
            f"{self.recovered_s:.1f} s from the kill of a replica to the next answer"
        )


def measure_serving(
    arguments: Sequence[str],
    folder: Path,
    *,
    requests: int,
    clients: int,
    on_request: Callable[[int], None] = lambda done: None,
) -> ServingLoad:
    """Start the server with these arguments, send it the folder's videos, or images, and kill its replica.

    Raises:
        ClusterError: It doesn't start, or doesn't come back; a cluster's processes can't be looked at.
        ManifestError: The folder holds no files of the kind that the network takes.
    """
    files = _files_of(folder, limit=requests)
    if os.environ.get("RAY_ADDRESS"):
        raise ClusterError("RAY_ADDRESS: memory of other machines can't be read; unset it to measure on this one")
    with (
        tempfile.TemporaryDirectory() as uploads,
        running_server([*arguments, "--upload-folder", uploads]) as (process, port),
    ):
        takes = _taken(port)
        sent = [file for kind, found in files.items() if kind in takes for file in found]
        if not sent:
            raise ManifestError(f"{folder}: holds no {takes}, which this network looks at (--videos)")
        return measure_running_server(
            process.pid,
            port,
            Path(uploads),
            sent,
            requests=requests,
            clients=clients,
            on_request=on_request,
        )


def measure_running_server(
    pid: int,
    port: int,
    uploads: Path,
    files: Sequence[str],
    *,
    requests: int,
    clients: int,
    on_request: Callable[[int], None] = lambda done: None,
) -> ServingLoad:
    """Send files to a server that this process id, port and folder of uploads belong to, and kill its replica.

    Raises:
        ClusterError: It doesn't come back.
    """

    def timed(number: int) -> float | None:
        """Seconds, or None where there is no answer."""
        began_s = time.monotonic()
        found = answered(port, files[number % len(files)])
        return time.monotonic() - began_s if found is not None and found[0] == _OK else None

    list(map(timed, range(clients)))  # decoders start with their first files
    alone = [seconds for number in range(_ALONE) if (seconds := timed(number)) is not None]
    before_mb = _memory_mb(pid)
    done = count(1)

    def counted(number: int) -> float | None:
        seconds = timed(number)
        on_request(next(done))
        return seconds

    with _peak_memory(pid) as peak_mb, ThreadPoolExecutor(clients) as threads:
        began_s = time.monotonic()
        times_s = [seconds for seconds in threads.map(counted, range(requests)) if seconds is not None]
        load_s = time.monotonic() - began_s
    after_mb = _memory_mb(pid)
    recovered_s = _recovery_s(pid, lambda: timed(0) is not None)
    left = sum(1 for _ in uploads.rglob("upload-*"))
    return ServingLoad(
        requests=requests,
        clients=clients,
        lost=requests - len(times_s),
        p50_s=float(np.percentile(times_s, 50)) if times_s else float("nan"),
        p99_s=float(np.percentile(times_s, 99)) if times_s else float("nan"),
        requests_per_s=len(times_s) / load_s,
        alone_p50_s=statistics.median(alone) if alone else float("nan"),
        memory_mb=before_mb,
        peak_memory_mb=max(peak_mb, default=after_mb),
        memory_after_mb=after_mb,
        recovered_s=recovered_s,
        files_left=left,
    )


@contextmanager
def running_server(arguments: Sequence[str]) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """`serve.py` with these arguments while the block lasts: its process and port.

    Raises:
        ClusterError: It doesn't start.
    """
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
    command = [sys.executable, str(_SERVE), *arguments, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _wait_until_ready(process)
            yield process, port
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    said = list[str]()
    too_late = threading.Timer(_START_S, process.kill)
    too_late.start()
    for line in process.stdout:
        said.append(line.strip())
        if line.startswith(_READY):
            too_late.cancel()
            # Somebody must read what it says from now on.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return
    too_late.cancel()
    last = said[-1].removeprefix("error: ") if said else "it said nothing"
    raise ClusterError(f"pipelines/{_SERVE.name} didn't start: {last}")


def _files_of(folder: Path, *, limit: int) -> dict[str, list[str]]:
    """A folder's videos and images, at most so many of each; one of both may be none.

    Raises:
        ManifestError: Both are.
    """
    found, faults = dict[str, list[str]](), list[str]()
    for kind in ("videos", "images"):
        try:
            found[kind] = some_videos(folder, limit=limit, images=kind == "images")
        except ManifestError as fault:
            found[kind] = []
            faults.append(str(fault))
    if len(faults) == len(found):
        raise ManifestError(faults[0])
    return found


def _taken(port: int) -> str:
    """What a server's network looks at: `videos`, `images`, or `images and videos`."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_RECOVER_S)
    try:
        connection.request("GET", "/info")
        return str(json.loads(connection.getresponse().read())["takes"])
    finally:
        connection.close()


def answered(port: int, file: str) -> tuple[int, dict[str, Any]] | None:
    """Status and JSON of the answer about a file that is sent; None where there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_RECOVER_S)
    try:
        with Path(file).open("rb") as body:
            size = str(Path(file).stat().st_size)
            name = quote(Path(file).name)
            connection.request("POST", f"/predict?name={name}", body, {"Content-Length": size})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _recovery_s(pid: int, answers: Callable[[], bool]) -> float:
    replicas = [child for child, line in process_tree(pid).items() if _REPLICA in line]
    os.kill(replicas[0], signal.SIGKILL)
    began_s = time.monotonic()
    while not answers():
        if time.monotonic() - began_s > _RECOVER_S:
            raise ClusterError(f"no replica answers {_RECOVER_S:g} s after one was killed")
        time.sleep(0.1)
    return time.monotonic() - began_s


@contextmanager
def _peak_memory(pid: int) -> Iterator[list[float]]:
    """Looks at the memory of a process and all below it while the block lasts; gives what it saw, MB."""
    seen, ended = list[float](), threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            seen.append(_memory_mb(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def _memory_mb(pid: int) -> float:
    total_kb = 0
    for child in process_tree(pid):
        try:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue  # it ended between two looks
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024

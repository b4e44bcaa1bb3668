"""What a run relies on, as programs that a drill may take away: a cluster's nodes, an MLflow server, object storage."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from morphmlp.drill import DrillError
from morphmlp.drill.processes import marked_environment

START_PATIENCE_S = 180.0
_CHUNK_BYTES = 16 * 1024


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Nodes:
    """The client of `ray_nodes`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Wait for the cluster's address."""
        self._process = process
        self.address = str(self._read()["address"])

    def add(self, name: str) -> None:
        """A machine joins; it holds one training worker."""
        self._ask(f"add {name}")

    def remove(self, name: str) -> None:
        """A machine is gone."""
        self._ask(f"remove {name}")

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._read()

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # Ray may print something too
                answer: dict[str, object] = json.loads(line)
                return answer
        raise DrillError("the local cluster ended; see cluster.txt in the trial's folder")


@contextlib.contextmanager
def local_nodes(folder: Path, temporary: Path) -> Iterator[Nodes]:
    """A cluster of a head that decodes; its sockets are in `temporary`."""
    environment = {"RAY_TMPDIR": str(temporary), "RAY_ADDRESS": ""}
    with (folder / "cluster.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "morphmlp.drill.ray_nodes"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=marked_environment(folder, environment),
        )
    with process:
        yield Nodes(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(START_PATIENCE_S)


class Server:
    """A program that serves HTTP on a fixed port, and can go down and come back."""

    def __init__(self, command: list[str], folder: Path, port: int, *, log: str) -> None:
        """Start nothing yet."""
        self.address = f"http://127.0.0.1:{port}"
        self._command, self._folder, self._log = command, folder, folder / log
        self._process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            DrillError: It doesn't.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its own workers go down with it
                env=marked_environment(self._folder, {}),
            )
        deadline = time.monotonic() + START_PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DrillError(f"{self._command[2]} doesn't start; see {self._log}")
            time.sleep(0.1)

    def down(self) -> None:
        """Kill it with everything that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """An MLflow server over a database in `folder/mlruns`."""
    port, store = free_port(), folder / "mlruns"
    store.mkdir()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}", "--artifacts-destination", str(store / "files")),
    ]
    yield from _served(Server(command, folder, port, log="mlflow-server.txt"))


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[Server]:
    """A stand-in for S3 (moto's server) with an empty bucket `drill`; it keeps its content in memory.

    Raises:
        DrillError: moto isn't installed.
    """
    port = free_port()
    for server in _served(Server([sys.executable, "-m", "moto.server", "-p", str(port)], folder, port, log="s3.txt")):
        request = urllib.request.Request(f"{server.address}/drill", method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            yield server


def _served(server: Server) -> Iterator[Server]:
    try:
        server.up()
        yield server
    finally:
        server.down()


class SlowLink:
    """A TCP port of this machine behind which another one lies, and whose way there can be made slow."""

    def __init__(self, target: int) -> None:
        """Listen; connections are served until the process ends.

        Args:
            target: Port of the loopback interface.
        """
        self.bytes_per_s: float | None = None
        """Pace of each connection in the direction of the target; None: as fast as it goes."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Little room to wait in, so that who sends sees the link's pace and not a silent other side.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _CHUNK_BYTES)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="slow link", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        with contextlib.suppress(OSError):  # one of the sides has hung up
            while data := source.recv(_CHUNK_BYTES):
                if slowly and self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

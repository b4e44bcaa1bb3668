"""A real MLflow server that is killed and started again while a run is written."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from morphmlp.errors import StoreAwayError
from morphmlp.record import Tags
from morphmlp.tracking import BufferedWriter, RunWriter, find_run, open_run, prepare_store

START_S = 90


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def server(folder, port):
    """A server that answers; it and its workers are killed at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "art")]
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            [*command, *store],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                prepare_store(f"http://127.0.0.1:{port}")
                break
            except StoreAwayError:
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_server_killed_and_started_again_has_every_point_once(tmp_path, points):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    notes = []
    with server(tmp_path, port):
        run_id = open_run(uri, experiment="demo", run_name="r", tags={Tags.FINGERPRINT: "f"}, params={})
        record = BufferedWriter(RunWriter(uri, run_id), tmp_path / "waiting.jsonl", log=notes.append)
        for step in range(200):
            record.metrics(points([step]))
    for step in range(200, 400):  # nobody answers
        record.metrics(points([step]))
    while not notes:
        time.sleep(0.05)
    record.tags({"while": "away"})
    assert (tmp_path / "waiting.jsonl").stat().st_size > 0
    with server(tmp_path, port):
        for step in range(400, 600):
            record.metrics(points([step]))
        assert record.close(60)
        history = RunWriter(uri, run_id).history(["train/loss"])
        assert [point.step for point in history] == list(range(600))
        assert find_run(uri, run_name="r").tags["while"] == "away"
    assert [("training continues" in note, "takes the record again" in note) for note in notes] == [
        (True, False),
        (False, True),
    ]
    assert (tmp_path / "waiting.jsonl").read_bytes() == b""

"""`pipelines/serve.py` as a user runs it: Ray Serve, HTTP clients, a browser, a replica that is killed, Ctrl-C."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from chromium import chromium, needs_chromium
from http_requests import Server
from trained_networks import files, place

from morphmlp.benchmarks.serving_load import measure_running_server
from morphmlp.prediction.predict import predict_whole
from morphmlp.prediction.trained import find_trained

__all__ = ["files", "place"]

ROOT = Path(__file__).parents[2]
SAME = 1e-4
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(place, *arguments, kind="video"):
    return [sys.executable, str(ROOT / "pipelines" / "serve.py"), *place.arguments(kind), *map(str, arguments)]


class Running:
    """The command, and what it says."""

    def __init__(self, place, folder, *arguments):
        self.http, self.uploads = Server(free_port()), folder / "uploads"
        self.output = folder / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command(place, "--port", self.http.port, "--upload-folder", self.uploads, *arguments),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        self.wait_until(lambda: "metrics: " in self.output.read_text(), seconds=180)

    def wait_until(self, holds, *, seconds=60):
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def metrics(self):
        address = self.output.read_text().partition("metrics: ")[2].split()[0]
        host, _, port = address.removeprefix("http://").removesuffix("/metrics").partition(":")
        return Server(int(port), host).request("GET", "/metrics")[2]

    def replicas(self):
        """Processes of replicas."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if "ServeReplica" in "".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def files_kept(self):
        return [path.name for path in self.uploads.rglob("upload-*")]


@pytest.fixture(scope="module")
def server(place, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    limits = ("--max-upload-mb", 4, "--decoders", 2, "--max-queued", 8, "--max-seconds", 60)
    running = Running(place, folder, "--allowed-folder", files, *limits)
    yield running
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(60)


@pytest.fixture(scope="module")
def model(place):
    return find_trained(
        str(place.root / "video.pth"),
        config=str(place.root / "video.yaml"),
        overrides={},
        classes=None,
        log=lambda line: None,
    ).video_model()


def test_no_request_of_eight_clients_is_lost_and_all_answers_are_those_of_predict(server, files, model):
    names = ["whole.mp4", "short.mp4", "one_frame.mp4"]
    right = {name: predict_whole(model, str(files / name), top=5).logits for name in names}
    asked = [(server.http.upload if number % 2 else server.http.ask, names[number % 3]) for number in range(48)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda one: one[0](files / one[1]), asked))
    assert [status for status, _ in answers] == [200] * len(asked)
    for (_, name), (_, answer) in zip(asked, answers, strict=True):
        assert np.allclose(answer["logits"], right[name], atol=SAME)
    assert server.files_kept() == []


def test_what_cant_be_used_is_refused_through_ray_serve_too(server, files):
    assert server.http.upload(files / "text.mp4")[0] == 415
    assert server.http.ask(files / "sound.mp4")[0] == 415
    assert server.http.ask(files / ".." / "elsewhere.mp4")[0] == 403
    assert server.http.request("GET", "/nothing")[0] == 404
    stated = f"POST /predict HTTP/1.1\nHost: localhost\nContent-Length: {2 * 2**30}"
    with server.http.begun(stated) as connection:
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")


def test_an_upload_without_end_is_stopped_and_fills_neither_memory_nor_disk(server):
    before = sum(process.memory_info().rss for process in server.replicas())
    sent = 0

    def pieces():
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield b"%x\r\n" % 2**16 + bytes(2**16) + b"\r\n"

    status, _, answer = server.http.request("POST", "/predict", pieces(), headers={"Transfer-Encoding": "chunked"})
    assert (status, list(answer)) == (413, ["error"])
    assert sent < 512 * 2**20
    assert sum(process.memory_info().rss for process in server.replicas()) - before < 256 * 2**20
    assert server.files_kept() == []


def test_senders_that_hang_up_make_room_for_others(server, files):
    head = "POST /predict?name=a.mp4 HTTP/1.1\nHost: localhost\nContent-Length: 1000000"
    waiting = [server.http.begun(head) for _ in range(10)]
    try:
        server.wait_until(lambda: server.http.upload(files / "whole.mp4")[0] == 503)
        status, headers, _ = server.http.request("POST", "/predict", b"x")
        assert status == 503
        assert int(headers["Retry-After"]) >= 1
        assert server.http.request("GET", "/health")[2] == {"status": "ok"}
    finally:
        for connection in waiting:
            connection.close()
    server.wait_until(lambda: server.http.upload(files / "whole.mp4")[0] == 200)
    assert server.files_kept() == []


def test_prometheus_finds_the_figures(server, files):
    server.http.upload(files / "whole.mp4")
    wanted = ["morphmlp_answers_total{", "morphmlp_answer_seconds_bucket{", "morphmlp_working{"]
    wanted += [f'status="{status}"' for status in (200, 413, 415, 499, 503)]
    server.wait_until(lambda: all(text in server.metrics() for text in wanted))


def test_a_load_is_measured_and_another_replica_takes_the_place_of_a_killed_one(server, files):
    """As `benchmark.py serve` measures a server that it starts itself."""
    (replica,) = server.replicas()
    done = []
    videos = [str(files / name) for name in ("whole.mp4", "short.mp4")]
    found = measure_running_server(
        server.process.pid, server.http.port, server.uploads, videos, requests=6, clients=3, on_request=done.append
    )
    assert (found.requests, found.clients, found.lost, found.files_left) == (6, 3, 0, 0)
    assert sorted(done) == [1, 2, 3, 4, 5, 6]
    assert 0 < found.p50_s <= found.p99_s
    assert 0 < found.alone_p50_s < 60
    assert 100 < found.memory_mb <= found.peak_memory_mb + 50
    assert found.recovered_s > 0
    assert "6 requests from 3 clients: 0 lost, p50 " in found.in_words()
    assert [each.pid for each in server.replicas()] not in ([], [replica.pid])
    assert server.files_kept() == []


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@needs_chromium
def test_a_dropped_video_shows_its_classes_over_time_and_faults_are_the_servers_line(server, files, browser, tmp_path):
    address = f"http://localhost:{server.http.port}"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints, requests = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.locator("#model:has-text('4 classes')").wait_for()
    page.fill("#hop", "0.2s")
    page.set_input_files("#file", files / "whole.mp4")
    page.locator("#result:visible").wait_for()
    assert page.locator(".guess").count() == 4
    assert page.locator("#rows canvas").count() == 4
    assert "mean of" in page.locator("#when").inner_text()
    page.locator("#rows canvas").first.hover(position={"x": 5, "y": 5})
    assert page.locator("#when").inner_text().startswith("0:00.0 to ")
    page.screenshot(path=tmp_path / "page.png")
    page.set_input_files("#file", files / "text.mp4")
    page.locator("#error:visible").wait_for()
    assert page.locator("#error").inner_text().startswith("is nothing that can be looked at")
    assert not page.locator("#result").is_visible()
    page.fill("#path", str(files / "whole.mp4"))
    page.click("#go")
    page.locator("#result:visible").wait_for()
    assert complaints == []
    assert all(request.startswith((address, "blob:", "data:")) for request in requests)
    page.close()


def test_ctrl_c_ends_it_and_leaves_nothing(server):
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130
    psutil.wait_procs(children, timeout=20)
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert server.output.read_text().endswith("stopped\n")
    assert list(server.uploads.glob("*/*/*")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "taken"), "address already in use"),
        (("--window", "4x2"), "window"),
        (("--allowed-folder", "nowhere"), "does not exist"),
        (("--config", "scenes"), "a classifier against semantic_fpn"),
    ],
)
def test_what_cant_be_served_is_one_line(place, arguments, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        meant = {"taken": port, "scenes": str(place.root / "scenes.yaml")}
        arguments = [meant.get(argument, argument) for argument in arguments]
        done = subprocess.run(command(place, *arguments), capture_output=True, text=True, check=False, cwd=ROOT)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert words in errors[0]

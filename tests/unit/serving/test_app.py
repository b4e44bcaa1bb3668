"""What the server answers, by a real HTTP client: the same as predict.py, and one status and line for each fault."""

import asyncio
import json
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
from chromium import chromium, needs_chromium
from served import served

from morphmlp.prediction.predict import predict_over_time, predict_whole
from morphmlp.prediction.sliding import sliding
from morphmlp.serving.files import AllowedFolders, UploadFolder
from morphmlp.serving.limits import RefusedError

SAME = 1e-4


@pytest.fixture(scope="module")
def server(place, bad, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    limits = {"upload_bytes": 4 * 2**20, "frames": 1000, "queued": 2, "gigapixels": 5.0, "windows": 20}
    with served(place, folder, allowed=[bad], hosts=["127.0.0.1"], **limits) as running:
        yield running


@pytest.fixture(scope="module")
def frames(place, files, tmp_path_factory):
    """A server with a network that takes single frames."""
    with served(place, tmp_path_factory.mktemp("frames"), kind="image", allowed=[files]) as running:
        yield running


BAD = {
    "text.mp4": (415, "is nothing that can be looked at: not a readable video"),
    "sound.mp4": (415, "has no video stream"),
    "cut.mp4": (415, "not a readable video"),
    "list.mp4": (415, "another format than videos that are taken"),
    "playlist.mp4": (415, "not a readable video"),
    "music.mp3": (415, "another format than videos that are taken"),
    "hours.mp4": (413, "lasts 14,400 s; at most 600 s"),
    "long_mkv.mkv": (413, "at most 600 s"),
    "many.mp4": (413, "has 1,300 frames; at most 1,000"),
    "frames.zip": (413, "has 1,299 frames; at most 1,000"),
    "deflated.zip": (415, "is compressed"),
    "damaged.mp4": (422, "can't be decoded"),
}


@pytest.mark.parametrize("way", ["upload", "path"])
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cant_be_used_has_one_status_and_one_line(server, bad, name, way):
    status, words = BAD[name]
    found, answer = server.http.upload(bad / name) if way == "upload" else server.http.ask(bad / name)
    assert (found, list(answer)) == (status, ["error"]), answer
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert str(server.uploads.path) not in answer["error"]
    assert [path.name for path in server.uploads.path.iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["whole.mp4", "one_frame.mp4"])
@pytest.mark.parametrize("asked", [{}, {"hop": "4"}, {"window": "4x1", "hop": "0.3s"}], ids=["whole", "hop", "window"])
def test_answers_are_those_of_predict(server, bad, name, asked):
    status, answer = server.http.upload(bad / name, top=2, **asked)
    assert status == 200, answer
    if asked:
        windows = sliding(server.model.config.test_clip, **{"window": None} | asked, to_the_end=True)
        right = predict_over_time(server.model, str(bad / name), windows, top=2)
    else:
        right = predict_whole(server.model, str(bad / name), top=2)
    expected = json.loads(json.dumps(right.plain()))
    assert np.allclose(answer.pop("logits"), expected.pop("logits"), atol=SAME)
    assert answer.pop("path") == name
    assert [guess["name"] for guess in answer["top"]] == [guess["name"] for guess in expected["top"]]
    assert [window["start_s"] for window in answer.get("windows", [])] == [
        window["start_s"] for window in expected.get("windows", [])
    ]
    named = server.http.ask(bad / name, top=2, **asked)[1]
    assert named["path"] == str(bad / name)
    for one, other in zip(named["top"], answer["top"], strict=True):
        assert one == pytest.approx(other, abs=SAME)


@pytest.mark.parametrize(("name", "asked"), [("picture.png", {}), ("whole.mp4", {}), ("whole.mp4", {"hop": "12"})])
def test_a_network_for_single_frames_looks_at_images_and_at_videos(frames, files, name, asked):
    path = str(files / name)
    if asked:
        windows = sliding(frames.model.config.test_clip, window=None, to_the_end=True, **asked)
        right = predict_over_time(frames.model, path, windows, top=5)
    else:
        right = predict_whole(frames.model, path, top=5)
    for status, answer in (frames.http.upload(files / name, **asked), frames.http.ask(files / name, **asked)):
        assert status == 200, answer
        assert np.allclose(answer["logits"], right.logits, atol=SAME)
        assert len(answer.get("windows", [])) == len(right.spans)


def test_an_image_has_no_time(frames, files):
    line = "window, hop: an image has no time; leave them out"
    assert frames.http.upload(files / "picture.png", hop="1s") == (400, {"error": line})
    info = frames.http.request("GET", "/info")[2]
    assert (info["takes"], info["window"]) == ("images and videos", "1x1")


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_a_video_over_time_and_an_image_as_it_is(frames, files):
    complaints = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://localhost:{frames.http.port}")
        page.locator("#what:has-text('Drop an image or a video here')").wait_for()
        assert page.input_value("#window") == "1x1"
        page.fill("#hop", "0.5s")
        page.set_input_files("#file", files / "whole.mp4")
        page.locator("#timeline:visible").wait_for()
        assert page.locator("#when").inner_text() == "whole.mp4, mean of 5 windows"
        page.set_input_files("#file", files / "picture.png")
        page.locator("#when:has-text('picture.png')").wait_for()
        assert page.locator("#preview img").is_visible()
        assert not page.locator("#timeline").is_visible()
    assert complaints == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{files}/whole.mp4", 403),
        ("{root}/../{files_name}/whole.mp4", 403),
        ("{root}/link.mp4", 403),
        ("{root}/linked/whole.mp4", 403),
        ("{root}/../gone.mp4", 403),
        ("whole.mp4", 403),
        ("../../../../../../etc/passwd", 403),
        ("/dev/zero", 403),
        ("{root}/gone.mp4", 404),
        ("{root}/text.mp4/whole.mp4", 404),
        ("{root}", 400),
        ("{root}/folder", 400),
        ("{root}/pipe.mp4", 400),
        ("{root}/a\0b", 400),
        ("", 403),
    ],
)
def test_only_files_below_an_allowed_folder_are_read(server, bad, files, path, status):
    for name, target in (("link.mp4", files / "whole.mp4"), ("linked", files)):
        if not (bad / name).is_symlink():
            (bad / name).symlink_to(target)
    (bad / "folder").mkdir(exist_ok=True)
    if not (bad / "pipe.mp4").exists():
        os.mkfifo(bad / "pipe.mp4")
    found, answer = server.http.ask(path.format(files=files, files_name=files.name, root=bad))
    assert (found, list(answer)) == (status, ["error"]), answer


def test_without_an_allowed_folder_no_file_may_be_named(files):
    with pytest.raises(RefusedError, match=r"^path: no folder is allowed; ") as refused:
        AllowedFolders([]).file(str(files / "whole.mp4"))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"top": "0"}, 400, "top: "),
        ({"top": "many"}, 400, "top: "),
        ({"hop": "soon"}, 400, "hop: 'soon' must be a number of seconds"),
        ({"window": "5x2"}, 400, "window: 5 frames; this network takes 4"),
        ({"hop": "0.001"}, 413, "windows of it; at most 20"),
        ({"hop": "1e-9"}, 400, "hop: "),
    ],
)
def test_parameters_that_are_wrong_are_named(server, bad, asked, status, words):
    content = (bad / "whole.mp4").read_bytes()
    found, answer = server.http.upload(content, **asked)
    assert (found, list(answer)) == (status, ["error"])
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"path": 3}', "application/json", 400),
        (b'{"path": "a", "tops": 1}', "application/json", 400),
        (b'{"path": "' + b"a" * 10**6 + b'"}', "application/json", 413),
        (b'{"path": "a"}', "text/plain", 415),  # which a page of another site may send
    ],
    ids=["empty", "cut", "list", "number", "misspelt", "large", "text"],
)
def test_a_body_that_is_no_question_is_refused(server, body, kind, status):
    found, _, answer = server.http.request("POST", "/predict/path", body, headers={"Content-Type": kind})
    assert (found, list(answer)) == (status, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/predict", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("POST", "/predict", {}, 400),
        ("GET", "/predict", {}, 405),
        ("GET", "/../../etc/passwd", {}, 404),
        ("GET", "/", {"Host": "elsewhere.example"}, 400),
    ],
)
def test_other_requests_are_refused(server, method, path, headers, status):
    assert server.http.request(method, path, b"", headers=headers)[0] == status


def test_an_upload_that_states_two_gigabytes_is_refused_without_being_read(server):
    with server.http.begun(f"POST /predict HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {2 * 2**30}") as connection:
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_doesnt_state_its_size_is_refused_at_the_limit(server):
    sent = 0

    def pieces():
        nonlocal sent
        while sent < 2 * 2**30:
            sent += 2**16
            yield b"%x\r\n" % 2**16 + bytes(2**16) + b"\r\n"

    status, _, answer = server.http.request("POST", "/predict", pieces(), headers={"Transfer-Encoding": "chunked"})
    assert (status, answer) == (413, {"error": "the file has more than the 4 MB that are taken"})
    assert sent < 64 * 2**20
    assert [path.name for path in server.uploads.path.iterdir()] == ["lock"]


def test_a_full_disk_is_a_status(server, bad):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        status, answer = server.http.upload(bad / "whole.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (status, answer) == (507, {"error": "the file can't be kept: file too large"})
    assert server.http.upload(bad / "whole.mp4")[0] == 200


def test_a_sender_that_stands_still_is_given_up(place, tmp_path):
    with served(place, tmp_path, stalled_s=0.2) as server:
        head = "POST /predict HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 1000"
        with server.http.begun(head) as connection:
            connection.sendall(b"x")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("way", ["upload", "path"])
def test_a_sender_that_drips_is_given_up_after_a_time_for_all(place, tmp_path, way):
    limits = {"stalled_s": 30.0, "upload_s": 0.4} if way == "upload" else {"stalled_s": 0.4}
    with served(place, tmp_path, **limits) as server:
        head = {
            "upload": "POST /predict HTTP/1.1\nHost: x\nContent-Length: 100000",
            "path": "POST /predict/path HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 60000",
        }[way]
        with server.http.begun(head) as connection:
            connection.settimeout(0.05)
            answer = b""
            for _ in range(200):
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    answer = connection.recv(2**16)
                    break
            connection.settimeout(30)
            with suppress(ConnectionResetError):  # by what it still sent, after all of the answer
                while more := connection.recv(2**16):  # the body may come apart from its head
                    answer += more
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"not all of " in answer
        wait_until(lambda: server.meter.now == (0, 0))


def wait_until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_more_than_may_wait_are_sent_away_and_who_hangs_up_makes_room(server, bad):
    head = "POST /predict?name=a.mp4 HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 1000"
    waiting = [server.http.begun(head) for _ in range(4)]  # two decoders, and two that may wait
    wait_until(lambda: sum(server.meter.now) == 4)
    status, headers, answer = server.http.request("POST", "/predict", b"x")
    assert (status, list(answer)) == (503, ["error"])
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert server.http.request("GET", "/health")[0] == 200
    for connection in waiting:
        connection.close()
    wait_until(lambda: sum(server.meter.now) == 0)
    assert server.http.upload(bad / "whole.mp4")[0] == 200
    assert [path.name for path in server.uploads.path.iterdir()] == ["lock"]


def test_who_hangs_up_while_a_video_is_looked_at_frees_the_decoder(place, bad, tmp_path):
    goes_on = threading.Event()

    async def slow(clips):
        await asyncio.to_thread(goes_on.wait)
        return np.zeros((*clips.shape[:2], 4), np.float32)

    with served(place, tmp_path, decoders=1, together=slow) as server:
        content = (bad / "whole.mp4").read_bytes()
        head = f"POST /predict?name=a.mp4 HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {len(content)}"
        with server.http.begun(head) as connection:
            connection.sendall(content)
            wait_until(lambda: server.meter.now == (1, 0))
        wait_until(lambda: server.meter.statuses == [499])
        goes_on.set()
        wait_until(lambda: server.meter.now == (0, 0))
        assert server.http.upload(bad / "whole.mp4")[0] == 200


def test_requests_at_the_same_time_go_through_the_network_together(place, bad, tmp_path):
    waiting = []

    async def in_pairs(clips):
        mine = asyncio.get_running_loop().create_future()
        waiting.append((clips, mine))
        if len(waiting) == 2:
            logits = await server.predictor.score([clips for clips, _ in waiting])
            for (_, future), found in zip(waiting, logits, strict=True):
                future.set_result(found)
            waiting.clear()
        return await mine

    with served(place, tmp_path, together=in_pairs) as server, ThreadPoolExecutor(2) as threads:
        names = ("whole.mp4", "one_frame.mp4")
        answers = list(threads.map(lambda name: server.http.upload(bad / name), names))
        views = server.model.config.test.num_clips * server.model.config.test.num_crops
        assert server.meter.batches == [(2, 2 * views)]
        for name, (status, answer) in zip(names, answers, strict=True):
            assert status == 200
            assert np.allclose(answer["logits"], predict_whole(server.model, str(bad / name), top=5).logits, atol=SAME)


def test_requests_are_scored_by_the_size_of_their_clips(server):
    clips = [torch.randint(0, 256, (n, v, 4, 32, 32, 3), dtype=torch.uint8) for n, v in ((1, 2), (3, 1), (2, 2))]
    found = asyncio.run(server.predictor.score(clips))
    assert [logits.shape[:2] for logits in found] == [(1, 2), (3, 1), (2, 2)]
    for each, logits in zip(clips, found, strict=True):
        assert np.allclose(logits, server.model.clip_logits(each), atol=SAME)


def test_a_decoder_that_dies_costs_no_more_than_its_request(server, bad):
    assert server.http.upload(bad / "whole.mp4")[0] == 200
    for videos in {server.model.for_thread(number, None).policy.opener("pyav") for number in range(2)}:
        if videos.child_pid is not None:
            os.kill(videos.child_pid, signal.SIGKILL)
    assert server.http.upload(bad / "whole.mp4")[0] == 200


def test_openapi_names_every_way_to_ask(server):
    paths = server.http.request("GET", "/openapi.json")[2]["paths"]
    assert sorted(paths) == ["/health", "/info", "/predict", "/predict/path"]
    assert {"400", "403", "404", "408", "413", "415", "422", "503", "507"} <= set(
        paths["/predict"]["post"]["responses"]
    )
    assert server.http.request("GET", "/docs")[0] == 404  # it would load scripts from another host


def test_the_page_may_run_its_own_script_alone(server):
    status, headers, html = server.http.request("GET", "/")
    assert status == 200
    assert "default-src 'none'; script-src 'sha256-" in headers["Content-Security-Policy"]
    assert "://" not in html


def test_what_a_killed_server_left_is_removed_by_the_next_one(tmp_path):
    first = UploadFolder(str(tmp_path))
    left = first.path.with_name("left")
    left.mkdir()
    (left / "lock").touch()
    (left / "upload-x.mp4").touch()
    second = UploadFolder(str(tmp_path))
    assert {path.name for path in first.path.parent.iterdir()} == {"lock", first.path.name, second.path.name}
    for folder in (first, second):
        folder.close()
    assert [path.name for path in first.path.parent.iterdir()] == ["lock"]


def test_answers_are_counted_by_status(server, bad):
    server.http.upload(bad / "one_frame.mp4")
    server.http.upload(bad / "text.mp4")
    server.http.request("GET", "/health")
    wait_until(lambda: server.meter.statuses[-2:] == [200, 415])

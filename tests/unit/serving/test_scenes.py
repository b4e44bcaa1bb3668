"""A network that segments, served: shares and label maps of images, each kind of file for its kind of network."""

import base64
import io

import numpy as np
import pytest
from chromium import chromium, needs_chromium
from coded_videos import moving_pictures
from http_requests import Server
from PIL import Image
from served import served
from trained_networks import png_head

from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.trained import find_trained
from morphmlp.reporting.segmentation import coloured


@pytest.fixture(scope="module")
def server(place, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with served(place, folder, kind="scenes", allowed=[files], upload_bytes=4 * 2**20) as running:
        yield running


@pytest.fixture(scope="module")
def right(place, files):
    """The image, its label map and a prediction of `predict.py`."""
    trained = find_trained(
        str(place.root / "scenes.pth"),
        config=str(place.root / "scenes.yaml"),
        overrides={},
        classes=place.root / "classes.txt",
        log=lambda line: None,
    )
    model = SceneModel(trained)
    image, labels = model.label_map(str(files / "picture.png"))
    prediction = model.prediction("picture.png", labels, top=5)
    return prediction, labels, np.asarray(model.overlay(image, labels, prediction))


def picture_of(server: Server, file, way, form):
    if way == "upload":
        status, headers, content = server.request("POST", f"/predict?name={file.name}&answer={form}", file.read_bytes())
    else:
        body = f'{{"path": "{file}", "answer": "{form}"}}'
        status, headers, content = server.request(
            "POST", "/predict/path", body, headers={"Content-Type": "application/json"}
        )
    assert (status, headers["content-type"]) == (200, "image/png")
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("way", ["upload", "path"])
def test_shares_and_maps_are_those_of_predict(server, files, right, way):
    prediction, labels, overlay = right
    file = files / "picture.png"
    status, answer = server.http.upload(file) if way == "upload" else server.http.ask(file)
    assert status == 200
    assert (answer["height"], answer["width"]) == labels.shape
    assert [(guess["label"], guess["name"], guess["probability"]) for guess in answer["top"]] == [
        (guess.label, guess.name, pytest.approx(guess.probability)) for guess in prediction.guesses
    ]
    assert "logits" not in answer
    with picture_of(server.http, file, way, "map") as shown:
        assert np.array_equal(np.asarray(shown), labels)
        assert np.array_equal(np.asarray(shown.convert("RGB")), coloured(labels, 4))
    with picture_of(server.http, file, way, "overlay") as shown:
        assert np.array_equal(np.asarray(shown), overlay)
    both = (server.http.upload if way == "upload" else server.http.ask)(file, answer="both", top=1)[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(both["map"])))), labels)
    assert len(both["top"]) == 1
    red, green, blue = coloured(np.array([[both["top"][0]["label"]]], np.uint8), 4)[0, 0]
    assert both["top"][0]["colour"] == f"#{red:02x}{green:02x}{blue:02x}"
    assert [path.name for path in server.uploads.path.iterdir()] == ["lock"]


def test_an_upload_without_a_name_is_taken_for_an_image(server, files):
    status, _, answer = server.http.request("POST", "/predict", (files / "picture.png").read_bytes())
    assert (status, answer["path"]) == (200, "image.jpg")
    info = server.http.request("GET", "/info")[2]
    assert (info["takes"], info["segments"], info["window"]) == ("images", True, None)
    assert server.meter.batches[-1] == (1, 1)


OF_ANOTHER_KIND = [
    ("video", "picture.png", "is an image; this network looks at videos"),
    ("scenes", "whole.mp4", "is no image (a file named .jpg, .jpeg or .png); this network looks at images"),
]


@pytest.mark.parametrize("case", OF_ANOTHER_KIND, ids=lambda case: " ".join(case[:2]))
def test_a_file_of_another_kind_than_the_network_takes_has_one_status(place, files, tmp_path, case):
    kind, name, line = case
    with served(place, tmp_path, kind=kind, allowed=[files]) as server:
        assert server.http.upload(files / name) == (415, {"error": line})
        assert server.http.ask(files / name) == (415, {"error": line})
        with server.http.begun(f"POST /predict?name={name} HTTP/1.1\nHost: x\nContent-Length: 1000") as connection:
            assert connection.recv(2**16).startswith(b"HTTP/1.1 415 ")  # before its bytes are sent


BAD = {
    "text": (b"no image at all", 415, "is nothing that can be looked at: "),
    "nothing": (b"", 400, "the request's body is empty"),
    "cut short": ("half", 422, "can't be decoded: "),
    "too large": (png_head(60_000, 60_000), 415, "is nothing that can be looked at: "),
    "no pixels": (png_head(40, 30), 422, "can't be decoded: "),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_image_that_cant_be_used_has_one_status_and_one_line(server, tmp_path, bad):
    content, status, words = BAD[bad]
    if content == "half":
        Image.fromarray(moving_pictures()[0]).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()
        content = content[: len(content) // 2]
    found, answer = server.http.upload(content, name="a.png")
    assert (found, list(answer)) == (status, ["error"]), answer
    assert answer["error"].startswith(words)
    assert str(server.uploads.path) not in answer["error"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"answer": "svg"}, "answer: Input should be 'json', 'both', 'map' or 'overlay'"),
        ({"hop": "1s"}, "window, hop: an image has no time; leave them out"),
    ],
)
def test_parameters_that_are_wrong_are_named(server, files, asked, words):
    assert server.http.upload(files / "picture.png", **asked) == (400, {"error": words})
    assert server.http.ask(files / "picture.png", **asked) == (400, {"error": words})


def test_a_network_that_classifies_has_no_map(place, files, tmp_path):
    with served(place, tmp_path, kind="image") as server:
        line = "answer: map: this network classifies and has no map of pixels; leave it out"
        assert server.http.upload(files / "picture.png", answer="map") == (400, {"error": line})


@pytest.mark.slow
@needs_chromium
def test_a_dropped_image_lies_under_its_map_with_the_shares_of_its_classes(server, files, right, tmp_path):
    prediction, labels, _ = right
    complaints = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.goto(f"http://localhost:{server.http.port}")
        page.locator("#what:has-text('Drop an image here')").wait_for()
        assert not page.locator("#over").is_visible()
        page.set_input_files("#file", files / "picture.png")
        page.locator(".stack canvas").wait_for()
        assert page.locator(".stack img").is_visible()
        names = page.locator(".guess span:first-child").all_inner_texts()
        assert names == [guess.name for guess in prediction.guesses]
        page.wait_for_timeout(300)
        page.screenshot(path=tmp_path / "page.png")
        box = page.locator(".stack canvas").bounding_box()
        for row, column in ((0, 0), (labels.shape[0] - 1, labels.shape[1] // 2)):
            x, y = (column + 0.5) / labels.shape[1] * box["width"], (row + 0.5) / labels.shape[0] * box["height"]
            page.locator(".stack canvas").hover(position={"x": x, "y": y})
            of = {guess.label: guess.name for guess in prediction.guesses}
            assert page.locator("#when").inner_text() == of[labels[row, column]]
        page.fill("#path", str(files / "picture.png"))
        page.click("#go")
        page.locator(".stack:not(:has(img)) canvas").wait_for()
    assert complaints == []

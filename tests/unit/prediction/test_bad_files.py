"""Bad input by what uses it: one line each, in a short time, and nothing else is lost. serve.py has its own table."""

import runpy
import sys
from pathlib import Path

import pytest
import ray

from morphmlp.config.loading import fingerprint
from morphmlp.errors import DecodeError, ManifestError
from morphmlp.prediction import ray_features
from morphmlp.prediction.features import features_of
from morphmlp.prediction.predict import predict_over_time, predict_whole, with_each_decoder
from morphmlp.prediction.sliding import sliding
from morphmlp.prediction.trained import find_trained

SCRIPT = Path(__file__).parents[3] / "pipelines" / "features.py"


@pytest.fixture(scope="module")
def model(place):
    return find_trained(
        str(place.root / "video.pth"),
        config=str(place.root / "video.yaml"),
        overrides={},
        classes=place.root / "classes.txt",
        log=lambda line: None,
    ).video_model()


def whole(model, path):
    return len(predict_whole(model, path, top=1).guesses)


def over_time(model, path):
    windows = sliding(model.config.test_clip, window="4x2", hop="64", to_the_end=True)
    return len(predict_over_time(model, path, windows, top=1).spans)


def features(model, path):
    windows = sliding(model.config.test_clip, window="4x2", hop="64", to_the_end=False)
    return len(with_each_decoder(model, path, lambda reader: features_of(model, reader, windows, "pooled")).values)


WAYS = {"whole": whole, "over time": over_time, "features": features}
BAD = {
    "text.mp4": "not a readable video",
    "nothing.mp4": "the file is empty",
    "sound.mp4": "has no video stream",
    "music.mp3": "has no video stream",
    "cut.mp4": "not a readable video",
    "damaged.mp4": "not one frame could be decoded",
    "frames.zip": "00001.png can't be decoded as PNG",
    "deflated.zip": "is compressed",
    "bomb.png": "pixels",
    "pipe.png": "can't be read: it's a pipe",
    "gone.mp4": "no such file",
}
"""Words of the line, by file; what decoders say of damage differs by their versions."""
USABLE = {"one_frame.mp4": (1, 1, 1), "hours.mp4": (1, 2, 1), "many.mp4": (1, 22, 21)}
"""What each way gives of files that are odd: a single frame, four frames in three hours, many small ones."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cant_be_used_is_one_fault_whatever_is_wanted_of_it(model, bad, name, way):
    with pytest.raises(DecodeError, match=BAD[name]) as refused:
        WAYS[way](model, str(bad / name))
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize("name", USABLE)
def test_an_odd_file_is_used_in_every_way(model, bad, name):
    assert tuple(way(model, str(bad / name)) for way in WAYS.values()) == USABLE[name]


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `features.py` in this process; gives its exit code and lines of errors."""

    for name in ("init", "is_initialized"):  # whoever joins Ray asks one of them first
        monkeypatch.setattr(ray, name, lambda *_, **__: pytest.fail("Ray was asked for"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return left.value.code, [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]

    return run


@pytest.mark.parametrize(
    "refused",
    [
        (("{kind:scenes}", "--hop", "1s"), "--window, --hop: this network segments images, which have no time"),
        (("--checkpoint", "{root}/scenes.pth", "--config", "{root}/video.yaml"), "against a classifier"),
        (("{kind:video}", "--window", "16x4"), "--window: 16 frames; this network takes 4"),
        (("{kind:video}", "--output", "/dev/full"), "--output: /dev/full: "),
    ],
    ids=["windows of images", "another task", "window", "no folder"],
)
def test_features_refuse_in_one_line_before_ray_starts(command, place, bad, tmp_path, refused):
    (given, message), words = refused, []
    for word in given:
        kind = word.removeprefix("{kind:").rstrip("}")
        words += place.arguments(kind)[:4] if word.startswith("{kind:") else [word.format(root=place.root)]
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "whole.mp4").symlink_to(bad / "whole.mp4")
    output = () if "--output" in given else ("--output", str(tmp_path / "out"))
    code, errors = command(videos, *output, *words)
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]


def test_a_disk_that_fills_up_under_features_ends_the_command_and_leaves_no_part_of_a_file(
    model, bad, tmp_path, small_disk, monkeypatch
):
    task = ray_features.FeatureTask(
        config=model.config,
        weights=None,
        weights_sha256="",
        windows=sliding(model.config.test_clip, window="4x2", hop="1", to_the_end=False),
        stage="3",
        form="npy",
        folder=tmp_path,
        device="cpu",
    )
    monkeypatch.setitem(ray_features._models, ("", fingerprint(model.config), "cpu"), model)
    with small_disk(), pytest.raises(ManifestError, match=r"/video\.npy: can't be written: File too large"):
        task({"video_id": "video", "path": str(bad / "whole.mp4")})
    assert list(tmp_path.iterdir()) == []

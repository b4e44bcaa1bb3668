"""`pipelines/predict.py --explain` as a user runs it: files by task, stage and form, and one line for each fault."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from morphmlp.config.loading import config_to_yaml
from morphmlp.tasks.factory import task_of

# Of each stage and each form at least one, over time and by the test's views.
WRITTEN = [
    ("video", "short.mp4", 1, "why.mp4", ()),
    ("video", "short.mp4", 2, "why.gif", ("--hop", "1")),
    ("video", "short.mp4", 3, "why.png", ()),
    ("video", "short.mp4", 4, "folder", ("--hop", "2")),
    ("video", "one_frame.mp4", 4, "why.gif", ()),
    ("video", "as_frames", 4, "folder", ("--hop", "0.1s")),
    ("video", "picture.png", 2, "why.png", ()),
    ("image", "picture.png", 1, "why.png", ()),
    ("image", "picture.png", 4, "folder", ()),
    ("image", "short.mp4", 3, "why.mp4", ("--window", "1x1", "--hop", "2")),
]


@pytest.mark.parametrize("asked", WRITTEN, ids=lambda asked: "-".join(map(str, asked[:4])))
def test_an_explanation_is_written_in_each_form(predict, place, files, tmp_path, asked):
    kind, file, stage, target, more = asked
    asked = ("--explain", tmp_path / target, "--explain-stage", stage, "--explain-class", "cutting")
    code, lines, errors = predict(files / file, *place.arguments(kind), *asked, *more)
    assert (code, errors) == (0, [])
    assert lines[0] == str(files / file)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    if target == "folder":
        assert path.name == {"as_frames": "as_frames.mp4"}.get(file, file)
    frames = {"short.mp4": 3, "as_frames": 8}.get(file, 1)
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(pictures) == frames
    else:
        with Image.open(path) as image:
            assert getattr(image, "n_frames", 1) == 1  # of a GIF at most 10 a second
            pictures = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert pictures[0].shape[1] >= 480
    assert pictures[0].shape[0] > 320  # strips stand below
    assert pictures[0].std() > 10


def test_every_frame_of_a_video_is_written_with_the_top_guess(predict, place, files, tmp_path):
    asked = ("--explain", tmp_path / "a.mp4", "--annotate", tmp_path / "b.mp4", "--top", 1)
    code, _, errors = predict(files / "short.mp4", *place.arguments(), *asked)
    assert (code, errors) == (0, [])
    times = []
    for name in ("a.mp4", "b.mp4"):
        with av.open(str(tmp_path / name)) as container:
            times.append([frame.time for frame in container.decode(video=0)])
    assert times[0] == times[1]
    assert len(times[0]) == 3


def test_a_broken_file_costs_itself_alone(predict, place, files, tmp_path):
    code, lines, errors = predict(files / "text.mp4", files / "short.mp4", *place.arguments(), "--explain", tmp_path)
    assert (code, len(errors)) == (2, 2)
    assert "text.mp4: not a readable video" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["short.mp4"]
    assert lines[0] == str(files / "short.mp4")


REFUSED = [
    (("whole.mp4", "--explain-stage", "3"), "--explain-stage: says more of --explain FILE, which is missing"),
    (("whole.mp4", "--explain-class", "3"), "--explain-class: says more of --explain FILE, which is missing"),
    (("whole.mp4", "--explain", "{new}/a.png", "--explain-stage", "5"), "'--explain-stage': 5 is not in the range 1<="),
    (("whole.mp4", "--explain", "{new}/a.png", "--explain-stage", "0"), "'--explain-stage': 0 is not in the range 1<="),
    (("whole.mp4", "--explain", "{new}/a.png", "--explain-class", "4"), "'4' is no class and no number below 4; the"),
    (("whole.mp4", "--explain", "{new}/a.png", "--explain-class", "-1"), "'-1' is no class and no number below 4; the"),
    (("whole.mp4", "--explain", "{new}/a.png", "--explain-class", "danzing"), "did you mean 'dancing'?"),
    (("whole.mp4", "--explain", "{files}/short.mp4"), "short.mp4: exists already; --force writes over it"),
    (("whole.mp4", "--explain", "{files}/whole.mp4"), "whole.mp4: is the file that is looked at; name another one"),
    (("whole.mp4", "--explain", "{new}/a.avi"), "a.avi: must end in .mp4, .gif or .png, or be a folder"),
    (
        ("whole.mp4", "--explain", "{new}/why.txt"),
        "why.txt: must end in .mp4, .gif or .png, or be a folder that is",
    ),
    (("whole.mp4", "--explain", "{new}/a.Mp5"), "a.Mp5: must end in .mp4, .gif or .png, or be a folder"),
    (("whole.mp4", "--annotate", "{new}/a.txt"), "a.txt: must end in .mp4 or .png, or be a folder"),
    (("whole.mp4", "--explain", "/proc/x/a.gif"), "--explain: /proc/x/a.gif: "),
    (("whole.mp4", "--explain", "/dev/full"), "--explain: /dev/full: "),
    (("picture.png", "--explain", "{new}/a.gif"), "a.gif: an image is written as .png"),
    (("whole.mp4", "short.mp4", "--explain", "{new}/a.gif"), "a.gif: is one file for several inputs; name a folder"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: " ".join(refused[0][1:]))
def test_a_fault_is_one_line(predict, place, files, tmp_path, refused):
    asked, message = refused
    words = [word.format(new=tmp_path, files=files) for word in asked]
    words = [str(files / word) if word in ("whole.mp4", "short.mp4", "picture.png") else word for word in words]
    code, _, errors = predict(*words, *place.arguments())
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(predict, place, files, tmp_path, small_disk):
    for name in ("a.mp4", "a.gif", "a.png"):
        with small_disk():
            code, _, errors = predict(files / "short.mp4", *place.arguments(), "--explain", tmp_path / name)
        assert (code, errors) == (2, [f"error: --explain: {tmp_path}/{name}: can't be written: File too large"])
        assert list(tmp_path.iterdir()) == []


SCENES = [
    (1, None, ()),
    (2, "0", ()),
    (4, "dancing", ()),
    (3, None, ("--segmentation.test.mode", "slide", "--segmentation.test.stride", "16")),
]


@pytest.mark.parametrize("scene", SCENES, ids=["stage 1", "stage 2", "stage 4", "windows"])
def test_a_segmented_image_is_explained_for_a_class(predict, place, files, tmp_path, scene):
    stage, named, more = scene
    asked = ("--explain", tmp_path / "why.png", "--explain-stage", stage, "--top", 1)
    asked += () if named is None else ("--explain-class", named)
    code, lines, errors = predict(files / "picture.png", *place.arguments("scenes"), *asked, *more)
    assert (code, errors, len(lines)) == (0, [], 2)
    with Image.open(tmp_path / "why.png") as image:
        assert image.width == 480
        assert image.height > 320  # strips stand below
        assert np.asarray(image).std() > 10


@pytest.mark.parametrize(
    "refused",
    [
        (("--explain", "{new}/a.gif"), "a.gif: an image is written as .png"),
        (("--explain", "{new}/a.png", "--explain-class", "danzing"), "did you mean 'dancing'?"),
        (("--explain", "{new}/a.png", "--hop", "1s"), "--window, --hop: this network segments images, which have no"),
    ],
)
def test_what_a_segmented_image_has_not_is_one_line(predict, place, files, tmp_path, refused):
    more, message = refused
    words = [word.format(new=tmp_path) for word in more]
    code, _, errors = predict(files / "picture.png", *place.arguments("scenes"), *words)
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_resnet_is_not_explained(predict, place, files, tmp_path):
    resnet = place.config("scenes")
    resnet = replace(resnet, segmentation=replace(resnet.segmentation, backbone="resnet50"))
    (tmp_path / "resnet.yaml").write_text(config_to_yaml(resnet))
    torch.save(task_of(resnet).network().state_dict(), tmp_path / "resnet.pth")
    given = ("--checkpoint", tmp_path / "resnet.pth", "--config", tmp_path / "resnet.yaml")
    code, _, errors = predict(files / "picture.png", *given, "--explain", tmp_path / "a.png")
    line = "error: --explain: shows what a MorphMLP does; the backbone of this network is a ResNet-50"
    assert (code, errors) == (2, [line])

"""The stand-ins for Something-Something: official formats, the same bytes for a seed, labels that flip in mirrors."""

import csv
import dataclasses
import json

import av
import numpy as np
import pytest
from PIL import Image

from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.datasets.something import SOMETHING, read_templates, without_brackets
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic import something_standin as scenes
from morphmlp.data.synthetic.something_standin import write_standin
from morphmlp.errors import ManifestError

LABELS = range(len(scenes.TEMPLATES))
MIRRORED = {4: 5, 5: 4, 6: 7, 7: 6}
"""The classes that a mirror turns into each other; it leaves all others as they are."""
SIDEWAYS = sorted(MIRRORED)
V1, V2 = "20bn-something-something-v1", "20bn-something-something-v2"


@pytest.fixture(scope="module")
def ssv1(tmp_path_factory):
    output = tmp_path_factory.mktemp("standin") / "ssv1"
    write_standin(output, version="ssv1", train=16, val=8)
    return output


@pytest.fixture(scope="module")
def ssv2(tmp_path_factory):
    output = tmp_path_factory.mktemp("standin") / "ssv2"
    write_standin(output, version="ssv2", train=16, val=8)
    return output


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in (".jpg", ".webm")
    }


def mirrored_scene(scene):
    """The scene that a mirror shows."""
    return dataclasses.replace(
        scene,
        centre=(scenes.WIDTH - scene.centre[0], scene.centre[1]),
        hand_on_left=not scene.hand_on_left,
        background=scene.background[:, ::-1],
    )


def test_classes_stand_in_alphabetical_order_without_brackets():
    names = [without_brackets(template) for template in scenes.TEMPLATES]
    assert names == sorted(set(names))


@pytest.mark.parametrize("label", LABELS)
def test_a_mirrored_video_is_one_of_the_class_that_the_mirror_makes_of_it(label):
    for seed in range(10):
        scene = scenes.draw_scene(np.random.default_rng(seed))
        shown = scenes.render(scene, label)[:, :, ::-1]
        meant = scenes.render(mirrored_scene(scene), MIRRORED.get(label, label))
        # Rounding of a column's place may tip a grey level over.
        assert np.abs(shown.astype(int) - meant).max() <= 1


def test_no_two_classes_look_alike():
    scene = scenes.draw_scene(np.random.default_rng(0))
    shown = [scenes.render(scene, label).astype(int) for label in LABELS]
    for label in LABELS:
        for other in range(label):
            assert np.abs(shown[label] - shown[other]).max() > 50


@pytest.mark.parametrize(("push", "pull"), [(6, 5), (7, 4)])
def test_a_push_backwards_in_time_is_a_pull_the_other_way_so_that_no_frame_alone_distinguishes_them(push, pull):
    scene = dataclasses.replace(scenes.draw_scene(np.random.default_rng(3)), begin=0.1, end=0.9)
    difference = scenes.render(scene, push).astype(int) - scenes.render(scene, pull)[::-1]
    assert np.abs(difference).max() <= 1


def test_pictures_of_v1_are_jpegs_from_1_with_five_digits_as_many_as_the_list_says(ssv1):
    lines = (ssv1 / "somesomev1_rgb_train_split.txt").read_text().splitlines()
    assert len(lines) == 16
    for line in lines:
        video_id, count, label = line.split(" ")
        names = sorted(path.name for path in (ssv1 / V1 / video_id).iterdir())
        assert names == [f"{number:05d}.jpg" for number in range(1, int(count) + 1)]
        assert int(label) in LABELS
    with Image.open(ssv1 / V1 / video_id / "00001.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (scenes.WIDTH, scenes.HEIGHT))
    lengths = {int(line.split()[1]) for line in lines}
    assert len(lengths) > 3


def test_the_csv_of_v1_and_its_label_file_whose_order_is_another_say_what_the_list_says(ssv1):
    with (ssv1 / "something-something-v1-validation.csv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert all(template in {without_brackets(name) for name in scenes.TEMPLATES} for _, template in rows)
    labels = (ssv1 / "something-something-v1-labels.csv").read_text().splitlines()
    assert labels != sorted(labels)
    templates = read_templates(ssv1 / "something-something-v1-labels.csv")
    found = read_annotations(
        ssv1 / "something-something-v1-validation.csv",
        data_set=SOMETHING["ssv1"],
        videos=ssv1 / V1,
        class_names=templates,
    )
    assert found.manifest.fingerprint() == read_manifest(ssv1 / "val.parquet").fingerprint()


def test_the_videos_of_v2_are_vp9_and_decode_to_what_was_drawn(ssv2):
    (row, *_) = read_manifest(ssv2 / "val.parquet").table.to_pylist()
    with av.open(row["path"]) as container:
        stream = container.streams.video[0]
        assert (container.format.name, stream.codec_context.name) == ("matroska,webm", "vp9")
        assert stream.average_rate == scenes.FRAME_RATE
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    numbers = {int(video["id"]): place for place, video in enumerate(json.loads(validation_of(ssv2)))}
    number = numbers[int(row["video_id"])]
    scene = scenes.draw_scene(np.random.default_rng([0, 1, number]))
    assert len(decoded) == scene.num_frames
    assert np.abs(decoded.astype(int) - scenes.render(scene, row["label"])).mean() < 8


def validation_of(folder):
    return (folder / "something-something-v2-validation.json").read_text()


def test_the_json_of_v2_has_the_official_fields(ssv2):
    for video in json.loads(validation_of(ssv2)):
        assert list(video) == ["id", "label", "template", "placeholders"]
        assert video["template"] in scenes.TEMPLATES
        assert video["label"] == video["template"].replace("[something]", video["placeholders"][0]).lower()
    ids = json.loads((ssv2 / "something-something-v2-labels.json").read_text())
    assert ids == {without_brackets(name): str(label) for label, name in enumerate(scenes.TEMPLATES)}


@pytest.mark.parametrize("version", ["ssv1", "ssv2"])
def test_manifests_hold_balanced_classes_and_no_video_twice(request, version):
    folder = request.getfixturevalue(version)
    train, val = (read_manifest(folder / f"{split}.parquet") for split in ("train", "val"))
    assert train.class_names == val.class_names == tuple(without_brackets(name) for name in scenes.TEMPLATES)
    assert np.bincount(train.table["label"].to_pylist()).tolist() == [2] * 8
    ids = [*train.table["video_id"].to_pylist(), *val.table["video_id"].to_pylist()]
    assert len(set(ids)) == 24
    known = train.table["num_frames"].to_pylist()
    assert all(known) if version == "ssv1" else not any(known)


def test_both_versions_show_the_same_videos(ssv1, ssv2):
    assert read_manifest(ssv1 / "val.parquet").fingerprint() == read_manifest(ssv2 / "val.parquet").fingerprint()


@pytest.mark.parametrize("version", ["ssv1", "ssv2"])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(request, tmp_path, version):
    folder = request.getfixturevalue(version)
    write_standin(tmp_path / "again", version=version, train=16, val=8, threads=1)
    assert content(tmp_path / "again") == content(folder)
    write_standin(tmp_path / "other", version=version, train=16, val=8, seed=1)
    assert content(tmp_path / "other") != content(folder)


def test_a_complete_folder_is_left_as_it_is_and_one_with_other_videos_refused(ssv2):
    before = {path: path.stat().st_mtime_ns for path in (ssv2 / V2).iterdir()}
    write_standin(ssv2, version="ssv2", train=16, val=8)
    assert {path: path.stat().st_mtime_ns for path in (ssv2 / V2).iterdir()} == before
    with pytest.raises(ManifestError, match="holds other videos"):
        write_standin(ssv2, version="ssv1", train=16, val=8)


def test_a_split_of_no_videos_leaves_no_file(tmp_path):
    write_standin(tmp_path / "ssv1", version="ssv1", train=8, val=0)
    assert not list((tmp_path / "ssv1").glob("*val*"))


@pytest.mark.parametrize(("train", "val"), [(0, 0), (-1, 8), (220_847, 1)])
def test_impossible_numbers_of_videos_are_refused(tmp_path, train, val):
    with pytest.raises(ManifestError, match="videos asked for"):
        write_standin(tmp_path / "ssv1", version="ssv1", train=train, val=val)

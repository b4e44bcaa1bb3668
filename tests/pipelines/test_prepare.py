"""`pipelines/prepare.py` as a user runs it: exit codes, lines, files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_here import run_here

from morphmlp.data.manifest import read_manifest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "prepare.py"


def prepare(*arguments):
    return run_here(SCRIPT, *arguments)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"video")
    return folder


def test_a_list_becomes_a_manifest(tmp_path, videos):
    (tmp_path / "val.csv").write_text("a.mp4,341\nb.mp4,7\n")
    output = tmp_path / "k400" / "val.parquet"
    arguments = ("k400", "--annotations", tmp_path / "val.csv", "--videos", videos, "--output", output)
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    manifest = read_manifest(output)
    assert (
        f"{output}: 2 videos (0 missing) of 400 classes (path list), fingerprint {manifest.fingerprint()}"
        in done.stdout
    )
    assert manifest.table["label"].to_pylist() == [341, 7]


def test_all_faults_come_at_once_with_their_lines_and_nothing_is_written(tmp_path, videos):
    (tmp_path / "train.csv").write_text("a.mp4,0\ngone.mp4,0\na.mp4,1\nb.mp4,9\nwhat\n")
    (tmp_path / "classes.txt").write_text("archery\nyoga\n")
    done = prepare(
        *("k400", "--annotations", tmp_path / "train.csv", "--videos", videos),
        *("--classes", tmp_path / "classes.txt", "--output", tmp_path / "train.parquet"),
    )
    assert done.returncode == 2
    assert not (tmp_path / "train.parquet").exists()
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert [line.split(":")[2] for line in lines[:4]] == ["2", "3", "4", "5"]
    for line, fault in zip(lines, ("no such file", "duplicate", "outside the 2 classes", "unreadable"), strict=False):
        assert fault in line


def test_the_annotations_are_never_written_over_and_an_output_whose_name_is_no_text_is_refused(tmp_path, videos):
    annotations = tmp_path / "val.csv"
    annotations.write_text("a.mp4,0\n")
    for output, fault in (
        (tmp_path / "." / "val.csv", f"error: --output: {annotations} holds the annotations"),
        (
            os.fsdecode(os.fsencode(tmp_path) + b"/\xfcbung.parquet"),
            f"error: --output: {tmp_path}/\\xfcbung.parquet isn't",
        ),
    ):
        done = prepare("k400", "--annotations", annotations, "--videos", videos, "--output", output)
        assert done.returncode == 2
        assert done.stderr.startswith(fault)
    assert annotations.read_text() == "a.mp4,0\n"


def test_missing_videos_are_recorded_when_allowed(tmp_path, videos):
    (tmp_path / "train.csv").write_text("a.mp4,0\ngone.mp4,0\n")
    output = tmp_path / "train.parquet"
    arguments = ("k400", "--annotations", tmp_path / "train.csv", "--videos", videos, "--output", output)
    assert prepare(*arguments).returncode == 2
    done = prepare(*arguments, "--allow-missing")
    assert done.returncode == 0
    assert f"missing: {tmp_path / 'train.csv'}:2: no such file: {videos / 'gone.mp4'}" in done.stdout
    assert "2 videos (1 missing)" in done.stdout
    assert len(read_manifest(output).available()) == 1


def test_the_demo_is_written_and_its_annotations_can_be_prepared_again(tmp_path):
    output = tmp_path / "demo"
    arguments = ("demo", "--output", output, "--train", 16, "--val", 8, "--test", 8)
    done = prepare(*arguments)
    assert done.returncode == 0
    assert f"{output / 'train.parquet'}: 16 videos of 8 classes" in done.stdout
    assert prepare(*arguments).stdout == done.stdout

    again = tmp_path / "test.parquet"
    done = prepare(
        *("k400", "--annotations", output / "annotations" / "test.csv", "--videos", output),
        *("--classes", output / "train.parquet", "--output", again),
    )
    assert done.returncode == 0
    assert "8 videos (0 missing) of 8 classes (official Kinetics CSV)" in done.stdout
    assert read_manifest(again).fingerprint() == read_manifest(output / "test.parquet").fingerprint()

    done = prepare(*arguments[:-1], 16)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {output}: holds other videos (test 8, asked for 16)")


def test_a_stand_in_of_v1_is_written_and_its_csv_can_be_prepared_again(tmp_path):
    output = tmp_path / "standin"
    done = prepare("standin", "ssv1", "--output", output, "--train", 8, "--val", 8)
    assert done.returncode == 0
    assert f"{output / 'val.parquet'}: 8 videos of 8 classes" in done.stdout
    again = tmp_path / "val.parquet"
    done = prepare(
        *("ssv1", "--annotations", output / "something-something-v1-validation.csv", "--output", again),
        *("--videos", output / "20bn-something-something-v1"),
        *("--classes", output / "something-something-v1-labels.csv"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 videos (0 missing) of 8 classes (official CSV)" in done.stdout
    assert "classes:" not in done.stdout
    assert read_manifest(again).fingerprint() == read_manifest(output / "val.parquet").fingerprint()


def test_a_stand_in_of_v2_is_written_and_its_json_can_be_prepared_again(tmp_path):
    output = tmp_path / "standin"
    assert prepare("standin", "ssv2", "--output", output, "--train", 8, "--val", 8).returncode == 0
    again = tmp_path / "train.parquet"
    done = prepare(
        *("ssv2", "--annotations", output / "something-something-v2-train.json", "--output", again),
        *("--videos", output / "20bn-something-something-v2"),
    )
    assert done.returncode == 0
    assert (
        "classes: the 8 labels of this file, alphabetically; say --classes where another order is meant" in done.stdout
    )
    assert "8 videos (0 missing) of 8 classes (official JSON)" in done.stdout
    assert read_manifest(again).fingerprint() == read_manifest(output / "train.parquet").fingerprint()


def test_a_list_without_labels_is_prepared_with_a_warning(tmp_path):
    for name in ("1", "2"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "000001.jpg").touch()
    (tmp_path / "somesomev2_rgb_test_split.txt").write_text("1 46 0\n2 45 0\n")
    done = prepare(
        *("ssv2", "--annotations", tmp_path / "somesomev2_rgb_test_split.txt", "--videos", tmp_path / "videos"),
        *("--output", tmp_path / "test.parquet"),
    )
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ")
    assert "can't be scored" in done.stderr


def test_imagenets_archives_become_manifests_in_one_command(tmp_path):
    archives = tmp_path / "archives"
    assert prepare("standin", "imagenet", "--output", archives, "--train", 12, "--val", 6).returncode == 0
    done = prepare("imagenet", archives, "--output", tmp_path / "out")
    assert "train.parquet: 12 images of 6 classes" in done.stdout
    assert "note: val: 6 images of 6 classes; ImageNet-1K has 50,000 of 1,000" in done.stdout
    assert read_manifest(tmp_path / "out" / "val.parquet").fingerprint() in done.stdout
    refused = prepare("imagenet", "--val", archives / "ILSVRC2012_img_val.tar", "--output", tmp_path / "none")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("give --devkit ILSVRC2012_devkit_t12.tar.gz")


def test_ade20k_and_own_masks_become_manifests_in_one_command(tmp_path):
    data = tmp_path / "ADEChallengeData2016"
    assert prepare("standin", "ade20k", "--output", data, "--train", 6, "--val", 2).returncode == 0
    done = prepare("ade20k", tmp_path, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "looking at images and label maps: 8/8 pairs" in done.stderr
    manifest = read_manifest(tmp_path / "out" / "train.parquet")
    assert f"train.parquet: 6 images with label maps of 8 classes, fingerprint {manifest.fingerprint()}" in done.stdout
    assert "note: train: 6 images, the benchmark has 20,210" in done.stdout
    refused = prepare("ade20k", data, "--output", tmp_path / "none", "--maps", "reduced")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("say --maps as-released")

    (data / "classes.txt").write_text("\n".join(manifest.class_names))
    (data / "annotations" / "training" / "ADE_train_00000003.png").unlink()
    own = ("segmentation", "--images", data / "images", "--masks", data / "annotations", "--zero-is-ignored")
    own = (*own, "--classes", data / "classes.txt", "--output", tmp_path / "own")
    refused = prepare(*own)
    assert refused.returncode == 2
    assert "1 of 8 images without a label map: train/ADE_train_00000003; pairs have one name" in refused.stderr
    assert not (tmp_path / "own" / "train.parquet").exists()
    done = prepare(*own, "--leave-out-faulty")
    assert done.returncode == 0, done.stderr
    assert "train.parquet: 6 images with label maps (1 unavailable) of 8 classes" in done.stdout
    listed = (tmp_path / "own" / "left-out.tsv").read_text().splitlines()
    assert listed[1:] == ["train\ttrain/ADE_train_00000003\timages without a label map\ttrain/ADE_train_00000003"]

"""From a user's own files to manifests and an experiment: what is written, kept, said and refused."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphmlp.config import load_config
from morphmlp.data.datasets.own_folder import read_class_folders, read_own_csv
from morphmlp.data.datasets.splits import SplitRule
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.errors import ManifestError
from morphmlp.preparation.own_data import OwnDataJob, prepare_own_data


class Quiet:
    """Progress that nobody watches."""

    def phase(self, title, *, total, unit):
        pass

    def update(self, done, note=""):
        pass

    def line(self, text):
        pass


def video(path, *, seed, frames=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, 16, 16, 3), dtype=np.uint8)
    write_video(path, pixels)
    return path


def folder_of(root, **counts):
    """Class folders with so many different videos each."""
    for place, (name, count) in enumerate(counts.items()):
        for number in range(count):
            video(root / name / f"{number}.mp4", seed=1000 * place + number)
    return root


def prepare(root, output, *, found=None, split="1/1/1", **options):
    job = OwnDataJob(
        output=output, dataset="mine", source={"folder": str(root)}, rule=SplitRule.parse(split), **options
    )
    return prepare_own_data(found or read_class_folders(root), job, progress=Quiet())


def placed(done):
    return {
        video_id: split
        for split, manifest in done.manifests.items()
        for video_id in manifest.table["video_id"].to_pylist()
    }


def faults_of(call):
    with pytest.raises(ManifestError) as caught:
        call()
    return str(caught.value).splitlines()


def test_a_folder_becomes_manifests_a_class_list_and_an_experiment_that_loads(tmp_path):
    root = folder_of(tmp_path / "my videos", run=6, **{"Größe 2": 3, "sit": 3})
    done = prepare(root, tmp_path / "out")
    assert [path.name for path in done.files] == [
        "train.parquet",
        "val.parquet",
        "test.parquet",
        "classes.txt",
        "experiment.yaml",
    ]
    assert (tmp_path / "out" / "classes.txt").read_text() == "Größe 2\nrun\nsit\n"
    for split in ("train", "val", "test"):
        read = read_manifest(tmp_path / "out" / f"{split}.parquet")
        assert (read.class_names, read.task, read.items) == (("Größe 2", "run", "sit"), "classification", "videos")
        assert Counter(read.table["label"].to_pylist()) == {0: 1, 1: 2, 2: 1}
        assert all(Path(path).is_file() for path in read.table["path"].to_pylist())
    config = load_config(tmp_path / "out" / "experiment.yaml")
    assert (config.dataset, config.model.num_classes) == ("mine", 3)
    assert config.data.val == str(tmp_path / "out" / "val.parquet")


def test_a_video_that_is_added_later_moves_no_other_and_a_new_class_comes_last(tmp_path):
    root = folder_of(tmp_path / "videos", run=9, sit=9)
    first = prepare(root, tmp_path / "out")
    for name, numbers in (("ape", range(3)), ("run", range(9, 15))):
        for number in numbers:
            video(root / name / f"{number}.mp4", seed=5000 + 100 * len(name) + number + ord(name[0]))
    second = prepare(root, tmp_path / "out")
    assert {name: placed(second)[name] for name in placed(first)} == placed(first)
    assert (tmp_path / "out" / "classes.txt").read_text() == "run\nsit\nape\n"
    assert Counter(split for name, split in placed(second).items() if name.startswith("run")) == dict.fromkeys(
        ("train", "val", "test"), 5
    )
    assert any("experiment.yaml is kept as it is" in note for note in second.notes)


@pytest.mark.parametrize("change", [{"split": "80/20"}, {"group_pattern": "(.+)"}])
def test_an_output_that_was_divided_otherwise_is_refused(tmp_path, change):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    prepare(root, tmp_path / "out")
    [line] = faults_of(lambda: prepare(root, tmp_path / "out", **change))
    assert line.startswith(f"{tmp_path / 'out'}: was prepared otherwise ({next(iter(change))} ")


def test_manifests_of_something_else_are_never_written_over(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    prepare(root, tmp_path / "out")
    (tmp_path / "out" / "prepared.json").unlink()
    assert "holds train.parquet of something else" in faults_of(lambda: prepare(root, tmp_path / "out"))[0]


@pytest.mark.parametrize(
    ("names", "order"),
    [(("10", "9", "1"), "1\n9\n10\n"), (("b", "10", "a"), "10\na\nb\n"), (("b", "Z", "ä"), "Z\nb\nä\n")],
)
def test_the_order_of_classes_is_that_of_numbers_or_letters(tmp_path, names, order):
    prepare(folder_of(tmp_path / "videos", **dict.fromkeys(names, 3)), tmp_path / "out")
    assert (tmp_path / "out" / "classes.txt").read_text() == order


def test_given_classes_keep_their_order_and_must_be_those_of_the_folder(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    (tmp_path / "list.txt").write_text("sit\nrun\n")
    done = prepare(root, tmp_path / "out", classes=tmp_path / "list.txt")
    assert done.manifests["train"].class_names == ("sit", "run")
    (tmp_path / "list.txt").write_text("sit\nwalk\n")
    assert faults_of(lambda: prepare(root, tmp_path / "other", classes=tmp_path / "list.txt")) == [
        f"{tmp_path / 'list.txt'}: class 'walk' has no videos",
        f"{tmp_path / 'list.txt'}: doesn't have class 'run'",
    ]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"run": 3}, "there is only one class, 'run'"),
        ({"run": 3, "sit": 2, "walk": 1}, "classes 'sit', 'walk' have fewer than the 3 videos that 3 splits need"),
        ({"run": 3, "Run": 3, "sit": 3}, "classes 'Run', 'run' differ only in capitals, spaces or underscores"),
        ({"go_up": 3, "go up": 3}, "classes 'go up', 'go_up' differ only in capitals, spaces or underscores"),
    ],
)
def test_classes_that_can_not_be_used_are_refused_and_nothing_is_written(tmp_path, counts, told):
    root = folder_of(tmp_path / "videos", **counts)
    assert told in faults_of(lambda: prepare(root, tmp_path / "out"))[0]
    assert not (tmp_path / "out").exists()


def test_copies_stay_in_one_split_and_are_counted(tmp_path):
    root = folder_of(tmp_path / "videos", run=9, sit=3)
    for number in range(3):
        shutil.copy(root / "run" / "0.mp4", root / "run" / f"copy {number}.mp4")
    (root / "run" / "link.mp4").symlink_to(root / "run" / "0.mp4")
    done = prepare(root, tmp_path / "out")
    assert len({placed(done)[f"run/{name}.mp4"] for name in ("0", "copy 0", "copy 1", "copy 2", "link")}) == 1
    assert "copies of other videos, byte for byte: 4; each is in the same split as the first" in done.notes


def test_one_file_of_two_classes_is_refused(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    shutil.copy(root / "run" / "0.mp4", root / "sit" / "same.mp4")
    assert faults_of(lambda: prepare(root, tmp_path / "out")) == [
        "run/0.mp4, sit/same.mp4 are the same file, of different classes; each video has one"
    ]


def test_one_file_in_two_given_splits_is_refused(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    shutil.copy(root / "run" / "0.mp4", root / "run" / "same.mp4")
    rows = [
        f"{path.relative_to(root)},{path.parent.name},{split}"
        for path in sorted(root.rglob("*.mp4"))
        for split in (["val"] if path.name in ("same.mp4", "1.mp4") else ["train"])
    ]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    found = read_own_csv(tmp_path / "list.csv", root=root)
    assert faults_of(lambda: prepare(root, tmp_path / "out", found=found)) == [
        "run/0, run/same are the same file, in train and val; keep one"
    ]


@pytest.mark.parametrize("source", ["column", "pattern"])
def test_clips_of_one_source_stay_in_one_split_whatever_names_it(tmp_path, source):
    root = tmp_path / "videos"
    for name in ("run", "sit"):
        for number in range(9):
            video(root / name / f"s{number // 3}_{number}.mp4", seed=len(name) * number + ord(name[0]) * 100)
    found, options = read_class_folders(root), {"group_pattern": r"^(s\d)_"}
    if source == "column":
        rows = [f"{each.video_id},{each.label},{each.video_id.split('/')[1][:2]}" for each in found.videos]
        (tmp_path / "list.csv").write_text("path,label,who\n" + "\n".join(rows))
        found, options = read_own_csv(tmp_path / "list.csv", root=root, group_column="who"), {}
    splits = placed(prepare(root, tmp_path / "out", found=found, **options))
    sources = {}
    for name, split in splits.items():
        assert sources.setdefault(name.split("/")[1][:2], split) == split
    assert set(sources.values()) == {"train", "val", "test"}


def test_a_source_in_two_given_splits_is_refused(tmp_path):
    root = folder_of(tmp_path / "videos", run=2, sit=2)
    (tmp_path / "list.csv").write_text(
        "path,label,split,who\nrun/0.mp4,run,train,ann\nsit/0.mp4,sit,val,ann\nrun/1.mp4,run,val,bob\nsit/1.mp4,sit,train,cy\n"
    )
    found = read_own_csv(tmp_path / "list.csv", root=root, group_column="who")
    [line] = faults_of(lambda: prepare(root, tmp_path / "out", found=found))
    assert line == "group 'ann' is in train and val, as run/0, sit/0"


def test_files_that_can_not_be_opened_stay_for_verify_and_are_counted(tmp_path):
    root = folder_of(tmp_path / "videos", run=6, sit=6)
    (root / "run" / "5.mp4").write_bytes(b"")
    (root / "sit" / "5.mp4").write_bytes(b"no video")
    done = prepare(root, tmp_path / "out")
    assert sum(map(len, done.manifests.values())) == 12
    assert "empty files: 1" in done.notes
    assert any(note.startswith("2 of 12 videos looked at can't be used, as ") for note in done.notes)
    assert any("stops where they are more than 1% of a split" in note for note in done.notes)


def test_where_not_one_can_be_opened_nothing_is_written(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    for path in root.rglob("*.mp4"):
        path.write_bytes(str(path).encode())
    assert "not one of 6 videos could be opened" in faults_of(lambda: prepare(root, tmp_path / "out"))[0]
    assert not (tmp_path / "out").exists()


def test_two_shares_leave_the_test_to_the_validation_videos(tmp_path):
    done = prepare(folder_of(tmp_path / "videos", run=5, sit=5), tmp_path / "out", split="80/20")
    assert {split: len(manifest) for split, manifest in done.manifests.items()} == {"train": 8, "val": 2}
    config = load_config(tmp_path / "out" / "experiment.yaml")
    assert config.data.test == config.data.val
    assert config.test.checkpoint == "last"
    assert any("fewer than 5 training videos" in note for note in done.notes)
    single = "val has one video each of classes 'run', 'sit': right or wrong, it moves the score by 50.0 points"
    assert single in done.notes


def test_images_are_videos_of_one_frame_for_a_network_without_time(tmp_path):
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([ord(name[0]), number]).integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"photo {number}.jpg")
    done = prepare(root, tmp_path / "out")
    assert done.manifests["train"].items == "images"
    config = load_config(tmp_path / "out" / "experiment.yaml")
    assert (config.model.temporal, config.clip.num_frames) == ("none", 1)


def test_what_was_asked_for_is_written_down(tmp_path):
    root = folder_of(tmp_path / "videos", run=3, sit=3)
    prepare(root, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "prepared.json").read_text()) == {
        "source": {"folder": str(root)},
        "split": "1/1/1",
        "seed": 0,
        "group_column": None,
        "group_pattern": None,
    }


@pytest.mark.parametrize(
    "names", [("0 jump", "1 run"), ("1 jump", "2 run"), ("level 1", "stage 2"), ("A, 0", "B, 1"), ('"quoted"', "plain")]
)
def test_a_second_run_takes_the_names_as_the_first_one_did_whatever_they_look_like(names, tmp_path):
    root = folder_of(tmp_path / "videos", **dict.fromkeys(names, 3))
    first = prepare(root, tmp_path / "out")
    again = prepare(root, tmp_path / "out")
    assert again.manifests["train"].class_names == first.manifests["train"].class_names == tuple(sorted(names))


def test_a_preparation_that_was_stopped_before_its_manifests_is_continued(tmp_path):
    root = folder_of(tmp_path / "videos", a=3, b=3)
    first = placed(prepare(root, tmp_path / "out"))
    for path in (tmp_path / "out").iterdir():
        if path.name != "prepared.json":
            path.unlink()
    assert placed(prepare(root, tmp_path / "out")) == first
    (tmp_path / "out" / "prepared.json").write_text('{"source"')
    with pytest.raises(ManifestError, match=r"prepared\.json: is damaged; choose another --output, or remove"):
        prepare(root, tmp_path / "out")


def test_another_column_of_groups_is_another_division(tmp_path):
    root = folder_of(tmp_path / "videos", a=3, b=3)
    prepare(root, tmp_path / "out")
    with pytest.raises(ManifestError, match=r"was prepared otherwise .group_column None, asked for who"):
        prepare(root, tmp_path / "out", group_column="who")


def given_splits(root, **splits):
    """A CSV that says of each video in which split it is."""
    rows = [f"{name}/{number}.mp4,{name},{split}" for name, said in splits.items() for number, split in enumerate(said)]
    (root / "list.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    return read_own_csv(root / "list.csv", root=root)


def test_a_split_that_is_gone_does_not_leave_its_manifest_behind(tmp_path):
    root = folder_of(tmp_path / "videos", a=3, b=3)
    prepare(root, tmp_path / "out", found=given_splits(root, a=["train", "val", "test"], b=["train", "val", "test"]))
    with pytest.raises(ManifestError, match=r"holds test\.parquet, which would be empty now"):
        prepare(root, tmp_path / "out", found=given_splits(root, a=["train", "val", "val"], b=["train", "val", "val"]))


def test_a_class_of_few_videos_that_are_divided_already_is_noted_and_not_refused(tmp_path):
    root = folder_of(tmp_path / "videos", a=3, z=2)
    done = prepare(root, tmp_path / "out", found=given_splits(root, a=["train", "val", "test"], z=["train", "val"]))
    assert "test has no videos of class 'z'" in done.notes
    assert "test has one video of class 'a': right or wrong, it moves the score by 100.0 points" in done.notes


def test_a_picture_next_to_a_video_is_passed_over_and_no_video_of_frames(tmp_path):
    for seed, name in enumerate(("jump/s0", "jump/s1", "run/s0", "run/s1")):
        place = video(tmp_path / "videos" / name / "v.mp4", seed=seed).parent
        Image.new("RGB", (8, 8)).save(place / "cover1.jpg")
    found = read_class_folders(tmp_path / "videos")
    assert (found.items, len(found.videos), found.passed_over["pictures"]) == ("videos", 4, 4)

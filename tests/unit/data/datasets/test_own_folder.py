"""Class folders and CSVs of a user's own: what is found, what is passed over, what is refused. No video is opened."""

import os
import shutil

import pytest

from morphmlp.data.datasets.own_folder import joined, read_class_folders, read_own_csv
from morphmlp.errors import ManifestError


def fill(root, *paths):
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
    return root


def found(root, **options):
    return [(video.video_id, video.label) for video in read_class_folders(root, **options).videos]


def faults_of(call):
    with pytest.raises(ManifestError) as caught:
        call()
    return str(caught.value).splitlines()


def test_the_folder_below_the_root_is_the_class_however_deep_a_file_lies(tmp_path):
    root = fill(tmp_path, "run/b.mp4", "run/a b.MOV", "Größe/tief/unten/c.webm")
    read = read_class_folders(root)
    assert [(video.video_id, video.label) for video in read.videos] == [
        ("Größe/tief/unten/c.webm", "Größe"),
        ("run/a b.MOV", "run"),
        ("run/b.mp4", "run"),
    ]
    assert [video.path for video in read.videos] == [str(root / video.video_id) for video in read.videos]
    assert read.items == "videos"
    assert list(read.notes) == ["class Größe: 1 of its 1 videos lie in folders further down"]


def test_frames_in_a_folder_are_a_video_and_so_is_an_archive(tmp_path):
    fill(tmp_path, "run/clip/00001.jpg", "run/clip/00002.jpg", "run/packed.zip", "sit/x.mp4", "sit/other/img_1.png")
    assert found(tmp_path) == [
        ("run/clip", "run"),
        ("run/packed.zip", "run"),
        ("sit/other", "sit"),
        ("sit/x.mp4", "sit"),
    ]


def test_pictures_right_in_a_class_folder_are_images(tmp_path):
    fill(tmp_path, "cat/1.jpg", "cat/2.JPEG", "dog/x.png")
    read = read_class_folders(tmp_path)
    assert (read.items, len(read.videos)) == ("images", 3)


@pytest.mark.parametrize(
    ("items", "ids"),
    [("videos", ["cat/v.mp4", "dog/w.mp4"]), ("images", ["cat/1.jpg", "cat/more/a.jpg", "dog/x.png"])],
)
def test_where_there_are_both_the_user_says_which(tmp_path, items, ids):
    fill(tmp_path, "cat/1.jpg", "cat/v.mp4", "dog/x.png", "dog/w.mp4", "cat/more/a.jpg")
    assert "3 videos (files, or folders of frames) and 2 pictures" in faults_of(lambda: read_class_folders(tmp_path))[0]
    if items == "videos":
        shutil.rmtree(tmp_path / "cat" / "more")
    read = read_class_folders(tmp_path, items=items)
    assert [video.video_id for video in read.videos] == ids
    assert read.passed_over == {"pictures" if items == "videos" else "videos": 2}


def test_pictures_in_a_folder_that_are_no_frames_are_asked_about(tmp_path):
    fill(tmp_path, "run/trip/IMG_2034.jpg", "run/trip/IMG_2040.jpg", "run/a.mp4", "sit/b.mp4")
    [line] = faults_of(lambda: read_class_folders(tmp_path))
    assert "frame 1 is missing" in line
    assert "say --items images" in line
    assert ("run/trip", "run") in found(tmp_path, items="videos")


def test_what_is_passed_over_is_counted_and_links_are_followed(tmp_path):
    fill(tmp_path / "root", "run/a.mp4", "run/notes.txt", "run/.DS_Store", "run/Thumbs.db", "sit/b.mp4", "readme.md")
    elsewhere = fill(tmp_path / "elsewhere", "c.mp4", "more/d.mp4")
    root = tmp_path / "root"
    (root / "stand").symlink_to(elsewhere)
    (root / "sit" / "again").symlink_to(root / "sit")
    (root / "sit" / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (root / "LICENSE").write_text("")
    read = read_class_folders(root)
    assert [video.video_id for video in read.videos] == ["run/a.mp4", "sit/b.mp4", "stand/c.mp4", "stand/more/d.mp4"]
    assert read.passed_over == {
        ".txt": 1,
        "hidden": 1,
        ".db": 1,
        ".md": 1,
        "without extension": 1,
        "links to a folder above": 1,
        "links that lead nowhere": 1,
    }


def test_all_that_can_not_be_used_is_named_at_once(tmp_path):
    fill(tmp_path, "run/a.mp4", "walk/notes.txt")
    (tmp_path / "sit").mkdir()
    fill(tmp_path, os.fsdecode(b"run/\xfcb.mp4"))
    lines = faults_of(lambda: read_class_folders(tmp_path))
    assert [line.partition(": ")[0] for line in lines] == [
        f"{tmp_path}/run/\\xfcb.mp4",
        f"{tmp_path}/sit",
        f"{tmp_path}/walk",
    ]
    assert "isn't named in UTF-8" in lines[0]
    assert "holds no videos; put some into it, or remove the folder" in lines[1]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ((), "no such folder; it must hold a folder for each class"),
        (("a.mp4",), "holds no folders; each class needs one"),
        (("train/run/a.mp4", "valid/run/b.mp4"), "give --train {root}/train --val {root}/valid"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, paths, told):
    root = tmp_path / "root"
    fill(root, *paths)
    [line] = faults_of(lambda: read_class_folders(root))
    assert told.format(root=root) in line


def test_folders_of_splits_keep_their_split_and_must_hold_one_kind(tmp_path):
    parts = [read_class_folders(fill(tmp_path / split, "run/a.mp4"), split=split) for split in ("train", "val")]
    assert [(video.video_id, video.split) for video in joined(parts).videos] == [
        ("train/run/a.mp4", "train"),
        ("val/run/a.mp4", "val"),
    ]
    images = read_class_folders(fill(tmp_path / "test", "run/a.jpg"), split="test")
    assert "hold images and others videos" in faults_of(lambda: joined([*parts, images]))[0]


def listed(tmp_path, text, **options):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    return read_own_csv(tmp_path / "list.csv", root=tmp_path, **options)


def test_a_csv_names_labels_splits_and_sources(tmp_path):
    fill(tmp_path, "x/a.mp4", "x/b.mp4", "c.webm")
    read = listed(
        tmp_path,
        'path,label,split,person\nx/a.mp4,7,train,ann\n"x/b",010,,bob\nc.webm,run fast,Validation,\n',
        group_column="Person",
    )
    assert [(video.video_id, video.label, video.split, video.group) for video in read.videos] == [
        ("x/a", "7", "train", "ann"),
        ("x/b", "010", None, "bob"),
        ("c", "run fast", "val", None),
    ]
    assert read.items == "videos"


def test_a_csv_may_list_images_but_not_both(tmp_path):
    fill(tmp_path, "a.jpg", "b.PNG", "c.mp4")
    assert listed(tmp_path, "path;label\na.jpg;x\nb.PNG;y\n").items == "images"
    assert "lists 1 images and 1 videos" in faults_of(lambda: listed(tmp_path, "path,label\na.jpg,x\nc.mp4,y\n"))[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.mp4,run\n", "its first line must name the columns: path,label or path,label,split"),
        ("", "its first line must name the columns"),
        ("path,label\na.mp4,\n", ":2: label is empty; each line needs a path and a label"),
        ("path,label,split\na.mp4,run,dev\n", ":2: split is 'dev'; it must be one of train, val, test, or empty"),
        ("path,label\ngone.mp4,run\n", ":2: no such file: "),
        ("path,label\na.mp4,run\na.mp4,sit\n", ":3: duplicate: a stands on line 2 already"),
    ],
)
def test_what_is_wrong_with_a_csv_is_told_with_its_line(tmp_path, text, told):
    fill(tmp_path, "a.mp4")
    assert told in faults_of(lambda: listed(tmp_path, text))[0]


def test_a_column_that_is_not_there_is_named(tmp_path):
    fill(tmp_path, "a.mp4")
    [line] = faults_of(lambda: listed(tmp_path, "path,label\na.mp4,run\n", group_column="who"))
    assert "has no column 'who' (--group-column), but path, label" in line

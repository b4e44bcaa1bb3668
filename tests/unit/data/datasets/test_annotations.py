"""Annotations as they circulate: every form, for every data set, becomes one manifest, or a line says why not."""

import codecs
import csv
import json
import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.datasets.lines import split_of
from morphmlp.data.datasets.something import SOMETHING
from morphmlp.data.decoding.stored_frames.frame_stores import open_packed_frames
from morphmlp.data.manifest import write_manifest
from morphmlp.errors import ManifestError
from morphmlp.preparation.copies import CopyFiles
from morphmlp.preparation.copy_tasks import PackTask
from morphmlp.preparation.ray_verify import VerifyTask

DATA_SETS = ("k400", "ssv1", "ssv2")
CLASSES = ("run fast", "walk")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")


def read(data_set, path, **options):
    if data_set == "k400":
        return read_annotations(path, **options)
    return read_annotations(path, data_set=SOMETHING[data_set], **options)


def rows_of(found):
    names = ("video_id", "label", "split", "path", "num_frames", "available")
    return sorted(tuple(row[name] for name in names) for row in found.manifest.table.to_pylist())


def faults_of(call):
    with pytest.raises(ManifestError) as caught:
        call()
    return str(caught.value).splitlines()


PATH_LISTS = {
    "spaces": "run_fast/one.mp4 0\nwalk/two.mp4 1\n",
    "commas": "run_fast/one.mp4,0\nwalk/two.mp4,1\n",
    "tabs": "run_fast/one.mp4\t0\nwalk/two.mp4\t1\n",
    "semicolons": "run_fast/one.mp4;0\nwalk/two.mp4;1\n",
    "commas and spaces": "run_fast/one.mp4 , 0\nwalk/two.mp4,  1",
    "quotes": '"run_fast/one.mp4",0\n"walk/two.mp4","1"\n',
    "quotes and spaces": '"run_fast/one.mp4" 0\n"walk/two.mp4" 1\n',
    "Windows' line ends": "run_fast/one.mp4,0\r\nwalk/two.mp4,1\r\n",
    "Windows' paths": "run_fast\\one.mp4 0\r\nwalk\\two.mp4 1\r\n",
    "blank lines": "\nrun_fast/one.mp4 0\n\n\nwalk/two.mp4 1\n\n",
    "no extensions": "run_fast/one 0\nwalk/two 1\n",
    "extensions in capitals": "run_fast/one.MP4 0\nwalk/two.Mp4 1\n",
    "detours": "./run_fast/one.mp4 0\nrun_fast/../walk//two.mp4 1\n",
    "full paths": "{videos}/run_fast/one.mp4 0\n{videos}/walk/two.mp4 1\n",
    "full paths of another machine": "/mnt/share/k/run_fast/one.mp4 0\n/mnt/share/k/walk/two.mp4 1\n",
    "full paths of Windows": "D:\\k\\run_fast\\one.mp4 0\nD:\\k\\walk\\two.mp4 1\n",
    "full paths of no machine": "/run_fast/one.mp4 0\n/walk/two.mp4 1\n",
    "a header": "path,label\nrun_fast/one.mp4,0\nwalk/two.mp4,1\n",
    "a header in capitals": "Path;Label\nrun_fast/one.mp4;0\nwalk/two.mp4;1\n",
    "names of classes": "path,label\nrun_fast/one.mp4,run fast\nwalk/two.mp4,walk\n",
    "many columns": 'id,clip_path,label,split\n1,run_fast/one.mp4,"run_fast",train\n2,walk/two.mp4,walk,train\n',
    "a column of numbers": ",path,label\n0,run_fast/one.mp4,0\n1,walk/two.mp4,1\n",
    "separators at the end": "run_fast/one.mp4,0,\nwalk/two.mp4,1,,\n",
    "lines in quotes": '"run_fast/one.mp4,0"\n"walk/two.mp4,1"\n',
    "ids from 1": "run_fast/one.mp4 1\nwalk/two.mp4 2\n",
    "class folders alone": "run_fast/one.mp4\nwalk/two.mp4\n",
}


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("form", PATH_LISTS)
def test_every_form_of_a_path_list_gives_the_same_manifest(tmp_path, data_set, form):
    videos = tmp_path / "videos"
    touch(videos, "run_fast/one.mp4", "walk/two.mp4")
    (tmp_path / "train.csv").write_bytes(PATH_LISTS[form].replace("{videos}", str(videos)).encode())
    found = read(data_set, tmp_path / "train.csv", videos=videos, class_names=CLASSES)
    assert rows_of(found) == [
        ("run_fast/one", 0, "train", f"{videos}/run_fast/one.mp4", None, True),
        ("walk/two", 1, "train", f"{videos}/walk/two.mp4", None, True),
    ]


FRAME_LISTS = {
    "spaces": "run_fast/one 60 0\nwalk/two 45 1\n",
    "tabs": "run_fast/one\t60\t0\nwalk/two\t45\t1\n",
    "commas": "run_fast/one,60,0\nwalk/two,45,1\n",
    "quotes": '"run_fast/one" 60 0\n"walk/two" 45 1\n',
    "full paths of another machine": "/home/x/frames/run_fast/one 60 0\n/home/x/frames/walk/two 45 1\n",
    "many columns": "frame_dir,total_frames,label\nrun_fast/one,60,0\nwalk/two,45,1\n",
    "ids from 1": "run_fast/one 60 1\nwalk/two 45 2\n",
}


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("form", FRAME_LISTS)
@pytest.mark.parametrize("stored", ["folders", "packed"])
def test_every_form_of_a_frame_list_gives_the_same_manifest(tmp_path, data_set, form, stored):
    ending = "/00001.jpg" if stored == "folders" else ".zip"
    touch(tmp_path / "videos", f"run_fast/one{ending}", f"walk/two{ending}")
    # A file next to the frames may have others: its count isn't the list's.
    touch(tmp_path / "videos", "run_fast/one.mp4")
    (tmp_path / "val_list.txt").write_text(FRAME_LISTS[form])
    found = read(data_set, tmp_path / "val_list.txt", videos=tmp_path / "videos", class_names=CLASSES)
    suffix = "" if stored == "folders" else ".zip"
    assert rows_of(found) == [
        ("run_fast/one", 0, "val", f"{tmp_path}/videos/run_fast/one{suffix}", 60, True),
        ("walk/two", 1, "val", f"{tmp_path}/videos/walk/two{suffix}", 45, True),
    ]


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc"
OFFICIAL = {
    "csv": f"{KINETICS}\nrun fast,-a,7,17,train,0\nwalk,b_c,0,10,train,1\n",
    "quoted csv": '"label","youtube_id","time_start","time_end","split"\n'
    '"run fast","-a","7","17","train"\n"walk","b_c","0","10","train"\n',
    "csv of a spreadsheet": f"{KINETICS}\nrun fast,-a,7.0,17.0,train,0\nwalk,b_c,0,10,train,1\n".replace(",", ";"),
    "csv by tabs": f"{KINETICS}\nrun fast,-a,7,17,train,0\nwalk,b_c,0,10,train,1\n".replace(",", "\t"),
    "json": json.dumps(
        {
            "-a": {"annotations": {"label": "run fast", "segment": [7.0, 17.0]}, "duration": 10.0, "subset": "train"},
            "b_c": {"annotations": {"label": "walk", "segment": [0, 10]}, "subset": "training", "url": "https://x.y/z"},
        }
    ),
}


@pytest.mark.parametrize("form", OFFICIAL)
@pytest.mark.parametrize("mark", ["", "UTF-8", "UTF-16"])
def test_every_form_of_kinetics_own_annotations_gives_the_same_manifest(tmp_path, form, mark):
    touch(tmp_path / "videos", "run fast/-a_000007_000017.mp4", "walk/b_c_000000_000010.mp4")
    start = {"": b"", "UTF-8": codecs.BOM_UTF8, "UTF-16": codecs.BOM_UTF16_LE}[mark]
    text = OFFICIAL[form].encode("utf-16-le" if mark == "UTF-16" else "utf-8")
    (tmp_path / "kinetics").write_bytes(start + text)
    found = read_annotations(tmp_path / "kinetics", videos=tmp_path / "videos")
    assert rows_of(found) == [
        ("-a_000007_000017", 0, "train", f"{tmp_path}/videos/run fast/-a_000007_000017.mp4", None, True),
        ("b_c_000000_000010", 1, "train", f"{tmp_path}/videos/walk/b_c_000000_000010.mp4", None, True),
    ]
    assert found.manifest.class_names == CLASSES


@pytest.mark.parametrize(
    "place",
    ["train/n.mp4", "train/run_fast/n.MP4", "n.mpg", "run fast/n/img_00001.jpg", "train/run fast/n.zip", "n.ts"],
)
def test_kinetics_videos_are_found_in_every_layout(tmp_path, place):
    named = place.replace("/n", "/x_000007_000017") if "/" in place else f"x_000007_000017{place[1:]}"
    touch(tmp_path / "videos", named)
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end,split\nrun fast,x,7,17,train\n")
    (row,) = rows_of(read_annotations(tmp_path / "train.csv", videos=tmp_path / "videos"))
    assert row[3] == f"{tmp_path}/videos/{named.removesuffix('/img_00001.jpg')}"


@pytest.mark.parametrize("where", ["replacement/replacement_for_corrupted_k400", "replacement"])
def test_the_files_that_replace_corrupt_ones_are_taken_and_told(tmp_path, where):
    touch(tmp_path, "train/a_000000_000010.mp4", "train/b_000000_000010.mp4", f"{where}/b_000000_000010.mp4")
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nwalk,a,0,10,train\nwalk,b,0,10,train\n"
    )
    found = read_annotations(tmp_path / "train.csv", videos=tmp_path)
    assert [row[3] for row in rows_of(found)] == [
        f"{tmp_path}/train/a_000000_000010.mp4",
        f"{tmp_path}/{where}/b_000000_000010.mp4",
    ]
    assert found.warnings == (f"1 videos are those of {tmp_path}/replacement",)


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_ids_do_not_depend_on_where_the_data_set_is_mounted(tmp_path, data_set):
    prints = []
    for mount in ("a", "b/c"):
        touch(tmp_path / mount / "k", "x/1.mp4", "x/2.mp4")
        (tmp_path / mount / "train.txt").write_text(f"{tmp_path}/{mount}/k/x/1.mp4 0\n{tmp_path}/{mount}/k/x/2.mp4 1\n")
        found = read(data_set, tmp_path / mount / "train.txt", videos=tmp_path / mount / "k")
        prints.append(found.manifest.fingerprint())
    (tmp_path / "here").symlink_to(tmp_path / "a")
    found = read(data_set, tmp_path / "a/train.txt", videos=tmp_path / "here/k")
    assert [*prints, found.manifest.fingerprint()] == prints[:1] * 3


def test_what_another_machines_paths_stand_for_is_told(tmp_path):
    touch(tmp_path, "k/train/x/1.mp4")
    (tmp_path / "train.txt").write_text("/data/kinetics/train/x/1.mp4 0\n/data/kinetics/train/x/2.mp4 0\n")
    found = read_annotations(tmp_path / "train.txt", videos=tmp_path / "k", allow_missing=True)
    assert [row[:1] + row[3:4] for row in rows_of(found)] == [
        ("train/x/1", f"{tmp_path}/k/train/x/1.mp4"),
        ("train/x/2", f"{tmp_path}/k/train/x/2.mp4"),
    ]
    assert f"/data/kinetics/ in the list is taken for {tmp_path}/k/" in found.warnings


def test_a_file_beside_another_of_the_same_name_and_other_extension_is_no_duplicate(tmp_path):
    touch(tmp_path, "same.mp4", "same.avi", "one.mp4", "same.mp4.mkv")
    (tmp_path / "train.txt").write_text("same.mp4 0\nsame.avi 1\none.mp4 2\nsame.mp4.mkv 3\n")
    found = read_annotations(tmp_path / "train.txt", videos=tmp_path)
    assert [row[:2] for row in rows_of(found)] == [("one", 2), ("same.avi", 1), ("same.mp4", 0), ("same.mp4.mkv", 3)]


@pytest.mark.parametrize("second", ["a.mp4 1", "./a.mp4 0", "a 0", "{here}/a.mp4 0"])
def test_one_file_by_two_names_is_a_duplicate(tmp_path, second):
    touch(tmp_path, "a.mp4")
    (tmp_path / "train.txt").write_text(f"a.mp4 0\n{second.format(here=tmp_path)}\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path))
    assert line.startswith(f"{tmp_path}/train.txt:2: duplicate: ")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", ".mp4", ".avi", ".mp4.mkv"])), unique=True))
def test_every_file_of_a_list_gets_an_id_of_its_own(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("ids")
    names = [stem + extension for stem, extension in files]
    touch(folder, *names)
    (folder / "train.txt").write_text("".join(f"{name},0\n" for name in ["other.mp4", *names]))
    touch(folder, "other.mp4")
    found = read_annotations(folder / "train.txt", videos=folder).manifest.table.to_pylist()
    assert len({row["video_id"] for row in found}) == len(names) + 1
    assert {row["path"] for row in found} == {f"{folder}/{name}" for name in ["other.mp4", *names]}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
@pytest.mark.parametrize("data_set", DATA_SETS)
def test_accents_match_in_whatever_form_they_are_stored(tmp_path, data_set, in_list, on_disk):
    name = "Zähne putzen/Übung é.mp4"
    stored = unicodedata.normalize(on_disk, name)
    touch(tmp_path / "videos", stored, "jump/1.mp4")
    (tmp_path / "train.csv").write_text(unicodedata.normalize(in_list, f"{name},1\njump/1.mp4,0\n"))
    classes = ["jump", unicodedata.normalize(on_disk, "Zähne putzen")]
    found = read(data_set, tmp_path / "train.csv", videos=tmp_path / "videos", class_names=classes)
    assert rows_of(found)[0][:2] == ("Zähne putzen/Übung é", 1)
    assert rows_of(found)[0][3] == f"{tmp_path}/videos/{stored}"
    assert os.path.exists(rows_of(found)[0][3])  # noqa: PTH110 - a Path would be another way to the same
    assert not found.warnings


def test_labels_match_in_whatever_form_their_accents_are_stored(tmp_path):
    touch(tmp_path, "a_000000_000010.mp4")
    label = "Zähne putzen"
    (tmp_path / "train.csv").write_text(
        f"label,youtube_id,time_start,time_end,split\n{unicodedata.normalize('NFC', label)},a,0,10,train\n"
    )
    classes = ["jump", unicodedata.normalize("NFD", label)]
    assert rows_of(read_annotations(tmp_path / "train.csv", videos=tmp_path, class_names=classes))[0][1] == 1


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_names_that_are_not_text_are_named_and_mended_by_renaming(tmp_path, data_set):
    folder = tmp_path / "videos"
    touch(folder, "a.mp4")
    with open(os.fsencode(folder) + b"/\xfcbung.mp4", "wb") as file:  # noqa: PTH123 - the name has no text
        file.write(b"content")
    (tmp_path / "train.csv").write_text("a.mp4,0\nübung.mp4,1\n")
    lines = faults_of(lambda: read(data_set, tmp_path / "train.csv", videos=folder))
    assert lines[0] == f"{tmp_path}/train.csv:2: no such file: {folder}/übung.mp4"
    assert "1 names there aren't UTF-8 text, so no list can name them; rename them (`convmv -t utf8`): " in lines[1]
    assert lines[1].endswith(f"{folder}/\\xfcbung.mp4")


def test_a_folder_of_videos_whose_name_is_not_text_is_refused_in_a_line(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xfcbung")
    os.mkdir(folder)  # noqa: PTH102 - as below
    (tmp_path / "train.csv").write_text("a.mp4,0\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "train.csv", videos=folder))
    assert line.startswith(f"--videos: {tmp_path}/\\xfcbung isn't UTF-8 text")


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_a_template_of_frames_names_stands_behind_their_folders_and_all_that_reads_them_knows_it(tmp_path, data_set):
    """A folder with two pictures a frame: what verify finds, and packs, are those of the template."""
    for number in range(1, 5):
        touch(tmp_path / "videos", f"x/1/left_{number:05}.png", f"x/1/right_{number:05}.png")
        for side, colour in (("left", number), ("right", 99)):
            picture = Image.new("RGB", (8, 6), (colour, colour, colour))
            picture.save(tmp_path / "videos" / "x" / "1" / f"{side}_{number:05}.png")
    touch(tmp_path / "videos", "x/2.zip")
    (tmp_path / "train.txt").write_text("x/1 4 0\nx/2 4 1\n")
    found = read(data_set, tmp_path / "train.txt", videos=tmp_path / "videos", frame_template="left_{:05}.png")
    first, second = rows_of(found)
    assert first == ("x/1", 0, "train", f"{tmp_path}/videos/x/1/left_%05d.png", 4, True)
    assert second[3] == f"{tmp_path}/videos/x/2.zip"

    verified = VerifyTask(decoder="pyav", timeout_s=60.0)({"video_id": "x/1", "path": first[3], "num_frames": 4})
    assert (verified["num_frames"], verified["codec"], verified["damaged_frames"]) == (4, "png", 0)
    files = CopyFiles(folder=tmp_path / "packed", name="train")
    packed = PackTask(files=files)({"video_id": "x/1", "path": first[3], "num_frames": 4})
    frames = open_packed_frames(str(packed["output"])).read(range(4)).frames
    assert frames[:, 0, 0, 0].tolist() == [1, 2, 3, 4]


def test_a_template_where_there_are_no_folders_of_frames_is_pointed_at(tmp_path):
    touch(tmp_path, "x/1.mp4")
    (tmp_path / "train.txt").write_text("x/1.mp4 0\n")
    found = read_annotations(tmp_path / "train.txt", videos=tmp_path, frame_template="img_{:05}.jpg")
    assert found.warnings == ("--frame-template says nothing here: not one of the videos is a folder of frames",)


def test_what_is_no_template_of_frames_names_is_refused_in_a_line(tmp_path):
    (tmp_path / "train.txt").write_text("x/1 4 0\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path, frame_template="img_*.jpg"))
    assert line.startswith("--frame-template: 'img_*.jpg' must be a file name with one number and .jpg or .png")


REFUSED = {
    "several classes": ("a/1.mp4 1 3 5\nb/2.mp4 0\n", 1, "has 3 numbers (1, 3, 5), which may be several classes"),
    "a count of a video file": ("a/1.mp4 300 5\n", 1, "has 2 numbers (300, 5)"),
    "several classes of frames": (
        "a/1 60 1\nb/2 60 1 5\n",
        2,
        "b/2 has more than a frame count and a class id (60, 1, 5)",
    ),
    "an offset": ("a/1 0 60 1\n", 1, "has more than a frame count and a class id"),
    "several classes in a column": ("path,labels\na/1.mp4,1 3\nb/2.mp4,0\n", 2, "labels is '1 3'; it must be one"),
    "several classes everywhere": ('path,labels\na/1.mp4,"1,3"\nb/2.mp4,"0,2"\n', 2, "labels is '1,3'; it must be one"),
    "a path without a class": ("a/1.mp4 0\nb/2.mp4\n", 2, "unreadable line 'b/2.mp4'"),
    "a class among paths without": ("a/1.mp4\nb/2.mp4 0\n", 1, "unreadable line 'a/1.mp4'"),
    "half a class": ("a/1.mp4 0.5\n", 1, "unreadable line 'a/1.mp4 0.5'"),
    "an empty cell": ("path,label,x\na/1.mp4,0,1\n,0,1\n", 3, "path is '' and label '0'"),
    "an address": ("s3://bucket/a/1.mp4 0\n", 1, "s3://bucket/a/1.mp4 is an address"),
    "a split that is none": ("path,label,split\na/1.mp4,0,dev\n", 2, "split is 'dev'"),
    "a count that is none": ("path,label,num_frames\na/1,0,many\n", 2, "num_frames is 'many'"),
    "a line of another form": (
        "a/1 60 0\nb/2 0\n",
        2,
        "unreadable line 'b/2 0'; it must be `<path> <frame count> <class id>`",
    ),
    "an open quote": ('path,label,x\n"a/1.mp4,0,1\n', 2, "unreadable line"),
}


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_list_of_one_class_each_is_refused_with_its_line(tmp_path, data_set, case):
    content, line, fault = REFUSED[case]
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "a/1/00001.jpg", "b/2/00001.jpg")
    (tmp_path / "train.txt").write_text(content)
    first, *_ = faults_of(lambda: read(data_set, tmp_path / "train.txt", videos=tmp_path))
    assert first.startswith(f"{tmp_path}/train.txt:{line}: ")
    assert fault in first


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a.mp4,0\0\n", "isn't a text file: it holds bytes of 0"),
        ("a.mp4,0\n".encode("utf-16-le"), "isn't a text file: it holds bytes of 0"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8\n", "isn't a text file: it begins like UTF-16"),
        (b"PAR1\x15\x04", "isn't a text file but a Parquet file"),
        (b"", "holds no videos"),
        (b"\n \n", "holds no videos"),
        (b"path,label\n", "holds no videos"),
    ],
)
@pytest.mark.parametrize("data_set", DATA_SETS)
def test_a_file_that_holds_no_list_is_refused_in_a_line(tmp_path, data_set, content, fault):
    (tmp_path / "train.csv").write_bytes(content)
    (line,) = faults_of(lambda: read(data_set, tmp_path / "train.csv", videos=tmp_path))
    assert line.startswith(f"{tmp_path}/train.csv: {fault}")


def test_a_line_of_words_and_a_number_is_no_header(tmp_path):
    touch(tmp_path, "name of a class.mp4", "2.mp4")
    (tmp_path / "train.txt").write_text("name of a class 0\n2 1\n")
    table = read_annotations(tmp_path / "train.txt", videos=tmp_path).manifest.table
    assert table["label"].to_pylist() == [0, 1]


def test_ids_in_another_order_than_the_class_names_are_told_by_the_folders(tmp_path):
    touch(tmp_path, "run_fast/1.mp4", "walk/2.mp4", "other/3.mp4")
    (tmp_path / "train.txt").write_text("run_fast/1.mp4 1\nwalk/2.mp4 0\nother/3.mp4 0\n")
    lines = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path, class_names=CLASSES))
    for place, (line, folder, number) in enumerate([(1, "run_fast", 0), (2, "walk", 1)]):
        fault = f"class id {1 - number} isn't that of its folder {folder!r}, which is class {number} of --classes; "
        assert lines[place].startswith(f"{tmp_path}/train.txt:{line}: {fault}")
    assert len(lines) == 2


def test_a_list_that_was_cleaned_may_give_some_videos_another_class_than_their_folders(tmp_path):
    touch(tmp_path, *(f"walk/{number}.mp4" for number in range(4)))
    (tmp_path / "train.txt").write_text("walk/0.mp4 1\nwalk/1.mp4 1\nwalk/2.mp4 1\nwalk/3.mp4 0\n")
    found = read_annotations(tmp_path / "train.txt", videos=tmp_path, class_names=CLASSES)
    assert [row[1] for row in rows_of(found)] == [1, 1, 1, 0]
    assert found.warnings == ("1 of 4 videos have another class than the folder in which they lie",)


def test_ucf101s_lists_are_read_with_its_class_names(tmp_path):
    """Training lists count classes from 1, test lists name none; both take the class that the folder has."""
    names = ["v_ApplyEyeMakeup_g08_c01", "v_Archery_g01_c01"]
    touch(tmp_path, f"ApplyEyeMakeup/{names[0]}.avi", f"Archery/{names[1]}.avi")
    (tmp_path / "trainlist01.txt").write_text(f"ApplyEyeMakeup/{names[0]}.avi 1\nArchery/{names[1]}.avi 2\n")
    (tmp_path / "testlist01.txt").write_text(f"Archery/{names[1]}.avi\n")
    options = {"videos": tmp_path, "class_names": ["ApplyEyeMakeup", "Archery"]}
    train = read_annotations(tmp_path / "trainlist01.txt", **options)
    test = read_annotations(tmp_path / "testlist01.txt", **options)
    assert [row[1:3] for row in rows_of(train)] == [(0, "train"), (1, "train")]
    assert [row[1:3] for row in rows_of(test)] == [(1, "test")]
    assert train.warnings == ("class ids of the list count from 1, as its folders show; they are taken from 0 on",)


def test_ids_from_1_without_class_names_are_pointed_at(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "train.txt").write_text("a/1.mp4 1\nb/2.mp4 2\n")
    found = read_annotations(tmp_path / "train.txt", videos=tmp_path)
    assert "class ids go from 1 to 2, and no video has 0" in found.warnings[0]
    lines = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path, class_names=["x", "y"]))
    assert lines[0].endswith("class id 2 is outside the 2 classes, 0 to 1, and those of the list seem to count from 1")


def test_a_split_file_of_hmdb51_is_refused_by_name(tmp_path):
    touch(tmp_path, "April_09.avi", "b.avi")
    (tmp_path / "brush_hair_test_split1.txt").write_text("April_09.avi 1 \nb.avi 2 \n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "brush_hair_test_split1.txt", videos=tmp_path))
    assert "is a split file of HMDB51, whose numbers say train (1), test (2) or unused (0)" in line


def test_all_faults_of_kinetics_json_come_at_once_with_their_lines(tmp_path):
    touch(tmp_path, "a_000000_000010.mp4")
    videos = {
        "a": {"annotations": {"label": "walk", "segment": [0, 10]}, "subset": "train"},
        "b": {"annotations": {"label": "walk", "segment": ["x", 10]}, "subset": "train"},
        "c": {"annotations": {"label": "wlak", "segment": [0, 10]}, "subset": "dev"},
        "d": {"annotations": {"label": "wlak", "segment": [0, 10]}, "subset": "train"},
    }
    lines = [f"{json.dumps(name)}: {json.dumps(video)}" for name, video in videos.items()]
    path = tmp_path / "train.json"
    path.write_text("{\n" + ",\n".join([*lines, lines[0]]) + "\n}")
    lines = faults_of(lambda: read_annotations(path, videos=tmp_path, class_names=CLASSES))
    for number, fault in {
        3: "time_start is 'x' and time_end '10'; both must be seconds",
        4: "split is 'dev'",
        5: "label 'wlak' is none of the 2 classes; 'walk' is",
        6: "duplicate: a_000000_000010 stands on line 2 already",
    }.items():
        assert any(line.startswith(f"{path}:{number}: ") and fault in line for line in lines), fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": {"subset": "test", "url": "x"}}', "1: not one of its 1 videos has annotations: the list has no labels"),
        ('{"labels": {}, "database": {}}', "1: not the official JSON of Kinetics, which is {<youtube id>: "),
        ('{"labels": [1]}', "1: not a JSON object of Kinetics' videos: this is not an object"),
        ('[{"id": "1"}]', "1: not a JSON object of Kinetics' videos: it must begin with {"),
        ('{"a": {}\n "b": {}}', "2: not a JSON object of Kinetics' videos: Expecting ',' or '}'"),
        ('{"a"\n 5}', "2: not a JSON object of Kinetics' videos: Expecting a name and ':'"),
    ],
)
def test_json_that_is_not_kinetics_is_refused_with_its_line(tmp_path, content, fault):
    (tmp_path / "x.json").write_text(content)
    first, *_ = faults_of(lambda: read_annotations(tmp_path / "x.json", videos=tmp_path))
    assert first.startswith(f"{tmp_path}/x.json:{fault}")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("trainlist01.txt", "train"),
        ("testlist03.txt", "test"),
        ("kinetics400_val_list_videos.txt", "val"),
        ("hmdb51_train_split_1_rawframes.txt", "train"),
        ("something-something-v2-validation.json", "val"),
        ("list.txt", None),
        ("trainval.txt", None),
        ("train_test.txt", None),
        ("contest.txt", None),
    ],
)
def test_a_files_name_says_its_split(tmp_path, name, split):
    assert split_of(tmp_path / name) == split


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_a_manifest_of_any_list_can_be_written(tmp_path, data_set):
    touch(tmp_path, "Übung/1.mp4", "x/2.mp4")
    (tmp_path / "train.txt").write_text("Übung/1.mp4 0\nx/2.mp4 1\n")
    found = read(data_set, tmp_path / "train.txt", videos=tmp_path)
    write_manifest(found.manifest, tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("given", "meant"), [("k400/videos", "k400"), ("k400/videos/train/walk", "k400"), ("", "k400"), ("elsewhere", None)]
)
def test_where_all_videos_are_missing_the_folder_that_was_meant_is_named(tmp_path, given, meant):
    touch(tmp_path, "k400/videos/train/walk/1.mp4", "elsewhere/1/2/3/4/x")
    (tmp_path / "train.txt").write_text("videos/train/walk/1.mp4 0\nvideos/train/walk/2.mp4 0\n")
    hints = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path / given))[2:-1]
    expected = (
        f"{tmp_path / given}: holds none of them, but {tmp_path / 'k400'} does; give --videos {tmp_path / 'k400'}"
    )
    assert hints == ([expected] if meant else [])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "train.txt").write_text("loop/1.mp4 0\n")
    lines = faults_of(lambda: read_annotations(tmp_path / "train.txt", videos=tmp_path))
    assert f"{tmp_path}/loop: can't be listed" in lines[0]


def documented_forms():
    """The lines of each form in the documents' table."""
    page = (Path(__file__).parents[4] / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("## Annotation files")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return ["\n".join(re.findall(r"`([^`]+)`", cell)) for cell in cells]


@pytest.mark.parametrize("lines", documented_forms())
def test_every_form_of_the_documents_is_read(tmp_path, lines):
    touch(tmp_path, "abseiling/x.mp4", "abseiling/one, two.mp4", "abseiling/x/00001.jpg", "4711/00001.jpg")
    touch(tmp_path, "train/abseiling/x_000007_000017.mp4")
    (tmp_path / "train.txt").write_text(lines + "\n")
    found = read("ssv2" if "4711" in lines else "k400", tmp_path / "train.txt", videos=tmp_path)
    ((video_id, label, split, _, _, available),) = rows_of(found)
    assert (label, split, available) == (0, "train", True)
    assert video_id in {"abseiling/x", "abseiling/one, two", "x_000007_000017", "4711"}


def test_the_documents_have_a_form_of_every_kind():
    assert len(documented_forms()) == 10


stems = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"], exclude_characters="/\\"), min_size=1, max_size=12
)


@given(
    names=st.lists(stems.map(str.strip).filter(lambda name: name not in {"", ".", ".."}), min_size=1, max_size=4),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    delimiter=st.sampled_from(",;\t"),
    header=st.booleans(),
)
def test_any_file_name_comes_back_from_what_a_csv_library_writes(tmp_path_factory, names, quoting, delimiter, header):
    folder = tmp_path_factory.mktemp("names")
    paths = sorted({unicodedata.normalize("NFC", f"{name}.mp4") for name in names})
    touch(folder / "videos", *paths)
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=quoting, delimiter=delimiter)
        writer.writerows([["path", "label"]] if header else [])
        writer.writerows([path, number] for number, path in enumerate(paths))
    table = read_annotations(folder / "train.csv", videos=folder / "videos").manifest.table.to_pylist()
    assert [(row["path"], row["label"]) for row in table] == [
        (f"{folder}/videos/{path}", number) for number, path in enumerate(paths)
    ]


pieces = st.sampled_from(
    [
        *(
            "a/1.mp4",
            "a/1",
            "b.mp4",
            "label",
            "path",
            "youtube_id",
            "split",
            "time_start",
            "time_end",
            "id",
            "template",
        ),
        *(" ", ",", ";", "\t", "\n", "\r\n", '"', "0", "1", "60", "-", ".", "/", "\\", "..", "[", "]", "{", "}", ":"),
        *("annotations", "segment", "subset", "train", "null", "9" * 400, "9" * 5000, "1e999", "é", "\ufeff", "\u0085"),
    ]
)


@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(pieces, max_size=30).map("".join).map(str.encode),
        st.lists(pieces, max_size=20).map("".join).map(lambda text: f'{{"a": {text}}}'.encode()),
        st.lists(pieces, max_size=20).map(" ".join).map(lambda text: f"path,num_frames,label\n{text}\n".encode()),
    ),
    data_set=st.sampled_from(DATA_SETS),
    classes=st.sampled_from([None, CLASSES]),
)
def test_whatever_a_file_holds_it_is_read_or_refused_in_lines(tmp_path_factory, content, data_set, classes):
    folder = tmp_path_factory.mktemp("any")
    touch(folder / "videos", "a/1.mp4", "b.mp4")
    (folder / "train.txt").write_bytes(content)
    options = {"videos": folder / "videos", "class_names": classes, "allow_missing": True}
    with suppress(ManifestError):
        found = read(data_set, folder / "train.txt", **options)
        write_manifest(found.manifest, folder / "train.parquet")

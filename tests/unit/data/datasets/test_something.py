"""Annotations of Something-Something become manifests: all formats, all faults with their lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.datasets.something import SOMETHING, read_templates, without_brackets
from morphmlp.data.manifest import read_manifest, write_manifest
from morphmlp.errors import ManifestError

PUSH, PULL, UP = "Pushing something from left to right", "Pulling something onto something", "Moving something up"
TEMPLATES = (UP, PULL, PUSH)


def frames(folder, *video_ids):
    for video_id in video_ids:
        (folder / video_id).mkdir(parents=True)
        (folder / video_id / "00001.jpg").write_bytes(b"jpeg")


def files(folder, *names):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).write_bytes(b"video")


def faults_of(call):
    with pytest.raises(ManifestError) as caught:
        call()
    return str(caught.value).splitlines()


def write_json(path, videos):
    path.write_text("[\n" + ",\n".join(json.dumps(video) for video in videos) + "\n]\n")
    return path


def entry(video_id, template, **more):
    return {"id": video_id, "label": "pushing a cup", "template": template, "placeholders": ["a cup"], **more}


def test_a_frame_list_gives_folders_of_frames_and_their_counts(tmp_path):
    frames(tmp_path / "v1", "4711", "8")
    (tmp_path / "somesomev1_rgb_train_split.txt").write_text("4711 45 2\n8 30 0\n")
    found = read_annotations(
        tmp_path / "somesomev1_rgb_train_split.txt",
        data_set=SOMETHING["ssv1"],
        videos=tmp_path / "v1",
        class_names=TEMPLATES,
    )
    rows = found.manifest.table.to_pylist()
    assert [(row["video_id"], row["label"], row["split"], row["num_frames"]) for row in rows] == [
        ("4711", 2, "train", 45),
        ("8", 0, "train", 30),
    ]
    assert rows[0]["path"] == str(tmp_path / "v1" / "4711")
    assert all(row["available"] for row in rows)
    assert (found.form, found.manifest.class_names, found.warnings) == ("frame list", TEMPLATES, ())


def test_a_frame_list_without_class_names_takes_the_numbers(tmp_path):
    frames(tmp_path / "v1", "4711")
    (tmp_path / "val.txt").write_text("4711 45 173\n")
    found = read_annotations(tmp_path / "val.txt", data_set=SOMETHING["ssv1"], videos=tmp_path / "v1")
    assert found.class_order == "the numbers 0 to 173"
    assert found.manifest.class_names == tuple(map(str, range(174)))


@pytest.mark.parametrize("version", ["ssv1", "ssv2"])
def test_packed_frames_are_taken_where_the_folder_is_not_there_or_empty(tmp_path, version):
    frames(tmp_path / "v", "1", "2")
    files(tmp_path / "v", "2.zip", "3.zip", "4.zip")
    (tmp_path / "v" / "4").mkdir()
    (tmp_path / "train.txt").write_text("".join(f"{number} 20 {number}\n" for number in (1, 2, 3, 4)))
    table = read_annotations(tmp_path / "train.txt", data_set=SOMETHING[version], videos=tmp_path / "v").manifest.table
    names = [path.rsplit("/", 1)[1] for path in table["path"].to_pylist()]
    assert names == ["1", "2", "3.zip", "4.zip"]
    assert table["size_bytes"].to_pylist()[2:] == [5, 5]


def test_a_frame_list_takes_no_video_file_whose_frames_may_be_others(tmp_path):
    files(tmp_path / "v", "1.webm")
    (tmp_path / "train.txt").write_text("1 117 5\n")
    line, *_ = faults_of(
        lambda: read_annotations(tmp_path / "train.txt", data_set=SOMETHING["ssv2"], videos=tmp_path / "v")
    )
    assert line == f"{tmp_path}/train.txt:1: no video 1"


def test_the_official_csv_takes_ids_in_alphabetical_order_whatever_the_label_file_s(tmp_path):
    frames(tmp_path / "v", "100218", "9")
    (tmp_path / "labels.csv").write_text(f"{PUSH}\n{UP}\n{PULL}\n")
    path = tmp_path / "something-something-v1-validation.csv"
    path.write_text(f"100218;{PULL}\n9;{PUSH}\n")
    templates = read_templates(tmp_path / "labels.csv")
    assert templates == TEMPLATES
    found = read_annotations(path, data_set=SOMETHING["ssv1"], videos=tmp_path / "v", class_names=templates)
    assert found.manifest.table["label"].to_pylist() == [1, 2]
    assert found.manifest.table["split"].to_pylist() == ["val", "val"]
    assert found.manifest.table["num_frames"].to_pylist() == [None, None]
    assert found.form == "official CSV"


def test_a_template_may_hold_commas(tmp_path):
    frames(tmp_path / "v", "1")
    (tmp_path / "train.csv").write_text("1;Putting something, something and something on the table\n")
    found = read_annotations(tmp_path / "train.csv", data_set=SOMETHING["ssv1"], videos=tmp_path / "v")
    assert found.manifest.class_names == ("Putting something, something and something on the table",)
    assert found.class_order == "the 1 labels of this file, alphabetically"


def test_the_official_json_gives_webm_videos_with_the_ids_of_the_label_file(tmp_path):
    files(tmp_path / "v", "78687.webm", "42.webm", "42.mp4")
    labels = tmp_path / "something-something-v2-labels.json"
    labels.write_text(json.dumps({PUSH: "0", UP: "2", PULL: "1"}))
    path = write_json(
        tmp_path / "something-something-v2-train.json",
        [entry("78687", "Pulling [something] onto [something]"), entry("42", "Moving [something] up")],
    )
    templates = read_templates(labels)
    assert templates == (PUSH, PULL, UP)
    found = read_annotations(path, data_set=SOMETHING["ssv2"], videos=tmp_path / "v", class_names=templates)
    assert found.manifest.table["label"].to_pylist() == [1, 2]
    assert found.manifest.table["split"].to_pylist() == ["train", "train"]
    assert found.manifest.table["path"].to_pylist() == [
        str(tmp_path / "v" / name) for name in ("78687.webm", "42.webm")
    ]


@pytest.mark.parametrize("place", ["7.webm", "7.mp4", "7/000001.jpg", "7.zip"])
def test_the_official_json_finds_videos_frames_and_packed_frames(tmp_path, place):
    files((tmp_path / "v" / place).parent, (tmp_path / "v" / place).name)
    path = write_json(tmp_path / "validation.json", [entry("7", PUSH)])
    (row,) = read_annotations(path, data_set=SOMETHING["ssv2"], videos=tmp_path / "v").manifest.table.to_pylist()
    assert row["path"] == str(tmp_path / "v" / place.partition("/")[0])


def test_what_was_read_can_be_written_and_serves_as_the_classes_of_another_list(tmp_path):
    frames(tmp_path / "v", "1", "2")
    (tmp_path / "train.csv").write_text(f"1;{PUSH}\n2;{UP}\n")
    found = read_annotations(tmp_path / "train.csv", data_set=SOMETHING["ssv1"], videos=tmp_path / "v")
    write_manifest(found.manifest, tmp_path / "train.parquet")
    assert read_manifest(tmp_path / "train.parquet").fingerprint() == found.manifest.fingerprint()
    assert read_templates(tmp_path / "train.parquet") == (UP, PUSH)


def test_all_faults_of_a_frame_list_come_at_once_in_the_order_of_lines(tmp_path):
    frames(tmp_path / "v", "1", "2", "3", "4")
    (tmp_path / "v" / "5").mkdir()
    path = tmp_path / "train.txt"
    path.write_bytes(b"1 20 0\n1 20 1\n2 0 1\n3 many 1\n4 20 3\n\n5 20 1\n6 20 1\n7 20\n8 20 one\n\xff 20 1\n")
    lines = faults_of(
        lambda: read_annotations(path, data_set=SOMETHING["ssv1"], videos=tmp_path / "v", class_names=TEMPLATES)
    )
    expected = {
        2: "duplicate: 1 stands on line 1 already",
        3: "frame count '0' of video 2 must be a whole number above 0",
        4: "frame count 'many' of video 3",
        5: "class id 3 is outside the 3 classes, 0 to 2",
        7: "v/5 is an empty folder; it must hold the frames of the video",
        8: "no video 6",
        9: "unreadable line '7 20'; it must be `<path> <frame count> <class id>`",
        10: "class id 'one' of video 8 must be a whole number",
        11: "it must be UTF-8 text",
    }
    for line, (number, fault) in zip(lines, expected.items(), strict=False):
        assert line.startswith(f"{path}:{number}: ")
        assert fault in line
    assert lines[-2] == f"{tmp_path}/v: looked for folders <path>, <path>.zip"
    assert lines[-1].endswith("2 of 4 videos are missing; --allow-missing continues without")


def test_all_faults_of_the_official_csv_come_at_once(tmp_path):
    frames(tmp_path / "v", "1", "2", "3")
    path = tmp_path / "train.csv"
    path.write_text(f"1;{PUSH}\n1;{UP}\n2;Pushing something from left to rihgt\nnonsense\n3;\n")
    lines = faults_of(
        lambda: read_annotations(path, data_set=SOMETHING["ssv1"], videos=tmp_path / "v", class_names=TEMPLATES)
    )
    for number, fault in {
        2: "duplicate: 1 stands on line 1 already",
        3: f"label 'Pushing something from left to rihgt' is none of the 3 classes; {PUSH!r} is",
        4: "unreadable line 'nonsense'; it must be `<video id>;<template>`",
        5: "video 3 has no template; it's the test list",
    }.items():
        assert any(line.startswith(f"{path}:{number}: ") and fault in line for line in lines), fault


def test_all_faults_of_the_official_json_come_at_once_with_the_lines_of_the_objects(tmp_path):
    files(tmp_path / "v", "1.webm", "2.webm", "3.webm")
    path = write_json(
        tmp_path / "train.json",
        [entry("1", PUSH), entry("2", "Moving [something] upp"), entry("1", UP), {"id": "3"}, {"template": UP}],
    )
    lines = faults_of(
        lambda: read_annotations(path, data_set=SOMETHING["ssv2"], videos=tmp_path / "v", class_names=TEMPLATES)
    )
    for number, fault in {
        3: f"label 'Moving something upp' is none of the 3 classes; {UP!r} is",
        4: "duplicate: 1 stands on line 2 already",
        5: "video 3 has no template; each object must have both, as text",
        6: "video ? has no id",
    }.items():
        assert any(line.startswith(f"{path}:{number}: ") and fault in line for line in lines), fault


def test_the_official_test_list_is_refused_in_one_line(tmp_path):
    files(tmp_path / "v", "1.webm")
    path = write_json(tmp_path / "something-something-v2-test.json", [{"id": "1"}, {"id": "2"}])
    (line,) = faults_of(lambda: read_annotations(path, data_set=SOMETHING["ssv2"], videos=tmp_path / "v"))
    assert "not one of its 2 videos has a template: it's the test list, which comes without labels" in line
    assert "take the validation list" in line


def test_a_test_list_whose_labels_are_all_0_is_read_with_a_warning(tmp_path):
    frames(tmp_path / "v", "1", "2")
    (tmp_path / "somesomev2_rgb_test_split.txt").write_text("1 46 0\n2 45 0\n")
    path = tmp_path / "somesomev2_rgb_test_split.txt"
    (warning,) = read_annotations(path, data_set=SOMETHING["ssv2"], videos=tmp_path / "v").warnings
    assert "all 2 videos have class id 0" in warning


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ('[{"id": "1",\n "template"}]', 2, "not a JSON list of objects"),
        ('{"1": "x"}', 1, "it must begin with ["),
        ('[{"id": "1", "template": "x"}\n{"id": "2"}]', 2, "Expecting ',' or ']'"),
        ('[{"id": "1", "template": "x"},\n"2"]', 2, "this is not an object"),
        ('[{"id": "1", "template": "x"}]\n]', 2, "Extra data"),
        ('[{"id": "1", "template": "x"},\n', 2, "Expecting value"),
    ],
)
def test_a_file_that_is_no_list_of_objects_is_refused_with_the_line(tmp_path, text, line, fault):
    (tmp_path / "v").mkdir()
    (tmp_path / "train.json").write_text(text)
    first, *_ = faults_of(
        lambda: read_annotations(tmp_path / "train.json", data_set=SOMETHING["ssv2"], videos=tmp_path / "v")
    )
    assert first.startswith(f"{tmp_path}/train.json:{line}: ")
    assert fault in first


@given(
    videos=st.lists(st.tuples(st.text("ab12", min_size=1), st.sampled_from(["Moving [something] up", PUSH]))),
    indent=st.sampled_from([None, 1, 4]),
)
def test_json_is_read_as_the_json_library_reads_it_however_it_is_laid_out(tmp_path_factory, videos, indent):
    folder = tmp_path_factory.mktemp("json")
    (folder / "v").mkdir()
    unique = dict(videos)
    (folder / "train.json").write_text(json.dumps([entry(*video) for video in unique.items()], indent=indent))
    if unique:
        frames(folder / "v", *unique)
        found = read_annotations(folder / "train.json", data_set=SOMETHING["ssv2"], videos=folder / "v").manifest
        seen = [found.class_names[label] for label in found.table["label"].to_pylist()]
        assert dict(zip(found.table["video_id"].to_pylist(), seen, strict=True)) == {
            video_id: without_brackets(template) for video_id, template in unique.items()
        }
    else:
        faults_of(lambda: read_annotations(folder / "train.json", data_set=SOMETHING["ssv2"], videos=folder / "v"))


@pytest.mark.parametrize("content", ["1 20 0\n", f"1;{PUSH}\n", json.dumps([entry("1", PUSH)])])
def test_a_file_that_does_not_say_its_split_asks_for_it(tmp_path, content):
    frames(tmp_path / "v", "1")
    (tmp_path / "list").write_text(content)
    (line,) = faults_of(lambda: read_annotations(tmp_path / "list", data_set=SOMETHING["ssv2"], videos=tmp_path / "v"))
    assert "list:1: neither the list nor its name says the split; give --split train|val|test" in line
    found = read_annotations(tmp_path / "list", data_set=SOMETHING["ssv2"], videos=tmp_path / "v", split="test")
    assert found.manifest.table["split"].to_pylist() == ["test"]


def test_missing_videos_can_be_recorded(tmp_path):
    frames(tmp_path / "v", "1")
    (tmp_path / "train.txt").write_text("1 20 0\n2 20 1\n")
    found = read_annotations(
        tmp_path / "train.txt", data_set=SOMETHING["ssv1"], videos=tmp_path / "v", allow_missing=True
    )
    assert found.manifest.table["available"].to_pylist() == [True, False]
    assert found.manifest.table["path"][1].as_py() == str(tmp_path / "v" / "2")
    assert found.missing == (f"{tmp_path}/train.txt:2: no video 2",)


def test_the_frames_are_not_looked_at(tmp_path):
    frames(tmp_path / "v", "1")
    (tmp_path / "v" / "1" / "00001.jpg").rename(tmp_path / "v" / "1" / "notes.txt")
    (tmp_path / "train.txt").write_text("1 900 0\n")
    assert (
        len(read_annotations(tmp_path / "train.txt", data_set=SOMETHING["ssv1"], videos=tmp_path / "v").manifest) == 1
    )


def test_an_absent_folder_of_videos_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("1 20 0\n")
    (line,) = faults_of(
        lambda: read_annotations(tmp_path / "train.txt", data_set=SOMETHING["ssv1"], videos=tmp_path / "v")
    )
    assert "no such folder of videos" in line


@pytest.mark.parametrize("content", [None, "", "[]"])
def test_absent_and_empty_annotations_are_refused(tmp_path, content):
    (tmp_path / "v").mkdir()
    if content is not None:
        (tmp_path / "train.txt").write_text(content)
    (line,) = faults_of(
        lambda: read_annotations(tmp_path / "train.txt", data_set=SOMETHING["ssv1"], videos=tmp_path / "v")
    )
    assert ("can't be read" if content is None else "holds no videos") in line


def test_the_order_of_templates_is_that_without_their_brackets(tmp_path):
    (tmp_path / "category.txt").write_text("Moving [something] up\nMoving [part] of [something]\nMoving away\n")
    assert read_templates(tmp_path / "category.txt") == (
        "Moving away",
        "Moving part of something",
        "Moving something up",
    )


def test_a_label_file_may_say_its_ids(tmp_path):
    (tmp_path / "ids.txt").write_text("Moving [something] up\t1\nMoving something down\t0\n")
    assert read_templates(tmp_path / "ids.txt") == ("Moving something down", "Moving something up")


def test_all_faults_of_a_label_file_come_at_once(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{\n"a": "0",\n"b": "0",\n"[a]": "1",\n"c": "x",\n"d": "9"\n}')
    lines = faults_of(lambda: read_templates(path))
    expected = {
        3: "class id 0 belongs to 'a' already",
        4: "class 'a' stands on line 2 already",
        5: "class 'c' has id 'x'; it must be a whole number",
        6: "class id 9 leaves a gap; the ids of 5 classes are 0 to 4",
    }
    for line, (number, fault) in zip(lines, expected.items(), strict=True):
        assert line == f"{path}:{number}: {fault}"


def test_a_torn_label_file_is_refused(tmp_path):
    (tmp_path / "labels.json").write_text('{"a": "0",\n')
    (line,) = faults_of(lambda: read_templates(tmp_path / "labels.json"))
    assert f"{tmp_path}/labels.json:2: not JSON" in line

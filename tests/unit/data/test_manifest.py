"""Manifests: what is written is read back, and what isn't one is refused in one line."""

import dataclasses
import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data import columns
from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.errors import ManifestError


def make_manifest(*, labels=(0, 1, 1), sizes=(10, 20, None), classes=("archery", "yoga"), splits=None, ids=None):
    ids = ids or [f"v{number}" for number in range(len(labels))]
    return manifest_from_rows(
        video_ids=ids,
        paths=[f"/videos/{name}.mp4" for name in ids],
        labels=labels,
        splits=splits or ["train"] * len(labels),
        sizes_bytes=sizes,
        class_names=classes,
    )


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def faults_of(call):
    with pytest.raises(ManifestError) as caught:
        call()
    return str(caught.value).splitlines()


def test_a_manifest_reads_back_equal_and_leaves_no_other_file(tmp_path):
    manifest = make_manifest()
    write_manifest(manifest, tmp_path / "new" / "train.parquet")
    again = read_manifest(tmp_path / "new" / "train.parquet")
    assert again.table.equals(manifest.table)
    assert again.class_names == ("archery", "yoga")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["train.parquet"]


def test_missing_videos_are_counted_and_left_out_of_the_available_ones():
    manifest = make_manifest()
    assert (len(manifest), len(manifest.available())) == (3, 2)
    assert manifest.available().table["video_id"].to_pylist() == ["v0", "v1"]


def test_the_fingerprint_holds_for_any_order_and_path_but_not_for_other_labels():
    manifest = make_manifest()
    turned = dataclasses.replace(manifest, table=manifest.table.take([2, 0, 1]))
    assert manifest.fingerprint() == turned.fingerprint()
    assert manifest.fingerprint().startswith("3:")
    assert len(manifest.fingerprint()) == len("3:") + 12
    assert make_manifest(labels=(1, 1, 1)).fingerprint() != manifest.fingerprint()


def test_a_missing_manifest_says_how_to_make_it(tmp_path):
    (line,) = faults_of(lambda: read_manifest(tmp_path / "train.parquet"))
    assert "train.parquet: no such manifest; manifests are written by `python pipelines/prepare.py`" in line


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "m.parquet").write_text("path,label\n")
    (line,) = faults_of(lambda: read_manifest(tmp_path / "m.parquet"))
    assert "is not a Parquet file" in line


def test_a_folder_is_refused(tmp_path):
    (line,) = faults_of(lambda: read_manifest(tmp_path))
    assert "is not a Parquet file" in line


def test_wrong_columns_and_types_are_reported_together(tmp_path):
    table = make_manifest().table.drop_columns(["split"])
    table = table.set_column(2, "label", pa.array(["a", "b", "c"])).append_column("more", pa.array([1, 2, 3]))
    pq.write_table(table.replace_schema_metadata({"class_names": '["a"]'}), tmp_path / "m.parquet")
    (line,) = faults_of(lambda: read_manifest(tmp_path / "m.parquet"))
    for fault in ("has no column split", "has an unknown column more", "column label is string, not int32"):
        assert fault in line


def test_parquet_without_class_names_is_refused(tmp_path):
    pq.write_table(make_manifest().table, tmp_path / "m.parquet")
    (line,) = faults_of(lambda: read_manifest(tmp_path / "m.parquet"))
    assert "carries no class names" in line


def test_empty_cells_are_refused(tmp_path):
    schema = pa.schema([field.with_nullable(True) for field in columns.MANIFEST], {"class_names": '["a"]'})
    rows = [["v"], ["/v.mp4"], [None], ["train"], [True], [1], *([[None]] * (len(schema) - 6))]
    arrays = [pa.array(row, field.type) for row, field in zip(rows, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), tmp_path / "m.parquet")
    (line,) = faults_of(lambda: read_manifest(tmp_path / "m.parquet"))
    assert "column label has empty cells" in line


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        (make_manifest(labels=(), sizes=()), "holds no videos"),
        (make_manifest(sizes=(None, None, None)), "none of its 3 videos is available"),
        (make_manifest(labels=(0, 1, 2)), "labels reach from 0 to 2, its 2 classes from 0 to 1"),
        (make_manifest(ids=["a", "b", "a"]), "1 of 3 rows repeat a video_id"),
        (make_manifest(splits=["train", "dev", "train"]), "split is 'dev'; it must be one of train, val, test"),
    ],
)
def test_rows_that_no_run_could_use_are_refused_when_written_and_when_read(tmp_path, manifest, fault):
    (line,) = faults_of(lambda: write_manifest(manifest, tmp_path / "m.parquet"))
    assert fault in line
    assert not list(tmp_path.iterdir())
    metadata = {"class_names": '["archery", "yoga"]'}
    pq.write_table(manifest.table.replace_schema_metadata(metadata), tmp_path / "m.parquet")
    (line,) = faults_of(lambda: read_manifest(tmp_path / "m.parquet"))
    assert fault in line


@pytest.mark.parametrize("separator", [",", " ", " , ", "\t"])
def test_a_list_may_use_commas_or_spaces(tmp_path, separator):
    touch(tmp_path / "videos", "a.mp4", "sub/b.mkv")
    (tmp_path / "train.csv").write_text(f"a.mp4{separator}1\r\n\r\nsub/b.mkv{separator}0\r\n")
    found = read_annotations(tmp_path / "train.csv", videos=tmp_path / "videos", class_names=["x", "y"])
    rows = found.manifest.table.to_pylist()
    assert [(row["video_id"], row["label"], row["split"]) for row in rows] == [("a", 1, "train"), ("sub/b", 0, "train")]
    assert rows[1]["path"] == str(tmp_path / "videos" / "sub" / "b.mkv")
    assert rows[0]["size_bytes"] == len(b"video")


def test_a_path_may_hold_spaces_dots_and_commas(tmp_path):
    names = ["my video.mp4", "v1.2/clip", "a,b.mp4"]
    touch(tmp_path, *names)
    (tmp_path / "val.txt").write_text("my video.mp4,3\nv1.2/clip,4\na,b.mp4 5\n")
    table = read_annotations(tmp_path / "val.txt", videos=tmp_path).manifest.table
    assert table["video_id"].to_pylist() == ["my video", "v1.2/clip", "a,b"]
    assert table["label"].to_pylist() == [3, 4, 5]


def test_a_list_may_name_files_outside_the_folder(tmp_path):
    touch(tmp_path, "videos/a.mp4", "other/b.mp4", "other/c.mp4")
    (tmp_path / "test.csv").write_text(f"../other/b.mp4,0\n{tmp_path}/other/c.mp4,0\n./a.mp4,0\n")
    found = read_annotations(tmp_path / "test.csv", videos=tmp_path / "videos")
    assert not found.missing
    assert found.manifest.table["path"][0].as_py() == str(tmp_path / "other" / "b.mp4")


def test_all_faults_of_a_list_come_at_once_in_the_order_of_lines(tmp_path):
    touch(tmp_path, "a.mp4", "b.mkv")
    file = tmp_path / "train.csv"
    file.write_bytes(b"a.mp4,0\nnonsense\nb.mp4,1\na.mp4,1\na.mp4\xff,1\nb.mkv,2\nb.mkv.x,-1\n")
    lines = faults_of(lambda: read_annotations(file, videos=tmp_path, class_names=["x", "y"]))
    expected = {
        2: "unreadable line 'nonsense'; it must be `<relative path>,<class id>`",
        3: f"no such file: {tmp_path}/b.mp4; there is b.mkv",
        4: "duplicate: a stands on line 1 already",
        5: "it must be UTF-8 text",
        6: "class id 2 is outside the 2 classes, 0 to 1",
    }
    for line, (number, fault) in zip(lines, expected.items(), strict=False):
        assert line.startswith(f"{file}:{number}: ")
        assert fault in line
    assert any(":7: class id -1 is outside the 2 classes, 0 to 1" in line for line in lines)
    assert lines[-1].endswith("--allow-missing continues without")


def test_no_more_than_twenty_faults_are_named(tmp_path):
    (tmp_path / "train.csv").write_text("".join(f"{number}.mp4,0\n" for number in range(30)))
    lines = faults_of(lambda: read_annotations(tmp_path / "train.csv", videos=tmp_path))
    assert len(lines) == 22
    assert lines[20] == f"{tmp_path}/train.csv: and 10 more"


def test_a_list_without_a_split_asks_for_it(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text("a.mp4,0\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "list.csv", videos=tmp_path))
    assert "list.csv:1: neither the list nor its name says the split; give --split train|val|test" in line
    found = read_annotations(tmp_path / "list.csv", videos=tmp_path, split="val")
    assert found.manifest.table["split"].to_pylist() == ["val"]


@pytest.mark.parametrize(
    "place",
    [
        "validate/riding a bike/AbC-_123456_000010_000020.mp4",
        "val/riding_a_bike/AbC-_123456_000010_000020.mkv",
        "riding a bike/AbC-_123456_000010_000020.webm",
        "AbC-_123456_000010_000020.avi",
        "AbC-_123456.mov",
    ],
)
def test_the_official_csv_finds_its_videos_in_every_layout(tmp_path, place):
    touch(tmp_path / "videos", place)
    file = tmp_path / "val.csv"
    file.write_text(
        'label,youtube_id,time_start,time_end,split,is_cc\n"riding a bike",AbC-_123456,10,20.0,validate,0\n'
    )
    (row,) = read_annotations(file, videos=tmp_path / "videos").manifest.table.to_pylist()
    assert row["video_id"] == "AbC-_123456_000010_000020"
    assert (row["path"], row["split"]) == (str(tmp_path / "videos" / place), "val")


def test_the_official_csv_takes_its_labels_from_a_class_list_or_alphabetically(tmp_path):
    touch(tmp_path, "a_000000_000010.mp4", "b_000000_000010.mp4")
    file = tmp_path / "train.csv"
    file.write_text("label,youtube_id,time_start,time_end,split\nyoga,a,0,10,train\narchery,b,0,10,train\n")
    found = read_annotations(file, videos=tmp_path)
    assert found.manifest.class_names == ("archery", "yoga")
    assert "alphabetically" in found.class_order
    assert found.manifest.table["label"].to_pylist() == [1, 0]
    found = read_annotations(file, videos=tmp_path, class_names=["yoga", "dodgeball", "archery"])
    assert found.manifest.table["label"].to_pylist() == [0, 2]


def test_all_faults_of_the_official_csv_come_at_once(tmp_path):
    touch(tmp_path, "a_000000_000010.mp4")
    file = tmp_path / "train.csv"
    file.write_text(
        "label,youtube_id,time_start,time_end,split\nyoga,a,0,10,train\nyoga,a,0,10,train\nyogga,b,0,10,train\n"
        'yoga,c,zero,10,train\nyoga,d,0\nyoga,e,0,10,dev\n"yoga,f,0,10,train\n,g,0,10,train\n'
    )
    lines = faults_of(lambda: read_annotations(file, videos=tmp_path, class_names=["archery", "yoga"]))
    for number, fault in {
        3: "duplicate: a_000000_000010 stands on line 2 already",
        4: "label 'yogga' is none of the 2 classes; 'yoga' is",
        5: "time_start is 'zero'",
        6: "3 fields, the header has 5",
        7: "split is 'dev'; it must be one of train, val, test",
        8: "unreadable line",
        9: "label is ''",
    }.items():
        assert any(line.startswith(f"{file}:{number}: ") and fault in line for line in lines), fault
    assert any(
        "looked for replacement/<id>_<start>_<end>, <split>/<label>/<id>_<start>_<end>, " in line for line in lines
    )


def test_a_csv_without_a_needed_column_is_refused(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\na,0,10,test\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "test.csv", videos=tmp_path))
    assert "test.csv:1: the header has no label" in line


def test_missing_videos_can_be_recorded(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train.csv").write_text("a.mp4,0\ngone.mp4,1\ndangling.mp4,2\n")
    found = read_annotations(tmp_path / "train.csv", videos=tmp_path, allow_missing=True)
    assert found.manifest.table["available"].to_pylist() == [True, False, False]
    assert found.manifest.table["size_bytes"].to_pylist() == [5, None, None]
    assert found.manifest.table["path"][1].as_py() == str(tmp_path / "gone.mp4")
    assert len(found.missing) == 2


def test_a_folder_that_links_to_itself_ends(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "train.csv").write_text("a.mp4,0\n")
    assert len(read_annotations(tmp_path / "train.csv", videos=tmp_path).manifest) == 1


@pytest.mark.parametrize(("content", "fault"), [(None, "can't be read"), ("", "holds no videos")])
def test_absent_and_empty_annotations_are_refused(tmp_path, content, fault):
    if content is not None:
        (tmp_path / "train.csv").write_text(content)
    (line,) = faults_of(lambda: read_annotations(tmp_path / "train.csv", videos=tmp_path))
    assert fault in line


def test_an_absent_folder_of_videos_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4,0\n")
    (line,) = faults_of(lambda: read_annotations(tmp_path / "train.csv", videos=tmp_path / "videos"))
    assert "no such folder of videos" in line


def test_rows_come_in_the_order_of_the_ids_whatever_the_file_says(tmp_path):
    """The plan permutes rows: a manifest written again in another order must not change a run's stream."""
    ids = ["c", "a", "b"]
    manifest = manifest_from_rows(
        video_ids=ids,
        paths=[f"/{name}.mp4" for name in ids],
        labels=[2, 0, 1],
        splits=["train"] * 3,
        sizes_bytes=[1, 1, 1],
        class_names=["x", "y", "z"],
    )
    write_manifest(manifest, tmp_path / "m.parquet")
    table = read_manifest(tmp_path / "m.parquet").table
    assert table["video_id"].to_pylist() == ["a", "b", "c"]
    assert table["label"].to_pylist() == [0, 1, 2]


def slow_fingerprint(ids, labels):
    """The definition, row by row."""
    digest = hashlib.sha256()
    for name, label in sorted(zip(ids, labels, strict=True)):
        digest.update(f"{name}\t{label}\n".encode())
    return f"{len(ids)}:{digest.hexdigest()[:12]}"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.tuples(words, st.integers(0, 30)), min_size=1, max_size=20))
def test_the_fingerprint_is_a_hash_over_lines_in_the_order_of_the_ids(videos):
    ids, labels = [video[0] for video in videos], [video[1] for video in videos]
    manifest = make_manifest(ids=ids, labels=labels, sizes=[1] * len(ids), classes=["c"] * 31)
    assert manifest.fingerprint() == slow_fingerprint(ids, labels)


def test_the_fingerprint_does_not_drift():
    assert make_manifest().fingerprint() == slow_fingerprint(["v0", "v1", "v2"], [0, 1, 1]) == "3:236a939452b6"


def test_the_fingerprint_of_more_rows_than_are_hashed_at_once_is_the_same_from_any_slice():
    count = 2**18 + 1000
    ids, labels = [f"v{number:07d}" for number in range(count)], [number % 7 for number in range(count)]
    manifest = make_manifest(ids=ids, labels=labels, sizes=[1] * count, classes=["c"] * 7)
    assert manifest.fingerprint() == slow_fingerprint(ids, labels)
    part = dataclasses.replace(manifest, table=manifest.table.slice(5, 2**18 + 3))
    assert part.fingerprint() == slow_fingerprint(ids[5 : 2**18 + 8], labels[5 : 2**18 + 8])


@given(st.lists(words, min_size=1, max_size=20, unique=True))
def test_a_file_holds_its_rows_in_the_order_of_the_ids(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("order") / "m.parquet"
    count = len(ids)
    write_manifest(make_manifest(ids=ids, labels=range(count), sizes=[1] * count, classes=["c"] * count), path)
    rows = pq.read_table(path).select(["video_id", "label"]).to_pylist()
    assert [(row["video_id"], row["label"]) for row in rows] == sorted(zip(ids, range(count), strict=True))


def test_a_file_that_we_did_not_write_in_another_order_is_sorted_when_it_is_read(tmp_path):
    table = make_manifest(sizes=(10, 20, 30)).table
    metadata = {"class_names": '["archery", "yoga"]'}
    pq.write_table(table.take([2, 0, 1]).replace_schema_metadata(metadata), tmp_path / "m.parquet", row_group_size=1)
    again = read_manifest(tmp_path / "m.parquet")
    assert again.table.equals(table)
    assert {column.num_chunks for column in again.table.columns} == {1}


def test_a_file_in_many_row_groups_is_read_into_one_piece_a_column(tmp_path):
    table = make_manifest().table
    metadata = {"class_names": '["archery", "yoga"]'}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "m.parquet", row_group_size=1)
    assert {column.num_chunks for column in read_manifest(tmp_path / "m.parquet").table.columns} == {1}


def test_an_older_file_without_what_verify_fills_in_is_read_with_nulls(tmp_path):
    first = columns.MANIFEST.get_field_index("mtime")
    table = make_manifest().table.select(columns.MANIFEST.names[:first])
    pq.write_table(table.replace_schema_metadata({"class_names": '["archery", "yoga"]'}), tmp_path / "m.parquet")
    again = read_manifest(tmp_path / "m.parquet").table
    assert again.schema.equals(columns.MANIFEST)
    assert all(again[name].null_count == 3 for name in columns.MANIFEST.names[first:])


def test_stated_lengths_are_kept(tmp_path):
    manifest = manifest_from_rows(
        video_ids=["a", "b"],
        paths=["/a", "/b"],
        labels=[0, 0],
        splits=["train", "train"],
        sizes_bytes=[1, 1],
        class_names=["x"],
        num_frames=[37, None],
    )
    write_manifest(manifest, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").table["num_frames"].to_pylist() == [37, None]


def test_only_the_wanted_columns_are_read(tmp_path):
    write_manifest(make_manifest(), tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet", only=["path"])
    assert manifest.table.column_names == ["video_id", "path", "label", "available"]
    assert manifest.fingerprint() == make_manifest().fingerprint()
    assert manifest.available().table["path"].to_pylist() == ["/videos/v0.mp4", "/videos/v1.mp4"]


def test_a_manifest_of_available_videos_is_not_copied():
    manifest = make_manifest(sizes=(1, 2, 3))
    assert manifest.available() is manifest


def test_a_damaged_page_is_refused_in_one_line(tmp_path):
    path = tmp_path / "m.parquet"
    write_manifest(make_manifest(), path)
    content = bytearray(path.read_bytes())
    content[4:120] = bytes(116)
    path.write_bytes(content)
    (line,) = faults_of(lambda: read_manifest(path))
    assert "is not a Parquet file" in line


@pytest.mark.parametrize("place", ["file/train.parquet", "folder"])
def test_a_manifest_that_cannot_be_written_is_reported_in_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (line,) = faults_of(lambda: write_manifest(make_manifest(), tmp_path / place))
    assert line.startswith(f"{tmp_path / place}: can't be written: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]

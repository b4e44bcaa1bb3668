"""What a run checks and records of its videos: classes, fingerprints, and which of them are prepared copies."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from morphmlp.config import load_config
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import ManifestError
from morphmlp.experiment.data_splits import DataSplits, read_splits
from morphmlp.record import Tags

ORIGINALS = manifest_from_rows(
    video_ids=["a"], paths=["a.mp4"], labels=[0], splits=["train"], sizes_bytes=[1], class_names=["yoga"]
)
COPIES = replace(ORIGINALS, prepared='{"how": "transcode"}')


def test_copies_are_recorded_and_have_the_fingerprint_of_their_originals():
    tags = DataSplits(train=COPIES, val=ORIGINALS, test=ORIGINALS).tags()
    assert tags[Tags.DATA_TRAIN] == tags[Tags.DATA_VAL]
    assert {name for name in tags if name.startswith(Tags.PREPARED)} == {Tags.PREPARED + "train"}
    assert tags[Tags.PREPARED + "train"] == '{"how": "transcode"}'


def config_of(folder, **class_names):
    """An experiment whose splits have these classes, and one video each."""
    paths = {}
    for split, names in class_names.items():
        video = folder / f"{split}.mp4"
        video.write_bytes(b"video")
        manifest = manifest_from_rows(
            video_ids=[split], paths=[str(video)], labels=[0], splits=[split], sizes_bytes=[5], class_names=names
        )
        write_manifest(manifest, folder / f"{split}.parquet")
        paths[f"data.{split}"] = str(folder / f"{split}.parquet")
    return load_config(Path(__file__).parents[1] / "small_experiment.yaml", paths)


def test_a_split_whose_labels_mean_other_classes_is_refused_with_the_first_that_differs(tmp_path):
    config = config_of(tmp_path, train=("aa", "bb", "cc"), val=("bb", "cc"), test=("aa", "cc", "bb"))
    with pytest.raises(ManifestError) as caught:
        read_splits(config)
    train = f"data.train {tmp_path}/train.parquet (3 classes)"
    assert str(caught.value).splitlines() == [
        f"data.val: label 0 is 'bb' in {tmp_path}/val.parquet (2 classes), and 'aa' in {train}; make it again with "
        f"--classes {tmp_path}/train.parquet",
        f"data.test: label 1 is 'cc' in {tmp_path}/test.parquet (3 classes), and 'bb' in {train}; make it again with "
        f"--classes {tmp_path}/train.parquet",
    ]


def test_one_manifest_that_serves_as_two_splits_is_told_once(tmp_path):
    config = config_of(tmp_path, train=("aa", "bb"), val=("bb",), test=("aa", "bb"))
    config = replace(config, data=replace(config.data, test=config.data.val))
    with pytest.raises(ManifestError) as caught:
        read_splits(config)
    assert str(caught.value).startswith("data.val: label 0 ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "val",
    [
        ("aa a", "bb", "cc"),
        ("aa a", "bb"),  # further classes don't occur there, and no label means another one
        ("aa_a", "BB", "cc"),
        tuple(map(str, range(400))),  # made of class ids, without names
    ],
)
def test_splits_whose_labels_mean_the_same_are_read(tmp_path, val):
    splits = read_splits(config_of(tmp_path, train=("aa a", "bb", "cc"), val=val, test=("aa a", "bb", "cc")))
    assert splits.val.class_names == val


def experiment_on(folder, manifest, **fields):
    for split in ("train", "val", "test"):
        write_manifest(manifest, folder / f"{split}.parquet")
    paths = {f"data.{split}": str(folder / f"{split}.parquet") for split in ("train", "val", "test")}
    return load_config(Path(__file__).parents[1] / "small_experiment.yaml", {**paths, **fields})


def videos(count, *, classes=4, num_frames=None, fps=None):
    made = manifest_from_rows(
        video_ids=[str(number) for number in range(count)],
        paths=[f"{number}.mp4" for number in range(count)],
        labels=[number % classes for number in range(count)],
        splits=["train"] * count,
        sizes_bytes=[1] * count,
        class_names=[f"class {label}" for label in range(classes)],
    )
    for name, value in (("num_frames", num_frames), ("fps", fps)):
        place = made.table.schema.get_field_index(name)
        field = made.table.schema.field(name)
        made = replace(made, table=made.table.set_column(place, field, pa.array([value] * count, field.type)))
    return made


@pytest.mark.parametrize(
    ("manifest", "fields", "note"),
    [
        (videos(40), {}, None),
        (videos(40, classes=3), {}, "model.num_classes is 4, the manifests name 3 classes: the other outputs stand"),
        (
            videos(6, classes=1),
            {},
            "train.global_batch_size is 8, more than the 6 training videos: each step takes all",
        ),
        (videos(19), {}, "fewer than 5 training videos: 'class 3'"),
        (videos(12), {}, "fewer than 5 training videos: 'class 0', 'class 1', 'class 2' and 1 more"),
        # A clip of 4x2 covers 8 frames at 30 a second, and 4 at 15.
        (videos(40, num_frames=7, fps=30.0), {}, "40 of 40 training videos are shorter than a clip of 4x2 and repeat"),
        (videos(40, num_frames=7, fps=15.0), {}, None),
        (videos(40, num_frames=7, fps=15.0), {"clip.sampling": "dense_decord"}, "shorter than a clip of 4x2"),
        (videos(40, num_frames=7), {}, None),
        (videos(40, num_frames=3), {"clip.sampling": "segments", "clip.frame_stride": None}, "a clip of 4 frames"),
    ],
)
def test_what_is_uncommon_about_the_training_videos_is_told_in_a_line(tmp_path, manifest, fields, note):
    notes = read_splits(experiment_on(tmp_path, manifest, **fields)).notes
    assert bool(notes) is (note is not None)
    assert note is None or any(note in line for line in notes)


def test_splits_of_different_generations_are_told(tmp_path):
    config = experiment_on(tmp_path, videos(40))
    write_manifest(replace(videos(40), prepared='{"how": "transcode"}'), tmp_path / "train.parquet")
    assert read_splits(config).notes == (
        'splits differ in how their videos were prepared: train: {"how": "transcode"}; val: originals; test: originals',
    )


def test_labels_for_another_task_are_refused(tmp_path):
    config = experiment_on(tmp_path, replace(videos(40), task="segmentation"))
    with pytest.raises(ManifestError, match=r"has labels for task segmentation, the experiment's is classification"):
        read_splits(config)


def test_the_columns_of_a_run_are_those_that_decoding_reads(tmp_path):
    assert "fps" not in read_splits(experiment_on(tmp_path, videos(40))).train.table.column_names


@pytest.mark.parametrize(
    ("maps", "names", "fault"),
    [
        (["a.png"] * 3, "wxyz", None),
        (["a.png"] * 3, "wxyzu", "names 5 classes, model.num_classes is 4; set it to 5"),
        (["a.png", None, None], "wxyz", "has no label maps for 2 of its images; prepare it again"),
        (None, "wxyz", "has no label maps for its images; prepare it again"),
    ],
)
def test_segmentation_needs_a_map_of_each_image_and_an_output_for_each_class(tmp_path, maps, names, fault):
    cells = {} if maps is None else {"map_path": maps, "map_zero_is_ignored": [True] * 3, "map_crc32": [1] * 3}
    manifest = manifest_from_rows(
        video_ids=["a", "b", "c"],
        paths=["a.jpg", "b.jpg", "c.jpg"],
        labels=[0] * 3,
        splits=["train"] * 3,
        sizes_bytes=[1] * 3,
        class_names=list(names),
        items="images",
        task="segmentation",
        images=cells,
    )
    path = tmp_path / "train.parquet"
    write_manifest(manifest, path)
    config = load_config(
        Path(__file__).parents[1] / "small_segmentation.yaml",
        {f"data.{split}": str(path) for split in ("train", "val", "test")} | {"train.global_batch_size": 2},
    )
    if fault is None:
        assert read_splits(config).notes == ()  # label 0 of every row is no class with many images
        return
    with pytest.raises(ManifestError) as caught:
        read_splits(config)
    assert str(caught.value).splitlines()[0] == f"data.train: {path} {fault}"

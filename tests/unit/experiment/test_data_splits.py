"""What a run checks and records of its videos: classes, fingerprints, and which of them are prepared copies."""

from dataclasses import replace
from pathlib import Path

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


def test_splits_of_different_generations_are_told():
    note = DataSplits(train=COPIES, val=ORIGINALS, test=ORIGINALS).generations_note()
    assert note == (
        'splits differ in how their videos were prepared: train: {"how": "transcode"}; val: originals; test: originals'
    )


def test_splits_of_one_generation_need_no_word():
    assert DataSplits(train=COPIES, val=COPIES, test=COPIES).generations_note() is None
    assert DataSplits(train=ORIGINALS, val=ORIGINALS, test=ORIGINALS).generations_note() is None


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

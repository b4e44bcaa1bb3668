"""What a run records of its videos: fingerprints, and which of them are prepared copies."""

from dataclasses import replace

from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data_splits import DataSplits
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

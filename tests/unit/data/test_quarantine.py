"""Broken videos: counted once a stage, kept with their reason, and a limit to their share."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from morphmlp.data.columns import QUARANTINE
from morphmlp.data.quarantine import BrokenVideo, Quarantine, limit_message
from morphmlp.errors import QuarantineLimitError


def broken(video_id="v1", stage="train", message="torn"):
    return BrokenVideo(
        video_id=video_id,
        path=f"/videos/{video_id}.mp4",
        stage=stage,
        error="DecodeError",
        message=message,
        decoder="pyav",
        decoder_version="1.0",
    )


def quarantine_of(*videos):
    quarantine = Quarantine()
    quarantine.add(videos)
    return quarantine


def test_a_video_that_breaks_again_keeps_its_first_reason():
    quarantine = quarantine_of(broken(message="first"), broken("v2"))
    quarantine.add([broken(message="second")])
    assert [(video.video_id, video.message) for video in quarantine.videos()] == [("v1", "first"), ("v2", "torn")]


def test_a_video_is_counted_once_in_each_stage():
    quarantine = quarantine_of(broken(stage="val"), broken(stage="test"), broken(stage="val"))
    assert [video.stage for video in quarantine.videos()] == ["val", "test"]
    assert quarantine.videos("test") == [broken(stage="test")]
    assert quarantine.videos("train") == []


@pytest.mark.parametrize(
    ("limit", "num_broken", "stops"), [(0.1, 1, False), (0.1, 2, True), (0, 0, False), (0, 1, True)]
)
def test_a_run_stops_when_more_than_the_allowed_share_is_broken(limit, num_broken, stops):
    quarantine = quarantine_of(*(broken(f"v{number}") for number in range(num_broken)))
    if not stops:
        quarantine.check_share(stage="train", num_videos=10, limit=limit)
        return
    with pytest.raises(QuarantineLimitError, match=f"{num_broken} of 10 train videos can't be used"):
        quarantine.check_share(stage="train", num_videos=10, limit=limit)


def test_other_stages_do_not_count_towards_the_share():
    quarantine_of(broken(stage="val"), broken("v2", stage="val")).check_share(stage="train", num_videos=2, limit=0.0)


def test_the_limit_says_how_many_where_and_which_field():
    assert limit_message([broken(), broken("v2")], num_videos=10, limit=0.01) == (
        "2 of 10 train videos can't be used, more than ingest.max_quarantined_share 0.01 allows; "
        "the first: /videos/v1.mp4: torn"
    )


def test_a_quarantine_is_read_back_with_its_order_and_reasons(tmp_path):
    quarantine = quarantine_of(broken("v2"), broken("v1", stage="test", message="zwölf\nlines"))
    quarantine.write(tmp_path / "new" / "q.parquet", run="r1")
    assert Quarantine.read(tmp_path / "new" / "q.parquet").videos() == quarantine.videos()
    table = pq.read_table(tmp_path / "new" / "q.parquet")
    assert table.schema.equals(QUARANTINE)
    assert table["run"].to_pylist() == ["r1", "r1"]


def test_an_empty_quarantine_is_a_table_without_rows(tmp_path):
    Quarantine().write(tmp_path / "q.parquet", run="r1")
    assert pq.read_table(tmp_path / "q.parquet").schema.equals(QUARANTINE)
    assert Quarantine.read(tmp_path / "q.parquet").videos() == []


def test_where_there_is_no_file_the_quarantine_is_empty(tmp_path):
    assert Quarantine.read(tmp_path / "none.parquet").videos() == []


def test_a_broken_video_has_a_column_for_each_field():
    assert [*(field.name for field in dataclasses.fields(BrokenVideo)), "run"] == QUARANTINE.names

"""Broken videos: counted once a stage, kept with their reason, and a limit to their share."""

import dataclasses
import datetime
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from morphmlp.config.operation import IngestConfig
from morphmlp.data.columns import QUARANTINE
from morphmlp.data.quarantine import (
    BrokenVideo,
    Quarantine,
    broken_from_plain,
    broken_limit,
    broken_to_plain,
    too_many_broken,
)
from morphmlp.errors import QuarantineLimitError

CHANGED = datetime.datetime(2024, 5, 6, 7, 8, 9, 12, tzinfo=datetime.UTC)


def broken(video_id="v1", stage="train", message="truncated"):
    return BrokenVideo(
        video_id=video_id,
        path=f"/videos/{video_id}.mp4",
        size_bytes=5,
        mtime=CHANGED,
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
    assert [(video.video_id, video.message) for video in quarantine.videos()] == [("v1", "first"), ("v2", "truncated")]


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
    message = f"{num_broken} of 10 train videos can't be used" if limit else "train video v0 can't be used"
    with pytest.raises(QuarantineLimitError, match=message):
        quarantine.check_share(stage="train", num_videos=10, limit=limit)


def test_other_stages_do_not_count_towards_the_share():
    quarantine_of(broken(stage="val"), broken("v2", stage="val")).check_share(stage="train", num_videos=2, limit=0.0)


def test_the_limit_says_how_many_where_and_which_field():
    with pytest.raises(QuarantineLimitError) as caught:
        quarantine_of(broken(), broken("v2")).check_share(stage="train", num_videos=10, limit=0.01)
    assert str(caught.value) == (
        "2 of 10 train videos can't be used, more than ingest.max_quarantined_share 0.01 allows; "
        "the first: /videos/v1.mp4: truncated; fix them, or raise that share"
    )


def test_a_quarantine_is_read_back_with_its_order_and_reasons(tmp_path):
    quarantine = quarantine_of(broken("v2"), broken("v1", stage="test", message="zwölf\nlines"))
    quarantine.write(tmp_path / "new" / "q.parquet", run="r1")
    assert Quarantine.read(tmp_path / "new" / "q.parquet").videos() == quarantine.videos()
    table = pq.read_table(tmp_path / "new" / "q.parquet")
    assert table.schema.equals(QUARANTINE)
    assert table["first_run"].to_pylist() == ["r1", "r1"]


def test_a_file_that_was_broken_before_and_did_not_change_keeps_its_first_run(tmp_path):
    earlier = [dataclasses.replace(broken(name, stage="verify"), first_run="long ago") for name in ("v1", "v2")]
    fixed = dataclasses.replace(broken("v2"), size_bytes=6)
    quarantine = quarantine_of(broken("v1"), fixed, broken("v3"))
    quarantine.write(tmp_path / "q.parquet", run="today", earlier=earlier)
    first_runs = {video.video_id: video.first_run for video in Quarantine.read(tmp_path / "q.parquet").videos()}
    assert first_runs == {"v1": "long ago", "v2": "today", "v3": "today"}


def test_a_run_that_continues_keeps_the_first_run_of_its_table(tmp_path):
    quarantine_of(broken("v1")).write(tmp_path / "q.parquet", run="first part")
    again = Quarantine.read(tmp_path / "q.parquet")
    again.add([broken("v2")])
    again.write(tmp_path / "q.parquet", run="second part")
    assert [video.first_run for video in again.videos()] == ["first part", "second part"]


@pytest.mark.parametrize("video", [broken(), dataclasses.replace(broken(), size_bytes=None, mtime=None)])
def test_a_broken_video_survives_as_plain_values(video):
    assert broken_from_plain(json.loads(json.dumps(broken_to_plain(video)))) == video


def test_where_nothing_may_be_left_out_the_first_broken_video_is_named():
    message = str(quarantine_of(broken()).limit_error("train", "1 of 10 train videos", limit=0))
    assert message.startswith("train video v1 can't be used (/videos/v1.mp4: truncated)")
    assert "ingest.on_broken" in message


def test_an_empty_quarantine_is_a_table_without_rows(tmp_path):
    Quarantine().write(tmp_path / "q.parquet", run="r1")
    assert pq.read_table(tmp_path / "q.parquet").schema.equals(QUARANTINE)
    assert Quarantine.read(tmp_path / "q.parquet").videos() == []


def test_where_there_is_no_file_the_quarantine_is_empty(tmp_path):
    assert Quarantine.read(tmp_path / "none.parquet").videos() == []


def test_a_broken_video_has_a_column_for_each_field():
    assert [field.name for field in dataclasses.fields(BrokenVideo)] == QUARANTINE.names


@pytest.mark.parametrize(("policy", "limit"), [("skip", 0.05), ("fail", 0.0)])
def test_a_run_that_may_leave_nothing_out_has_a_limit_of_zero(policy, limit):
    assert broken_limit(IngestConfig(on_broken=policy, max_quarantined_share=0.05)) == limit


def test_an_excess_is_reported_where_the_table_of_broken_videos_could_not_be_written():
    message = str(Quarantine().limit_error("train", "7 of 10 train videos", limit=0.5))
    assert message.startswith("7 of 10 train videos can't be used, more than ingest.max_quarantined_share 0.5 allows; ")


def first_stop(share, *, num_videos, limit, seed=0):
    """Videos drawn before a run stops whose broken ones, at random places, are this share; None where it continues."""
    order = np.random.default_rng(seed).permutation(num_videos) < share * num_videos
    broken = np.cumsum(order)
    for drawn in range(1, num_videos + 1):
        if too_many_broken("train", int(broken[drawn - 1]), num_videos=num_videos, limit=limit, drawn=drawn):
            return drawn
    return None


@pytest.mark.parametrize(("share", "latest"), [(1.0, 20), (0.5, 60), (0.05, 2_000)])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_far_beyond_its_limit_is_known_after_few_videos(share, latest, seed):
    assert 10 < first_stop(share, num_videos=240_000, limit=0.01, seed=seed) <= latest


@pytest.mark.parametrize("limit", [0.0005, 0.01, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_just_within_its_limit_is_never_stopped(limit, seed):
    assert first_stop(limit, num_videos=20_000, limit=limit, seed=seed) is None


def test_one_early_broken_video_of_a_small_split_counts_against_the_whole_split():
    assert too_many_broken("train", 1, num_videos=100, limit=0.01, drawn=1) is None
    assert too_many_broken("train", 2, num_videos=100, limit=0.01, drawn=2) == "2 of 100 train videos"
    assert too_many_broken("train", 12, num_videos=10_000, limit=0.01, drawn=12) == (
        "12 of the first 12 of 10000 train videos"
    )


def test_where_videos_come_in_the_order_of_their_names_only_the_whole_split_decides():
    assert too_many_broken("val", 100, num_videos=10_000, limit=0.01) is None
    assert too_many_broken("val", 101, num_videos=10_000, limit=0.01) == "101 of 10000 val videos"

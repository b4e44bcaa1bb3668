"""Decoded rows in blocks of any size become exactly the planned micro-batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.batches import Failures, assemble
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.plan import MicroBatchPlan
from morphmlp.data.quarantine import BrokenVideo

NUM_VIDEOS, REPEATS = 20, 2
MANIFEST = manifest_from_rows(
    video_ids=[f"v{row}" for row in range(NUM_VIDEOS)],
    paths=[f"/videos/v{row}.mp4" for row in range(NUM_VIDEOS)],
    labels=[row % 3 for row in range(NUM_VIDEOS)],
    splits=["train"] * NUM_VIDEOS,
    sizes_bytes=[1] * NUM_VIDEOS,
    class_names=["a", "b", "c"],
)
FAILURES = Failures(manifest=MANIFEST, stage="train", decoder="pyav", decoder_version="1.0")


def block_of(rows, broken=()):
    rows = np.array(rows, dtype=np.int64)
    clips = np.zeros((len(rows), REPEATS, 2, 4, 4, 3), dtype=np.uint8)
    for place, row in enumerate(rows):
        if row not in broken:
            clips[place] = np.array([10 * row, 10 * row + 1]).reshape(-1, 1, 1, 1, 1)
    bad = [row in broken for row in rows]
    return {
        "row": rows,
        "label": (rows % 3).astype(np.int32),
        "error": np.array(["DecodeError" if is_bad else "" for is_bad in bad], dtype=object),
        "message": np.array(["no picture" if is_bad else "" for is_bad in bad], dtype=object),
        "concealed": np.array([0 if is_bad else 2 for is_bad in bad]),
        "clips": clips,
    }


def plans_of(*groups, step=0):
    return [
        MicroBatchPlan(epoch=0, step=step, index=index, rows=np.array(rows, dtype=np.int64))
        for index, rows in enumerate(groups)
    ]


def assembled(blocks, plans):
    return list(assemble(iter(blocks), iter(plans), failures=FAILURES))


def cut_into(items, sizes):
    parts, place = [], 0
    for size in sizes:
        parts.append(items[place : place + size])
        place += size
    return [part for part in [*parts, items[place:]] if part]


sizes = st.lists(st.integers(1, 9), max_size=8)


@given(st.permutations(range(NUM_VIDEOS)), sizes, sizes, st.sets(st.integers(0, NUM_VIDEOS - 1), max_size=5))
def test_blocks_of_any_size_are_cut_into_the_planned_micro_batches(order, block_sizes, plan_sizes, broken):
    plans = plans_of(*cut_into(order, plan_sizes))
    blocks = [block_of(rows, broken) for rows in cut_into(order, block_sizes)]
    batches = assembled(blocks, plans)
    assert [batch.plan for batch in batches] == plans
    for batch in batches:
        good = [row for row in batch.plan.rows.tolist() if row not in broken]
        assert batch.rows.tolist() == good
        assert batch.labels.tolist() == [row % 3 for row in good for _ in range(REPEATS)]
        assert batch.clips.shape == (len(good) * REPEATS, 2, 4, 4, 3)
        assert batch.clips[:, 0, 0, 0, 0].tolist() == [10 * row + repeat for row in good for repeat in range(REPEATS)]
        assert [video.video_id for video in batch.broken] == [f"v{r}" for r in batch.plan.rows if r in broken]
        assert len(batch.plan.rows) == len(batch.rows) + len(batch.broken)


def test_tensors_have_the_types_that_training_takes():
    (batch,) = assembled([block_of([1, 2])], plans_of([1, 2]))
    assert (batch.clips.dtype, batch.labels.dtype, batch.rows.dtype) == (torch.uint8, torch.int64, np.int64)


def test_a_broken_row_becomes_a_quarantine_entry_and_an_empty_place():
    (batch,) = assembled([block_of([4, 7], broken={7})], plans_of([4, 7]))
    assert batch.rows.tolist() == [4]
    assert batch.broken == (
        BrokenVideo(
            video_id="v7",
            path="/videos/v7.mp4",
            stage="train",
            error="DecodeError",
            message="no picture",
            decoder="pyav",
            decoder_version="1.0",
        ),
    )


def test_a_micro_batch_of_broken_videos_is_empty_and_keeps_the_shape_of_its_clips():
    (batch,) = assembled([block_of([4, 7], broken={4, 7})], plans_of([4, 7]))
    assert batch.clips.shape == (0, 2, 4, 4, 3)
    assert (len(batch.labels), len(batch.rows), len(batch.broken)) == (0, 0, 2)


@pytest.mark.parametrize("rows", [[2, 1, 3], [1, 1, 3], [1, 3, 2], [2, 3, 4]])
def test_rows_in_another_order_than_planned_are_a_defect(rows):
    with pytest.raises(RuntimeError, match=r"epoch 0, step 4, micro-batch 0: planned rows \[1, 2\], received"):
        assembled([block_of(rows)], plans_of([1, 2], [3], step=4))


@pytest.mark.parametrize("blocks", [[], [[1]], [[1], [2]]])
def test_a_stream_that_ends_early_is_a_defect(blocks):
    with pytest.raises(RuntimeError, match=r"ended \d videos before the plan"):
        assembled([block_of(rows) for rows in blocks], plans_of([1, 2, 3, 4]))


def test_a_micro_batch_is_handed_over_as_soon_as_its_rows_are_there():
    taken = []

    def blocks():
        for rows in ([1, 2, 3], [4, 5, 6]):
            taken.append(rows)
            yield block_of(rows)

    stream = assemble(blocks(), iter(plans_of([1, 2], [3, 4], [5, 6])), failures=FAILURES)
    next(stream)
    assert len(taken) == 1
    next(stream)
    assert len(taken) == 2


def test_frames_that_stand_in_for_damaged_ones_are_counted():
    (batch,) = assembled([block_of([1, 2, 3])], plans_of([1, 2, 3]))
    assert batch.concealed == 6

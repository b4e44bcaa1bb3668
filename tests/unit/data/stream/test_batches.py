"""Decoded rows in blocks of any size become exactly the planned micro-batches."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.columns import DECODED
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import ClipShape, assemble, clip_bytes
from morphmlp.data.stream.plan import MicroBatchPlan

NUM_VIDEOS, REPEATS = 20, 2
MANIFEST = manifest_from_rows(
    video_ids=[f"v{row}" for row in range(NUM_VIDEOS)],
    paths=[f"/videos/v{row}.mp4" for row in range(NUM_VIDEOS)],
    labels=[row % 3 for row in range(NUM_VIDEOS)],
    splits=["train"] * NUM_VIDEOS,
    sizes_bytes=[1] * NUM_VIDEOS,
    class_names=["a", "b", "c"],
)
SHAPE = ClipShape(clips_per_video=REPEATS, num_frames=2, crop_size=4)
CHANGED = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


def table_of(rows, broken=()):
    bad = [row in broken for row in rows]
    clips = [
        b"" if is_bad else b"".join(bytes([10 * row + repeat]) * (2 * 4 * 4 * 3) for repeat in range(REPEATS))
        for row, is_bad in zip(rows, bad, strict=True)
    ]
    columns = {
        "row": rows,
        "label": [row % 3 for row in rows],
        "clips": clips,
        "maps": [b""] * len(rows),
        "height": [0 if is_bad else 4 for is_bad in bad],
        "width": [0 if is_bad else 4 for is_bad in bad],
        "concealed": [0 if is_bad else 2 for is_bad in bad],
        "retried": [row == 3 and not is_bad for row, is_bad in zip(rows, bad, strict=True)],
        "cpu_s": [0.25 * row for row in rows],
        "error": ["DecodeError" if is_bad else "" for is_bad in bad],
        "message": ["no picture" if is_bad else "" for is_bad in bad],
        "decoder": ["pyav" if is_bad else "" for is_bad in bad],
        "decoder_version": ["1.0" if is_bad else "" for is_bad in bad],
        "size_bytes": [5 if is_bad else None for is_bad in bad],
        "mtime": [CHANGED if is_bad else None for is_bad in bad],
    }
    return pa.table({name: pa.array(columns[name], DECODED.field(name).type) for name in DECODED.names}, schema=DECODED)


def plans_of(*groups, step=0):
    return [
        MicroBatchPlan(epoch=0, step=step, index=index, seed=3, rows=np.array(rows, dtype=np.int64))
        for index, rows in enumerate(groups)
    ]


def stream_of(tables, plans, **options):
    return assemble(iter(tables), iter(plans), manifest=MANIFEST, stage="train", shape=SHAPE, **options)


def assembled(tables, plans, **options):
    return list(stream_of(tables, plans, **options))


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
    blocks = [table_of(rows, broken) for rows in cut_into(order, block_sizes)]
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
    (batch,) = assembled([table_of([1, 2])], plans_of([1, 2]))
    assert (batch.clips.dtype, batch.labels.dtype, batch.rows.dtype) == (torch.uint8, torch.int64, np.int64)


def test_a_broken_row_becomes_a_quarantine_entry_and_an_empty_place():
    (batch,) = assembled([table_of([4, 7], broken={7})], plans_of([4, 7]))
    assert batch.rows.tolist() == [4]
    assert batch.broken == (
        BrokenVideo(
            video_id="v7",
            path="/videos/v7.mp4",
            size_bytes=5,
            mtime=CHANGED,
            stage="train",
            error="DecodeError",
            message="no picture",
            decoder="pyav",
            decoder_version="1.0",
        ),
    )


def test_a_micro_batch_of_broken_videos_is_empty_and_keeps_the_shape_of_its_clips():
    (batch,) = assembled([table_of([4, 7], broken={4, 7})], plans_of([4, 7]))
    assert batch.clips.shape == (0, 2, 4, 4, 3)
    assert (len(batch.labels), len(batch.rows), len(batch.broken)) == (0, 0, 2)


@pytest.mark.parametrize("rows", [[2, 1, 3], [1, 1, 3], [1, 3, 2], [2, 3, 4]])
def test_rows_in_another_order_than_planned_are_a_defect(rows):
    with pytest.raises(RuntimeError, match=r"epoch 0, step 4, micro-batch 0: planned rows \[1, 2\], received"):
        assembled([table_of(rows)], plans_of([1, 2], [3], step=4))


@pytest.mark.parametrize("blocks", [[], [[1]], [[1], [2]]])
def test_a_stream_that_ends_early_is_a_defect(blocks):
    with pytest.raises(RuntimeError, match=r"ended \d videos before the plan"):
        assembled([table_of(rows) for rows in blocks], plans_of([1, 2, 3, 4]))


def test_a_micro_batch_is_handed_over_as_soon_as_its_rows_are_there():
    taken = []

    def blocks():
        for rows in ([1, 2, 3], [4, 5, 6]):
            taken.append(rows)
            yield table_of(rows)

    stream = stream_of(blocks(), plans_of([1, 2], [3, 4], [5, 6]))
    next(stream)
    assert len(taken) == 1
    next(stream)
    assert len(taken) == 2


def test_frames_that_stand_in_for_damaged_ones_are_counted():
    (batch,) = assembled([table_of([1, 2, 3])], plans_of([1, 2, 3]))
    assert batch.concealed == 6


def test_videos_that_only_a_second_decoder_could_read_are_counted():
    batches = assembled([table_of([1, 2, 3, 4])], plans_of([1, 2], [3, 4]))
    assert [batch.retried for batch in batches] == [0, 1]


def test_processor_time_counts_for_broken_videos_too():
    batches = assembled([table_of([1, 2, 3, 4], broken={2, 4})], plans_of([1, 2], [3, 4]))
    assert [batch.cpu_s for batch in batches] == [0.75, 1.75]


def test_clips_of_one_table_are_not_copied():
    table = table_of([1, 2, 3, 4], broken={2})
    batches = assembled([table], plans_of([1, 2], [3, 4]))
    start = table["clips"].chunk(0).buffers()[2].address
    size = REPEATS * 2 * 4 * 4 * 3
    assert [batch.clips.data_ptr() - start for batch in batches] == [0, size]


@given(st.lists(st.binary(max_size=5), max_size=8), sizes, st.integers(0, 3))
def test_bytes_of_a_column_come_in_order_whatever_its_pieces(cells, pieces, skipped):
    chunks = [pa.array(part, pa.large_binary()) for part in cut_into(cells, pieces)]
    column = pa.chunked_array(chunks, pa.large_binary()).slice(skipped)
    assert clip_bytes(column).numpy().tobytes() == b"".join(cells[skipped:])


def test_frames_of_any_size_are_finished_into_clips_one_video_at_a_time():
    def frames_of(rows, sizes, broken=()):
        table = table_of(rows, broken)
        cells = [
            b"" if row in broken else bytes([row]) * (2 * h * w * 3) for row, (h, w) in zip(rows, sizes, strict=True)
        ]
        columns = {"clips": cells, "height": [h for h, _ in sizes], "width": [w for _, w in sizes]}
        for name, values in columns.items():
            place = DECODED.get_field_index(name)
            table = table.set_column(place, DECODED.field(name), pa.array(values, DECODED.field(name).type))
        return table

    seen = []

    def finish(frames, key):
        seen.append((frames.shape, row := int(frames[0, 0, 0, 0]), key))
        return torch.full((REPEATS, 2, 4, 4, 3), row, dtype=torch.uint8)

    tables = [frames_of([5, 6], [(4, 8), (9, 3)]), frames_of([7], [(4, 4)], broken={7})]
    (batch,) = assembled(tables, plans_of([5, 6, 7]), finish=finish)
    keys = [ClipKey(seed=3, epoch=0, video_id=video_id) for video_id in ("v5", "v6")]
    assert seen == [((2, 4, 8, 3), 5, keys[0]), ((2, 9, 3, 3), 6, keys[1])]
    assert batch.clips[:, 0, 0, 0, 0].tolist() == [5, 5, 6, 6]
    assert [video.video_id for video in batch.broken] == ["v7"]

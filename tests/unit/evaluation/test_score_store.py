"""The folder that a test's scores are kept in."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from forked_workers import FORKED
from stored_scores import CLASSES, HEADER, VIEWS, broken_video, rows

from morphmlp.data.columns import PREDICTIONS, SEGMENTED
from morphmlp.errors import RunInUseError, ScoreStoreError
from morphmlp.evaluation import score_store
from morphmlp.evaluation.score_header import weights_sha256
from morphmlp.evaluation.score_store import ScoreStore

SEGMENTATION = replace(HEADER, task="segmentation", items="images")


def spans_of(root):
    """First and last batch of each part."""
    return [tuple(map(int, name.split("-")[1:3])) for name in batches_of(root)]


def batches_of(root):
    return sorted(path.name for path in root.glob("scores-*.parquet"))


@pytest.mark.parametrize("merged_batches", [2, 3, 64])
@pytest.mark.parametrize("rows_at_once", [1, 7, 2048])
def test_rows_come_back_in_the_order_of_the_ids_whatever_order_they_came_in(
    tmp_path, monkeypatch, merged_batches, rows_at_once
):
    monkeypatch.setattr(score_store, "_MERGED_BATCHES", merged_batches)
    monkeypatch.setattr(score_store, "_ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(score_store, "_PARTS_AT_ONCE", 2)
    numbers = np.random.default_rng(0).permutation(40)
    with ScoreStore.create(tmp_path / "scores", HEADER) as store:
        for batch in np.split(numbers, 8):
            store.append(rows(batch.tolist()))
    store = ScoreStore.open(tmp_path / "scores")
    assert store.header == HEADER
    assert store.read().equals(rows(range(40)).select(PREDICTIONS.names))
    assert store.read(["cpu_s", "video_id"]).equals(rows(range(40)).select(["cpu_s", "video_id"]))
    assert store.ids() == {f"v{number:03d}" for number in range(40)}
    assert pa.concat_tables(store.parts()).sort_by("video_id").equals(rows(range(40)))


def test_a_store_without_scores_reads_as_an_empty_table(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        assert store.read().equals(PREDICTIONS.empty_table())
        assert store.broken() == []
    with ScoreStore.create(tmp_path / "other", SEGMENTATION) as store:
        assert store.read().equals(SEGMENTED.empty_table())


def test_without_the_logits_of_views_their_number_stays(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([2, 1]))
        table = store.read_without_views()
        assert table["view_logits"].to_pylist() == [[[]] * VIEWS] * 2
        assert table.schema == PREDICTIONS
        assert table.drop_columns("view_logits").equals(store.read().drop_columns("view_logits"))
    with ScoreStore.create(tmp_path / "empty", HEADER) as store:
        assert store.read_without_views().equals(PREDICTIONS.empty_table())


def test_a_video_is_added_once(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([1, 2]))
        with pytest.raises(ScoreStoreError, match=r"1 videos were scored twice \(v002\)"):
            store.append(rows([2, 3]))
    with (
        ScoreStore.create(tmp_path, HEADER) as store,
        pytest.raises(ScoreStoreError, match="scored twice"),
    ):
        store.append(rows([1]))


def test_broken_videos_keep_their_last_reason_until_they_are_scored(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([1]), [broken_video("v003", "late"), broken_video("v002")])
        store.append(rows([]), [broken_video("v003", "torn")])
    with ScoreStore.create(tmp_path, HEADER) as store:
        assert store.broken() == [broken_video("v002"), broken_video("v003", "torn")]
        store.append(rows([2]))
    assert ScoreStore.open(tmp_path).broken() == [broken_video("v003", "torn")]


def test_of_a_merge_that_was_cut_short_each_row_counts_once(tmp_path, monkeypatch):
    with ScoreStore.create(tmp_path, HEADER) as store:
        for number in range(5):
            store.append(rows([number]))
        kept = {name: (tmp_path / name).read_bytes() for name in batches_of(tmp_path)}
        monkeypatch.setattr(score_store, "_MERGED_BATCHES", 6)
        store.append(rows([5]))
    assert spans_of(tmp_path) == [(0, 5)]
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    assert ScoreStore.open(tmp_path).read().equals(rows(range(6)).select(PREDICTIONS.names))
    (tmp_path / ".scores-1.parquet.abc.unfinished").write_bytes(b"half")
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([6]))
    assert spans_of(tmp_path) == [(0, 5), (6, 6)]
    assert not list(tmp_path.glob(".*"))


def _write_until_killed(root):
    with ScoreStore.create(root, HEADER) as store:
        for number in range(1000):
            store.append(rows([number]))


def test_a_writer_that_is_killed_leaves_a_readable_store(tmp_path):
    writer = FORKED.Process(target=_write_until_killed, args=(tmp_path,))
    writer.start()
    while len(batches_of(tmp_path)) < 5:
        writer.join(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    found = ScoreStore.open(tmp_path).read()
    assert found.num_rows >= 5
    assert found.equals(rows(range(found.num_rows)).select(PREDICTIONS.names))
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([found.num_rows]))
    assert ScoreStore.open(tmp_path).read().num_rows == found.num_rows + 1


def test_one_command_at_a_time_adds(tmp_path):
    with (
        ScoreStore.create(tmp_path, HEADER),
        pytest.raises(RunInUseError, match=f"another command adds scores there .process {os.getpid()}"),
        ScoreStore.create(tmp_path, HEADER),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "segmentation"}, "task classification, not segmentation"),
        ({"data_fingerprint": "99:eeeeeeeeeeee"}, "videos 100:aaaaaaaaaaaa, not 99:eeeeeeeeeeee"),
        ({"class_names": ("x", "y")}, r"classes 5:\w{6} \(a, b, ...\), not 2:\w{6} \(x, y\)"),
        ({"num_classes": 7}, "outputs 5, not 7"),
        ({"weights_sha256": "f" * 64}, "weights cccccccccccc, not ffffffffffff"),
        ({"views": "1 clip x 1 crop"}, "views 4 clips x 1 crop, not 1 clip x 1 crop"),
        ({"experiment_fingerprint": "0" * 12}, "configuration bbbbbbbbbbbb, not 000000000000"),
        (
            {"data_fingerprint": "9:e", "weights_sha256": "f" * 64},
            "videos 100:aaaaaaaaaaaa, not 9:e; weights cccccccccccc, not ffffffffffff",
        ),
    ],
)
def test_a_store_of_something_else_is_refused_in_one_line(tmp_path, changes, words):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([1]))
    with (
        pytest.raises(ScoreStoreError, match=f"holds scores of something else: {words}; choose another") as refused,
        ScoreStore.create(tmp_path, replace(HEADER, **changes)),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert ScoreStore.open(tmp_path).read().num_rows == 1


def test_a_store_of_something_else_begins_anew_where_it_may(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([1]), [broken_video("v002")])
    other = replace(HEADER, weights_sha256="f" * 64)
    with ScoreStore.create(tmp_path, other, or_anew=True) as store:
        assert (store.ids(), store.broken()) == (set(), [])
        store.append(rows([3]))
    with ScoreStore.create(tmp_path, other, or_anew=True) as store:
        assert store.ids() == {"v003"}


def test_rows_may_have_the_columns_of_a_task_from_outside(tmp_path):
    table = rows([1, 2]).drop_columns(["view_logits", "logits"])
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(table)
    store = ScoreStore.open(tmp_path)
    assert store.columns == ["video_id", "label", "prediction"]
    assert store.read().equals(table.select(store.columns))


def test_where_weights_came_from_and_who_wrote_it_makes_no_other_store(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows([1]))
    other = replace(HEADER, run_id="", run_name="w", checkpoint="weights.pth", git_commit="9", manifest="/elsewhere")
    with ScoreStore.create(tmp_path, other) as store:
        assert store.ids() == {"v001"}
        assert store.header == HEADER


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_damaged_part_is_refused_in_one_line_and_can_be_made_again(tmp_path, place, damage):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows(range(20)))
        store.append(rows(range(20, 40)))
    part = tmp_path / batches_of(tmp_path)[1]
    content = part.read_bytes()
    at = int(place * len(content))
    part.write_bytes(content[:at] if damage == "cut" else bytes(len(content)))
    with pytest.raises(ScoreStoreError, match=r"00000001-\w{8}\.parquet: is damaged \(.*remove it") as refused:
        ScoreStore.open(tmp_path).read()
    assert "\n" not in str(refused.value)
    part.unlink()
    with ScoreStore.create(tmp_path, HEADER) as store:
        assert len(store.ids()) == 20
        store.append(rows(range(20, 40)))
    assert ScoreStore.open(tmp_path).read().equals(rows(range(40)).select(PREDICTIONS.names))


def test_a_changed_bit_anywhere_in_a_part_is_found(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        store.append(rows(range(20)))
    part = tmp_path / batches_of(tmp_path)[0]
    content = part.read_bytes()
    for at in range(5, len(content), 131):
        part.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(ScoreStoreError, match="is damaged"):
            ScoreStore.open(tmp_path).read(["video_id"])


def test_a_part_of_another_store_is_refused(tmp_path):
    for name, header in (("a", HEADER), ("b", replace(HEADER, weights_sha256="f" * 64))):
        with ScoreStore.create(tmp_path / name, header) as store:
            store.append(rows([1]))
    (strange,) = batches_of(tmp_path / "b")
    (tmp_path / "b" / strange).rename(tmp_path / "a" / strange.replace("-00000000-00000000-", "-00000001-00000001-"))
    with pytest.raises(ScoreStoreError, match="belongs to another store"):
        ScoreStore.open(tmp_path / "a").read()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no score store is there"),
        ("", "store.json: is damaged"),
        ("[]", "store.json: is damaged"),
        ('{"task": 3}', "store.json: is damaged"),
        (json.dumps({"format": 2}), "has format 2, this code reads format 1"),
    ],
)
def test_a_folder_that_is_no_store_is_refused_in_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "store.json").write_text(text)
    with pytest.raises(ScoreStoreError, match=words) as refused:
        ScoreStore.open(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_with_other_files_does_not_become_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ScoreStoreError, match=r"holds other files \(thesis.tex"), ScoreStore.create(tmp_path, HEADER):
        pass
    assert not (tmp_path / "store.json").exists()


def test_many_views_take_less_room_than_their_floats(tmp_path):
    with ScoreStore.create(tmp_path, HEADER) as store:
        logits = np.random.default_rng(0).normal(size=(64, VIEWS * 50, CLASSES)).astype(np.float32)
        table = rows(range(64)).set_column(
            2,
            PREDICTIONS.field("view_logits"),
            pa.array([views.tolist() for views in logits], PREDICTIONS.field("view_logits").type),
        )
        store.append(table)
    part = tmp_path / batches_of(tmp_path)[0]
    assert part.stat().st_size < 0.95 * logits.nbytes
    assert "BYTE_STREAM_SPLIT" in pq.ParquetFile(part).metadata.row_group(0).column(2).encodings


def test_weights_are_the_same_whatever_their_order_and_differ_by_name_value_type_and_shape():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    known = weights_sha256(weights)
    assert weights_sha256(dict(reversed(weights.items()))) == known
    assert weights_sha256({**weights, "norm.num_batches_tracked": torch.tensor(7)}) == known
    others = [
        {**weights, "a": torch.arange(6.0).view(3, 2)},
        {**weights, "a": torch.arange(6).view(2, 3)},
        {**weights, "b": torch.zeros(2, dtype=torch.bfloat16)},
        {"c": weights["a"], "b": weights["b"], "n": weights["n"]},
    ]
    assert len({known, *map(weights_sha256, others)}) == 5

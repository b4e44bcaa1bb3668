"""Scores made of stores alone: subsets, ensembles, comparison, coverage, and what is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from view_scores import names, view_logits, write_store

from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.errors import MorphMLPError
from morphmlp.evaluation.coverage import fingerprint_of
from morphmlp.evaluation.rescoring import ChosenViews, Stores, compared
from morphmlp.tasks.answers import answers_of

CLASSES, CLIPS, CROPS = 6, 4, 3
LOGITS, LABELS = view_logits(60, CLASSES, CLIPS * CROPS, lean=0.25)
OTHERS = view_logits(60, CLASSES, CLIPS * CROPS, seed=1)[0]


def store(folder, *, logits=LOGITS, rows=slice(None), ids=None, **fields):
    ids = names(len(LABELS)) if ids is None else ids
    labels = fields.pop("labels", LABELS)
    return write_store(folder, logits[rows], labels[rows], clips=CLIPS, crops=CROPS, ids=ids[rows], **fields)


def broken(name):
    return BrokenVideo(
        video_id=name,
        path=f"/videos/{name}.mp4",
        size_bytes=7,
        mtime=None,
        stage="test",
        error="DecodeError",
        message="no frames",
        decoder="pyav",
        decoder_version="1",
    )


def test_a_store_scores_as_its_test_did(tmp_path):
    found = Stores([store(tmp_path / "a")], intersect=False).rescored()
    assert found.answers.values() == pytest.approx(answers_of(LOGITS.mean(axis=1), LABELS).values(), rel=1e-5)
    assert (found.views, found.name, found.bounds) == ("4 clips x 3 crops", "demo-1", {})
    assert found.coverage.in_words("videos") == f"60 of 60 videos (test set {found.coverage.fingerprint})"
    assert len(found.curve) == 8


@pytest.mark.parametrize(
    ("chosen", "views", "words"),
    [
        (ChosenViews(num_clips=1, num_crops=1), [4], "1 of 4 clips x 1 of 3 crops"),
        (ChosenViews(clips="1,4", crops="3"), [2, 11], "2 of 4 clips x 1 of 3 crops"),
        (ChosenViews(num_clips=2), [0, 1, 2, 9, 10, 11], "2 of 4 clips x 3 crops"),
    ],
)
def test_chosen_views_score_as_a_test_of_them_alone(tmp_path, chosen, views, words):
    found = Stores([store(tmp_path / "a")], intersect=False).rescored(chosen)
    assert found.answers.values() == pytest.approx(answers_of(LOGITS[:, views].mean(axis=1), LABELS).values(), rel=1e-5)
    assert found.views == words


def test_two_stores_are_one_ensemble_and_compare_with_a_third(tmp_path):
    paths = [store(tmp_path / "a"), store(tmp_path / "b", logits=OTHERS), store(tmp_path / "c", logits=LOGITS[:, ::-1])]
    stores = Stores(paths, intersect=False)
    both, third = stores.rescored(places=[0, 1]), stores.rescored(places=[2])
    expected = answers_of((LOGITS.mean(axis=1) + OTHERS.mean(axis=1)) / 2, LABELS)
    assert both.answers.values() == pytest.approx(expected.values(), rel=1e-5)
    assert both.views == "4 clips x 3 crops + 4 clips x 3 crops"
    assert both.curve is None
    pairs = compared(both, third)
    right, other = expected.right, answers_of(LOGITS.mean(axis=1), LABELS).right
    assert (pairs.only_first, pairs.only_second) == (np.sum(right & ~other), np.sum(other & ~right))


def test_the_common_videos_of_two_copies_of_a_data_set_are_scored(tmp_path):
    paths = [store(tmp_path / "a", rows=slice(0, 50)), store(tmp_path / "b", rows=slice(10, 60))]
    stores = Stores(paths, intersect=True)
    found = stores.rescored(places=[0])
    assert found.answers.values() == pytest.approx(
        answers_of(LOGITS[10:50].mean(axis=1), LABELS[10:50]).values(), rel=1e-5
    )
    common = fingerprint_of(pa.array(names(60)[10:50]), LABELS[10:50])
    assert (found.coverage.scored_fingerprint, found.coverage.left_out, found.bounds) == (common, 10, {})
    assert found.coverage.in_words("videos") == (
        f"40 of 50 videos (test set {found.coverage.fingerprint}), 10 left out, as the others lack them, those scored: "
        f"{common}"
    )


def test_missing_videos_leave_bounds_on_each_score(tmp_path):
    manifest = manifest_from_rows(
        video_ids=names(60),
        paths=["v.mp4"] * 60,
        labels=LABELS.tolist(),
        splits=["test"] * 60,
        sizes_bytes=[1] * 60,
        class_names=[f"class {number}" for number in range(CLASSES)],
    )
    write_manifest(manifest, tmp_path / "val.parquet")
    fields = {"num_videos": 60, "data_fingerprint": manifest.fingerprint(), "manifest": str(tmp_path / "val.parquet")}
    path = store(tmp_path / "a", rows=slice(0, 55), broken=[broken("v00057"), broken("v00059")], **fields)
    found = Stores([path], intersect=False).rescored()
    assert "55 of 60 videos" in found.coverage.in_words("videos")
    assert "2 in quarantine, 3 not scored yet" in found.coverage.in_words("videos")
    scores, least, greatest = LOGITS.mean(axis=1), LOGITS.mean(axis=1).copy(), LOGITS.mean(axis=1).copy()
    for row in range(55, 60):
        least[row] = np.where(np.arange(CLASSES) == LABELS[row], -99, scores[row])
        greatest[row] = np.where(np.arange(CLASSES) == LABELS[row], 99, scores[row])
    for key in ("top1", "mean_class_acc", "top5"):
        ends = [answers_of(end, LABELS).values()[key] for end in (least, greatest)]
        assert found.bounds[key] == pytest.approx(ends)
    # Without the manifest nobody knows of which classes the missing ones are.
    (tmp_path / "val.parquet").unlink()
    assert Stores([path], intersect=False).rescored().bounds.keys() == {"top1", "top5"}


FAULTS = {
    "other classes": ({"class_names": tuple("abcdef")}, "have other classes, 6 and 6: class 0 is 'class 0' and 'a'"),
    "other outputs": ({"num_classes": 9}, "have other classes, 6 and 9"),
    "other task": ({"task": "segmentation"}, "is of task segmentation"),
    "other labels": ({"labels": np.roll(LABELS, 1)}, "make both tests with one manifest"),
    "other videos": ({"rows": slice(5, 60)}, "5 are in the first alone, 0 in the second (v00000, ...); --intersect"),
    "no common videos": ({"ids": [f"w{number}" for number in range(60)]}, "have no videos in common"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_stores_that_dont_go_together_are_refused_in_one_line(tmp_path, fault):
    fields, message = FAULTS[fault]
    if fault == "other task":
        paths = [store(tmp_path / "a"), tmp_path / "b"]
        store(tmp_path / "b")
        text = (tmp_path / "b" / "store.json").read_text().replace('"classification"', '"segmentation"')
        (tmp_path / "b" / "store.json").write_text(text)
    else:
        paths = [store(tmp_path / "a"), store(tmp_path / "b", **fields)]
    with pytest.raises(MorphMLPError) as caught:
        Stores(paths, intersect=fault == "no common videos").rescored()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (ChosenViews(num_clips=5), "--num-clips 5: the scores have 4 clips"),
        (ChosenViews(num_crops=0), "--num-crops 0: the scores have 3 crops"),
        (ChosenViews(clips="5"), "--clips 5: the scores have clips 1 to 4, and no 5"),
        (ChosenViews(crops="1-4"), "--crops 1-4: the scores have crops 1 to 3, and no 1-4"),
        (ChosenViews(crops="1", num_crops=1), "--crops and --num-crops: choose one, crops by number or how many"),
    ],
)
def test_views_that_a_store_lacks_are_refused(tmp_path, chosen, message):
    stores = Stores([store(tmp_path / "a")], intersect=False)
    with pytest.raises(MorphMLPError) as caught:
        stores.rescored(chosen)
    assert str(caught.value) == message


def damage(path):
    part = next(path.glob("scores-*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (damage, "is damaged"),
        (lambda path: [part.unlink() for part in path.glob("scores-*.parquet")], "no videos are scored there yet"),
        (lambda path: (path / "store.json").unlink(), "no score store is there"),
    ],
    ids=["damaged part", "empty store", "no header"],
)
def test_a_store_that_cant_be_read_is_refused_in_one_line(tmp_path, fault, message):
    path = store(tmp_path / "a")
    fault(path)
    with pytest.raises(MorphMLPError) as caught:
        Stores([path], intersect=False).rescored()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_a_name_has_its_number(tmp_path):
    found = Stores([store(tmp_path / "a", class_names=("x", "y"))], intersect=False).rescored()
    assert found.class_names == ("x", "y", "2", "3", "4", "5")
    assert replace(found, headers=[*found.headers, *found.headers]).name == "demo-1 + demo-1"

"""The report of an evaluation: its page, tables and pictures."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from view_scores import names, view_logits, write_scenes, write_store

from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.rescoring import ChosenViews, Stores
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.reporting.evaluation.report import changed_classes, write_report
from morphmlp.reporting.evaluation.words import lines_of, mark_of, score_rows
from morphmlp.reporting.evaluation.wrong_videos import wrong_table
from morphmlp.tasks.segmentation.confusion import outcome_of

VIDEOS, CLASSES = 40, 6
LOGITS, LABELS = view_logits(VIDEOS, CLASSES, 6, lean=0.3)
OTHERS = view_logits(VIDEOS, CLASSES, 6, seed=4)[0]
NAMES = ("<script>alert(1)</script>", "b & c", "$d_{e$ $", "f", "g", "h")


def write_frames(folder):
    """A folder of frames for each video, the last two missing; returns its manifest's path and fingerprint."""
    for number in range(VIDEOS - 2):
        (folder / "frames" / str(number)).mkdir(parents=True)
        for frame in range(1, 4):
            pixels = np.full((24, 32, 3), (number * 5, frame * 60, 120), np.uint8)
            Image.fromarray(pixels).save(folder / "frames" / str(number) / f"{frame:05}.png")
    manifest = manifest_from_rows(
        video_ids=names(VIDEOS),
        paths=[str(folder / "frames" / str(number)) for number in range(VIDEOS)],
        labels=LABELS.tolist(),
        splits=["test"] * VIDEOS,
        sizes_bytes=[1] * VIDEOS,
        class_names=NAMES,
    )
    write_manifest(manifest, folder / "val.parquet")
    return {"manifest": str(folder / "val.parquet"), "data_fingerprint": manifest.fingerprint()}


def scored(folder, *, chosen=None, **fields):
    first = write_store(folder / "a", LOGITS, LABELS, clips=3, crops=2, class_names=NAMES, run_name="one", **fields)
    second = write_store(folder / "b", OTHERS, LABELS, clips=3, crops=2, class_names=NAMES, run_name="two", **fields)
    stores = Stores([first, second], intersect=False)
    return stores.rescored(chosen or ChosenViews(), places=[0]), stores.rescored(places=[1])


class _Tags(HTMLParser):
    """Refuses tags that aren't closed in their order."""

    alone = frozenset({"meta", "img", "br", "line", "circle"})

    def __init__(self):
        super().__init__()
        self.opened, self.counts = [], {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.alone:
            self.opened.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.alone:
            assert self.opened.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report with a comparison and pictures, in a folder of its own."""
    folder = tmp_path_factory.mktemp("report")
    one, two = scored(folder, **write_frames(folder))
    with IsolatedVideos("pyav", Limits(timeout_s=20.0)) as videos:
        write_report(folder / "report", one, against=two, videos=videos)
    return folder / "report"


def test_the_page_is_well_formed_and_needs_nothing_else(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.opened == []
    assert tags.counts["script"] == 1
    assert re.findall(r"(?:src|href)=\"(?!data:image/png;base64,)", page) == []
    assert "&lt;script&gt;alert(1)" in page
    assert tags.counts["img"] == len(list(folder.glob("*.png")))


def test_tables_hold_what_the_page_shows(folder):
    one, two = scored(folder.parent / "again")
    classes = pd.read_csv(folder / "classes.csv")
    assert classes["right"].sum() == one.answers.right.sum()
    assert len(pd.read_csv(folder / "wrong.csv")) == (~one.answers.right).sum()
    assert pd.read_csv(folder / "pairs.csv")["times"].sum() == (~one.answers.right).sum()
    assert len(pd.read_csv(folder / "views.csv")) == 6
    assert pd.read_csv(folder / "reliability.csv")["videos"].sum() == VIDEOS
    videos = pq.read_table(folder / "videos.parquet")
    assert videos["video_id"].to_pylist() == names(VIDEOS)
    assert [guesses[0] for guesses in videos["guesses"].to_pylist()] == one.answers.guesses[:, 0].tolist()
    changed = changed_classes(one, two)
    assert (
        changed["only_first"].sum() - changed["only_second"].sum() == one.answers.right.sum() - two.answers.right.sum()
    )


def test_pictures_are_of_the_surest_wrong_videos(folder):
    with Image.open(folder / "wrong-1.png") as sheet:
        assert sheet.width > sheet.height > 500
    wrong = pd.read_csv(folder / "wrong.csv")
    assert wrong["percent_1"].is_monotonic_decreasing
    assert (wrong["guess_1"] != wrong["class"]).all()


def test_guesses_stand_with_the_place_of_the_true_class(tmp_path):
    one, _ = scored(tmp_path)
    table = wrong_table(one)
    means = LOGITS.mean(axis=1)
    for row in table.to_dict("records"):
        video = names(VIDEOS).index(row["video_id"])
        order = np.argsort(-means[video], kind="stable")
        assert [row[f"guess_{place}"] for place in range(1, 6)] == [NAMES[label] for label in order[:5]]
        assert NAMES[order[row["place"] - 1]] == row["class"]


@pytest.mark.parametrize("gone", [True, False], ids=["manifest gone", "other videos"])
def test_without_the_videos_the_report_says_why_it_has_no_pictures(tmp_path, gone):
    fields = {"manifest": str(tmp_path / "val.parquet")}
    if not gone:
        manifest = manifest_from_rows(
            video_ids=["other"], paths=["o.mp4"], labels=[0], splits=["test"], sizes_bytes=[1], class_names=NAMES
        )
        write_manifest(manifest, tmp_path / "val.parquet")
    one, _ = scored(tmp_path, **fields)
    with IsolatedVideos("pyav", Limits(timeout_s=20.0)) as videos:
        page = write_report(tmp_path / "report", one, videos=videos).read_text(encoding="utf-8")
    assert "no pictures: " in page
    assert ("40 of those scored are missing" in page) is not gone


def test_a_perfect_test_has_a_report_too(tmp_path):
    perfect = 9 * np.eye(CLASSES, dtype=np.float32)[LABELS][:, None]
    path = write_store(tmp_path / "a", perfect, LABELS, clips=1, crops=1)
    one = Stores([path], intersect=False).rescored()
    page = write_report(tmp_path / "report", one).read_text(encoding="utf-8")
    assert "Wrong videos: 0" in page
    assert "Top-1 by number of views" not in page
    assert not (tmp_path / "report" / "views.csv").exists()


def test_many_classes_have_a_report_with_their_ends_named(tmp_path):
    logits, labels = view_logits(90, 60, 1)
    path = write_store(tmp_path / "a", logits, labels, clips=1, crops=1)
    write_report(tmp_path / "report", Stores([path], intersect=False).rescored())
    assert (tmp_path / "report" / "classes.png").stat().st_size > 10_000


@pytest.fixture
def scenes(tmp_path):
    """A store of four segmented images, each with fewer wrong pixels than the one before, and the images."""
    rng, outcomes, count = np.random.default_rng(0), {}, 4
    ids = names(count)
    for number in range(count):
        labels = np.zeros((30, 40), np.uint8)
        labels[:, 20:] = 1 + number % 3
        found = labels.copy()
        found[: 26 - 2 * number, :20] = 3
        outcomes[number] = outcome_of(found, labels, num_classes=4, loss=1.0)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / f"{number}-map.png")
    maps = [str(tmp_path / f"{number}-map.png") for number in range(count)]
    manifest = manifest_from_rows(
        video_ids=ids,
        paths=[str(tmp_path / f"{number}.png") for number in range(count)],
        labels=[0] * count,
        splits=["test"] * count,
        sizes_bytes=[1] * count,
        class_names=NAMES[:4],
        items="images",
        task="segmentation",
        images={"map_path": maps, "map_crc32": [None] * count, "map_zero_is_ignored": [False] * count},
    )
    write_manifest(manifest, tmp_path / "val.parquet")
    return write_scenes(tmp_path / "scenes", outcomes, manifest, manifest_path=str(tmp_path / "val.parquet"))


def test_panels_are_of_the_worst_images_first(scenes, tmp_path):
    scored = Stores([scenes], intersect=False).resegmented()
    with IsolatedVideos("pyav", Limits(timeout_s=20.0)) as videos:
        page = write_report(tmp_path / "report", scored, videos=videos).read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.opened == []
    assert tags.counts["img"] == len(list((tmp_path / "report").glob("*.png"))) == 2
    images = pd.read_csv(tmp_path / "report" / "images.csv")
    assert images["image"].tolist() == worst_by_a_loop(scenes)
    assert images["mIoU"].is_monotonic_increasing
    with Image.open(tmp_path / "report" / "worst-1.png") as sheet:
        assert min(sheet.size) > 1000


def worst_by_a_loop(store):
    """Ids by the mean IoU of each image's classes."""
    scores = {}
    for row in ScoreStore.open(store).read().to_pylist():
        ious = []
        for label in range(4):
            pairs = [(*divmod(pair, 4), pixels) for pair, pixels in zip(row["pairs"], row["pixels"], strict=True)]
            both = sum(pixels for true, found, pixels in pairs if true == found == label)
            either = sum(pixels for true, found, pixels in pairs if label in (true, found))
            ious += [both / either] if either else []
        scores[row["video_id"]] = np.mean(ious)
    return sorted(scores, key=lambda name: scores[name])


def test_without_the_images_the_report_of_a_segmentation_says_so(scenes, tmp_path):
    (tmp_path / "val.parquet").unlink()
    scored = Stores([scenes], intersect=False).resegmented()
    with IsolatedVideos("pyav", Limits(timeout_s=20.0)) as videos:
        page = write_report(tmp_path / "report", scored, videos=videos).read_text(encoding="utf-8")
    assert "no pictures: " in page
    assert len(list((tmp_path / "report").glob("*.png"))) == 1


def test_a_folder_that_cant_be_written_is_refused(tmp_path):
    one, _ = scored(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"--report .*file: can't be written: File exists"):
        write_report(tmp_path / "file", one)


def test_the_terminal_says_scores_views_and_the_cheapest_setting(tmp_path):
    one, _ = scored(tmp_path, num_videos=50)
    lines = list(lines_of(one))
    assert lines[0] == "one on demo (3 clips x 2 crops, sum-logits)"
    assert lines[1].startswith(f"  top-1 {one.answers.top1.value:.2f} (95 % interval {one.answers.top1.low:.2f}-")
    assert lines[2].startswith("  of 40 of 50 videos (test set 40:")
    assert "10 not scored yet" in lines[2]
    assert lines[3].startswith("  were those missing scored too: top-1 ")
    assert lines[4].startswith("  best of the numbers of views: ")
    assert [row.name.title for row in score_rows(one)] == ["top-1", "top-5", "mean class accuracy", "ECE", "NLL"]


def test_different_test_sets_carry_a_mark(tmp_path):
    one, two = scored(tmp_path)
    few = write_store(tmp_path / "few", OTHERS[:30], LABELS[:30], clips=3, crops=2, class_names=NAMES)
    stores = Stores([tmp_path / "a", few], intersect=True)
    of_all, of_few = stores.rescored(places=[0]), stores.rescored(places=[1])
    assert mark_of([*one.headers, *two.headers]) is None
    mark = mark_of([*of_all.headers, *of_few.headers])
    assert mark.startswith(f"different test sets ({one.coverage.fingerprint}, {of_few.coverage.fingerprint}): ")
    assert mark[1:] in write_report(tmp_path / "report", of_all, against=of_few).read_text(encoding="utf-8")

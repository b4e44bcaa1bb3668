"""The generated scenes: ADE20K's layout exactly, the same from a seed, and no task for a look at single colours."""

import re

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label as connected
from sklearn.metrics import jaccard_score

from morphmlp.benchmarks.segmentation_baselines import baselines_table, measure_baselines
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.data.synthetic.scenes import CLASSES, scene, write_ade20k_standin
from morphmlp.errors import ManifestError
from morphmlp.progress import TerminalProgress


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "ADEChallengeData2016"
    write_ade20k_standin(folder, train=40, val=12, seed=1)
    return folder


def arrays(folder, split):
    pictures = sorted((folder / "images" / split).iterdir())
    maps = sorted((folder / "annotations" / split).iterdir())
    assert [path.stem for path in pictures] == [path.stem for path in maps]
    return [
        (np.asarray(Image.open(a).convert("RGB")), np.asarray(Image.open(b)))
        for a, b in zip(pictures, maps, strict=True)
    ]


def test_files_lie_as_those_of_the_benchmark(scenes):
    names = [str(path.relative_to(scenes)) for path in sorted(scenes.rglob("*.[jp][pn]g"))]
    layout = re.compile(r"(images/(training/ADE_train|validation/ADE_val)_\d{8}\.jpg|annotations/.*_\d{8}\.png)")
    assert len(names) == 2 * 52
    assert all(layout.fullmatch(name) for name in names)
    with Image.open(scenes / "annotations/training/ADE_train_00000001.png") as one:
        assert (one.mode, one.format) == ("L", "PNG")
    with Image.open(scenes / "images/training/ADE_train_00000001.jpg") as one:
        assert (one.mode, one.format) == ("L", "JPEG")
    header, *rows = (scenes / "objectInfo150.txt").read_text().splitlines()
    assert header == "Idx\tRatio\tTrain\tVal\tName"
    have = {
        split: sum((labels == 1).any() for _, labels in arrays(scenes, split)) for split in ("training", "validation")
    }
    assert rows[0].split("\t")[2:] == [str(have["training"]), str(have["validation"]), "wall"]
    assert read_manifest(scenes / "train.parquet").class_names == CLASSES


def test_a_seed_gives_the_same_scenes_and_another_one_others():
    first, again, other = (scene(np.random.default_rng([seed, 0, 3])) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


def test_scenes_have_every_class_ignored_borders_objects_in_front_of_others_and_a_thin_class(scenes):
    pairs = arrays(scenes, "training")
    assert set(np.unique(np.concatenate([labels.reshape(-1) for _, labels in pairs]))) == set(range(len(CLASSES) + 1))
    for image, labels in pairs:
        assert image.shape[:2] == labels.shape
        assert 96 <= min(labels.shape) <= max(labels.shape) <= 160
    poles = [connected(labels == CLASSES.index("pole") + 1) for _, labels in pairs]
    widths = [np.ptp(np.nonzero(numbers == k)[1]) + 1 for numbers, count in poles for k in range(1, count + 1)]
    assert np.median(widths) <= 5
    # What stands in front cuts what is behind it: some balls aren't round.
    balls = [labels == CLASSES.index("ball") + 1 for _, labels in pairs]
    filled = [mask.sum() / (np.ptp(np.nonzero(mask)[0]) + 1) ** 2 for mask in balls if mask.any()]
    assert min(filled) < 0.6 * np.pi / 4


def test_single_colours_score_far_from_what_texture_shows_and_as_scikit_learn_counts(scenes):
    with TerminalProgress() as progress:
        found = measure_baselines(scenes / "train.parquet", scenes / "val.parquet", progress=progress)
    everywhere, colour = found
    assert everywhere.miou < colour.miou < 40
    assert {each.images for each in found} == {12}
    # The same rules by another program, pixel by pixel.
    train, val = arrays(scenes, "training"), arrays(scenes, "validation")
    votes = {}
    for image, labels in train:
        for key, k in zip((image // 16).reshape(-1, 3).tolist(), labels.reshape(-1).tolist(), strict=True):
            if k:
                votes.setdefault(tuple(key), np.zeros(9, int))[k] += 1
    most = int(sum(votes.values()).argmax())
    truth = np.concatenate([labels.reshape(-1) for _, labels in val])
    keys = [tuple(key) for image, _ in val for key in (image // 16).reshape(-1, 3).tolist()]
    guess = np.array([votes[key].argmax() if key in votes else most for key in keys])
    valid = truth > 0
    for baseline, guesses in ((colour, guess), (everywhere, np.full_like(guess, most))):
        scores = jaccard_score(truth[valid], guesses[valid], labels=range(1, 9), average=None, zero_division=0)
        assert baseline.miou == pytest.approx(100 * scores.mean())
        assert baseline.aacc == pytest.approx(100 * (truth == guesses)[valid].mean())
    assert f"| {everywhere.rule} | {everywhere.miou:.2f} |" in baselines_table(found)


def test_baselines_need_label_maps(scenes, tmp_path):
    plain = manifest_from_rows(
        video_ids=["a"], paths=["a.jpg"], labels=[0], splits=["val"], sizes_bytes=[1], class_names=["a"], items="images"
    )
    write_manifest(plain, tmp_path / "plain.parquet")
    with (
        TerminalProgress() as progress,
        pytest.raises(ManifestError, match="is for classification, its images have no"),
    ):
        measure_baselines(scenes / "train.parquet", tmp_path / "plain.parquet", progress=progress)

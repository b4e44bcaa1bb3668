"""Sheets of images with label maps: what the extractors make, in rows, and what can't be used said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphmlp.config import load_config
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.scenes import TrainScenes, WholeScenes
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.reporting.scene_sheet import scene_rows, scene_sheet
from morphmlp.reporting.segmentation import palette

CONFIG = load_config(Path(__file__).parents[1] / "small_segmentation.yaml")
NAMES = ("one", "two", "three", "four")


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    paths, maps = [], []
    for name in "ab":
        paths.append(str(tmp_path / f"{name}.jpg"))
        maps.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(paths[-1])
        Image.fromarray(rng.integers(0, 5, (4, 6), dtype=np.uint8)).resize((60, 40), 0).save(maps[-1])
    (tmp_path / "b.png").write_bytes(b"no map")
    return manifest_from_rows(
        video_ids=["a", "b"],
        paths=paths,
        labels=[0, 0],
        splits=["train"] * 2,
        sizes_bytes=[1, 1],
        class_names=NAMES,
        items="images",
        task="segmentation",
        images={"map_path": maps, "map_crc32": [None] * 2, "map_zero_is_ignored": [True] * 2},
    )


def test_rows_show_what_training_and_validation_get_and_name_what_cannot_be_used(manifest):
    videos = AnyVideo(None)
    settings = {"clip": CONFIG.clip, "segmentation": CONFIG.segmentation, "num_classes": 4}
    training = TrainScenes(**settings)
    crop, broken = scene_rows(manifest, videos, training, rows=[0, 1], seed=3, epoch=1)
    (row,) = manifest.table.slice(0, 1).to_pylist()
    image = videos.open(row["path"], num_frames=None)
    label_map = videos.open(row["map_path"], num_frames=None, image=StoredImage.of_map(row))
    made = training.extract(image, ClipKey(seed=3, epoch=1, video_id="a"), label_map)
    assert np.array_equal(crop.image, made.clips[0, 0])
    assert np.array_equal(crop.label_map, made.maps[0])
    assert crop.words.startswith("60x40 px: scale to ")
    assert broken.image is None
    assert broken.words.endswith("b.png isn't an image")
    (whole,) = scene_rows(manifest, videos, WholeScenes(**settings), rows=[0], seed=3, epoch=0)
    assert whole.image.shape == (40, 60, 3)
    stored = np.asarray(Image.open(row["map_path"])).astype(int)
    assert np.array_equal(whole.label_map, np.where(stored == 0, 255, stored - 1))

    figure = scene_sheet([whole, broken], NAMES, title="all of it")
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 3
    assert np.array_equal(pictures[0], whole.image)
    assert np.array_equal(pictures[1][stored == 2], np.broadcast_to(palette(4)[1], (int((stored == 2).sum()), 3)))
    assert (pictures[1][stored == 0] == 255).all()
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "a" in words
    assert any("isn't an image" in text for text in words)

"""Images with label maps through a decode task, a cache and the stream: both as a plain loop over Pillow reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from morphmlp.config import load_config
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.decoding.protocol import DecodedFrames
from morphmlp.data.decoding.stored_frames.stills import image_info
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.data.stream import decode_task
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.clip_cache import ClipCache
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.data.stream.ray_dataset import IngestShare
from morphmlp.tasks.factory import task_of

CONFIG = load_config(Path(__file__).parents[2] / "small_segmentation.yaml")
TASK = task_of(CONFIG)
LIMITS = Limits(timeout_s=30.0)
COUNT, SEED, EPOCH = 11, 5, 2
FAULTS = {
    2: "can't be read: no such file or directory",
    4: "its label map",
    6: "has 48x58 px and its label map 49x58",
    8: "has class 4",
    9: "has no label map",
}
"""By row: the image is missing, its map is no image, it has another size, a class that there isn't, or isn't there."""


class Read:
    """Pixels as an open video of one frame."""

    def __init__(self, pixels):
        self.pixels, self.info = pixels, image_info(width=pixels.shape[1], height=pixels.shape[0], codec="png")

    def read(self, indices):
        return DecodedFrames(frames=self.pixels[np.newaxis][list(indices)], concealed=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """PNGs of different sizes; maps count from 1 and ignore 0."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    paths, maps = [], []
    for row in range(COUNT):
        height, width = 40 + 3 * row, 60 - 2 * row
        paths.append(str(folder / f"{row}.png"))
        maps.append(None if row == 9 else str(folder / f"{row}-map.png"))
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
        labels = rng.integers(0, 5, (height // 8 + 1, width // 8 + 1), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        labels = labels[:height, : width + (row == 6)] + 3 * (row == 8)
        Image.fromarray(np.ascontiguousarray(labels)).save(folder / f"{row}-map.png")
    Path(paths[2]).unlink()
    (folder / "4-map.png").write_bytes(b"no image")
    return manifest_from_rows(
        video_ids=[f"scene{row:02d}" for row in range(COUNT)],
        paths=paths,
        labels=[0] * COUNT,
        splits=["train"] * COUNT,
        sizes_bytes=[1] * COUNT,
        class_names=list("wxyz"),
        items="images",
        task="segmentation",
        images={"map_path": maps, "map_zero_is_ignored": [True] * COUNT, "map_crc32": [None] * COUNT},
    )


PLAN = MicroBatchPlan(epoch=EPOCH, step=0, index=0, seed=SEED, rows=np.array([8, 3, 4, 0, 1, 10, 2, 6, 5, 7, 9]))


def plain(scenes, row, extractor):
    """What an extractor makes of one image and its map as Pillow reads them, 0 ignored and classes from 1."""
    (cells,) = scenes.table.slice(row, 1).to_pylist()
    with Image.open(cells["path"]) as image, Image.open(cells["map_path"]) as label_map:
        pixels, values = np.array(image), np.array(label_map).astype(int)
    labels = np.where(values == 0, 255, values - 1).astype(np.uint8)
    key = ClipKey(seed=SEED, epoch=EPOCH, video_id=cells["video_id"])
    return extractor.extract(Read(pixels), key, Read(np.repeat(labels[..., None], 3, axis=2)))


def policy(cache=None):
    return DecodePolicy(decoder="pyav", retry_with=None, limits=LIMITS, cache=cache)


@pytest.fixture(autouse=True, scope="module")
def _close():
    yield
    isolated_videos("pyav", LIMITS).close()


def streamed(scenes, extractor, plans, *, at_once=16, cache=None):
    before, decode_task.IMAGES_AT_ONCE = decode_task.IMAGES_AT_ONCE, at_once
    try:
        table = DecodeTask(extractor=extractor, policy=policy(cache))(request_table(scenes, plans))
    finally:
        decode_task.IMAGES_AT_ONCE = before
    shape = ClipShape.of(extractor)
    return list(assemble(iter([table]), iter(plans), manifest=scenes, stage="train", shape=shape))


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_crops_and_their_maps_are_those_of_a_plain_loop_and_faulty_pairs_are_named(scenes, at_once, tmp_path):
    extractor, cache = TASK.train_clips(), ClipCache(folder=str(tmp_path), max_bytes=2**30)
    good = [row for row in PLAN.rows.tolist() if row not in FAULTS]
    expected = [plain(scenes, row, extractor) for row in good]
    for kept in (None, cache, cache):  # decoded, decoded and kept, found again
        (batch,) = streamed(scenes, extractor, [PLAN], at_once=at_once, cache=kept)
        assert batch.rows.tolist() == good
        assert np.array_equal(batch.clips, np.concatenate([one.clips for one in expected]))
        assert np.array_equal(batch.labels, np.concatenate([one.maps for one in expected]))
        assert batch.labels.dtype == torch.uint8
        reasons = {int(video.video_id[-2:]): video.message for video in batch.broken}
        assert reasons.keys() == FAULTS.keys()
        assert {row: reason for row, reason in reasons.items() if FAULTS[row] not in reason} == {}
        assert len({len(reason.splitlines()) for reason in reasons.values()}) == 1


def test_whole_images_are_micro_batches_of_their_own_sizes(scenes):
    extractor = TASK.val_clips()
    plans = [MicroBatchPlan(epoch=0, step=0, index=index, rows=np.array([index])) for index in range(COUNT)]
    for row, batch in enumerate(streamed(scenes, extractor, plans)):
        assert len(batch.broken) == (row in FAULTS)
        if row in FAULTS:
            assert (len(batch.clips), len(batch.labels), len(batch.rows)) == (0, 0, 0)
        else:
            expected = plain(scenes, row, extractor)
            assert batch.clips.shape == (1, 1, 40 + 3 * row, 60 - 2 * row, 3)
            assert np.array_equal(batch.clips, expected.clips)
            assert np.array_equal(batch.labels, expected.maps)


def test_images_of_several_sizes_make_no_micro_batch(scenes):
    plans = [MicroBatchPlan(epoch=0, step=0, index=0, rows=np.array([0, 1]))]
    with pytest.raises(RuntimeError, match=r"videos of 2 sizes: \[\(40, 60\), \(43, 58\)\]; each must be its own"):
        streamed(scenes, TASK.val_clips(), plans)


def test_a_map_that_was_changed_is_not_taken_from_the_cache(scenes, tmp_path):
    plans = [MicroBatchPlan(epoch=0, step=0, index=0, rows=np.array([0]))]
    cache = ClipCache(folder=str(tmp_path / "cache"), max_bytes=2**30)
    own = tmp_path / "map.png"
    own.write_bytes(Path(scenes.table["map_path"][0].as_py()).read_bytes())
    place = scenes.table.column_names.index("map_path")
    table = scenes.table.slice(0, 1).set_column(place, "map_path", [[str(own)]])
    of_one = Manifest(table, scenes.class_names, task="segmentation", items="images")
    (before,) = streamed(of_one, TASK.val_clips(), plans, cache=cache)
    Image.fromarray(np.full((40, 60), 2, dtype=np.uint8)).save(own)
    (after,) = streamed(of_one, TASK.val_clips(), plans, cache=cache)
    assert len(torch.unique(before.labels)) > 1
    assert torch.unique(after.labels).tolist() == [1]


@pytest.mark.parametrize(
    ("crop_size", "whole", "images"), [(32, False, 256), (224, False, 208), (512, False, 40), (512, True, 5)]
)
def test_a_decode_task_takes_fewer_images_the_larger_they_are(crop_size, whole, images):
    config = load_config(
        Path(__file__).parents[2] / "small_segmentation.yaml",
        {
            "model.chunk_crop_size": 32,
            "clip.crop_size": crop_size,
            "clip.short_edge": 512,
            "segmentation.long_edge": 2048,
        },
    )
    extractor = task_of(config).val_clips() if whole else task_of(config).train_clips()
    share = IngestShare(
        policy=policy(), cpus=1, object_store_bytes=None, videos_per_task=None, node_labels={}, pin_memory=False
    )
    assert share.task_videos(extractor) == images

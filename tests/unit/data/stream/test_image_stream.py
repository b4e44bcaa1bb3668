"""Images through a decode task: the clips of a plain loop over Pillow, wherever they are made and whatever is kept."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, TrainFrames, ViewClips
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.decoding.protocol import DecodedFrames, cut
from morphmlp.data.decoding.stored_frames.stills import image_info
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream import decode_task
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.clip_cache import ClipCache
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan

LIMITS = Limits(timeout_s=30.0)
BROKEN = 4
COUNT = 11
CLIP = ClipConfig(
    sampling="segments", num_frames=1, frame_stride=None, crop_size=32, short_edge=36, channel_order="rgb"
)


def augment(on):
    return AugmentConfig(
        repeats=2,
        short_edge=40,
        rand_augment="rand-m9-n2-mstd0.5-inc1",
        scale=(0.08, 1.0),
        aspect=(0.75, 1.333),
        flip=0.5,
        erase=0.25,
        on=on,
    )


class PlainReader:
    """An image as Pillow gives it."""

    def __init__(self, data):
        with Image.open(io.BytesIO(data)) as image:
            self.pixels = np.array(image.convert("RGB"))
        self.info = image_info(width=self.pixels.shape[1], height=self.pixels.shape[0], codec="jpeg")

    def read(self, indices, box=None):
        return DecodedFrames(frames=cut(self.pixels[np.newaxis][list(indices)], box), concealed=0)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A manifest of images: JPEGs of all kinds, a PNG and a GIF named .JPEG, and one that can't be used."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(COUNT):
        path = folder / f"{number}.JPEG"
        soft = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((50 + 5 * number, 60))
        options = {1: {"progressive": True}, 2: {"subsampling": "4:2:2"}}.get(number, {})
        mode, kind = {3: ("CMYK", "JPEG"), 5: ("L", "JPEG"), 6: ("RGB", "PNG"), 7: ("P", "GIF")}.get(
            number, ("RGB", "JPEG")
        )
        soft.convert(mode).save(path, kind, **options)
        paths.append(str(path))
    (folder / f"{BROKEN}.JPEG").write_bytes(b"\xff\xd8 and no more")
    return manifest_from_rows(
        video_ids=[f"image {number}" for number in range(COUNT)],
        paths=paths,
        labels=list(range(COUNT)),
        splits=["train"] * COUNT,
        sizes_bytes=[1] * COUNT,
        class_names=[str(number) for number in range(COUNT)],
        items="images",
        images={"as_stored": [True] * COUNT},
    )


PLAN = MicroBatchPlan(epoch=3, step=0, index=0, seed=7, rows=np.array([8, 3, 4, 0, 1, 10, 2, 6, 5, 7, 9]))


def expected_clips(images, extractor):
    """In the order of the plan, one image at a time, without a process, a cache or a decode task."""
    clips = []
    for row in PLAN.rows:
        if row != BROKEN:
            (cells,) = images.table.slice(row, 1).to_pylist()
            key = ClipKey(seed=PLAN.seed, epoch=PLAN.epoch, video_id=cells["video_id"])
            clips.append(extractor.extract(PlainReader(Path(cells["path"]).read_bytes()), key).clips)
    return np.concatenate(clips)


def micro_batch(images, extractor, policy):
    finish = extractor.finish_on(torch.device("cpu")) if isinstance(extractor, TrainFrames) else None
    tables = iter([DecodeTask(extractor=extractor, policy=policy)(request_table(images, [PLAN]))])
    shape = ClipShape.of(extractor)
    (batch,) = assemble(tables, iter([PLAN]), manifest=images, stage="train", shape=shape, finish=finish)
    return batch


@pytest.fixture(scope="module", autouse=True)
def decoders():
    yield
    for name in ("simplejpeg", "pillow"):
        isolated_videos("pyav", LIMITS, name).close()


@pytest.mark.parametrize("image_decoder", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("with_cache", [False, True])
@pytest.mark.parametrize("made", ["ingest", "worker", "views"])
def test_clips_of_images_are_those_of_a_plain_loop_over_pillow(  # noqa: PLR0917 (fixtures and parameters)
    made, with_cache, at_once, image_decoder, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(decode_task, "IMAGES_AT_ONCE", at_once)
    plain = TrainClips(clip=CLIP, augment=augment("ingest"))
    views = ViewClips(clip=CLIP, views=SINGLE_VIEW)
    extractor = {"ingest": plain, "worker": TrainFrames(clip=CLIP, augment=augment("worker")), "views": views}[made]
    cache = ClipCache(folder=str(tmp_path / "clips"), max_bytes=2**30) if with_cache else None
    policy = DecodePolicy(decoder="pyav", retry_with=None, limits=LIMITS, cache=cache, image_decoder=image_decoder)
    expected = expected_clips(images, views if made == "views" else plain)
    good = PLAN.rows[PLAN.rows != BROKEN]
    for _ in range(2 if with_cache else 1):
        batch = micro_batch(images, extractor, policy)
        assert np.array_equal(batch.clips.numpy(), expected)
        assert batch.rows.tolist() == good.tolist()
        assert batch.labels.tolist() == np.repeat(good, extractor.clips_per_video).tolist()
        assert [(broken.video_id, broken.error) for broken in batch.broken] == [(f"image {BROKEN}", "DecodeError")]
        assert batch.retried == (1 if image_decoder == "simplejpeg" else 0)  # the one of CMYK
        assert batch.cpu_s > 0

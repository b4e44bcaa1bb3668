"""The clips that the measurements extract: those of the published Kinetics recipe, without RandAugment and erasing.

RandAugment costs as much as decoding and runs on the training device where there is a GPU; it is left out on all sides.
"""

from typing import Literal

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.config.schema import TestConfig
from morphmlp.data.clips.extract import ClipExtractor, TrainClips, ViewClips

ClipKind = Literal["train", "train twice", "four views"]

CLIP = ClipConfig(sampling="dense", num_frames=16, frame_stride=4, crop_size=224, short_edge=256, channel_order="rgb")


def extractor_of(kind: ClipKind) -> ClipExtractor:
    """`train`: one training clip. `train twice`: two repeats from one decode. `four views`: 4 clips x 1 crop."""
    if kind == "four views":
        return ViewClips(clip=CLIP, views=TestConfig(num_clips=4, num_crops=1))
    augment = AugmentConfig(
        repeats=2 if kind == "train twice" else 1,
        short_edge=CLIP.short_edge,
        rand_augment=None,
        scale=(0.08, 1.0),
        aspect=(0.75, 1.3333),
        flip=0.5,
        erase=0.0,
    )
    return TrainClips(clip=CLIP, augment=augment)

"""A small network for 64 px crops, and the section that describes its decoder."""

from dataclasses import replace

import torch
from tiny_network import TINY

from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.models.build import build_network
from morphmlp.models.network import Network

CROP = 64
MODEL = replace(TINY, temporal="none")
FPN = SegmentationConfig(
    decoder="semantic_fpn",
    decoder_channels=8,
    dropout=0.1,
    auxiliary_weight=0.0,
    loss_over="all_pixels",
    long_edge=2048,
    resize_ratio=(0.5, 2.0),
    category_limit=0.75,
    flip=0.5,
    photometric=True,
)
UPERNET = replace(FPN, decoder="upernet", auxiliary_weight=0.4)
RESNET = replace(FPN, backbone="resnet50")
DECODERS = {"semantic_fpn": FPN, "upernet": UPERNET}


def network(segmentation: SegmentationConfig = FPN, **changes: object) -> Network:
    torch.manual_seed(0)
    return build_network(replace(MODEL, **changes), num_frames=1, crop_size=CROP, segmentation=segmentation)


def images(count: int = 2, height: int = CROP, width: int = CROP) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def gradients(model: Network, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(2)
    sum(one.square().mean() for one in model(x)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}

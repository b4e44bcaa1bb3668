"""A network of five blocks, clips for it, and its gradients. Not a test module, so that several can import it."""

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from morphmlp.config import ModelConfig
from morphmlp.models import MorphMLP

TINY = ModelConfig(
    depths=(1, 2, 1, 1),
    embed_dims=(16, 16, 24, 32),
    chunk_lengths=(8, 8, 4, 4),
    mlp_ratio=2.0,
    drop_path_rate=0.0,
    num_classes=5,
    temporal="mixed",
    init="published",
)
FRAMES, CROP = 8, 64


def tiny(**changes: object) -> MorphMLP:
    torch.manual_seed(0)
    return MorphMLP(replace(TINY, **changes), num_frames=FRAMES, crop_size=CROP)


def clips(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, FRAMES, CROP, CROP, generator=torch.Generator().manual_seed(1))


def gradients(model: MorphMLP, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(2)
    cross_entropy(model(x), torch.arange(len(x)) % 5).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}

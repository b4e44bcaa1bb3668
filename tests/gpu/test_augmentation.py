"""Clips made on a GPU are those of a CPU up to the rounding of resizing and warping."""

from pathlib import Path

import numpy as np
import pytest
import torch

from morphmlp.config import load_config
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import clips_on_device

pytestmark = pytest.mark.gpu

K400_S = Path(__file__).parents[2] / "experiments" / "k400" / "morphmlp_s_16x4.yaml"


def frames(height, width, count=16):
    """Smooth coloured pictures with a little noise, as videos are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1)
    clip = 128 + 80 * waves[None] + rng.normal(0, 6, (count, height, width, 3))
    return torch.from_numpy(clip.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("video", [f"v{number}" for number in range(8)])
def test_clips_of_a_gpu_are_those_of_a_cpu_up_to_rounding(gpu, video):
    config = load_config(K400_S)
    source = frames(256, 340)

    def made(device):
        key = ClipKey(seed=0, epoch=0, video_id=video)
        return clips_on_device(source, key, clip=config.clip, augment=config.augment, device=device)

    there, here = made(gpu), made(torch.device("cpu"))
    assert there.is_cuda
    apart = (there.cpu().int() - here.int()).abs()
    different, more = ((apart > most).float().mean().item() for most in (0, 1))
    print(f"{video}: {different:.4f} of the values differ, {more:.5f} by more than 1")
    assert more < 0.01

"""How long a network takes for one view, measured on this machine: what a budget may bound."""

import time
from statistics import median

import torch

from morphmlp.models import MorphMLP
from morphmlp.tuning.space.fitting import Sizes

WARM_UP = 2
ROUNDS = 5


def measured_latency_ms(sizes: Sizes) -> float:
    """Milliseconds of a forward pass of one view in fp32, on the GPU where there is one: median over some passes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MorphMLP(sizes.model, num_frames=sizes.num_frames, crop_size=sizes.crop_size).eval().to(device)
    view = torch.zeros(1, *model.input_shape, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            model(view).sum().item()  # waits for the device
            times.append(1000 * (time.perf_counter() - began))
    return median(times[WARM_UP:])

"""What chunk shapes cost: at the trained size nothing more than the crops they are compared with."""

import torch

from morphmlp.benchmarks.chunk_shapes import measure_chunk_shapes, shapes_table
from morphmlp.models.cost import model_cost
from morphmlp.models.presets import preset


def test_ways_are_compared_by_pixels_and_macs():
    found = measure_chunk_shapes(
        "morphmlp_t_image", size=256, images=1, rounds=1, device=torch.device("cpu"), precision=torch.float32
    )
    assert [cost.name for cost in found] == ["crops", "windows", "padded_line", "padded_side"]
    assert (found[0].ratio, found[0].macs_ratio) == (1, 1)
    model = preset("morphmlp_t_image").model
    small, large = (model_cost(model, num_frames=1, crop_size=224, view_size=size).gmacs for size in (224, 256))
    assert abs(found[1].macs_ratio - large / 256**2 / (small / 224**2)) < 1e-9
    assert all(cost.ms_per_megapixel > 0 for cost in found)
    assert len(shapes_table(found).splitlines()) == 6

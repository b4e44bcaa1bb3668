"""Compiled blocks of networks that segment: one compilation for crops, none for whole images."""

import pytest
import torch
from tiny_segmentation import FPN, RESNET, gradients, images, network
from torch._dynamo.utils import counters

# The compiler looks at everything that a tensor has.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: the compiler can't look through beartype."""


@pytest.mark.parametrize(("segmentation", "blocks"), [(FPN, 4), (RESNET, 8)], ids=["morphmlp", "resnet"])
def test_compiled_blocks_serve_the_training_size_and_whole_images_run_as_they_are(segmentation, blocks):
    torch.compiler.reset()
    counters.clear()
    limit = torch.compiler.config.recompile_limit
    plain, fast = (network(segmentation, init="random_projection").double().train() for _ in range(2))
    fast.compile_blocks("aot_eager")
    try:
        for count in (4, 3):
            found, expected = (gradients(model, images(count).double()) for model in (fast, plain))
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        compiled = counters["stats"]["unique_graphs"]
        assert compiled == blocks
        with torch.inference_mode():
            for height, width in ((72, 56), (40, 96), (125, 171)):
                whole = images(1, height, width).double()
                torch.testing.assert_close(fast.eval()(whole), plain.eval()(whole))
        assert counters["stats"]["unique_graphs"] == compiled
    finally:
        torch.compiler.reset()
        torch.compiler.config.recompile_limit = limit

"""A published network of fused kernels, in Triton's interpreter, against vectors of the published source."""

import pytest
import torch
from golden_models import GOLDEN, golden_input, golden_model, golden_tensor

from morphmlp.models.fused import channel_launch, launch, norm_launch
from morphmlp.models.fused.form import as_fused

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch):
    """The interpreter takes its time for each."""
    monkeypatch.setattr(launch, "LINEAR_BLOCKS", (1024, 1024, 1024))
    monkeypatch.setattr(channel_launch, "FORWARD_BYTES", 2**22)
    monkeypatch.setattr(channel_launch, "MOST_TOKENS", 1024)
    monkeypatch.setattr(channel_launch, "HIDDEN_BLOCK", 128)
    monkeypatch.setattr(norm_launch, "MOST_VALUES", 2**19)
    yield
    golden_tensor.cache_clear()


def test_fp32_gives_the_logits_of_the_published_source_and_those_of_the_present_form():
    model, golden = golden_model("morphmlp_s_16x4"), GOLDEN["morphmlp_s_16x4"]
    view = golden_input(model)
    with torch.inference_mode():
        present = model(view)[0]
        logits = as_fused(model)(view)[0]
    assert (logits - present).norm() < 1e-6 * present.norm()
    assert logits[:6].tolist() == pytest.approx(golden["logits"], abs=1e-4)
    assert logits.norm().item() == pytest.approx(golden["l2"], abs=1e-4)
    assert logits.argmax().item() == golden["argmax"]

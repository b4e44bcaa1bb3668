"""The forward pass against vectors computed with the published source; it may not drift."""

import pytest
import torch
from golden_models import GOLDEN, golden_input, golden_model, golden_tensor, hash_values
from torch import Tensor

from morphmlp.models import MorphMLP
from morphmlp.models.backbone import Block

VIDEO_MODELS = ("morphmlp_s_16x4", "morphmlp_s_32x4", "morphmlp_b_16x4", "morphmlp_b_32x4")


@pytest.fixture(autouse=True, scope="module")
def forget_tensors_afterwards():
    yield
    golden_tensor.cache_clear()


def forward_with_means(model: MorphMLP, clips: Tensor) -> tuple[Tensor, list[float]]:
    """Logits, and the mean absolute activation after the stem and the four stages."""
    means = []
    hook = model.patch_embed1.register_forward_hook(lambda *call: means.append(call[-1].abs().mean().item()))
    with torch.no_grad():
        maps = model.forward_features(clips)
        logits = model.forward_head(maps[-1])
    hook.remove()
    return logits[0], means + [stage_map.abs().mean().item() for stage_map in maps]


def test_the_hash_gives_the_published_check_values():
    assert hash_values("input", 4).tolist() == GOLDEN["input_values"]


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_forward_equals_the_published_source(name):
    model, golden = golden_model(name), GOLDEN[name]
    logits, means = forward_with_means(model, golden_input(model))
    assert logits[:6].tolist() == pytest.approx(golden["logits"], abs=1e-4)
    assert logits.sum().item() == pytest.approx(golden["sum"], abs=1e-3)
    assert logits.norm().item() == pytest.approx(golden["l2"], abs=1e-4)
    assert logits.argmax().item() == golden["argmax"]
    assert means == pytest.approx(golden["mean_activation"], abs=1e-5)


def test_forward_in_float64_equals_the_published_source_to_eight_digits():
    model, golden = golden_model("morphmlp_s_16x4", torch.float64), GOLDEN["morphmlp_s_16x4"]
    logits, means = forward_with_means(model, golden_input(model, torch.float64))
    assert logits[:6].tolist() == pytest.approx(golden["logits"], abs=1e-8)
    assert [logits.sum().item(), logits.norm().item()] == pytest.approx([golden["sum"], golden["l2"]], abs=2e-8)
    assert means == pytest.approx(golden["mean_activation"], abs=1e-8)


def test_the_ordinary_residual_chain_would_be_caught(monkeypatch):
    def ordinary(self, x, kept):
        u = x + self.t_fc(self.t_norm1(x))
        y = u + self.fc(self.norm1(u))
        return y + self.mlp(self.norm2(y))

    monkeypatch.setattr(Block, "forward", ordinary)
    model = golden_model("morphmlp_s_16x4")
    logits, _ = forward_with_means(model, golden_input(model))
    wrong = GOLDEN["morphmlp_s_16x4 with the ordinary residual chain"]["logits"]
    assert logits[:3].tolist() == pytest.approx(wrong, abs=6e-4)
    assert logits[:3].tolist() != pytest.approx(GOLDEN["morphmlp_s_16x4"]["logits"][:3], abs=0.1)

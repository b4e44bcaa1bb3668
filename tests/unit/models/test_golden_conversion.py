"""Full-size weights through all file forms and back: nothing changes, and the golden vectors still hold.

Here and not with the other tests of files, because the networks are the golden ones.
"""

import pytest
import torch
from golden_models import GOLDEN, golden_input, golden_model, golden_tensor

from morphmlp.models import build_model
from morphmlp.training.weights.file import read_weights, write_weights


@pytest.mark.parametrize(
    "name",
    [
        "morphmlp_s_16x4",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("morphmlp_s_32x4", "morphmlp_b_16x4", "morphmlp_b_32x4")
        ),
    ],
)
def test_a_published_checkpoint_survives_conversion_there_and_back(name, tmp_path):
    original = golden_model(name).state_dict()
    released, ours, again = (tmp_path / file for file in ("released.pth", "ours.safetensors", "again.pth"))
    torch.save(original, released)
    write_weights(read_weights(released), ours)
    write_weights(read_weights(ours), again)
    returned = torch.load(again, weights_only=True)
    assert returned.keys() == original.keys()
    for key, value in original.items():
        assert value.dtype == returned[key].dtype
        assert torch.equal(value, returned[key]), key

    with torch.device("meta"):
        model = build_model(name)
    model.load_state_dict(read_weights(ours).state, assign=True)
    with torch.no_grad():
        logits = model.eval()(golden_input(model))[0]
    golden_tensor.cache_clear()
    assert logits[:6].tolist() == pytest.approx(GOLDEN[name]["logits"], abs=1e-4)
    assert logits.sum().item() == pytest.approx(GOLDEN[name]["sum"], abs=1e-3)
    assert logits.argmax().item() == GOLDEN[name]["argmax"]

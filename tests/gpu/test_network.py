"""The network on a GPU: the published numbers, 16-bit arithmetic, compiled and recomputed blocks, memory."""

from pathlib import Path

import pytest
import torch
from golden_models import GOLDEN, golden_input, golden_model
from tiny_network import clips, gradients, tiny

from morphmlp.config import load_config
from morphmlp.models.cost import activation_bytes
from morphmlp.models.fused.form import as_fused
from morphmlp.tasks.classification import soft_target_loss_sum, soft_targets
from morphmlp.tasks.factory import task_of
from morphmlp.tuning.space.fitting import Sizes, measured_latency_ms

pytestmark = pytest.mark.gpu

K400_S = Path(__file__).parents[2] / "experiments" / "k400" / "morphmlp_s_16x4.yaml"
RANDOM = {"drop_path_rate": 0.5, "init": "random_projection"}


@pytest.mark.parametrize("name", ["morphmlp_s_16x4", "morphmlp_b_32x4"])
def test_forward_equals_the_published_source(name, gpu, exact_arithmetic):
    model, golden = golden_model(name), GOLDEN[name]
    view = golden_input(model).to(gpu)
    with torch.inference_mode():
        logits = model.to(gpu)(view)[0].cpu()
    assert logits[:6].tolist() == pytest.approx(golden["logits"], abs=1e-4)
    assert logits.norm().item() == pytest.approx(golden["l2"], abs=1e-4)
    assert logits.argmax().item() == golden["argmax"]


def test_rounded_arithmetic_stays_near_the_published_source(gpu):
    """As validation and tests compute (fp32, with torch's own settings) and as training does (bf16)."""
    model, golden = golden_model("morphmlp_s_16x4"), GOLDEN["morphmlp_s_16x4"]
    view = golden_input(model).to(gpu)
    model.to(gpu)
    found = {}
    with torch.inference_mode():
        found["fp32"] = model(view)[0, :6].cpu()
        with torch.autocast("cuda", torch.bfloat16):
            found["bf16"] = model(view)[0, :6].float().cpu()
    expected = torch.tensor(golden["logits"])
    off = {name: ((logits - expected).abs().max() / expected.abs().max()).item() for name, logits in found.items()}
    print("relative error of the logits:", off)
    assert off["fp32"] < 2e-3
    assert off["bf16"] < 5e-2


def test_gradients_are_those_of_a_cpu(gpu, exact_arithmetic):
    model = tiny(init="random_projection").double()
    expected = gradients(model, clips(4).double())
    found = _gradients(tiny(init="random_projection").double().to(gpu), clips(4).double().to(gpu))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stages", [(), (1, 2, 3, 4)])
def test_compiled_blocks_have_the_same_gradients_with_the_same_draws(gpu, stages, exact_arithmetic):
    torch.compiler.reset()
    plain, compiled = tiny(**RANDOM).to(gpu), tiny(**RANDOM).to(gpu)
    compiled.compile_blocks()
    compiled.set_activation_checkpointing(stages)
    expected, found = _gradients(plain, clips(4).to(gpu)), _gradients(compiled, clips(4).to(gpu))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stages", [(), (1, 2, 3, 4)])
def test_fused_kernels_have_the_same_gradients_with_the_same_draws(gpu, stages, exact_arithmetic):
    plain, fused = tiny(**RANDOM).to(gpu), as_fused(tiny(**RANDOM).to(gpu))
    fused.set_activation_checkpointing(stages)
    expected, found = _gradients(plain, clips(4).to(gpu)), _gradients(fused, clips(4).to(gpu))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_fused_kernels_in_compiled_blocks_have_the_same_gradients(gpu, exact_arithmetic):
    torch.compiler.reset()
    plain, compiled = tiny(**RANDOM).to(gpu), as_fused(tiny(**RANDOM).to(gpu))
    compiled.compile_blocks()
    expected, found = _gradients(plain, clips(4).to(gpu)), _gradients(compiled, clips(4).to(gpu))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_fused_kernels_compute_a_published_network_as_it_is(gpu, exact_arithmetic):
    """S 16x4, whose channels no block of a kernel divides, in fp32 and in bf16."""
    model = golden_model("morphmlp_s_16x4").to(gpu)
    view = golden_input(model).to(gpu)
    found = {}
    with torch.inference_mode():
        for form in ("plain", "fused"):
            if form == "fused":
                as_fused(model)
            found[form, "fp32"] = model(view)
            with torch.autocast("cuda", torch.bfloat16):
                found[form, "bf16"] = model(view).float()
    exact = found["plain", "fp32"]
    off = {key: ((logits - exact).norm() / exact.norm()).item() for key, logits in found.items()}
    print("relative error of the logits:", off)
    assert off["fused", "fp32"] < 1e-5
    assert off["fused", "bf16"] < 1.2 * off["plain", "bf16"]


@pytest.mark.parametrize("stages", [(), (1, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_activations_take_the_memory_that_auto_reckons_with(gpu, stages, precision):
    config, count = load_config(K400_S), 4
    model = task_of(config).network().to(gpu).train()
    model.set_activation_checkpointing(stages)
    estimated = activation_bytes(
        config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size, clips=count
    ).total(stages, in_16_bit=precision == "bf16")
    view = torch.rand(count, *model.input_shape, device=gpu)
    targets = soft_targets(torch.zeros(count, dtype=torch.int64, device=gpu), num_classes=400, label_smoothing=0.1)
    for _ in range(2):  # the first one makes room for gradients and libraries
        model.zero_grad(set_to_none=False)
        before = torch.cuda.memory_allocated(gpu)
        torch.cuda.reset_peak_memory_stats(gpu)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = soft_target_loss_sum(model(view), targets)
        after_forward = torch.cuda.memory_allocated(gpu) - before
        loss.backward()
        peak = torch.cuda.max_memory_allocated(gpu) - before
        del loss
    gib = [round(number / 2**30, 3) for number in (estimated, after_forward, peak)]
    print(f"{precision} {stages}: estimated {gib[0]}, after the forward pass {gib[1]}, at most {gib[2]} GiB")
    # Recomputed blocks may need less: their inputs are partly what others keep already.
    assert 0.5 * estimated < peak < 1.1 * estimated


def test_a_latency_is_measured(gpu):
    config = load_config(K400_S)
    sizes = Sizes(model=config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)
    found = [measured_latency_ms(sizes) for _ in range(2)]
    print("ms a view:", found)
    assert min(found) > 0


def _gradients(model, x):
    model.zero_grad()
    torch.manual_seed(2)
    torch.nn.functional.cross_entropy(model(x), torch.arange(len(x), device=x.device) % 5).backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}

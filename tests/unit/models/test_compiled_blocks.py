"""Compiled blocks: the same network, the same draws, one compilation for all blocks of a stage and all sizes."""

import copy
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from tiny_network import clips, gradients, tiny
from torch._dynamo.utils import counters
from torch._functorch import config as functorch
from torch.nn.parallel import DistributedDataParallel

# The compiler looks at everything that a tensor has.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

RANDOM = {"drop_path_rate": 0.5, "init": "random_projection"}


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: the compiler can't look through beartype."""


@pytest.fixture(scope="module")
def plain():
    return tiny(**RANDOM).double()


@pytest.fixture(scope="module")
def fast(from_nothing_compiled):
    """One for the cheap tests, because tracing takes seconds.

    `aot_eager` traces forward and backward as `inductor` does, but needs no C++ compiler.
    """
    return compiled("aot_eager").double()


@pytest.fixture(scope="module")
def from_nothing_compiled():
    limit = torch.compiler.config.recompile_limit
    backward = functorch.backward_pass_autocast
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    torch.compiler.config.recompile_limit = limit
    functorch.backward_pass_autocast = backward


def compiled(backend):
    model = tiny(**RANDOM)
    model.compile_blocks(backend)
    return model


def compilations():
    return counters["stats"]["unique_graphs"]


def close(found, expected):
    """In float64, so that a branch dropped elsewhere can't hide behind rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_gradients_are_those_of_the_blocks_as_they_are_with_the_same_drop_path_draws(fast, plain):
    close(gradients(fast, clips(4).double()), gradients(plain, clips(4).double()))


def test_blocks_of_one_stage_and_batches_of_any_size_share_a_compilation(fast, plain):
    gradients(fast, clips(4).double())
    assert compilations() == 4
    for size in (3, 2):
        close(gradients(fast, clips(size).double()), gradients(plain, clips(size).double()))
    assert compilations() == 4


def test_activation_checkpointing_of_compiled_blocks_gives_the_same_gradients(fast):
    expected = gradients(fast, clips(4).double())
    fast.set_activation_checkpointing((1, 2, 3, 4))
    found = gradients(fast, clips(4).double())
    fast.set_activation_checkpointing(())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_parameter_names_stay_the_same_and_weights_go_both_ways(fast, plain):
    assert list(fast.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(fast.state_dict())
    fast.load_state_dict(plain.state_dict())


def test_a_copy_of_a_compiled_network_has_weights_of_its_own(fast):
    def logits(model):
        torch.manual_seed(0)
        return model(clips(4).double())

    before = logits(fast)
    other = copy.deepcopy(fast)
    with torch.no_grad():
        other.blocks1[0].fc.proj.weight.fill_(1.0)
    assert logits(fast).equal(before)
    assert not logits(other).allclose(before)


def test_all_uses_of_a_run_stay_below_the_limit_of_compilations(fast, plain, caplog):
    plain.load_state_dict(fast.state_dict())  # tests before this one moved running statistics of one of them
    for size in (2, 1):
        for model in (plain, fast):
            gradients(model.train(), clips(size).double())
        with torch.inference_mode():
            close(fast.eval()(clips(size).double()), plain.eval()(clips(size).double()))
    assert compilations() == 16
    assert not [record for record in caplog.records if "recompile_limit" in record.getMessage()]
    fast.train()
    plain.train()


def test_data_parallelism_of_compiled_blocks_gives_the_same_gradients(from_nothing_compiled, plain, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = compiled("aot_eager").double()
        network = DistributedDataParallel(model, gradient_as_bucket_view=True)
        together = gradients(network, clips(4).double())
    finally:
        dist.destroy_process_group()
    close(
        {name.removeprefix("module."): gradient for name, gradient in together.items()},
        gradients(plain, clips(4).double()),
    )


def test_in_16_bit_gradients_of_branch_weights_stay_fp32(from_nothing_compiled):
    model = compiled("aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clips(4))
    logits.float().square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if "reweight" in name and name.endswith("weight")}
    assert len(found) == 2 * len([*chain.from_iterable(model.stage_blocks())])
    assert not [name for name, gradient in found.items() if gradient.equal(gradient.bfloat16().float())]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stages", [(), (1, 2, 3, 4)])
def test_inductor_computes_the_same_gradients_with_the_same_draws(from_nothing_compiled, plain, stages):
    model = compiled("inductor").double()
    model.set_activation_checkpointing(stages)
    close(gradients(model, clips(4).double()), gradients(plain, clips(4).double()))

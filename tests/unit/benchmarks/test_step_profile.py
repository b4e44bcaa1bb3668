"""A step's time by part: the parts are the network's, and nothing is lost or counted twice."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from morphmlp.benchmarks.device_peaks import Peaks
from morphmlp.benchmarks.step_bytes import counted_parts, network_without_data, step_bytes
from morphmlp.benchmarks.step_parts import OTHER, parts_watched
from morphmlp.benchmarks.step_profile import OPTIMISER, profile_step, profile_table
from morphmlp.config import load_config
from morphmlp.models.build import build_network

SMALL = load_config(
    Path(__file__).parents[1] / "small_experiment.yaml",
    {
        "model.depths": [1, 1, 2, 1],
        "model.embed_dims": [16, 16, 16, 16],
        "clip.num_frames": 2,
        "train.global_batch_size": 2,
        "train.micro_batch_size": 1,
    },
)
PARTS = {
    *(f"patch_embed{stage}" for stage in (1, 2, 3, 4)),
    *(
        f"stage {stage}: {part}"
        for stage in (1, 2, 3, 4)
        for part in ("temporal", "spatial", "channels", "norms", "sums")
    ),
    "norm",
    "head",
}


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: tensors without data are none to beartype."""


def network():
    torch.manual_seed(0)
    return build_network(SMALL.model, num_frames=SMALL.clip.num_frames, crop_size=SMALL.clip.crop_size)


@pytest.fixture(scope="module")
def parts():
    net = network_without_data(SMALL)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return counted_parts(net, torch.empty(2, *net.input_shape), in_16_bit=False)


def test_parts_add_up_to_the_step_and_to_the_operations_that_torch_counts(parts):
    assert set(parts) <= PARTS | {OTHER}
    assert set(parts) >= PARTS
    whole = step_bytes(SMALL, clips=2, in_16_bit=False).step
    assert sum(part.bytes for part in parts.values()) == whole.bytes
    assert sum(part.kernels for part in parts.values()) == whole.kernels
    net = network()
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(2, *net.input_shape)).sum().backward()
    assert sum(part.flops for part in parts.values()) == counter.get_total_flops()


def test_the_backward_pass_belongs_to_the_parts_of_the_forward_pass(parts):
    net = network()
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(2, *net.input_shape)).sum().backward()
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    for stage, depth in enumerate(SMALL.model.depths, start=1):
        for part, module in (("temporal", "t_fc"), ("spatial", "fc"), ("channels", "mlp")):
            named = [by_module[f"MorphMLP.blocks{stage}.{place}.{module}"] for place in range(depth)]
            assert parts[f"stage {stage}: {part}"].flops == sum(named)


def test_a_watched_network_is_what_it_was_afterwards():
    net = network().eval()
    clips = torch.rand(1, *net.input_shape)
    before = net(clips)
    with parts_watched(net, inside_blocks=True) as watch:
        assert watch.now() == OTHER
        assert torch.equal(net(clips), before)
    assert "run_block" not in vars(net)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("moved", "flops", "bound", "least_s"), [(100, 10, "memory", 10.0), (10, 1000, "compute", 20.0)]
)
def test_the_slower_of_memory_and_arithmetic_bounds(moved, flops, bound, least_s):
    peaks = Peaks(bytes_per_s=10, flops_per_s=50, precision="fp32")
    assert (peaks.bound(moved=moved, flops=flops), peaks.least_s(moved=moved, flops=flops)) == (bound, least_s)


def test_a_step_is_profiled_by_part_and_its_trace_can_be_opened(tmp_path):
    trace = tmp_path / "trace" / "step.json.gz"
    found = profile_step(SMALL, steps=1, device=torch.device("cpu"), trace=trace, log=lambda line: None)
    names = {part.part for part in found.parts}
    assert PARTS | {OPTIMISER, OTHER} >= names
    assert names >= {OPTIMISER, "patch_embed1", "stage 1: spatial", "stage 3: channels", "head"}
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert found.profiled_s == pytest.approx(sum(part.seconds for part in found.parts))
    assert found.clips_per_step == 4
    known = {part.part: part for part in found.parts if part.moved is not None}
    assert all(part.bandwidth_share > 0 and part.bound in ("memory", "compute") for part in known.values())
    assert OPTIMISER not in known
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any(event.get("name") == "part: stage 1: spatial" for event in events)
    assert len(profile_table(found).splitlines()) == 2 + len(found.parts)

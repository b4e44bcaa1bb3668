"""Bytes and kernels of a training step, counted operation by operation on tensors without data: no clock, no GPU.

Each operation reads its operands and writes its results, as eager PyTorch does with maps that no cache holds. Views
move nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from tabulate import tabulate
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from morphmlp.benchmarks.step_parts import parts_watched
from morphmlp.config import ExperimentConfig
from morphmlp.models.build import build_network
from morphmlp.models.fused.form import as_fused
from morphmlp.models.network import Network
from morphmlp.models.published_form import as_published

WRITE_ONLY = ("copy_", "zero_", "fill_")
"""Operations that don't read what they change."""
Form = Literal["present", "fused", "published"]
"""The network as it runs, with fused kernels (`execution.kernels: triton`), or in the published order of steps."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a forward and a backward pass move."""

    bytes: int
    """Read and written."""
    kernels: int
    """Operations that move anything."""
    flops: int = 0
    """Of matrix products and convolutions; two for a multiply-accumulate."""
    product_bytes: int = 0
    """Of the bytes, those of matrix products and convolutions: what no other order of steps saves."""

    def __add__(self, other: "Moved") -> "Moved":
        """Both."""
        return Moved(
            bytes=self.bytes + other.bytes,
            kernels=self.kernels + other.kernels,
            flops=self.flops + other.flops,
            product_bytes=self.product_bytes + other.product_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """A training step of a network without its optimiser."""

    step: Moved
    """All of it."""
    blocks: Sequence[Moved]
    """One block of each stage."""


@dataclass(frozen=True, kw_only=True)
class ComparedBytes:
    """A part of a step, or all of it, against the published order of steps."""

    arithmetic: str
    form: Form
    part: str
    moved: Moved
    published: Moved


def compare_bytes(config: ExperimentConfig, *, clips: int) -> list[ComparedBytes]:
    """Count a step of so many clips in each form, in fp32 and in 16 bit, against the published order of steps."""
    rows = []
    for arithmetic, in_16_bit in (("fp32", False), ("16 bit", True)):
        forms: dict[Form, dict[str, Moved]] = {
            form: _named(step_bytes(config, clips=clips, in_16_bit=in_16_bit, form=form)) for form in get_args(Form)
        }
        published = forms.pop("published")
        rows += [
            ComparedBytes(arithmetic=arithmetic, form=form, part=part, moved=moved, published=published[part])
            for form, parts in forms.items()
            for part, moved in parts.items()
        ]
    return rows


def bytes_table(rows: Sequence[ComparedBytes]) -> str:
    """A line for each part."""
    cells = [
        (
            row.arithmetic,
            row.form,
            row.part,
            f"{row.moved.bytes / 1e9:.3g}",
            f"{row.published.bytes / 1e9:.3g}",
            f"{row.moved.bytes / row.published.bytes:.3f}",
            f"{row.moved.product_bytes / row.published.bytes:.3f}",
            row.moved.kernels,
            row.published.kernels,
        )
        for row in rows
    ]
    headers = (
        "arithmetic",
        "form",
        "part",
        "GB",
        "published: GB",
        "ratio",
        "products",
        "kernels",
        "published: kernels",
    )
    align = ("left", "left", "left", *["right"] * 6)
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _named(found: StepBytes) -> dict[str, Moved]:
    return {"step": found.step, **{f"block of stage {n}": block for n, block in enumerate(found.blocks, start=1)}}


def step_bytes(config: ExperimentConfig, *, clips: int, in_16_bit: bool, form: Form = "present") -> StepBytes:
    """Count a step of so many clips."""
    network = network_without_data(config, form)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = counted(network, torch.empty(clips, *network.input_shape), in_16_bit=in_16_bit)
        inputs = block_inputs(network, clips=clips, in_16_bit=in_16_bit)
        each = [
            counted(blocks[-1], x.requires_grad_(), in_16_bit=in_16_bit)
            for blocks, x in zip(network.stage_blocks(), inputs, strict=True)
        ]
    return StepBytes(step=step, blocks=each)


def network_without_data(config: ExperimentConfig, form: Form = "present") -> Network:
    """The experiment's network in a form, whose weights were never drawn."""
    clip = config.clip
    with torch.device("meta"):
        network = build_network(config.model, num_frames=clip.num_frames, crop_size=clip.crop_size)
    network = network.to_empty(device="cpu").train()
    match form:
        case "published":
            return as_published(network)
        case "fused":
            return as_fused(network)
    return network


def block_inputs(network: Network, *, clips: int, in_16_bit: bool) -> list[Tensor]:
    """What the last block of each stage is given for so many clips; inside of a FakeTensorMode, without data."""
    inputs: dict[int, Tensor] = {}
    hooks = [
        blocks[-1].register_forward_pre_hook(lambda _, given, stage=stage: inputs.update({stage: given[0].detach()}))
        for stage, blocks in enumerate(network.stage_blocks())
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=in_16_bit):
        network(torch.empty(clips, *network.input_shape))
    for hook in hooks:
        hook.remove()
    return [inputs[stage] for stage in sorted(inputs)]


def counted_parts(network: Network, x: Tensor, *, in_16_bit: bool) -> dict[str, Moved]:
    """A forward and a backward pass by the parts of the network (`morphmlp.benchmarks.step_parts`)."""
    with parts_watched(network, inside_blocks=True) as watch:
        counter = _ByteCounter(watch.now)
        _run(network, x, counter, in_16_bit=in_16_bit)
    return counter.parts


def counted(module: Callable[[Tensor], Tensor], x: Tensor, *, in_16_bit: bool) -> Moved:
    """A forward and a backward pass of a module, or of a function that calls one; inside of a FakeTensorMode."""
    counter = _ByteCounter(lambda: "")
    _run(module, x, counter, in_16_bit=in_16_bit)
    return counter.parts[""]


def _run(module: Callable[[Tensor], Tensor], x: Tensor, counter: "_ByteCounter", *, in_16_bit: bool) -> None:
    with counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_16_bit):
            y = module(x)
        torch.autograd.backward(y, torch.empty_like(y))


class _ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up operands and results, and the work of matrix products, by whichever part is at work."""

    def __init__(self, part: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._part = part
        self.parts: dict[str, Moved] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        results = func(*args, **(kwargs or {}))
        written = list(_tensors(results))
        read = list(_tensors((args, kwargs)))
        name = func.overloadpacket.__name__
        changed = name.endswith("_") or "out" in (kwargs or {})
        storages = {tensor.untyped_storage()._cdata for tensor in read}
        fresh = [tensor for tensor in written if tensor.untyped_storage()._cdata not in storages]
        if name.startswith("empty") or name.startswith("new_empty") or not (fresh or changed):
            return results
        if name in WRITE_ONLY:
            read = read[1:]
        elif "out" in (kwargs or {}):
            read = list(_tensors(args))
        count = flop_registry.get(func.overloadpacket)
        size = sum(map(_bytes, read)) + sum(map(_bytes, written))
        moved = Moved(
            bytes=size,
            kernels=1,
            flops=0 if count is None else int(count(*args, **(kwargs or {}), out_val=results)),
            product_bytes=size if is_product(func) else 0,
        )
        part = self._part()
        self.parts[part] = self.parts.get(part, Moved(bytes=0, kernels=0)) + moved
        return results


def is_product(func: Any) -> bool:
    """Whether an operation is a matrix product or a convolution, also one that adds to what is there."""
    name = func.overloadpacket.__name__.removesuffix("_")
    return func.overloadpacket in flop_registry or getattr(torch.ops.aten, name, None) in flop_registry


def _tensors(values: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    """Of its numbers, those that a broadcast repeats once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= 1 if stride == 0 else size
    return count * tensor.element_size()

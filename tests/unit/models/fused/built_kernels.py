"""Builds the kernels of a block for a GPU of compute capability 9.0, which needs none; run it without an interpreter.

Prints a JSON list with a kernel's name and bytes of shared memory each. Not a test module: Triton decides when it is
imported whether it interprets, so that this needs a process of its own.
"""

import contextlib
import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from morphmlp.config.shapes import Chunks
from morphmlp.models.backbone import Block
from morphmlp.models.fused import channel_launch, launch, norm_launch
from morphmlp.models.fused.form import as_fused
from morphmlp.models.morphfc import SpatialMorphFC, TemporalMorphFC

KINDS = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
found = {}


class Builder:
    """Takes a kernel's launches; nothing runs."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.build

    def build(self, *given, num_warps=4, num_stages=3, **constants):
        arguments = dict(zip(self.kernel.arg_names, given, strict=False))
        signature, aligned = dict.fromkeys(self.kernel.arg_names, "constexpr"), {}
        for place, name in enumerate(self.kernel.arg_names):
            if isinstance(value := arguments.get(name), torch.Tensor):
                signature[name], aligned[place,] = KINDS[value.dtype], [["tt.divisibility", 16]]
            elif value is not None:
                signature[name] = "i32"
        key = self.kernel.__name__, str(signature), str(constants)
        if key not in found:
            source = ASTSource(self.kernel, signature, constants, aligned)
            options = {"num_warps": num_warps, "num_stages": num_stages}
            built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            found[key] = built.metadata.shared


def main(channels: int, side: int) -> None:
    for module in (launch, channel_launch, norm_launch):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            setattr(module, name, Builder(getattr(module, name)))
    launch.device_of = lambda x: contextlib.nullcontext()
    spatial = SpatialMorphFC(channels, chunks=Chunks(length=14, stage=1, side=side))
    temporal = TemporalMorphFC(channels, tokens=8, groups=8)
    block = as_fused(Block(channels, spatial=spatial, temporal=temporal, hidden=3 * channels, drop_path_rate=0.0))
    x = torch.zeros(1, 8, side, side, channels, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x, torch.ones(2, 1, 1, 1, 1, 1))
    y.backward(torch.zeros_like(y))
    print(json.dumps([(key[0], shared) for key, shared in found.items()]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

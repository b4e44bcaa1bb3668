"""How a worker computes: what `auto` becomes on its device, and what is set up on the model for it."""

import os
import shutil
from collections.abc import Collection
from itertools import combinations
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from morphmlp.config import ExperimentConfig
from morphmlp.config.shapes import NUM_STAGES
from morphmlp.errors import ConfigError
from morphmlp.models.cost import ActivationBytes, activation_bytes, most_activation_bytes
from morphmlp.models.network import Network
from morphmlp.training.loop.state import Precision

ACTIVATION_MEMORY_SHARE = 0.5
"""Share of a worker's memory that activations may fill before `auto` recomputes some of them instead."""

COMPILED = ".compiled"
"""Folder of compiled blocks in `cluster.storage`."""
_COMPILED_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch looks for its folder."""

ALL_STAGES = tuple(range(1, NUM_STAGES + 1))


def agreed_precision(precision: str, device: torch.device) -> Precision:
    """What `train.precision` means on this worker's device; one worker without bf16 decides for all.

    Every worker must call it, because `auto` is agreed upon by an all-reduce.
    """
    if precision != "auto":
        chosen: dict[str, Precision] = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}
        return chosen[precision]
    has_bf16 = torch.tensor(int(_has_bf16(device)), device=device)
    if dist.is_initialized():
        dist.all_reduce(has_bf16, op=dist.ReduceOp.MIN)
    return "bf16" if has_bf16 else "fp32"


def prepare_network(
    config: ExperimentConfig, model: Network, device: torch.device, precision: Precision, *, local_workers: int
) -> list[str]:
    """Set up activation checkpointing and compilation on the model, before it is wrapped for data parallelism.

    Returns lines for the user; `local_workers` share this machine's memory, where they have no GPUs.

    Raises:
        ConfigError: Blocks shall be compiled on a CPU, and there is no C++ compiler; kernels in Triton can't run here.
    """
    choice = config.execution.activation_checkpointing
    notes = []
    if config.train.frozen_parts:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        trained = sum(size for size, trains in sizes if trains)
        notes.append(f"train.freeze: {trained:,} of {sum(size for size, _ in sizes):,} parameters train")
    if choice == "auto":
        stages, why = _stages_to_fit(config, precision, memory=_memory_bytes(device, local_workers))
        notes += why
    else:
        stages = named_stages(choice)
    model.fit_to(device).set_activation_checkpointing(stages)
    if config.execution.kernels == "triton":
        from morphmlp.models.fused.form import as_fused  # noqa: PLC0415 (only where it is asked for)
        from morphmlp.models.fused.support import require_triton  # noqa: PLC0415 (as above)

        require_triton(device)
        as_fused(model)
        notes.append("blocks are computed by kernels in Triton, which the first step builds (execution.kernels)")
    if config.execution.compile == "blocks":
        _require_compiler(device)
        model.compile_blocks()
        notes.append("the first step compiles the network's blocks, which takes a minute or more (execution.compile)")
    return notes


def keep_compiled(config: ExperimentConfig) -> list[str]:
    """Keep compiled blocks next to the runs, before any is compiled: later ones of the same network find them there.

    Without it they are kept in this machine's folder for temporary files. Returns a line for the user. A folder that
    `TORCHINDUCTOR_CACHE_DIR` names stays, and storage that refuses isn't used.
    """
    if config.execution.compile == "off" or _COMPILED_FOLDER in os.environ:
        return []
    folder = Path(config.cluster.storage).absolute() / COMPILED
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"compiled blocks aren't kept for later runs: {folder}: {(error.strerror or str(error)).lower()}"]
    os.environ[_COMPILED_FOLDER] = str(folder)
    return [f"compiled blocks are kept for later runs in {folder}"]


def micro_batch_activations(config: ExperimentConfig) -> ActivationBytes:
    """What a micro-batch of the experiment keeps for the backward pass."""
    return activation_bytes(
        config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        clips=config.train.micro_batch_size * config.augment.repeats,
        frozen=config.train.frozen_parts,
        segmentation=config.segmentation,
        published=True,  # whose memory was measured on a GPU; the present order keeps less
    )


def at_most_activations(config: ExperimentConfig) -> ActivationBytes:
    """No less than `micro_batch_activations`, nothing recomputed; of a classifier without running its network."""
    if config.segmentation is not None:
        return micro_batch_activations(config)
    return most_activation_bytes(
        config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        clips=config.train.micro_batch_size * config.augment.repeats,
    )


def named_stages(choice: Literal["on", "off"] | tuple[int, ...]) -> tuple[int, ...]:
    """The stages that `execution.activation_checkpointing` names."""
    return ALL_STAGES if choice == "on" else () if choice == "off" else choice


def fewest_stages(activations: ActivationBytes, *, in_16_bit: bool, memory: int) -> tuple[int, ...]:
    """Fewest stages whose recomputation makes a micro-batch fit a worker's memory, bytes; what `auto` means."""

    def needed(stages: Collection[int]) -> int:
        return activations.total(stages, in_16_bit=in_16_bit)

    for count in range(NUM_STAGES + 1):
        stages = min(combinations(ALL_STAGES, count), key=needed)
        if needed(stages) <= ACTIVATION_MEMORY_SHARE * memory:
            break
    return stages


def _stages_to_fit(config: ExperimentConfig, precision: Precision, *, memory: int) -> tuple[tuple[int, ...], list[str]]:
    """What `auto` means here, and what to say."""
    activations, in_16_bit = micro_batch_activations(config), precision != "fp32"
    stages = fewest_stages(activations, in_16_bit=in_16_bit, memory=memory)

    def needed(stages: Collection[int]) -> int:
        return activations.total(stages, in_16_bit=in_16_bit)

    if not stages:
        return (), []
    names = ("stage " if len(stages) == 1 else "stages ") + ", ".join(map(str, stages))
    note = (
        f"activations of a micro-batch take about {gib(needed(()))} of a worker's {gib(memory)}: the blocks of "
        f"{names} are recomputed in the backward pass, which leaves {gib(needed(stages))} "
        "(execution.activation_checkpointing)"
    )
    if needed(stages) > ACTIVATION_MEMORY_SHARE * memory:
        note += "; that may still be too much, a smaller train.micro_batch_size needs less"
    return stages, [note]


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _memory_bytes(device: torch.device, local_workers: int) -> int:
    """Memory of this worker."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // local_workers


def _require_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            [
                f"execution.compile: blocks needs a C++ compiler on the workers, and there is no {compiler}; "
                "install one, name it in the environment variable CXX, or leave execution.compile off"
            ]
        )


def gib(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB"

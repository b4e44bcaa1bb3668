"""What a training takes of the memory of its nodes and GPUs: by arithmetic, before anything starts.

Ray ends the newest processes of a node whose memory runs out, and what leads a run is among them. A worker that can't
fit would end so at its first step, again and again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from morphmlp.config import ExperimentConfig
from morphmlp.config.values import Stage
from morphmlp.data.clips.extract import ClipExtractor
from morphmlp.data.stream.ray_dataset import IngestShare
from morphmlp.models.cost import ActivationBytes
from morphmlp.training.loop.device_choices import (
    at_most_activations,
    fewest_stages,
    gib,
    micro_batch_activations,
    named_stages,
)

ERROR = 0.15
"""By which the estimate may be too high: compiled blocks take 13 % less of a GPU, others 2 %
(docs/benchmarks/train-step.md). Nothing is refused within it."""
PROCESS_BYTES = int(0.55 * 2**30)
"""Of a worker with the demo's network on a CPU, without what processes share: Python, torch, Ray."""
LEADING_BYTES = int(1.2 * 2**30)
"""Of Ray Train's controller and its helpers, and of Ray's own processes; the command had its memory before."""
_MICRO_BATCHES_AHEAD = 3
"""Of decoded clips that a worker holds: the current micro-batch and those that `prefetch` has ready."""
_CHANNELS, _FLOAT = 3, 4
_MIB = 2**20

Parts = Mapping[str, int]
"""Bytes, by what takes them, in words."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """What the memory of an experiment's workers and decode tasks depends on; sizes in bytes."""

    device: Literal["cpu", "cuda"]
    activations: ActivationBytes
    in_16_bit: bool
    recomputed: Literal["auto", "on", "off"] | tuple[Stage, ...]
    """`execution.activation_checkpointing`."""
    averaged: bool
    """Whether a moving average of the weights is kept."""
    micro_batch: int
    """Decoded clips of a micro-batch."""
    decode_task: int
    """A decode task with its clips, and room for one video."""
    clips_ahead: int
    """Decoded clips that wait in the object store, for each decode task."""
    decoder_limit: int
    """`ingest.decoder_memory_mb`: what a decoder may take before its video is given up."""

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        clips: ClipExtractor,
        share: IngestShare,
        *,
        device: Literal["cpu", "cuda"],
        at_most: bool = False,
    ) -> Self:
        """Of an experiment whose training clips are these; `share` is what all its pipelines together may use.

        `at_most`: no less than its activations, where that is known without a network; counting them takes seconds.
        """
        precision = config.train.precision
        return cls(
            device=device,
            activations=at_most_activations(config) if at_most else micro_batch_activations(config),
            in_16_bit=device == "cuda" if precision == "auto" else precision != "fp32",
            recomputed=config.execution.activation_checkpointing,
            averaged=config.train.ema_decay is not None,
            micro_batch=(
                config.train.micro_batch_size
                * config.augment.repeats
                * config.clip.num_frames
                * config.clip.crop_size**2
            )
            * _CHANNELS,
            decode_task=share.task_bytes(clips),
            clips_ahead=share.bytes_ahead(clips) // share.cpus,
            decoder_limit=config.ingest.decoder_memory_mb * _MIB,
        )

    def network(self, memory: int) -> Parts:
        """What a worker that has so much memory needs for its network, wherever that is."""
        found = self.activations
        stages = (
            fewest_stages(found, in_16_bit=self.in_16_bit, memory=memory)
            if self.recomputed == "auto"
            else named_stages(self.recomputed)
        )
        return {
            "activations": found.total(stages, in_16_bit=self.in_16_bit),
            "weights, gradients and optimiser": self.checkpoint + _FLOAT * found.trained,
        }

    def recomputes(self, memory: int) -> bool:
        """Whether a worker that has so much memory recomputes any blocks."""
        if self.recomputed == "auto":
            return bool(fewest_stages(self.activations, in_16_bit=self.in_16_bit, memory=memory))
        return bool(named_stages(self.recomputed))

    @property
    def checkpoint(self) -> int:
        """Weights, AdamW's two averages, and that of the weights: the copy that the first worker writes from."""
        return _FLOAT * (self.activations.params + (2 + self.averaged) * self.activations.trained)

    def workers(self, count: int, memory: int, *, alone: bool = False) -> Parts:
        """What so many workers need on a node that has so much memory for them; `alone`: the run has no other node."""
        one = {"processes": PROCESS_BYTES, "clips ahead": _MICRO_BATCHES_AHEAD * self.micro_batch}
        if self.device == "cpu":
            one |= self.network(memory // count)
        shared = {"a checkpoint's copy": self.checkpoint, **({"what leads them": LEADING_BYTES} if alone else {})}
        return {**{name: count * size for name, size in one.items()}, **shared}

    def decoding(self, tasks: int) -> Parts:
        """What so many decode tasks need on their node, with the clips that wait."""
        return {f"{tasks} decode tasks": tasks * self.decode_task, "clips that wait": tasks * self.clips_ahead}


def misfit(needs: TrainingMemory, *, workers: int, memory: int, alone: bool = False) -> tuple[str, str] | None:
    """What is too much for a node on which so many workers come, and what to change; None where they fit."""
    if not (workers and memory):
        return None
    parts = needs.workers(workers, memory, alone=alone)
    if sum(parts.values()) <= (1 + ERROR) * memory:
        return None
    needed = "needs" if workers == 1 else "need"
    words = f"{_workers(workers)} {needed} {gib(sum(parts.values()))} ({_in_words(parts)})"
    return f"{words}, Ray counts {gib(memory)} there", _remedy(needs, parts, fewer=workers > 1)


def gpu_misfit(needs: TrainingMemory, memory: int) -> tuple[str, str] | None:
    """What is too much for a GPU with so much memory, and what to change; None where a worker fits."""
    if needs.device == "cpu" or not memory:
        return None
    parts = needs.network(memory)
    if sum(parts.values()) <= (1 + ERROR) * memory:
        return None
    words = f"a worker needs {gib(sum(parts.values()))} of its GPU ({_in_words(parts)}), which has {gib(memory)}"
    return words, _remedy(needs, parts, fewer=False)


def decode_misfit(needs: TrainingMemory, *, workers: int, tasks: int, memory: int) -> tuple[str, str] | None:
    """As `misfit`, where the workers fit, but not so many decode tasks next to them."""
    if not (tasks and memory) or misfit(needs, workers=workers, memory=memory):
        return None
    parts = needs.decoding(tasks)
    if workers:
        parts = {_workers(workers): sum(needs.workers(workers, memory).values()), **parts}
    if sum(parts.values()) <= memory:
        return None
    return (
        f"{gib(sum(parts.values()))} are needed ({_in_words(parts)}), Ray counts {gib(memory)} there",
        "lower ingest.cpus, ingest.videos_per_task or ingest.object_store_mb",
    )


def _remedy(needs: TrainingMemory, parts: Parts, *, fewer: bool) -> str:
    """Fields to change for what takes the most."""
    if "activations" in parts and parts["activations"] >= sum(parts.values()) / 2:
        fields = ["a smaller train.micro_batch_size (other BatchNorm statistics)", "clip.crop_size or clip.num_frames"]
        if needs.recomputed not in ("auto", "on"):
            fields.insert(0, "execution.activation_checkpointing: on")
    else:
        fields = ["a smaller model, train.micro_batch_size or augment.repeats"]
    if fewer:
        fields.insert(0, "fewer workers there (cluster.num_workers, cluster.cpus_per_worker)")
    return f"use {', or '.join(fields)}, or machines with more"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _in_words(parts: Parts) -> str:
    return " + ".join(f"{name} {gib(size)}" for name, size in sorted(parts.items(), key=lambda part: -part[1]))

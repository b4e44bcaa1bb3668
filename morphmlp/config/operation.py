"""The operational sections of an experiment file: how a run is carried out, never what it computes.

Every field has a default.
"""

from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import STRICT, DecoderName, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExecutionConfig:
    """How a run is carried out; nothing here changes what it computes."""

    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute block activations in the backward pass to save memory; `auto` switches it on where a micro-batch
    wouldn't fit otherwise, and says so."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; the last epoch is always validated."""
    checkpoint_every_epochs: PositiveInt = 1
    """Epochs between two checkpoints; the last step always leaves one."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept."""
    report_every_steps: PositiveInt = 20
    """Steps between two reports of the workers to the record."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IngestConfig:
    """From files to batches, in Ray Data tasks."""

    decoder: DecoderName = "pyav"
    """`pyav`: exact and fast. `decord`: to match older results; wrong frames on trimmed files. `torchcodec`: exact,
    where it is installed with its FFmpeg. `python pipelines/benchmark.py decoders` compares them."""
    decode_timeout_s: PositiveFloat = 60.0
    """A video that takes longer to decode is given up, seconds."""
    cpus: PositiveInt | None = None
    """CPUs for decode tasks over all workers; by default those that training leaves free, at least one a worker."""
    videos_per_task: PositiveInt = 16
    """Videos that one decode task handles, rounded to whole micro-batches."""
    object_store_mb: PositiveInt | None = None
    """Decoded clips that may wait in the object store, MB over all workers; by default four tasks' clips for each of
    the decode CPUs."""
    on_broken: Literal["skip", "fail", "retry_with"] = "skip"
    """What a video that can't be decoded does: it's left out and listed (`skip`), it stops the run (`fail`), or it's
    decoded by `retry_with` and left out where that fails too."""
    retry_with: DecoderName | None = None
    """Decoder of the second try; with `on_broken: retry_with` only."""
    max_quarantined_share: Share = 0.01
    """The run stops when a greater share of a manifest's videos turns out broken."""
    node_labels: dict[str, str] = field(default_factory=dict)
    """Decode only on nodes with these Ray labels, as in `{node-role: ingest}`; empty: anywhere."""

    @model_validator(mode="after")
    def _second_try_is_named(self) -> Self:
        if (self.retry_with is not None) != (self.on_broken == "retry_with"):
            raise ValueError(
                f"retry_with is {self.retry_with}, on_broken is {self.on_broken}; name a decoder with retry_with only, "
                "and always there"
            )
        if self.retry_with == self.decoder:
            raise ValueError(f"retry_with is {self.retry_with}, as decoder is; name another one")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Where the run goes."""

    num_workers: PositiveInt | None = None
    """Training workers; by default one per GPU of the cluster (at most one per micro-batch), or 1 without GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of each worker; `auto` is cuda where the cluster has GPUs."""
    cpus_per_worker: PositiveInt = 1
    """CPUs reserved for each training worker."""
    local_cpus: PositiveInt | None = None
    """CPUs of this machine to count with when Ray is started here; by default all."""
    wait_for_nodes_s: NonNegativeFloat = 0.0
    """Seconds to wait for an autoscaling cluster to grow to what the run needs."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Worker failures after which the run ends; each one restarts from the last checkpoint."""
    storage: str = "runs"
    """Folder for checkpoints and predictions; on several nodes a path that all of them share."""

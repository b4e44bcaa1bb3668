"""The operational sections of an experiment file: how a run is carried out, never what it computes.

Every field has a default.
"""

from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import (
    STRICT,
    DecoderName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
    Stage,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorkerRange:
    """Fewest and most training workers of an elastic run."""

    min: PositiveInt
    """The run waits where there are fewer."""
    max: PositiveInt
    """It doesn't grow further."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max {self.max}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExecutionConfig:
    """How a run is carried out; nothing here changes what it computes."""

    activation_checkpointing: Literal["auto", "on", "off"] | tuple[Stage, ...] = "auto"
    """Recompute block activations in the backward pass to save memory: in all stages, in none, or in those listed
    (`[1, 2]`); `auto` takes as few stages as make a micro-batch fit, and says so."""
    compile: Literal["off", "blocks"] = "off"
    """Compile each block (blocks of one shape share the work). Draws and shapes stay the same; sums may round
    differently."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; the last epoch is always validated."""
    report_every_steps: PositiveInt = 20
    """Steps between two reports of the workers to the record."""
    max_skipped_steps: PositiveInt = 5
    """Steps in a row whose loss or gradient isn't finite; such a step is skipped and kept for `pipelines/replay.py`,
    after so many the run stops."""
    ledger: bool = False
    """Write down which videos every step consumed, `ledger/` in the run's folder; `pipelines/drill.py` reads it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointConfig:
    """When checkpoints are written, where to, and which are kept. The end of the run always leaves one."""

    every_epochs: PositiveInt | None = 1
    """Epochs between two checkpoints; null: not by epochs."""
    every_steps: PositiveInt | None = None
    """Steps between two checkpoints; null: not by steps."""
    every_minutes: PositiveFloat | None = 10.0
    """Minutes after the last checkpoint at which the next step writes one, however long an epoch is; null: not by
    time."""
    keep_last: PositiveInt = 2
    """Newest checkpoints kept."""
    keep_best: bool = True
    """Keep the checkpoint of the best validation score as well."""
    storage: str | None = None
    """Folder or address (`s3://bucket/folder`, `gs://...`) under which checkpoints are kept, by run name; null: in the
    run's folder under `cluster.storage`."""
    wait_for_storage_s: NonNegativeFloat = 3600.0
    """How long a run whose storage is full or fails waits with its last checkpoint in memory, or to read the one that
    it continues from, seconds; then it ends, and takes no step again before the storage is mended."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IngestConfig:
    """From files to batches, in Ray Data tasks."""

    decoder: DecoderName = "pyav"
    """`pyav`: exact and fast. `decord`: to match older results; wrong frames on many kinds of file. `torchcodec`, where
    it is installed with its FFmpeg: exact for most. `python pipelines/benchmark.py decoders` compares them."""
    decode_timeout_s: PositiveFloat = 60.0
    """A video that takes longer to decode is given up, seconds."""
    decoder_memory_mb: Annotated[int, Field(ge=1024)] = 4096
    """Memory that decoding one video may take, MB; a video that needs more is given up. Frames are read and scaled a
    part at a time where all of a test's would be too many: a codec of 8K alone holds 1,000 to 1,500."""
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
    clip_cache: str | None = None
    """Folder for decoded clips that trainings on the same data share, on a local disk or one that nodes have mounted;
    null: each decodes for itself. Clips with other draws (another seed or epoch) are others. No address of an object
    store: it knows no locks."""
    clip_cache_gb: PositiveFloat = 20.0
    """Most that `clip_cache` takes up, GiB; the least recently used clips go."""
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

    @model_validator(mode="after")
    def _clip_cache_is_a_folder(self) -> Self:
        if self.clip_cache is not None and (not self.clip_cache or "://" in self.clip_cache):
            raise ValueError(
                f"clip_cache is {self.clip_cache!r}; name a folder on a local disk or on one that nodes have mounted"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Where the run goes."""

    num_workers: PositiveInt | WorkerRange | None = None
    """Training workers; by default one per GPU of the cluster (at most one per micro-batch), or 1 without GPUs. As
    `{min: 2, max: 8}` the run shrinks when nodes go and grows when they come; the loss curve stays the same."""
    resize_check_s: PositiveFloat = 60.0
    """With a range of workers: seconds between two looks for nodes to grow onto."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of each worker; `auto` is cuda where the cluster has GPUs."""
    cpus_per_worker: PositiveInt = 1
    """CPUs reserved for each training worker."""
    local_cpus: PositiveInt | None = None
    """CPUs of this machine to count with when Ray is started here; by default all."""
    wait_for_nodes_s: NonNegativeFloat = 0.0
    """Seconds to wait for an autoscaling cluster to grow to what the run needs."""
    wait_for_workers_s: PositiveFloat = 600.0
    """Seconds after which a run that can't get its workers (at the start, or back after a loss) ends with an error."""
    max_failures: NonNegativeInt = 3
    """Worker failures after which the run ends; each one restarts from the last checkpoint."""
    max_preemptions: NonNegativeInt | None = None
    """Losses of nodes that were announced or noticed as preemptions, counted apart; null: any number."""
    gpu_hour_price: NonNegativeFloat | None = None
    """Price of a GPU for an hour, in your currency; null: no cost is reckoned."""
    cpu_hour_price: NonNegativeFloat | None = None
    """Price of a CPU core for an hour, the same."""
    storage: str = "runs"
    """Folder for checkpoints and predictions; on several nodes a path that all of them share."""

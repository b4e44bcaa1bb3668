"""The operational sections of an experiment file: how a run is carried out, never what it computes.

Every field has a default that suits one machine; its docstring says when another value is worth setting.
"""

import math
from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import (
    STRICT,
    DecoderName,
    ImageDecoderName,
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
    """The run waits for more workers where there are fewer than this."""
    max: PositiveInt
    """The run doesn't grow beyond this many workers, whatever the cluster has."""

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
    (`[1, 2]`); `auto` takes as few stages as make a micro-batch fit, and says so. Set it where a GPU is shared, so that
    what `auto` sees as free doesn't stay free."""
    compile: Literal["off", "blocks"] = "off"
    """Compile each block (blocks of one shape share the work). Set `blocks` for long runs on a GPU, where faster steps
    pay for minutes of compilation. Draws and shapes stay the same; sums may round differently."""
    kernels: Literal["torch", "triton"] = "torch"
    """What computes the blocks: operations of torch, or kernels in Triton that move fewer bytes by doing several of
    them at once. `triton` needs GPUs, and Triton, which torch brings on Linux; sums round differently. No GPU has run
    it yet. Set it to find out whether steps are faster."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; the last epoch is always validated. Raise it where validation takes a large
    share of the time, as with short epochs."""
    validate_every_steps: PositiveInt | None = None
    """With `train.steps`, in the place of `validate_every_epochs`: steps between two validations; the last step is
    always validated. Null: an epoch's steps. Set 4,000 as is usual for segmentation."""
    report_every_steps: PositiveInt = 20
    """Steps between two reports of the workers to the record. Lower it where steps take many seconds, so that curves
    and the progress line move; raise it where thousands of steps would fill the record."""
    max_skipped_steps: PositiveInt = 5
    """The run stops after so many steps in a row whose loss or gradient isn't finite; each is skipped and kept for
    `pipelines/replay.py`. Raise it for fp16 with a high learning rate, which overflows more often at the start."""
    ledger: bool = False
    """Write down which videos every step consumed, in `ledger/` of the run's folder. Set it to prove that a stopped run
    repeated and lost none, as `pipelines/drill.py` does."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointConfig:
    """When checkpoints are written, where to, and which are kept. The end of the run always leaves one."""

    every_epochs: PositiveInt | None = 1
    """Epochs between two checkpoints; null: not by epochs. Raise it where epochs are shorter than a checkpoint takes to
    write. With `train.steps`, 1 means one with each validation, and null none for its sake."""
    every_steps: PositiveInt | None = None
    """Steps between two checkpoints; null: not by steps. Set it where checkpoints must fall on known steps, as in a
    comparison of two runs."""
    every_minutes: PositiveFloat | None = 10.0
    """Minutes after the last checkpoint at which the next step writes one, however long an epoch is; null: not by
    time. Lower it on machines that may go at any time: it bounds the work that a stop can cost."""
    keep_last: PositiveInt = 2
    """Newest checkpoints kept, in addition to the one with the best validation score. Raise it to look at training in
    between; each takes three times the size of the weights."""
    storage: str | None = None
    """Folder or address (`s3://bucket/folder`, `gs://...`) under which checkpoints are kept, by run name; null: in the
    run's folder under `cluster.storage`. Set an address where nodes have no folder in common, or come and go."""
    wait_for_storage_s: NonNegativeFloat = 3600.0
    """How long a run whose storage is full or fails waits with its last checkpoint in memory, or to read the one that
    it continues from, seconds; then it ends, and takes no step again before the storage works. Lower it where waiting
    GPUs cost more than the work since the last checkpoint."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IngestConfig:
    """From files to batches, in Ray Data tasks."""

    decoder: DecoderName = "pyav"
    """`pyav`: exact and fast. `decord`: to match older results; wrong frames on many kinds of file. `torchcodec`, where
    it is installed with its FFmpeg: exact for most. Choose by `pipelines/benchmark.py decoders` on your files."""
    image_decoder: ImageDecoderName = "simplejpeg"
    """What decodes images, and frames that are stored as JPEG. `simplejpeg`: the same pixels as Pillow's in two thirds
    of the time; what it refuses is read by Pillow, and counted. Set `pillow` to leave no part in
    it to another library."""
    decode_timeout_s: PositiveFloat = 60.0
    """A video that takes longer to decode is given up, seconds. Raise it for long videos without key frames, or for a
    slow network file system."""
    decoder_memory_mb: Annotated[int, Field(ge=1024)] = 4096
    """Memory that decoding one video may take, MB; a video that needs more is given up. Lower it where many decode CPUs
    share little memory; raise it for 8K, whose codec alone holds 1,000 to 1,500. Frames are read and scaled a part at a
    time where all of a test's would be too many."""
    cpus: PositiveInt | None = None
    """CPUs for decode tasks over all workers; by default those that training leaves free, at least one a worker. Set it
    where several runs or trials share the machines."""
    videos_per_task: PositiveInt | None = None
    """Videos that one decode task handles, rounded to whole micro-batches; by default 16, and 256 images. Lower it for
    large clips, so that the first batch comes sooner and less waits in memory; raise it where a task takes less than a
    tenth of a second."""
    object_store_mb: PositiveInt | None = None
    """Decoded clips that may wait in the object store, MB over all workers; by default four tasks' clips for each of
    the decode CPUs. Raise it where decoding is fast enough on average but steps still wait for data."""
    on_broken: Literal["skip", "fail"] = "skip"
    """What a video that can't be decoded does: it's left out and listed (`skip`), or it stops the run (`fail`). Set
    `fail` where every video must count, as in a test whose numbers are published."""
    retry_with: DecoderName | None = None
    """Decoder that tries once more what `decoder` can't decode; null: none does. Set it where `benchmark.py decoders`
    shows that the other one reads files which the first refuses."""
    max_quarantined_share: Share = 0.01
    """The run stops when a greater share of a manifest's videos turns out broken. Raise it for data that is known to be
    damaged; a path that is wrong for all videos still stops the run at once."""
    clip_cache: str | None = None
    """Folder for decoded clips that trainings on the same data share, on a local disk or one that nodes have mounted;
    null: each decodes for itself. Set it for runs that differ in the network only; a sweep sets it by itself. Clips of
    another seed or epoch are others. An address of an object store is refused: it has no locks."""
    clip_cache_gb: PositiveFloat = 20.0
    """Most that `clip_cache` takes up, GiB; the least recently used clips go. Raise it to all clips of an epoch (frames
    x side x side x 3 bytes each), without which later runs find little."""
    node_labels: dict[str, str] = field(default_factory=dict)
    """Decode only on nodes with these Ray labels; empty: anywhere. Set it, as in `{node-role: ingest}`, where machines
    without GPUs were added to decode."""
    wait_for_clips_s: PositiveFloat = 600.0
    """Seconds that a worker, or a test, waits for its next clips; then the workers start again from the last
    checkpoint, on the nodes that are there. Raise it where nodes that decode are replaced more slowly than that."""
    decode_elsewhere: bool = False
    """Whether a start that finds no node with `node_labels` decodes on the other nodes, until the next start. Set it
    where slower steps are better than waiting for nodes that may not come back."""

    @property
    def others_wait_s(self) -> int:
        """Seconds that a worker waits for the others, one of which may be waiting for clips."""
        return math.ceil(self.wait_for_clips_s) + 300

    @model_validator(mode="after")
    def _second_decoder_is_another(self) -> Self:
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
    """With a range of workers: seconds between two looks for nodes to grow onto. Raise it where nodes come one by one:
    growing costs a restart from the newest checkpoint, and one restart can take up several."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of each worker; `auto` is cuda where the cluster has GPUs. Set `cuda` to wait for GPUs that an autoscaling
    cluster doesn't have yet, `cpu` to leave them to others."""
    cpus_per_worker: PositiveInt = 1
    """CPUs reserved for each training worker. Raise it for training on CPUs, whose steps use that many threads."""
    local_cpus: PositiveInt | None = None
    """CPUs of this machine to count with when Ray is started here; by default all that the process may use. Set it on a
    machine that others use too."""
    wait_for_nodes_s: NonNegativeFloat = 0.0
    """Seconds to wait for an autoscaling cluster to grow to what the run needs; 0: what isn't there is refused at once.
    Set it to the minutes that a node takes to start."""
    wait_for_workers_s: PositiveFloat = 600.0
    """Seconds after which a run that can't get its workers (at the start, or back after a loss) ends with an error.
    Raise it where lost nodes are replaced slowly, or other jobs hold the GPUs for a while."""
    max_failures: NonNegativeInt = 3
    """Worker failures after which the run ends; each one restarts from the last checkpoint. Raise it for weeks of
    training; set 0 while looking for a fault."""
    max_preemptions: NonNegativeInt | None = None
    """Losses of nodes after which the run ends, counted separately from failures; null: any number. Set it where a run
    that is interrupted too often should give its machines up."""
    gpu_hour_price: NonNegativeFloat | None = None
    """Price of a GPU for an hour, in your currency; null: no cost is estimated. Set it to see in the record what a run
    has cost."""
    cpu_hour_price: NonNegativeFloat | None = None
    """Price of a CPU core for an hour, in your currency; null: cores cost nothing. Set it where machines that only
    decode are paid for."""
    storage: str = "runs"
    """Folder in which each run has a folder for its checkpoints, predictions and logs. Set it to a path that all nodes
    share, where there are several."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecordConfig:
    """What MLflow gets of a run besides its parameters, metrics, figures and tables."""

    log_model: bool = False
    """Log the network that was tested as a model that `mlflow.pyfunc.load_model` runs, with its weights, 4 bytes a
    parameter. Trials of a sweep log none, nor does segmentation. Set it for runs whose network others are to use."""
    register_as: str | None = None
    """Name of a registered model, whose next version the network becomes; it is logged then in any case. Set it to hand
    a network over by name."""
    system_metrics: bool = False
    """Record what every machine of the cluster does while the run is at work: CPU, memory, disk, network and GPUs,
    under MLflow's names, every 10 s at first and more rarely as the run gets older. Set it to see which machines have
    nothing to do, or too much."""

    @model_validator(mode="after")
    def _name_can_be_registered(self) -> Self:
        if self.register_as is not None and (not self.register_as.strip() or set(self.register_as) & set("/:")):
            raise ValueError(f"register_as is {self.register_as!r}; name a model without / and :")
        return self

    @property
    def logs_model(self) -> bool:
        """Whether the tested network is logged."""
        return self.log_model or self.register_as is not None

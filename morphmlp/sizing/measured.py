"""Costs from where they were measured: options, files of `benchmark.py --json`, a finished run, or just now."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

import pyarrow as pa
from pydantic import JsonValue

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import flat_fields
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, decode_limits, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.errors import ConfigError
from morphmlp.record import Metrics, RunSummary, Tags
from morphmlp.sizing.contention import DECODING, Contention
from morphmlp.sizing.inputs import Costs, StepCost
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import find_run, read_history, read_run, read_runs, tracking_uri
from morphmlp.tracking.writer import param_text

_OF_A_CLIP = ("clip.", "augment.", "ingest.decoder")
_OF_A_STEP = (
    "model.",
    "clip.num_frames",
    "clip.crop_size",
    "augment.repeats",
    "train.micro_batch_size",
    "train.precision",
    "execution.compile",
    "execution.kernels",
    "execution.activation_checkpointing",
)
"""Fields by whose prefixes a run's cost is another experiment's too."""


@dataclass
class Found:
    """What is known so far."""

    steps: dict[int, float] = field(default_factory=dict)
    """Seconds by clips of a micro-batch."""
    step_sources: list[str] = field(default_factory=list)
    decode_s: float | None = None
    decoded_by: str = ""
    decode_alone: bool = False
    """Whether that is of a single decoder, with nothing else on its node."""
    contention: Contention | None = None
    notes: list[str] = field(default_factory=list)
    """What was there and couldn't be used, and why."""

    def step(self, clips: int, seconds: float, source: str) -> None:
        """What came first stays."""
        if clips not in self.steps:
            self.steps[clips] = seconds
            self.step_sources.append(source)

    def decode(self, seconds: float, source: str, *, alone: bool = False) -> None:
        """What came first stays."""
        if self.decode_s is None:
            self.decode_s, self.decoded_by, self.decode_alone = seconds, source, alone

    @property
    def decode_growth(self) -> float:
        """What a clip costs on a node whose cores all decode, over that alone; 1 where nobody measured it."""
        return self.contention.full(DECODING) if self.contention is not None and self.decode_alone else 1.0

    def costs(self, config: ExperimentConfig) -> Costs:
        """All that a sizing needs.

        Raises:
            ConfigError: Something wasn't measured; a line for each, with the command that does.
        """
        faults = []
        clips = config.train.micro_batch_size * config.augment.repeats
        if not self.steps:
            faults.append(
                "--step-s: nobody has measured a step: `python pipelines/benchmark.py train-step --config FILE --clips "
                f"{clips} --json step.json` on one of the GPUs, then --measured step.json; or --step-s {clips}=SECONDS"
            )
        if self.decode_s is None:
            faults.append(
                "--decode-ms: nobody has measured what a clip costs to decode: --measure-decode 64 does it here, on "
                "the training videos; a finished run has it, too; or --decode-ms MILLISECONDS"
            )
        if self.decode_s is None or faults:
            raise ConfigError([*faults, *self.notes])
        step = StepCost(points=sorted(self.steps.items()), measured_by=", ".join(dict.fromkeys(self.step_sources)))
        return Costs(
            step=step,
            decode_s=self.decode_s * self.decode_growth,
            decoded_by=self.decoded_by,
            decode_growth=self.decode_growth,
            full_cores=None if self.contention is None or not self.decode_alone else self.contention.cores,
        )


def add_options(found: Found, *, steps: Sequence[str], decode_ms: float | None, clips: int) -> None:
    """`--step-s CLIPS=SECONDS`, or SECONDS of a micro-batch of the experiment, and `--decode-ms`.

    Raises:
        ConfigError: Not such values.
    """
    for text in steps:
        match = re.fullmatch(r"(?:(\d+)=)?(\d*\.?\d+(?:e-?\d+)?)", text.strip(), re.IGNORECASE)
        if match is None or float(match[2]) <= 0 or match[1] == "0":
            raise ConfigError([f"--step-s {text}: isn't SECONDS or CLIPS=SECONDS, as in {clips}=0.134"])
        found.step(int(match[1] or clips), float(match[2]), "--step-s")
    if decode_ms is not None:
        found.decode(decode_ms / 1000, "--decode-ms", alone=True)


def add_file(found: Found, path: Path, config: ExperimentConfig) -> None:
    """A result of `benchmark.py train-step`, `step-variants`, `ingest` or `busy-cores`.

    Raises:
        ConfigError: None of these, or what it holds can't stand for the experiment.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"--measured {path}: {getattr(error, 'strerror', None) or 'is no JSON'}"]) from None
    if (contention := Contention.find(path)) is not None:
        _add_contention(found, path, contention, config)
        return
    if not isinstance(content, dict) or not ({"run_step_s", "variants", "ray_cpu_ratio"} & content.keys()):
        raise ConfigError(
            [
                f"--measured {path}: isn't a result of `benchmark.py train-step`, `step-variants`, `ingest` or "
                "`busy-cores` (--json)"
            ]
        )
    if "ray_cpu_ratio" in content:
        if config.augment.rand_augment is not None and config.augment.on == "ingest":
            raise ConfigError(
                [
                    f"--measured {path}: `benchmark.py ingest` leaves RandAugment out, which decode tasks of this "
                    "experiment compute; use --measure-decode 64 on its videos"
                ]
            )
        found.decode(content["ingest"]["ray_cpu_ms"] / 1000, f"{path} (drawn videos of 340x256, one clip a video)")
        return
    if "micro_batches" not in content:
        raise ConfigError([f"--measured {path}: doesn't say how many micro-batches a step had; measure again"])
    if content["device"] == "cpu":
        raise ConfigError([f"--measured {path}: was measured on a CPU; run that command on one of the GPUs"])
    clips, micro_batches = content["clips_per_step"], content["micro_batches"]
    name = "compiled blocks" if config.execution.compile == "blocks" else "as configured"
    seconds = content.get("run_step_s") or {one["name"]: one["step_s"] for one in content["variants"]}[name]
    found.step(clips // micro_batches, seconds / micro_batches, f"{path} ({content['device']})")


def _add_contention(found: Found, path: Path, contention: Contention, config: ExperimentConfig) -> None:
    """By how much decoding grows on a full node, and what a clip costs alone where it is one of this experiment."""
    if DECODING not in contention.alone_s:
        raise ConfigError([f"--measured {path}: has no decoding; measure again with `busy-cores --work decoding`"])
    found.contention = contention
    ours = clip_fields(config)
    if contention.clip_fields == ours:
        found.decode(contention.alone_s[DECODING], f"{path} ({contention.cores} cores)", alone=True)
    else:
        other = sorted(key for key in ours if contention.clip_fields.get(key) != ours[key])
        found.notes.append(f"{path}: its cost of a clip is another's: {', '.join(other[:4])} differ")


def clip_fields(config: ExperimentConfig) -> dict[str, JsonValue]:
    """The fields by which a clip costs what it costs, whatever the videos."""
    return {key: value for key, value in flat_fields(config).items() if key.startswith(_OF_A_CLIP)}


def add_run(found: Found, config: ExperimentConfig, *, name: str | None) -> None:
    """A run of the record by its name; without one the newest finished run of the experiment, where there is any.

    Raises:
        ConfigError: No run has that name.
        TrackingError: The record can't be read.
    """
    uri = tracking_uri()
    run: RunSummary | None
    if name is None:
        table = read_runs(uri, experiment=config.name)
        run = read_run(uri, str(table["run_id"].iloc[0])) if len(table) else None
    elif (run := find_run(uri, run_name=name)) is None:
        raise ConfigError([f"--measured {name}: is no file, and the record has no run of that name"])
    if run is None:
        found.notes.append(f"the record has no finished run of {config.name}")
        return
    ours = {key: param_text(value) for key, value in flat_fields(config).items()}

    def usable(prefixes: Sequence[str], what: str) -> bool:
        other = [key for key, text in ours.items() if key.startswith(tuple(prefixes)) and run.params.get(key) != text]
        if other:
            found.notes.append(f"run {run.run_name}: its {what} is another's: {', '.join(other[:4])} differ")
        return not other

    if (cost := run.metrics.get(Metrics.RUN_CPU_S_PER_CLIP)) and usable(_OF_A_CLIP, "cost of a clip"):
        found.decode(cost, f"run {run.run_name}")
    trained = re.fullmatch(r"(\d+) x (.+)", run.tags.get(Tags.TRAINED_ON, ""))
    if trained is None:
        found.notes.append(f"run {run.run_name}: trained on {run.tags.get(Tags.TRAINED_ON)}, no GPU")
    elif usable(_OF_A_STEP, "step"):
        each = -(-config.train.micro_batches_per_step // int(trained[1]))
        points = [point.value for point in read_history(uri, run.run_id, [Metrics.TRAIN_COMPUTE_S])]
        clips = config.train.micro_batch_size * config.augment.repeats
        if points and ours.get("train.global_batch_size") == run.params.get("train.global_batch_size"):
            found.step(clips, median(points) / each, f"run {run.run_name} ({trained[2]})")


def decode_work(config: ExperimentConfig, *, videos: int) -> tuple[DecodeTask, pa.Table, int]:
    """What decodes some of the training videos as a run does, what it is asked for, and clips of each.

    Raises:
        ManifestError: There is no manifest.
    """
    manifest = read_manifest(config.data.train).available()
    plan = TrainPlan.of(config.train, num_videos=len(manifest))
    wanted = -(-min(videos, len(manifest)) // plan.micro_batch_size)
    group = list(islice(plan.micro_batches(Cursor(), worker=0, num_workers=1), wanted))
    clips = task_of(config).train_clips()
    policy = DecodePolicy(
        decoder=config.ingest.decoder,
        retry_with=config.ingest.retry_with,
        limits=decode_limits(config.ingest),
        image_decoder=config.ingest.image_decoder,
    )
    return DecodeTask(extractor=clips, policy=policy), request_table(manifest, group), clips.clips_per_video


def measure_decode(found: Found, config: ExperimentConfig, *, videos: int) -> None:
    """Decode some of the training videos here and now, as a decode task does.

    Raises:
        ManifestError: There is no manifest.
        ConfigError: Not one of them could be decoded.
    """
    task, table, clips_per_video = decode_work(config, videos=videos)
    task(table.slice(0, config.train.micro_batch_size))  # the first starts the decoder's process
    result = task(table).to_pydict()
    times = [seconds for seconds, error in zip(result["cpu_s"], result["error"], strict=True) if not error]
    if not times:
        raise ConfigError([f"--measure-decode: not one of {len(result['error'])} videos: {result['message'][0]}"])
    found.decode(
        sum(times) / len(times) / clips_per_video,
        f"{len(times)} videos of {config.data.train}, decoded just now",
        alone=True,
    )


def known(found: Found) -> dict[str, JsonValue]:
    """As it stands in the result's JSON."""
    return {
        "step_s_by_clips": {str(clips): seconds for clips, seconds in sorted(found.steps.items())},
        "step_measured_by": list(dict.fromkeys(found.step_sources)),
        "decode_ms": None if found.decode_s is None else found.decode_s * 1000,
        "decode_measured_by": found.decoded_by,
        "decode_growth_on_a_full_node": found.decode_growth,
    }

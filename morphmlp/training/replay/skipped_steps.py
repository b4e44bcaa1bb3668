"""Keeps skipped steps on disk: which videos with which draws, and the training state that they met.

`skipped-steps/step-00000124/` in the run's folder holds `state.pt`, the content of a checkpoint, and `step.json`,
written last. `pipelines/replay.py` repeats the step from them. Steps are counted from 1 here, as everywhere that a user
sees them.
"""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from morphmlp.config import ExperimentConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan
from morphmlp.errors import CheckpointError
from morphmlp.files import atomic_write
from morphmlp.training.checkpoint.content import load_values, reason_of
from morphmlp.training.loop.state import Precision, TrainState, snapshot
from morphmlp.training.loop.step_guard import SkippedStep

KEPT_SKIPPED_STEPS = 10
"""Skipped steps of a run that are kept; each takes as much as a checkpoint. Of later ones there is a line each."""
STEP_FILE, STATE_FILE = "step.json", "state.pt"
_NOT_KEPT_FILE = "not-kept.jsonl"
_FORMAT = "morphmlp-skipped-step-1"


@dataclass(frozen=True, kw_only=True)
class StoredStep:
    """A skipped step as read back."""

    folder: Path
    cursor: Cursor
    loss: float
    """Mean over the clips of all workers."""
    grad_norm: float
    """Before clipping."""
    num_workers: int
    precision: Precision
    data_fingerprint: str


def save_skipped_step(
    folder: Path,
    skipped: SkippedStep,
    state: TrainState,
    *,
    config: ExperimentConfig,
    data_fingerprint: str,
    plan: TrainPlan,
    videos: Manifest,
    num_workers: int,
) -> list[str]:
    """Keep a step, before the state changes again; one worker does it for all.

    `state` has model and optimiser as the step met them; its cursor doesn't matter. Returns a line for the user: what
    happened, and how to look into it. Where nothing could be written it says so; the run continues.
    """
    number = skipped.step + 1
    numbers = f"loss {skipped.loss:g}, gradient norm {skipped.grad_norm:g}"
    what = f"step {number} is skipped: {numbers}; {replay_hint(folder.parent, number)}"
    place = skipped_step_folder(folder, number)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (place / STEP_FILE).exists():  # it was met before, and training has come back to it
            return [what]
        if len(list(folder.glob(f"step-*/{STEP_FILE}"))) >= KEPT_SKIPPED_STEPS:
            _note_not_kept(folder, skipped)
            return [f"{what}, from a checkpoint: {KEPT_SKIPPED_STEPS} skipped steps are kept with their state already"]
        place.mkdir(exist_ok=True)
        content = _state_as_met(state, skipped, config=config, data_fingerprint=data_fingerprint, plan=plan)
        torch.save(content, place / STATE_FILE)
        facts = _facts(skipped, config=config, plan=plan, videos=videos, num_workers=num_workers)
        facts |= {
            "precision": state.precision,
            "loss_scale": content["scaler"].get("scale", 1.0),
            "data_fingerprint": data_fingerprint,
        }
        atomic_write(place / STEP_FILE, json.dumps(facts, indent=1) + "\n")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        return [f"{what}, from a checkpoint: its state couldn't be kept in {place}: {' '.join(str(error).split())}"]
    return [what]


def replay_hint(run: Path, number: int) -> str:
    """How a user repeats a step of a run, whose folder it is; steps are counted from 1."""
    return f"repeat it with `python pipelines/replay.py {shlex.quote(str(run))} {number}`"


def skipped_step_folder(folder: Path, number: int) -> Path:
    """Where a skipped step, counted from 1, is kept, whether it is or not."""
    return folder / f"step-{number:08d}"


def read_skipped_step(place: Path) -> StoredStep | None:
    """A skipped step; None where it wasn't kept, or its state was removed since.

    Raises:
        CheckpointError: Its file is something else.
    """
    path = place / STEP_FILE
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, not {_FORMAT!r}")
        stored = StoredStep(
            folder=place,
            cursor=Cursor(**facts["cursor"]),
            loss=float(facts["loss"]),
            grad_norm=float(facts["grad_norm"]),
            **{name: facts[name] for name in ("num_workers", "precision", "data_fingerprint")},
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: is no skipped step of this project: {error}") from None
    return stored if (place / STATE_FILE).exists() else None


def read_skipped_state(place: Path) -> Mapping[str, Any]:
    """The training state that a skipped step met, as `state.checkpoint_from` takes it; no pickled code is run.

    Raises:
        CheckpointError: It can't be read.
    """
    path = place / STATE_FILE
    try:
        with path.open("rb") as file:
            content = load_values(file)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {reason_of(error)}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: can't be read: it {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a training state")
    return content


def step_plans(plan: TrainPlan, cursor: Cursor) -> list[MicroBatchPlan]:
    """All micro-batches of one step, whichever worker takes them."""
    return list(islice(plan.micro_batches(cursor, worker=0, num_workers=1), plan.micro_batches_per_step))


def _state_as_met(
    state: TrainState, skipped: SkippedStep, *, config: ExperimentConfig, data_fingerprint: str, plan: TrainPlan
) -> dict[str, Any]:
    """The content of a checkpoint right before the step: the host hears of it when cursor and loss scale have moved."""
    content = snapshot(state, config=config, data_fingerprint=data_fingerprint)
    cursor = _cursor_of(skipped, plan)
    content |= {"epoch": cursor.epoch, "step": cursor.step}
    if state.scaler.is_enabled():
        content["scaler"] |= {"scale": state.scaler.get_scale() / state.scaler.get_backoff_factor()}
    return content


def _cursor_of(skipped: SkippedStep, plan: TrainPlan) -> Cursor:
    return Cursor(epoch=skipped.epoch, step=skipped.step - skipped.epoch * plan.steps_per_epoch)


def _facts(
    skipped: SkippedStep, *, config: ExperimentConfig, plan: TrainPlan, videos: Manifest, num_workers: int
) -> dict[str, Any]:
    cursor = _cursor_of(skipped, plan)
    return {
        "format": _FORMAT,
        "step": skipped.step + 1,
        "cursor": asdict(cursor),
        "loss": _json_number(skipped.loss),
        "grad_norm": _json_number(skipped.grad_norm),
        "seed": plan.seed,
        "num_workers": num_workers,
        "micro_batches": [
            {
                "index": batch.index,
                "worker": batch.index % num_workers,
                "mixing_key": [plan.seed, batch.epoch, batch.step, batch.index, "mixing"],
                "drop_path_key": [plan.seed, batch.epoch, batch.step, batch.index, "drop path"],
                "videos": _videos_of(batch, videos, seed=plan.seed, repeats=config.augment.repeats),
            }
            for batch in step_plans(plan, cursor)
        ],
    }


def _videos_of(batch: MicroBatchPlan, videos: Manifest, *, seed: int, repeats: int) -> list[dict[str, Any]]:
    names = videos.table.select(["video_id", "path", "label"]).take(batch.rows).to_pylist()
    return [
        {
            "row": row,
            **cells,
            "clip_keys": [
                ClipKey(seed=seed, epoch=batch.epoch, video_id=cells["video_id"], copy=copy).of(repeat)
                for repeat in range(repeats)
            ],
        }
        for row, copy, cells in zip(batch.rows.tolist(), batch.copy_numbers.tolist(), names, strict=True)
    ]


def _note_not_kept(folder: Path, skipped: SkippedStep) -> None:
    line = {
        "step": skipped.step + 1,
        "loss": _json_number(skipped.loss),
        "grad_norm": _json_number(skipped.grad_norm),
        "reason": f"{KEPT_SKIPPED_STEPS} are kept already (KEPT_SKIPPED_STEPS)",
    }
    with (folder / _NOT_KEPT_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _json_number(value: float) -> float | str:
    """JSON knows neither infinities nor NaN: `inf`, `-inf`, `nan`, which `float` reads back."""
    return value if math.isfinite(value) else str(value)

"""Sweeps that nobody trained: results of all kinds, repeatable, in a record like a real one's.

A point's true score comes from its chunk lengths (stage 2 matters most, stage 4 hardly), its seeds scatter about it,
and each trial is tested on so many videos. As a program it writes a report to look at:

    python tests/unit/tuning/synthetic_sweeps.py 500 build/report
"""

import math
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from morphmlp.tuning.run.trials import SweepResult, Trial
from morphmlp.tuning.space.space import ImpossiblePoint, title_of

CHOICES = ([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16], [1, 2, 4], [1])
HOSTILE = "RuntimeError: <script>alert('x')</script> & \"quotes\" | a bar"
RULE = "chunk length {} must divide its {} tokens"


def trial(number=1, values=None, **changes):
    """One trial, finished unless the changes say otherwise."""
    values = {"model.chunk_lengths": [8, 8, 4, 1]} if values is None else values
    state = changes.get("state", "finished")
    done = state == "finished"
    fields = {
        "number": number,
        "point": values,
        "title": title_of(values),
        "seed": 0,
        "state": state,
        "run_id": None,
        "run_name": f"sweep-{number:03d}",
        "score": 50.0 if done else None,
        "scores": {"top1": 50.0, "top5": 90.0} if done else {},
        "num_videos": 200 if done else None,
        "val_score": 48.0,
        "epochs": 4 if done else 1,
        "gmacs": 0.0123,
        "params": 1_234_567,
        "clips_per_s": 100.0 if done else None,
        "wall_s": 60.0,
        "cpu_s": 110.0,
        "error": None if done else "a reason",
    }
    if changes.get("score") is not None:
        fields["scores"] = {"top1": changes["score"], "top5": 90.0}
    return Trial(**{**fields, **changes})


def result_of(trials, impossible=(), **changes):
    fields = {"parent_run_id": "f" * 32, "run_name": "synthetic", "wall_s": 1234.5, "task": "classification"}
    return SweepResult(**{**fields, **changes}, trials=tuple(trials), impossible=tuple(impossible))


def synthetic_sweep(num_points, seeds=(0, 1), num_videos=480, *, widths=False):
    """Chunk lengths, with `widths` also widths and learning rates; a third as many impossible points."""
    rng = np.random.Generator(np.random.Philox(num_points))
    combinations = [list(lengths) for lengths in product(*CHOICES)]
    order = rng.permutation(len(combinations))
    trials = []
    for index in range(num_points):
        lengths = combinations[order[index % len(order)]]
        values = {"model.chunk_lengths": lengths}
        scale = 1.0
        if widths or num_points > len(combinations):
            scale = float(rng.choice([0.5, 1.0, 2.0]))
            values["model.embed_dims"] = [int(width * scale) for width in (32, 64, 128, 128)]
            values["optim.lr"] = round(float(10 ** rng.uniform(-4, -2)), 6)
        true = _true_score(lengths, scale, values.get("optim.lr", 1e-3))
        trials += [
            _drawn(rng, len(trials) + 1 + place, values, seed=seed, true=true, num_videos=num_videos, scale=scale)
            for place, seed in enumerate(seeds)
        ]
    return result_of(trials, _impossible(max(1, num_points // 3)))


def _true_score(lengths, scale, learning_rate):
    stages = (0.8, 4.0, 1.5, 0.0)
    gain = sum(weight * math.log2(length) for weight, length in zip(stages, lengths, strict=True))
    return min(97.0, 60 + gain + 4 * math.log2(scale) - 6 * (math.log10(learning_rate) + 3) ** 2)


def _drawn(rng, number, values, *, seed, true, num_videos, scale):
    own = replace(
        trial(number, values, seed=seed, run_name=f"synthetic-{number:03d}"),
        gmacs=0.05 * scale**1.8,
        params=int(1_200_000 * scale**1.9),
        clips_per_s=float(250 / scale * rng.normal(1, 0.03)),
        wall_s=float(70 * scale * rng.normal(1, 0.03)),
        cpu_s=float(130 * scale * rng.normal(1, 0.03)),
        num_videos=num_videos,
    )
    share = float(np.clip(true + rng.normal(0, 0.8), 1, 99)) / 100
    score = 100 * float(rng.binomial(num_videos, share)) / num_videos
    scores = {"top1": score, "top5": min(100.0, score + 5)}
    own = replace(own, score=score, scores=scores, val_score=max(0.0, score - 1))
    draw, nothing = rng.random(), {"score": None, "scores": {}, "num_videos": None, "clips_per_s": None}
    if draw < 0.04:
        return replace(own, state="failed", error=HOSTILE, epochs=0, val_score=None, **nothing)
    if draw < 0.07:
        reason = "loss was no number for 5 steps in a row, from step 17 on"
        return replace(own, state="diverged", error=reason, epochs=1, val_score=25.0, **nothing)
    if draw < 0.10:
        reason = "it took longer than max_trial_minutes 2"
        return replace(own, state="timed_out", error=reason, epochs=3, **nothing)
    if draw < 0.32 and true < 80:
        epochs = int(rng.choice([1, 3]))
        reason = f"at epoch {epochs} not among the best third"
        return replace(own, state="stopped", error=reason, epochs=epochs, **nothing)
    if draw > 0.97:
        return replace(own, replaces={**values, "model.chunk_lengths": [5, *values["model.chunk_lengths"][1:]]})
    return own


def _impossible(count):
    found = []
    for index in range(count):
        lengths = [8, 16, 8 + index, 3]
        reasons = (
            f"model.chunk_lengths: stage 3: {RULE.format(8 + index, 4)} (2x2 at clip.crop_size 32)",
            f"model.chunk_lengths: stage 4: {RULE.format(3, 1)} (1x1 at clip.crop_size 32)",
        )
        values = {"model.chunk_lengths": lengths}
        found.append(ImpossiblePoint(values=values, title=title_of(values), reasons=reasons[: 1 + index % 2]))
    return found


if __name__ == "__main__":
    from morphmlp.tuning.report.report import write_report

    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    sweep = synthetic_sweep(int(sys.argv[1]), widths="widths" in sys.argv)
    note = "base experiment experiments/demo/morphmlp_demo.yaml; grid search, ASHA after one epoch"
    print(*write_report(sweep, folder, title="synthetic sweep, demo", note=note), sep="\n")

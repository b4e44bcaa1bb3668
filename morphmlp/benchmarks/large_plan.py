"""How long a plan of a large sweep takes: from the space to the printed text."""

import time
from dataclasses import dataclass
from itertools import product

from pydantic import JsonValue

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import BudgetConfig, SweepConfig
from morphmlp.tuning.space.plan import TrainingSpeed, plan_text
from morphmlp.tuning.space.space import expand

EXPERIMENT = "experiments/k400/morphmlp_s_16x4.yaml"
CHUNK_LENGTHS: tuple[JsonValue, ...] = tuple(
    list(lengths) for lengths in product((7, 13, 14, 28, 56), (7, 14, 28, 56), (7, 14, 28, 49), (7, 49))
)
"""Those with 13 divide neither tokens nor channels."""
DEPTHS: tuple[JsonValue, ...] = tuple(list(depths) for depths in product((2, 3, 4), (3, 4), (7, 9), (2, 3)))
LEARNING_RATES = 27
KINETICS_VIDEOS = 240_000
GMACS_PER_S = 1000.0
"""For the predicted hours; any speed would do."""


@dataclass(frozen=True, kw_only=True)
class PlannerTime:
    """One plan."""

    candidates: int
    possible: int
    """Points that keep all shape rules and the budget."""
    wall_s: float
    cpu_s: float


def measure_planner(*, adjust: bool) -> PlannerTime:
    """Plan a sweep over chunk lengths, depths and learning rates of the published S model on Kinetics-400.

    Args:
        adjust: Bring every point into a band of GMAC by its depths; else there is no budget.
    """
    rates: tuple[JsonValue, ...] = tuple(1e-5 * number for number in range(1, LEARNING_RATES + 1))
    sweep = SweepConfig(
        name="planner",
        experiment=EXPERIMENT,
        overrides={},
        space={"model.chunk_lengths": CHUNK_LENGTHS, "model.depths": DEPTHS, "optim.lr": rates},
        budget=BudgetConfig(gmacs=(60, 75), adjust="depths") if adjust else BudgetConfig(),
    )
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    space = expand(sweep, read_yaml(EXPERIMENT))
    speed = TrainingSpeed(gmacs_per_s=GMACS_PER_S, source="the planner's measurement")
    plan_text(space, sweep, speed=speed, videos=KINETICS_VIDEOS)
    return PlannerTime(
        candidates=len(CHUNK_LENGTHS) * len(DEPTHS) * LEARNING_RATES,
        possible=len(space.points),
        wall_s=time.perf_counter() - began_s,
        cpu_s=time.process_time() - began_cpu_s,
    )

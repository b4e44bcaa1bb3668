"""How many steps runs took to a score: the first validation that reached it, for comparing recipes and starts."""

from collections.abc import Callable, Sequence

import pandas as pd

from morphmlp.record import MetricPoint, Tags
from morphmlp.tasks.scores import scores_of

COLUMNS = ("experiment", "start", "seed", "steps", "epochs", "of", "run")


def steps_table(
    runs: pd.DataFrame, history: Callable[[str, Sequence[str]], Sequence[MetricPoint]], *, at_least: float
) -> pd.DataFrame:
    """One row for each finished run, by experiment, start and seed.

    `steps` and `epochs` count to the first validation at which the primary score was as good as `at_least`, `of` is the
    run's length in epochs. The cells of a run that never was so good are empty. Of a run whose length is in steps,
    `epochs` is empty and `of` says `80000 steps`.

    Args:
        runs: Of one data set, as `read_runs` gives them.
        history: All points of some metrics of a run, by its id.
        at_least: The score, in its own unit.
    """
    rows = []
    for run in runs.to_dict("records"):
        score = scores_of(str(run["params.task"]))[0]
        points = history(run["run_id"], [score.val_metric])
        reached = next((point.step for point in points if score.gain(point.value) >= score.gain(at_least)), None)
        videos = int(str(run[f"tags.{Tags.DATA_TRAIN}"]).partition(":")[0])
        an_epoch = videos // min(int(run["params.train.global_batch_size"]), videos)
        length = run.get("params.train.steps")
        in_steps = isinstance(length, str) and length.isdigit()  # NaN where it wasn't recorded
        start = run.get(f"tags.{Tags.START_FROM}")
        cells = (
            run[f"tags.{Tags.EXPERIMENT}"],
            "fresh" if pd.isna(start) else str(start).split()[0].partition("/")[0],
            str(run["params.train.seed"]),
            "" if reached is None else str(reached if in_steps else reached * an_epoch),
            "" if reached is None or in_steps else str(reached),
            f"{length} steps" if in_steps else str(run["params.train.epochs"]),
            run["run_name"],
        )
        rows.append(cells)
    return pd.DataFrame(sorted(rows), columns=list(COLUMNS))

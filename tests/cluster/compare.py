"""On the head: what a run left, held against the plan and against the undisturbed run, by the drill's ledger.

python compare.py STEPS UNDISTURBED NAME     a JSON object; from the repository's root
"""

import json
import sys
from pathlib import Path

from morphmlp.drill.demo_run import Demo, DemoRun, Surroundings
from morphmlp.drill.outcome import difference, doubled_points, greatest_loss_difference, missing_points, remains_of
from morphmlp.tracking import find_run

SHARED = Path("/mnt/shared")


def main() -> None:
    demo = Demo(
        script=Path("pipelines/train_demo.py"),
        config=Path("experiments/demo/morphmlp_demo.yaml"),
        videos=SHARED / "demo",
        steps=int(sys.argv[1]),
    )
    around = Surroundings(tracking_uri="http://127.0.0.1:5000")
    undisturbed, run = [DemoRun(demo, SHARED, SHARED, around, name=name) for name in sys.argv[2:4]]
    expected, remains = remains_of(undisturbed), remains_of(run)
    record = find_run(run.tracking_uri, run_name=run.name)
    apart = difference(remains.weights, expected.weights, "bit-identical")
    print(
        json.dumps(
            {
                "status": record and record.status,
                "repeated": remains.repeated,
                "lost": remains.lost,
                "doubled": doubled_points(remains.losses),
                "missing": missing_points(remains.losses, dict.fromkeys(range(1, demo.steps + 1), ())),
                "steps": remains.checkpoint_steps,
                "workers": [attempt.num_workers for attempt in run.history().attempts],
                "redone": remains.redone_steps,
                "identical": apart.equal,
                "weights_apart": apart.greatest,
                "losses_apart": greatest_loss_difference(remains.losses, expected.losses),
            }
        )
    )


if __name__ == "__main__":
    main()

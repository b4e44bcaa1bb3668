"""Sweeps: many trainings under one record, points chosen inside the model's shape rules.

`space.space.expand` finds points, `run.ray_sweep.run_sweep` trains them, `report.report.write_report` compares them.
"""

import os

# Read by Ray when it is imported: after Ctrl-C, Tune's thread must not start a Ray of its own once ours is down.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

"""Training workers on Ray.

`ray_trainer.train` is the entry. `supervision.Supervisor` starts workers again until the plan is done, `ray_fit.Fit`
is one start of them, `ray_worker.train_worker` what each of them does, and `stops` says why they stop.
"""

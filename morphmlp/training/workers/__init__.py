"""Training workers on Ray.

`ray_trainer.train` is the entry, and `ray_trainer.Fit` one start of workers. `supervision.Supervisor` starts them again
until the plan is done; `ray_worker.train_worker` is what each of them does, and `stops` says why they stop.
"""

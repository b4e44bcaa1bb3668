"""A sweep at work: `ray_sweep.run_sweep` plans, `trial_queue` orders, `ray_trials` starts and hears trials.

`decisions` stops them where the scheduler says so, `ray_trial_process` is what each runs, `sweep_record` records.
"""

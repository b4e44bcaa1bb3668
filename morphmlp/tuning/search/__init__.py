"""How a sweep looks for good points, and what it does with bad ones.

Points: `optuna_search.OptunaPoints`. Schedulers (`scheduler.SweepScheduler`): `ray_asha_pruner.AshaPruner`,
`population.Population`.
"""

"""How a sweep looks for good points: grid and random points, Optuna, successive halving, populations."""

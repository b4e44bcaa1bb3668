"""Sweeps: many trainings under one record, points chosen inside the model's shape rules."""

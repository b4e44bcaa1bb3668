"""Checkpoints: their bytes, their store, when one is due, and who writes it."""

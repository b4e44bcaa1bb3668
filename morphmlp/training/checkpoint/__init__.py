"""Checkpoints: their bytes, where they are stored, when one is due, and who writes it.

`saving.Saving` is the training's side and `store.CheckpointStore` the storage's; `saving.run_store` opens a run's.
`branching.branch` lets a run continue from another run's checkpoint.
"""

"""Micro-batches in planned order: the same clips whatever the number of workers, tasks and nodes.

`plan` says which videos each step takes, `decode_task` makes their clips, `batches` puts them together, `ray_dataset`
runs that over the cluster ahead of training, and `ray_clips` is what a training worker reads from.
"""

"""Work on data sets over the cluster: verifying, copying, packing; resumable, with progress.

`ray_verify` and `ray_copies` run a whole job; `own_data` makes manifests and a first experiment of a user's own files.
"""

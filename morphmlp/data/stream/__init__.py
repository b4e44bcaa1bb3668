"""From a manifest to micro-batches: the plan, decode tasks, and the stream of each worker."""

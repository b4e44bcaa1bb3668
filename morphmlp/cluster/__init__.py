"""Ray as the pipelines use it: `ray_cluster` joins or starts it and decides what fits; its faults become one line."""

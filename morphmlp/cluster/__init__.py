"""Ray as the pipelines use it: joined or started, with its faults in one line."""

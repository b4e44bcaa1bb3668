"""Ray as the pipelines use it: joined or started, with its faults told in one line."""

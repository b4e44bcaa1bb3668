"""Settings for a machine that others share: no time limit on single draws."""

from hypothesis import settings

settings.register_profile("shared machine", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("shared machine")

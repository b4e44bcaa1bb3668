"""Settings for a machine that others share: no time limit on single draws, one thread for torch."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("shared machine", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True, scope="package")
def torch_takes_one_thread():
    # Two threads that wait for each other on a busy machine are slower than one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

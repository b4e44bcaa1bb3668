"""Gradients that three gloo processes agree on, with and without a clock that watches.

Run as `python gloo_gradients.py FOLDER`; no test module: the processes are forked from one that imported torch once.
Three, since a third has no exact float: dividing by 3 and multiplying by 1/3 differ.
"""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.training.loop.step_clock import StepClock

WORKERS = 3


def parallel_network():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for broadcast_buffers
        return DistributedDataParallel(
            nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)),
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def backward(network, rank):
    """Two micro-batches, gathered at the second."""
    network.zero_grad(set_to_none=True)
    first, second = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(rank))
    with network.no_sync():
        network(first).square().sum().backward()
    network(second).square().sum().backward()


def write_gradients(rank, folder):
    """One of several processes: two steps by each network, the second with the buckets that the first led to."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    clock = StepClock(torch.device("cpu"))
    plain, watched = parallel_network(), parallel_network()
    clock.watch(watched)
    times = []
    for _ in range(2):
        backward(plain, rank)
        clock.begin(0.0)
        backward(watched, rank)
        clock.reduced()
        times.append(clock.end())
    torch.save(
        {
            "plain": [parameter.grad.clone() for parameter in plain.parameters()],
            "watched": [parameter.grad.clone() for parameter in watched.parameters()],
            "all_reduce_s": [step.all_reduce_s for step in times],
            "parts": [(step.compute_s + step.all_reduce_s, step.step_s) for step in times],
        },
        Path(folder) / f"worker{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(write_gradients, args=(sys.argv[1],), nprocs=WORKERS, start_method="fork")

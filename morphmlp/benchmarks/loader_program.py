"""Training clips through a torch DataLoader, in rounds: the side that the Ray Data path is compared with.

Its worker processes call the very function that decode tasks call, on as many videos at a time. Run as a program it
reads one JSON request from standard input, then reads on whenever a line comes, and answers each with the clips that it
has read.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from morphmlp.benchmarks.clip_kinds import extractor_of
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos


@dataclass(frozen=True)
class ClipItems(Dataset[Tensor]):
    """One item is the clips of several videos, `[b t h w c]`, as a decode task makes them."""

    paths: Sequence[str]
    items: int
    videos_per_item: int
    decoder: str
    timeout_s: float

    def __len__(self) -> int:
        """Items."""
        return self.items

    def __getitem__(self, number: int) -> Tensor:
        """Decode and extract the clips."""
        torch.set_num_threads(1)
        videos, extractor = isolated_videos(self.decoder, Limits(timeout_s=self.timeout_s)), extractor_of("train")
        first = number * self.videos_per_item
        clips = [
            extractor.extract(
                videos.open(self.paths[row % len(self.paths)], num_frames=None),
                ClipKey(seed=0, epoch=0, video_id=f"video {row}"),
            ).clips
            for row in range(first, first + self.videos_per_item)
        ]
        return torch.from_numpy(np.concatenate(clips))


def serve() -> None:
    """Make a loader for the request, then read `{"clips": n}` at a time until standard input ends."""
    request = json.loads(sys.stdin.readline())
    workers = request.pop("workers")
    loader = DataLoader(ClipItems(**request), batch_size=None, num_workers=workers)
    items = iter(loader)
    for line in sys.stdin:
        wanted = json.loads(line)["clips"] // request["videos_per_item"]
        clips = sum(len(item) for item in islice(items, wanted))
        print(json.dumps({"clips": clips}), flush=True)


if __name__ == "__main__":
    serve()

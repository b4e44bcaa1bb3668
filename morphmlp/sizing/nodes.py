"""The kinds of nodes with their prices: the file of `--prices`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from morphmlp.config.loading import read_yaml, validated
from morphmlp.config.values import STRICT, NonNegativeFloat, PositiveFloat, PositiveInt
from morphmlp.errors import ConfigError


@checked(frozen=True, kw_only=True, config=STRICT)
class NodeType:
    """One kind of node, as its provider describes and bills it."""

    cpus: PositiveInt
    """CPUs that Ray counts on it (AWS: vCPUs)."""
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gib: PositiveFloat
    network_gbit: PositiveFloat
    """What its network sustains in each direction, Gbit/s: better measured than read off a price list."""
    hour_price: NonNegativeFloat
    losses_per_1000_h: NonNegativeFloat = 0.0
    """How often such a node is taken away or fails, in a thousand hours of one node."""


@checked(frozen=True, kw_only=True, config=STRICT)
class Nodes:
    """The file of `--prices`."""

    currency: str
    train: NodeType
    ingest: NodeType
    head_hour_price: NonNegativeFloat = 0.0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check.

        Raises:
            ConfigError: Whatever is wrong, all at once.
        """
        nodes = validated(cls, read_yaml(path))
        if nodes.train.gpus == 0:
            raise ConfigError([f"train.gpus: is 0 in {path}; name the GPUs of a training node"])
        return nodes

    def hour(self, gpus: int, cpus: int, ingest_cpus: int) -> float:
        """An hour's price of the nodes that hold so many GPUs, cores that train and cores that decode, and the head."""
        train = max(-(-gpus // self.train.gpus), -(-cpus // self.train.cpus))
        ingest = -(-ingest_cpus // self.ingest.cpus)
        return train * self.train.hour_price + ingest * self.ingest.hour_price + self.head_hour_price

"""Visits every node of a cluster, and brings a report home from each."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from morphmlp.preflight.node import node_facts
from morphmlp.preflight.report import DecodeSample, NodeFacts, NodeReport
from morphmlp.preflight.shared_files import Answer, Question, answer

if TYPE_CHECKING:
    import pyarrow as pa

    from morphmlp.cluster.ray_nodes import NodeResources
    from morphmlp.data.stream.decode_task import DecodeTask

LOOK_S = 120.0
"""Time for a node's first answer; a process has to start for it."""
DECODE_S = 300.0
"""Time for the sample of videos; each has `ingest.decode_timeout_s` of its own."""
_CLOCK_QUESTIONS = 5
"""The one that was answered fastest counts."""


@dataclass(frozen=True, kw_only=True)
class VideoSample:
    """Videos to decode, as a decode task is asked for them."""

    table: "pa.Table"
    task: "DecodeTask"
    clips_per_video: int | None
    """Where the time counts as that of training clips."""


class _Visitor:
    """A process on a node."""

    def look(self, question: Question, folders: Mapping[str, str]) -> tuple[NodeFacts, Answer]:
        return node_facts(folders), answer(question)

    def time(self) -> float:
        return time.time()

    def decode(self, samples: Sequence[VideoSample]) -> DecodeSample:
        broken: dict[str, str] = {}
        rates = []
        for sample in samples:
            done = sample.task(sample.table)
            for path, error, message, cpu_s in zip(
                sample.table["path"].to_pylist(), *(done[name].to_pylist() for name in _DECODED), strict=True
            ):
                if error:
                    broken[path] = message
                elif sample.clips_per_video is not None:
                    rates.append(sample.clips_per_video / cpu_s)
        return DecodeSample(
            videos=sum(sample.table.num_rows for sample in samples),
            clips_per_s=median(rates) if rates else None,
            broken=broken,
        )


_DECODED = ("error", "message", "cpu_s")


class Visit:
    """Visitors on all nodes, for as long as this object lives."""

    def __init__(self, nodes: Mapping["NodeResources", NodeReport]) -> None:
        """Start them; what is known of each node is in its report."""
        self.reports = dict(nodes)
        visitor: Any = ray.remote(num_cpus=0, max_restarts=0)(_Visitor)
        self._visitors: dict[NodeResources, Any] = {
            # Zero CPUs: nothing else of the cluster has to make room for it.
            node: visitor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote()
            for node in nodes
        }

    def look(
        self, questions: Mapping["NodeResources", Question], folders: Mapping["NodeResources", Mapping[str, str]]
    ) -> list[tuple[str, Answer]]:
        """Take in facts and clocks; returns what each node, by name, sees of the files."""
        asked = {visitor.look.remote(questions[node], folders[node]): node for node, visitor in self._visitors.items()}
        seen = []
        for node, (facts, given) in self._answers(asked, timeout_s=LOOK_S, doing="looked at its disks"):
            ahead, error = self._clock(node)
            self._note(node, facts=facts, clock_ahead_s=ahead, clock_error_s=error)
            seen.append((node.name, given))
        return seen

    def decode(self, samples: Sequence[VideoSample]) -> None:
        """Decode the samples on every node that decodes, on one core of each."""
        handed = ray.put(samples)
        asked = {
            visitor.decode.remote(handed): node
            for node, visitor in self._visitors.items()
            if self.reports[node].decodes and self.reports[node].facts is not None
        }
        for node, decoded in self._answers(asked, timeout_s=DECODE_S, doing="decoded a few videos"):
            self._note(node, decoded=decoded)

    def _clock(self, node: "NodeResources") -> tuple[float, float]:
        """By how much the node's clock is ahead, and the error of that, seconds."""
        best = (0.0, LOOK_S)
        for _ in range(_CLOCK_QUESTIONS):
            sent, began = time.time(), time.monotonic()
            try:
                there = ray.get(self._visitors[node].time.remote(), timeout=LOOK_S)
            except RayError:
                return best
            error = (time.monotonic() - began) / 2
            best = min(best, (there - sent - error, error), key=lambda measured: measured[1])
        return best

    def _answers(
        self, asked: Mapping[Any, "NodeResources"], *, timeout_s: float, doing: str
    ) -> Iterator[tuple["NodeResources", Any]]:
        """What comes back; who is silent, lost or failed is noted."""
        done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
        for reference in silent:
            self._note(asked[reference], silent=f"no answer within {timeout_s:.0f} s while it {doing}")
        for reference in done:
            try:
                yield asked[reference], ray.get(reference)
            except RayTaskError as error:
                self._note(asked[reference], silent=str(error).strip().splitlines()[-1])
            except RayError:
                self._note(asked[reference], silent=f"left the cluster while it {doing}", lost=True)

    def _note(self, node: "NodeResources", **changes: Any) -> None:
        self.reports[node] = replace(self.reports[node], **changes)

"""Asks every machine of a cluster, before the first step, whether it sees the files that a run needs there."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.cluster.ray_nodes import NodeResources, ask_nodes, cluster_nodes
from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest
from morphmlp.errors import ClusterError
from morphmlp.preflight.shared_files import Question, answer, faults_of, marked, readable
from morphmlp.targets import CLIP_CACHE

_SAMPLE = 4
"""Videos of each manifest that are looked at."""
_SHOWN = 10


def require_shared_files(
    config: ExperimentConfig, splits: Iterable[Mapping[str, Manifest]], placement: Placement
) -> None:
    """Make sure that nodes which train share the storage, and that those which decode see the same videos.

    A node without such a part needn't see anything. Of a cluster of one node only its clip cache is looked at.

    Raises:
        ClusterError: One line for each node and field: what it doesn't see, and what would be right.
    """
    nodes = cluster_nodes()
    several = len(nodes) > 1
    if not several and config.ingest.clip_cache is None:
        return
    asked = {node: (placement.may_train(node), node.may_decode(placement.ingest_labels)) for node in nodes}
    with questions_about(config, splits if several else (), asked, folders=several) as (questions, videos):
        asking = {node: each for node, each in questions.items() if each.marks or each.videos or each.own}
        answers = [(node.name, given) for node, given in ask_nodes(answer, asking, doing=_looked_at)]
        faults = faults_of(answers, readable(videos))
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise ClusterError("\n".join([*faults[:_SHOWN], *more]))


@contextmanager
def questions_about(
    config: ExperimentConfig,
    splits: Iterable[Mapping[str, Manifest]],
    nodes: Mapping[NodeResources, tuple[bool, bool]],
    *,
    folders: bool = True,
) -> Iterator[tuple[dict[NodeResources, Question], dict[str, tuple[str, ...]]]]:
    """What each node is asked, and the videos by field; the shared folders hold fresh files for as long as it lasts.

    `nodes` says of each whether it may train, and whether it may decode. Without `folders` only those of the nodes'
    own are asked about.

    Raises:
        ClusterError: This machine can't write to a folder.
    """
    cache = config.ingest.clip_cache
    videos, own = _some_videos(splits), {} if cache is None else {CLIP_CACHE: str(Path(cache).absolute())}
    with marked(_folders(config) if folders else {}) as marks:
        yield (
            {
                node: Question(
                    marks=marks if trains else {},
                    videos=videos if decodes else {},
                    own=own if decodes else {},
                )
                for node, (trains, decodes) in nodes.items()
            },
            videos,
        )


def _folders(config: ExperimentConfig) -> dict[str, str]:
    folders = {"cluster.storage": config.cluster.storage}
    if config.checkpoint.storage is not None and "://" not in config.checkpoint.storage:
        folders["checkpoint.storage"] = config.checkpoint.storage
    return {field: str(Path(folder).absolute()) for field, folder in folders.items()}


def _some_videos(splits: Iterable[Mapping[str, Manifest]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for data in splits:
        for split, manifest in data.items():
            paths = tuple(manifest.table["path"].slice(0, _SAMPLE).to_pylist())
            found[f"data.{split}"] = (*found.get(f"data.{split}", ()), *paths)
    return found


def _looked_at(question: Question) -> str:
    videos = (paths[0] for paths in question.videos.values())
    folders = [*(str(Path(mark).parent) for mark in question.marks.values()), *videos, *question.own.values()]
    return f"looked at {', '.join(folders)}; a mounted disk may hang there"

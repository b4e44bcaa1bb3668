"""The server on Ray Serve: replicas that each hold the network, a bounded queue, figures for Prometheus."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.metrics import Counter, Gauge, Histogram
from torch import Tensor

from morphmlp.cluster.ray_nodes import NodeResources, cluster_nodes, inventory
from morphmlp.cluster.ray_session import without_ray_messages
from morphmlp.config import ExperimentConfig
from morphmlp.errors import ClusterError
from morphmlp.prediction.trained import TrainedNetwork
from morphmlp.serving.app import create_app
from morphmlp.serving.files import AllowedFolders, UploadFolder
from morphmlp.serving.limits import ServingLimits
from morphmlp.serving.predictor import Logits, Predictor, model_of
from morphmlp.stop_signals import undisturbed

NAME = "morphmlp"
"""Of the application in Ray Serve."""
_OTHER_REQUESTS = 16
"""For the page and for health, past those that wait for an answer."""
_RETRY_AFTER_S = 5
_WAIT_FOR_OTHERS_S = 0.005
"""How long a file's clips wait for another one's, seconds."""
_ENDING_S = 5.0
_LOOK_EVERY_S = 2.0
_SECONDS = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0]
_CLIPS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is served, and how."""

    trained: TrainedNetwork
    limits: ServingLimits
    folders: tuple[str, ...]
    """Of which files may be named."""
    uploads: str | None
    """Where uploads are kept; None: the system's place for temporary files."""
    host: str
    port: int
    replicas: int
    replicas_per_gpu: int
    decoders: int
    """Files that a replica decodes at a time, each on a CPU."""

    @property
    def names(self) -> tuple[str, ...]:
        """By which the server may be called: on loopback by no name that others can give it."""
        return ("127.0.0.1", "localhost") if is_loopback(self.host) else ()


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """What a replica needs; the weights come through Ray's object store."""

    config: ExperimentConfig
    weights: "ray.ObjectRef[Mapping[str, Tensor]]"
    class_names: tuple[str, ...]
    location: str
    limits: ServingLimits
    folders: tuple[str, ...]
    uploads: str | None
    names: tuple[str, ...]
    decoders: int


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host in ("127.0.0.1", "localhost")


@serve.ingress()
class Replica:
    """One network and its decoders. Ray Serve starts another one where it dies."""

    def __init__(self, offer: _Offer) -> None:
        trained = TrainedNetwork(
            config=offer.config,
            weights=ray.get(offer.weights),
            class_names=offer.class_names,
            location=offer.location,
        )
        self._offer = offer
        self._predictor = Predictor(
            model_of(trained),
            limits=offer.limits,
            decoders=offer.decoders,
            network_threads=offer.decoders,
            meter=_Figures(),
            together=self._together,
        )
        self._together.set_max_batch_size(offer.decoders)  # type: ignore[attr-defined]  # serve.batch adds it

    def __serve_build_asgi_app__(self) -> FastAPI:
        offer = self._offer
        return create_app(
            self._predictor,
            location=offer.location,
            folders=AllowedFolders(offer.folders),
            uploads=UploadFolder(offer.uploads),
            hosts=offer.names,
        )

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=_WAIT_FOR_OTHERS_S)
    async def _together(self, clips: list[Tensor]) -> list[Logits]:
        return await self._predictor.score(clips)


class _Figures:
    """For Prometheus, by Ray's exporter on each node."""

    def __init__(self) -> None:
        self._working = Gauge("morphmlp_working", "Requests that are worked on")
        self._waiting = Gauge("morphmlp_waiting", "Requests that send their file or wait for a decoder")
        self._answers = Counter("morphmlp_answers", "Answers by status; 499: the sender hung up", ("status",))
        self._seconds = Histogram("morphmlp_answer_seconds", "From a request to its answer", _SECONDS)
        self._clips = Histogram("morphmlp_batch_clips", "Clips that go through the network together", _CLIPS)
        self._network = Counter("morphmlp_network_seconds", "Time that the network works")

    def occupied(self, *, working: int, waiting: int) -> None:
        """Requests that are worked on, and that wait or send."""
        self._working.set(working)
        self._waiting.set(waiting)

    def scored(self, *, requests: int, clips: int, seconds: float) -> None:
        """Clips of so many requests went through the network together."""
        self._clips.observe(clips)
        self._network.inc(max(seconds, 1e-6))

    def answered(self, *, status: int, seconds: float) -> None:
        """A request has its answer."""
        self._answers.inc(tags={"status": str(status)})
        self._seconds.observe(seconds)


@contextmanager
def served(service: Service) -> Iterator[None]:
    """Serve in the running Ray session while the block lasts.

    Raises:
        ClusterError: The replicas don't fit, or don't start.
    """
    gpus = _require_room(cluster_nodes(), service)
    quiet = logging.getLogger("ray.serve")
    quiet.setLevel(logging.ERROR)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": service.host, "port": service.port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        try:
            serve.run(_application(service, gpus), name=NAME)
        except RuntimeError as error:
            raise ClusterError(f"the server doesn't start: {' '.join(str(error).split())}") from None
        yield
    finally:
        with undisturbed(), without_ray_messages():
            _end()


def watch(log: Callable[[str], None]) -> None:
    """Say what becomes of the replicas, until Ctrl-C."""
    said = "RUNNING"
    while True:
        time.sleep(_LOOK_EVERY_S)
        application = serve.status().applications.get(NAME)
        now = "gone" if application is None else application.status.value
        if now != said:
            log(f"the server is {now.lower().replace('_', ' ')}")
            said = now


def metrics_addresses() -> list[str]:
    """Where Prometheus finds the figures, one address a node."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        if node["Alive"]
    ]


def _application(service: Service, gpus: float) -> serve.Application:
    trained, limits = service.trained, service.limits
    at_once = service.decoders + limits.queued + _OTHER_REQUESTS
    offer = _Offer(
        config=trained.config,
        weights=ray.put(dict(trained.weights)),
        class_names=trained.class_names,
        location=trained.location,
        limits=limits,
        folders=service.folders,
        uploads=service.uploads,
        names=service.names,
        decoders=service.decoders,
    )
    deployment = serve.deployment(
        num_replicas=service.replicas,
        ray_actor_options={"num_cpus": service.decoders, "num_gpus": gpus},
        # A replica refuses by itself what it can't take, with the time after which to try again. Ray Serve counts each
        # request as queued until it has chosen a replica: its bound is for times when there is none.
        max_ongoing_requests=at_once,
        max_queued_requests=at_once * service.replicas,
        backpressure_config=BackpressureConfig(retry_after_s=_RETRY_AFTER_S),
        graceful_shutdown_timeout_s=_ENDING_S,
    )(Replica)
    application: serve.Application = deployment.bind(offer)
    return application


def _require_room(nodes: Sequence[NodeResources], service: Service) -> float:
    """The share of a GPU that each replica gets.

    Raises:
        ClusterError: Ray would wait for ever for places.
    """
    has_gpus = any(node.gpus for node in nodes)
    places = [
        min(node.cpus // service.decoders, node.gpus * service.replicas_per_gpu if has_gpus else node.cpus)
        for node in nodes
    ]
    if sum(places) < service.replicas:
        each = f"{service.decoders} CPUs" + (f" and 1/{service.replicas_per_gpu} of a GPU" if has_gpus else "")
        raise ClusterError(
            f"--replicas: {service.replicas} of {each} each don't fit: {inventory(list(nodes))} hold {sum(places)}; "
            "lower --replicas or --decoders"
        )
    return 1 / service.replicas_per_gpu if has_gpus else 0.0


def _end() -> None:
    """Take the application away; Ray Serve itself goes unless others are served by it."""
    applications = serve.status().applications
    if set(applications) <= {NAME}:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    else:
        serve.delete(NAME)

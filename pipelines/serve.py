"""Serve a trained network over HTTP: a page to drop a video on, and an API for programs.

    python pipelines/serve.py --checkpoint runs/mine
    python pipelines/serve.py --checkpoint runs/mine --replicas 8 --allowed-folder videos --port 8080

It runs on the cluster of RAY_ADDRESS, or on this machine, until Ctrl-C. There are no users and no passwords: it listens
on this machine's loopback address unless --host names another one.
"""

import socket
from pathlib import Path
from typing import Any

import click

from morphmlp.cli import A_PATH, COUNT, SECONDS, SETTINGS, parse_overrides, run
from morphmlp.config.loading import check_overrides
from morphmlp.errors import ConfigError
from morphmlp.targets import writable_folder

_PORT = click.IntRange(1, 65535)
_PORT.name = "port"


@click.command(context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.option(
    "--checkpoint",
    required=True,
    metavar="WEIGHTS",
    help="a run (name, folder or MLflow id), a checkpoint's folder, a file",
)
@click.option("--config", metavar="FILE", help="experiment file; by default that of the run that trained the weights")
@click.option(
    "--classes", type=A_PATH, metavar="FILE", help="class names; by default those of the experiment's manifests"
)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen; 0.0.0.0: on every address")
@click.option("--port", type=_PORT, default=8000, help="where to listen")
@click.option("--replicas", type=COUNT, default=1, help="copies of the network")
@click.option("--decoders", type=COUNT, default=2, help="files that a replica decodes at a time, each on a CPU")
@click.option("--replicas-per-gpu", type=COUNT, default=1, help="where there are GPUs: replicas that share one")
@click.option(
    "--allowed-folder",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="folder whose files may be named in requests; may be given several times",
)
@click.option(
    "--upload-folder",
    type=A_PATH,
    metavar="DIR",
    callback=lambda context, option, path: path and writable_folder(path, "--upload-folder"),
    help="where files are kept while they are looked at; by default the system's place for temporary files",
)
@click.option("--max-upload-mb", type=COUNT, default=512, help="size of a file that is sent")
@click.option(
    "--max-upload-seconds", "upload_s", type=SECONDS, default=900.0, help="time that a sender has for all of its file"
)
@click.option(
    "--max-queued", "queued", type=click.IntRange(min=0), default=16, help="requests that wait, for each replica"
)
@click.option("--max-seconds", "seconds", type=SECONDS, default=600.0, help="length of a video")
@click.option("--max-frames", "frames", type=COUNT, default=100_000, help="frames of a video")
@click.option(
    "--max-gigapixels", "gigapixels", type=SECONDS, default=200.0, help="pixels of all its frames together, in 10^9"
)
@click.option("--max-windows", "windows", type=COUNT, default=2_000, help="windows over a video")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    checkpoint: str,
    config: str | None,
    classes: Path | None,
    host: str,
    port: int,
    replicas: int,
    decoders: int,
    replicas_per_gpu: int,
    folders: tuple[Path, ...],
    upload_folder: Path | None,
    max_upload_mb: int,
    overrides: tuple[str, ...],
    **limits: Any,
) -> None:
    """Serve a trained network over HTTP: a page to drop a video on, and an API for programs.

    Any field of the experiment can be overridden, as in --test.num-clips 10.
    """
    fields = parse_overrides(overrides, context.command.params)
    check_overrides(fields, path=config)
    _require_free(host, port)
    from morphmlp.cluster.ray_cluster import job_session
    from morphmlp.prediction.trained import find_trained
    from morphmlp.serving.limits import MB, ServingLimits
    from morphmlp.serving.ray_server import Service, is_loopback, metrics_addresses, served, watch

    trained = find_trained(checkpoint, config=config, overrides=fields, classes=classes, log=_say)
    service = Service(
        trained=trained,
        limits=ServingLimits(upload_bytes=max_upload_mb * MB, **limits),
        folders=tuple(str(folder.absolute()) for folder in folders),
        uploads=None if upload_folder is None else str(upload_folder.absolute()),
        host=host,
        port=port,
        replicas=replicas,
        replicas_per_gpu=replicas_per_gpu,
        decoders=decoders,
    )
    if not is_loopback(host):
        _say(f"warning: --host {host}: whoever reaches this address may use the server; it asks for no password")
    with job_session(local_cpus=replicas * decoders), served(service):
        _say(f"http://{host}:{port}  (Ctrl-C ends it)")
        _say(f"metrics: {', '.join(metrics_addresses())}")
        watch(_say)


def _require_free(host: str, port: int) -> None:
    """Refuse a port that is taken before Ray starts."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigError([f"--host, --port: {host}:{port}: {(error.strerror or str(error)).lower()}"]) from None


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run(main, long=True)

"""Look over every node of a cluster before a run: what differs, what is missing, what is slow, and what to do about it.

    python pipelines/preflight.py --config experiments/k400/morphmlp_s_16x4.yaml
    python pipelines/preflight.py --config data/mine/experiment.yaml --cluster.num_workers 8 --json build/preflight.json

Takes the options and fields of `train.py`, trains three steps and leaves nothing in the storage. With RAY_ADDRESS it
joins that cluster, else it looks at this machine. The exit code is 0 where nothing is wrong, and 2 with a line for each
fault.
"""

import dataclasses
import json
import time

from morphmlp.cli import experiment_arguments, run, write_json
from morphmlp.errors import ClusterError, ConfigError, TrackingError


def main() -> None:
    """Look, print, record."""
    arguments = experiment_arguments(
        "Look over every node that the experiment of a file would use: versions, GPUs, files, disks, limits, clocks, "
        "storage, MLflow, the network between nodes, decoding, and three training steps.",
        default_config=None,
    )
    if arguments.extend is not None:
        raise ConfigError(["--extend: is for training; preflight takes --start-from"])

    from morphmlp.cluster.address import require_named_cluster
    from morphmlp.experiment.data_splits import read_splits
    from morphmlp.experiment.run_claim import with_absolute_paths
    from morphmlp.preflight.checks import faults_of
    from morphmlp.preflight.ray_preflight import look_over
    from morphmlp.preflight.words import tables, verdict
    from morphmlp.progress import TerminalProgress
    from morphmlp.training.weights.choose import starting_from
    from morphmlp.training.weights.start import with_checked_weights

    began, config = time.monotonic(), arguments.config
    if arguments.start_from is not None:
        config = starting_from(config, arguments.start_from, print)
    require_named_cluster()
    data = read_splits(config)
    config = with_absolute_paths(with_checked_weights(config, data.train.class_names))
    with TerminalProgress() as progress:
        report, writer = look_over(config, data.by_split(), run_name=arguments.run_name, progress=progress)
    faults = faults_of(report)
    said = f"{tables(report, faults)}\n\n{verdict(report, faults)}"
    found = {
        "green": not faults,
        "faults": [dataclasses.asdict(fault) for fault in faults],
        "report": dataclasses.asdict(report),
        "wall_s": time.monotonic() - began,
    }
    print(said)
    write_json(arguments.json, found)
    if writer is not None:
        try:
            writer.text("\n".join([said, *map(str, faults), ""]), "preflight.txt")
            writer.text(json.dumps(found, indent=2), "preflight.json")
            writer.finish("FAILED" if faults else "FINISHED")
        except TrackingError as error:
            raise ClusterError("\n".join([*map(str, faults), str(error)])) from error
    if faults:
        raise ClusterError("\n".join(map(str, faults)))


if __name__ == "__main__":
    run(main, long=True)

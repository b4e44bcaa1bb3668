"""Train, validate and test the network of an experiment file, and record the run.

    python pipelines/train.py --config experiments/k400/morphmlp_s_16x4.yaml
    python pipelines/train.py --config data/mine/experiment.yaml --train.epochs 5 --run-name first

`train_k400.py`, `train_ssv1.py`, `train_ssv2.py`, `train_imagenet.py` and `train_demo.py` do the same with an
experiment by default.
"""

from morphmlp.cli import experiment_arguments, run


def main(default_config: str | None = None) -> None:
    """Train the experiment of `--config`; without one, that of `default_config`."""
    arguments = experiment_arguments(
        "Train the network of an experiment file, test it on all views, and record the run.",
        default_config=default_config,
    )

    from morphmlp.experiment.ray_pipeline import train_pipeline

    train_pipeline(arguments)


if __name__ == "__main__":
    run(main, long=True)

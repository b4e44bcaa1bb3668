"""Train and test a MorphMLP on the demo data set."""

from morphmlp.cli import experiment_arguments, run


def main() -> None:
    """Train the experiment of `--config`."""
    arguments = experiment_arguments(
        "Train a MorphMLP on the demo videos and test it with the published multi-view protocol.",
        default_config="experiments/demo/morphmlp_demo.yaml",
    )

    from morphmlp.experiment.ray_pipeline import train_pipeline

    train_pipeline(arguments)


if __name__ == "__main__":
    run(main, long=True)

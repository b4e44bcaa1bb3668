"""Train and test a MorphMLP on Something-Something V1."""

from morphmlp.cli import experiment_arguments, run


def main() -> None:
    """Train the experiment of `--config`."""
    arguments = experiment_arguments(
        "Train a MorphMLP on Something-Something V1 and test it with the published multi-view protocol.",
        default_config="experiments/ssv1/morphmlp_s_16.yaml",
    )

    from morphmlp.experiment.ray_pipeline import train_pipeline

    train_pipeline(arguments)


if __name__ == "__main__":
    run(main, long=True)

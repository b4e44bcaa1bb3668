"""Train and test a MorphMLP on Kinetics-400."""

from morphmlp.cli import experiment_arguments, run


def main() -> None:
    """Train the experiment of `--config`."""
    arguments = experiment_arguments(
        "Train a MorphMLP on Kinetics-400 and test it with the published multi-view protocol.",
        default_config="experiments/k400/morphmlp_s_16x4.yaml",
    )

    from morphmlp.experiment.ray_pipeline import train_pipeline

    train_pipeline(arguments)


if __name__ == "__main__":
    run(main, long=True)

"""Train and test a MorphMLP on the demo data set."""

from morphmlp.cli import run
from morphmlp.ray_pipeline import train_pipeline


def main() -> None:
    """Train the experiment of `--config`."""
    train_pipeline(
        "Train a MorphMLP on the demo videos and test it with the published multi-view protocol.",
        default_config="experiments/demo/morphmlp_demo.yaml",
    )


if __name__ == "__main__":
    run(main)

"""Train and test a MorphMLP on Something-Something V2."""

from morphmlp.cli import run
from morphmlp.ray_pipeline import train_pipeline


def main() -> None:
    """Train the experiment of `--config`."""
    train_pipeline(
        "Train a MorphMLP on Something-Something V2 and test it with the published multi-view protocol.",
        default_config="experiments/ssv2/morphmlp_s_16.yaml",
    )


if __name__ == "__main__":
    run(main)

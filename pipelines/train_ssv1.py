"""Train and test a MorphMLP on Something-Something V1: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/ssv1/morphmlp_s_16.yaml"), long=True)

"""Train and test a MorphMLP on Kinetics-400: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/k400/morphmlp_s_16x4.yaml"), long=True)

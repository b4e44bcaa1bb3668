"""Train and test a MorphMLP on Something-Something V2: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/ssv2/morphmlp_s_16.yaml"), long=True)

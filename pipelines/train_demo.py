"""Train and test a MorphMLP on the demo task: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/demo/morphmlp_demo.yaml"), long=True)

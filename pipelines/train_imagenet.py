"""Train and test a MorphMLP on ImageNet-1K: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/imagenet/morphmlp_t.yaml"), long=True)

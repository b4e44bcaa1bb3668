"""Train and test a MorphMLP on ADE20K: `train.py` with an experiment by default."""

from train import main

from morphmlp.cli import run

if __name__ == "__main__":
    run(lambda: main("experiments/ade20k/morphmlp_s_semantic_fpn.yaml"), long=True)

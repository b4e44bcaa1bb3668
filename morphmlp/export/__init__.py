"""Trained networks as files that other programs run: a model, what it takes and gives, proof that it is the same."""

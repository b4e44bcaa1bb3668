"""The optimisation: recipe, state, loop, and its Ray Train adapter."""

"""The optimisation itself: state, recipe, step."""

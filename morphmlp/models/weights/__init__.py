"""Weights of one network in the form that another one takes."""

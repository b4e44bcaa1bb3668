"""Weights without files: what network tensors belong to (`describe`), and how they fit another one (`fit`)."""

"""Decoding in a process of its own, so that a codec that crashes costs one video."""

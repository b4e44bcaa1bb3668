"""Semantic segmentation: the label map of an image, the pixels counted of it, and the scores made of the counts."""

"""Decoding in a separate process, so that a codec that crashes costs one video: `isolated.isolated_videos`."""

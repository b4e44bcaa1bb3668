"""From decoded frames to an augmented clip: which frames, which draws, which pixels."""

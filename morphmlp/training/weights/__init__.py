"""Files of weights: read and written (`file`), and what a training starts from (`start`, `choose`)."""

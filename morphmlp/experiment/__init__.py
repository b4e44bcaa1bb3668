"""One experiment from its file to its record: splits, claim of the run name, training, test."""

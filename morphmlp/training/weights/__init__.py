"""Files of weights: reading them in every form, and starting a training from them (`start_from`)."""

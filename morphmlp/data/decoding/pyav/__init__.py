"""PyAV, the default decoder: exact frames, whatever the file is."""

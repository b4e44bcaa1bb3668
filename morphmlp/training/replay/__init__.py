"""One step of a run taken again in this process, and the skipped steps that are kept for it."""

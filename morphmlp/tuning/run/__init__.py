"""A sweep under way: its queue of trials, their processes, their logs, its folder and record."""

"""What is looked at on every machine of a cluster before a run starts, and what is wrong with what is seen."""

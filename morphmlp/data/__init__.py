"""From annotations to micro-batches of clips."""

"""What a network is trained for: its head, targets, loss, counts and scores. One module for each task."""

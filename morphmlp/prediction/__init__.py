"""Using a trained network: predictions for files, over time and as pictures, and features of many videos on disk."""

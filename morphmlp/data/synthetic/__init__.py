"""Generated videos, written the way that the real data sets lie on disk."""

"""Small networks and files of all kinds, see `trained_networks`."""

from bad_files import bad
from trained_networks import files, place

__all__ = ["bad", "files", "place"]

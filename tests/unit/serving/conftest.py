"""Small networks and files of all kinds, see `trained_networks`."""

from trained_networks import files, place

__all__ = ["files", "place"]

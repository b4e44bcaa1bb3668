"""Measurements that a user can repeat: ratios from interleaved rounds on one machine."""

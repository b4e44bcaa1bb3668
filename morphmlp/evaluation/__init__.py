"""Scoring trained models: every video exactly once, or no number."""

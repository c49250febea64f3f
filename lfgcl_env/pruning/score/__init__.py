"""Scores: features, where they are compared, and how."""

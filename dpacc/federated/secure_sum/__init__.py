"""Sums of updates of which the server sees the sum alone."""

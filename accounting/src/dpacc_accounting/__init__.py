"""Differential-privacy accounting for training, free of torch."""

"""A run's folder: what is in it, and when it may change."""

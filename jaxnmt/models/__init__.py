"""Linen modules of the ladder; they know nothing of training, files or mesh axes."""

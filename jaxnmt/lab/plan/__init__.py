"""Predicts memory and speed of a run on other devices: its real programs, compiled for them."""

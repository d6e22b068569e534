"""What a run will need and do on devices that are not here: its real programs, compiled for them."""

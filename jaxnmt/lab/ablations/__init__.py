"""Studies: named variants, seeds and one budget; worked off by any number of processes, killed and taken up at will."""

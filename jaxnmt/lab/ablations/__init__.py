"""Studies: named variants, seeds and one budget, trained by any number of processes, which may be killed and restarted at any time."""

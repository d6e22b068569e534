"""Looking at what was trained, and at how fast."""

"""From a trained run and text to translations."""

"""Sentence pairs: where they come from, cleaning, tokens, batches. No JAX."""

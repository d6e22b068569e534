"""Sentence pairs: sources, cleaning, tokens, batches. No JAX."""

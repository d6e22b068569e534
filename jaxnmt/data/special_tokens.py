"""The ids of the special tokens, the same in every vocabulary."""

PAD, BOS, EOS, UNK = range(4)
"""Padding, the begin and the end of a sentence, and an unknown word."""
FIRST_TOKEN = 4
"""The first id of a token that is none of these."""

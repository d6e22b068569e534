"""The ids that mean no word, the same in every vocabulary."""

PAD, BOS, EOS, UNK = range(4)
"""Nothing, the start of a sentence, its end, and a word that is not in the vocabulary."""

"""The options of a search, from the settings of a run."""

from __future__ import annotations

from jax.tree_util import Partial

from jaxnmt import config as cfg
from jaxnmt.decoding import penalties, sampling
from jaxnmt.decoding.batches import target_length
from jaxnmt.decoding.search import LogitProcessor, SearchOptions


def num_hypotheses(decoding: cfg.Decoding) -> int:
    """Return how many hypotheses of a sentence a search keeps at a time: the size of its beam, or the number of samples."""
    return decoding.n_best if sampling.of(decoding) else decoding.beam_size


def search_options(
    decoding: cfg.Decoding, source_length: int, extra: int = 0, processors: tuple[LogitProcessor, ...] = ()
) -> SearchOptions:
    """Return the options of a search.

    Args:
        decoding: the settings.
        source_length: that the sentences are padded to.
        extra: tokens by which their length limits may be raised.
        processors: the user's own.
    """
    numbers = float(decoding.length_penalty), float(decoding.patience), decoding.n_best
    length, processes = target_length(source_length, decoding, extra), (*penalties.of(decoding), *map(Partial, processors))
    how = sampling.of(decoding)
    coverage, gamma = (float(penalty) or None for penalty in (decoding.coverage_penalty, decoding.sibling_penalty))
    return SearchOptions(num_hypotheses(decoding), length, *numbers, processes, decoding.length_normalization, how, coverage, gamma)

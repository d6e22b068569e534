"""Laws of the objectives: what is hidden is a pure function of (seed, step, example), in the shares that the config names."""

import dataclasses

import numpy as np
import pytest

from jaxnmt.config import Classification, Denoising, Experiment, Language, MaskedLanguage, Tokenizer, replace
from jaxnmt.config.checks import validate
from jaxnmt.data.batching import PlannedBatch
from jaxnmt.data.corpus import gather, in_memory
from jaxnmt.data.loader import assemble
from jaxnmt.data.objectives import FIRST_TOKEN, Examples, objective_of
from jaxnmt.data.packing import Shape
from jaxnmt.data.special_tokens import EOS, UNK
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError

TEXT = [" ".join(f"{a}{b}" for b in "abcdefghij") for a in ("", "x", "longer", "unbelievable")]
PIECES = train_tokenizer(Tokenizer(vocab_size=320), [(text, "") for text in TEXT])
V = PIECES.target_vocab_size


def corpus_of(lengths, seed=0):
    """One text for each length, of random tokens, as source and as target."""
    random = np.random.default_rng(seed)
    texts = [random.integers(FIRST_TOKEN, V, n).tolist() for n in lengths]
    return in_memory([(text, text) for text in texts])


def in_rows(corpus, step=3, packed=False):
    """All texts of a corpus in a batch, one a row, or all in one row."""
    index = np.arange(len(corpus))
    row, lengths = np.zeros_like(index) if packed else index, np.maximum(*corpus.lengths) + 1
    width = int(lengths.sum() if packed else lengths.max())
    return PlannedBatch(step, Shape(int(row.max()) + 1, width, width), packed, row.astype(np.int32), np.zeros_like(row, np.int32), index)


def applied(task, corpus, step=3, seed=1):
    """What the objective makes of all texts of a corpus."""
    planned = in_rows(corpus, step)
    source, target = (gather([side], planned.corpus, planned.index) for side in (corpus.source, corpus.target))
    ones = np.ones(len(target.ids), np.float32)
    return objective_of(task, PIECES, seed)(planned, Examples(source, target, ones, np.ones(len(corpus), np.float32)))


def split(flat, tokens):
    return np.split(flat, np.cumsum(tokens)[:-1])


def binomial(share, rate, count, correlated=1):
    """A share of `count` draws is the rate within four standard deviations, if `correlated` of them fall together."""
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) * correlated / count), (share, rate, count)


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_masked_tokens_have_their_shares(rate, whole_words):
    corpus = corpus_of([40] * 4000)
    made = applied(MaskedLanguage(rate=rate, whole_words=whole_words), corpus)
    ids, read, chosen = made.target.ids, made.source.ids, made.weights > 0
    begins = PIECES.target_begins()[ids].mean() if whole_words else 1
    binomial(chosen.mean(), rate, len(ids), 2 / begins)  # the number of a word's pieces is geometric here
    assert (read == ids)[~chosen].all() and (made.end_weights == 0).all()
    hidden, count = (read == UNK)[chosen], chosen.sum()
    binomial(hidden.mean(), 0.8, count)
    others = read[chosen][~hidden]
    assert others.min() >= FIRST_TOKEN and others.max() < V
    binomial((read == ids)[chosen].mean(), 0.1 + 0.1 / (V - FIRST_TOKEN), count)
    replaced = read[chosen][(read != ids)[chosen] & ~hidden]
    counts = np.bincount(replaced, minlength=V)[FIRST_TOKEN:]
    assert counts.min() > 0 and abs(((counts - counts.mean()) ** 2).sum() / counts.mean() / len(counts) - 1) < 0.4  # chi-squared: evenly


def test_all_pieces_of_a_word_or_none():
    texts = ["xa unbelievablej b longerc qqq"] * 500
    ids = PIECES.encode_target(texts)
    words = [PIECES.target_words(each, texts[0])[1] for each in ids]
    assert max(np.bincount(words[0])) > 2
    chosen = split(applied(MaskedLanguage(rate=0.5), in_memory(list(zip(ids, ids, strict=True)))).weights, [len(each) for each in ids])
    shares = [np.bincount(word, weights=here) / np.bincount(word) for word, here in zip(words, chosen, strict=True)]
    assert set(np.concatenate(shares)) == {0.0, 1.0}
    assert len({tuple(each) for each in shares}) == 2 ** len(shares[0])  # a word does not depend on its neighbours


@pytest.mark.parametrize("task", [MaskedLanguage(), Denoising()], ids=["masked", "denoising"])
def test_a_batch_is_a_pure_function_of_seed_step_and_example(task):
    corpus = corpus_of(np.random.default_rng(0).integers(1, 30, 60))
    packed, objective, rows = in_rows(corpus, packed=True), objective_of(task, PIECES, 1), in_rows(corpus)
    rows = dataclasses.replace(rows, shape=rows.shape._replace(rows=64))  # the last four are padding
    whole = assemble(rows, [corpus], objective)
    one_row = assemble(packed, [corpus], objective)
    for i in range(len(corpus)):  # in any layout
        for side, name in (("encoder", "encoder_input_tokens"), ("decoder", "decoder_loss_weights")):
            here = one_row[name][0][one_row[f"{side}_segment_ids"][0] == i + 1]
            assert here.tolist() == whole[name][i][: len(here)].tolist()
    for mine in (np.arange(0, 60, 2), np.arange(20, 40), np.arange(61, 64)):  # on any host
        part = assemble(rows.only(mine), [corpus], objective)
        assert all(np.array_equal(part[name], whole[name][mine]) for name in whole)
    for other in (applied(task, corpus, step=4), applied(task, corpus, seed=2)):
        assert not np.array_equal(other.source.ids, applied(task, corpus).source.ids)
    again = in_memory([(corpus.source[0].tolist(),) * 2] * 2)  # a text that occurs twice is hidden in two ways, some time
    ways = [len(set(map(tuple, split(made.source.ids, made.source.tokens)))) for made in (applied(task, again, n) for n in range(20))]
    assert max(ways) == 2


@pytest.mark.parametrize(("rate", "span"), [(0.3, 3.0), (0.3, 1.0), (0.5, 1.0), (0.15, 2.5), (0.7, 3.0), (0.0, 3.0)])
@pytest.mark.parametrize("length", [1, 5, 200])
def test_hidden_spans_are_restored_from_the_target_and_have_their_share(rate, span, length):
    first, beyond = FIRST_TOKEN + 1, FIRST_TOKEN + 1 + length
    ids = list(range(first, beyond))  # each token of a text says where it stood
    made = applied(Denoising(rate=rate, span=span), in_memory([(ids, ids)] * min(4000, 20_000 // length)))
    spans, whole, hidden = [], 0, 0
    for read in split(made.source.ids, made.source.tokens):
        places = [first - 1, *read.tolist(), beyond]
        restored: list[int] = []
        for before, token, after in zip(places, places[1:], places[2:], strict=False):
            if token != UNK:
                restored.append(token)
                continue
            assert before != UNK and after != UNK  # a token is left between two spans
            restored += range(before + 1, after)
            spans.append(after - before - 1)
        assert restored == ids and 0 not in spans
        whole, hidden = whole + length, hidden + length - int((read != UNK).sum())
    assert (made.weights == 1).all() and (made.end_weights == 1).all()
    binomial(hidden / whole, rate, whole, 2 * span)
    if length == 200 and rate:  # shorter texts cut spans off
        assert abs(np.mean(spans) / span - 1) < 0.05


def test_a_language_model_reads_no_source():
    corpus = corpus_of([3, 1, 7])
    batch = assemble(in_rows(corpus), [corpus], objective_of(Language(), PIECES, 1))
    plain = assemble(in_rows(corpus), [corpus])
    assert batch["encoder_input_tokens"].tolist() == [[EOS] + [0] * 7] * 3
    for name in ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights"):
        assert np.array_equal(batch[name], plain[name])


def test_labels_weigh_as_their_class_is_rare_and_one_on_average():
    labels = ["a"] * 6 + ["b"] * 3 + ["c"] * 3
    tokenizer = PIECES.with_labels(labels)
    ids = tokenizer.encode_target(labels)
    corpus = in_memory([([5, 6], label) for label in ids])
    weights = {}
    for kind in ("none", "balanced"):
        objective = objective_of(Classification(class_weights=kind), tokenizer, 1, [corpus])
        weights[kind] = assemble(in_rows(corpus), [corpus], objective)["decoder_loss_weights"]
        assert weights[kind].sum() == pytest.approx(12) and (weights[kind][:, 1:] == 0).all()  # the end is no target
    assert (weights["none"][:, 0] == 1).all()
    assert weights["balanced"][:, 0].tolist() == pytest.approx([12 / 3 / 6] * 6 + [12 / 3 / 3] * 6)


def test_what_cannot_be_hidden_is_refused():
    packed = {"batching.tokens": 4096, "validation.metric": "loss"}
    for task in (MaskedLanguage(rate=0.0), Denoising(rate=0.9), Denoising(rate=0.1, span=0.5)):
        with pytest.raises(UserError, match=r"^task\.rate "):
            validate(replace(Experiment(task=task), **packed))

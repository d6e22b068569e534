"""A line's translation is its own: whatever lines stand beside it, in whatever order, batches and padding, with whatever options."""

import dataclasses
import functools

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnmt.config import Decoding, Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding import shortlist
from jaxnmt.decoding.lexicon import Lexicon
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model

pytestmark = pytest.mark.slow

LETTERS = "abcdefgh"
MODELS = {"pre": tiny.BASE, "luong": tiny.RECURRENT["luong"], "fixed": tiny.RECURRENT["cho"]}
LINES = st.lists(st.text(" " + LETTERS, max_size=20).map(" ".join), min_size=1, max_size=9)
WHOLE = st.lists(st.text(LETTERS, max_size=11).map(" ".join), min_size=1, max_size=9)  # none is translated in parts
NUMBERS = st.fixed_dictionaries(
    {
        "length_penalty": st.sampled_from([0.0, 0.6, 1.0, 2.0]),
        "patience": st.sampled_from([0.5, 1.0, 2.0, float("inf")]),
        "n_best": st.integers(1, 3),
        "max_length_extra": st.integers(1, 4),
    }
)  # arguments of one compiled program
KINDS = [  # each a program
    ("pre", {}),
    ("pre", {"length_normalization": "average", "repetition_penalty": 1.3, "min_length": 1}),
    ("luong", {"beam_size": 1, "no_repeat_ngram_size": 2}),
    ("fixed", {"temperature": 0.8, "top_k": 5, "seed": 3}),
    ("pre int8", {}),
    ("luong int8", {"beam_size": 1, "shortlist": 2}),
    ("pre", {"shortlist": 2}),
]
phrase = st.sampled_from(LETTERS)
RULES = st.builds(
    Rules,
    prefix=st.just("") | phrase,
    constraints=st.lists(phrase, max_size=1).map(tuple),
    forbidden=st.lists(phrase, max_size=1).map(tuple),
)


@functools.cache
def translator_of(name):
    words = " ".join([*LETTERS, *(f"w{i}" for i in range(300))])  # so many that a shortlist numbers them anew
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(words, words)])
    name, _, weights = name.partition(" ")
    model = build_model(MODELS[name], tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    params = tiny.params_of(model, 5)
    ids = np.arange(tokenizer.source_vocab_size, dtype=np.int32)
    lexicon = Lexicon(ids, np.stack([np.roll(ids, 1), np.roll(ids, 130)], 1), ids[4:5])
    params = model.rounded(params, weights) if weights else params
    return Translator(model, params, tokenizer, 12, warn=lambda line: None, make_lexicon=lambda: lexicon)


@pytest.fixture(autouse=True, scope="module")
def narrow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "WIDTH", 128)
        yield


def assert_own(translator, lines, decoding, rules, data):
    together = translator.translate(lines, decoding, 1, rules)
    order = data.draw(st.permutations(range(len(lines))))
    batch_size = data.draw(st.sampled_from([1, 4, 8]))
    again = translator.translate(
        [lines[i] for i in order], dataclasses.replace(decoding, batch_size=batch_size), 1, [rules[i] for i in order] if rules else ()
    )
    for place, i in enumerate(order):
        assert [each.tokens for each in again[place]] == [each.tokens for each in together[i]]
        np.testing.assert_allclose([each.score for each in again[place]], [each.score for each in together[i]], atol=1e-4)


MANY = settings(max_examples=50, deadline=None, derandomize=True, database=None)
BASIC = Decoding(beam_size=3, batch_size=8, max_length_ratio=1.0)


@pytest.mark.parametrize(("model", "kind"), KINDS, ids=str)
@MANY
@given(lines=LINES, numbers=NUMBERS, data=st.data())
def test_lines_order_and_batches_change_no_translation(model, kind, lines, numbers, data):
    if kind.get("temperature"):
        numbers = {name: numbers[name] for name in ("max_length_extra", "n_best")}
    elif kind.get("beam_size") == 1:
        numbers = numbers | {"n_best": 1}
    assert_own(translator_of(model), lines, dataclasses.replace(BASIC, **kind, **numbers), (), data)


@pytest.mark.parametrize("model", ["pre", "luong"])
@MANY
@given(lines=WHOLE, numbers=NUMBERS, data=st.data())
def test_rules_of_one_line_change_no_other(model, lines, numbers, data):
    rules = data.draw(st.lists(RULES, min_size=len(lines), max_size=len(lines)))
    rules = [each if not set(each.forbidden) & {each.prefix, *each.constraints} else Rules() for each in rules]
    assert_own(translator_of(model), lines, dataclasses.replace(BASIC, **numbers), rules, data)

"""A language model continues lines: a line is the beginning of what is written."""

import pytest
import tiny

from jaxnmt.config import Decoding, Language, Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.continuation import Continuation
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.scoring import Scorer
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model

LETTERS = "a b c d e f g h"
LIMITS = {"max_length_ratio": 0.0, "max_length_extra": 8}


@pytest.fixture(scope="module")
def model():
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(LETTERS, LETTERS)])
    made = build_model(tiny.VARIANTS["rotary"], tokenizer.source_vocab_size, tokenizer.target_vocab_size, Language())
    return Continuation(made, tiny.params_of(made, 3), tokenizer, 12)


def test_what_is_written_begins_with_the_line(model):
    lines = ["a b", "h", "c d e", ""]
    found = [best.text for best, *_ in model.translate(lines, Decoding(beam_size=2, **LIMITS))]
    assert all(text.startswith(line) for text, line in zip(found, lines, strict=True))
    assert [model.translate([line], Decoding(beam_size=2, **LIMITS))[0][0].text for line in lines] == found  # alone


def test_a_stream_and_a_choice_by_risk_continue_the_line_too(model):
    (best,) = model.translate(["a b"], Decoding(beam_size=1, **LIMITS))[0]
    assert "".join(model.stream("a b", Decoding(beam_size=1, n_best=1, **LIMITS))) == best.text
    (chosen,) = model.translate(["a b"], Decoding(beam_size=3, mbr="chrf", **LIMITS))[0]
    assert chosen.text.startswith("a b")


def test_a_line_has_no_other_prefix(model):
    with pytest.raises(UserError, match="continues each line"):
        model.translate(["a b"], Decoding(**LIMITS), rules=[Rules(prefix="c")])


def test_texts_are_scored_without_a_source(model):
    scorer = Scorer(model, Decoding(**LIMITS))
    one, other = scorer.score(["", "h g"], ["a b c", "a b c"], 4)
    assert one.log_prob == other.log_prob < 0 and len(one.tokens) == 4


def test_warming_compiles_one_length_since_the_source_is_empty(model):
    longer = Continuation(model.model, model.params, model.tokenizer, 70)
    assert longer.warm(Decoding(beam_size=1, batch_size=1, **LIMITS)) == 1

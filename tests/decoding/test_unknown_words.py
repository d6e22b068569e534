"""Unknown words replaced by the source words that they look at: by hand, and whatever a model writes."""

import types

import numpy as np
import pytest
import subwords
import tiny
from decoding.test_alignments import TOKENIZER, aligner, translation

from jaxnmt.config import Decoding, Experiment, Recurrent, Tokenizer, checks, replace
from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.marked_translator import MarkedTranslator
from jaxnmt.decoding.rules import Rules, rules_of_lines
from jaxnmt.decoding.terminology import Terminology
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.decoding.unknown_words import replaced
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model


def text(tokenizer, source_words, *parts, table=None):
    """Return the text of a translation with parts of these ids, whose tokens look at these source words."""
    found = Translation("", -1.0, parts=tuple(([5], ids) for ids in parts))
    given = types.SimpleNamespace(tokenizer=tokenizer, source_words=lambda lines, translations, rows: [[source_words]] * len(lines))
    [[made]] = replaced(["..."], [[found]], given, [table], 4)
    assert made.parts == found.parts and made.score == -1.0
    return made.text


def ids(written, tokenizer=TOKENIZER):
    return tokenizer.encode_target([written])[0]


def test_words_by_hand():
    table = Terminology({"Haus": "house|home", "Łódź": "Lodz"})
    assert ids("x ? y ?") == [*ids("x"), UNK, *ids("y"), UNK]
    source = ["a", "Haus", "b", "C++"]
    assert text(TOKENIZER, source, ids("x ? y ?")) == "x Haus y C++"
    assert text(TOKENIZER, source, ids("x ? y ?"), table=table) == "x house y C++"
    assert text(TOKENIZER, source, ids("x ?"), ids("y ?"), table=table) == "x house y C++"  # a line in two parts
    assert text(TOKENIZER, ["a", "Bus", "b", "c"], ids("u@@ ? y z")) == "Bus y z"  # the word of which a piece is unknown


def test_subwords_by_hand():
    """The whole word around unknown characters is replaced; punctuation of either side is not doubled."""
    tokenizer = train_tokenizer(Tokenizer(kind="bpe", vocab_size=40, byte_fallback=False), [("we saw, and do", "we saw, and do")] * 9)
    written = ids("saw Łodź, and", tokenizer)
    assert written.count(UNK) == 2
    at = written.index(UNK)
    source = ["x"] * at + ['"Łódź".', *["y"] * (len(written) - at - 1)]
    assert text(tokenizer, source, written) == "saw Łódź, and"
    assert text(tokenizer, source, written, table=Terminology({"Łódź": "Lodz"})) == "saw Lodz, and"
    assert text(tokenizer, source, ids("we saw", tokenizer)) == ""  # not touched: `Translation("", ...)` has no unknown word


def test_the_source_word_that_has_the_most_attention():
    """The weight of a source token is its id: `d` is the last of the vocabulary, and a word of two pieces has the sum of theirs."""
    line, found = "a b@@ c d", translation(("a b@@ c d", "x y"))
    assert aligner([lambda s, t: (s + 0 * t).astype(np.float32)]).source_words([line], [[found, found]], 2) == [[["bc", "bc"]] * 2]
    last = TOKENIZER.encode_source(["d"])[0][0]
    looks = aligner([lambda s, t: ((s == last) & (t != 1)).astype(np.float32) + (s * (t == 1)).astype(np.float32)])
    assert looks.source_words([line], [[found]], 2) == [[["bc", "d"]]]


@pytest.fixture(scope="module")
def translator():
    return subwords.translator()


LINES = ["haus am see", "boot", "baum im see am haus", "", "seeboot", "haus haus haus haus haus haus haus"]


def test_whatever_a_model_writes(translator):
    """Of samples: other texts of the same tokens, without unknown words; a table's words; and a line's texts depend on the line alone."""
    decoding = Decoding(temperature=2.0, batch_size=4, max_length_extra=5, n_best=8)
    written, found = (translator.translate(LINES, replace(decoding, unk=unk)) for unk in ("write", "replace"))
    assert [[each.parts for each in best] for best in written] == [[each.parts for each in best] for best in found]
    unknown = [UNK in each.parts[0][1] for best in written for each in best if each.parts]
    assert any(unknown) and not all(unknown)
    for before, after in zip((x for best in written for x in best), (x for best in found for x in best), strict=True):
        assert "⁇" not in after.text
        assert (before.text == after.text) == ("⁇" not in before.text)
    (alone,) = translator.translate([LINES[2]], replace(decoding, unk="replace"))
    assert [each.text for each in alone] == [each.text for each in found[2]]
    table = Terminology({word: "tree" for word in ("haus", "am", "see", "boot", "baum", "im", "seeboot")})
    by_table = translator.translate(
        LINES, replace(decoding, unk="replace"), 1, rules_of_lines(len(LINES), "", (), (), Rules(unk_table=table))
    )
    assert all(("tree" in each.text) == any(UNK in ids for _, ids in each.parts) for best in by_table for each in best)


def test_a_lines_own_rules_keep_the_table():
    table = Terminology({"a": "b"})
    assert Rules(constraints=("x",), unk_table=table).with_own(Rules("p", ("y",))) == Rules("p", ("x", "y"), unk_table=table)


def test_what_does_not_go_together_is_refused(translator):
    table = rules_of_lines(1, "", (), (), Rules(unk_table=Terminology({"a": "b"})))
    with pytest.raises(UserError, match=r"unk_table has no effect with decoding\.unk write"):
        translator.translate(["haus"], Decoding(), 1, table)
    with pytest.raises(UserError, match="for text without markup"):
        MarkedTranslator(translator, None, "text", True).translate(["haus"], Decoding(unk="replace"))
    fixed = build_model(Recurrent(emb_dim=8, hidden_dim=8, context="fixed"), 30, 30)
    with pytest.raises(UserError, match=r"decoding\.unk replace need attention over the source"):
        Translator(fixed, tiny.params_of(fixed), translator.tokenizer, 8).translate(["haus"], Decoding(unk="replace"))
    experiment = replace(Experiment(model=tiny.RECURRENT["cho"]), **{"batching.layout": "buckets", "decoding.unk": "replace"})
    with pytest.raises(UserError, match=r"decoding\.unk replace needs attention .* model\.context fixed"):
        checks.validate(experiment)

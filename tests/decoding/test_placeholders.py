"""Placeholders come out as they went in, whatever the model does."""

import itertools

import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.alignments import Aligner
from jaxnmt.decoding.marked_translator import MarkedTranslator
from jaxnmt.decoding.markup import Marked, parse
from jaxnmt.decoding.placeholders import PLACEHOLDER, counts, taken_out, without
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model

KINDS = ["%s", "%d", "%-5.2f", "%(name)s", "%1$d", "%%", "{name}", "{0}", "{}", "{x:.2f}", "${HOME}", "{{user}}", "%@", "%ld"]
ADDRESSES = ["https://x.org/a?b=1&c=%20#d", "http://x.org/", "ftp://a.b/c.txt", "joe.doe+x@mail.example.com"]


@pytest.mark.parametrize("placeholder", [*KINDS, *ADDRESSES])
def test_what_is_a_placeholder(placeholder):
    assert PLACEHOLDER.findall(placeholder) == [placeholder]
    assert PLACEHOLDER.findall(f"see ({placeholder}), now") == [placeholder]


@pytest.mark.parametrize("text", ["100%ige", "50%-discount", "100% sure", "a { b }", "@joe", "a:b", "https:", "5 %", "me@home"])
def test_what_is_none(text):
    assert not counts(text)


@pytest.mark.parametrize(
    ("line", "text", "at"),
    [
        ("Hello {name}, you", "Hello, you", 5),
        ("{name} paid", " paid", 0),
        ("for %s.", "for.", 3),
        ("a{x}b", "a b", 1),
        ("a {x} b", "a  b", 2),
        ("{n}px", "px", 0),
    ],
)
def test_taken_out(line, text, at):
    found = taken_out(Marked(line), str)
    assert found.text == text and [point.at for point in found.points] == [at]


def test_a_placeholder_between_tags_stays_in_its_element():
    found = taken_out(parse("<b>a {x}</b> <i>%s</i><br/>"), str)
    assert found.text.split() == ["a"] and [(point.text, point.inside) for point in found.points] == [
        ("{x}", (0,)),
        ("%s", (1,)),
        ("<br/>", ()),
    ]


class Written:
    """Stands in for a translator whose model writes what it is told, and reports what it warns of."""

    def __init__(self, write):
        self.write, self.seen, self.warnings = write, [], []
        self.warn = self.warnings.append

    def translate(self, lines, decoding, first=1, rules=()):
        self.seen += lines
        return [[Translation(text, -1.0) for text in self.write(line)] for line in lines]


def translated(write, lines, form="text"):
    translator = Written(write)
    found = MarkedTranslator(translator, None, form, protect=True).translate(lines, cfg.Decoding(), first=7)
    return [[each.text for each in best] for best in found], translator


def test_a_model_that_copies_is_left_alone():
    found, translator = translated(lambda line: [line.upper().replace("%S", "%s")], ["pay %s now"])
    assert found == [["PAY %s NOW"]] and translator.warnings == []


def test_what_is_lost_is_put_back_with_a_warning_that_names_the_line():
    found, translator = translated(lambda line: [PLACEHOLDER.sub("", line).upper()], ["a", "hello {name}, pay %s."])
    assert found == [["A"], ["HELLO {name}, PAY %s."]]
    assert len(translator.warnings) == 1 and translator.warnings[0].startswith("line 8: ") and "%s" in translator.warnings[0]


@pytest.mark.parametrize("written", ["%s %s", "{a} b", "%%ss", "x{0}", "", "http://a.b", "5%@ {a", "} c"])
def test_what_the_model_makes_up_is_removed(written):
    for line in ("one %s", "one", "%s", "{a}{b} c", "({a}) 5", "a{x}b http://x.y/z, {0}."):
        ((text,),), _ = translated(lambda _: [written], [line])
        assert counts(text) == counts(line)


PIECES = [*KINDS, *ADDRESSES, "a", "%", "{", "}", "5", "5%", "x@", ".com", "://", "(", ")", ",", " ", " ", "$", "s", "d"]


def texts(count):
    random = np.random.default_rng(1)
    return ["".join(random.choice(PIECES, random.integers(10))) for _ in range(count)]


@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
def test_whatever_the_line_and_the_translation_the_placeholders_are_the_same(html):
    for line, written in itertools.pairwise(texts(4000)):
        ((text,),), _ = translated(
            lambda given, written=written: [written.strip() if given.strip() else ""], [line], "html" if html else "text"
        )
        assert counts(parse(text).text if html else text) == counts(parse(line).text if html else line), (line, written)


def test_what_is_cleaned_has_no_placeholder_in_any_part():
    for text in texts(300):
        clean = without(text, everywhere=True)
        assert not any(counts(clean[a:b]) for a in range(len(clean)) for b in range(a + 1, min(len(clean), a + 30) + 1))


@pytest.mark.parametrize("rung", [pytest.param("transformer", marks=pytest.mark.slow), "cho"])  # the second has no attention
def test_a_thousand_lines_through_a_model_that_has_learnt_nothing(rung):
    random = np.random.default_rng(0)
    plain = ["one", "two", "%", "{", "s", "d}", "(a", "b),", "c.", "@", "x.y"]
    lines = [
        " ".join(random.permutation([*random.choice([*KINDS, *ADDRESSES], random.integers(1, 4)), *random.choice(plain, 3)]))
        for _ in range(1000)
    ]
    tokenizer = train_tokenizer(cfg.Tokenizer(vocab_size=400), [(line, line) for line in lines])
    model = build_model({"transformer": tiny.BASE, **tiny.RECURRENT}[rung], tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    warnings = []
    translator = Translator(model, tiny.params_of(model), tokenizer, 64, warn=warnings.append)
    marked = MarkedTranslator(translator, None if rung == "cho" else Aligner(translator), "text", protect=True)
    found = marked.translate(lines, cfg.Decoding(beam_size=1, max_length_ratio=0.5, max_length_extra=4))
    assert [counts(best.text) for (best,) in found] == [counts(line) for line in lines]
    assert len(warnings) > 900  # so it is not the model that kept them

"""Streams: joined, the pieces are the translation, whatever the tokens look like; what may still change is kept back."""

import io
import os
import signal
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.config import Decoding, Recurrent, Tokenizer, replace
from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.streaming import check_stream, growing_text
from jaxnmt.decoding.terminology import Terminology
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.io.text import normalise
from jaxnmt.models.seq2seq import build_model

TEXT = [("ein￭ fach so", "ein￭ fach ￭, so"), ("der Zug fährt ab", "the tra@@ in leaves e\u0301 \u1100\u1161\u11a8")] * 9
TOKENIZERS = {
    "bytes": Tokenizer(vocab_size=400, normalization="none"),
    "composed": Tokenizer(vocab_size=400, normalization="nfc"),
    "words": Tokenizer(kind="words", vocab_size=0, joiner="@@ ", normalization="none"),
    "joined": Tokenizer(kind="words", vocab_size=0, joiner="￭", normalization="none"),
    "composed words": Tokenizer(kind="words", vocab_size=0, joiner="@@ ", normalization="nfc"),
}


@pytest.fixture(scope="module")
def tokenizers():
    return {name: train_tokenizer(config, TEXT) for name, config in TOKENIZERS.items()}


def pieces_of(tokenizer, ids):
    return list(growing_text(tokenizer, ((ids[:end], end == len(ids)) for end in range(1, len(ids) + 1))))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_joined_pieces_are_the_text_of_any_tokens(tokenizers, name):
    """Also of bytes that are no characters, marks without letters, and unknown words."""
    tokenizer, random = tokenizers[name], np.random.default_rng(0)
    for _ in range(1000):
        ids = random.integers(UNK, tokenizer.target_vocab_size, random.integers(1, 12)).tolist()
        found = pieces_of(tokenizer, ids)
        assert "".join(found) == normalise(tokenizer.decode_target(ids)) and all(found)


@pytest.mark.parametrize("name", ["bytes", "composed"])
def test_a_character_of_several_bytes_or_marks_comes_whole(tokenizers, name):
    tokenizer, random = tokenizers[name], np.random.default_rng(1)
    letters = ["a", " ", "e", "\u0301", "\u0323", "\u1100", "\u1161", "\u11a8", "\u09c7", "\u09be", "€", "𝄞", "\u3000", "\n", "\ufeff"]
    for _ in range(1000):
        (ids,) = tokenizer.encode_target(["".join(random.choice(letters, random.integers(1, 7))) + "."])
        found = pieces_of(tokenizer, ids)
        assert "".join(found) == normalise(tokenizer.decode_target(ids))
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in found)
        assert name == "bytes" or not any(unicodedata.combining(piece[0]) for piece in found[1:])


@pytest.mark.parametrize(
    ("normalization", "pieces"), [("none", ["the", " tra", "in", " leaves"]), ("nfc", ["th", "e tr", "ai", "n leaves"])]
)
def test_what_comes_with_each_token(normalization, pieces):
    """An accent that follows a letter would change it."""
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0, normalization=normalization), [("a", "the tra@@ in leaves")])
    assert pieces_of(tokenizer, tokenizer.encode_target(["the tra@@ in leaves"])[0]) == pieces


# ---- the search

VOCABULARY = train_tokenizer(Tokenizer(kind="words", vocab_size=0, normalization="none"), [("a b c d e f g h", "u v w x y z")])
MODELS = {
    "transformer": tiny.BASE,
    "luong": replace(tiny.RNN, cell="lstm", context="luong"),
    "fixed": Recurrent(encoder="bag", context="fixed", cell="rnn", emb_dim=12, hidden_dim=16, dropout=0.0),
}
LINES = ["a b c", "", "h", "d e f g a b c d e", "a " * 25 + ". " + "b " * 25]
GREEDY = Decoding(beam_size=1, max_length_extra=4)


WAYS = {"greedy": {}, "sampling": {"temperature": 1.0, "seed": 3}, "processors": {"no_repeat_ngram_size": 2, "min_length": 3}}


def case(name, way):
    """Return a model and a way to choose tokens as parameters of a test; what a way does is the same for every model."""
    marks = [] if (name, way) in {("transformer", "greedy"), ("luong", "processors")} else [pytest.mark.slow]
    return pytest.param(name, WAYS[way], marks=marks, id=f"{name}-{way}")


@pytest.mark.parametrize(("name", "changes"), [case(name, way) for name in MODELS for way in WAYS])
def test_a_stream_is_the_translation(name, changes):
    model = build_model(MODELS[name], VOCABULARY.source_vocab_size, VOCABULARY.target_vocab_size)
    translator = Translator(model, tiny.params_of(model, 2), VOCABULARY, 32, warn=lambda line: None)
    decoding = replace(GREEDY, **changes)
    rules = [Rules(), Rules("u v"), Rules("z"), Rules(), Rules("u")]
    for line, own, (best,) in zip(LINES, rules, translator.translate(LINES, decoding, rules=rules), strict=True):
        found = list(translator.stream(line, decoding, rules=own))
        assert "".join(found) == best.text and all(found)
        if len(best.parts) == 1:
            assert len(found) == len(best.tokens)  # a piece for each word
    if not decoding.temperature:
        own = Rules(constraints=("w x",), terminology=Terminology({"b": "y"}))
        ((best,),) = translator.translate(["a b"], decoding, rules=[own])
        assert "".join(translator.stream("a b", decoding, rules=own)) == best.text and "w x" in best.text and "y" in best.text
    assert translator._whole.stepwise._begin._cache_size() <= 2 * 4  # shapes, with and without a prefix


def test_words_come_while_others_are_still_to_be_chosen():
    model = build_model(tiny.BASE, VOCABULARY.source_vocab_size, VOCABULARY.target_vocab_size)
    translator = Translator(model, tiny.params_of(model, 2), VOCABULARY, 32)
    steps, step = [], translator._whole.stepwise._step
    translator._whole.stepwise._step = lambda *arguments: steps.append(1) or step(*arguments)
    taken = [len(steps) for _ in translator.stream("a b c", replace(GREEDY, min_length=5), rules=Rules("u v"))]
    assert taken[:5] == [0, 1, 2, 3, 4]


def test_what_may_change_is_refused():
    for changes, says in (
        ({"beam_size": 4}, "a beam of 4 may still replace it: set decoding.beam_size to 1"),
        ({"temperature": 1.0, "n_best": 2}, "decoding.n_best 2 needs several"),
        ({"temperature": 1.0, "n_best": 1, "beam_size": 4, "mbr": "chrf"}, "decoding.mbr chrf needs several"),
    ):
        with pytest.raises(UserError, match=says):
            check_stream(replace(GREEDY, **changes))


# ---- the command, and Python


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming")
    return jaxnmt.train(tiny.experiment(folder, **{"validation.every": 0, "batching.layout": "buckets"}), folder=folder / "run")


def command(run, monkeypatch, text, *words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    return cli.main(["translate", str(run.folder), *words])


def test_the_command_writes_the_lines_of_a_greedy_search(run, capsys, monkeypatch):
    text, written = b"a b c\td\n\nj i\t", []
    monkeypatch.setattr(streams, "write_stdout", written.append)
    assert command(run, monkeypatch, text, "--stream", "--beam-size", "1", "--prefix-column") == 0
    assert "".join(written) == "".join(f"{best.text}\n" for best in run.translate(["a b c", "", "j i"], prefix=["d", "", ""], beam_size=1))
    assert written[0] == "d" and len(written) > 5
    assert "".join(run.stream("a b c", prefix="d")) == "".join(written).split("\n")[0]
    assert "".join(run.stream("a b c", temperature=1, seed=5)) == run.translate("a b c", temperature=1, seed=5).text
    both = jaxnmt.ensemble(run, jaxnmt.load(run.folder, "latest"))
    assert "".join(both.stream("a b c")) == both.translate("a b c", beam_size=1).text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "a beam of 2 may still replace it"),
        (["--temperature", "1", "--n-best", "2"], "decoding.n_best 2 needs several"),
        (["--beam-size", "1", "--format", "html"], "--format html needs whole translations"),
        (["--beam-size", "1", "--protect"], "--protect needs whole translations"),
        (["--beam-size", "1", "--alignments", "hard"], "--alignments needs whole translations"),
        (["--beam-size", "1", "--alternatives", "3"], "--alternatives needs whole translations"),
        (["--beam-size", "1", "--forbidden", "a"], "--forbidden needs whole translations"),
        (["--beam-size", "1", "--output", "out"], "--output needs whole translations"),
        (["--beam-size", "1", "--workers", "2"], "--stream is for one process"),
        (["--beam-size", "1", "--json-lines"], "line 1: forbidden phrases and alternatives need whole translations"),
    ],
)
def test_what_does_not_go_with_a_stream_is_one_sentence(run, words, says, capsys, monkeypatch):
    assert command(run, monkeypatch, b'{"text": "a", "forbidden": ["b"]}\n', "--stream", *words) == 2
    assert says in capsys.readouterr().err
    with pytest.raises(UserError, match="a beam of 3"):
        run.stream("a", beam_size=3)


@pytest.mark.parametrize(("how", "status"), [("closed pipe", 141), ("Ctrl-C", 130)])
def test_a_stream_ends_when_its_reader_does(run, how, status):
    words = [sys.executable, "-m", "jaxnmt", "translate", str(run.folder), "--stream", "--beam-size", "1"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with & would ignore it
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"a b c\n")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 1)  # which comes although stdin is still open
        if how == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
            process.stdin.write(b"a b c\n" * 99)
            process.stdin.flush()
        assert process.wait(100) == status
        assert b"Traceback" not in process.stderr.read()

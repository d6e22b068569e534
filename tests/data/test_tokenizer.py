import dataclasses
import hashlib
import os
import pickle
import re
import unicodedata

import numpy as np
import pytest

from jaxnmt.config import Experiment
from jaxnmt.config import Tokenizer as Options
from jaxnmt.config.checks import validate
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.data.tokenizer import Subwords, load_tokenizer, normalization_of
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.data.vocabulary import join
from jaxnmt.errors import UserError

PAIRS = [(f"the {a} cat saw {n} dogs .", f"die {a} Katze sah {n} Hunde .") for a in ("old", "red", "big") for n in range(40)]
ODD = [
    "naïve café — “quoted” … ½ ﬁ",
    "e\u0301 and é are one letter",
    "日本語 עברית العربية हिन्दी",
    "👩‍👩‍👧 family, 🇹🇷 flag, 𝒳",
    "<s> </s> <pad> <unk> <0x41> @@ ",
    "\ufdd0\U0010ffff",
]
KINDS = [
    Options(vocab_size=400),
    Options(kind="bpe", vocab_size=400, joint=False),
    Options(kind="words", vocab_size=0),
    Options(kind="words", vocab_size=20, joint=False),
]


@pytest.mark.parametrize("options", [Options(vocab_size=350), Options(kind="bpe", vocab_size=350)])
@pytest.mark.parametrize("text", ODD)
def test_byte_fallback_loses_nothing_but_spacing(options, text):
    tokenizer = train_tokenizer(options, PAIRS)
    (ids,) = tokenizer.encode_target([f"  {text}\u2028\u00a0x "])
    assert not {PAD, BOS, EOS, UNK} & set(ids)
    assert tokenizer.decode_target(ids) == unicodedata.normalize("NFC", f"{' '.join(text.split())} x")


@pytest.mark.parametrize("options", KINDS)
def test_saved_and_pickled_tokenizers_are_the_same(options, tmp_path):
    tokenizer = train_tokenizer(options, PAIRS)
    tokenizer.save(tmp_path)
    for other in (load_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert other.fingerprint() == tokenizer.fingerprint()
        assert other.joint == tokenizer.joint == options.joint
        assert other.pretokenized == (options.kind == "words")
        assert (other.source_vocab_size, other.target_vocab_size) == (tokenizer.source_vocab_size, tokenizer.target_vocab_size)
        texts = ["the old cat", "unseen words", ""]
        assert other.encode_source(texts) == tokenizer.encode_source(texts)
        assert other.encode_target(texts) == tokenizer.encode_target(texts)
        assert other.decode_target([4, 5, 6]) == tokenizer.decode_target([4, 5, 6])


@pytest.mark.parametrize("options", KINDS)
def test_same_text_same_tokenizer(options):
    assert train_tokenizer(options, PAIRS).fingerprint() == train_tokenizer(options, iter(PAIRS)).fingerprint()
    assert train_tokenizer(options, PAIRS).fingerprint() != train_tokenizer(options, [*PAIRS, *[("zebra", "zebra")] * 200]).fingerprint()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to tell them from one"
)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_number_of_cores_does_not_matter(kind):
    random = np.random.default_rng(0)
    lines = ["".join(random.choice(list("abcde "), 60)) for _ in range(800)]
    pairs = list(zip(lines, lines[::-1], strict=True))
    cores = os.sched_getaffinity(0)
    many = train_tokenizer(Options(kind=kind, vocab_size=500), pairs)
    try:
        os.sched_setaffinity(0, {min(cores)})
        one = train_tokenizer(Options(kind=kind, vocab_size=500), pairs)
    finally:
        os.sched_setaffinity(0, cores)
    assert one.fingerprint() == many.fingerprint()


def test_separate_vocabularies_know_their_own_side_only():
    tokenizer = train_tokenizer(Options(kind="words", vocab_size=0, joint=False), [("a b", "x")])
    assert tokenizer.encode_source(["a x"])[0][1] == UNK
    assert tokenizer.encode_target(["a x"])[0][0] == UNK
    assert (tokenizer.source_vocab_size, tokenizer.target_vocab_size) == (6, 5)


def test_words_by_hand(tmp_path):
    pairs = [("b a@@ b", "b c"), ("b </s>", "c a@@")]  # b 4, a@@ 2, c 2, </s> 1
    tokenizer = train_tokenizer(Options(kind="words", vocab_size=0), pairs)
    assert tokenizer.encode_source(["b a@@ c  </s> <pad> z", ""]) == [[4, 5, 6, 7, UNK, UNK], []]
    assert tokenizer.decode_target([BOS, 5, 4, 6, PAD, 5, 5, 4, EOS, 4]) == "ab c aab"
    assert tokenizer.decode_target([4, 7, 5]) == "b </s> a"  # a joiner left over at the end goes
    assert tokenizer.decode_target([UNK, 4]) == "<unk> b"
    tokenizer.save(tmp_path)
    assert (tmp_path / "joint.vocab").read_text() == "<pad>\n<s>\n</s>\n<unk>\nb\na@@\nc\n</s>\n"
    assert load_tokenizer(tmp_path).encode_source(["</s>"]) == [[7]]
    small = train_tokenizer(Options(kind="words", vocab_size=5), pairs)
    assert small.encode_source(["b a@@ c"]) == [[4, UNK, UNK]]


def test_words_stay_whole_over_odd_characters(tmp_path):
    token = "a\u2028\r\u00a0\x85b"
    tokenizer = train_tokenizer(Options(kind="words", vocab_size=0), [(token, "x")])
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode_source([token]) == tokenizer.encode_source([token]) != [[UNK]]


def test_decoding_stops_at_the_end_and_skips_padding():
    tokenizer = train_tokenizer(Options(vocab_size=400), PAIRS)
    (ids,) = tokenizer.encode_target(["die old Katze"])
    assert tokenizer.decode_target([PAD, BOS, *ids, EOS, *ids]) == "die old Katze"
    assert tokenizer.decode_target([EOS]) == tokenizer.decode_target([]) == ""


@pytest.mark.parametrize("options", KINDS[:2])
@pytest.mark.parametrize("text", ["the old cat saw 17 dogs .", "Katzenhunde, unseen!", " é👩‍👩‍👧 x\u2028y  z ", "the", ""])
def test_the_words_of_pieces_are_those_between_spaces(options, text):
    tokenizer = train_tokenizer(options, PAIRS)
    (ids,) = tokenizer.encode_source([text])
    words, number = tokenizer.source_words(text, ids)
    assert words == text.split() and len(number) == len(ids) and number == sorted(number)
    for word in words:
        own = [i for i, n in zip(ids, number, strict=True) if n == words.index(word)]
        assert tokenizer._source.decode(own) == word

    (ids,) = tokenizer.encode_target([text])
    words, number = tokenizer.target_words(ids)
    assert words == tokenizer.decode_target(ids).split() and len(number) == len(ids) and number == sorted(number)
    for i, word in enumerate(words):
        assert tokenizer.decode_target([token for token, n in zip(ids, number, strict=True) if n == i]) == word


def test_a_mark_of_a_words_start_belongs_to_the_word_that_follows():
    vocabulary = train_tokenizer(Options(vocab_size=400), PAIRS)
    processor = vocabulary._target._processor
    start, t, c = processor.piece_to_id(["▁", "t", "c"])
    assert UNK not in (start, t, c)
    assert vocabulary.target_words([start, t, start, c, t]) == (["t", "ct"], [0, 0, 1, 1, 1])
    assert vocabulary.target_words([start, start, t, start]) == (["t"], [0, 0, 0, 0])  # one that nothing follows: of the last there is
    assert vocabulary.target_words([t, UNK, t]) == (["t", "⁇", "t"], [0, 1, 2])
    assert vocabulary.target_words([start]) == ([], [0])


def test_a_text_with_sentencepieces_own_mark_is_read_as_sentencepiece_reads_it():
    tokenizer = train_tokenizer(Options(vocab_size=400), PAIRS)
    (ids,) = tokenizer.encode_source(["old ▁ a▁b"])
    words, number = tokenizer.source_words("old ▁ a▁b", ids)
    assert words == ["old", "a", "b"] and len(number) == len(ids) and sorted(set(number)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("joiner", "text", "words", "numbers"),
    [
        ("@@ ", "a@@ b@@ c d  z@@ c", ["abc", "d", "zc"], [0, 0, 0, 1, 2, 2]),
        (" ##", "a ##b c", ["ab", "c"], [0, 0, 1]),
        ("", "a@@ b", ["a@@", "b"], [0, 1]),
    ],
)
def test_words_of_split_text_are_put_together(joiner, text, words, numbers):
    tokenizer = train_tokenizer(Options(kind="words", vocab_size=0, joiner=joiner), [("a@@ a ##b b@@ c d", "d")])
    (ids,) = tokenizer.encode_source([text])
    assert tokenizer.source_words(text, ids) == (words, numbers)  # of the text: `z@@` is unknown
    known = [i for i in ids if i != UNK]
    assert tokenizer.target_words(known)[0] == tokenizer.decode_target(known).split()


@pytest.mark.parametrize("options", [Options(vocab_size=400), Options(kind="words", vocab_size=0)])
def test_a_no_break_space_divides_no_words(options):
    text = "10\u00a0000 men of\u202f2\u2009kg"
    tokenizer = train_tokenizer(options, [*PAIRS, (text, text)] * 3)
    (ids,) = tokenizer.encode_source([text])
    words, number = tokenizer.source_words(text, ids)
    assert words == ["10\u00a0000", "men", "of\u202f2\u2009kg"]
    assert len(number) == len(ids) and number == sorted(number) and set(number) == {0, 1, 2}
    assert tokenizer.decode_source([token for token, n in zip(ids, number, strict=True) if n == 1]) == "men"


def test_a_no_break_space_that_a_model_writes_divides_no_words():
    tokenizer = train_tokenizer(Options(kind="words", vocab_size=0), [("10\u00a0000 men", "10\u00a0000 men")])
    assert tokenizer.target_words(tokenizer.encode_target(["10\u00a0000 men"])[0]) == (["10\u00a0000", "men"], [0, 1])
    pieces = train_tokenizer(Options(vocab_size=400), PAIRS)  # which spells it as two bytes
    ids = pieces._target._processor.piece_to_id(["▁", "t", "<0xC2>", "<0xA0>", "c", "▁", "t"])
    assert UNK not in ids and pieces.target_words(ids) == (["t\u00a0c", "t"], [0, 0, 0, 0, 0, 1, 1])
    line_end = pieces._target._processor.piece_to_id(["▁", "t", "<0x0A>", "c"])  # a space in the translation
    assert pieces.target_words(line_end)[0] == ["t", "c"]


NFD = unicodedata.normalize("NFD", "Đặng Thị Huế café")


@pytest.mark.parametrize("options", [Options(vocab_size=400), Options(kind="bpe", vocab_size=400), Options(kind="words", vocab_size=0)])
def test_decomposed_text_is_read_as_composed_text_is(options, tmp_path):
    nfc = unicodedata.normalize("NFC", NFD)
    assert len(NFD) > len(nfc)
    tokenizer = train_tokenizer(options, [*PAIRS, (NFD, NFD)] * 2)
    assert tokenizer.fingerprint() == train_tokenizer(options, [*PAIRS, (nfc, nfc)] * 2).fingerprint()
    tokenizer.save(tmp_path)
    for each in (tokenizer, load_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        ids = each.encode_source([NFD])
        assert ids == each.encode_source([nfc]) == each.encode_target([NFD]) and UNK not in ids[0]
        assert each.decode_target(ids[0]) == each.decode_source(ids[0]) == each.readable(NFD) == nfc
        assert each.source_words(NFD, ids[0])[0] == each.target_words(ids[0])[0] == nfc.split()


def test_letters_and_accents_that_a_model_writes_apart_are_composed():
    tokenizer = train_tokenizer(Options(vocab_size=400), PAIRS)
    ids = tokenizer._target._processor.piece_to_id(["▁", "e", "<0xCC>", "<0x81>"])
    assert UNK not in ids and tokenizer.decode_target(ids) == "é"


def test_an_older_tokenizer_reads_text_as_it_did(tmp_path):
    """Its tokenizer.json names no normalization; the fingerprint, by which runs know their data, is what it was."""
    (tmp_path / "joint.vocab").write_text("<pad>\n<s>\n</s>\n<unk>\nE\u0301\n\u00c9\n")
    (tmp_path / "tokenizer.json").write_text('{\n  "files": [\n    "joint.vocab"\n  ],\n  "joiner": "@@ "\n}\n')
    old = load_tokenizer(tmp_path)
    assert old.encode_source(["E\u0301 \u00c9"]) == [[4, 5]] and old.decode_target([4, 5]) == "E\u0301 \u00c9"
    digest = hashlib.sha256()
    for name in ("joint.vocab", "tokenizer.json"):
        data = (tmp_path / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    assert old.fingerprint() == digest.hexdigest() and normalization_of(Options(), tmp_path) == "none"
    old.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert train_tokenizer(Options(kind="words", vocab_size=0, normalization="none"), [("E\u0301", "x")]).encode_source(["E\u0301"])[0] != [
        UNK
    ]


SPLIT = {  # joiner: a text that is split so, its words, and the number of each token's word
    "@@ ": ("Hel@@ lo , wor@@ ld", "Hello , world", [0, 0, 1, 2, 2]),
    "▁": ("▁Hel lo , ▁wor ld ▁ !", "Hello, world !", [0, 0, 0, 1, 1, 2, 2]),
    "￭": ("Hel￭ lo ￭, wor ￭ ld ￭!", "Hello, world!", [0, 0, 0, 1, 1, 1, 1]),
    "": ("Hello , world", "Hello , world", [0, 1, 2]),
}


@pytest.mark.parametrize("joiner", SPLIT)
def test_text_is_put_together_as_its_joiner_says(joiner, tmp_path):
    text, joined, numbers = SPLIT[joiner]
    train_tokenizer(Options(kind="words", vocab_size=0, joiner=joiner), [(text, text)]).save(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    (ids,) = tokenizer.encode_target([text])
    assert tokenizer.decode_target(ids) == tokenizer.readable(text) == join(text, joiner) == joined
    assert tokenizer.source_words(text, ids) == tokenizer.target_words(ids) == (joined.split(), numbers)


@pytest.mark.parametrize(("text", "joined"), [("￭a￭ b", "ab"), ("a ￭b￭ c", "abc"), ("a b￭ ￭ c", "a bc"), ("a ￭", "a"), ("￭", "")])
def test_a_joiner_joins_on_the_side_on_which_it_stands(text, joined):
    assert join(text, "￭") == joined


@pytest.mark.parametrize("joiner", [joiner for joiner in SPLIT if joiner])
@pytest.mark.parametrize("said", [joiner for joiner in SPLIT if joiner])
def test_text_that_is_split_otherwise_than_the_joiner_says_is_refused(joiner, said):
    pairs = [(SPLIT[joiner][0], SPLIT[joiner][0]), *[("and so on", "und so weiter")] * 20]
    options = Options(kind="words", vocab_size=0, joiner=said)
    if joiner == said:
        assert train_tokenizer(options, pairs).pretokenized
        return
    with pytest.raises(UserError, match=re.escape(f"set tokenizer.joiner to {joiner!r}")):
        train_tokenizer(options, pairs)
    assert train_tokenizer(dataclasses.replace(options, joiner=""), pairs).pretokenized  # who says so may keep pieces for words


def test_words_that_are_whole_need_no_joiner_but_the_one_that_begins_each():
    pairs = [("and so on @@", "a ▁ b ￭")] + [("and so on", "und so weiter")] * 90
    for joiner in ("@@ ", "￭"):
        assert train_tokenizer(Options(kind="words", vocab_size=0, joiner=joiner), pairs).pretokenized
    with pytest.raises(UserError, match="'▁', which begins every word, but the training text of both languages has none"):
        train_tokenizer(Options(kind="words", vocab_size=0, joiner="▁"), pairs[1:])


def test_little_text_gives_a_smaller_vocabulary():
    for kind in ("unigram", "bpe"):
        tokenizer = train_tokenizer(Options(kind=kind), [("a b", "c d")])
        assert 260 < tokenizer.source_vocab_size < 300


def _foreign_model() -> bytes:
    import io

    import sentencepiece

    written = io.BytesIO()
    lines = [text for pair in PAIRS for text in pair]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return written.getvalue()


def test_a_given_model_is_used_and_checked(tmp_path):
    own = train_tokenizer(Options(vocab_size=400), PAIRS)
    own.save(tmp_path)
    model = str(tmp_path / "joint.model")
    given = train_tokenizer(Options(model=(model,)), iter(()))
    assert given.encode_source(["the cat"]) == own.encode_source(["the cat"])
    both = train_tokenizer(Options(model=(model, model), joint=False), iter(()))
    assert not both.joint
    for bad in (b"", b"not a model", (tmp_path / "joint.model").read_bytes()[:1000]):
        (tmp_path / "bad.model").write_bytes(bad)
        with pytest.raises(UserError, match="bad.model.*damaged"):
            train_tokenizer(Options(model=(str(tmp_path / "bad.model"),)), iter(()))
    (tmp_path / "foreign.model").write_bytes(_foreign_model())
    with pytest.raises(UserError, match=r"pad -1, bos 1, eos 2, unk 0.*--pad_id=0"):
        train_tokenizer(Options(model=(str(tmp_path / "foreign.model"),)), iter(()))
    with pytest.raises(UserError, match="no file"):
        train_tokenizer(Options(model=(str(tmp_path / "none.model"),)), iter(()))
    with pytest.raises(UserError, match="names 1 file.*joint.*two"):
        validate(Experiment(tokenizer=Options(model=(model,), joint=False)))


@pytest.mark.parametrize(
    "options, pairs, message",
    [
        (Options(vocab_size=100), PAIRS, r"vocab_size 100 is too small.*need \d{3}"),
        (Options(), [], "no text"),
        (Options(), [("", " ")], "no text"),
        (Options(kind="words"), [("", " ")], "no text"),
        (Options(character_coverage=0.5), PAIRS, r"SentencePiece could not train .*character_coverage"),
    ],
)
def test_hopeless_training_says_why(options, pairs, message):
    with pytest.raises(UserError, match=message) as error:
        train_tokenizer(options, pairs)
    assert "INTERNAL" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "joint.vocab").unlink(),
        lambda folder: (folder / "joint.vocab").write_bytes((folder / "joint.vocab").read_bytes()[:-1]),
        lambda folder: (folder / "joint.vocab").write_bytes((folder / "joint.vocab").read_bytes() + b"cat\n"),
        lambda folder: (folder / "joint.vocab").write_bytes(b"\xff\n"),
    ],
)
def test_a_damaged_tokenizer_is_refused(damage, tmp_path):
    train_tokenizer(Options(kind="words"), PAIRS).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_training_is_quiet(capfd):
    for kind in ("unigram", "bpe"):
        train_tokenizer(Options(kind=kind, vocab_size=400), PAIRS)
    with pytest.raises(UserError):
        Subwords(b"damaged")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""

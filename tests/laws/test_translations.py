"""Text in, text out: a line's translation is its own, whatever the lines beside it."""

import math

import jax
import numpy as np
import pytest
import tiny

from jaxnmt.config import Decoding, Tokenizer, replace
from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding import batches
from jaxnmt.decoding import programs as search_programs
from jaxnmt.decoding import translator as translators
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model

as_shipped = pytest.mark.as_shipped  # of what computes numbers; how many programs there are does not depend on the compiler

LETTERS = "abcdefghijklmnop"


@pytest.fixture(scope="module")
def translate():
    """-> a function of (lines, decoding changes) over one model; `max_length` 12."""
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(" ".join(LETTERS), " ".join(LETTERS))])
    model = build_model(replace(tiny.BASE, tie_embeddings="none"), tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    params = tiny.params_of(model, 5)
    params["source_embedding"]["table"] *= 3  # so that a translation depends on its source, and seldom ends at once
    params["output_embedding"]["table"] = 2 * params["output_embedding"]["table"].at[EOS].set(0)
    warnings = []
    translator = Translator(model, params, tokenizer, 12, warn=warnings.append)
    basic = Decoding(beam_size=3, batch_size=4, max_length_ratio=1.0, max_length_extra=3, length_penalty=2.0)

    def run(lines, **changes):
        warnings.clear()
        return translator.translate(lines, replace(basic, **changes))

    run.warnings, run.translator = warnings, translator
    return run


def some_lines(count, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(list(LETTERS), random.integers(1, 11))) for _ in range(count)]


def same(left, right):
    assert [t.text for line in left for t in line] == [t.text for line in right for t in line]
    np.testing.assert_allclose([t.score for line in left for t in line], [t.score for line in right for t in line], atol=1e-5)


@as_shipped
def test_translations_do_not_depend_on_order_batch_size_or_padding(translate, monkeypatch):
    lines = some_lines(9)
    expected = translate(lines)
    order = np.random.default_rng(1).permutation(9)
    shuffled = translate([lines[i] for i in order])
    same(shuffled, [expected[i] for i in order])
    same(translate(lines, batch_size=9), expected)
    same([translate([line])[0] for line in lines[:3]], expected[:3])
    monkeypatch.setattr(batches, "LENGTHS", (24,))
    same(translate(lines), expected)
    assert len({line[0].text for line in expected}) > 5


@as_shipped
def test_n_best_are_different_and_sorted_and_the_first_is_the_best(translate):
    lines = some_lines(4, 1)
    many = translate(lines, n_best=3)
    for candidates in many:
        assert len(candidates) == 3 and len({c.text for c in candidates}) >= 2
        assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    same([line[:1] for line in many], translate(lines))


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("One. Two!  Three", ["One.", "Two!", "Three"]),
        ("version 1.2 is here.", ["version 1.2 is here."]),
        ("今天天气很好。我们去公园吧！你想去吗？", ["今天天气很好。", "我们去公园吧！", "你想去吗？"]),
        ("「行くよ。」と言った！？ 本当。", ["「行くよ。」と言った！？", "本当。"]),
    ],
)
def test_sentences_end_where_their_language_ends_them(line, sentences):
    assert translators.SENTENCE_END.split(line) == sentences


@as_shipped
def test_empty_lines_stay_and_long_lines_are_translated_in_parts_with_a_warning(translate):
    long = " ".join(LETTERS[:15])  # 15 tokens, where 11 fit
    found = translate(["a b", "", long, "   ", "c"])
    assert [line[0].text == "" for line in found] == [False, True, False, True, False]
    assert len(translate.warnings) == 1 and "line 3" in translate.warnings[0] and "15" in translate.warnings[0]
    parts = translate([" ".join(LETTERS[:11]), " ".join(LETTERS[11:15])])
    assert found[2][0].text == " ".join(part[0].text for part in parts)
    assert found[2][0].score == pytest.approx(sum(part[0].score for part in parts), abs=1e-5)
    assert not translate.warnings
    translate([" ".join(LETTERS[:11])])
    assert not translate.warnings  # it just fits


def test_a_long_line_is_cut_where_sentences_end_and_never_over_the_limit(translate):
    def cut(*lengths):
        line = " ".join("a " * (length - 1) + "b." for length in lengths)
        return [len(part) for part in translate.translator._parts(1, line)]

    assert cut(5, 6, 4) == [11, 4] and cut(5, 7) == [5, 7] and cut(3, 25) == [3, 11, 11, 3]


def test_no_line_no_translation(translate):
    assert translate([]) == [] and translate([""]) == [[translators.Translation("", 0.0)]]


@as_shipped
def test_what_the_model_has_no_numbers_for_is_an_empty_line_in_its_place(translate, monkeypatch):
    broken = jax.tree.map(lambda x: x * np.nan, translate.translator.params)
    monkeypatch.setattr(translate.translator, "params", broken)
    for beam_size in (1, 3):
        found = translate(["a b", "", "c"], beam_size=beam_size)
        assert [[candidate.text for candidate in line] for line in found] == [[""]] * 3
        assert all(math.isfinite(candidate.score) for line in found for candidate in line)


def test_a_translation_is_one_line_whatever_its_tokens_spell(translate, monkeypatch):
    monkeypatch.setattr(translate.translator.tokenizer, "decode_target", lambda ids: "a\nb\tc\r")
    assert {candidate.text for line in translate(some_lines(2)) for candidate in line} == {"a b c"}


def test_the_output_is_as_long_as_it_may_be_and_no_longer(translate):
    lines = some_lines(6, 2)
    lengths = [len(found[0].text.split()) - len(line.split()) for line, found in zip(lines, translate(lines), strict=True)]
    assert max(lengths) == 2  # three more, the end among them


def test_a_batch_is_padded_to_a_power_of_four_and_not_to_the_batch_size(translate, monkeypatch):
    lines, shapes, find = some_lines(12, 5), [], translate.translator._whole.batch.each

    def recorded(params, groups):
        groups = list(groups)
        shapes.extend(group.batch["encoder_input_tokens"].shape for group in groups)
        return find(params, groups)

    expected = translate(lines)
    monkeypatch.setattr(translate.translator._whole.batch, "each", recorded)
    never, always = 10**9, 1  # hypotheses that each search must have if a batch is divided
    for count, batch_size, least, rows in (
        (12, 20_000, always, [16]),
        (12, 16, always, [8, 8]),
        (12, 16, never, [16]),
        (12, 22, always, [11, 11]),
        (3, 64, always, [4]),
        (1, 64, always, [1]),
    ):
        monkeypatch.setattr(search_programs, "FEWEST_HYPOTHESES", least)
        shapes.clear()
        same(translate(lines[:count], batch_size=batch_size), expected[:count])
        assert [shape[0] for shape in shapes] == rows
    monkeypatch.setattr(search_programs, "FEWEST_HYPOTHESES", never)
    shapes.clear()
    same(translate(lines, batch_size=64, batch_tokens=4 * 16 + 15), expected)
    assert shapes == [(4, 16)] * 3
    shapes.clear()
    same(translate(lines[:2], batch_tokens=1), expected[:2])  # a sentence of more is alone
    assert shapes == [(1, 16)] * 2


@pytest.mark.parametrize(
    ("count", "most", "devices", "rows"),
    [
        (1, 64, 1, 1),
        (5, 64, 1, 16),
        (33, 64, 1, 64),
        (40, 48, 1, 48),  # 64 is beyond the batch size
        (64, 64, 1, 64),
        (1, 64, 8, 8),
        (12, 64, 8, 32),
        (33, 64, 8, 64),
        (7, 64, 6, 24),  # a multiple of six devices: room for four sentences on each
        (64, 64, 6, 66),
        (1, 4, 8, 8),
    ],
)
def test_rows_are_few_sizes_that_devices_divide(count, most, devices, rows):
    assert batches.padded_rows(count, most, devices) == rows


def test_numbers_among_the_options_compile_nothing(translate, compiled):
    lines = some_lines(10, 3)

    def found_with(**changes):
        compiled.clear()
        return translate(lines, **changes)

    found_with(max_length_extra=20)
    assert compiled  # the caches grow
    expected = found_with()
    for changes in ({"length_penalty": 0.6}, {"length_penalty": 0}, {"max_length_ratio": 0.5}, {"max_length_extra": 20}, {"n_best": 3}):
        assert found_with(**changes) != expected and not compiled, changes
    for patience in (1.0, 2.5):
        found_with(patience=patience)
        assert not compiled
    found_with(beam_size=2)
    assert compiled


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({"beam_size": 1}, 64),
        ({"beam_size": 2}, 32),
        ({"beam_size": 5}, 32),
        ({"beam_size": 1, "batch_size": 128}, 64),
        ({"beam_size": 1, "batch_size": 127}, 127),
        ({"beam_size": 1, "temperature": 1.0, "n_best": 2}, 32),
        ({"beam_size": 5, "temperature": 1.0}, 64),
    ],
)
def test_searches_that_share_a_batch_have_64_hypotheses_each(translate, changes, sentences):
    assert translate.translator._budget(replace(Decoding(), **changes))[0] == sentences


@pytest.fixture(params=["anywhere", "on a device"])
def fresh(translate, request):
    """A translator that has compiled nothing. The parameters of a run lie on a device, which JAX compiles for."""
    one = translate.translator
    params = one.params if request.param == "anywhere" else jax.device_put(one.params, jax.devices()[0])
    return Translator(one.model, params, one.tokenizer, 20)


def test_warming_compiles_what_samples_need(fresh, compiled):
    decoding = Decoding(beam_size=16, batch_size=8, mbr="chrf", temperature=1.0)  # two searches of four sentences
    fresh.warm(decoding)
    assert compiled
    compiled.clear()
    fresh.translate(some_lines(11), decoding)
    assert not compiled


def test_warming_compiles_all_that_later_calls_need(fresh, compiled):
    decoding = Decoding(beam_size=3, batch_size=8, mbr="chrf")
    assert fresh.warm(decoding) == 6  # one sentence, four and eight, of up to 16 tokens and of up to 32
    assert len(compiled) == 12  # the two programs of each
    compiled.clear()
    fresh.translate([f"{line} {line}" for line in some_lines(40)], decoding)
    fresh.translate(some_lines(3), decoding)
    fresh.translate(some_lines(1), replace(decoding, length_penalty=0.5))
    assert not compiled


def test_the_last_lines_of_a_file_compile_nothing(fresh, compiled):
    decoding = Decoding(beam_size=3, batch_size=8)
    fresh.translate(some_lines(8), decoding)
    assert compiled
    compiled.clear()
    fresh.least_sentences = 8
    fresh.translate(some_lines(2), decoding)
    assert not compiled


def test_a_search_has_room_for_the_default_limits_and_twice_or_four_times_as_much_for_longer_ones():
    def rooms(length, *limits):
        return [batches.target_length(length, Decoding(max_length_ratio=ratio, max_length_extra=extra)) for ratio, extra in limits]

    assert rooms(16, (1.5, 20), (1.0, 3), (0.1, 0), (1.6, 20), (3.0, 40), (3.0, 41)) == [44, 44, 44, 88, 88, 176]


def test_searches_compile_once_a_shape(translate, compiled):
    lines = some_lines(10, 3)
    translate(lines + [" ".join(LETTERS[:n]) for n in (1, 7, 8, 11)], beam_size=4)
    assert compiled
    compiled.clear()
    translate(lines[::-1], beam_size=4)
    translate(some_lines(30, 4), beam_size=4)
    assert not compiled

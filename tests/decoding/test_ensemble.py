"""Several models as one: against every translation written down, against the members, and in text."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.data.vocabulary import Words
from jaxnmt.decoding.alignments import Aligner
from jaxnmt.decoding.ensemble import Ensemble, EnsembleParams, EnsembleTranslator, combine
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model
from jaxnmt.run import Run
from jaxnmt.runs import directory as run_directory

SPACES = ["probability", "log"]
VOCAB, LIMIT = 6, 4  # PAD, BOS, EOS, UNK and two words
EVERY = [[*body, EOS] for length in range(LIMIT) for body in itertools.product(range(3, VOCAB), repeat=length)]
SOURCES = {"transformer": [3, 5, EOS, PAD], "lstm": [4, 3, 5, EOS]}  # each has its own tokens of the same sentence
MODELS = {
    "transformer": tiny.model_of(cfg.replace(tiny.BASE, num_decoder_layers=2), VOCAB),
    "lstm": tiny.model_of(cfg.replace(tiny.RNN, cell="lstm", context="luong"), VOCAB),
}
PARAMS = {name: tiny.params_of(model, seed) for seed, (name, model) in enumerate(MODELS.items())}


def log_probs(name):
    """A model's log-probabilities of each token of every translation, (40, LIMIT, V), teacher-forced."""
    inputs = np.zeros((len(EVERY), LIMIT), np.int32)
    for row, tokens in zip(inputs, EVERY, strict=True):
        row[: len(tokens)] = [BOS, *tokens[:-1]]
    batch = {"encoder_input_tokens": np.tile(SOURCES[name], (len(EVERY), 1)), "decoder_input_tokens": inputs}
    model, params = MODELS[name], PARAMS[name]
    logits = jax.jit(lambda params, batch: model.decode(params, model.encode(params, batch), batch))(params, batch)
    logits = np.array(logits, np.float64)[..., :VOCAB]
    logits[..., [PAD, BOS]] = -np.inf
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def brute_force(weights, space, names=("transformer", "lstm")):
    """Every translation of up to LIMIT tokens with its score, best first."""
    weights = np.array(weights) / np.sum(weights)
    with np.errstate(divide="ignore"):
        if space == "probability":
            log_p = np.log(sum(weight * np.exp(log_probs(name)) for weight, name in zip(weights, names, strict=True)))
        else:
            log_p = sum(weight * log_probs(name) for weight, name in zip(weights, names, strict=True))
            log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    totals = [sum(log_p[n, t, token] for t, token in enumerate(tokens)) for n, tokens in enumerate(EVERY)]
    return sorted(((total / ((5 + len(tokens)) / 6), tokens) for total, tokens in zip(totals, EVERY, strict=True)), key=lambda x: -x[0])


@functools.cache
def compiled(names, space):
    return jax.jit(functools.partial(search, Ensemble([MODELS[name] for name in names], space)))


def find(weights, space, names=("transformer", "lstm")):
    weights_M = np.array(weights, np.float32) / np.sum(weights, dtype=np.float32)
    params = EnsembleParams(tuple(PARAMS[name] for name in names), weights_M)
    source_BSM = np.stack([[SOURCES[name]] for name in names], -1).astype(np.int32)
    batch, limits = {"encoder_input_tokens": source_BSM}, np.array([LIMIT], np.int32)
    return jax.device_get(compiled(tuple(names), space)(SearchOptions(len(EVERY), LIMIT, 1.0), params, batch, limits))


def assert_same_hypotheses(found, expected):
    """The same hypotheses with the same scores; those whose scores differ by less than rounding may change places."""
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], atol=1e-5)
    gaps = [1.0, *(a[0] - b[0] for a, b in itertools.pairwise(expected)), 1.0]
    for k, (_, tokens) in enumerate(expected):
        if min(gaps[k : k + 2]) > 1e-5:
            assert [int(token) for token in found.tokens_BWT[0, k] if token != PAD] == tokens


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.2, 0.8)])
def test_a_transformer_and_an_lstm_are_exact_together(weights, space):
    assert_same_hypotheses(find(weights, space), brute_force(weights, space))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", MODELS)
def test_one_member_or_the_same_twice_or_beside_one_without_weight_is_that_member(name, space):
    expected = brute_force([1], "probability", [name])
    assert_same_hypotheses(find([1], space, [name]), expected)
    assert_same_hypotheses(find([1, 2], space, [name, name]), expected)
    first = name == "transformer"
    assert_same_hypotheses(find([first, not first], space), expected)


@pytest.mark.parametrize("space", SPACES)
def test_the_two_spaces_and_the_members_are_all_different(space):
    assert np.abs(find([1, 1], "log").scores_BW - find([1, 1], "probability").scores_BW).max() > 1e-3
    assert all(np.abs(find([1, 1], space).scores_BW - find([1], space, [name]).scores_BW).max() > 1e-3 for name in MODELS)


def test_weights_are_arguments_of_one_program():
    before = compiled(("transformer", "lstm"), "log")._cache_size()
    find([1, 5], "log")
    find([5, 1], "log")
    assert compiled(("transformer", "lstm"), "log")._cache_size() <= before + (before == 0)


def test_teacher_forcing_gives_the_scores_of_the_search():
    model = Ensemble(list(MODELS.values()), "probability")
    params = EnsembleParams(tuple(PARAMS.values()), np.array([0.5, 0.5], np.float32))
    score, tokens = brute_force([1, 1], "probability")[0]
    source = np.stack([[SOURCES[name]] for name in MODELS], -1)
    batch = {"encoder_input_tokens": source, "decoder_input_tokens": np.array([[BOS, *tokens[:-1]]])}
    log_p_TV = model.decode(params, model.encode(params, batch), batch)[0]
    assert log_p_TV[np.arange(len(tokens)), tokens].sum() / ((5 + len(tokens)) / 6) == pytest.approx(score, abs=1e-5)


# ---- text

LETTERS = "a b c d e f g h i j k l m n o p"


def words(text):
    return Words(text.split(), "")


@pytest.fixture(scope="module")
def members():
    """Two translators that split the source differently: into letters, and into subwords."""
    target = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [(LETTERS, LETTERS)])
    source = cfg.Tokenizer(vocab_size=40, byte_fallback=False, joint=False)
    subwords = train_tokenizer(source, [("ab cd ef gh ij kl mn op " + LETTERS, LETTERS)] * 9)
    own = Tokenizer(subwords._source, target._target)
    found = []
    for seed, (config, tokenizer, longest) in enumerate([(tiny.BASE, target, 12), (tiny.RECURRENT["bahdanau"], own, 20)]):
        config = cfg.replace(config, tie_embeddings="none")
        model = build_model(config, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
        params = tiny.params_of(model, seed + 5)
        params["source_embedding"]["table"] *= 3
        params["output_embedding"]["table"] = 2 * params["output_embedding"]["table"].at[EOS].set(0)
        found.append(Translator(model, params, tokenizer, longest, warn=lambda line: None))
    return found


DECODING = cfg.Decoding(beam_size=3, batch_size=4, max_length_ratio=1.0, max_length_extra=3)


def some_lines(count, longest=9):
    random = np.random.default_rng(0)
    return [" ".join(random.choice(LETTERS.split(), random.integers(1, longest))) for _ in range(count)]


def assert_same(left, right):
    assert [t.text for line in left for t in line] == [t.text for line in right for t in line]
    np.testing.assert_allclose([t.score for line in left for t in line], [t.score for line in right for t in line], atol=1e-5)


def test_a_translation_does_not_depend_on_its_batch(members):
    lines, ensemble = [*some_lines(9), ""], EnsembleTranslator(members)
    expected = ensemble.translate(lines, DECODING)
    assert_same(ensemble.translate(lines[::-1], DECODING)[::-1], expected)
    assert_same([ensemble.translate([line], DECODING)[0] for line in lines[:3]], expected[:3])
    assert_same(ensemble.translate(lines, cfg.replace(DECODING, batch_size=10)), expected)
    assert len({line[0].text for line in expected}) > 5
    assert all(len(found[0].tokens) < len(line.split()) + 3 for line, found in zip(lines, expected, strict=True))  # the first's tokens


def test_each_member_reads_its_own_tokens(members):
    lines = some_lines(4)
    for member, weights in zip(members, ([1, 0], [0, 1]), strict=True):
        # Limits that no translation meets, as they go by the first member's tokens.
        decoding = cfg.replace(DECODING, max_length_extra=40, max_length_ratio=0.0)
        assert_same(EnsembleTranslator(members, weights).translate(lines, decoding), member.translate(lines, decoding))


def test_a_long_line_is_cut_into_the_same_words_for_all(members):
    said = []
    ensemble = EnsembleTranslator(members)
    ensemble.warn = said.append
    line = " ".join(LETTERS.split() * 2 + ["c."] + LETTERS.split()[:3])
    parts = ensemble._parts(7, line)
    assert len(said) == 1 and "line 7" in said[0]
    assert all(len(ids) < member.max_length for part in parts for ids, member in zip(part.each, members, strict=True))
    for m, member in enumerate(members):
        assert [id for part in parts for id in part.each[m]] == member.tokenizer.encode_source([line])[0]
    assert ensemble.translate([line], DECODING)[0][0].text
    assert len(said) == 2 and len(ensemble._parts(1, " ".join(LETTERS.split()[:4]))) == 1


def test_alignments_are_the_first_members(members):
    lines = some_lines(4)
    found = EnsembleTranslator(members).translate(lines, DECODING)
    together, alone = (Aligner(each).align(lines, found, 4) for each in (EnsembleTranslator(members), members[0]))
    for (mine,), (theirs,) in zip(together, alone, strict=True):
        assert mine.target == theirs.target
        np.testing.assert_array_equal(mine.weights_TS, theirs.weights_TS)


# ---- runs


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A Transformer and an LSTM with attention, and a run with other words; their parameters are random."""
    monkeypatch.setattr(Run, "params", property(lambda run: tiny.params_of(run.model, len(run.folder.name))))
    text = tiny.write_text(tmp_path, "t", 12, 1)
    models = {"first": tiny.BASE, "second_run": cfg.replace(tiny.RNN, cell="lstm", context="luong"), "other": tiny.BASE}
    for name, model in models.items():
        letters = "a b c d e f g h i j" if name != "other" else "a b x d"
        decoding = cfg.Decoding(beam_size=2, batch_size=4, max_length_extra=3)
        data = cfg.Data(train=(text,), validation=(text,), test=(text,))
        tokenizer = cfg.Tokenizer(kind="words", vocab_size=0)
        experiment = cfg.Experiment(data=data, tokenizer=tokenizer, model=model, decoding=decoding)
        run_directory.start(tmp_path / name, cfg.replace(experiment, **{"batching.layout": "buckets"}))
        train_tokenizer(tokenizer, [(letters, letters)]).save(tmp_path / name / "tokenizer")
    return {name: tmp_path / name for name in models}


def command(capfd, *words):
    capfd.readouterr()
    status = cli.main([str(word) for word in words])
    return status, *capfd.readouterr()


def test_the_command_and_python_translate_and_evaluate_with_several_runs(runs, tmp_path, capfd):
    first, second = Run(runs["first"]), Run(runs["second_run"])
    (tmp_path / "in.txt").write_text("a b c\nd e\n\nf\n")
    told = ["--ensemble", runs["second_run"], "--ensemble-weights", "2", "1", "--ensemble-space", "log"]
    status, out, _ = command(capfd, "translate", runs["first"], "--input", tmp_path / "in.txt", *told)
    ensemble = jaxnmt.ensemble(first, second, weights=[2, 1], space="log")
    assert status == 0 and out.split("\n")[:-1] == [each.text for each in ensemble.translate(["a b c", "d e", "", "f"])]
    alone = jaxnmt.ensemble(first, second, weights=[0, 1])
    decoding = {"max_length_ratio": 0.0, "max_length_extra": 9}
    assert alone.translate("a b c", **decoding).text == second.translate("a b c", **decoding).text
    status, out, _ = command(capfd, "evaluate", runs["first"], *told, "--json", "true")
    assert status == 0 and json.loads(out)["metrics"][0]["value"] == ensemble.evaluate().metrics[0].value
    (chrf,) = alone.compare(ensemble, metrics=["chrf"], samples=10)
    assert len(chrf.estimates) == 2


def test_what_does_not_go_together_is_refused_in_a_sentence(runs, capfd):
    first, second, other = (runs[name] for name in ("first", "second_run", "other"))

    def refused(*words):
        status, _, err = command(capfd, "translate", first, *words)
        assert status == 2
        return err.splitlines()[-1]

    said = refused("--ensemble", second, other)
    assert str(first) in said and str(other) in said and "different target vocabularies (token " in said
    assert "one for each run" in refused("--ensemble", second, "--ensemble-weights", "1")
    assert "not all 0" in refused("--ensemble", second, "--ensemble-weights", "0", "0")
    assert "no effect without --ensemble" in refused("--ensemble-weights", "1")
    assert "no/such/run" in refused("--ensemble", "no/such/run")
    with pytest.raises(UserError, match="is an ensemble already"):
        jaxnmt.ensemble(jaxnmt.ensemble(Run(first), Run(second)), Run(second))


def test_a_vocabulary_of_another_size_differs_at_its_end():
    small, large = (Tokenizer(words("a b"), words(text)) for text in ("a b", "a b c"))
    assert small.target_difference(large) == (6, "", "c") and small.target_difference(small) is None
    assert small.target_difference(Tokenizer(words("a b"), words("a c"))) == (5, "b", "c")


def test_infinite_logits_of_a_member_are_words_that_the_mean_may_still_have():
    with_words = jnp.array([[0.0, 0.0, 1.0, -jnp.inf, 2.0, -jnp.inf]])  # one that a longer, padded vocabulary stands beside
    other = jnp.array([[0.0, 0.0, 0.5, 1.0, -jnp.inf, -jnp.inf, -jnp.inf, -jnp.inf]])
    for weights in ([0.5, 0.5], [1.0, 0.0]):
        log_p = combine([with_words, other], jnp.array(weights), "probability")
        assert log_p.shape == (1, 6) and np.isfinite(log_p[0, 2]) and np.exp(log_p).sum() == pytest.approx(1)
        assert (log_p[0, [PAD, BOS, 5]] == -np.inf).all()
    assert (np.isfinite(combine([with_words, other], jnp.array([0.5, 0.5]), "log")) == [[0, 0, 1, 0, 0, 0]]).all()
    np.testing.assert_array_equal(
        combine([with_words, other], jnp.array([1.0, 0.0]), "log"), combine([with_words], jnp.array([1.0]), "log")
    )

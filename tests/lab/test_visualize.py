"""What `jaxnmt visualize` records is what the model computes: its attention, its probabilities, its search."""

import json

import jax
import numpy as np
import pytest
import tiny
from lab import seen

from jaxnmt import cli
from jaxnmt.config import Decoding, replace
from jaxnmt.config.files import save_config
from jaxnmt.data.special_tokens import BOS, PAD
from jaxnmt.errors import UserError
from jaxnmt.lab.visualize import record as records
from jaxnmt.lab.visualize.record import page
from jaxnmt.parallel.axes import path_name
from jaxnmt.training.loop import train

WITHOUT = ["bag", "elman", "sutskever", "cho", "own"]
WITH = [name for name in seen.CONFIGS if name not in WITHOUT]
RECURRENT = [name for name in seen.CONFIGS if name in tiny.RECURRENT]
WINDOWED = ["luong_dot"]


def sown(name):
    """Every weight of the model's own teacher-forced pass, nothing padded, by module."""
    found, translator = seen.recorded(name), seen.translator(name)
    source, target = found["source"]["ids"], found["target"]["ids"]
    batch = {"encoder_input_tokens": np.array([source]), "decoder_input_tokens": np.array([[BOS, *target[:-1]]])}
    leaves = jax.tree_util.tree_leaves_with_path(translator.model.attention(translator.params, batch))
    return {path_name(path).removesuffix("/attention/0"): np.asarray(x[0], np.float64) for path, x in leaves}


@pytest.mark.parametrize("name", seen.cases(seen.CONFIGS))
def test_the_weights_in_the_page_are_the_models_own(name):
    own, shown = sown(name), {each["name"]: np.array(each["heads"]) for each in seen.read(page(seen.recorded(name)))["attention"]}
    assert shown.keys() == own.keys() and bool(shown) == (name in WITH)
    for module, weights in own.items():
        np.testing.assert_allclose(shown[module], weights, atol=1e-6, rtol=0)
        if name not in WINDOWED:
            np.testing.assert_allclose(shown[module].sum(-1), 1, atol=1e-5)


def test_layers_are_counted_in_their_order_and_parts_are_told_apart():
    found = [(each["part"], each["layer"]) for each in seen.recorded("transformer")["attention"]]
    assert found == [
        ("encoder", 1),
        ("encoder", 2),
        ("decoder", 1),
        ("decoder", 2),
        ("decoder", 3),
        ("cross", 1),
        ("cross", 2),
        ("cross", 3),
    ]
    sides = [(each["side"], each["name"]) for each in seen.recorded("transformer")["vectors"]]
    assert sides == [("encoder", ""), ("encoder", "layer_0"), ("encoder", "layer_1"), ("decoder", "")] + [
        ("decoder", f"layer_{i}") for i in range(3)
    ]


@pytest.mark.parametrize("name", seen.cases(seen.CONFIGS))
def test_every_layer_has_a_vector_for_every_token(name):
    found = seen.recorded(name)
    for each in found["vectors"]:
        assert len(each["strips"]) == len(found["source" if each["side"] == "encoder" else "target"]["ids"])


def test_a_heads_share_on_the_word_itself_and_on_the_one_before():
    for each in seen.recorded("transformer")["attention"]:
        if each["part"] == "cross":
            assert "itself" not in each
            continue
        first = {"encoder": 0, "decoder": 1}[each["part"]]  # the mask leaves the decoder's first row nothing but itself
        for head, itself, previous in zip(np.array(each["heads"]), each["itself"], each["previous"], strict=True):
            assert itself == pytest.approx(np.mean([head[i, i] for i in range(first, len(head))]), abs=1e-6)
            assert previous == pytest.approx(np.mean([head[i, i - 1] for i in range(1, len(head))]), abs=1e-6)


def test_a_share_counts_only_rows_that_have_a_choice():
    masked = np.array([[[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.3, 0.2]], [[1, 0, 0], [1, 0, 0], [0, 1, 0]]], np.float32)
    # The first head: (.75 + .2) / 2 and (.25 + .3) / 2; the second looks at nothing but the token before.
    assert records.shares("decoder", masked) == {"itself": [0.475, 0], "previous": [0.275, 1]}
    seeing = np.array([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0, 0.75, 0.25]]], np.float32)
    for part in ("encoder", "decoder"):  # a decoder without a mask: its first row chooses too; there is none before it in either
        assert records.shares(part, seeing) == {"itself": [pytest.approx(1.25 / 3)], "previous": [0.5]}
    assert records.shares("decoder", np.ones((2, 1, 1), np.float32)) == {}  # nothing was written but the end


@pytest.mark.parametrize("name", seen.cases(["shipped rnn_fixed", "elman", "sutskever", "cho", "bahdanau", "luong_location"]))
def test_a_state_knows_what_its_reader_has_read_and_nothing_else(name):
    """Change one token: the states from where it is read on differ, and none before it in the reader's order, to the bit."""
    translator, ids = seen.translator(name), seen.recorded(name)["source"]["ids"]
    tokens = np.array([ids, *(np.array(ids) + np.eye(len(ids), dtype=int))], np.int32)
    states = np.asarray(translator.model.encode(translator.params, {"encoder_input_tokens": tokens}).states_BSD)
    readers = seen.recorded(name)["recurrent"]["readers"]
    assert len(readers) == (1 if seen.config_of(name).bidirectional == "none" else 2)
    for order, half in zip(readers, np.split(states, len(readers), -1), strict=True):
        differs = (half[1:] != half[0]).any(-1)[np.ix_(order, order)]  # rows: the changed one; both in the order of reading
        np.testing.assert_array_equal(differs, np.triu(np.ones_like(differs)))


@pytest.mark.parametrize("name", seen.cases(seen.CONFIGS))
def test_probabilities_multiply_to_the_searchs(name):
    found = seen.recorded(name)
    assert sum(np.log(step["p"]) for step in found["steps"]) == pytest.approx(found["log_prob"], abs=2e-4)
    for step in found["steps"]:
        likely = [each["p"] for each in step["likely"]]
        assert likely == sorted(likely, reverse=True) and 0.99 * step["p"] <= likely[0] and sum(likely) <= 1 + 1e-5
        assert not {PAD, BOS} & {each["id"] for each in step["likely"]}
    assert [step["chosen"] for step in found["steps"]] == found["target"]["pieces"]
    assert [step["read"] for step in found["steps"]] == ["‹begin›", *found["target"]["pieces"][:-1]]


@pytest.mark.parametrize("name", seen.cases(name for name in RECURRENT if name in WITH))
def test_scores_become_weights_and_weights_times_states_the_context(name):
    found = seen.recorded(name)
    states = np.array([state["values"] for state in found["recurrent"]["states"]])
    assert states.shape[1] == found["recurrent"]["states"][0]["size"]  # tiny: the strips are whole
    for step, row in zip(found["steps"], found["alignment"]["weights"], strict=True):
        np.testing.assert_allclose(step["weights"], row, atol=1e-5)  # step by step as teacher-forced
        np.testing.assert_allclose(step["context"]["values"], np.array(row) @ states, atol=2e-3 * len(row))
        if name not in WINDOWED:
            powers = np.exp(np.array(step["scores"]) - max(step["scores"]))
            np.testing.assert_allclose(powers / powers.sum(), row, atol=1e-5)
        asks = step["state"] if seen.CONFIGS[name].context == "luong" else None
        assert asks is None or step["query"] == asks


@pytest.mark.parametrize("name", seen.cases(name for name in RECURRENT if not seen.CONFIGS[name].copy))
def test_what_the_output_layer_reads_gives_the_likeliest_words(name):
    """The last vector of each step, times the output matrix, is the step's logits."""
    found, translator = seen.recorded(name), seen.translator(name)
    table = np.asarray(translator.model.output_table(translator.params))
    for step in found["steps"]:
        assert step["joined"]["size"] == table.shape[1] <= records.STRIP
        logits = table @ np.array(step["joined"]["values"])
        first, last = step["likely"][0], step["likely"][-1]
        assert np.log(first["p"] / last["p"]) == pytest.approx(logits[first["id"]] - logits[last["id"]], abs=0.02)


def test_a_fixed_context_is_one_vector():
    for name in ("bag", "elman", "cho"):
        found = seen.recorded(name)
        states = np.array([state["values"] for state in found["recurrent"]["states"]])
        assert found["alignment"] is None and not found["attention"] and "weights" not in found["steps"][0]
        vector = found["recurrent"]["vector"]["values"]
        if name == "bag":
            np.testing.assert_allclose(vector, states.mean(0), atol=2e-3)
        elif name == "elman":  # it reads the words from behind, and the end token last
            np.testing.assert_allclose(vector, states[-1], atol=2e-3)


@pytest.mark.parametrize("name", seen.cases(["transformer", "bahdanau", "luong", "elman", "own"]))
@pytest.mark.parametrize("size", [1, 3])
def test_the_tree_is_the_search(name, size):
    decoding = replace(seen.DECODING, beam_size=size, n_best=size)
    translator = seen.translator(name)
    beam = records.record(translator, seen.CONFIGS[name], seen.SENTENCE, decoding)["beam"]
    [found] = translator.translate([seen.SENTENCE], decoding)
    assert [each["text"] for each in beam["finished"]] == [each.text for each in found]
    np.testing.assert_allclose([each["score"] for each in beam["finished"]], [each.score for each in found], atol=1e-5)
    nodes = beam["nodes"]
    for index, node in enumerate(nodes):
        assert node["parent"] < index and node["step"] == (nodes[node["parent"]]["step"] + 1 if node["parent"] >= 0 else 0)
        assert node["parent"] < 0 or node["log_prob"] <= nodes[node["parent"]]["log_prob"] + 1e-6
    for step in range(max(node["step"] for node in nodes) + 1):
        ranks = [node["live"] for node in nodes if node["step"] == step and node["live"] is not None]
        assert sorted(ranks) == list(range(len(ranks))) and len(ranks) <= size
    for rank, each in enumerate(beam["finished"]):
        assert nodes[each["node"]]["finished"] == rank and nodes[each["node"]]["piece"] == "‹end›"
        assert nodes[each["node"]]["log_prob"] == pytest.approx(each["log_prob"])


def test_words_of_pieces():
    found = seen.recorded("bahdanau")
    assert found["source"]["pieces"] == ["a", "b@@", "c", "d", "a", "e", "‹end›"] and found["source"]["words"] == ["a", "bc", "d", "a", "e"]
    assert np.array(found["alignment"]["words"]).shape == (len(found["target"]["words"]), 5)
    assert (
        records.readable_piece("▁Lad", False) == "Lad"
        and records.readable_piece("der", False) == "·der"
        and records.readable_piece(".", False) == "."
        and records.readable_piece("▁.", False) == "␣."
    )


def test_the_pages_languages_are_written_as_html_has_them():
    found = seen.recorded("bahdanau") | {"languages": ["pt_BR", "zho_Hans"]}
    assert 'lang="pt-BR"' in page(found) and 'lang="zho-Hans"' in page(found)


def test_text_cannot_leave_its_place_in_the_page():
    sentence = "a </script><script>alert(1)</script> {{record}} <b> &amp;"
    found = seen.recorded("own", sentence)
    text = page(found)
    assert text.count("<script") == 2 and "<b>" not in text and seen.read(text) == json.loads(json.dumps(found))


def test_nothing_to_translate_or_too_much_is_said():
    for sentence, what in (("  ", "has no word"), ("a " * 16, "has 16 tokens; the model reads 15")):
        with pytest.raises(UserError, match=what):
            records.record(seen.translator("own"), seen.CONFIGS["own"], sentence, Decoding())


def test_samples_are_no_search_to_show():
    with pytest.raises(UserError, match="decoding.temperature 1 draws samples"):
        records.record(seen.translator("own"), seen.CONFIGS["own"], "a b", Decoding(temperature=1.0))


def test_the_command_writes_page_and_numbers(tmp_path, capsys, monkeypatch):
    experiment = tiny.experiment(tmp_path, **{"training.steps": 1, "validation.every": 0})
    (tmp_path / "run").mkdir()
    save_config(experiment, tmp_path / "run" / "config.json")
    train(experiment, tmp_path / "run")
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    html, numbers = tmp_path / "a.html", tmp_path / "a.json"
    words = ["visualize", str(tmp_path / "run"), "a b c", "--output", str(html), "--json", str(numbers), "--beam-size", "2", "--open"]
    capsys.readouterr()
    assert cli.main(words) == 0
    found = json.loads(numbers.read_text())
    assert seen.read(html.read_text()) == found and opened == [html.as_uri()]
    assert capsys.readouterr().out == found["translation"] + "\n"
    assert found["run"] == "run" and found["checkpoint"] == "checkpoint 1" and found["beam"]["size"] == 2
    assert cli.main(["visualize", str(tmp_path / "run"), " "]) == 2

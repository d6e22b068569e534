"""The page of `jaxnmt visualize` in headless Chromium: it runs without error or request, reaches its last step, and is accessible."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from lab import seen

from jaxnmt.lab.visualize import caption
from jaxnmt.lab.visualize.record import page

sync_api = pytest.importorskip("playwright.sync_api", reason="drives Chromium: pip install -e '.[browser]'")
axe_package = pytest.importorskip("axe_playwright_python", reason="brings axe-core: pip install -e '.[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no chromium here: apt-get install chromium", allow_module_level=True)

KINDS = ["transformer", "bag", "elman", "sutskever", "cho", "bahdanau", "luong", "luong_dot", "own"]
WALKED = [*(f"shipped {name}" for name in seen.RUNGS), "cho", "luong_dot", "own"]
WEIGHTS = "cells => cells.map(cell => Number(cell.style.getPropertyValue('--w')))"
READING = """() => {
  const rows = [...document.querySelectorAll("#source tbody tr")], which = wanted => rows.flatMap((row, i) => wanted(row) ? [i] : []);
  return {
    told: [...document.querySelectorAll("#narration b")].map(word => word.textContent),
    now: which(row => row.classList.contains("now")),
    shown: which(row => getComputedStyle(row.querySelector("td span")).visibility === "visible"),
  };
}"""
AXE = Path(axe_package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """name -> its page, opened; at the end nothing may have been complained of or asked for."""
    wrong, asked, files = [], [], []

    def open_(name, width=1200, scheme="light", found=None, page=page):
        file = tmp_path / f"{name}_{width}_{scheme}.html"
        files.append(file.as_uri())
        file.write_text(page(found or seen.recorded(name)), encoding="utf-8")
        shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(file.as_uri())
        return shown

    yield open_
    for context in browser.contexts:
        context.close()
    assert wrong == [] and asked == files


def step_of(shown):
    return int(shown.input_value("#slider"))


def off(shown, button):
    return shown.get_attribute(button, "aria-disabled") == "true"


def told(shown):
    return shown.inner_text("#where"), shown.inner_text("#narration")


@pytest.mark.parametrize("name", seen.cases(WALKED))
def test_the_player_goes_to_its_last_step_and_back(show, name):
    shown, found = show(name), seen.recorded(name)
    last = int(shown.get_attribute("#slider", "max"))
    assert last >= 2 * len(found["steps"]) or name == "own"
    sentences = [told(shown)]
    for step in range(1, last + 1):
        shown.keyboard.press("ArrowRight") if step % 2 else shown.click("#next")
        assert step_of(shown) == step
        sentences.append(told(shown))
    assert len(set(sentences)) == last + 1 and all(
        where.startswith(f"Step {n + 1} of {last + 1} ") for n, (where, _) in enumerate(sentences)
    )
    assert "the translation is finished" in sentences[-1][1] and off(shown, "#next") and not off(shown, "#back")
    chips = shown.locator("#so-far span").all_inner_texts()
    assert chips == ["‹begin›", *found["target"]["pieces"]]
    for step in range(last - 1, -1, -1):
        shown.keyboard.press("ArrowLeft")
        assert told(shown) == sentences[step]
    assert off(shown, "#back")


@pytest.mark.parametrize(
    ("name", "mirrored", "both"),
    [
        ("shipped rnn_fixed", False, False),
        ("shipped lstm_fixed", True, False),
        ("shipped gru_bahdanau", False, True),
        ("luong_location", True, True),
        ("gnmt", False, False),  # its bottom layer reads in both directions, its top layer in one
    ],
)
def test_the_word_read_is_the_row_lit_and_the_state_uncovered_in_the_models_order(show, name, mirrored, both):
    pieces = seen.recorded(name)["source"]["pieces"]
    end = len(pieces) - 1
    order = [*range(end)][:: -1 if mirrored else 1] + [end]
    shown = show(name)
    for time in range(end + 1):
        found, now = shown.evaluate(READING), [order[time], order[end - time]] if both else [order[time]]
        whole = [i for i in range(end + 1) if order.index(i) <= time and (not both or order[::-1].index(i) <= time)]
        assert found["now"] == sorted(set(now)) and found["shown"] == whole
        assert found["told"] == [f"“{pieces[i]}”" for i in dict.fromkeys(now)]
        assert not both or f"{len(whole)} of {end + 1} states are whole" in told(shown)[1]
        shown.click("#next")
    assert whole == [*range(end + 1)] and "reading the source" not in told(shown)[0]


def test_tokens_that_are_written_alike_are_told_apart(show):
    found = copy.deepcopy(seen.recorded("own"))
    chosen, step = found["target"]["ids"][0], found["steps"][0]
    step["chosen"], step["p"] = ".", 0.25
    step["likely"] = [{"piece": ".", "id": chosen + 1, "p": 0.5}, {"piece": ".", "id": chosen, "p": 0.25}]
    shown = show("own", found=found)
    shown.click("#next")
    assert "“.” is likeliest here (0.50), but the beam search keeps “.” (0.25)" in told(shown)[1]
    assert shown.eval_on_selector_all("#likely li", "rows => rows.map(row => row.className)") == ["", "chosen"]


def test_keys_and_slider(show):
    shown = show("bahdanau")
    last = int(shown.get_attribute("#slider", "max"))
    shown.focus("#next")
    shown.keyboard.press("End")
    assert step_of(shown) == last
    shown.keyboard.press("PageUp")
    assert f"token {len(seen.recorded('bahdanau')['steps'])} of" in told(shown)[0] and told(shown)[0].endswith("scores")
    shown.keyboard.press("PageUp")
    assert f"token {len(seen.recorded('bahdanau')['steps']) - 1} of" in told(shown)[0] and told(shown)[0].endswith("scores")
    shown.keyboard.press("Home")
    assert step_of(shown) == 0
    shown.keyboard.press("PageDown")
    assert " token 1 of" in told(shown)[0]
    shown.focus("#slider")
    shown.keyboard.press("ArrowRight")  # the slider's own, once
    assert told(shown)[0].endswith("softmax")


def test_each_step_of_an_attentive_decoder_shows_what_it_computes(show):
    shown, found = show("luong"), seen.recorded("luong")
    shown.click("#word-next")
    for name in ("scores", "softmax", "weighted sum", "joined", "next word"):
        assert told(shown)[0].endswith(name)
        ready = {"scores": 1, "softmax": 2, "weighted sum": 3, "joined": 4, "next word": 5}[name]
        assert shown.locator("#source tbody tr:first-child td:nth-of-type(2) .later").count() == 0
        assert (shown.locator("#source tbody tr:first-child td:nth-of-type(3) .later").count() == 0) == (ready >= 2)
        assert shown.locator("#likely li").count() == (8 if ready == 5 else 0)
        shown.click("#next")
    assert f"{found['steps'][0]['chosen']}" in shown.inner_text("#so-far")


@pytest.mark.parametrize("name", ["transformer", "bahdanau"])
def test_cells_have_the_models_weights(show, name):
    shown = show(name)
    cells = shown.eval_on_selector_all("#alignment td.c", WEIGHTS)
    flat = [weight for row in seen.recorded(name)["alignment"]["weights"] for weight in row]
    assert len(cells) == len(flat) and max(abs(a - b) for a, b in zip(cells, flat, strict=True)) < 1e-6
    shown.locator("#alignment td.c").nth(1).hover()
    assert f"{flat[1]:.3f}"[:4] in shown.inner_text("#alignment .readout")


def test_heads_are_enlarged_on_selection(show):
    shown, found = show("transformer"), seen.recorded("transformer")["attention"]
    assert shown.locator(".mini").count() == sum(len(each["heads"]) for each in found)
    second = shown.locator(".mini").nth(1)
    second.click()
    cells = shown.eval_on_selector_all("#heads .large td.c", WEIGHTS)
    flat = [weight for row in found[0]["heads"][1] for weight in row]
    assert cells[: len(flat)] == pytest.approx(flat, abs=1e-6) and second.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("name", ["bag", "elman"])
def test_a_fixed_context_says_that_it_has_no_attention(show, name):
    shown = show(name)
    assert "has no attention" in shown.inner_text("#alignment") and shown.locator("#alignment table").count() == 0
    assert "The one vector" in shown.inner_text("#inside") and not shown.is_visible("#heads")


@pytest.mark.parametrize("name", seen.cases(KINDS))
def test_axe_finds_nothing(show, name):
    for scheme, width in (("light", 1200), ("dark", 1200), ("light", 320)):
        shown = show(name, width, scheme)
        shown.evaluate(AXE)
        for press in (None, "#last"):
            if press:
                shown.click(press)
                for box in shown.locator(".toggle input").all():
                    box.check()
            violations = shown.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            assert not violations, json.dumps(
                [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in violations], indent=1
            )
        assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", ["transformer", "fixed"])
def test_a_caption_is_gone_through_word_by_word(show, kind):
    found = seen.captioned(kind)
    for scheme, width in (("light", 1200), ("dark", 320)):
        shown = show(kind, width, scheme, found, caption.page)
        labels = []
        for number, word in enumerate(found["words"]):
            assert f"Word {number + 1} of {len(found['words'])}" in shown.inner_text("#where")
            assert shown.locator("#so-far span").all_inner_texts()[-1] == word["text"] and f"{word['p']:.2f}" in told(shown)[1]
            labels.append(shown.get_attribute("#picture svg", "aria-label"))
            assert shown.locator("#minis [aria-pressed=true]").count() == 1
            if number < len(found["words"]) - 1:  # a button that is off cannot be clicked
                shown.keyboard.press("ArrowRight") if number % 2 else shown.click("#next")
        assert off(shown, "#next") and shown.locator(".veil").count() == (36 * (len(found["words"]) + 1) if kind == "transformer" else 0)
        assert kind == "fixed" or all("mostly on row" in label for label in labels)
        shown.evaluate(AXE)
        violations = shown.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert not violations, [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in violations]
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.focus("#next")
        shown.keyboard.press("Home")
        assert "Word 1 of" in shown.inner_text("#where") and off(shown, "#back")
        shown.locator(".mini").nth(1).click()
        assert "Word 2 of" in shown.inner_text("#where")
        if kind == "transformer":
            shown.select_option("#layer", "0")
            weights, veil = found["words"][1]["layers"][0], "veils => veils.map(veil => Number(veil.getAttribute('fill-opacity')))"
            expected = [0.78 * (1 - weight / max(weights)) for weight in weights]
            assert shown.eval_on_selector_all("#picture .veil", veil) == pytest.approx(expected, abs=1e-3)

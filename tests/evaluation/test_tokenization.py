"""BLEU's tokenizer, chosen by the script of the references and the code of their language."""

import typing

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers import tokenizer_spm

from jaxnmt.data.vocabulary import stays_split
from jaxnmt.errors import UserError
from jaxnmt.evaluation import tokenization
from jaxnmt.evaluation.scores import bleu, metric
from jaxnmt.evaluation.tokenization import Tokenize, choose, script_of

TEXT = {
    "Latin": "Ein Mann sieht zwei Hunde im Park.",
    "Cyrillic": "Мужчина видит двух собак в парке.",
    "Devanagari": "एक आदमी पार्क में दो कुत्तों को देखता है।",
    "Arabic": "رجل يرى كلبين في الحديقة.",
    "Han": "一个男人在公园里看到两只狗。",
    "Japanese": "男性が公園で二匹の犬を見ています。",
    "Hangul": "한 남자가 공원에서 개 두 마리를 봅니다.",
    "Thai": "ชายคนหนึ่งเห็นสุนัขสองตัวในสวนสาธารณะ",
    "Lao": "ຜູ້ຊາຍຄົນຫນຶ່ງເຫັນຫມາສອງໂຕຢູ່ໃນສວນສາທາລະນະ",
    "Khmer": "បុរសម្នាក់ឃើញឆ្កែពីរក្បាលនៅក្នុងឧទ្យាន",
    "Myanmar": "လူတစ်ယောက်သည်ပန်းခြံထဲတွင်ခွေးနှစ်ကောင်ကိုမြင်သည်။",
    "Tibetan": "མི་ཞིག་གིས་གླིང་ཁའི་ནང་དུ་ཁྱི་གཉིས་མཐོང་།",
    "Javanese": "ꦮꦺꦴꦁꦭꦤꦁꦤꦺꦴꦤ꧀ꦠꦺꦴꦤ꧀ꦱꦼꦒꦮꦺꦴꦤ꧀ꦭꦺꦴꦫꦺꦴ",
}
CHARACTERS = ("Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese")


@pytest.fixture(autouse=True)
def with_mecab(monkeypatch):
    monkeypatch.setattr(tokenization, "_installed", lambda *modules: True)


@pytest.mark.parametrize("script", TEXT)
def test_scripts_are_told_apart(script):
    assert script_of([TEXT[script]]) == script_of(["", "1, 2 – 3!", TEXT[script]]) == script


def test_half_width_katakana_is_japanese():
    assert script_of(["ｺﾝﾋﾟｭｰﾀ ﾉ ﾌﾟﾛｸﾞﾗﾑ"]) == "Japanese"


def test_a_script_without_spaces_decides_among_foreign_names_and_quotations_do_not():
    assert script_of([TEXT["Han"] + " Transformer, Python"]) == "Han"
    assert script_of([TEXT["Latin"] * 9 + "„中国“"]) == "Latin"
    assert script_of([TEXT["Han"] * 9 + "の"]) == "Han"
    assert script_of(["", "12 %", "…"]) == ""


@pytest.mark.parametrize(
    ("language", "script", "name"),
    [
        *[(code, "Latin", "13a") for code in ("de", "", "tr", "jv", "sr-Latn")],
        *[("ru", "Cyrillic", "13a"), ("hi", "Devanagari", "13a"), ("", "Arabic", "13a")],
        *[(code, "Han", "zh") for code in ("zh", "zh_CN", "zho_Hans", "ZH-Hant-HK", "cmn", "yue")],
        *[("ja", "Japanese", "ja-mecab"), ("jpn_Jpan", "Japanese", "ja-mecab"), ("ja", "Han", "ja-mecab")],
        *[("ko", "Hangul", "ko-mecab"), ("ko", "Han", "ko-mecab")],
        *[(code, script, "char") for code, script in zip(("th", "lo", "khm_Khmr", "mya", "bo"), CHARACTERS, strict=False)],
    ],
)
def test_code_and_script_agree_and_nothing_is_said_of_them(language, script, name):
    found = choose(language, [TEXT[script]])
    assert found.name == name and "labelled" not in found.note and "not named" not in found.note
    assert choose(language, ["12.", ""]).name == (name if script != "Latin" else "13a")  # no letters: the code decides


@pytest.mark.parametrize(
    ("language", "script", "name"),
    [
        *[("", "Han", "zh"), ("", "Japanese", "ja-mecab"), ("", "Hangul", "ko-mecab"), *[("", script, "char") for script in CHARACTERS]],
        *[("de", "Han", "zh"), ("zh", "Japanese", "ja-mecab"), ("zh", "Latin", "13a"), ("th", "Latin", "13a"), ("jv", "Javanese", "char")],
    ],
)
def test_where_the_code_is_missing_or_wrong_the_script_decides_and_that_is_said(language, script, name):
    found = choose(language, [TEXT[script]])
    line = found.note
    assert found.name == name and f"{script} script" in line and line.endswith(f"BLEU's tokenizer is {name}, by the script")
    assert (f"labelled {language}" if language else "not named") in line


@pytest.mark.parametrize("script", ["Han", *CHARACTERS])
def test_text_without_spaces_is_scored_by_more_than_whole_lines(script):
    """Half of the characters agree: 13a finds one word a line, and no word that agrees."""
    reference = TEXT[script]
    hypothesis = reference[: len(reference) // 2] + reference[: len(reference) // 2][::-1]
    assert bleu([hypothesis], [[reference]], "13a").value == 0
    assert bleu([hypothesis], [[reference]], choose("", [reference]).name).value > 20


def test_what_ter_and_chrf_do_without_spaces_is_said():
    assert "Thai script has no spaces between words" in choose("th", [TEXT["Thai"]]).other_metrics
    assert choose("de", [TEXT["Latin"]]).other_metrics == choose("ko", [TEXT["Hangul"]]).other_metrics == ""
    assert choose("zh", ["一个 男人"], "none") == ("none", "", "")  # spaces divide its words


def test_without_mecab_characters_are_counted_and_that_is_said(monkeypatch):
    monkeypatch.setattr(tokenization, "_installed", lambda *modules: False)
    for code, script in (("ja", "Japanese"), ("ko", "Hangul")):
        name, note, _ = choose(code, [TEXT[script]])
        assert name == "char" and f"pip install sacrebleu[{code}]" in note
        with pytest.raises(UserError, match=rf"--tokenize {code}-mecab needs MeCab: pip install sacrebleu\[{code}\]"):
            choose(code, [TEXT[script]], f"{code}-mecab")
    assert "BLEU's tokenizer is char" in choose("", [TEXT["Japanese"]]).note


def test_the_user_decides():
    assert choose("zh", [TEXT["Han"]], "char").name == "char" and choose("de", [TEXT["Latin"]], "intl") == ("intl", "", "")
    assert "labelled" not in choose("de", [TEXT["Han"]], "zh").note
    with pytest.raises(UserError, match="--tokenize zz: sacreBLEU has no such tokenizer; it has none, zh, 13a"):
        choose("zh", [TEXT["Han"]], "zz")


def test_the_options_names_are_sacrebleus():
    assert set(typing.get_args(Tokenize)) == {"", *BLEU.TOKENIZERS} - {"spm"}  # which is flores101 by its old name


@pytest.mark.parametrize("name", ["flores101", "flores200", "spBLEU-1K"])
def test_a_model_is_used_where_it_is_at_hand_and_never_downloaded(name, monkeypatch, tmp_path):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", None)
    with pytest.raises(UserError, match=f"--tokenize {name} needs the file {tmp_path}/models/.*: download it from https://"):
        choose("th", [TEXT["Thai"]], name)
    assert choose("th", [TEXT["Thai"]]).name == "char"
    model = tmp_path / "models" / tokenizer_spm.SPM_MODELS[name]["url"].rpartition("/")[2]
    model.parent.mkdir()
    model.touch()
    assert choose("th", [TEXT["Thai"]], name).name == name
    assert choose("th", [TEXT["Thai"]]).name == "char"  # so that a score does not depend on what lies about on a computer


def test_words_that_stay_split_are_counted_as_they_stand():
    assert [stays_split(True, joiner) for joiner in ("@@ ", "", "▁", "￭")] == [True, True, False, False]
    assert not stays_split(False, "@@ ")


def test_every_name_that_is_chosen_is_a_tokenizer():
    for script, text in TEXT.items():
        name = choose("", [text]).name
        if not name.endswith("mecab"):
            assert len(metric("bleu", name).tokenizer(text).split()) > 5, script

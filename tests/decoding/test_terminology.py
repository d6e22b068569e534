"""Prefixes, constraints, forbidden phrases and terms as text: what the translation is promised to contain, and what is refused."""

import json

import pytest
import subwords

from jaxnmt.config import Decoding, replace
from jaxnmt.decoding.rules import Rules, _occurs, from_columns, from_json, rules_of_lines
from jaxnmt.decoding.terminology import Terminology, read_terminology
from jaxnmt.errors import UserError

LINES = ["haus am see", "boot", "baum im see am haus", "", "seeboot"]


@pytest.fixture(scope="module")
def translate():
    """-> a function of (lines, rules, decoding changes) over one model with subwords."""
    translator = subwords.translator()
    basic = Decoding(beam_size=4, batch_size=4, max_length_extra=5, n_best=2)

    def run(lines, rules=(), **changes):
        return translator.translate(lines, replace(basic, **changes), 1, rules)

    return run


def texts(found):
    return [[candidate.text for candidate in line] for line in found]


def test_a_term_is_whole_words_and_the_longest_first():
    terms = Terminology({"brake": "Bremse", "brake pad": "Bremsbelag|Belag", "pad, left": "links", "re": "x", "制動": "Bremse!"})
    assert terms.constraints("The brake pad, left of the brake.") == ["Bremsbelag|Belag", "Bremse"]
    assert terms.constraints("brakes; Brake; a-brake!  brake  pad") == ["Bremse", "Bremsbelag|Belag"]
    assert terms.constraints("brake brake") == ["Bremse"]
    assert terms.constraints("自動制動装置") == ["Bremse!"] and terms.constraints("") == []


def test_a_terminology_file(tmp_path):
    file = tmp_path / "terms.tsv"
    file.write_text("house\tHaus|Heim\n\n a  tree \tBaum\nhouse\tGebäude\n")
    terms = read_terminology(str(file))
    assert terms.constraints("a tree, a house") == ["Baum", "Haus|Heim|Gebäude"]


@pytest.mark.parametrize("line", ["house", "house\t", "\tHaus", "house\tHaus\tHeim", "house\tHaus|"])
def test_a_malformed_line_is_named(tmp_path, line):
    file = tmp_path / "terms.tsv"
    file.write_text(f"tree\tBaum\n{line}\n")
    with pytest.raises(UserError, match=r"terms\.tsv, line 2 is not `source phrase TAB target phrase`"):
        read_terminology(str(file))


def test_rules_without_content_are_none_to_the_bit(translate):
    plain = translate(LINES)
    assert translate(LINES, [Rules()] * 5) == plain == translate(LINES, [Rules(terminology=Terminology({"xyz": "haus"}))] * 5)


def test_text_keeps_what_is_asked(translate):
    rules = [
        Rules(prefix="im baum"),
        Rules(constraints=("seeboot", "am see|im see")),
        Rules("am", ("baumhaus im",), ("see", "boot")),
        Rules("haus", ("boot",)),
        Rules(),
    ]
    found = texts(translate(LINES, rules))
    assert all(text.startswith("im baum") for text in found[0])
    assert all("seeboot" in text and ("am see" in text or "im see" in text) for text in found[1])
    assert all(text.startswith("am") and "baumhaus im" in text for text in found[2])
    assert not any(_occurs(word, text) for text in found[2] for word in ("see", "boot"))
    assert found[3] == [""] and found[4] == texts(translate(LINES))[4]
    for row in (0, 1, 2):  # batch never matters
        assert texts(translate([LINES[row]], [rules[row]]))[0] == found[row]


def test_a_forbidden_phrase_does_not_come_back_in_other_pieces(translate):
    before = texts(translate(LINES, n_best=4))
    words = sorted({word for line in before for text in line for word in text.split()}, key=len)
    forbidden = tuple(word for word in words if word.isalnum())[:3]
    found = texts(translate(LINES, [Rules(forbidden=forbidden)] * 5, n_best=4))
    assert forbidden and any(_occurs(word, text) for line in before for text in line for word in forbidden)
    assert not any(_occurs(word, text) for line in found for text in line for word in forbidden)


def test_terms_of_a_line_are_met_also_in_parts(translate):
    terms = Terminology({"see": "seeboot", "baum": "baumhaus|hausboot"})
    long = " ".join(["haus am"] * 10 + ["see"])
    found = texts(translate(["see", "boot", "baum am see", long], [Rules(terminology=terms)] * 4, n_best=1))
    assert "seeboot" in found[0][0] and found[1] == texts(translate(["boot"], n_best=1))[0]
    assert "seeboot" in found[2][0] and ("baumhaus" in found[2][0] or "hausboot" in found[2][0]) and "seeboot" in found[3][0]
    with pytest.raises(UserError, match="line 1 is translated in parts, so its constraints have no place"):
        translate([long], [Rules(constraints=("see",))])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(constraints=("boot am",), forbidden=("boot",)), "line 2: the constraint 'boot am' cannot occur without a forbidden phrase"),
        (
            Rules(constraints=("seeboot",), forbidden=("see",)),
            "line 2: the constraint 'seeboot' contains the tokens of the forbidden phrase 'see'",
        ),
        (Rules(constraints=("|",)), "line 2: the constraint '|' has no phrase"),
        (Rules("im boot", forbidden=("boot",)), "line 2: the prefix 'im boot' has the forbidden phrase 'boot'"),
        (Rules(constraints=("Ω",)), "line 2: the vocabulary has no tokens for the constraint 'Ω'"),
    ],
)
def test_what_cannot_be_met_is_refused(translate, rules, message):
    with pytest.raises(UserError, match=message):
        translate(["see", "haus"], [Rules(), rules])


def test_rules_for_all_lines_or_for_each():
    assert rules_of_lines(2, "a", ["b", "c"], "d") == [Rules("a", ("b", "c"), ("d",))] * 2
    assert rules_of_lines(2, ["a", ""], [["b"], []], ()) == [Rules("a", ("b",)), Rules()]
    with pytest.raises(UserError, match="prefix has 1 entries for 2 lines"):
        rules_of_lines(2, ["a"], (), ())
    assert Rules("a", ("b",), ("c",)).with_own(Rules("x", ("y",))) == Rules("x", ("b", "y"), ("c",))


def test_lines_of_json():
    line = {"text": "a\nb", "prefix": "c", "constraints": ["d|e"], "forbidden": ["f"]}
    assert from_json(json.dumps(line), 1) == ("a b", Rules("c", ("d|e",), ("f",)))
    assert from_json('{"text": "a"}', 1) == ("a", Rules()) and from_json("", 2) == ("", Rules())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a b", "line 7 is not JSON"),
        ('["a"]', "line 7 is not an object with a text"),
        ('{"prefix": "a"}', "line 7 is not an object with a text"),
        ('{"text": "a", "constraint": ["b"]}', "line 7 has an unknown field constraint; did you mean constraints"),
        ('{"text": "a", "constraints": "b"}', "field constraints of line 7"),
        ('{"text": "a", "forbidden": [1]}', "field forbidden of line 7"),
    ],
)
def test_a_line_that_is_not_such_json_is_refused(line, message):
    with pytest.raises(UserError, match=message):
        from_json(line, 7)


def test_lines_of_two_columns():
    assert from_columns("a b\tc d", 1) == ("a b", Rules("c d")) and from_columns("a\t", 1) == ("a", Rules())
    assert from_columns("\tc", 1) == ("", Rules("c")) and from_columns("", 1) == ("", Rules())
    for line, count in (("a b", 1), ("a\tb\t", 3)):
        with pytest.raises(UserError, match=f"line 7 has {count} columns, and --prefix-column needs 2: write source, tab, prefix"):
            from_columns(line, 7)

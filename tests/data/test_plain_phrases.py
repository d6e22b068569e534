"""Plain sentences of the embedded corpus: numbers, amounts and times alone, and short clauses; what the quickstart makes of them."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from data import plain_probe

from jaxnmt.data import phrases
from jaxnmt.data.phrases import _SENTENCE as SENTENCE
from jaxnmt.data.phrases import meaning as m
from jaxnmt.data.phrases.drawing import draw

ROOT = pathlib.Path(__file__).parents[2]
TRAINING = range(4000)


def alone(part, kind="", **values):
    return m.Clause(m.Form("alone", extras=(part,), time=kind), "", values)


def clause(frame, tense="present", omits=(), who="", **values):
    return m.Clause(m.Form(frame, tense == "future", present=tense == "present", omits=tuple(omits)), who, values)


ALONE = [
    (alone("number", number=102), "one hundred and two | cent deux | einhundertzwei | ciento dos | yüz iki"),
    (alone("number", number=0), "zero | zéro | null | cero | sıfır"),
    (alone("number", number=1), "one | un | eins | uno | bir"),
    (alone("number", number=1001), "one thousand and one | mille un | eintausendeins | mil uno | bin bir"),
    (alone("number", number=21_000), "twenty-one thousand | vingt et un mille | einundzwanzigtausend | veintiún mil | yirmi bir bin"),
    (
        alone("number", number=301_000),
        "three hundred and one thousand | trois cent un mille | dreihunderteintausend | trescientos un mil | üç yüz bir bin",
    ),
    (alone("ordinal", number=14), "fourteenth | quatorzième | vierzehnte | decimocuarto | on dördüncü"),
    (alone("ordinal", number=18), "eighteenth | dix-huitième | achtzehnte | decimoctavo | on sekizinci"),
    (
        alone("things", things=(200, "chair", "red")),
        "two hundred red chairs | deux cents chaises rouges | zweihundert rote Stühle | doscientas sillas rojas | iki yüz kırmızı sandalye",
    ),
    (alone("money", money=(80, "EUR")), "eighty euros | quatre-vingts euros | achtzig Euro | ochenta euros | seksen euro"),
    (alone("duration", duration=(3, "week")), "three weeks | trois semaines | drei Wochen | tres semanas | üç hafta"),
    (
        alone("kilometers", kilometers=40),
        "forty kilometers | quarante kilomètres | vierzig Kilometer | cuarenta kilómetros | kırk kilometre",
    ),
    (alone("time", "date", time=(1, 5)), "the first of May | le premier mai | der erste Mai | el uno de mayo | bir Mayıs"),
    (
        alone("time", "dated year", time=(3, 8, 1980)),
        "the third of August nineteen eighty | le trois août mille neuf cent quatre-vingt | der dritte August neunzehnhundertachtzig"
        " | el tres de agosto de mil novecientos ochenta | üç Ağustos bin dokuz yüz seksen",
    ),
    (alone("time", "weekday", time=(0, 0)), "Monday morning | lundi matin | Montagmorgen | lunes por la mañana | pazartesi sabahı"),
    (alone("time", "day", time=(4,)), "Friday | vendredi | Freitag | viernes | cuma"),
    (
        alone("time", "clock", time=(3, 30)),
        "at half past three | à trois heures et demie | um halb vier | a las tres y media | saat üç buçukta",
    ),
]
CLAUSES = [
    (
        clause("live", omits=["duration"], who="baker", place="Europe/Vienna"),
        "The baker lives in Vienna. | Le boulanger vit à Vienne. | Der Bäcker lebt in Wien. | El panadero vive en Viena."
        " | Fırıncı Viyana'da yaşıyor.",
    ),
    (
        clause("buy", who="children", things=(3, "book", "")),
        "The children buy three books. | Les enfants achètent trois livres. | Die Kinder kaufen drei Bücher."
        " | Los niños compran tres libros. | Çocuklar üç kitap satın alıyor.",
    ),
    (
        clause("arrive", who="aunts", place="TR"),
        "My aunts arrive in Türkiye. | Mes tantes arrivent en Turquie. | Meine Tanten kommen in der Türkei an."
        " | Mis tías llegan a Turquía. | Teyzelerim Türkiye'ye varıyor.",
    ),
    (
        clause("wait", omits=["duration"], who="doctor"),
        "The doctor waits. | Le médecin attend. | Der Arzt wartet. | El médico espera. | Doktor bekliyor.",
    ),
    (
        clause("work", "future", omits=["duration"], who="students"),
        "The students will work. | Les étudiants travailleront. | Die Studenten werden arbeiten. | Los estudiantes trabajarán."
        " | Öğrenciler çalışacak.",
    ),
    (
        clause("travel", "past", omits=["means"], who="queen", route=("JP", "Europe/Rome")),
        "The queen traveled from Japan to Rome. | La reine a voyagé du Japon à Rome. | Die Königin ist von Japan nach Rom gereist."
        " | La reina viajó de Japón a Roma. | Kraliçe Japonya'dan Roma'ya gitti.",
    ),
    (
        clause("travel", omits=["route"], who="pilot", means="plane"),
        "The pilot travels by plane. | Le pilote voyage en avion. | Der Pilot reist mit dem Flugzeug. | El piloto viaja en avión."
        " | Pilot uçakla gidiyor.",
    ),
    (
        clause("be born", "past", omits=["time"], who="grandmother", place="PL"),
        "My grandmother was born in Poland. | Ma grand-mère est née en Pologne. | Meine Großmutter wurde in Polen geboren."
        " | Mi abuela nació en Polonia. | Büyükannem Polonya'da doğdu.",
    ),
    (
        m.Clause(m.Form("leave", time="clock", omits=("route",)), "train", {"time": (5, 0)}),
        "The train leaves at five o'clock. | Le train part à cinq heures. | Der Zug fährt um fünf Uhr ab. | El tren sale a las cinco."
        " | Tren saat beşte kalkıyor.",
    ),
    (
        clause("lose", who="friends", things=(2, "hat", "black")),
        "Our friends lose two black hats. | Nos amis perdent deux chapeaux noirs. | Unsere Freunde verlieren zwei schwarze Hüte."
        " | Nuestros amigos pierden dos sombreros negros. | Arkadaşlarımız iki siyah şapka kaybediyor.",
    ),
]


@pytest.mark.parametrize(("said", "expected"), [*ALONE, *CLAUSES])
def test_sentences_written_by_hand(said, expected):
    whole = said.form.frame != "alone"
    meaning = m.Meaning("", "", (said,), (), capital=whole, stop=whole)
    assert [sentence(meaning) for sentence in SENTENCE.values()] == expected.split(" | ")


@pytest.mark.parametrize(
    ("capital", "stop", "expected"),
    [
        (True, True, "Two hours. | Deux heures. | Zwei Stunden. | Dos horas. | İki saat."),
        (True, False, "Two hours | Deux heures | Zwei Stunden | Dos horas | İki saat"),
        (False, False, "two hours | deux heures | zwei Stunden | dos horas | iki saat"),
    ],
)
def test_a_translation_has_the_capital_and_the_full_stop_of_its_source(capital, stop, expected):
    meaning = m.Meaning("", "", (alone("duration", duration=(2, "hour")),), (), capital, stop)
    assert [sentence(meaning) for sentence in SENTENCE.values()] == expected.split(" | ")


@pytest.fixture(scope="module")
def meanings():
    return [draw("train", index, 0) for index in TRAINING]


def test_training_has_long_and_plain_sentences(meanings):
    shapes = [said.clauses[0].form for said in meanings]
    assert 0.1 < sum(shape.frame == "alone" for shape in shapes) / len(shapes) < 0.25
    assert 0.1 < sum(bool(shape.present or shape.omits) for shape in shapes) / len(shapes) < 0.4
    assert sum(len(said.clauses) > 1 for said in meanings) / len(meanings) > 0.2
    assert {(said.capital, said.stop) for said in meanings} == {(True, True), (True, False), (False, False)}
    assert {shape.extras[0] for shape in shapes if shape.frame == "alone"} == set(m.FRAMES["alone"].may)
    assert {shape.time for shape in shapes if shape.frame == "alone"} == {"", *m.FRAMES["alone"].times}


def test_every_verb_is_taught_in_every_tense_and_number(meanings):
    taught = {
        (c.form.frame, c.form.present, c.form.future, c.who in m.PLURAL) for said in meanings for c in said.clauses if c.who in m.PERSONS
    }
    verbs = set(itertools.product(m.PERSONAL, ((True, False), (False, True), (False, False)), (True, False)))
    assert {(frame, *tense, plural) for frame, tense, plural in verbs if frame != "be born"} <= taught


def test_numbers_alone_are_taught_over_their_whole_range(meanings):
    taught = {c.values["number"] for said in meanings for c in said.clauses if c.form.extras == ("number",)}
    assert {n // 10 for n in taught if n < 100} == {n // 100 for n in taught if n < 1000} == set(range(10))
    assert {n // 1000 for n in taught} >= set(range(10))
    assert all(m.split_of_lone_number(n) == "train" for n in [*range(21), *range(30, 100, 10), *range(100, 1000, 100), 1000])


def test_the_test_has_no_plain_sentence_and_validation_has(meanings):
    shapes = {split: [draw(split, index, 0).clauses[0].form for index in range(500)] for split in ("validation", "test")}
    assert not any(shape.frame == "alone" or shape.present or shape.omits for shape in shapes["test"])
    assert any(shape.frame == "alone" for shape in shapes["validation"]) and any(shape.present for shape in shapes["validation"])


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(phrases.LANGUAGES, 2)))
def test_the_probe_is_300_pairs_and_the_same_meanings_for_every_pair_of_languages(source, target):
    pairs = plain_probe.probe(source, target, ())
    english = dict(plain_probe.probe("en", source, ())) if source != "en" else {text: text for text, _ in pairs}
    assert len(dict(pairs)) == plain_probe.SENTENCES == len({text for _, text in pairs})
    assert {text for text, _ in pairs} == set(english.values())


def test_the_probe_leaves_out_what_training_has():
    trained = {text for text, _ in plain_probe.probe("en", "fr", ())[::2]}
    pairs = plain_probe.probe("en", "fr", trained)
    assert len(pairs) == plain_probe.SENTENCES and not trained & {source for source, _ in pairs}


@pytest.mark.parametrize("language", ["fr", *(pytest.param(code, marks=pytest.mark.slow) for code in ("de", "es", "tr"))])
def test_the_probe_and_the_corpus_say_the_same_where_they_meet(language, meanings):
    """Two makers with no table in common: a fault of either shows as a difference."""
    said = {SENTENCE["en"](meaning): meaning for meaning in meanings}
    pairs = dict(plain_probe.probe("en", language, (), 2000))
    both = said.keys() & pairs.keys()
    assert len(both) > 50
    assert {text: SENTENCE[language](said[text]) for text in both} == {text: pairs[text] for text in both}


EXAMPLES = {
    "one hundred and two": "cent deux",
    "The baker lives in Vienna.": "Le boulanger vit à Vienne.",
    "sixty-one": "soixante et un",
    "the third of May": "le trois mai",
    "Twenty euros.": "Vingt euros.",
}


def test_every_example_in_help_and_docs_is_asked_of_the_quickstart():
    texts = [path.read_text(encoding="utf-8") for folder in ("jaxnmt", "docs") for path in (ROOT / folder).rglob("*.[pm][yd]")]
    printed = {
        text
        for page in texts
        for text in re.findall(r'echo "(.+)" \| jaxnmt translate runs/quickstart|jaxnmt visualize runs/quickstart "(.+?)"', page)
    }
    assert printed and {re.sub("<[^>]+>", "", one or other) for one, other in printed} <= EXAMPLES.keys()


@pytest.mark.slow
def test_a_finished_quickstart_translates_plain_sentences(tmp_path):
    trained = {source for source, _ in phrases.generate("en", "fr", "train", 50_000)}
    probe = plain_probe.probe("en", "fr", trained)
    assert len(probe) == plain_probe.SENTENCES

    def jaxnmt(*words, lines=()):
        environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
        environment |= {name: str(tmp_path / "cache") for name in ("JAXNMT_CACHE", "TFDS_DATA_DIR")}
        command = [sys.executable, "-X", "utf8", "-m", "jaxnmt", *words]
        done = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in lines),
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            check=True,
            encoding="utf-8",
        )
        return done.stdout

    jaxnmt("train", "quickstart", "--run", "runs/quickstart")
    scores = json.loads(jaxnmt("evaluate", "runs/quickstart", "--json", "True"))
    assert next(metric["value"] for metric in scores["metrics"] if metric["name"] == "BLEU") >= 90
    sources = [*EXAMPLES, *(source for source, _ in probe)]
    translations = jaxnmt("translate", "runs/quickstart", lines=sources).splitlines()
    assert dict(zip(EXAMPLES, translations, strict=False)) == EXAMPLES
    wrong = [(*pair, text) for pair, text in zip(probe, translations[len(EXAMPLES) :], strict=True) if pair[1] != text]
    print(f"\n{len(probe) - len(wrong)} of {len(probe)} plain sentences translated exactly", *wrong, sep="\n")
    assert len(wrong) <= 0.05 * len(probe)

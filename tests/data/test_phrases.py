"""The embedded corpus: a function of its index; splits that keep their promises; sentences a speaker would accept."""

import itertools
import subprocess
import sys

import pytest
import sacrebleu

from jaxnmt.data import phrases
from jaxnmt.data.phrases import _SENTENCE as SENTENCE
from jaxnmt.data.phrases import meaning as m
from jaxnmt.data.phrases.drawing import draw
from jaxnmt.data.phrases.grammar import Language

PAIRS = list(itertools.permutations(phrases.LANGUAGES, 2))


def say(*clauses, joins=(), report="", reporter=""):
    said = m.Meaning(report, reporter, clauses, joins)
    return {language: sentence(said) for language, sentence in SENTENCE.items()}


def shape(frame, extras=(), time="", future=False, fronted=False):
    return m.Form(frame, future, fronted, tuple(extras), time)


def clause(form, who="", **values):
    return m.Clause(form, who, values)


BOUGHT = clause(
    shape("buy", ("money", "place", "time"), "date"),
    who="sister",
    things=(21, "chair", "red"),
    money=(80, "CHF"),
    place="TR",
    time=(1, 5),
)
ARRIVED = clause(shape("arrive", ("time",), "clock"), who="women", place="Europe/London", time=(3, 30))
TRAIN = clause(shape("leave", (), "clock"), who="train", route=("IT", "MA"), time=(12, 45))
FAR = clause(shape("distance"), route=("Europe/Istanbul", "CH"), kilometers=531)

GOLDEN = [
    (
        say(BOUGHT),
        {
            "en": "My sister bought twenty-one red chairs for eighty Swiss francs in Türkiye on the first of May.",
            "fr": "Ma sœur a acheté vingt et une chaises rouges pour quatre-vingts francs suisses en Turquie le premier mai.",
            "de": "Meine Schwester hat am ersten Mai in der Türkei einundzwanzig rote Stühle für achtzig Schweizer Franken gekauft.",
            "es": "Mi hermana compró veintiuna sillas rojas por ochenta francos suizos en Turquía el uno de mayo.",
            "tr": "Kız kardeşim bir Mayıs'ta Türkiye'de seksen İsviçre frangına yirmi bir kırmızı sandalye satın aldı.",
        },
    ),
    (
        say(ARRIVED),
        {
            "en": "The women arrived in London at half past three.",
            "fr": "Les femmes sont arrivées à Londres à trois heures et demie.",
            "de": "Die Frauen sind um halb vier in London angekommen.",
            "es": "Las mujeres llegaron a Londres a las tres y media.",
            "tr": "Kadınlar saat üç buçukta Londra'ya vardı.",
        },
    ),
    (
        say(BOUGHT, ARRIVED, joins=("when",)),
        {
            "en": "My sister bought twenty-one red chairs for eighty Swiss francs in Türkiye on the first of May"
            " when the women arrived in London at half past three.",
            "fr": "Ma sœur a acheté vingt et une chaises rouges pour quatre-vingts francs suisses en Turquie le premier mai"
            " quand les femmes sont arrivées à Londres à trois heures et demie.",
            "de": "Meine Schwester hat am ersten Mai in der Türkei einundzwanzig rote Stühle für achtzig Schweizer Franken gekauft,"
            " als die Frauen um halb vier in London angekommen sind.",
            "es": "Mi hermana compró veintiuna sillas rojas por ochenta francos suizos en Turquía el uno de mayo"
            " cuando las mujeres llegaron a Londres a las tres y media.",
            "tr": "Kadınlar saat üç buçukta Londra'ya vardığında kız kardeşim bir Mayıs'ta Türkiye'de seksen İsviçre frangına"
            " yirmi bir kırmızı sandalye satın aldı.",
        },
    ),
    (
        say(TRAIN, FAR, joins=("because",), report="say", reporter="engineer"),
        {
            "en": "The engineer says that the train from Italy to Morocco leaves at a quarter to one because it is"
            " five hundred and thirty-one kilometers from Istanbul to Switzerland.",
            "fr": "L'ingénieur dit que le train d'Italie au Maroc part à une heure moins le quart parce qu'il y a"
            " cinq cent trente et un kilomètres d'Istanbul en Suisse.",
            "de": "Der Ingenieur sagt, dass der Zug von Italien nach Marokko um Viertel vor eins abfährt, weil es von Istanbul"
            " in die Schweiz fünfhunderteinunddreißig Kilometer sind.",
            "es": "El ingeniero dice que el tren de Italia a Marruecos sale a la una menos cuarto porque hay"
            " quinientos treinta y un kilómetros de Estambul a Suiza.",
            "tr": "Mühendis, İtalya'dan Fas'a giden trenin saat bire çeyrek kala kalktığını söylüyor, çünkü İstanbul'dan İsviçre'ye"
            " beş yüz otuz bir kilometre var.",
        },
    ),
    (
        say(
            clause(
                shape("travel", ("time",), "weekday", future=True, fronted=True),
                "children",
                route=("JP", "Asia/Tokyo"),
                means="car",
                time=(2, 1),
            ),
            clause(shape("population"), people=200_000, place="Europe/Prague"),
            joins=("but",),
        ),
        {
            "en": "On Wednesday afternoon, the children will travel from Japan to Tokyo by car,"
            " but two hundred thousand people live in Prague.",
            "fr": "Mercredi après-midi, les enfants voyageront du Japon à Tokyo en voiture,"
            " mais deux cent mille personnes vivent à Prague.",
            "de": "Am Mittwochnachmittag werden die Kinder mit dem Auto von Japan nach Tokio reisen, aber in Prag leben"
            " zweihunderttausend Menschen.",
            "es": "El miércoles por la tarde los niños viajarán de Japón a Tokio en coche, pero en Praga viven doscientas mil personas.",
            "tr": "Çarşamba öğleden sonra çocuklar arabayla Japonya'dan Tokyo'ya gidecek, ama Prag'da iki yüz bin kişi yaşıyor.",
        },
    ),
    (
        say(
            clause(shape("be born", (), "dated year"), "aunts", place="BR", time=(3, 8, 1980)),
            report="know",
            reporter="friends",
        ),
        {
            "en": "Our friends know that my aunts were born in Brazil on the third of August nineteen eighty.",
            "fr": "Nos amis savent que mes tantes sont nées au Brésil le trois août mille neuf cent quatre-vingt.",
            "de": "Unsere Freunde wissen, dass meine Tanten am dritten August neunzehnhundertachtzig in Brasilien geboren wurden.",
            "es": "Nuestros amigos saben que mis tías nacieron en Brasil el tres de agosto de mil novecientos ochenta.",
            "tr": "Arkadaşlarımız, teyzelerimin üç Ağustos bin dokuz yüz seksen tarihinde Brezilya'da doğduğunu biliyor.",
        },
    ),
    (
        say(clause(shape("cost"), things=(200, "book", "new"), money=(81, "GBP")), report="write", reporter="queen"),
        {
            "en": "The queen writes that two hundred new books cost eighty-one British pounds.",
            "fr": "La reine écrit que deux cents nouveaux livres coûtent quatre-vingt-une livres sterling.",
            "de": "Die Königin schreibt, dass zweihundert neue Bücher einundachtzig Britische Pfund kosten.",
            "es": "La reina escribe que doscientos nuevos libros cuestan ochenta y una libras esterlinas.",
            "tr": "Kraliçe, iki yüz yeni kitabın seksen bir İngiliz sterlini tuttuğunu yazıyor.",
        },
    ),
    (
        say(
            clause(shape("clock", (), "clock"), time=(12, 50)),
            clause(shape("wait", future=True), "brother", duration=(2, "week")),
            clause(shape("last"), "exam", duration=(3, "hour")),
            joins=("and", "while"),
        ),
        {
            "en": "It is ten to one and my brother will wait for two weeks, while the exam lasts three hours.",
            "fr": "Il est une heure moins dix et mon frère attendra pendant deux semaines, tandis que l'examen dure trois heures.",
            "de": "Es ist zehn vor eins, und mein Bruder wird zwei Wochen lang warten, während die Prüfung drei Stunden dauert.",
            "es": "Es la una menos diez y mi hermano esperará durante dos semanas, mientras que el examen dura tres horas.",
            "tr": "Saat bire on var ve erkek kardeşim iki hafta boyunca bekleyecek, oysa sınav üç saat sürüyor.",
        },
    ),
]


@pytest.mark.parametrize("language", phrases.LANGUAGES)
@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_sentences_written_by_hand(number, language):
    said, expected = GOLDEN[number]
    assert said[language] == expected[language]


def test_turkish_suffixes_follow_the_vowels():
    def written(*words):
        return [Language("tr").corrected("suffix", word) for word in words]

    assert written("Paris'+DA", "Ocak'+DA", "Eylül'+DA", "üç+DA", "dört+DAn") == ["Paris'te", "Ocak'ta", "Eylül'de", "üçte", "dörtten"]
    assert written("Roma'+A", "Berlin'+A", "Brüksel'+A", "euro+nA", "frangı+nA") == [
        "Roma'ya",
        "Berlin'e",
        "Brüksel'e",
        "euroya",
        "frangına",
    ]
    assert written("doktor+In", "kraliçe+In", "komşumuz+In", "kitap+In") == ["doktorun", "kraliçenin", "komşumuzun", "kitabın"]


@pytest.mark.parametrize("split", m.SPLITS)
def test_a_pair_depends_on_its_index_alone(split):
    forwards = list(phrases.generate("en", "fr", split, 60))
    backwards = [phrases.pair("en", "fr", split, index) for index in reversed(range(60))]
    assert forwards == backwards[::-1]
    assert phrases.pair("en", "fr", split, 10**15) == phrases.pair("en", "fr", split, 10**15)


def test_another_process_says_the_same():
    code = "from jaxnmt.data.phrases import generate; print(list(generate('de', 'tr', 'test', 20, seed=3)))"
    command = [sys.executable, "-X", "utf8", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout.strip() == str(
        list(phrases.generate("de", "tr", "test", 20, seed=3))
    )


def test_seeds_and_splits_are_different_sentences():
    texts = [list(phrases.generate("en", "fr", split, 50, seed)) for split in m.SPLITS for seed in (0, 1)]
    assert all(one != other for one, other in itertools.combinations(texts, 2))


def test_all_languages_say_the_same_thing():
    for index in range(100):
        pivot = {phrases.pair("en", language, "train", index)[0] for language in ("fr", "de", "es", "tr")}
        assert len(pivot) == 1
        assert phrases.pair("en", "de", "train", index)[1] == phrases.pair("de", "es", "train", index)[0]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_copying_the_source_scores_under_one(source, target):
    sources, targets = zip(*phrases.generate(source, target, "test", 200), strict=True)
    assert sacrebleu.corpus_bleu(sources, [targets]).score < 1


@pytest.mark.parametrize("language", phrases.LANGUAGES)
def test_a_sentence_has_one_translation(language):
    """A sentence that comes twice means the same: in each language, text and English text determine one another."""
    other = "fr" if language == "en" else "en"
    pairs = set(phrases.generate(language, other, "train", 6000))
    assert len({source for source, _ in pairs}) == len(pairs) == len({target for _, target in pairs})


def test_no_test_or_validation_sentence_is_in_training():
    sources = {split: {source for source, _ in phrases.generate("en", "fr", split, 12_000)} for split in m.SPLITS}
    assert not sources["train"] & sources["test"]
    assert not sources["train"] & sources["validation"]
    assert not sources["validation"] & sources["test"]


def values(clause):
    """The values of a clause that belong to one split, each as (kind, value)."""
    has = clause.values
    found = [("amount", has[part][:2]) for part in ("things", "money", "duration") if part in has]
    found += [("adjective", has["things"][1:])] if "things" in has else []
    found += [("number", has[part]) for part in ("kilometers", "people") if part in has]
    found += [("alone", has["number"])] if clause.form.extras == ("number",) else []
    found += [("route", has["route"])] if "route" in has else []
    found += [("place", (clause.who, has["place"]))] if "place" in has and clause.who else []
    if clause.form.time == "year":
        found.append(("number", has["time"][0]))
    elif "time" in has and clause.form.time != "day":
        found.append((clause.form.time.removeprefix("dated year") or "date", has["time"][:2]))
    return found


def test_values_live_in_one_split():
    seen = {split: {value for i in range(3000) for c in draw(split, i, 0).clauses for value in values(c)} for split in m.SPLITS}
    for one, other in itertools.combinations(m.SPLITS, 2):
        assert not seen[one] & seen[other]
    ranges = {value[1] for value in seen["test"] if value[0] == "number"}
    assert ranges and all(n // 10 % 7 == 6 for n in ranges)
    trained = {value[1] for value in seen["train"] if value[0] == "number"}
    assert trained and not any(n // 10 % 7 in (3, 6) for n in trained)


def template(said):
    return said.report, [clause.form for clause in said.clauses], said.joins


def pieces(plan):
    report, forms, joins = plan
    frames = [*([report] if report else []), *(shape.frame for shape in forms)]
    joins = [*(["that"] if report else []), *joins]
    return {*forms, *zip(frames, joins, frames[1:], strict=False)}


def test_every_test_sentence_has_a_template_that_training_never_has():
    trained = set().union(*(pieces(template(draw("train", index, 0))) for index in range(8000)))
    for index in range(500):
        assert pieces(template(draw("test", index, 0))) - trained
        assert not m.is_held_out(*template(draw("validation", index, 0)))


def test_training_knows_every_word_of_the_test():
    """What is new in the test is the company that words keep, not the words.

    German and Turkish put words together and inflect them, so that only parts of words can be promised there.
    """
    for source, target in (("en", "fr"), ("es", "en")):
        for side in (0, 1):
            words = {
                split: {
                    word
                    for pair in phrases.generate(source, target, split, 8000 if split == "train" else 800)
                    for word in split_words(pair[side])
                }
                for split in m.SPLITS
            }
            assert words["test"] <= words["train"]
            assert words["validation"] <= words["train"]


def split_words(text):
    return text.lower().replace("-", " ").replace(",", "").replace(".", "").replace("'", "' ").split()


def test_sentences_are_short_and_long_and_every_clause_is_taught():
    lengths = [len(source.split()) for source, _ in phrases.generate("en", "fr", "train", 2000)]
    assert min(lengths) == 1 and max(lengths) >= 30 and max(lengths) < 60
    taught = {clause.form.frame for index in range(2000) for clause in draw("train", index, 0).clauses}
    assert taught == set(m.FRAMES)


def test_importing_it_imports_no_dictionary():
    code = "import sys, jaxnmt.data.phrases; print([name for name in ('babel', 'num2words', 'jax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

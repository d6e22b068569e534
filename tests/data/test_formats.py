"""Files of translators and of corpora as sources: the pairs that stand in them, what is left out, and hostile files."""

import bz2
import gzip
import io
import lzma
import random
import resource
import struct
import subprocess
import sys
import zipfile

import pytest
from babel.messages import mofile, pofile

from jaxnmt.config import Data, Experiment, Tokenizer, replace
from jaxnmt.config.files import with_absolute_paths
from jaxnmt.data.cleaning import check
from jaxnmt.data.prepared import prepare
from jaxnmt.data.sources import open_sources, sources_of
from jaxnmt.errors import UserError

TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en-US"><seg>Push <bpt i="1">&lt;b></bpt>th<hi>is</hi><ept i="1">&lt;/b></ept> &amp; go</seg></tuv>
<tuv xml:lang="de"><note>no</note><seg>Drücken
Sie</seg></tuv><tuv xml:lang="fr"><seg>Appuyez</seg></tuv></tu>
<tu><tuv xml:lang="en-US"><seg>Stop</seg></tuv><tuv xml:lang="fr"><seg>Arrêt</seg></tuv></tu>
</body></tmx>"""
PO = r"""# A catalog.
msgid ""
msgstr ""
"Language: it\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: a.c:1
#, c-format
msgid "Open \"%s\""
msgstr ""
"Apri "
"\"%s\""

#, fuzzy
msgid "doubtful"
msgstr "incerto"

msgctxt "menu"
msgid "new"
msgstr ""

msgid "one file"
msgid_plural "%d files"
msgstr[0] "un file"
msgstr[1] "%d file"

#~ msgid "old"
#~ msgstr "vecchio"
"""
XLIFF_1 = """<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
<file source-language="en" target-language="fr" datatype="plaintext" original="x"><body>
<trans-unit id="1"><source>Hi <g id="1">you</g> <ph id="2">%s</ph></source><target state="final">Salut</target>
<alt-trans><source>no</source><target>non</target></alt-trans></trans-unit>
<group><trans-unit id="2"><source>untranslated</source></trans-unit></group>
<trans-unit id="3"><source>Hi</source><target state="needs-translation">Hi</target></trans-unit>
</body></file></xliff>"""
XLIFF_2 = """<x:xliff version="2.0" srcLang="en" trgLang="fr" xmlns:x="urn:oasis:names:tc:xliff:document:2.0">
<x:file id="f"><x:unit id="1"><x:notes><x:note>no</x:note></x:notes>
<x:segment><x:source>Hi <x:pc id="1">you</x:pc></x:source><x:target>Salut</x:target></x:segment>
<x:ignorable><x:source> </x:source><x:target> </x:target></x:ignorable>
<x:segment state="initial"><x:source>Hi</x:source><x:target>Hi</x:target></x:segment></x:unit></x:file></x:xliff>"""
OPUS = {"README": "about", "Books.en-tr.en": "one\ntwo\n", "Books.en-tr.tr": "bir\niki", "Books.en-tr.ids": "1\n2\n"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def archive(name, members, **options):
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members.items():
            file.writestr(member, content, **options)


def parquet(name, columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    name.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), name)


def opened(word, languages=("", ""), min_score=None):
    (source,) = open_sources((word,), "data.train", languages=languages, min_score=min_score)
    return source


def text(source):
    return [(a.decode(), b.decode()) for a, b in source.pairs()]


def failure(word, languages=("", ""), min_score=None):
    with pytest.raises(UserError) as caught:
        list(opened(word, languages, min_score).pairs())
    message = str(caught.value)
    assert message.startswith("data.train") and "\n" not in message and len(message) < 400
    return message


# ---- what is read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_a_translation_memory_without_its_tags(here, encoding):
    (here / "m.tmx").write_bytes(TMX.format(encoding=encoding).encode(encoding))
    source = opened("m.tmx")
    assert text(source) == [("Push this & go", "Drücken Sie")] and source.languages == ("en-US", "de")
    assert source.left_out() == {"without en-US or de": 1} and source.where(0) == "m.tmx:4"


def test_languages_of_a_translation_memory_are_chosen(here):
    (here / "m.tmx").write_text(TMX.format(encoding="utf-8"))
    assert text(opened("m.tmx", ("en", "fr"))) == [("Push this & go", "Appuyez"), ("Stop", "Arrêt")]
    assert text(opened("m.tmx", ("fr", "en"))) == [("Appuyez", "Push this & go"), ("Arrêt", "Stop")]
    assert opened("m.tmx", ("", "fr")).languages == ("en-US", "fr") and opened("m.tmx", ("de", "")).languages == ("de", "en-US")
    assert "has no pairs; it has 2 without en-GB or fr" in failure("m.tmx", ("en-GB", "fr"))


def test_languages_of_the_first_unit_that_has_two(here):
    (here / "m.tmx").write_text(TMX.format(encoding="utf-8").replace("<body>", "<body><tu><tuv xml:lang='cs'><seg>a</seg></tuv></tu>"))
    assert opened("m.tmx").languages == ("en-US", "de")
    assert "has no unit in two languages, one of them cs" in failure("m.tmx", ("", "cs"))
    (here / "m.tmx").write_text(TMX.format(encoding="utf-8").replace("xml:lang", "of"))
    assert "set data.source_language and data.target_language" in failure("m.tmx")


def test_a_catalog_without_what_is_fuzzy_or_empty(here):
    (here / "it.po").write_text(PO)
    source = opened("it.po")
    expected = [('Open "%s"', 'Apri "%s"'), ("one file", "un file"), ("%d files", "%d file")]
    assert text(source) == expected and source.languages == ("", "it")
    assert source.left_out() == {"fuzzy": 1, "untranslated": 1}
    assert source.where(0) == "it.po:10" and PO.splitlines()[9].startswith('msgid "Open')
    (here / "site.mo.po").write_text(PO)
    assert text(opened("site.mo.po")) == expected
    with open("it.mo", "wb") as file:
        mofile.write_mo(file, pofile.read_po(io.StringIO(PO)))
    assert sorted(text(opened("it.mo"))) == sorted(expected) and opened("it.mo").languages == ("", "it")


def test_the_language_of_a_catalog_decides_on_its_sides(here):
    (here / "it.po").write_text(PO)
    assert ("one file", "un file") in text(opened("it.po", ("en", "it"))) and opened("it.po", ("en", "")).languages == ("en", "it")
    assert ("un file", "one file") in text(opened("it.po", ("it", "en"))) and opened("it.po", ("it", "")).languages == ("it", "")
    assert "it.po is in the language it, not en or fr" in failure("it.po", ("en", "fr"))


@pytest.mark.parametrize(("content", "line"), [(XLIFF_1, 3), (XLIFF_2, 3)])
def test_xliff_without_proposals_and_unfinished_targets(here, content, line):
    (here / "x.xlf").write_text(content)
    source = opened("x.xlf")
    assert text(source) == [("Hi you", "Salut")] and source.languages == ("en", "fr") and source.where(0) == f"x.xlf:{line}"
    assert source.left_out() == ({"untranslated": 1} if content is XLIFF_1 else {}) | {"not final": 1}
    assert text(opened("x.xlf", ("fr", "en"))) == [("Salut", "Hi you")]
    assert "is of the languages en and fr, not de and fr" in failure("x.xlf", ("de", "fr"))


def test_a_zip_archive_of_opus(here):
    archive("en-tr.zip", OPUS)
    source = opened("en-tr.zip@2")
    assert text(source) == [("one", "bir"), ("two", "iki")] and source.languages == ("en", "tr") and source.weight == 2
    assert list(source.pairs(1)) == [(b"two", b"iki")] and source.where(1) == "en-tr.zip: Books.en-tr.en:2 / Books.en-tr.tr:2"
    assert text(opened("en-tr.zip", ("tr", "en"))) == [("bir", "one"), ("iki", "two")]


def test_a_zip_archive_of_moses_and_one_of_several_pairs(here):
    archive("m.zip", {"corpus/train.de": "eins", "corpus/train.en": "one"})
    assert text(opened("m.zip")) == [("eins", "one")] and text(opened("m.zip", ("en", "de"))) == [("one", "eins")]
    archive("s.zip", {f"X.{pair}.{code}": code for pair in ("de-en", "en-fr") for code in pair.split("-")})
    assert text(opened("s.zip", ("en", "fr"))) == [("en", "fr")]
    assert "has 2 pairs of text files, X.de-en.de and X.de-en.en, X.en-fr.en and X.en-fr.fr" in failure("s.zip")
    assert "has no pair of the languages en and tr" in failure("s.zip", ("en", "tr"))


def test_a_folder_of_parquet(here):
    rows = [{"en": "one", "de": "eins"}, {"en": "two", "de": None}, {"en": "three", "de": "drei"}]
    for number, some in enumerate((rows[:2], rows[2:])):
        parquet(here / f"books/data/train-0000{number}-of-00002.parquet", {"id": [0] * len(some), "translation": some})
    parquet(here / "books/data/test-00000-of-00001.parquet", {"id": [7], "de": ["vier"], "en": ["four"]})
    source = opened("books:train")
    assert text(source) == [("one", "eins"), ("three", "drei")] and source.languages == ("en", "de")
    assert source.left_out() == {"without a side": 1} and source.where(1).endswith("train-00001-of-00002.parquet row 1")
    assert text(opened("books:test", ("en", "de"))) == [("four", "vier")]
    assert "name one of its splits, such as books:test (test, train)" in failure("books") and "books:val" in failure("books:val")
    assert "has no text in fr; it has en, de" in failure("books:train", ("en", "fr"))
    named = with_absolute_paths(replace(Experiment(), **{"data.train": ("books:train@2", "x:train")}))
    assert named.data.train == (f"{here}/books:train@2", "x:train")  # so a run resumes from any folder


def test_a_folder_that_datasets_has_saved(here):
    pyarrow = pytest.importorskip("pyarrow")
    (here / "saved").mkdir()
    table = pyarrow.table({"translation": [{"en": "one", "de": "eins"}]})
    with pyarrow.ipc.new_stream("saved/data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    assert text(opened("saved")) == [("one", "eins")]


def test_scores_in_the_third_column(here):
    (here / "s.tsv").write_text("a\tA\t0.5\tmore\nb\tB\t0.75\nc\tC\t-1e3\n\n")
    source = opened("s.tsv", min_score=0.75)
    assert text(source) == [("b", "B")] and source.left_out() == {"with a score below 0.75": 2} and source.where(0) == "s.tsv:2"
    assert len(opened("s.tsv", min_score=-5000.0)) == 3 and len(opened("s.tsv")) == 3
    for wrong in ("a\tA", "a\tA\tx", "a\tA\tnan", "\nb\tB\t1"):
        (here / "s.tsv").write_text(f"a\tA\t1\n{wrong}\n")
        assert "s.tsv:2 has no number in its third column" in failure("s.tsv", min_score=0.0)
    (here / "a.po").write_text(PO)
    assert "none of the sources has scores" in failure("a.po", min_score=0.5)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_the_same(here, suffix, compress):
    for name, content in {"m.tmx": TMX.format(encoding="utf-8"), "it.po": PO, "x.xliff": XLIFF_2}.items():
        (here / name).write_text(content)
        (here / f"{name}{suffix}").write_bytes(compress(content.encode()))
        plain, packed = opened(name), opened(f"{name}{suffix}")
        assert text(plain) == text(packed) and plain.fingerprint() == packed.fingerprint() and plain.languages == packed.languages


def test_files_of_every_format_train_and_what_is_left_out_is_said(here, tmp_path):
    (here / "m.tmx").write_text(TMX.format(encoding="utf-8"))
    (here / "it.po").write_text(PO)
    (here / "s.tsv").write_text("a\tA\t0.5\nb\tB\t0.75\n")
    archive("en-tr.zip", OPUS)
    data = Data(train=("m.tmx", "it.po", "s.tsv", "en-tr.zip"), validation=("en-tr.zip",), min_score=0.6, cache="cache", workers=1)
    said = []
    prepared = prepare(Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0)), tmp_path / "run", said.append)
    assert prepared.report["read"] == 7 and prepared.validation == [("one", "bir"), ("two", "iki")]
    assert "it.po: 3 pairs, left out: 1 fuzzy, 1 untranslated" in said and "s.tsv: 1 pairs, left out: 1 with a score below 0.6" in said
    experiment = replace(Experiment(), **{"data.train": ("it.po",)})
    assert check(sources_of(experiment, "train"), data.cleaning).pairs == 3


# ---- hostile files

BOMB = '<!DOCTYPE tmx [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>\n<tmx><body><tu><tuv><seg>&b;</seg></tuv></tu></body></tmx>'
HOSTILE_XML = {
    "bomb": (BOMB, ":1 uses an entity of its own, a,"),
    "external": ('<!DOCTYPE tmx [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><tmx/>', "entity of its own, p,"),
    "undefined": ('<!DOCTYPE tmx SYSTEM "a.dtd">\n<tmx>&secret;</tmx>', ":2 uses an entity of its own, secret,"),
    "truncated": (TMX.format(encoding="utf-8")[:420], ":7 is not well-formed XML"),
    "deep": ("<tmx>" + "<tu>" * 1000, "more than 256 elements inside each other"),
    "names": ("<tmx>" + "".join(f"<a{i} b{i}='1'/>" for i in range(20_000)), "more than 10,000 names of elements and attributes"),
    "tag": ("<tmx a='" + "x" * (3 << 20), "a tag of more than 1,048,576 bytes"),
    "text": ("<tmx><body><tu><tuv xml:lang='en'><seg>" + "x" * (3 << 20), "seg has more than 1,048,576 characters"),
    "default": (
        '<!DOCTYPE tmx [<!ATTLIST a z CDATA "' + "x" * 9000 + '">]>\n<tmx>' + "<a/>" * 9000 + "</tmx>",
        ":1 declares a default for the attribute z,",
    ),
    "unit": (
        "<tmx><body><tu>" + "".join(f"<tuv lang='l{i}'><seg>{'x' * (1 << 20)}</seg></tuv>" for i in range(5)),
        "a unit has more than 4,194,304 characters",
    ),
    "other": ("<html/>", "is not TMX: its first element is html"),
    "none": ("", "not well-formed XML (no element found)"),
    "encoding": ('<?xml version="1.0" encoding="klingon"?><tmx/>', "encoding that cannot be read"),
    "empty": ("<tmx><body/></tmx>", "is empty: it has no pairs"),
}


@pytest.mark.parametrize("name", HOSTILE_XML)
def test_hostile_xml(here, name):
    content, says = HOSTILE_XML[name]
    (here / "m.tmx").write_text(content)
    assert says in failure("m.tmx")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PO.replace('msgid "new"', "msgid new"), "it.po:20 is not PO"),
        (PO.replace('msgid "new"', 'msgid "new'), "it.po:20 is not PO"),
        (PO.replace('msgid "new"', 'mgid "new"'), "it.po:20 is not PO (Unknown or misformatted keyword)"),
        ("msgid", "it.po"),
        ('"lost"\n', "it.po:1 is not PO"),
        (PO + '\nmsgid "a"\n', "missing msgstr"),
        (PO.replace("UTF-8", "klingon"), "klingon"),
        (PO.replace("nplurals=2", "nplurals=99999999999"), ""),
        (PO.replace("msgstr[1]", "msgstr[77777777]"), "is not PO"),
        ("\0" * 99, "it.po"),
        (PO.replace('msgid_plural "%d files"', 'msgid_plural "a"\nmsgid_plural "b"'), "the message 'one file' has 3 ids"),
        (PO.replace("UTF-8", "utf-7").replace("incerto", "+2AA-"), "ASCII is not a part of its encoding, utf-7"),
        (PO.replace("UTF-8", "idna"), "ASCII is not a part of its encoding, idna"),
        (PO.replace("UTF-8", "iso2022_jp"), "ASCII is not a part of its encoding, iso2022_jp"),
        (PO.replace("UTF-8", "rot13"), "rot13"),
    ],
)
def test_hostile_catalogs(here, content, says):
    (here / "it.po").write_text(content)
    if says:
        assert says in failure("it.po")
    else:
        assert len(opened("it.po")) == 2
    (here / "it.mo").write_bytes(struct.pack("<7I", 0x950412DE, 0, 1 << 31, 28, 28, 0, 28))
    assert "it.mo is not a MO file" in failure("it.mo")


def mo(*pairs):
    """An MO file with these originals and translations, each with what the tables say of its length."""
    sides, data, tables = zip(*pairs, strict=True), b"", []
    for side in sides:
        for content, length in side:
            tables += [length or len(content), 28 + 16 * len(pairs) + len(data)]
            data += content + b"\0"
    return struct.pack(f"<{7 + len(tables)}I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 28, *tables) + data


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([((b"one", 0), (b"bir", 0)), ((b"x" * 999, 0), (b"y" * 999, 0))], ""),
        (
            [((b"one", 0), (b"bir", 0)), ((b"x" * 999, 0), (b"y" * 999, 1000)), ((b"z", 900), (b"y", 900))],
            "its strings are longer than the file",
        ),
        ([((b"one\0two\0three", 0), (b"bir\0iki", 0))], "the message 'one' has 3 ids"),
        ([((b"", 0), (b"Content-Type: text/plain; charset=utf-7\n", 0)), ((b"one", 0), (b"+2AA-", 0))], "ASCII is not a part"),
    ],
)
def test_hostile_binary_catalogs(here, pairs, says):
    (here / "it.mo").write_bytes(mo(*pairs))
    if says:
        assert says in failure("it.mo")
    else:
        assert text(opened("it.mo")) == [(a.decode(), b.decode()) for (a, _), (b, _) in pairs]


def test_a_template_of_xgettext(here):
    template = PO.replace("nplurals=2; plural=(n != 1)", "nplurals=INTEGER; plural=EXPRESSION").replace("UTF-8", "CHARSET")
    (here / "it.po").write_text(template)
    assert ("%d files", "%d file") in text(opened("it.po"))


@pytest.mark.parametrize("charset", ["iso-8859-9", "cp1254", "gb18030", "euc-jp", "utf-8"])
def test_catalogs_name_their_encoding(here, charset):
    letters = "şü" if "1254" in charset or "8859" in charset else "漢字"
    content = PO.replace("A catalog", f"Before the header: {letters}").replace("UTF-8", charset).replace("un file", letters)
    (here / "it.po").write_bytes(content.encode(charset))
    assert ("one file", letters) in text(opened("it.po"))


def test_hostile_archives(here):
    for path in ("/etc/x.en", "../x.en", "a/../../x.en", "C:/x.en", "..\\x.en"):
        archive("a.zip", OPUS | {path: "x"})
        assert "whose path leads out of the archive" in failure("a.zip")
    archive("a.zip", OPUS | {"Books.en-tr.en": b"\0" * (30 << 20)})
    assert "Books.en-tr.en would expand 200 times or more" in failure("a.zip")
    archive("a.zip", OPUS | {"Books.en-tr.en": random.Random(0).randbytes(3 << 20).replace(b"\n", b" ")})
    assert "Books.en-tr.en:1 has more than 1,048,576 bytes" in failure("a.zip")
    archive("a.zip", {"README": "x", "Books.en": "x"})
    assert "no pair of text files such as X.en-tr.en and X.en-tr.tr (it has README, Books.en)" in failure("a.zip")
    archive("a.zip", OPUS | {"Books.en-tr.tr": "bir\niki\nüç\n"})
    assert "Books.en-tr.en has 2 lines and its partner more" in failure("a.zip")
    assert list(here.iterdir()) == [here / "a.zip"]  # nothing was unpacked


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_of_other_compression_are_refused(here, method):
    archive("a.zip", OPUS)
    with zipfile.ZipFile("a.zip", "a") as file:
        file.writestr("more.txt", "x" * 10, method)
    assert f"more.txt is compressed with method {method}, and only deflate is read" in failure("a.zip")


def test_members_of_archives_are_utf_8_and_their_names_are_printed_as_escapes(here):
    archive("a.zip", {"X.de-en.de": "eins\nzwei\n".encode("utf-16"), "X.de-en.en": "one\ntwo\n"})
    assert "a.zip: X.de-en.de is UTF-16, and text must be UTF-8" in failure("a.zip")
    archive("a.zip", {"\x1b[31m\nx": "x"})
    assert r"(it has \x1b[31m\nx)" in failure("a.zip")


def test_damaged_archives(here):
    archive("whole.zip", {name: "".join(f"{i * i} {name}\n" for i in range(5000)) for name in OPUS})
    whole = (here / "whole.zip").read_bytes()
    inside = whole.index(b"Books.en-tr.tr") + 3000
    for damaged in (whole[:2000], b"", b"x" * 100, whole[:inside] + b"?" * 50 + whole[inside + 50 :]):
        (here / "d.zip").write_bytes(damaged)
        assert "d.zip is not a zip archive that can be read" in failure("d.zip")
    lying = bytearray(whole)
    at = whole.rindex(b"PK\x01\x02", 0, whole.index(b"Books.en-tr.tr", whole.index(b"PK\x01\x02")))
    struct.pack_into("<I", lying, at + 24, 10)  # the size that the directory promises
    (here / "d.zip").write_bytes(lying)
    assert "d.zip" in failure("d.zip")


def test_parquet_that_is_none(here):
    parquet(here / "ok.parquet", {"translation": ["text"]})
    assert "the column translation is string" in failure("ok.parquet")
    parquet(here / "ok.parquet", {"en": ["text"], "n": [1]})
    assert "has no text in a second language; it has en" in failure("ok.parquet")
    whole = (here / "ok.parquet").read_bytes()
    for damaged in (b"text", b"", whole[:-20], b"PAR1" + b"\xff" * 100 + b"PAR1"):
        (here / "bad.parquet").write_bytes(damaged)
        assert "bad.parquet is not a parquet file that can be read" in failure("bad.parquet")


def arrow(name, batch):
    pyarrow = pytest.importorskip("pyarrow")
    with pyarrow.ipc.new_stream(str(name), batch.schema) as stream:
        stream.write_batch(batch)


def test_arrow_files_that_point_elsewhere_or_are_no_text(here):
    pyarrow = pytest.importorskip("pyarrow")
    arrow("a.arrow", pyarrow.record_batch({"n": [1, 2], "en": ["ab", "c"], "de": ["x", "y"]}))
    assert text(opened("a.arrow")) == [("ab", "x"), ("c", "y")]
    whole, offsets = (here / "a.arrow").read_bytes(), struct.pack("<3i", 0, 2, 3)
    assert whole.count(offsets) == 1
    for end in (600, 2_000_000_000):
        (here / "a.arrow").write_bytes(whole.replace(offsets, struct.pack("<3i", 0, 2, end)))
        assert "a.arrow is not a arrow file that can be read" in failure("a.arrow")
    bad = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(struct.pack("<2i", 0, 2)), pyarrow.py_buffer(b"\xff\xfe"))
    arrow("a.arrow", pyarrow.record_batch({"en": bad, "de": ["x"]}))
    parquet(here / "a.parquet", {"en": bad, "de": ["x"]})
    assert "Invalid UTF8" in failure("a.arrow") and "Invalid UTF8" in failure("a.parquet")


def test_long_sides_and_compressed_tables_are_refused(here):
    for name in ("a.parquet.gz", "a.arrow.xz"):
        (here / name).write_bytes(b"x")
        assert f"{name} is compressed" in failure(name)
    parquet(here / "a.parquet", {"en": ["x", "x" * (2 << 20)], "de": ["x", "x"]})
    assert "a.parquet row 2 has more than 1,048,576 bytes" in failure("a.parquet")
    (here / "a.tsv").write_text(f"x\t{'x' * (2 << 20)}\t1\n")
    assert "a.tsv:1 has more than 1,048,576 bytes" in failure("a.tsv", min_score=0.5)


def test_a_missing_package_is_named(here, monkeypatch):
    (here / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'jaxnmt[parquet]'" in failure("x.parquet")


LARGE = """
import resource, sys
from jaxnmt.data.sources import open_sources
open_sources(("small.tmx", "small.zip"), "x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print([len(source) for source in open_sources(("large.tmx", "large.zip"), "x")])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << (0 if sys.platform == "darwin" else 10))
"""


def test_memory_does_not_grow_with_the_file(here):
    unit = "<tu><tuv xml:lang='en'><seg>{0} %s</seg></tuv><tuv xml:lang='de'><seg>{0}</seg></tuv></tu>\n" % ("word " * 40)
    for name, count in (("small", 100), ("large", 12_000)):
        (here / f"{name}.tmx").write_text(f"<tmx><body>{''.join(unit.format(i) for i in range(count))}</body></tmx>")
        archive(f"{name}.zip", {f"x.{code}": "".join(f"{i} {i * i} {i**3} {i**4}\n" for i in range(10 * count)) for code in ("de", "en")})
    assert (here / "large.tmx").stat().st_size > 3 << 20
    result = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    counts, grown = result.stdout.splitlines()
    assert counts == "[12000, 120000]" and int(grown) < 2 << 20
    assert resource  # the module exists on this system

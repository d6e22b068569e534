"""Documents come out as they went in, but for translations: read back by Babel, an XML parser and an HTML parser."""

import copy
import html.parser
import io
import re
from xml.etree import ElementTree

import pytest
from babel.messages import pofile
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnmt import config as cfg
from jaxnmt.decoding.documents import open_document
from jaxnmt.decoding.documents.document import has_words
from jaxnmt.decoding.documents.html import Html
from jaxnmt.decoding.documents.plain import Plain
from jaxnmt.decoding.documents.po import Po
from jaxnmt.decoding.documents.xliff import Xliff
from jaxnmt.decoding.marked_translator import MarkedTranslator
from jaxnmt.decoding.placeholders import counts
from jaxnmt.decoding.translator import Translation
from jaxnmt.errors import UserError


class Reversed:
    """Stands in for a translator: words in capitals, in reverse order. It loses placeholders."""

    warn = staticmethod(lambda line: None)

    def translate(self, lines, decoding, first=1, rules=()):
        return [[Translation(" ".join(line.replace("%s", "").upper().split()[::-1]), -1.0)] for line in lines]


def document(kind, content, overwrite=False, languages=("en", "tr")):
    return kind(content.encode() if isinstance(content, str) else content, "document: x", overwrite, languages)


def translated(kind, content, **options):
    """The document, translated by the stand-in, as the verb does it."""
    opened = document(kind, content, **options)
    found = MarkedTranslator(Reversed(), None, opened.format, protect=True).translate(opened.lines, cfg.Decoding())
    return opened.written([best.text for (best,) in found]).decode()


def unchanged(kind, content):
    opened = document(kind, content)
    return opened.written([""] * len(opened.lines))


# ---- PO

PO = r"""# Translators: nobody.
#, fuzzy
msgid ""
msgstr ""
"Project-Id-Version: x\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=3; plural=n%3;\n"

#. extracted
#: a.c:1
#, c-format
msgid "Open %s now"
msgstr ""

#| msgid "before"
msgctxt "menu"
msgid "New"
msgstr "Yeni"

#, fuzzy
msgid "\n  Two lines,\n\n\tindented \n"
msgstr ""

# plural
msgid "one \"file\""
msgid_plural "%s files"
msgstr[0] ""

msgid "42 %s"
msgstr ""

#~ msgid "old"
#~ msgstr ""
"""


def test_po_to_the_letter():
    lines = PO.splitlines()
    expected = [*lines[:10], "#, fuzzy, c-format", lines[11], 'msgstr "NOW %s OPEN"', *lines[13:21]]
    expected += [r'msgstr ""', r'"\n"', r'"  LINES, TWO\n"', r'"\n"', r'"\tINDENTED \n"', "", "# plural", "#, fuzzy", *lines[24:26]]
    expected += [r'msgstr[0] "\"FILE\" ONE"', 'msgstr[1] "%s FILES"', 'msgstr[2] "%s FILES"', *lines[27:]]
    assert translated(Po, PO).splitlines() == expected
    assert translated(Po, PO.replace("\n", "\r\n")) == translated(Po, PO).replace("\n", "\r\n")
    assert 'msgstr "NEW"' in translated(Po, PO, overwrite=True) and 'msgstr "Yeni"' not in translated(Po, PO, overwrite=True)


HEADER = PO[PO.index("msgid") : PO.index("#. extracted")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '#, fuzzy\n#~ msgid "old"\n#~ msgstr "x"\n\nmsgid "a"\nmsgstr ""\n',
            '#, fuzzy\n#~ msgid "old"\n#~ msgstr "x"\n\n#, fuzzy\nmsgid "a"\nmsgstr "A"\n',
        ),
        (
            'msgid "a"\nmsgid_plural "b c"\nmsgstr[0] ""\n"old"\nmsgstr[1] ""\nmsgstr[2] "kept"\n',
            '#, fuzzy\nmsgid "a"\nmsgid_plural "b c"\nmsgstr[0] ""\n"old"\nmsgstr[1] "C B"\nmsgstr[2] "kept"\n',
        ),
        ('msgid "a"\r\nmsgstr ""', '#, fuzzy\r\nmsgid "a"\r\nmsgstr "A"'),
        ('msgid "a"\nmsgstr ""', '#, fuzzy\nmsgid "a"\nmsgstr "A"'),
    ],
)
def test_obsolete_messages_kept_forms_and_the_last_line_end(before, after):
    header = HEADER.replace("\n", "\r\n") if "\r" in before else HEADER
    assert translated(Po, header + before) == header + after
    assert "kept" not in translated(Po, header + before, overwrite=True)


def test_a_template_of_xgettext():
    header = HEADER.replace("nplurals=3; plural=n%3", "nplurals=INTEGER; plural=EXPRESSION").replace("UTF-8", "CHARSET")
    message = 'msgid "a"\nmsgid_plural "b c"\nmsgstr[0] "{}"\nmsgstr[1] "{}"\n'
    assert translated(Po, header + message.format("", "")) == f"{header}#, fuzzy\n{message.format('A', 'C B')}"


def test_a_catalog_in_latin_1():
    content = PO.replace("UTF-8", "ISO-8859-1").replace("New", "Où").encode("latin-1")
    opened = document(Po, content)
    out = opened.written(["été"] * len(opened.lines))
    assert "été".encode("latin-1") in out and "Où".encode("latin-1") in out
    with pytest.raises(UserError, match="is in iso-8859-1, which has no 'ğ': convert it with `msgconv -t UTF-8`"):
        opened.written(["ğ"] * len(opened.lines))


TEXT = st.text(st.sampled_from('ab Z%s"\\\n\té{}x'), min_size=1, max_size=20).filter(lambda text: text.strip())
MESSAGE = st.tuples(
    st.one_of(TEXT, st.tuples(TEXT, TEXT)), st.sampled_from(["", "old", "fuzzy"]), st.booleans(), st.sampled_from([None, "a", "b"])
)


@settings(deadline=None, max_examples=40)
@given(st.lists(MESSAGE, max_size=8, unique_by=lambda message: message[0] if isinstance(message[0], str) else message[0][0]), st.booleans())
def test_po_read_back_by_babel(messages, overwrite):
    catalog = pofile.Catalog(locale="de")
    for text, string, has_flag, context in messages:
        forms = (string and "old",) * 2 if isinstance(text, tuple) else string and "old"
        flags = ["fuzzy"] * (string == "fuzzy") + ["c-format"] * has_flag
        catalog.add(text, forms, [("a.c", 1)], flags=flags, auto_comments=["note"], user_comments=["mine"], context=context)
    file = io.BytesIO()
    pofile.write_po(file, catalog)
    before = pofile.read_po(io.BytesIO(file.getvalue()))
    after = pofile.read_po(io.StringIO(translated(Po, file.getvalue(), overwrite=overwrite)), abort_invalid=True)
    assert unchanged(Po, file.getvalue()) == file.getvalue()
    assert len(after) == len(before) and after.header_comment == before.header_comment and after.mime_headers == before.mime_headers
    for old, new in zip(before, after, strict=True):
        for field in ("id", "context", "locations", "auto_comments", "user_comments"):
            assert getattr(new, field) == getattr(old, field)
        was_translated = all(old.string) if isinstance(old.string, tuple) else bool(old.string)
        texts = [old.id] if isinstance(old.id, str) else old.id
        if not old.id or (was_translated and not overwrite) or not all(map(has_words, texts)):
            assert new.string == old.string and new.flags == old.flags
            continue
        assert new.flags == old.flags | {"fuzzy"}
        for text, form in zip(texts, [new.string] if isinstance(old.id, str) else new.string, strict=True):
            assert form.count("\n") == text.count("\n") and counts(form) == counts(text)
            assert form.startswith("\n") == text.startswith("\n") and form.endswith("\n") == text.endswith("\n")


# ---- XLIFF

XLIFF_1 = """<?xml version="1.0" encoding="UTF-8"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><!-- a > b -->
<file source-language="en" datatype="plaintext" original='x "y"'><header><note>keep me</note></header><body>
  <trans-unit id="1">
    <source>Press <g id="1" ctype='a>b'>the <x id="2"/>key</g> <ph id="3">&lt;br&gt; text</ph> &amp; go</source>
    <note>Hi</note>
  </trans-unit>
  <group translate="no"><trans-unit id="2"><source>ACME</source></trans-unit>
    <trans-unit id="3" translate="yes"><source><![CDATA[ a < b ]]></source><target xml:lang="tr" state="new"/></trans-unit></group>
  <trans-unit id="4"><source>done</source><target>bitti</target><alt-trans><source>no</source><target>x</target></alt-trans></trans-unit>
  <trans-unit id="5"><source>see it</source><seg-source><mrk mtype="seg" mid="1">see it</mrk></seg-source></trans-unit>
  <trans-unit id="6"><source>%s 42</source></trans-unit>
</body></file></xliff>
"""
XLIFF_2 = """<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.1" srcLang="en"><file id="f"><unit id="u">
<originalData><data id="d">code text</data></originalData>
<segment id="1" state="initial"><source>Go <pc id="1" dataRefStart="d">away now</pc></source><target/></segment>
<ignorable><source> </source></ignorable>
<segment><source>Stay <mrk id="m" translate="no">put</mrk></source></segment></unit></file></xliff>
"""


def without_targets(content):
    """The tree of a document without what a translation may change."""
    tree = ElementTree.fromstring(content)
    for element in tree.iter():
        for name in ("state", "target-language", "trgLang"):
            element.attrib.pop(name, None)
        for child in [child for child in element if child.tag.endswith("}target")]:
            element.remove(child)
    return [(e.tag, e.attrib, (e.text or "").strip(), (e.tail or "").strip()) for e in tree.iter()]


def targets(content):
    found = [element for element in ElementTree.fromstring(content).iter() if element.tag.endswith("}target")]
    return [("".join(element.itertext()), element.attrib) for element in found]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", [XLIFF_1, XLIFF_2, XLIFF_1.replace("\n", "\r\n"), XLIFF_2.replace("<", "<x:").replace("<x:/", "</x:")])
def test_xliff_read_back_by_an_xml_parser(content, overwrite):
    content = content.replace("<x:!", "<!").replace("xmlns=", "xmlns:x=") if "<x:" in content else content
    out = translated(Xliff, content, overwrite=overwrite)
    assert (
        without_targets(out) == without_targets(content)
        and unchanged(Xliff, content).decode().replace(' trgLang="tr"', "").replace(' target-language="tr"', "") == content
    )
    lines = set(content.splitlines())
    assert all(line in lines for line in out.splitlines() if not re.search("target|segment|xliff|trgLang", line))


def test_xliff_targets():
    mark = {"state": "needs-review-translation", "state-qualifier": "mt-suggestion"}
    out = translated(Xliff, XLIFF_1)
    language = {"{http://www.w3.org/XML/1998/namespace}lang": "tr"}
    found = targets(out)
    assert found[1:] == [(" B < A ", language | mark), ("bitti", {}), ("x", {}), ("IT SEE", mark)] and found[0][1] == mark
    assert "<g id=\"1\" ctype='a>b'>" in out.split("</source>")[1] and '<ph id="3">&lt;br&gt; text</ph>' in out.split("</source>")[1]
    assert out.count('target-language="tr"') == 1 and "    <target state" in out
    assert targets(translated(Xliff, XLIFF_1, overwrite=True))[2][0] == "DONE"
    assert [text for text, _ in targets(translated(Xliff, XLIFF_2))][0].split() == ["NOW", "AWAY", "GO"]
    segments = re.findall("<segment[^>]*>", translated(Xliff, XLIFF_2))
    assert segments == ['<segment id="1" state="translated">', '<segment state="translated">']
    for pair in ('id="m"', 'id="1" dataRefStart'):  # ids stay unique in a target
        assert all(part.count(pair) <= 1 for part in re.findall("<target>.*?</target>", translated(Xliff, XLIFF_2)))


@pytest.mark.parametrize(
    "content", [XLIFF_1, XLIFF_2, XLIFF_1.replace('source-language="en"', 'source-language="en" target-language="tr"')]
)
def test_xliff_of_other_languages_than_the_run(content):
    for languages in (("de", "tr"), ("tr", "en")):
        with pytest.raises(UserError, match=f"names the languages en.*, and the run translates from {languages[0]} to {languages[1]}"):
            document(Xliff, content, languages=languages)
    for languages in (("en-US", "tr"), ("en", "tr_TR"), ("", "")):
        assert document(Xliff, content, languages=languages).lines


def test_xliff_with_a_byte_order_mark():
    assert translated(Xliff, "\ufeff" + XLIFF_1) == "\ufeff" + translated(Xliff, XLIFF_1)


def test_hostile_xliff():
    bomb = '<!DOCTYPE x [<!ENTITY a "ha">]><xliff/>'
    for content, says in (
        (bomb, "uses an entity of its own"),
        (XLIFF_1[:300], "not well-formed"),
        ("<a/>", "is not XLIFF"),
        (b"<xliff>\xff</xliff>", "is not UTF-8"),
        (XLIFF_1.replace("UTF-8", "iso-8859-1"), "is in iso-8859-1, and a document must be UTF-8"),
    ):
        with pytest.raises(UserError, match=says):
            document(Xliff, content)


# ---- HTML

HTML = """<!DOCTYPE html>
<html lang="en"><head><title>My page</title><meta name="description" content="stay">
<script>if (a < b) { alert("<p>Hello</p>"); }</script><style>p > a { color: red }</style></head>
<body class="x">
 <h1>Hello   <b
 class="big">big</b> world</h1>
<p>See <a href="x?a=1&b=2" title='a "q"'>the page</a> &amp; go&nbsp;on to {name}.<br>Next
 line <img src=x alt="no"> here<!-- a comment --> <code>a <b>b</b></code>.</p>
<pre>  keep <b>me</b> </pre> 1 &lt; 2
<ul><li>one<li>two <span translate="no">Acme &lt; Corp</span> x</ul><table><tr><td>123<td>four</table>
<select><option value="a" selected>an option</select><textarea>stay</textarea><br/>
</body></html>
"""


class Structure(html.parser.HTMLParser):
    """The tags, comments and scripts of a document, in order, and its text."""

    def __init__(self, content):
        super().__init__()
        self.found, self.text, self.opaque = [], [], 0
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, self.get_starttag_text()))
        self.opaque += tag in ("script", "style", "pre", "textarea", "code")

    def handle_endtag(self, tag):
        self.found.append(("end", tag))
        self.opaque -= tag in ("script", "style", "pre", "textarea", "code")

    def handle_data(self, data):
        if self.opaque:
            self.found.append(("data", data))
        else:
            self.text += data.split()

    def handle_comment(self, data):
        self.found.append(("comment", data))

    def handle_decl(self, decl):
        self.found.append(("declaration", decl))


def test_html_keeps_its_structure():
    out = translated(Html, HTML)
    before, after = Structure(HTML), Structure(out)
    assert sorted(after.found) == sorted(before.found) and unchanged(Html, HTML).decode() == HTML
    assert [tag for tag, _ in after.found if tag not in ("a", "b", "img", "comment", "code", "end", "span", "data")] == [
        tag for tag, _ in before.found if tag not in ("a", "b", "img", "comment", "code", "end", "span", "data")
    ]
    assert "<title>PAGE MY</title>" in out and "<li>ONE<li>" in out and "<td>123<td>FOUR</table>" in out and ">OPTION AN</select>" in out
    assert '<span translate="no">Acme &lt; Corp</span>' in out and "</pre> 1 &lt; 2\n" in out and "{name}" in out
    assert Structure(out).text != Structure(HTML).text and "big" not in " ".join(after.text)
    assert out.count("\n") == HTML.count("\n") - 1  # a line end in a block is a space


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<P>hello <B>big</B > <i>x</I\n></P >", "<P>X <B>BIG</B > <i>HELLO</I\n></P >"),
        ("<p translate=no>keep it<p>a b<p>c", "<p translate=no>keep it<p>B A<p>C"),
        ("<div translate=no><p>keep</p> it</div><p>a b", "<div translate=no><p>keep</p> it</div><p>B A"),
        ("<p>a <code>x y</p><p>c d", "<p>A <code>x y</p><p>D C"),
        ("<p>a b</p><![x><p>c d", "<p>B A</p><![x><p>D C"),
        (
            '<meta charset="UTF-8"><p>a b<img src="data:' + "x" * 100_000 + '">',
            '<meta charset="UTF-8"><p>B A<img src="data:' + "x" * 100_000 + '">',
        ),
    ],
)
def test_html_tags_as_they_are_written(before, after):
    assert translated(Html, before) == after


@pytest.mark.parametrize(
    ("kept", "after"),
    [
        ("<div><pre>keep it", "</div>{}"),
        ("<div><pre>keep <p>and</p> <li>this</pre>", "{}"),
        ("<table><tr><td><pre>keep it", "<td>{}"),
        ("<table><tr><td translate=no>keep <b>it", "<tr><td>{}"),
        ("<table><tr><td translate=no>keep <table><tr><td>it</table> too", "</table>{}"),
        ("<ul><li translate=no>keep <ul><li>it</ul> too", "<li>{}</ul>"),
        ("<dl><dt translate=no>keep it", "<dd>{}</dl>"),
        ("<h1 translate=no>keep it", "</h2>{}"),
        ("<div translate=no><p>keep <span>it<p>too", "</div>{}"),
        ("<section><div translate=no>keep <p>it", "</section>{}"),
        ("<b><i translate=no>keep <span>it", "</b>{}"),
        ("<svg><text>keep it</text>", "<p>{}"),
        ("<svg><title>keep</title><text>it</svg>", "{}"),
        ("<div><svg><g>keep it", "</div>{}"),
        ("<svg><foreignObject><p>keep <div>it</div></foreignObject></svg>", "{}"),
        ("<div><math><mi>keep</mi>", "<div>{}</div>"),
        ("<textarea>keep <b>it</div></textarea>", "{}"),
        ("<textarea translate=no>keep it</div><p>and this", ""),
        ("<body><pre>keep it</div><p>and this", ""),
    ],
)
def test_an_element_without_an_end_tag_ends_where_browsers_end_it(kept, after):
    before = "<p>a b</p>"
    assert translated(Html, before + kept + after.format("c d")) == "<p>B A</p>" + kept + after.format("D C")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("<meta charset=iso-8859-1><p>x", "declares iso-8859-1, and a document must be UTF-8"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1254">', "declares windows-1254"),
        *((bit * (200_000 // len(bit)), "the file is damaged, or not HTML") for bit in ("<a ", "<a b='", "<!--x>", "</", "<?", "<a =")),
    ],
)
def test_hostile_html(content, says):
    with pytest.raises(UserError, match=says):
        document(Html, content)


BITS = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<b>",
        "</b>",
        '<a href="a > b">',
        "</a>",
        "<br>",
        "<img alt='x'/>",
        "<!-- <p> -->",
        "<div>",
        "</div>",
        "<pre>",
        "</pre>",
    ]
    + [
        "<code>",
        "</code>",
        "<script>",
        "</script>",
        "one",
        "two ",
        " three",
        "&lt;",
        " & ",
        "\n",
        "\r\n",
        "%s",
        "é",
        '<i translate="no">',
        "</i>",
    ]
)


@settings(deadline=None, max_examples=80)
@given(st.lists(BITS, max_size=14).map("".join))
def test_html_whatever_is_in_it(content):
    opened = document(Html, content)
    assert unchanged(Html, content).decode() == content
    same = opened.written(opened.lines).decode()  # a translator that copies: spaces apart, nothing changes
    assert re.sub(r"\s+", " ", same) == re.sub(r"\s+", " ", content)
    assert not any("\n" in line or "\r" in line for line in opened.lines)


# ---- plain text, and all


@pytest.mark.parametrize("content", ["  Hello\r\n\r\n * x y\r\n\t\r\nend", "", "\n\n", "one\n", "1\n2\n", "a\x0bb\u2028c\n"])
def test_plain_text_keeps_its_lines(content):
    opened = document(Plain, content)
    assert opened.written(opened.lines).decode() == content or "\u2028" in content
    assert translated(Plain, content).count("\n") == content.count("\n")
    assert not any(re.search(r"[\n\r\u2028]", line) for line in opened.lines)


@pytest.mark.parametrize("inside", ["\t", "\r", "\f", "\u2028", "\ufeff"])
def test_plain_text_keeps_what_is_around_its_lines(inside):
    assert translated(Plain, f"\ufeff  b{inside} a  \r\n\tc\x0c\n") == "\ufeff  A B  \r\n\tC\x0c\n"


def test_documents_that_cannot_be_read(tmp_path):
    for name, content, says in (
        ("a.docx", b"x", "is not a document whose structure is known: name a file that ends in .po, .pot, .xlf"),
        ("a.txt.json", b"x", "is not a document whose structure is known"),
        ("a.html.erb", b"x", "is not a document whose structure is known"),
        ("a.txt", "x y".encode("utf-16"), "is UTF-16"),
        ("a.html", b"caf\xe9 au lait", "is not UTF-8 text"),
        ("a.po", b'msgid "x\n', "a.po:1 is not PO"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=re.escape(says)):
            open_document(tmp_path / name)
    with pytest.raises(UserError, match="there is no file"):
        open_document(tmp_path / "b.po")
    assert copy.copy(document(Plain, "a")).format == "text"

"""Tags go where the alignment says, by hand; and whatever it says, every tag is there and nested."""

import html
import html.parser
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.alignments import Aligner
from jaxnmt.decoding.marked_translator import MarkedTranslator
from jaxnmt.decoding.markup import parse
from jaxnmt.decoding.markup_transfer import transfer, words
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model


def moved(line, target, links):
    """The line's markup around the target words; `links` has the source word of each."""
    marked = parse(line)
    weights = np.zeros((len(target.split(" ")), len(words(marked.text))), np.float32)
    for t, s in enumerate(links):
        if s is not None:
            weights[t, s] = 1
    return transfer(marked, target.split(" "), weights, lambda text: html.escape(text, quote=False))


BY_HAND = [  # a line, a translation, the source word of each target word, what comes out
    ("one <b>hundred</b> and two", "cent deux", [1, 3], "<b>cent</b> deux"),
    ("a <b>b</b> c", "C B A", [2, 1, 0], "C <b>B</b> A"),
    ("a <b>b c</b>", "B A C", [1, 0, 2], "<b>B</b> A <b>C</b>"),  # words that stand apart get a pair each
    ("a <b>b c</b>", "B x C", [1, None, 2], "<b>B x C</b>"),  # a word that looks nowhere goes with the one before
    ("<p>a <b>b <i>c</i></b></p>", "C B A", [2, 1, 0], "<p><b><i>C</i> B</b> A</p>"),
    ("<b>a</b> <b>b</b>", "A B", [0, 1], "<b>A</b> <b>B</b>"),  # two elements stay two
    ("a <b>b</b> c", "A C", [0, 2], "A <b></b> C"),  # no word attends to b
    ("a <i><b></b></i> c", "C A", [1, 0], "<i><b></b></i> C A"),
    # an element without text is around no word
    ("a b<script>c();</script>, d", "A B, D", [0, 1, 2], "A B<script>c();</script>, D"),
    ("a b<i></i>.", "A B.", [0, 1], "A B<i></i>."),
    # elements beside each other are not put into each other
    ("<a>a</a>/<i>b</i> c", "X C", [0, 1], "<i></i> <a>X</a> C"),
    ("<i></i> <a>a b</a>", "B A", [1, 0], "<a>B</a> <i></i> <a>A</a>"),
    # punctuation
    ("a <b>b</b>, c", "A B, C", [0, 1, 2], "A <b>B</b>, C"),
    ("a <b>b,</b> c", "A B; C", [0, 1, 2], "A <b>B;</b> C"),
    ("(<b>a</b>)", "«A»", [0], "«<b>A</b>»"),
    ("H<sub>2</sub>O is <b>un</b>fit", "H2O est impropre", [0, 1, 2], "H<sub>2</sub>O est <b>impropre</b>"),
    # empty tags: before the word that follows
    ("a <br/>b", "B A", [1, 0], "<br/>B A"),
    ("a <img src='x'> b", "A B", [0, 1], "A <img src='x'> B"),
    ("<b>a <br/> b</b>", "A B", [0, 1], "<b>A <br/> B</b>"),
    ("<b><img/>a</b> b", "B A", [1, 0], "B <b><img/>A</b>"),
    ("a<br/>b", "A B", [0, 1], "A<br/> B"),  # the text is "a b"
    ("a b<br>", "B A", [1, 0], "B A<br>"),
    ("x <a><img/></a> a", "A X", [1, 0], "<a><img/></a> A X"),
    ("<!-- c --><b>a</b>", "A", [0], "<!-- c --><b>A</b>"),
    # tags whose partner is on another line keep their order
    ("</li><li>a <b>b</b>", "B A", [1, 0], "<b>B</b> </li><li>A"),
    ("<b>a <i>b</b></i>", "B A", [1, 0], "<b><i>B A</b></i>"),
    # entities
    ("a &lt;b&gt; &amp; <b>c&eacute;</b>", "A &lt; &amp; C", [0, 1, 2, 3], "A &amp;lt; &amp;amp; <b>C</b>"),
    ("a&nbsp;b <b>c</b>", "A\u00a0B C", [0, 1], "A\u00a0B <b>C</b>"),
    ("<A HREF='x'>a</A > 1 < 2", "A 1 < 2", [0, 1, 2, 3], "<A HREF='x'>A</A > 1 &lt; 2"),
    ("<script>if (a < b) c</script> a", "A", [0], "<script>if (a < b) c</script> A"),
]


@pytest.mark.parametrize(("line", "target", "links", "expected"), BY_HAND, ids=[row[0] for row in BY_HAND])
def test_by_hand(line, target, links, expected):
    assert moved(line, target, links) == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("a <b>b</b>c", "a bc"),
        ("a &amp; b&#10;c", "a & b c"),
        ("<td>a</td><td>b</td>", "a b"),
        ("1 < 2 &bogus; <3", "1 < 2 &bogus; <3"),
        ("a <b", "a <b"),
        ("<style>x {}</style>a", "a"),
    ],
)
def test_the_text_of_a_line(line, text):
    assert parse(line).text == text


def test_an_element_that_no_word_attends_to_most_is_around_the_word_that_attends_to_it_most():
    marked = parse("a <b>b</b> c")
    assert transfer(marked, ["A", "C"], np.array([[0.5, 0.4, 0], [0, 0.1, 0.8]])) == "<b>A</b> C"


def test_an_element_is_around_the_word_that_attends_to_it_most_of_those_that_are_in_no_element_beside_it():
    marked = parse("<a>a</a> | <b>b</b>")
    weights = np.array([[0.5, 0, 0.6], [0.2, 0.6, 0.1], [0.1, 0.3, 0.8]])
    assert transfer(marked, ["X", "Y", "Z"], weights) == "<b>X</b> <a>Y</a> <b>Z</b>"


class Tags(html.parser.HTMLParser):
    """Lists the tags of a line, and fails if they are not nested."""

    def __init__(self, line):
        super().__init__()
        self.tags, self.stack, self.pairs = [], [], set()  # pairs: (outer, inner) tags
        self.feed(line)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(self.get_starttag_text())
        self.pairs |= {(outer, tag) for outer in self.stack}
        self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(self.get_starttag_text())

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def tree(random, depth=3):
    """A random piece of markup."""
    if depth == 0 or random.random() < 0.4:
        return str(random.choice(["a", "bc", "d,", " ", "(e)", "&amp;", "<br/>", "<x/>"]))
    name = f"t{random.integers(10**9)}"
    return f"<{name}>{''.join(tree(random, depth - 1) for _ in range(random.integers(4)))}</{name}>"


def test_whatever_the_alignment_all_tags_are_there_and_nested():
    for seed in range(1000):
        assert_random_markup_survives(np.random.default_rng(seed))


def assert_random_markup_survives(random):
    trees = [tree(random) for _ in range(random.integers(6))]
    target = random.choice(["a", "bc", "d,", "(E)", "F", "."], random.integers(6)).tolist()
    line = " ".join(trees)
    marked = parse(line)
    weights = random.random((len(target), len(words(marked.text)))) * random.integers(0, 2, (len(target), 1))
    found = transfer(marked, target, weights, html.escape)
    assert Tags(found).pairs <= Tags(line).pairs
    own, made = Counter(Tags(line).tags), Counter(Tags(found).tags)
    assert set(own) == set(made) and all(made[tag] >= own[tag] for tag in own)
    assert all(made[tag] == own[tag] for tag in own if tag.endswith("/>"))
    assert words(parse(found).text.replace(" ", "")) == words("".join(target))  # the words are untouched


# ---- with a model


class Diagonal:
    """Attention of each target token on the source token at its own place."""

    attention_module = "cross_attention"

    def attention(self, params, batch):
        source, target = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
        weights = jnp.eye(target.shape[1], source.shape[1])[None, None]
        return {"cross_attention": {"attention": (jnp.broadcast_to(weights, (len(source), 1, *weights.shape[2:])),)}}


class Upper:
    """Stands in for a translator: writes each word in capitals."""

    def __init__(self, tokenizer):
        self.model, self.params, self.tokenizer, self.seen, self.mesh = Diagonal(), {}, tokenizer, [], None

    def translate(self, lines, decoding, first=1, rules=()):
        from jaxnmt.decoding.translation import Translation

        self.seen += [line for line in lines if line]
        found = []
        for line in lines:
            ids = [self.tokenizer.encode_source([line])[0], self.tokenizer.encode_target([line.upper()])[0]]
            found.append(
                [Translation(self.tokenizer.decode_target(ids[1]), -1.0, (), (tuple(ids),)) if line.strip() else Translation("", 0.0)]
            )
        return found


@pytest.fixture
def upper():
    text = "a b c & < > d, e@@ f"
    return Upper(train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [(text, text.upper())]))


def translated(translator, lines):
    marked = MarkedTranslator(translator, Aligner(translator), "html", protect=False)
    return [best.text for (best,) in marked.translate(lines, cfg.Decoding())]


def test_the_model_reads_text_and_lines_without_text_stay(upper):
    lines = ["<ul>", "<li>a &amp; <b>b</b>", "", "c &lt;", "&nbsp;", " <td>  </td>"]
    assert translated(upper, lines) == ["<ul>", "<li>A &amp; <b>B</b>", "", "C &lt;", "&nbsp;", "<td>  </td>"]
    assert upper.seen[:2] == ["a & b", "c <"] or "a & b" in [line.strip() for line in upper.seen]


def test_pieces_of_split_text_are_words_of_the_alignment(upper):
    assert translated(upper, ["a <b>e@@ f</b> <i>c</i>"]) == ["A <b>EF</b> <i>C</i>"]


@pytest.mark.parametrize(
    "config", [pytest.param(tiny.BASE, id="transformer", marks=pytest.mark.slow), pytest.param(tiny.RECURRENT["bahdanau"], id="recurrent")]
)
def test_any_model_and_batch(config):
    """A line's result depends on the line alone."""
    tokenizer = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b c d e", "u v w x y")])
    model = build_model(config, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    translator = Translator(model, tiny.params_of(model), tokenizer, 6)
    marked = MarkedTranslator(translator, Aligner(translator), "html", protect=False)
    lines = ["a <b>b</b> c", "<i>c</i> d <br/>e", "a", "", "<b>a b c d e a b c d e</b> <i>a</i>"]
    decoding = cfg.Decoding(beam_size=2, n_best=2, batch_size=8)
    together = marked.translate(lines, decoding)
    alone = [marked.translate([line], decoding)[0] for line in lines]
    assert [[each.text for each in best] for best in together] == [[each.text for each in best] for best in alone]
    assert all(
        Counter(Tags(line).tags).keys() == Counter(Tags(best.text).tags).keys()
        for line, own in zip(lines, together, strict=True)
        for best in own
    )
    plain = translator.translate([parse(line).text for line in lines], decoding)
    assert [[words(parse(each.text).text) for each in best] for best in together] == [[words(each.text) for each in best] for best in plain]

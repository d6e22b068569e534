"""A translated page in docs, NAME.LANGUAGE.md, has the commands, figures, images and links of NAME.md.

A link may lead to the translation of the other page. A line that is a link and nothing else leads to the page's own translation.
"""

import re
from collections import Counter

import pages
import pytest

KINDS = {
    "commands": lambda text: [block for _, block in pages.blocks(text) if re.search("^jaxnmt ", block, re.M)],
    "images": lambda text: re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text),
    "links": lambda text: [re.sub(r"\.\w\w\.md", ".md", link) for link in pages.links(re.sub(r"^\[\w+\]\(.*\)$", "", text, flags=re.M))],
    "rows of tables (their figures)": lambda text: [figures(row) for row in re.findall(r"^\|.*\|$", text, re.M)],
    # Another language has another order of words, so a section's names and figures are counted.
    "names in backquotes": lambda text: Counter(pages.code(text)),
    "figures": lambda text: Counter(figures(text)),
}


def figures(text: str) -> list[str]:
    return re.findall(r"[\d⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+(?:[.,]\d+)*", text)


def sections(page: str) -> list[tuple[int, str]]:
    """(level, text below) of each heading."""
    parts = re.split(r"^(#+) .*$", pages.read(pages.DOCS / page), flags=re.M)
    return [(len(level), text) for level, text in zip(parts[1::2], parts[2::2], strict=True)]


@pytest.mark.parametrize("page", sorted(path.name for path in pages.DOCS.glob("*.*.md")))
def test_a_translation_keeps_what_is_not_words(page):
    original = page.split(".")[0] + ".md"
    here, there = sections(page), sections(original)
    assert [level for level, _ in here] == [level for level, _ in there], f"{page} has other headings than {original}"
    for number, ((_, text), (_, source)) in enumerate(zip(here, there, strict=True), 1):
        for kind, of in KINDS.items():
            assert of(text) == of(source), f"{kind} below heading {number} of {page} are not those of {original}"

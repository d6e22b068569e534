"""Self-contained HTML pages, for light and dark mode, wide and narrow screens; they load nothing.

Functions escape text; a parameter named `body` takes HTML.
"""

from __future__ import annotations

import difflib
import html
import pathlib
import re
from collections.abc import Mapping, Sequence

from jaxnmt.lab.figures import Table

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
_PIECES = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")  # Han and kana one by one


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Replace each {{name}} of a template by its part."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def page(title: str, body: str) -> str:
    """Return a whole page with `body` below its h1."""
    return fill(_TEMPLATE.read_text(encoding="utf-8"), {"title": html.escape(title), "body": body})


def paragraph(text: str, kind: str = "") -> str:
    """Return text as a paragraph; `kind` "note" makes small print."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{html.escape(text)}</p>"


def table(shown: Table) -> str:
    """Return a table with its caption; a wide table scrolls horizontally."""
    head = _cells('th scope="col"', shown.header)
    rows = "\n".join(f'<tr><th scope="row">{html.escape(first)}</th>{_cells("td", rest)}</tr>' for first, *rest in shown.rows)
    note = paragraph(shown.note, "note") if shown.note else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(shown.title)}"><table>\n'
        f"<caption>{html.escape(shown.title)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{note}"
    )


def definitions(pairs: list[tuple[str, str]]) -> str:
    """Return a definition list of names (text) and their definitions (HTML)."""
    return "<dl>\n" + "\n".join(f'<dt>{html.escape(name)}</dt><dd dir="auto">{body}</dd>' for name, body in pairs) + "\n</dl>"


def marked(text: str, reference: str) -> str:
    """Return text with the words in <mark> that differ from the reference, as difflib aligns the two."""
    mine, theirs = _PIECES.findall(text), [piece for piece in _PIECES.findall(reference) if not piece.isspace()]
    words = [number for number, piece in enumerate(mine) if not piece.isspace()]
    matcher = difflib.SequenceMatcher(None, [mine[number] for number in words], theirs, autojunk=False)
    same = {words[i] for start, _, size in matcher.get_matching_blocks() for i in range(start, start + size)}
    differs = set(words) - same
    shown = [f"<mark>{html.escape(piece)}</mark>" if number in differs else html.escape(piece) for number, piece in enumerate(mine)]
    return re.sub(r"</mark>(\s*)<mark>", r"\1", "".join(shown))


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag[:2]}>" for cell in cells)

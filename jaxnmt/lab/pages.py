"""Self-contained HTML pages, for light and dark mode, wide and narrow screens; they load nothing.

Functions escape text; a parameter named `body` takes HTML.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Sequence

from jaxnmt.lab.tables import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #57606a; --line: #d0d7de; --mark: #ffe08a; --raised: #f6f8fa;
  --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #9da7b3; --line: #30363d; --mark: #6b4e00;
  --raised: #161b22; --link: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
a { color: var(--link); }
.note { color: var(--faint); font-size: .875rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-weight: normal; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
article { border: 1px solid var(--line); border-radius: .5rem; background: var(--raised); padding: .75rem 1rem; margin: 1rem 0; }
article h3 { margin: 0 0 .5rem; font-size: 1rem; }
dl { margin: 0; display: grid; grid-template-columns: fit-content(12rem) 1fr; gap: .25rem 1rem; }
dt { color: var(--faint); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
mark { background: var(--mark); color: inherit; text-decoration: underline; text-underline-offset: .2em; border-radius: .15rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_PIECES = re.compile(r"\s+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")  # Han and kana one by one


def page(title: str, body: str) -> str:
    """Return a whole page with `body` below its h1."""
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


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

"""A record as one HTML file: style, script and numbers inside, nothing fetched, nothing but itself needed."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("common.js", "heatmap.js", "told.js", "player.js", "heads.js", "beam.js", "page.js")


def page(record: dict[str, Any]) -> str:
    """The page of a record (`record.of_run`)."""
    parts = {
        "sentence": html.escape(record["sentence"]),
        "translation": html.escape(record["translation"]),
        "source_lang": _lang(record["languages"][0]),
        "target_lang": _lang(record["languages"][1]),
        "style": (TEMPLATE / "page.css").read_text(encoding="utf-8"),
        "script": "".join((TEMPLATE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "record": json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),  # so that no text ends the element
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], (TEMPLATE / "page.html").read_text(encoding="utf-8"))


def read(text: str) -> dict[str, Any]:
    """The record inside a page."""
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', text, re.S)
    assert found, "not a page of `jaxnmt visualize`"
    return json.loads(found[1])


def _lang(code: str) -> str:
    return f' lang="{html.escape(code.replace("_", "-"))}"' if code else ""  # zh_Hans is zh-Hans in HTML

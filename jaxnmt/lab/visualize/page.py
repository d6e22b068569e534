"""A record as one HTML file with style, script and numbers inside; it loads nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from jaxnmt.lab.pages import fill

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("common.js", "heatmap.js", "narration.js", "player.js", "heads.js", "beam.js", "page.js")


def page(record: dict[str, Any]) -> str:
    """Return the page of a record (`record.of_run`)."""
    text = {name: (TEMPLATE / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)}
    parts = {
        "sentence": html.escape(record["sentence"]),
        "translation": html.escape(record["translation"]),
        "source_lang": _lang(record["languages"][0]),
        "target_lang": _lang(record["languages"][1]),
        "style": text["page.css"],
        "script": "".join(text[name] for name in SCRIPTS),
        "record": json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),  # so that no text ends the element
    }
    return fill(text["page.html"], parts)


def _lang(code: str) -> str:
    return f' lang="{html.escape(code.replace("_", "-"))}"' if code else ""  # zh_Hans is zh-Hans in HTML

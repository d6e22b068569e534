"""Says a scene in one language: words, word order and agreement come from words/CODE.toml."""

from __future__ import annotations

import pathlib
import tomllib
from functools import cache
from typing import Any

from jaxnmt.data.scenes.meaning import Scene, Thing

LANGUAGES = ("en", "fr", "de", "es", "tr")
_WORDS = pathlib.Path(__file__).parent / "words"
_ROLES = ("figure", "ground")


@cache
def _words(language: str) -> dict[str, Any]:
    return tomllib.loads((_WORDS / f"{language}.toml").read_text(encoding="utf-8"))


def _form(forms: str | dict[str, Any], *traits: str) -> str:
    """Return the form of a word: the word itself, or what its table has for these traits.

    Traits are looked up in the order in which they are given: { ground = "kleinen", plural = "kleine", m = "kleiner" } has the same form
    for every ground.
    """
    while not isinstance(forms, str):
        table = forms
        forms = table[next(trait for trait in traits if trait in table)]
    return forms


def _phrase(thing: Thing, role: str, language: str) -> str:
    """Return the words for one thing."""
    words = _words(language)
    noun = words["shapes"][thing.shape]
    traits = (role, "singular" if len(thing.places) == 1 else "plural", words.get("genders", {}).get(thing.shape, ""))
    parts = {
        "count": words["counts"][len(thing.places) - 1],
        "size": words["sizes"][thing.size] if thing.size else "",
        "colour": words["colours"][thing.colour],
        "shape": noun,
    }
    return _form(words["phrase"], *traits).format_map({name: _form(forms, *traits) for name, forms in parts.items()})


def words(scene: Scene, language: str) -> list[tuple[str, Thing | None]]:
    """Return the caption's words, each with the thing of which it speaks; None for the words of the relation.

    French "d'un", which is relation and article in one, speaks of the thing.
    """
    phrases = {role: _phrase(thing, role, language) for role, thing in zip(_ROLES, scene.things, strict=False)}
    number = "plural" if scene.ground and len(scene.ground.places) > 1 else "singular"
    template = _form(_words(language)["relations"][scene.relation], number) if scene.relation else "{figure}"
    found: list[tuple[str, Thing | None]] = []
    for part in template.split():
        thing = next((thing for role, thing in zip(_ROLES, scene.things, strict=False) if role in part), None)
        found += [(word, thing) for word in part.format_map(phrases).split()]
    return found


def caption(scene: Scene, language: str) -> str:
    """Return the caption in one of LANGUAGES, without capital and full stop."""
    return " ".join(word for word, _ in words(scene, language))

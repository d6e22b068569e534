"""Find placeholders such as `%s`, `{name}` and URLs in text, and take them out of it.

No match of the pattern has a space in it, and whether a string matches depends on no letter around it but one: a digit before `%`. So
placeholders between spaces are always found again.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Callable

from jaxnmt.decoding.markup import Marked, Point

_PRINTF = r"%(?:\([^\s()]{1,99}\)|\d+\$)?[-+#0]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?(?:hh|h|ll|l|L|q|j|z|t)?[diouxXeEfFgGaAcspn@%]"
_OTHERS = r"(?:https?|ftp)://[^\s<>]*[\w/]|[\w.+-]{1,64}@\w[\w-]*(?:\.\w[\w-]*)+|\$?\{{1,3}[^\s{}]{0,99}\}{1,3}"
PLACEHOLDER = re.compile(rf"{_OTHERS}|(?<!\d){_PRINTF}")
"""URLs, e-mail addresses, `{…}`, and printf's conversions; `100%ige` has none."""
_ANYWHERE = re.compile(rf"{_OTHERS}|{_PRINTF}")
_CLOSING = frozenset(",.;:!?)]}»”")


def counts(text: str) -> collections.Counter[str]:
    """Return how often each placeholder occurs in a text."""
    return collections.Counter(PLACEHOLDER.findall(text))


def without(word: str, everywhere: bool) -> str:
    """Return a word without its placeholders; with `everywhere`, also without text that would be one in another context."""
    pattern = _ANYWHERE if everywhere else PLACEHOLDER
    while pattern.search(word):
        word = pattern.sub("", word)
    return word


def taken_out(marked: Marked, escape: Callable[[str], str]) -> Marked:
    """Return a line with its placeholders as points instead of text.

    Args:
        escape: writes a placeholder in the markup.
    """
    text, rest = marked.text, ""
    new = [0] * (len(text) + 1)  # where each place of the text is in the rest
    points: list[tuple[tuple[int, float], Point]] = []
    done = 0
    for match in PLACEHOLDER.finditer(text):
        start, end = match.span()
        new[done:start] = range(len(rest), len(rest) + start - done)
        rest += text[done:start]
        before, after = text[max(0, start - 1) : start] in " ", text[end : end + 1] in " "
        if before and text[end : end + 1] in _CLOSING and rest.strip(" "):
            rest = rest.rstrip(" ")  # in "Hello {name}, ..." the comma goes to the word before
        new[start:end] = [len(rest)] * (end - start)
        inside = tuple(e for e, element in enumerate(marked.elements) if element.at <= start and end <= element.end)
        points.append(((start, math.inf), Point(len(rest), 0, escape(match[0]), inside, before, after)))
        rest += "" if before or after else " "  # "a{x}b" are two words
        done = end
    new[done:] = range(len(rest), len(rest) + len(text) - done + 1)
    rest += text[done:]
    new = list(itertools.accumulate(reversed(new), min))[::-1]  # spaces may have gone
    points += [((point.at, point.order), point._replace(at=new[point.at])) for point in marked.points]
    ordered = sorted([*((element.at, element.order) for element in marked.elements), *(key for key, _ in points)])
    # Placeholders and tags are numbered anew, in one order.
    ranks = {key: rank for rank, key in enumerate(ordered)}
    elements = [
        element._replace(at=new[element.at], end=new[element.end], order=ranks[element.at, element.order]) for element in marked.elements
    ]
    return Marked(rest, tuple(elements), tuple(point._replace(order=ranks[key]) for key, point in sorted(points)))

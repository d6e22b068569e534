"""Put the markup of a line around the words of its translation, by word alignment.

A target word takes the elements around the source word that it attends to most. The output is written from the stack of open elements of
each word, so that tags are properly nested whatever the alignment is: neighbours in the same element share its tags, and words that
stand apart repeat them. An element is inside another only if it is so in the source: HTML has elements that must not be, such as links.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxnmt.decoding.markup import Element, Marked, Point

_WORD = re.compile("[^ ]+")
_PARTS = re.compile(r"(\W*)(.*?)(\W*)")

Stack = tuple[int, ...]
"""Numbers of the elements around something, outermost first."""
Place = tuple[int, int]
"""A target word, and how many of its items come before."""


class _Item(NamedTuple):
    """A part of a target word, or what stands between them, inside some elements. A space is written where two neighbours allow it."""

    text: str
    inside: Stack
    before: bool = True
    after: bool = True
    is_word: bool = True


def words(text: str) -> list[str]:
    """Return what stands between the spaces (U+0020) of a text."""
    return _WORD.findall(text)


def transfer(
    marked: Marked, target: Sequence[str], weights_TS: np.ndarray, escape: Callable[[str], str] = str, spaced: bool = False
) -> str:
    """Return the words of a translation with the markup of its source.

    Args:
        marked: the source.
        target: the words of the translation.
        weights_TS: the attention of each of them on each word of the source.
        escape: writes the text of words.
        spaced: write a space between all parts, so that no two of them can be read as one.
    """
    transferred = _Transfer(marked, target, weights_TS)
    items = transferred.items()
    return _written([item._replace(before=True, after=True) for item in items] if spaced else items, marked.elements, escape)


class _Transfer:
    """One translation. `words` has the items of each target word, and `used` the elements around them."""

    def __init__(self, marked: Marked, target: Sequence[str], weights_TS: np.ndarray) -> None:
        self.marked, self.target = marked, target
        self.spans = [match.span() for match in _WORD.finditer(marked.text)]
        self.source_of, self.targets_of = _links(weights_TS)
        self.words = [self._word(t) for t in range(len(target))]
        self.used = {e for word in self.words for item in word for e in item.inside}
        for e, element in enumerate(marked.elements):
            self._keep(e, [s for s, span in enumerate(self.spans) if _overlap(element, *span)], weights_TS)

    def _word(self, t: int) -> list[_Item]:
        """Return the items of a target word: punctuation, letters, punctuation; if it is the source's word, as that is marked up."""
        word = self.target[t]
        if not self.spans:
            return [_Item(word, ())]
        start, end = self.spans[self.source_of[t]]
        if word == self.marked.text[start:end]:
            cuts = self._cuts(start, end)
            parts = [(self.marked.text[a:b], self._around(a, b)) for a, b in itertools.pairwise(cuts)]
        else:
            bounds = _core(self.marked.text, start, end)
            ranges = (start, bounds[0]), bounds, (bounds[1], end)
            texts = _split(word)
            parts = [(text, self._around(*(own if own[0] < own[1] else bounds))) for text, own in zip(texts, ranges, strict=True) if text]
        return [_Item(text, inside, k == 0, k == len(parts) - 1) for k, (text, inside) in enumerate(parts)]

    def _cuts(self, start: int, end: int) -> list[int]:
        """Return where the markup divides a word of the source, start and end included."""
        inner = {place for element in self.marked.elements for place in (element.at, element.end)} | {
            point.at for point in self.marked.points
        }
        return [start, *sorted(place for place in inner if start < place < end), end]

    def _around(self, start: int, end: int) -> Stack:
        """Return the elements that overlap with letters of the source. Of those beside each other, the first counts."""
        stack: list[int] = []
        for e, element in enumerate(self.marked.elements):
            if _overlap(element, start, end) and self._fits(e, stack):
                stack.append(e)
        return tuple(stack)

    def _fits(self, e: int, stack: Iterable[int]) -> bool:
        """Return whether each of some elements is around an element or inside it."""
        elements = self.marked.elements
        return all(e == other or other in elements[e].inside or e in elements[other].inside for other in stack)

    def _keep(self, e: int, sources: list[int], weights_TS: np.ndarray) -> None:
        """Place an element that no word has yet: around the word that attends to it most, among words whose elements may contain it."""
        if sources and self.words and e not in self.used:
            has_room_T = [all(self._fits(e, item.inside) for item in word) for word in self.words]
            attention_T = np.where(has_room_T, weights_TS[:, sources].sum(-1), 0)
            t = int(attention_T.argmax())
            if attention_T[t] > 0:
                self.words[t] = [item._replace(inside=tuple(sorted({*item.inside, e}))) for item in self.words[t]]
                self.used.add(e)

    def items(self) -> list[_Item]:
        """Return all items of the output, in its order."""
        placed: dict[Place, list[_Item]] = {}
        for place, item in self._markers():
            placed.setdefault(place, []).append(item)
        found: list[_Item] = []
        for t, word in enumerate([*self.words, []]):
            for k in range(len(word) + 1):
                points = placed.get((t, k), [])
                if points and k:  # they divide a word
                    found[-1] = found[-1]._replace(after=True)
                found += points
                found += [item._replace(before=True) if points else item for item in word[k : k + 1]]
        return _nested(found, self.used)

    def _markers(self) -> list[tuple[Place, _Item]]:
        """Return the points, and the elements that are around no word, with their places: in order."""
        found: list[tuple[Place, int, _Item]] = []
        last_lone: Place = (0, 0)
        elements = self.marked.elements
        markers: list[Point | Element] = [*self.marked.points, *(element for e, element in enumerate(elements) if e not in self.used)]
        for marker in sorted(markers, key=lambda marker: marker.order):
            unused = [elements[e] for e in marker.inside if e not in self.used]
            place, moved = self._place((unused[0] if unused else marker).at)
            if isinstance(marker, Point):
                if marker.lone:
                    place = last_lone = max(last_lone, place)
                item = _Item(marker.text, marker.inside, marker.before or moved, marker.after, is_word=False)
            else:
                e = elements.index(marker)
                alone = not any(e in other.inside for other in markers)
                text = self.marked.text
                before, after = text[max(0, marker.at - 1) : marker.at] in " ", alone and text[marker.end : marker.end + 1] in " "
                item = _Item("", (*marker.inside, e), before or moved, after, is_word=False)
            found.append((place, marker.order, item))
        return [(place, item) for place, _, item in sorted(found, key=lambda each: each[:2])]

    def _place(self, at: int) -> tuple[Place, bool]:
        """Return the place of markup between letters, and whether it was moved from the middle of a word to its beginning."""
        text = self.marked.text
        following = next((s for s, (_, end) in enumerate(self.spans) if end > at), len(self.spans))
        within = following < len(self.spans) and self.spans[following][0] < at
        if within and (targets := self.targets_of[following]):
            (start, end), t = self.spans[following], targets[-1]
            if self.target[t] == text[start:end]:
                return (t, self._cuts(start, end).index(at)), False
            if at >= _core(text, start, end)[1]:  # before the punctuation at its end
                return (t, len(self.words[t]) - bool(_split(self.target[t])[2])), False
        for s in range(following, len(self.spans)):
            if targets := self.targets_of[s]:
                return (targets[0], 0), within
        return (len(self.target), 0), within


def _links(weights_TS: np.ndarray) -> tuple[list[int], list[list[int]]]:
    """Return the source word of each target word, and the target words of each source word: at least the one that attends to it most.

    A target word that attends to no source word goes with the one before it.
    """
    targets, sources = weights_TS.shape
    source_of = [0] * targets
    targets_of: list[list[int]] = [[] for _ in range(sources)]
    for t in range(targets if sources else 0):
        s = int(weights_TS[t].argmax())
        source_of[t] = s if weights_TS[t, s] > 0 else source_of[max(0, t - 1)]
        targets_of[source_of[t]].append(t)
    for s, own in enumerate(targets_of):
        if targets and not own and weights_TS[:, s].max() > 0:
            own.append(int(weights_TS[:, s].argmax()))
    return source_of, targets_of


def _nested(items: Sequence[_Item], used: set[int]) -> list[_Item]:
    """Put markup between words into those of its source elements that are open at its place."""
    found: list[_Item] = []
    for i, item in enumerate(items):
        if not item.is_word:
            left = found[-1].inside if found else ()
            right = next((other.inside for other in items[i:] if other.is_word), ())
            wanted = tuple(e for e in item.inside if e in used)
            near = max((right, left), key=lambda stack: _common(stack, wanted))
            own = tuple(e for e in item.inside if e not in used)
            # An element is put between the words of another that it is not in; a point is put inside.
            kept = near[: max(0 if own else _common(left, right), _common(near, wanted))]
            item = item._replace(inside=kept + own)
        found.append(item)
    return found


def _written(items: Iterable[_Item], elements: Sequence[Element], escape: Callable[[str], str]) -> str:
    parts: list[str] = []
    last = _Item("", (), after=False)
    for item in [*items, _Item("", (), before=False)]:
        shared = _common(last.inside, item.inside)
        parts += [elements[e].close for e in reversed(last.inside[shared:])]
        parts += [" "] if last.after and item.before else []
        parts += [elements[e].open for e in item.inside[shared:]]
        parts.append(escape(item.text) if item.is_word else item.text)
        last = item
    return "".join(parts)


def _common(left: Stack, right: Stack) -> int:
    """Return the length of the longest common prefix."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _overlap(element: Element, start: int, end: int) -> bool:
    return element.at < element.end and element.at < end and start < element.end  # an element without text overlaps nothing


def _split(word: str) -> tuple[str, str, str]:
    """Return the punctuation at the beginning of a word, the word, and the punctuation at its end. Punctuation alone is a word."""
    lead, core, tail = _PARTS.fullmatch(word).groups()  # type: ignore[union-attr]
    return (lead, core, tail) if core else ("", word, "")


def _core(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span of the word in text[start:end] without the punctuation around it."""
    lead, _, tail = _split(text[start:end])
    return start + len(lead), end - len(tail)

"""The embedded scenes: a function of their index; splits that keep their promises; one caption for a picture; true regions."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from jaxnmt.data import phrases, scenes
from jaxnmt.data.scenes import meaning as m
from jaxnmt.data.scenes.picture import BACKGROUND, PALETTE

SPLITS = {split: [scenes.scene(split, i) for i in range(1500)] for split in ("train", "validation", "test", "novel")}


def thing(size, colour, shape, count):
    return scenes.Thing(size, colour, shape, tuple((0.2, 0.2 + 0.3 * i) for i in range(count)))


GOLDEN = [
    (
        scenes.Scene(thing("small", "red", "circle", 1), "above", thing("", "blue", "square", 2)),
        "a small red circle above two blue squares | un petit cercle rouge au-dessus de deux carrés bleus"
        " | ein kleiner roter Kreis über zwei blauen Quadraten | un círculo rojo pequeño encima de dos cuadrados azules"
        " | iki mavi karenin üstünde küçük kırmızı bir daire",
    ),
    (
        scenes.Scene(thing("", "yellow", "star", 3), "left of", thing("big", "black", "heart", 1)),
        "three yellow stars to the left of a big black heart | trois étoiles jaunes à gauche d'un grand cœur noir"
        " | drei gelbe Sterne links von einem großen schwarzen Herzen | tres estrellas amarillas a la izquierda de un corazón negro grande"
        " | büyük siyah bir kalbin solunda üç sarı yıldız",
    ),
    (
        scenes.Scene(thing("big", "green", "diamond", 1), "right of", thing("small", "purple", "star", 1)),
        "a big green diamond to the right of a small purple star | un grand losange vert à droite d'une petite étoile violette"
        " | eine große grüne Raute rechts von einem kleinen violetten Stern | un rombo verde grande a la derecha"
        " de una estrella morada pequeña | küçük mor bir yıldızın sağında büyük yeşil bir eşkenar dörtgen",
    ),
    (
        scenes.Scene(thing("", "purple", "heart", 2), "below", thing("small", "black", "diamond", 1)),
        "two purple hearts below a small black diamond | deux cœurs violets en dessous d'un petit losange noir"
        " | zwei violette Herzen unter einer kleinen schwarzen Raute | dos corazones morados debajo de un rombo negro pequeño"
        " | küçük siyah bir eşkenar dörtgenin altında iki mor kalp",
    ),
    (
        scenes.Scene(thing("small", "blue", "triangle", 1)),
        "a small blue triangle | un petit triangle bleu | ein kleines blaues Dreieck | un triángulo azul pequeño | küçük mavi bir üçgen",
    ),
    (
        scenes.Scene(thing("big", "purple", "star", 2)),
        "two big purple stars | deux grandes étoiles violettes | zwei große violette Sterne | dos estrellas moradas grandes"
        " | iki büyük mor yıldız",
    ),
]


@pytest.mark.parametrize(("scene", "captions"), GOLDEN)
def test_captions_are_grammatical(scene, captions):
    assert [scenes.caption(scene, language) for language in scenes.LANGUAGES] == captions.split(" | ")


def test_languages_are_those_of_phrases():
    assert scenes.LANGUAGES == phrases.LANGUAGES


def test_every_word_has_each_form_that_is_needed():
    kinds = [thing(*kind) for kind in itertools.product(m.SIZES, m.COLOURS, m.SHAPES, (1, 2))]
    others = [thing("small", "black", shape, count) for shape in m.SHAPES for count in (1, 3)]
    for language in scenes.LANGUAGES:
        # Any scene is told apart from any other by its caption, and no word is empty.
        said = [scenes.caption(scenes.Scene(kind), language) for kind in kinds]
        said += [scenes.caption(scenes.Scene(kinds[0], relation, other), language) for relation in m.RELATIONS for other in others]
        assert len(set(said)) == len(said)
        assert not any("  " in text or "{" in text or text != text.strip() for text in said)


def test_a_scene_is_a_function_of_its_index_in_any_process():
    code = "from jaxnmt.data import scenes; p, c = scenes.example('tr', 'train', 7, 3); import zlib; print(zlib.crc32(p.tobytes()), c)"
    others = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(others) == 1
    assert scenes.example("tr", "train", 7, 3)[1] in others.pop()
    assert scenes.scene("train", 7, 3) != scenes.scene("train", 7, 4) != scenes.scene("train", 8, 4) != scenes.scene("test", 8, 4)


def test_each_combination_belongs_to_one_split():
    kinds = list(itertools.product(m.SIZES, m.COLOURS, m.SHAPES))
    assert {("small", "red", "circle"), ("", "yellow", "square"), ("big", "black", "heart")} < set(m.NOVEL)
    assert len(m.NOVEL) == 6 and len(m.FAMILIAR) == 102
    for left, right in itertools.combinations(range(3), 2):  # the other splits show every pair
        assert {(kind[left], kind[right]) for kind in m.FAMILIAR} == {(kind[left], kind[right]) for kind in kinds}
    pairs = {}
    for split, scenes_of_split in SPLITS.items():
        shown = [[each[:3] for each in scene.things] for scene in scenes_of_split]
        assert {sum(kind in m.NOVEL for kind in both) for both in shown} == {int(split == "novel")}
        pairs[split] = {tuple(kind[1:] for kind in both) for both in shown if len(both) == 2}
        if split in ("train", "novel"):
            assert set(itertools.chain(*shown)) >= set(m.NOVEL if split == "novel" else m.FAMILIAR)
        assert split in ("train", "novel") or all(len(both) == 2 for both in shown)
    assert not pairs["test"] & pairs["train"] and not pairs["validation"] & (pairs["train"] | pairs["test"])


@pytest.mark.parametrize("language", scenes.LANGUAGES)
def test_test_captions_are_new_and_their_words_are_not(language):
    said = {split: {scenes.caption(scene, language) for scene in found} for split, found in SPLITS.items()}
    assert not said["train"] & (said["test"] | said["validation"] | said["novel"])
    words = {split: set(" ".join(captions).split()) for split, captions in said.items()}
    assert words["test"] | words["validation"] | words["novel"] <= words["train"]


def centre(thing):
    return np.mean(thing.places, axis=0)


@pytest.mark.parametrize("split", SPLITS)
def test_the_picture_decides_the_caption(split):
    """Whoever sees places and colours knows which thing comes first, and what its relation is."""
    for scene in SPLITS[split]:
        if not scene.ground:
            assert scene.relation == ""
            continue
        assert m.COLOURS.index(scene.figure.colour) < m.COLOURS.index(scene.ground.colour)
        (down, right), (other_down, other_right) = centre(scene.figure), centre(scene.ground)
        edges = [[place[axis] for place in each.places] for axis in (0, 1) for each in scene.things]
        apart = {
            "above": max(edges[0]) < 0.5 < min(edges[1]),
            "below": max(edges[1]) < 0.5 < min(edges[0]),
            "left of": max(edges[2]) < 0.5 < min(edges[3]),
            "right of": max(edges[3]) < 0.5 < min(edges[2]),
        }
        assert apart[scene.relation]
        spans = [
            [(min(x) - m.RADIUS[each.size], max(x) + m.RADIUS[each.size]) for x in zip(*each.places, strict=True)] for each in scene.things
        ]
        told, other = (0, 1) if scene.relation in ("above", "below") else (1, 0)
        overlap = [max(a[0], b[0]) < min(a[1], b[1]) for a, b in zip(*spans, strict=True)]
        assert overlap[other] and not overlap[told]  # no other relation would be true
        assert {"above": down < other_down, "below": down > other_down, "left of": right < other_right, "right of": right > other_right}[
            scene.relation
        ]


def test_shapes_do_not_touch_and_stay_inside():
    for scene in SPLITS["train"]:
        boxes = [(*place, m.RADIUS[each.size]) for each in scene.things for place in each.places]
        for y, x, radius in boxes:
            assert radius <= min(y, x) and max(y, x) + radius <= 1
        for (y, x, radius), (v, u, other) in itertools.combinations(boxes, 2):
            assert max(abs(y - v), abs(x - u)) > radius + other


@pytest.mark.parametrize("size", [48, 31, 64])
def test_a_thing_is_drawn_in_its_region_and_nowhere_else(size):
    for scene in SPLITS["test"][:100]:
        picture = scenes.draw(scene, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        regions = [scenes.region(each, size) for each in scene.things]
        assert (picture[~np.any(regions, axis=0)] == BACKGROUND).all()
        for each, region in zip(scene.things, regions, strict=True):
            pure = (picture == PALETTE[each.colour]).all(-1)
            assert pure[region].any() and not pure[~region].any()


def test_words_know_their_thing():
    scene = GOLDEN[0][0]
    figure, ground = scene.things
    assert scenes.words(scene, "tr") == [
        *((word, ground) for word in "iki mavi karenin".split()),
        ("üstünde", None),
        *((word, figure) for word in "küçük kırmızı bir daire".split()),
    ]
    assert ("d'un", GOLDEN[1][0].ground) in scenes.words(GOLDEN[1][0], "fr")
    for scene in SPLITS["train"][:200]:
        for language in scenes.LANGUAGES:
            words = scenes.words(scene, language)
            assert " ".join(word for word, _ in words) == scenes.caption(scene, language)
            assert {each for _, each in words if each} == set(scene.things)
            assert any(each is None for _, each in words) == bool(scene.relation)

"""CIDEr-D: worked by hand from the paper's equations, and what must not change it."""

import math

import numpy as np
import pytest

from jaxnmt.errors import UserError
from jaxnmt.evaluation.cider import of_pictures

REFERENCES = [
    ["a red circle above a star", "a red circle over one star"],
    ["two blue squares below a heart", "a pair of blue squares under a heart"],
    ["a small green diamond", "a green diamond that is small"],
]
CAPTIONS = ["a red circle below a star", "two blue squares", "a small red diamond"]


def test_an_example_by_hand():
    """Two pictures: "x y" against "x y z", one reference each; the other picture's is "x w".

    x is used for both pictures, so that log(2 / 2) = 0; all else is used for one or none, log 2 each, which cancels in the cosine.
    1-grams: (y) · (y, z) / (1 · sqrt 2). 2-grams: (x y) · (x y, y z) / (1 · sqrt 2). Longer ones: the caption has none.
    The lengths differ by one word: exp(-1 / 72).
    """
    found = of_pictures(["x y", "x w"], [["x y z"], ["x w"]])
    assert found[0] == pytest.approx(10 * math.exp(-1 / 72) * (2 / math.sqrt(2)) / 4)
    assert found[1] == pytest.approx(10 * (1 + 1) / 4)  # equal, but without 3-grams and 4-grams


def test_repeated_words_are_clipped():
    """ "y y" has (2) for y against (1): min(2, 1) · 1 / (2 · 1). Its 2-gram "y y" is not in the reference "y q", which has length 2 too."""
    found = of_pictures(["y y", "w"], [["y q"], ["w"]])
    assert found[0] == pytest.approx(10 * (1 / (2 * math.sqrt(2))) / 4)


def test_several_references_are_averaged():
    alone = [of_pictures(CAPTIONS, [[texts[i]] for texts in REFERENCES]) for i in (0, 1)]
    both = of_pictures(CAPTIONS, REFERENCES)
    assert both.shape == (3,)
    # The rarity of an n-gram counts pictures over all references, so that the average is exact only if no n-gram is shared.
    twice = of_pictures(CAPTIONS, [[texts[0]] * 2 for texts in REFERENCES])
    np.testing.assert_allclose(twice, alone[0])


def test_identical_captions_reach_the_maximum_and_others_do_not():
    perfect = [texts[0] for texts in REFERENCES]
    same = [[text] * 3 for text in perfect]
    np.testing.assert_allclose(of_pictures(perfect, same), 10)
    assert (of_pictures(CAPTIONS, same) < 10).all()
    assert (of_pictures(["nothing of it at all"] * 3, same) == 0).all()


def test_the_order_of_pictures_and_references_is_irrelevant():
    order = [2, 0, 1]
    shuffled = of_pictures([CAPTIONS[i] for i in order], [REFERENCES[i][::-1] for i in order])
    np.testing.assert_allclose(shuffled, of_pictures(CAPTIONS, REFERENCES)[order])


def test_case_and_punctuation_are_irrelevant():
    np.testing.assert_allclose(of_pictures([text.capitalize() + "." for text in CAPTIONS], REFERENCES), of_pictures(CAPTIONS, REFERENCES))


def test_what_cannot_be_scored():
    assert of_pictures(["a red circle", ""], [["a red circle"], ["a star"]])[1] == 0
    assert of_pictures(["a red circle on a star"], [["a red circle on a star"]]) == 0  # one picture: every n-gram is in all of them
    for captions, references, words in (
        ([], [], "nothing|0 captions"),
        (["a"], [["a"], ["b"]], "1 captions cannot be scored"),
        (["a", "b"], [["a"], []], "picture 2 has no reference"),
    ):
        with pytest.raises(UserError, match=words):
            of_pictures(captions, references)

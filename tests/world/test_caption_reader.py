"""Captions read back: what describe_fully tells of a scene is what is understood."""

import numpy as np
import pytest

from world.caption_reader import facts_told, words_without_meaning
from world.captions import RELATIONS, describe_fully, facts
from world.scenes import KINDS, draw_rich_scene


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_caption_is_understood_fact_by_fact(kind):
    rng = np.random.default_rng(0)
    for _ in range(25):
        scene = draw_rich_scene(rng, kind)
        for _ in range(5):
            caption = describe_fully(scene, rng)
            told = facts_told(caption)
            assert told <= set(facts(scene)), caption
            # Only places are left out where there is no room for them.
            assert {relation for _, relation, _ in set(facts(scene)) - told} <= set(RELATIONS), caption
            assert words_without_meaning(caption) == "", caption


def test_what_is_wrong_is_understood_as_it_is_said():
    told = facts_told("a small red circle moving up slowly and a large blue star at rest on stripes")
    assert ("red", "moves", "up") in told
    assert ("blue", "shape", "star") in told
    assert ("things", "count", "2") in told
    assert ("camera", "is", "still") in told


@pytest.mark.parametrize("caption, left", [
    ("a small red circle teleporting over stripes", "teleporting"),
    ("", ""),
    ("nothing at all", "nothing at all"),
    ("a small red circle at rest and over stripes", "and"),
])
def test_words_without_meaning_are_left(caption, left):
    assert words_without_meaning(caption) == left

"""Captions read back: what describe_fully tells of a scene is what is understood."""

import numpy as np
import pytest

from world.caption_reader import count_kept, facts_asked, facts_shown, facts_told, words_without_meaning
from world.captions import RELATIONS, describe_briefly, describe_fully, facts
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_caption_keeps_all_that_a_brief_one_of_the_same_scene_asks_for(kind):
    rng = np.random.default_rng(1)
    for _ in range(25):
        scene = draw_rich_scene(rng, kind)
        full = describe_fully(scene, rng)
        for _ in range(5):
            brief = describe_briefly(scene, rng)
            kept, asked = count_kept(brief, full)
            # A full caption has no room for every place.
            lost = [fact for fact in facts_asked(brief) if fact[1] not in RELATIONS]
            assert kept >= len(lost), (brief, full)
            assert asked == len(facts_asked(brief))


@pytest.mark.parametrize("prompt, caption, kept, asked", [
    ("a red ball", "a small red circle at rest over stripes", 3, 3),
    ("a blue ball", "a small red circle at rest over stripes", 2, 3),
    ("a ball moving left fast", "a small red circle moving left slowly over stripes", 3, 4),
    ("a ball moving", "a small red circle at rest over stripes", 2, 3),
    ("a ball and a box", "a small red circle at rest over stripes", 1, 3),
    ("a box bites a ball", "a small red square bites a large blue circle over stripes", 4, 4),
    ("a box bites a ball", "a small red square at rest and a large blue circle at rest over stripes", 3, 4),
    ("a ball on dots the camera pans left", "a small red circle at rest on dots the view pans left", 4, 4),
    ("a ball moving left", "a small red circle moving right slowly over stripes", 2, 3),
    ("a ball going up then left", "a small red circle moving up slowly then right over stripes", 3, 4),
    ("a ball leaves", "a small red circle at rest over stripes", 2, 3),
    (
        "a ball right of a box",
        "a small red circle at rest and a large blue square at rest over stripes "
        "the blue square is left of the red circle",
        4, 4,
    ),
])
def test_what_is_kept_of_a_brief_caption_is_counted(prompt, caption, kept, asked):
    assert count_kept(prompt, caption) == (kept, asked)


def test_a_video_shows_a_brief_caption_whatever_colours_its_things_have():
    found = facts_told("a small red circle moving up slowly and a large blue square at rest on stripes")
    asked = facts_asked("a big box and a ball moving up")
    assert facts_shown(asked, found) == len(asked) * [True]

    # The box has to be the big one, and the ball the one that moves.
    exchanged = facts_asked("a big ball and a box moving up")
    assert not all(facts_shown(exchanged, found))


@pytest.mark.parametrize("found", [set(), {("things", "count", "2"), ("ground", "is", "plain")}])
def test_a_video_without_things_shows_none_of_what_is_asked_of_them(found):
    asked = facts_asked("a red ball and a box over plain ground")
    shown = dict(zip(asked, facts_shown(asked, found), strict=True))
    assert shown.pop(("ground", "is", "plain")) == bool(found)
    assert shown.pop(("things", "count", "2")) == bool(found)
    assert not any(shown.values())

"""Impossible twins: both clips begin alike, and one law is broken in the second."""

import numpy as np
import pytest

from world.scene_reader import read_facts
from world.scenes import COLOURS
from world.twins import TWINS, draw_twins

# Two pairs of each.
PAIRS = {}
for twin in TWINS:
    PAIRS[twin] = [draw_twins(np.random.default_rng(seed), twin, 29, 64, 64) for seed in (1, 2)]


def colours_in(frame):
    """The palette colours of more than ten pixels."""
    distances = {name: abs(frame - np.float32(colour)).sum(-1) for name, colour in COLOURS.items()}
    return {name for name, distance in distances.items() if (distance < 5).sum() > 10}


@pytest.mark.parametrize("twin", TWINS)
def test_twins_begin_alike_and_part_at_the_frame_that_is_told(twin):
    for possible, impossible, first in PAIRS[twin]:
        assert possible.shape == impossible.shape == (29, 64, 64, 3)
        assert (possible[:first] == impossible[:first]).all()
        assert (possible[first + 4 :] != impossible[first + 4 :]).any()


@pytest.mark.parametrize("twin", TWINS)
def test_the_first_of_the_twins_keeps_the_law(twin):
    event = {"hide": "hides", "collide": "collides", "bite": "bites"}[TWINS[twin]]
    for possible, impossible, _ in PAIRS[twin]:
        assert event in {relation for _, relation, _ in read_facts(possible)}
        assert event not in {relation for _, relation, _ in read_facts(impossible)}


def test_what_vanishes_is_not_seen_again_and_nothing_comes_instead():
    for possible, impossible, _ in PAIRS["vanishes behind the pillar"]:
        assert len(colours_in(impossible[-1])) == len(colours_in(possible[-1])) - 1


def test_what_comes_out_in_another_colour_has_one_that_was_not_there():
    for possible, impossible, _ in PAIRS["comes out in another colour"]:
        new = colours_in(impossible[-1]) - colours_in(possible[0])
        assert len(new) == 1


def test_what_heals_is_whole_again():
    for possible, impossible, _ in PAIRS["heals its bite"]:
        differs = (possible[-1] != impossible[-1]).any(-1)
        whole = impossible[-1][differs].astype(float)
        distances = [abs(whole - colour).sum(-1) for colour in COLOURS.values()]
        assert differs.sum() > 10
        assert (np.median(distances, axis=1) < 60).sum() == 1

import pytest

from world.captions import describe, vocab
from world.scenes import COMBINATIONS, Scene, Thing

CIRCLE = Thing("circle", "red", 0.2, (0.5, 0.5), "left", "slowly")
SQUARE = Thing("square", "blue", 0.2, (0.5, 0.5), "up", "quickly")


@pytest.mark.parametrize("motion, caption", [
    (("direction", "speed"), "a red circle moving left slowly"),
    (("direction",), "a red circle moving left"),
    (("speed",), "a red circle moving slowly"),
    ((), "a red circle"),
])
def test_a_caption_tells_as_much_of_the_motion_as_it_is_asked_to(motion, caption):
    assert describe(Scene([CIRCLE]), motion) == caption


def test_a_caption_tells_all_of_the_motion_if_not_asked():
    assert describe(Scene([SQUARE])) == "a blue square moving up quickly"


def test_several_things_are_joined_in_order():
    assert describe(Scene([CIRCLE, SQUARE]), ()) == "a red circle and a blue square"


def test_the_vocabulary_is_exactly_what_captions_can_say():
    said = set()
    for shape, colour, direction, speed in COMBINATIONS:
        thing = Thing(shape, colour, 0.2, (0.5, 0.5), direction, speed)
        said.update(describe(Scene([thing, thing])).split())
    assert vocab() == sorted(said)

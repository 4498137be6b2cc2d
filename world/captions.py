"""Captions: what a scene shows, in a fixed grammar of few words.

Since we know the scene, its caption is exact, where Sora's training captions come from a model that looks
at the video (DALL·E 3's recaptioning).
"""

from world.scenes import DIRECTIONS, SIMPLE_COLOURS, SIMPLE_SHAPES, SPEEDS


def describe(scene, motion=("direction", "speed")):
    """A scene in words: 'a red circle moving left slowly'. The direction is the one at time 0.

    motion  which of "direction" and "speed" to tell; () tells neither: 'a red circle'
    """
    phrases = []
    for thing in scene.things:
        words = ["a", thing.colour, thing.shape]
        if motion:
            words.append("moving")
        if "direction" in motion:
            words.append(thing.direction)
        if "speed" in motion:
            words.append(thing.speed)
        phrases.append(" ".join(words))
    return " and ".join(phrases)


def vocab():
    """Every word that `describe` can say, sorted. "and" is needed only by scenes of several things."""
    return sorted({"a", "and", "moving", *telling_words()})


def telling_words():
    """The words that say what a scene shows, which "a", "and" and "moving" do not."""
    return [*SIMPLE_SHAPES, *SIMPLE_COLOURS, *DIRECTIONS, *SPEEDS]


if __name__ == "__main__":
    import numpy as np

    from world.scenes import draw_scene

    rng = np.random.default_rng(0)
    for _ in range(4):
        scene = draw_scene(rng)
        print(f"{describe(scene):42} without its motion: {describe(scene, ())}")
    print(f"{len(vocab())} words: {' '.join(vocab())}")

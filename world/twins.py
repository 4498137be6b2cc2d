"""Impossible twins: a clip that keeps the laws of the world, and one that breaks a law half-way.

A model that has understood a law is more surprised by the twin: its denoising loss is higher there
(evaluate.py --world, row "surprise"). Both clips begin with the same frames. They part while the thing is out
of sight, or at the moment of the meeting.

Paper
    Riochet et al., "IntPhys" (2018), https://arxiv.org/abs/1803.07616: infants look longer at what cannot be,
    so a model of the world is asked which of two films, alike but for one law, is the less likely.

Letters
    T H W   frames, height, width in pixels
"""

from dataclasses import replace

import numpy as np

from world.scenes import (
    COLOURS,
    DIRECTIONS,
    SPEEDS,
    draw_rich_scene,
    frame_extent,
    meeting_time,
    pick,
    render,
)

# What is impossible, and the kind of scene in which it happens.
TWINS = {
    "vanishes behind the pillar": "hide",
    "comes out in another colour": "hide",
    "comes out too early": "hide",
    "passes through what it hits": "collide",
    "heals its bite": "bite",
}

JUMP = 0.25  # short sides that what comes out too early has jumped ahead, hidden: 0.7 seconds of its way
HEALS_AFTER = 0.4  # seconds after the bite


def draw_twins(rng, twin, frames, height, width, fps=12.0):
    """A clip and its impossible twin → (possible, impossible, first), each (T, H, W, 3) uint8; `first` is the
    first frame in which they may differ.

    rng   numpy Generator
    twin  one of TWINS
    """
    seconds = (frames - 1) / fps
    scene = draw_rich_scene(rng, TWINS[twin], frame_extent(height, width), seconds)
    changed, since = break_law(rng, scene, twin)

    times = np.arange(frames) / fps
    first = int(np.searchsorted(times, since))
    possible = render(scene, frames, height, width, times=times)
    end = render(changed, height=height, width=width, times=times[first:])
    return possible, np.concatenate([possible[:first], end]), first


def break_law(rng, scene, twin):
    """The scene whose end is impossible after the beginning of this one → (scene, seconds until then)."""
    thing, *others = scene.things
    if TWINS[twin] == "hide":
        # When all of it is hidden: in the middle of the pillar.
        way = abs(sum(scene.pillar) / 2 - thing.start[0])
        hidden = way / SPEEDS[thing.speed]

    if twin == "vanishes behind the pillar":
        return replace(scene, things=others), hidden

    if twin == "comes out in another colour":
        taken = {thing.colour for thing in scene.things}
        colour = pick(rng, [colour for colour in COLOURS if colour not in taken])
        return replace(scene, things=[replace(thing, colour=colour), *others]), hidden

    if twin == "comes out too early":
        x, y = thing.start
        ahead = x + DIRECTIONS[thing.direction][0] * JUMP
        return replace(scene, things=[replace(thing, start=(ahead, y)), *others]), hidden

    if twin == "passes through what it hits":
        return replace(scene, meeting=""), meeting_time(scene)

    # After "bites" both move as before, but `render` draws no bite for a meeting of another name.
    return replace(scene, meeting="heals"), meeting_time(scene) + HEALS_AFTER


if __name__ == "__main__":
    from pathlib import Path

    import imageio.v3 as iio

    from world.scenes import film

    rng = np.random.default_rng(0)
    rows = []
    for twin in TWINS:
        possible, impossible, first = draw_twins(rng, twin, 29, 64, 64)
        rows += [film(possible), film(impossible)]
        print(f"{twin}: from frame {first} on")
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/twins.png", np.concatenate(rows).repeat(2, 0).repeat(2, 1))
    print("out/twins.png shows each clip above its impossible twin, every fourth frame")

"""The toy world: things of one shape and colour that move over a dark ground and bounce off the frame's edge.

A scene is data (things, a ground), and three functions read it: `simulate` says where everything is, `render` draws it,
`describe` puts it into words. Nothing is stored: a clip is a function of its scene, a scene of a random generator. Because
we made the world, we can read a generated video back and say exactly whether it shows what the prompt asked (evaluate.py).

Positions and sizes are in units of the frame's short side, time in seconds, so any frame size and frame rate shows the same
motion: a 32x32 frame is 1 x 1, a 32x64 frame (height x width) is 1 high and 2 wide; x goes right, y goes down.

The idea of testing video models in a world with known laws: Kang et al., "How Far Is Video Generation from World Model"
(ICML 2025). Letters: T H W frames, height, width in pixels.
"""
from dataclasses import dataclass
from itertools import product

import numpy as np

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (225, 50, 45), "green": (45, 185, 70), "blue": (55, 95, 240), "yellow": (240, 215, 50), "purple": (185, 60, 215), "white": (240, 240, 240)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": 0.15, "quickly": 0.36}  # short sides per second
CALM = 4 / 3  # seconds: 17 frames, at 12 a second
GROUND = (18, 20, 28)
COMBINATIONS = list(product(SHAPES, COLOURS, DIRECTIONS, SPEEDS))
# One in ten combinations is never trained on. Every 11th, because 11 shares no factor with the 3, 6, 4 and 2 values of the
# four attributes: every single word is trained, only these sentences are not.
HELD_OUT = COMBINATIONS[::11]
SEEN = [c for c in COMBINATIONS if c not in HELD_OUT]


@dataclass
class Thing:
    shape: str
    colour: str
    size: float  # half the side of its bounding box, in short sides
    start: tuple  # (x, y) of its centre at time 0
    direction: str
    speed: str


@dataclass
class Scene:
    things: list  # drawn in this order, later ones in front
    ground: tuple = GROUND


def scene(rng, combination=None, aspect=(1.0, 1.0), calm=CALM):
    """Draws a scene with one thing.

    rng          numpy Generator; the same state gives the same scene
    combination  (shape, colour, direction, speed); None draws one of SEEN
    aspect       (height, width) of the frame in short sides
    calm         seconds before the thing first meets the edge, as far as the frame has room for them
    """
    shape, colour, direction, speed = combination or SEEN[rng.integers(len(SEEN))]
    size = rng.uniform(0.18, 0.25)
    start = []
    for d, length in zip(DIRECTIONS[direction], (aspect[1], aspect[0])):
        room = max(0.0, length - 2 * size - abs(d) * SPEEDS[speed] * calm)  # where it may start and not meet the edge in time
        start.append(rng.uniform(size, size + room) if d >= 0 else length - rng.uniform(size, size + room))
    return Scene([Thing(shape, colour, size, tuple(start), direction, speed)])


def aspect(height, width):
    """A frame's (height, width) in short sides."""
    return height / min(height, width), width / min(height, width)


def simulate(scene, times, aspect=(1.0, 1.0)):
    """Where every thing's centre is. Straight lines; the edge reflects, so position folds like a triangle wave.

    times (T,) seconds → (things, T, 2) x and y in short sides."""
    path = np.empty((len(scene.things), len(times), 2))
    for i, thing in enumerate(scene.things):
        for axis, length in enumerate((aspect[1], aspect[0])):
            free = length - 2 * thing.size
            # run: how far from its first wall it would be if there were no walls; % and abs fold that back into the frame
            run = thing.start[axis] - thing.size + DIRECTIONS[thing.direction][axis] * SPEEDS[thing.speed] * np.asarray(times)
            path[i, :, axis] = thing.size + free - np.abs(run % (2 * free) - free)
    return path


def coverage(shape, size, centre, height, width):
    """How much of each pixel a shape covers, edges anti-aliased over one pixel.

    size, one or one per frame, and centres (T, 2), in short sides → (T, H, W) float32 in [0, 1]. Every shape just fits its box of ± size, so all bounce alike."""
    unit = min(height, width)
    x = ((np.arange(width) + 0.5) - centre[:, :1] * unit).astype(np.float32)[:, None, :]
    y = ((np.arange(height) + 0.5) - centre[:, 1:] * unit).astype(np.float32)[:, :, None]
    r = np.reshape(np.float32(size * np.float64(unit)), (-1, 1, 1))
    if shape == "circle":
        outside = np.sqrt(x * x + y * y) - r  # pixels from the outline, negative inside
    elif shape == "square":
        outside = np.maximum(abs(x), abs(y)) - r
    elif shape == "emblem":  # a ring and a cross inside: what safety.py stands guard against; no caption names it and no scene draws it by chance
        centre, thin = np.sqrt(x * x + y * y), np.float32(0.2) * r
        outside = np.minimum(abs(centre - 4 * thin) - thin, np.maximum(np.minimum(abs(x), abs(y)) - thin, centre - r))
    else:  # triangle: base 2r at the bottom, apex at the top; its right side is 2x - y - r = 0, over sqrt 5 for pixels
        outside = np.maximum((2 * abs(x) - y - r) / np.float32(5**0.5), y - r)
    return np.clip(0.5 - outside, 0, 1)


def render(scene, frames=17, height=32, width=32, fps=12.0, times=None, grown=1.0):
    """Draws a scene → (T, H, W, 3) uint8, at times 0, 1 / fps, ... or any others, (T,) seconds; things as many times their size as `grown`, one or one per frame."""
    times = np.arange(frames) / fps if times is None else times
    video = np.broadcast_to(np.float32(scene.ground), (len(times), height, width, 3))
    for thing, path in zip(scene.things, simulate(scene, times, aspect(height, width))):
        cover = coverage(thing.shape, thing.size * np.asarray(grown), path, height, width)[..., None]
        video = video + cover * (np.float32(COLOURS[thing.colour]) - video)
    return (video + 0.5).astype(np.uint8)


def describe(scene, motion=("direction", "speed")):
    """A scene in words: 'a red circle moving left slowly', where direction is the one at time 0; motion says what of it is told, () 'a red circle'."""
    return " and ".join(" ".join([f"a {t.colour} {t.shape}", *["moving"] * bool(motion), *(getattr(t, m) for m in motion)]) for t in scene.things)


def words():
    """Every word that `describe` can say, sorted. "and" waits for scenes of several things."""
    return sorted({"a", "and", "moving", *SHAPES, *COLOURS, *DIRECTIONS, *SPEEDS})


if __name__ == "__main__":
    import imageio.v3 as iio
    from pathlib import Path

    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(6)]
    strip = np.concatenate([np.concatenate(render(s, height=64, width=64)[::4], 1) for s in scenes])
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/world.png", strip)
    print(*map(describe, scenes), f"{len(SEEN)} combinations to train on, {len(HELD_OUT)} held out", "out/world.png shows these, four frames apart", sep="\n")

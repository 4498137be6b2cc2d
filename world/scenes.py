"""The toy world: flat shapes that move over a dark ground and bounce off the edges of the frame.

A scene is data (a list of things and a ground colour). `simulate` says where everything is, `render` draws
it, and `describe` in captions.py puts it into words. Nothing is stored on disk: a clip is a function of its
scene, and a scene is a function of a random generator. Because we made the world and know its laws, we can
read a generated video back (reader.py) and say exactly whether it shows what its prompt asked for.

Positions and sizes are in units of the frame's short side, and time is in seconds, so every frame size and
frame rate shows the same motion. A frame of 32x32 pixels is 1 x 1; one of 32x64 (height x width) is 1 high
and 2 wide. x points right and y points down, as in an array of pixels.

Paper
    Kang et al., "How Far Is Video Generation from World Model: A Physical Law Perspective" (ICML 2025),
    https://arxiv.org/abs/2411.02385: test video models in a world whose laws are known, on combinations of
    attributes that they were never trained on.

Where we differ
    Sora learns from real video. This world replaces it so that a laptop can train on it in minutes.

Letters
    T H W   frames, height, width in pixels
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (225, 50, 45),
    "green": (45, 185, 70),
    "blue": (55, 95, 240),
    "yellow": (240, 215, 50),
    "purple": (185, 60, 215),
    "white": (240, 240, 240),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y)
SPEEDS = {"slowly": 0.15, "quickly": 0.36}  # short sides per second
CALM_SECONDS = 4 / 3  # a clip of 17 frames at 12 frames per second, from its first frame to its last
GROUND = (18, 20, 28)

# Half the side of a thing's bounding box, in short sides: large enough to tell its shape in 32 pixels, small
# enough to leave it room to move.
SMALLEST_SIZE = 0.18
LARGEST_SIZE = 0.25

# About one combination in ten is never trained on. We take every 11th because 11 shares no factor with the
# 3 shapes, 6 colours, 4 directions and 2 speeds: every single word is trained, only these sentences are not.
COMBINATIONS = list(product(SHAPES, COLOURS, DIRECTIONS, SPEEDS))
HELD_OUT = COMBINATIONS[::11]
SEEN = [combination for combination in COMBINATIONS if combination not in HELD_OUT]


@dataclass
class Thing:
    shape: str
    colour: str
    size: float  # half the side of its bounding box, in short sides
    start: tuple  # (x, y) of the middle of its bounding box at time 0, in short sides
    direction: str  # at time 0; it reverses at every bounce
    speed: str


@dataclass
class Scene:
    things: list  # drawn in this order, later ones in front
    ground: tuple = GROUND  # (red, green, blue), 0 to 255


def draw_scene(rng, combination=None, extent=(1.0, 1.0), calm_seconds=CALM_SECONDS):
    """Draws a random scene with one thing in it.

    rng           numpy Generator; the same state gives the same scene
    combination   (shape, colour, direction, speed); None draws one of SEEN
    extent        (height, width) of the frame in short sides
    calm_seconds  seconds before the thing first meets an edge, as far as the frame has room for them
    """
    if combination is None:
        combination = SEEN[rng.integers(len(SEEN))]
    shape, colour, direction, speed = combination
    size = rng.uniform(SMALLEST_SIZE, LARGEST_SIZE)
    height, width = extent

    start = []
    for step, length in zip(DIRECTIONS[direction], (width, height), strict=True):
        # It has to start far enough from the wall ahead to travel the calm seconds without meeting it.
        travelled = abs(step) * SPEEDS[speed] * calm_seconds
        room = max(0.0, length - 2 * size - travelled)
        from_wall_behind = rng.uniform(size, size + room)

        # A thing that moves left or up has the far wall behind it.
        if step < 0:
            start.append(length - from_wall_behind)
        else:
            start.append(from_wall_behind)

    return Scene([Thing(shape, colour, size, tuple(start), direction, speed)])


def frame_extent(height, width):
    """A frame's (height, width) in short sides, from pixels: 32, 64 → 1.0, 2.0."""
    short_side = min(height, width)
    return height / short_side, width / short_side


def simulate(scene, times, extent=(1.0, 1.0)):
    """Where the middle of every thing's box is: straight lines at constant speed, reflected at the edges.

    times   (T,) seconds
    extent  (height, width) of the frame in short sides
    returns (things, T, 2), x and y in short sides
    """
    height, width = extent
    paths = np.empty((len(scene.things), len(times), 2))
    for index, thing in enumerate(scene.things):
        for axis, length in enumerate((width, height)):
            # Without walls, this is how far it would be from the left or upper wall it can touch.
            velocity = DIRECTIONS[thing.direction][axis] * SPEEDS[thing.speed]
            distance = thing.start[axis] - thing.size + velocity * np.asarray(times)

            # Walls fold that line into a triangle wave: there and back takes twice the free length, and the
            # absolute value mirrors the second half of each period onto the first.
            free = length - 2 * thing.size
            paths[index, :, axis] = thing.size + free - np.abs(distance % (2 * free) - free)
    return paths


def coverage(shape, size, centre, height, width):
    """How much of each pixel a shape covers, its edges softened over one pixel.

    shape   one of SHAPES, or "emblem", which only the safety filters use: no random scene contains it
    size    half the side of its bounding box in short sides: one number, or one per frame
    centre  (T, 2), x and y of the middle of that box in short sides
    returns (T, H, W) float32 in [0, 1]

    Every shape just fits its box of ± size, so all of them bounce at the same distance from a wall.
    """
    # Pixel centres are at half-integers. Everything below is in pixels, relative to the middle of the box.
    unit = min(height, width)
    columns = np.arange(width) + 0.5
    rows = np.arange(height) + 0.5
    x = (columns - centre[:, :1] * unit).astype(np.float32)                                 # (T, W)
    y = (rows - centre[:, 1:] * unit).astype(np.float32)                                    # (T, H)
    r = np.float32(size * unit)                                                             # () or (T,)

    # One axis each for frames, rows and columns, so that they broadcast to every pixel.
    x = x[:, None, :]                                                                       # (T, 1, W)
    y = y[:, :, None]                                                                       # (T, H, 1)
    r = np.reshape(r, (-1, 1, 1))                                                           # (T or 1, 1, 1)

    # Zero on the outline, negative inside, and half a pixel either way fades from covered to not.
    outside = signed_distance(shape, x, y, r)                                               # (T, H, W)
    return np.clip(0.5 - outside, 0, 1)


def signed_distance(shape, x, y, r):
    """Pixels from (x, y) to the outline of a shape in the box of ± r around the origin, negative inside.

    Exact beside an edge; outside a corner it is too small. Raises ValueError for an unknown shape.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - r

    if shape == "square":
        return np.maximum(abs(x), abs(y)) - r

    if shape == "triangle":
        # The base is 2r wide at the bottom, the apex in the middle of the top. The right side is the line
        # 2x - y - r = 0; dividing by the length of its normal (2, -1), which is sqrt(5), gives pixels.
        sides = (2 * abs(x) - y - r) / np.float32(5**0.5)
        base = y - r
        return np.maximum(sides, base)

    if shape == "emblem":
        # A ring with a cross inside it, both drawn with strokes of half-width r / 5.
        radius = np.sqrt(x * x + y * y)
        stroke = np.float32(0.2) * r
        ring = abs(radius - 4 * stroke) - stroke
        cross = np.maximum(np.minimum(abs(x), abs(y)) - stroke, radius - r)
        return np.minimum(ring, cross)

    raise ValueError(f"no shape is called {shape!r}")


def render(scene, frames=17, height=32, width=32, fps=12.0, times=None, size_factor=1.0):
    """Draws a scene → (T, H, W, 3) uint8.

    times        (T,) seconds; None takes `frames` of them: 0, 1 / fps, 2 / fps, ...
    size_factor  multiplies the size of every thing: one number, or one per frame
    """
    if times is None:
        times = np.arange(frames) / fps

    # Later things are painted over earlier ones: video + cover * (colour - video).
    paths = simulate(scene, times, frame_extent(height, width))
    video = np.broadcast_to(np.float32(scene.ground), (len(times), height, width, 3))
    for thing, path in zip(scene.things, paths, strict=True):
        size = thing.size * np.asarray(size_factor)
        cover = coverage(thing.shape, size, path, height, width)[..., None]                 # (T, H, W, 1)
        video = video + cover * (np.float32(COLOURS[thing.colour]) - video)                 # (T, H, W, 3)
    return (video + 0.5).astype(np.uint8)


if __name__ == "__main__":
    from pathlib import Path

    import imageio.v3 as iio

    from data.video_io import film_strip
    from world.captions import describe

    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, combination) for combination in SEEN[::25]]
    videos = [render(scene) for scene in scenes]
    captions = [describe(scene) for scene in scenes]
    print(*captions, sep="\n")
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/world.png", film_strip(videos, captions, columns=9))
    print(f"{len(SEEN)} combinations to train on, {len(HELD_OUT)} held out")
    print("out/world.png shows these, every other frame")

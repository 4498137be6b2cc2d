"""The toy world: flat shapes that move, meet, hide and fall in front of a still or moving camera.

A scene is data: a list of things, the ground behind them, a camera. `simulate` says where everything is,
`render` draws it, and captions.py puts it into words. Nothing is stored on disk: a clip is a function of its
scene, and a scene is a function of a random generator. Because we made the world and know its laws, we can
read a generated video back (reader.py) and say exactly whether it shows what its prompt asked for.

Two worlds are drawn from the same code. The simple one has one thing that moves over a plain ground and
bounces off the edges of the frame (`draw_scene`); the rich one has up to three, and all the events of KINDS
(`draw_rich_scene`).

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

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {
    "red": (225, 50, 45),
    "green": (45, 185, 70),
    "blue": (55, 95, 240),
    "yellow": (240, 215, 50),
    "purple": (185, 60, 215),
    "white": (240, 240, 240),
    "orange": (245, 135, 30),
    "cyan": (50, 210, 225),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SPEEDS = {"slowly": 0.15, "quickly": 0.36}  # short sides per second
CALM_SECONDS = 4 / 3  # a clip of 17 frames at 12 frames per second, from its first frame to its last

# What lies behind the things. A pattern has two tones, the darker one below; a plain ground has the first.
GROUND = (18, 20, 28)
LIGHT_GROUND = (66, 70, 84)
GROUNDS = ("plain", "striped", "dotted")
PATTERN_PERIOD = 0.25  # short sides from one stripe, or dot, to the next
DOT_RADIUS = 0.07
PILLAR = (128, 128, 128)

# The camera moves over the ground. Nothing else in the world moves with it.
CAMERAS = ("still", "pans left", "pans right", "pans up", "pans down", "zooms in", "zooms out")
PAN_SPEED = 0.15  # short sides per second
ZOOM_RATE = 0.12  # everything grows by this share in a second, or shrinks
GRAVITY = 1.0  # short sides per second squared: a drop of half a short side lasts a second

# Half the side of a thing's bounding box, in short sides: large enough to tell its shape in 32 pixels (in the
# rich world in 64), small enough to leave it room to move.
SMALLEST_SIZE = 0.18
LARGEST_SIZE = 0.25
SIZES = {"small": 0.11, "large": 0.16}

# A shape that fits the box of ± r has an area of AREA_PER_RADIUS r². An area is also its mass.
ARM = 0.36  # half the width of a cross's arm, over r
STAR_TIP = 1 / np.sin(0.4 * np.pi)  # the radius of a star's tips, over r: the outer two touch the box
STAR_NOTCH = 0.45  # the radius of its notches, over that of its tips
STAR_STRETCH = 2 / (STAR_TIP * (1 + np.cos(0.2 * np.pi)))  # its height, stretched until it fills the box
AREA_PER_RADIUS = {
    "circle": np.pi,
    "square": 4,
    "triangle": 2,
    "star": 5 * STAR_TIP**2 * STAR_NOTCH * np.sin(0.2 * np.pi) * STAR_STRETCH,
    "cross": 8 * ARM - 4 * ARM**2,
}

# How far the centre of mass lies below the middle of the box, over r. A triangle's is a third of its height,
# 2r / 3, above its base; a star's is the middle of its tips.
CENTRE_DROP = {"circle": 0, "square": 0, "triangle": 1 / 3, "star": STAR_TIP * STAR_STRETCH - 1, "cross": 0}

# The simple world. About one combination in ten is never trained on. We take every 11th because 11 shares no
# factor with the 3 shapes, 6 colours, 4 directions and 2 speeds: every single word is trained, only these
# sentences are not.
SIMPLE_SHAPES = SHAPES[:3]
SIMPLE_COLOURS = list(COLOURS)[:6]
COMBINATIONS = list(product(SIMPLE_SHAPES, SIMPLE_COLOURS, DIRECTIONS, SPEEDS))
HELD_OUT = COMBINATIONS[::11]
SEEN = [combination for combination in COMBINATIONS if combination not in HELD_OUT]

# The rich world: the same, with sizes and with things that stand still.
MOTIONS = [("still", ""), *product(DIRECTIONS, SPEEDS)]
RICH_COMBINATIONS = list(product(SHAPES, COLOURS, SIZES, MOTIONS))
RICH_HELD_OUT = RICH_COMBINATIONS[::11]

# What can happen in a scene of the rich world, and the seconds that a clip needs to show all of it.
KINDS = {
    "move": 0.0,  # up to three things move, bounce, or stand still; the camera may move
    "turn": 1.3,  # half-way, a thing turns by a right angle
    "fall": 1.3,  # a thing falls, bounces off the floor, and comes up again
    "hide": 2.3,  # a thing goes behind a pillar and comes out on its other side
    "leave": 2.3,  # a thing leaves the frame and comes back
    "collide": 2.0,  # a thing hits another, which stood still, and both go on by the laws of mechanics
    "bite": 2.0,  # a thing bites another, which keeps the mark of the bite, and goes back
    "cut": 1.3,  # half-way, a second shot: the same thing, another ground
}

# What a meeting is called in a scene.
MEETINGS = {"collide": "collides", "bite": "bites"}

# The cameras that may move in scenes of each kind; in all others they stand still. A turn is never panned in
# training, see below. What falls bounces off the lower edge of the frame, which has to stay where it is.
PANS = CAMERAS[1:5]
CAMERAS_OF_KIND = {"move": CAMERAS[1:], "turn": CAMERAS[5:], "fall": CAMERAS[1:3], "cut": CAMERAS[1:]}

# The rich world never trains on this combination of events, although it does on each of the two.
HELD_OUT_EVENTS = "a thing turns while the camera pans"

GAP = 0.04  # at least so much lies between two things that do not meet, in short sides
BITE_RADIUS = 0.6  # of a bite, over the size of what is bitten
OUTSIDE = 0.05  # what leaves goes so far beyond the point where it is just out of the frame; pillars too
MAX_TRIES = 20000
TRIES_PER_CHOICE = 100  # with one number of things and one camera


@dataclass
class Thing:
    shape: str
    colour: str
    size: float  # half the side of its bounding box, in short sides
    start: tuple  # (x, y) of the middle of its bounding box at time 0, in short sides
    direction: str  # at time 0, reversed at every bounce; "still" for a thing that does not move by itself
    speed: str  # "" for a thing that stands still or falls
    then: str = ""  # the direction after half the scene; "" if it does not turn
    event: str = ""  # "falls", "hides" or "leaves"


@dataclass
class Scene:
    things: list  # drawn in this order, later ones in front
    ground: str = "plain"  # one of GROUNDS
    tones: tuple = (GROUND, LIGHT_GROUND)  # its colours, (red, green, blue), 0 to 255
    camera: str = "still"  # one of CAMERAS
    pillar: tuple = ()  # (left, right) edges of what a thing hides behind, in short sides
    meeting: str = ""  # what the first thing does to the second: "collides" or "bites"
    half: float = 0.75  # when things turn and shots are cut, in seconds
    next_shot: "Scene" = None  # what follows the cut; its time begins again at 0


def draw_scene(rng, combination=None, extent=(1.0, 1.0), calm_seconds=CALM_SECONDS, sizes=None):
    """Draws a random scene of the simple world, with one thing in it.

    rng           numpy Generator; the same state gives the same scene
    combination   (shape, colour, direction, speed); None draws one of SEEN
    extent        (height, width) of the frame in short sides
    calm_seconds  seconds before the thing first meets an edge, as far as the frame has room for them
    sizes         a list to draw the size from; None draws one from SMALLEST_SIZE to LARGEST_SIZE
    """
    if combination is None:
        combination = SEEN[rng.integers(len(SEEN))]
    shape, colour, direction, speed = combination
    size = pick(rng, sizes) if sizes else rng.uniform(SMALLEST_SIZE, LARGEST_SIZE)
    start = draw_start(rng, size, direction, speed, extent, calm_seconds)
    return Scene([Thing(shape, colour, size, start, direction, speed)])


def draw_start(rng, size, direction, speed, extent, calm_seconds):
    """A random place (x, y) from which a thing moves freely for the calm seconds, if there is room."""
    height, width = extent
    step = DIRECTIONS.get(direction, (0, 0))
    start = []
    for axis, length in enumerate((width, height)):
        # It has to start far enough from the wall ahead to travel the calm seconds without meeting it.
        travelled = abs(step[axis]) * SPEEDS.get(speed, 0) * calm_seconds
        room = max(0.0, length - 2 * size - travelled)
        from_wall_behind = rng.uniform(size, size + room)

        # A thing that moves left or up has the far wall behind it.
        if step[axis] < 0:
            start.append(length - from_wall_behind)
        else:
            start.append(from_wall_behind)
    return tuple(start)


def draw_rich_scene(rng, kind="move", extent=(1.0, 1.0), seconds=7 / 3, count=None, held_out=""):
    """Draws a random scene of the rich world.

    kind      one of KINDS
    extent    (height, width) of the frame in short sides
    seconds   how long the clip is: things turn half-way, and nothing overlaps by chance until it ends
    count     the number of things; None draws it. At least 2 for a meeting, and for a held-out pair
    held_out  what must be one that training never shows: "" (nothing), "thing", "pair", or "events", which is
              HELD_OUT_EVENTS and needs the kind "turn"

    Raises ValueError for held-out events of another kind, RuntimeError where no such scene fits into the
    frame.
    """
    if held_out == "events" and kind != "turn":
        raise ValueError(f"{HELD_OUT_EVENTS!r} is no scene of kind {kind!r}, only of 'turn'")

    # What needs room is chosen for many tries: were it drawn again at each, scenes of one thing, or of a
    # still camera, which nearly always fit, would push out the others.
    for attempt in range(MAX_TRIES):
        if attempt % TRIES_PER_CHOICE == 0:
            camera = draw_camera(rng, kind, held_out)
            number = draw_count(rng, kind, camera, held_out) if count is None else count
        scene = propose_scene(rng, kind, extent, seconds, number, camera)
        if is_held_out_as(scene, held_out) and is_clear(scene, extent, seconds):
            return scene
    raise RuntimeError(f"no scene of kind {kind!r} fits into {extent} short sides and {seconds} seconds")


def draw_count(rng, kind, camera, held_out):
    """How many things a scene has: up to two, or three where they only move and the camera stands still,
    since hardly any three stay in view of one that moves."""
    least = 2 if kind in MEETINGS or held_out == "pair" else 1
    most = 3 if kind == "move" and camera == "still" else 2
    return int(rng.integers(least, most + 1))


def draw_camera(rng, kind, held_out):
    """One of CAMERAS: a moving one in two scenes of five, where the kind allows it."""
    cameras = CAMERAS_OF_KIND.get(kind, ())
    if held_out == "events":
        return pick(rng, PANS)
    if cameras and rng.random() < 0.4:
        return pick(rng, cameras)
    return "still"


def grounds_below(camera):
    """The grounds on which a camera may look: one that moves needs a pattern that shows it. Stripes run up
    and down, so they show no pan up or down."""
    if camera == "still":
        return GROUNDS
    if camera in ("pans up", "pans down"):
        return ("dotted",)
    return GROUNDS[1:]


def propose_scene(rng, kind, extent, seconds, count, camera):
    """One scene as draw_rich_scene wants it, in which things may still overlap by chance."""
    things = [draw_thing(rng, kind, extent, seconds)]

    # The others only move, or stand still. What is hit or bitten stands still at first.
    for number in range(1, count):
        is_met = number == 1 and kind in MEETINGS
        things.append(draw_thing(rng, "met" if is_met else "move", extent, seconds))

    scene = Scene(things, pick(rng, grounds_below(camera)), camera=camera, half=half_way(seconds))
    if kind == "hide":
        scene.pillar = place_pillar(rng, things[0], seconds)
    if kind in MEETINGS:
        scene.meeting = MEETINGS[kind]
        place_before(rng, *things[:2], extent, seconds)
    if kind == "cut":
        scene.next_shot = draw_next_shot(rng, scene, extent, seconds)
    return scene


def half_way(seconds):
    """When things turn and shots are cut: about half-way, where a latent frame begins.

    At 12 frames per second these begin with frames 1, 5, 9, 13 ... One with a cut inside would have to hold
    two pictures instead of one."""
    latent_frames = round((seconds / 2 * 12 - 1) / 4)
    return (1 + 4 * latent_frames) / 12


def pick(rng, options):
    """One of the options; each is as likely as the others."""
    return options[int(rng.integers(len(options)))]


def draw_thing(rng, kind, extent, seconds):
    """One thing, at a random place, and what it does by itself."""
    shape = pick(rng, SHAPES)
    colour = pick(rng, list(COLOURS))
    size = pick(rng, list(SIZES.values()))
    direction, speed = pick(rng, MOTIONS)
    thing = Thing(shape, colour, size, (0.0, 0.0), direction, speed)

    if kind == "turn" or kind in MEETINGS:
        thing.direction, thing.speed = pick(rng, MOTIONS[1:])
    if kind == "turn":
        thing.then = pick(rng, right_angles(thing.direction))
    if kind == "met":
        thing.direction, thing.speed = "still", ""
    if kind == "fall":
        thing.direction, thing.speed, thing.event = "still", "", "falls"
    if kind in ("hide", "leave"):
        # Only what is small and quick has hidden, or left, and is back before the clip ends.
        directions = ("left", "right") if kind == "hide" else list(DIRECTIONS)
        thing.size = SIZES["small"]
        thing.direction, thing.speed, thing.event = pick(rng, directions), "quickly", kind + "s"

    thing.start = draw_start_of_kind(rng, thing, kind, extent, seconds)
    return thing


def draw_start_of_kind(rng, thing, kind, extent, seconds):
    """Where a thing starts, so that there is room for what it does: (x, y)."""
    if kind == "turn":
        # It needs room ahead for each half of the clip: each axis is that of one of its two directions.
        half = half_way(seconds)
        first = draw_start(rng, thing.size, thing.direction, thing.speed, extent, half)
        second = draw_start(rng, thing.size, thing.then, thing.speed, extent, seconds - half)
        if axis_of(thing.direction) == 0:
            return first[0], second[1]
        return second[0], first[1]

    if kind == "hide":
        return draw_start(rng, thing.size, thing.direction, thing.speed, extent, seconds)

    calm_seconds = min(seconds, CALM_SECONDS)
    x, y = draw_start(rng, thing.size, thing.direction, thing.speed, extent, calm_seconds)
    if kind == "fall":
        # From the upper half, so that it falls far enough to be seen falling.
        return x, rng.uniform(thing.size, extent[0] / 2)
    if kind == "leave":
        return place_near_wall(rng, thing, (x, y), extent)
    return x, y


def right_angles(direction):
    """The two directions across this one."""
    if DIRECTIONS[direction][0]:
        return "up", "down"
    return "left", "right"


def place_near_wall(rng, thing, start, extent):
    """Moves the start of a thing that soon leaves: 0.05 to 0.2 short sides from the wall ahead of it."""
    axis = axis_of(thing.direction)
    from_wall = thing.size + rng.uniform(0.05, 0.2)
    start = list(start)
    if DIRECTIONS[thing.direction][axis] > 0:
        start[axis] = (extent[1], extent[0])[axis] - from_wall
    else:
        start[axis] = from_wall
    return tuple(start)


def place_pillar(rng, thing, seconds):
    """The (left, right) edges of a pillar in the middle of a thing's way, as wide as hides all of it."""
    step = DIRECTIONS[thing.direction][0]
    half_width = thing.size + OUTSIDE
    middle = thing.start[0] + step * SPEEDS[thing.speed] * seconds * rng.uniform(0.48, 0.52)
    return middle - half_width, middle + half_width


def place_before(rng, mover, met, extent, seconds):
    """Moves two things so that the first one meets the second, head-on, before the middle of the clip."""
    along = axis_of(mover.direction)
    lengths = (extent[1], extent[0])
    larger = max(mover.size, met.size)

    # On one line along the motion, both inside the frame.
    across = rng.uniform(larger, lengths[1 - along] - larger)
    touching = contact_distance(mover, met)
    most = lengths[along] - mover.size - touching - met.size
    until_meeting = min(most, SPEEDS[mover.speed] * seconds * rng.uniform(0.3, 0.45))
    near = mover.size + rng.uniform(0, most - until_meeting)
    far = near + touching + until_meeting
    if DIRECTIONS[mover.direction][along] < 0:
        near = lengths[along] - near
        far = lengths[along] - far
    for thing, position in ((mover, near), (met, far)):
        thing.start = (position, across) if along == 0 else (across, position)


def draw_next_shot(rng, scene, extent, seconds):
    """The second shot: the same things somewhere else, over another ground, seen by another camera."""
    things = []
    for thing in scene.things:
        start = draw_start(rng, thing.size, thing.direction, thing.speed, extent, seconds - scene.half)
        things.append(replace(thing, start=start))

    # Not every camera can look on another ground than that of the first shot.
    grounds = []
    while not grounds:
        camera = draw_camera(rng, "cut", "")
        grounds = [ground for ground in grounds_below(camera) if ground != scene.ground]
    return Scene(things, pick(rng, grounds), camera=camera)


def is_held_out_as(scene, held_out):
    """Whether a scene is one that training may show (held_out = ""), or has the one novelty that is asked
    for: a "thing" of a combination, or a "pair", that is held out, or the held-out "events"."""
    things = scene.things
    colours = {thing.colour for thing in things}
    if len(colours) < len(things):
        return False

    is_new = {
        "thing": any(combination_of(thing) in RICH_HELD_OUT for thing in things),
        "pair": any(is_held_out_pair(one, other) for one, other in combinations(things, 2)),
        "events": scene.camera.startswith("pans") and any(thing.then for thing in things),
    }
    return all(is_new[novelty] == (novelty == held_out) for novelty in is_new)


def combination_of(thing):
    """A thing as an entry of RICH_COMBINATIONS, which leaves out what happens to it."""
    size = min(SIZES, key=lambda word: abs(SIZES[word] - thing.size))
    return thing.shape, thing.colour, size, (thing.direction, thing.speed)


def is_held_out_pair(one, other):
    """Whether training never shows these two shapes, in these colours, together: one in eleven pairs.

    Shapes and colours are counted through from 0 to 39. The order of the two does not matter."""
    numbers = []
    for thing in (one, other):
        numbers.append(SHAPES.index(thing.shape) * len(COLOURS) + list(COLOURS).index(thing.colour))
    return sum(numbers) % 11 == 0


def is_clear(scene, extent, seconds):
    """Whether nothing overlaps that should not, and everything can be seen, from beginning to end."""
    shots = [(scene, seconds)]
    if scene.next_shot:
        shots = [(scene, scene.half), (scene.next_shot, seconds - scene.half)]
    return all(is_clear_shot(shot, extent, lasts) for shot, lasts in shots)


def is_clear_shot(scene, extent, seconds):
    """`is_clear`, for one shot."""
    times = np.arange(0, seconds + 1e-6, 1 / 12)
    paths = simulate(scene, times, extent)                                                  # (things, T, 2)
    return (are_apart(scene, times, paths)
            and is_clear_of_pillar(scene, paths)
            and is_in_view(scene, times, paths, extent))


def are_apart(scene, times, paths):
    """Whether no two things overlap at any of the times, and those that meet do so only once."""
    sizes = [thing.size for thing in scene.things]
    for i, j in combinations(range(len(sizes)), 2):
        # Two boxes are apart if a gap is between them in x or in y.
        distance = abs(paths[i] - paths[j]).max(-1)                                         # (T,)
        least = sizes[i] + sizes[j] + GAP

        # What meets may touch, and a moment later it is on its way back.
        if scene.meeting and (i, j) == (0, 1):
            distance = distance[times > meeting_time(scene) + 0.25]
            least = contact_distance(*scene.things[:2]) + GAP / 2
        if distance.min(initial=np.inf) < least:
            return False
    return True


def is_clear_of_pillar(scene, paths):
    """Whether only the thing that hides is ever behind the pillar, and is beside it at both ends."""
    if not scene.pillar:
        return True
    left, right = scene.pillar
    for thing, path in zip(scene.things, paths, strict=True):
        from_pillar = abs(path[:, 0] - (left + right) / 2) - (right - left) / 2 - thing.size
        if thing.event == "hides":
            from_pillar = from_pillar[[0, -1]]
        if from_pillar.min() < GAP:
            return False
    return True


def is_in_view(scene, times, paths, extent):
    """Whether all of every thing stays in the frame; what leaves has to be there at both ends."""
    offset, zoom = camera_path(scene.camera, times)
    half_view = np.array([extent[1], extent[0]]) / 2
    for thing, path in zip(scene.things, paths, strict=True):
        seen_at = (path - half_view - offset) * zoom[:, None]                               # (T, 2)
        inside = (half_view - abs(seen_at)).min(-1) - thing.size * zoom                     # (T,)
        if thing.event == "leaves":
            inside = inside[[0, -1]]
        if inside.min() < -1e-6:
            return False
    return True


def frame_extent(height, width):
    """A frame's (height, width) in short sides, from pixels: 32, 64 → 1.0, 2.0."""
    short_side = min(height, width)
    return height / short_side, width / short_side


def axis_of(direction):
    """0 for a direction along x, 1 along y."""
    return 0 if DIRECTIONS[direction][0] else 1


def simulate(scene, times, extent=(1.0, 1.0)):
    """Where the middle of every thing's box is, over the ground.

    times   (T,) seconds
    extent  (height, width) of the frame in short sides
    returns (things, T, 2), x and y in short sides

    Things move in straight lines at constant speed and are reflected at the edges of the frame; with a moving
    camera there are none. A meeting is simulated until the two would meet again, which no scene of
    draw_rich_scene shows.
    """
    times = np.asarray(times, dtype=float)
    has_walls = scene.camera == "still"
    paths = [thing_path(thing, times, extent, scene.half, has_walls) for thing in scene.things]
    if scene.meeting:
        paths[:2] = meeting_paths(scene, times, extent)
    return np.array(paths).reshape(len(scene.things), len(times), 2)


def thing_path(thing, times, extent, half, has_walls):
    """Where one thing is that meets no other: (T, 2)."""
    path = np.empty((len(times), 2))
    for axis, length in enumerate((extent[1], extent[0])):
        # How far it would come along this axis without walls: in its first direction, then in its second.
        velocity = velocity_of(thing)[axis]
        if thing.then:
            second = DIRECTIONS[thing.then][axis] * SPEEDS[thing.speed]
            moved = velocity * np.minimum(times, half) + second * np.maximum(times - half, 0)
        else:
            moved = velocity * times

        # Where it may go: so far from `nearest` on. What leaves turns round a little after it is out.
        nearest = thing.size
        free = length - 2 * thing.size
        if thing.event == "leaves" and velocity < 0:
            nearest = -thing.size - OUTSIDE
        if thing.event == "leaves" and velocity != 0:
            free += 2 * thing.size + OUTSIDE

        distance = thing.start[axis] - nearest + moved
        if has_walls:
            path[:, axis] = reflect(distance, nearest, free)
        else:
            path[:, axis] = nearest + distance

    if thing.event == "falls":
        path[:, 1] = fall(thing.start[1], extent[0] - thing.size, times)
    return path


def velocity_of(thing):
    """(x, y) in short sides per second, at time 0."""
    if thing.direction == "still":
        return 0.0, 0.0
    x, y = DIRECTIONS[thing.direction]
    return x * SPEEDS[thing.speed], y * SPEEDS[thing.speed]


def reflect(distance, nearest, free):
    """Where a thing is that would have come a distance beyond `nearest` without walls, there and at
    `nearest + free`."""
    # The walls fold a line into a triangle wave: there and back takes twice the free length, and the absolute
    # value mirrors the second half of each period onto the first.
    return nearest + free - np.abs(distance % (2 * free) - free)


def fall(top, floor, times):
    """The height (y, downwards) of what falls from rest at `top` and bounces off the floor without loss."""
    # Half a period is the fall, the other half its mirror image: y = top + g t² / 2 between two bounces,
    # with t counted from the top.
    lasts = np.sqrt(2 * (floor - top) / GRAVITY)
    since_top = (np.asarray(times) + lasts) % (2 * lasts) - lasts
    return top + GRAVITY * since_top**2 / 2


def contact_distance(mover, met):
    """How far apart the middles of two things are when their outlines touch, in short sides: the first one
    comes in its direction, on the line through both middles."""
    return touching_distance(mover.shape, mover.size, met.shape, met.size, mover.direction)


@lru_cache(maxsize=1000)  # it is asked for several times a scene, and there are few different answers
def touching_distance(mover_shape, mover_size, met_shape, met_size, direction):
    """`contact_distance`, from what it depends on."""
    # On each of these lines along the motion, how far the mover reaches ahead, and the other towards it.
    lines = np.linspace(-1, 1, 129) * max(mover_size, met_size)
    ahead = reach(mover_shape, mover_size, direction, lines)
    towards = reach(met_shape, met_size, OPPOSITE[direction], lines)
    return float((ahead + towards).max())


def reach(shape, size, direction, lines):
    """How far a shape reaches in a direction from the middle of its box, in short sides.

    lines (L,), how far each line along that direction is from the middle → (L,), -inf on those that miss it
    """
    axis = axis_of(direction)
    along = np.linspace(-1, 1, 129) * size
    grid = np.meshgrid(along, lines)
    if axis == 1:
        grid = grid[::-1]
    inside = signed_distance(shape, *grid, size) <= 1e-9                                    # (L, along)
    return np.where(inside, along * DIRECTIONS[direction][axis], -np.inf).max(1)            # (L,)


def meeting_time(scene):
    """When the first thing touches the second, in seconds."""
    mover, met = scene.things[:2]
    axis = axis_of(mover.direction)
    distance = abs(met.start[axis] - mover.start[axis])
    return (distance - contact_distance(mover, met)) / SPEEDS[mover.speed]


def mass(thing):
    """Its area, in square short sides."""
    return AREA_PER_RADIUS[thing.shape] * thing.size**2


def meeting_paths(scene, times, extent):
    """Where the first two things of a scene are, before and after they meet: two of (T, 2).

    A collision is elastic and keeps momentum and energy, where mass is area. What bites goes back as fast as
    it came, and what is bitten stays where it is."""
    mover, met = scene.things[:2]
    axis = axis_of(mover.direction)
    velocity = velocity_of(mover)[axis]
    if scene.meeting == "collides":
        total = mass(mover) + mass(met)
        velocities = ((mass(mover) - mass(met)) / total * velocity, 2 * mass(mover) / total * velocity)
    else:
        velocities = (-velocity, 0.0)

    before = np.minimum(times, meeting_time(scene))
    after = times - before
    length = (extent[1], extent[0])[axis]
    paths = []
    for thing, first, then in ((mover, velocity, velocities[0]), (met, 0.0, velocities[1])):
        path = np.tile(np.float64(thing.start), (len(times), 1))                            # (T, 2)
        distance = thing.start[axis] - thing.size + first * before + then * after
        path[:, axis] = reflect(distance, thing.size, length - 2 * thing.size)
        paths.append(path)
    return paths


def camera_path(camera, times):
    """How far the middle of the view has moved over the ground, (T, 2) in short sides, and how large
    everything has become, (T,), 1 at time 0."""
    times = np.asarray(times, dtype=float)
    offset = np.zeros((len(times), 2))
    zoom = np.ones(len(times))
    if camera.startswith("pans"):
        direction = DIRECTIONS[camera.removeprefix("pans ")]
        offset = times[:, None] * np.float64(direction) * PAN_SPEED
    if camera == "zooms in":
        zoom = np.exp(ZOOM_RATE * times)
    if camera == "zooms out":
        zoom = np.exp(-ZOOM_RATE * times)
    return offset, zoom


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

    if shape == "cross":
        # Two bars, each 2r long and 2 ARM r wide.
        lying = np.maximum(abs(x) - r, abs(y) - ARM * r)
        standing = np.maximum(abs(x) - ARM * r, abs(y) - r)
        return np.minimum(lying, standing)

    if shape == "star":
        return star_distance(x, y, r)

    if shape == "emblem":
        # A ring with a cross inside it, both drawn with strokes of half-width r / 5.
        radius = np.sqrt(x * x + y * y)
        stroke = np.float32(0.2) * r
        ring = abs(radius - 4 * stroke) - stroke
        cross = np.maximum(np.minimum(abs(x), abs(y)) - stroke, radius - r)
        return np.minimum(ring, cross)

    raise ValueError(f"no shape is called {shape!r}")


def star_distance(x, y, r):
    """`signed_distance` for a star."""
    # Around the middle of its five tips, (radius, angle) is folded onto half of the upper tip.
    y = (y - CENTRE_DROP["star"] * r) / np.float32(STAR_STRETCH)
    angle = np.arctan2(x, -y)
    tenth = np.float32(0.2 * np.pi)
    folded = abs((angle + tenth) % (2 * tenth) - tenth)
    radius = np.sqrt(x * x + y * y)

    # There the outline is one line, from the tip at (R, 0) to the notch beside it.
    R = STAR_TIP * r
    notch_along = STAR_NOTCH * R * np.cos(tenth)
    notch_across = STAR_NOTCH * R * np.sin(tenth)
    length = np.sqrt((R - notch_along) ** 2 + notch_across**2)
    along = radius * np.cos(folded) - R
    across = radius * np.sin(folded)
    return (along * notch_across + across * (R - notch_along)) / length


def ground_picture(scene, offset, zoom, height, width):
    """The ground as the camera sees it → (T, H, W, 3), or (1, H, W, 3) where it does not change."""
    dark, light = np.float32(scene.tones)
    if scene.ground == "plain":
        return np.broadcast_to(dark, (1, height, width, 3))
    if scene.camera == "still":
        offset = offset[:1]
        zoom = zoom[:1]

    # The place on the ground that each column and row of pixels shows, in short sides.
    unit = min(height, width)
    x = (np.arange(width) + 0.5 - width / 2) / unit / zoom[:, None] + offset[:, :1]         # (T, W)
    y = (np.arange(height) + 0.5 - height / 2) / unit / zoom[:, None] + offset[:, 1:]       # (T, H)

    # How far it is from the middle of the nearest stripe, or dot.
    period = PATTERN_PERIOD
    x = (x + period / 2) % period - period / 2
    y = (y + period / 2) % period - period / 2
    x = x[:, None, :]                                                                       # (T, 1, W)
    y = y[:, :, None]                                                                       # (T, H, 1)
    if scene.ground == "striped":
        outside = abs(x) - period / 4 + 0 * y
    else:
        outside = np.sqrt(x * x + y * y) - DOT_RADIUS

    # As in `coverage`: an edge is one pixel wide.
    cover = np.clip(0.5 - outside * unit * zoom[:, None, None], 0, 1)[..., None]            # (T, H, W, 1)
    return dark + np.float32(cover) * (light - dark)


def render(scene, frames=17, height=32, width=32, fps=12.0, times=None, size_factor=1.0):
    """Draws a scene → (T, H, W, 3) uint8.

    times        (T,) seconds; None takes `frames` of them: 0, 1 / fps, 2 / fps, ...
    size_factor  multiplies the size of every thing: one number, or one per frame
    """
    if times is None:
        times = np.arange(frames) / fps
    if scene.next_shot:
        first = times < scene.half - 1e-6
        shots = (render_shot(scene, times[first], height, width, size_factor),
                 render_shot(scene.next_shot, times[~first] - scene.half, height, width, size_factor))
        return np.concatenate(shots)
    return render_shot(scene, times, height, width, size_factor)


def render_shot(scene, times, height, width, size_factor=1.0):
    """One shot of a scene → (T, H, W, 3) uint8."""
    extent = frame_extent(height, width)
    offset, zoom = camera_path(scene.camera, times)
    paths = simulate(scene, times, extent)
    half_view = np.array([extent[1], extent[0]]) / 2

    # Later things are painted over earlier ones: video + cover * (colour - video).
    video = ground_picture(scene, offset, zoom, height, width)
    for index, (thing, path) in enumerate(zip(scene.things, paths, strict=True)):
        seen_at = (path - half_view - offset) * zoom[:, None] + half_view                   # (T, 2)
        size = thing.size * zoom * np.asarray(size_factor)
        cover = coverage(thing.shape, size, seen_at, height, width)                         # (T, H, W)
        if scene.meeting == "bites" and index == 1:
            cover = cover * (1 - bite_mark(scene, times, seen_at, size, height, width))
        video = video + cover[..., None] * (np.float32(COLOURS[thing.colour]) - video)      # (T, H, W, 3)

    # The pillar stands before everything.
    if scene.pillar:
        left, right = np.float32(scene.pillar) * min(height, width)
        columns = np.arange(width) + 0.5
        cover = np.clip(0.5 + np.minimum(columns - left, right - columns), 0, 1)[:, None]   # (W, 1)
        video = video + cover * (np.float32(PILLAR) - video)
    return np.broadcast_to(video + 0.5, (len(times), height, width, 3)).astype(np.uint8)


def bite_mark(scene, times, middle, size, height, width):
    """How much of each pixel is bitten out of a scene's second thing → (T, H, W).

    middle  (T, 2), x and y of the middle of its box as it is seen, in short sides
    size    half the side of that box: one number, or one per frame
    """
    mover, met = scene.things[:2]
    side = OPPOSITE[mover.direction]

    # The bite is a circle, half-way from the side of the box that the mover comes from to the outline behind
    # it: around the side alone it would miss the slope of a triangle.
    outline = reach(met.shape, 1.0, side, np.zeros(1))[0]
    to_side = np.float64(DIRECTIONS[side]) * (1 + outline) / 2                              # (2,)
    size = np.broadcast_to(size, len(times))                                                # (T,)
    bitten = coverage("circle", BITE_RADIUS * size, middle + to_side * size[:, None], height, width)
    return bitten * (times > meeting_time(scene))[:, None, None]


if __name__ == "__main__":
    import time
    from pathlib import Path

    import imageio.v3 as iio

    from data.video_io import film_strip
    from world.captions import describe, describe_briefly, describe_fully

    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, combination) for combination in SEEN[::25]]
    videos = [render(scene) for scene in scenes]
    captions = [describe(scene) for scene in scenes]
    print(*captions, sep="\n")
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/world.png", film_strip(videos, captions, columns=9))
    print(f"{len(SEEN)} combinations to train on, {len(HELD_OUT)} held out")
    print("out/world.png shows these, every other frame")

    # The rich world: one row a kind, below its two captions.
    scenes = [draw_rich_scene(rng, kind) for kind in KINDS]
    videos = [render(scene, 29, 64, 64) for scene in scenes]
    captions = []
    for kind, scene in zip(KINDS, scenes, strict=True):
        in_short = describe_briefly(scene, rng)
        in_full = describe_fully(scene, rng)
        captions.append(f"{kind}. In short: {in_short}. In full: {in_full}.")
    iio.imwrite("out/rich-world.png", film_strip(videos, captions, columns=8, zoom=2))
    print(f"out/rich-world.png shows the rich world, below two captions each: {', '.join(KINDS)}")

    # A world is drawn while a model trains on it, so it must not keep the model waiting.
    begin = time.time()
    for number in range(100):
        kind = list(KINDS)[number % len(KINDS)]
        render(draw_rich_scene(rng, kind), 17, 64, 64)
    print(f"{100 / (time.time() - begin):.0f} clips of 17 frames of 64x64 a second")

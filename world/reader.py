"""Looks at a video of the toy world and says what it shows.

`read` uses pixels alone and has no learned part. It asks four questions in turn: which palette colour
stands out from the ground, where its centre of mass is in every frame, which shape, drawn by scenes.py at
that position and size, covers the same pixels, and how fast the centre moves. It answers None rather than
guess, and is as strict as an eye: a square that is longer than wide is none, nor is a circle that shrinks
while it moves. The scores of evaluate.py rest on it: `shows`, `path_error`, `seam_velocity` and `steadiness`.

Where we differ
    Sora's announcement judges by eye, and benchmarks of real video ask learned models. We know how our
    world is drawn, so we can measure.

Letters
    T H W   frames, height, width in pixels
"""

import numpy as np

from world.scenes import (
    AREA_PER_RADIUS,
    CENTRE_DROP,
    COLOURS,
    DIRECTIONS,
    GROUND,
    SIMPLE_SHAPES,
    SPEEDS,
    coverage,
)

ATTRIBUTES = ("shape", "colour", "direction", "speed")

# Distances from the ground's colour, of at most 442 = 255 sqrt(3).
CLEARLY_COLOURED = 60  # a thing's inside; the palette colour nearest to the ground, green, is 172 away
FAINTLY_COLOURED = 20  # its soft edges count too, but the noise that a sampler leaves on the ground does not

# Reading a shape.
FRAMES_COMPARED = 5  # spread over the clip: as good as all of them, and faster
SMALLEST_OVERLAP = 0.8  # intersection over union: on clean clips it is above 0.98, on noise up to 0.59
CLEAR_LEAD = 0.1  # the best shape is certain when it leads the second by this much overlap
LARGEST_STRETCH = 1.1  # width over height, or the inverse, against the shape's own; an eye sees more
LARGEST_GROWTH = 1.1  # the radius where it is largest over the radius where it is smallest, in one clip

# Reading motion.
VELOCITY_FRAMES = 4  # over one frame, rounding to pixels is as large as the motion itself
LARGEST_SLANT = 0.5  # motion across the axis, as a share of motion along it; beyond that it is neither
SPEED_RATIO = 1.5  # pace over the nearest speed, or the inverse; the two speeds are a factor of 2.4 apart

# Judging a long clip.
EXTRA_FRAMES = 3  # after each second, to see a turn at its end from both sides
RADIUS_TOLERANCE = 0.1  # the reader's own error is a few per cent
SPEED_TOLERANCE = 0.25  # a bounce inside a second costs some of its pace
WALL_PIXELS = 2  # how far past a wall, or from it in a turn, a faultless thing may be read
DRIFT_SECONDS = 5  # long enough that the mean brightness does not depend on a single frame

NO_VELOCITY = 99.0  # pixels per frame: worse than any velocity a thing can have


def read(video, fps=12.0):
    """Reads what one video shows.

    video   (T, H, W, 3) uint8
    returns {"shape", "colour", "direction", "speed": a word or None,
             "confidence": {the same four: 0 to 1, and 0 where the word is None},
             "track": (T, 2) centre of mass, x and y in pixels, or None,
             "area": (T,) pixels, or None}

    Everything is None unless a thing is there in every frame. The shape is None if no shape covers the
    thing, if its width and height are more than 10 % off the shape's own proportions in any frame, or if its
    size changes by more than 10 % during the clip; the direction and the speed are None if it does not move
    along an axis at about one of the two speeds. Clips of up to 4 frames have neither direction nor speed.
    """
    height, width = video.shape[1:3]
    found = dict.fromkeys(ATTRIBUTES)
    found["confidence"] = dict.fromkeys(ATTRIBUTES, 0.0)
    found["track"] = None
    found["area"] = None

    # Without a colour there is nothing to look for.
    difference = video.astype(np.float32) - GROUND                                       # (T, H, W, 3)
    found["colour"], found["confidence"]["colour"] = read_colour(difference)
    if found["colour"] is None:
        return found

    # The colour says which pixels are the thing, those say where it is, and that is enough to compare shapes.
    cover = measure_cover(difference, found["colour"])                                   # (T, H, W)
    found["track"], found["area"] = read_track(cover)                                    # (T, 2), (T,)
    found["shape"], found["confidence"]["shape"] = read_shape(cover, found["track"], found["area"])

    direction_read, speed_read = read_motion(found["track"], min(height, width), fps)
    found["direction"], found["confidence"]["direction"] = direction_read
    found["speed"], found["confidence"]["speed"] = speed_read
    return found


def read_colour(difference):
    """The palette colour of what stands out from the ground → (word, confidence in [0, 1]).

    difference  (T, H, W, 3), pixels minus the ground's colour

    (None, 0.0) if in some frame nothing stands out. Confidence is 1 on the palette colour itself and 0
    halfway between two of them.
    """
    clear = np.linalg.norm(difference, axis=-1) > CLEARLY_COLOURED                       # (T, H, W)
    if not clear.any(axis=(1, 2)).all():
        return None, 0.0

    # The median ignores the soft edges, where colour and ground mix.
    typical = np.median(difference[clear], axis=0)                                       # (3,)
    palette = np.float32(list(COLOURS.values())) - GROUND                                # (colours, 3)
    distances = np.linalg.norm(typical - palette, axis=-1)                               # (colours,)
    nearest, second = np.argsort(distances)[:2]
    return list(COLOURS)[nearest], float(1 - distances[nearest] / distances[second])


def measure_cover(difference, colour):
    """How much of each pixel the thing covers, given its colour: the inverse of `render`'s blending.

    difference (T, H, W, 3), pixels minus the ground's colour → (T, H, W) in [0, 1]
    """
    # A pixel is ground + cover * (colour - ground), so cover is a projection onto that difference of colours.
    full = np.float32(COLOURS[colour]) - GROUND                                          # (3,)
    cover = np.clip(difference @ full / (full @ full), 0, 1)                             # (T, H, W)
    return cover * (np.linalg.norm(difference, axis=-1) > FAINTLY_COLOURED)


def read_track(cover):
    """Where the thing is and how large, in pixels.

    cover (T, H, W) in [0, 1] → centre of mass (T, 2), x and y, and area (T,)
    """
    T, H, W = cover.shape
    x = np.arange(W) + 0.5
    y = np.arange(H)[:, None] + 0.5
    area = cover.sum(axis=(1, 2))                                                        # (T,)
    x_moment = (cover * x).sum(axis=(1, 2))                                              # (T,)
    y_moment = (cover * y).sum(axis=(1, 2))                                              # (T,)
    moments = np.stack([x_moment, y_moment], axis=-1)                                    # (T, 2)

    # A frame in which only other colours stand out covers nothing; it must not become 0 / 0.
    track = moments / area[:, None].clip(1e-6)
    return track, area


def estimate_radius(area, shape):
    """Half the side of the thing's box in pixels, from its area (T,) in pixels, robust to bad frames."""
    return np.sqrt(np.median(area) / AREA_PER_RADIUS[shape])


def read_shape(cover, track, area):
    """The shape that covers the same pixels → (word, confidence in [0, 1]); (None, 0.0) if none does.

    cover (T, H, W) in [0, 1]; track (T, 2) and area (T,) in pixels, as `read_track` gives them
    """
    T, H, W = cover.shape
    looked_at = np.unique(np.linspace(0, T - 1, FRAMES_COMPARED).round().astype(int))
    seen = cover[looked_at]

    # Draw each shape with the area and the centre of mass that were found, and compare the pixels.
    overlaps = {}
    drawings = {}
    for shape in SIMPLE_SHAPES:
        r = estimate_radius(area, shape)
        middle = track[looked_at] - (0, CENTRE_DROP[shape] * r)
        drawn = coverage(shape, r / min(H, W), middle / min(H, W), H, W)
        intersection = np.minimum(drawn, seen).sum()
        union = np.maximum(drawn, seen).sum()
        overlaps[shape] = intersection / union
        drawings[shape] = drawn

    best, second = sorted(overlaps, key=overlaps.get, reverse=True)[:2]
    if overlaps[best] < SMALLEST_OVERLAP:
        return None, 0.0
    if is_stretched(seen, drawings[best]) or is_growing(area):
        return None, 0.0
    lead = overlaps[best] - overlaps[second]
    return best, float(min(1, lead / CLEAR_LEAD))


def is_stretched(seen, drawn):
    """Whether a thing is too wide for its height, or too high for its width, in any frame: (T, H, W) both."""
    # The ratio of width to height, against that of the shape itself as it is drawn in the same place.
    stretch = width_over_height(seen) / width_over_height(drawn)                         # (T,)
    return bool(max(stretch.max(), 1 / stretch.min()) > LARGEST_STRETCH)


def width_over_height(cover):
    """How much wider than high what is covered is, (T, H, W) → (T,): the ratio of its standard deviations.

    They use all of its pixels, so it does not matter where between two pixels an edge lies."""
    T, H, W = cover.shape
    area = cover.sum(axis=(1, 2)).clip(1e-6)
    spreads = []
    for positions in (np.arange(W), np.arange(H)[:, None]):
        middle = (cover * positions).sum(axis=(1, 2)) / area                             # (T,)
        offset = positions - middle[:, None, None]
        spreads.append(np.sqrt((cover * offset**2).sum(axis=(1, 2)) / area))
    return spreads[0] / spreads[1].clip(1e-6)


def is_growing(area):
    """Whether the size of a thing changes during a clip: area (T,) in pixels."""
    radius = np.sqrt(area)  # times a constant of the shape
    return bool(radius.max() > LARGEST_GROWTH * radius.min())


def read_motion(track, short_side, fps):
    """Where the thing first moves and how fast → (direction, confidence), (speed, confidence).

    track (T, 2), x and y in pixels; short_side of the frame in pixels

    Both are (None, 0.0) in clips of up to 4 frames, and for a thing that stands still, moves aslant, or
    moves at neither of the two speeds.
    """
    nothing = (None, 0.0), (None, 0.0)
    if len(track) <= VELOCITY_FRAMES:
        return nothing

    # The pace is the median over the clip, so that a bounce, which slows a few frames down, does not count.
    moved = track[VELOCITY_FRAMES:] - track[:-VELOCITY_FRAMES]                           # (T - 4, 2) pixels
    velocity = moved * fps / VELOCITY_FRAMES / short_side                                # short sides / s
    paces = np.median(abs(velocity), axis=0)                                             # (2,)
    axis = int(np.argmax(paces))
    along = paces[axis]
    across = paces[1 - axis]

    # The direction is that of the first quarter: later the thing may have bounced.
    beginning = velocity[: max(1, len(velocity) // 4), axis]
    sign = int(np.sign(np.median(beginning)))

    # Speeds are compared by their ratio, so in logarithms.
    distances = {}
    for word, pace in SPEEDS.items():
        distances[word] = abs(np.log(max(along, 1e-6) / pace))
    speed = min(distances, key=distances.get)
    tolerance = np.log(SPEED_RATIO)

    if sign == 0 or across >= LARGEST_SLANT * along or distances[speed] >= tolerance:
        return nothing
    step = (sign, 0) if axis == 0 else (0, sign)
    direction = next(word for word in DIRECTIONS if DIRECTIONS[word] == step)
    return (direction, float(1 - across / along)), (speed, float(1 - distances[speed] / tolerance))


def shows(video, combination, attributes=("shape", "colour"), fps=12.0):
    """Whether a video shows these attributes of a combination (shape, colour, direction, speed)."""
    found = read(video, fps)
    asked = dict(zip(ATTRIBUTES, combination, strict=True))
    return all(found[name] == asked[name] for name in attributes)


def path_error(made, truth, new):
    """How far apart two clips show their thing, in pixels: the mean over the frames `new` (slice or indices).

    Infinite if one of them shows none.
    """
    made_track = read(made)["track"]
    true_track = read(truth)["track"]
    if made_track is None or true_track is None:
        return np.inf
    return float(np.linalg.norm((made_track - true_track)[new], axis=1).mean())


def seam_velocity(video, at):
    """The velocity (x, y) from 4 frames before frame `at` to it, pixels per frame; 99 without a thing."""
    track = read(video)["track"]
    if track is None:
        return np.full(2, NO_VELOCITY)
    return (track[at] - track[at - VELOCITY_FRAMES]) / VELOCITY_FRAMES


def steadiness(video, combination, fps):
    """Judges a long clip of one thing, second by second.

    returns  looks   (seconds,) bool: shape and colour as asked, its radius within 10 % of the first one read
             moves   (seconds,) bool: the asked pace along the asked axis, turning only at walls
             drift   the relative change of mean brightness from the first five seconds to the last five
    """
    shape, colour, _, _ = combination
    frame_size = video.shape[1:3]
    first_radius = None
    looks = []
    moves = []

    for second in range(int(len(video) / fps)):
        begin = round(second * fps)
        end = round((second + 1) * fps) + EXTRA_FRAMES
        found = read(video[begin:end], fps)

        # A second without a thing is wrong in both ways.
        if found["track"] is None:
            looks.append(False)
            moves.append(False)
            continue

        # Growth is measured against the first second, so that a slow drift cannot hide.
        radius = estimate_radius(found["area"], found["shape"] or shape)
        if first_radius is None:
            first_radius = radius
        same_thing = found["shape"] == shape and found["colour"] == colour
        same_size = abs(radius / first_radius - 1) <= RADIUS_TOLERANCE
        looks.append(bool(same_thing and same_size))
        moves.append(moves_as_asked(found, combination, frame_size, fps))

    return np.array(looks), np.array(moves), brightness_drift(video, fps)


def moves_as_asked(found, combination, frame_size, fps):
    """Whether what `read` found keeps the asked pace along the asked axis, and turns only at walls.

    Not checked: left against right, since a thing bounces; motion across that axis; and the shape. Where that
    could not be read it is taken to be the asked one: an egg can move as a circle should.

    frame_size  (height, width) in pixels
    """
    asked_shape, _, direction, speed = combination
    shape = found["shape"] or asked_shape
    height, width = frame_size
    radius = estimate_radius(found["area"], shape)
    x, y = found["track"].T                                                              # (T,), (T,)

    # Walls meet the box, whose middle is above the centre of mass of a triangle.
    if direction in ("left", "right"):
        positions = x
        length = width
    else:
        positions = y - CENTRE_DROP[shape] * radius
        length = height

    pace = SPEEDS[speed] * min(height, width) / fps
    return moves_lawfully(positions, radius, length, pace)


def moves_lawfully(positions, radius, length, pace):
    """Whether a thing moves at its pace (± 25 %), stays inside the walls, and turns only there (± 2 pixels).

    positions  (frames,) of the middle of its box along the axis it moves on, in pixels
    radius     half the side of that box, in pixels
    length     of the frame along that axis, in pixels
    pace       asked for, in pixels per frame
    """
    # Pixels from the box to the nearer wall, negative beyond it.
    to_wall = np.minimum(positions - radius, length - radius - positions)                # (frames,)
    inside = to_wall.min() >= -WALL_PIXELS

    # velocity[i] is the one at frame i + 1.
    velocity = (positions[2:] - positions[:-2]) / 2                                      # (frames - 2,)
    keeps_pace = abs(np.median(abs(velocity)) / pace - 1) <= SPEED_TOLERANCE

    # A turn between frames i + 1 and i + 2 must have met a wall there, or one frame to either side.
    turns_at_walls = True
    for i in range(len(velocity) - 1):
        if velocity[i] * velocity[i + 1] < 0 and to_wall[i : i + 4].min() > WALL_PIXELS:
            turns_at_walls = False

    return bool(inside and keeps_pace and turns_at_walls)


def brightness_drift(video, fps):
    """The relative change of mean brightness from a video's first five seconds to its last five."""
    brightness = video.mean(axis=(1, 2, 3))                                              # (T,)
    frames = int(DRIFT_SECONDS * fps)
    return abs(brightness[-frames:].mean() / brightness[:frames].mean() - 1)


if __name__ == "__main__":
    from world.captions import describe
    from world.scenes import draw_scene, render

    rng = np.random.default_rng(0)
    for _ in range(6):
        scene = draw_scene(rng)
        found = read(render(scene))
        answers = [f"{found[name]} ({found['confidence'][name]:.0%} sure)" for name in ATTRIBUTES]
        print(f"{describe(scene):42} read as: {', '.join(answers)}")

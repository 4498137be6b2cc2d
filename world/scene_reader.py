"""Reads a video of the rich world back: which scene would look like this?

It is `render` backwards, from pixels alone and with no learned part. First what can be seen in single frames:
the ground and how it drifts, which palette colours stand out from it, how much of each pixel each of them
covers, which shape covers the same pixels. Then every story that could begin so (a thing goes on, turns,
falls, hides, leaves; two things collide, one bites the other) is played with `simulate`, and the one that
stays nearest to what was seen is told, if it stays near enough. What no story explains is left out, so a
video that breaks the laws of the world shows fewer facts than its prompt asked for.

`read_facts` gives the facts of captions.py, in the same form.

Letters
    T H W   frames, height, width in pixels
"""

from dataclasses import replace
from itertools import permutations

import numpy as np

from world.captions import MEETINGS, facts
from world.reader import LARGEST_GROWTH, LARGEST_STRETCH, SMALLEST_OVERLAP, read_track, width_over_height
from world.scenes import (
    AREA_PER_RADIUS,
    CENTRE_DROP,
    COLOURS,
    DIRECTIONS,
    GAP,
    GROUND,
    LIGHT_GROUND,
    PAN_SPEED,
    PILLAR,
    SIZES,
    SPEEDS,
    ZOOM_RATE,
    Scene,
    Thing,
    axis_of,
    bite_mark,
    camera_path,
    coverage,
    frame_extent,
    half_way,
    meeting_time,
    right_angles,
    simulate,
)

# Distances between colours, of at most 442 = 255 sqrt(3).
GROUND_DISTANCE = 40  # nearer than this to the line between the ground's two tones is ground
COLOUR_DISTANCE = 60  # nearer than this to a palette colour is that colour, soft edges apart
GREY_DISTANCE = 45  # nearer than this to grey is the pillar
SMALLEST_COVER = 0.1  # less than this is taken for the ground's own pattern
STRAY_DISTANCE = 60  # farther than this from every mix of the ground and what is near, it is something else

# What is there.
SMALLEST_CORE = 6  # pixels of one colour, in a frame, that are a thing and not an edge between two others
CORE_SHARE = 0.25  # of the frames must show so many
PILLAR_SHARE = 0.8  # of a column's pixels are grey where the pillar stands
STRAY_PIXELS = 10  # so many pixels that are neither ground nor thing, in two frames, are one thing too many
LIGHT_SHARE = 0.08  # of the ground is light: below, it is plain
STRIPED_SHARE = 0.4  # of the ground's variance lies along columns: below, it is striped

# How it looks.
USUAL_PERCENTILE = 90  # of its areas in all frames: what leaves is seen as a whole in few of them
WHOLE = 0.93  # of its usual area: the thing is seen as a whole
HALF = 0.5  # of its usual area: less is left of a thing that something hides; a wavering outline leaves more
GONE = 0.15  # of its usual area: the thing is out of sight
SUDDEN_STRETCH = 1.2  # width over height against the shape's own, in a single frame
SIZE_RATIO = 1.2  # a radius over the nearest of SIZES, or the inverse
FRAMES_COMPARED = 5

# How it moves.
BEGINNING = 8  # frames at most, from which the first velocity is read
SHORTEST_FALL = 0.1  # short sides: nearer to the floor, nothing is said to fall
STILL_SPEED = 0.05  # short sides per second: slower is standing still
PACES = sorted(np.geomspace(0.5, 2.0, 41), key=lambda pace: abs(np.log(pace)))  # the world's own first
PACE_RATIO = 1.4  # a story may run so many times faster or slower than the world's own
NEAR = 3 / 64  # a story stays within this many short sides of what was seen ...
LATE_FRAMES = 4  # ... and in step with it within this many frames: one latent frame
CUT_CHANGE = 0.15  # of the way from dark to light, on average over the ground; a panning camera changes 0.1
CAMERA_RATIO = 1.5  # speed of the camera over the world's own, or the inverse


def read_facts(video, fps=12.0):
    """What a video of the rich world shows → a set of facts, in the form of captions.facts. What cannot be
    read is not told.

    video (T, H, W, 3) uint8"""
    cuts = find_cuts(video)
    if not cuts:
        return read_shot(video, fps, seconds=(len(video) - 1) / fps)

    # Of a video with a cut, the first shot is told. The second one counts if it comes half-way, as the only
    # one, and shows the same things.
    begin = cuts[0]
    told = read_shot(video[:begin], fps, seconds=begin / fps)
    also_told = read_shot(video[begin:], fps, seconds=(len(video) - begin) / fps)
    in_time = len(cuts) == 1 and abs(begin - len(video) / 2) <= LATE_FRAMES
    if in_time and looks_of(told) == looks_of(also_told):
        for subject, _, value in also_told:
            if subject in ("ground", "camera"):
                told.add(("cut to", subject, value))
    return told


def looks_of(told):
    """The facts that a cut does not change."""
    return {fact for fact in told if fact[1] in ("shape", "size", "count")}


def find_cuts(video):
    """The frames at which a new shot begins: where the ground becomes another one at once."""
    lightness, is_ground = read_ground(video.astype(np.float32))
    both = is_ground[1:] & is_ground[:-1]
    change = (abs(np.diff(lightness, axis=0)) * both).sum((1, 2)) / both.sum((1, 2)).clip(1)    # (T - 1,)
    return [int(i) + 1 for i in np.flatnonzero(change > CUT_CHANGE)]


def read_shot(video, fps, seconds):
    """`read_facts` for one shot, which lasts so many seconds."""
    T, H, W, _ = video.shape
    video = video.astype(np.float32)
    lightness, is_ground = read_ground(video)
    pillar, is_pillar = read_pillar(video)
    is_ground = is_ground & ~is_pillar
    covers, strays = read_covers(video, lightness, is_ground, is_pillar)

    ground = name_ground(lightness, is_ground)
    camera = "still" if ground == "plain" else read_camera(lightness, is_ground, fps)
    scene = Scene([], ground=ground, camera=camera or "still", half=half_way(seconds))
    if pillar is not None:
        scene.pillar = pillar
    times = np.arange(T) / fps
    offset, zoom = camera_path(scene.camera, times)

    seen = [read_thing(colour, covers, is_pillar, offset, zoom) for colour in covers]
    scene, unread = tell_story(scene, seen, times, (H, W))
    if strays:
        unread.add(("things", "count"))
    if camera is None:
        unread.add(("camera", "is"))
    # Where things are is measured, so a gap that is told may be read as a little less.
    return {fact for fact in facts(scene, gap=GAP / 2) if fact[:2] not in unread}


def read_ground(video):
    """How light the ground is at each pixel, 0 for its dark tone and 1 for its light one → (T, H, W), and
    where there is ground at all → (T, H, W) bool."""
    line = np.subtract(LIGHT_GROUND, GROUND).astype(np.float32)
    lightness = (video - np.float32(GROUND)) @ line / (line @ line)
    lightness = np.clip(lightness, 0, 1)
    on_line = np.float32(GROUND) + lightness[..., None] * line
    return lightness, np.linalg.norm(video - on_line, axis=-1) < GROUND_DISTANCE


def read_pillar(video):
    """The (left, right) edges of the pillar in short sides, or None, and where it is → (H, W) bool."""
    T, H, W, _ = video.shape
    grey = np.linalg.norm(video - np.float32(PILLAR), axis=-1) < GREY_DISTANCE              # (T, H, W)
    columns = np.flatnonzero(grey.mean((0, 1)) > PILLAR_SHARE)
    is_pillar = np.zeros((H, W), bool)
    if len(columns) < 3:
        return None, is_pillar

    # Its edges are soft: a pixel to either side belongs to it in part.
    left, right = columns[0], columns[-1] + 1
    is_pillar[:, max(0, left - 1) : right + 1] = True
    return (left / min(H, W), right / min(H, W)), is_pillar


def read_covers(video, lightness, is_ground, is_pillar):
    """How much of each pixel each colour covers → {colour: (T, H, W)}, and whether anything else is there."""
    palette = np.float32(list(COLOURS.values()))                                            # (8, 3)

    # The core of a thing: pixels that are nearly of its colour.
    is_unknown = ~is_ground & ~is_pillar
    distance = np.linalg.norm(video[is_unknown][:, None] - palette, axis=-1)                # (pixels, 8)
    core = np.full(is_ground.shape, -1)
    core[is_unknown] = np.where(distance.min(-1) < COLOUR_DISTANCE, distance.argmin(-1), -1)
    present = []
    for i in range(len(palette)):
        pixels = (core == i).sum((1, 2))                                                    # (T,)
        if (pixels >= SMALLEST_CORE).mean() >= CORE_SHARE:
            present.append(i)

    # The ground beside a thing: its lightness around each pixel.
    weight = blur(is_ground.astype(np.float32))
    around = blur(lightness * is_ground) / weight.clip(1e-3)
    dark, light = np.float32(GROUND), np.float32(LIGHT_GROUND)
    ground = dark + around[..., None] * (light - dark)                                      # (T, H, W, 3)

    # A pixel near the core of a colour is a mix of ground and that colour: ground + cover (colour - ground).
    # Where the cores of two colours are near, it is a mix with the one that explains it better.
    mixes = {}
    is_stray = is_unknown
    errors = [np.where(is_ground | is_pillar, GROUND_DISTANCE, STRAY_DISTANCE)]
    for i in present:
        full = palette[i] - ground                                                          # (T, H, W, 3)
        cover = ((video - ground) * full).sum(-1) / (full * full).sum(-1)
        cover = np.where(cover < SMALLEST_COVER, 0, np.minimum(cover, 1))                   # (T, H, W)
        off = ground + cover[..., None] * full - video
        error = np.sqrt((off * off).sum(-1))                                                # (T, H, W)
        is_near = (blur((core == i).astype(np.float32)) > 0) & ~is_pillar
        mixes[list(COLOURS)[i]] = cover
        errors.append(np.where(is_near, error, np.inf))
        is_stray = is_stray & (error > STRAY_DISTANCE)

    # What no mix explains should not be there.
    best = np.argmin(errors, axis=0)                                                        # (T, H, W)
    has_strays = (is_stray.sum((1, 2)) > STRAY_PIXELS).sum() >= 2
    covers = {}
    for number, (colour, cover) in enumerate(mixes.items(), 1):
        covers[colour] = cover * (best == number)
    return covers, bool(has_strays)


def name_ground(lightness, is_ground):
    """ "plain", "striped" or "dotted"."""
    light = lightness[is_ground]
    if len(light) == 0 or (light > 0.5).mean() < LIGHT_SHARE:
        return "plain"

    # Along a column, stripes do not change and dots do.
    within = []
    total = []
    for frame, mask in zip(lightness[::4], is_ground[::4], strict=True):
        count = mask.sum(0).clip(1)
        mean = (frame * mask).sum(0) / count
        within.append((((frame - mean) ** 2) * mask).sum())
        total.append((((frame - frame[mask].mean()) ** 2) * mask).sum())
    return "striped" if np.sum(within) < STRIPED_SHARE * np.sum(total) else "dotted"


def read_camera(lightness, is_ground, fps):
    """One of CAMERAS, or None for a camera that moves as none of them does.

    Lucas & Kanade (1981): where a picture of brightness I moves by u, dI/dx u_x + dI/dy u_y = -dI/dt. Here u
    is the same everywhere, plus a part that grows with the distance from the middle, which is the zoom."""
    T, H, W = lightness.shape
    mask = is_ground.astype(np.float32)
    weight = blur(mask)
    smooth = blur(lightness * mask) / weight.clip(1e-3)                                     # (T, H, W)
    usable = (weight[1:] > 0.95) & (weight[:-1] > 0.95)
    usable[:, [0, -1]] = False
    usable[:, :, [0, -1]] = False

    between = (smooth[1:] + smooth[:-1]) / 2
    along_y, along_x = np.gradient(between, axis=(1, 2))
    change = smooth[1:] - smooth[:-1]
    y, x = np.indices((H, W)) + 0.5 - np.array([H, W])[:, None, None] / 2
    motions = []
    for t in range(T - 1):
        use = usable[t]
        gx, gy = along_x[t][use], along_y[t][use]
        slopes = np.stack([gx, gy, gx * x[use] + gy * y[use]], axis=1)
        motions.append(np.linalg.lstsq(slopes, -change[t][use], rcond=0.01)[0])
    if not motions:
        return "still"
    vx, vy, growth = np.median(motions, axis=0) * fps
    vx, vy = vx / min(H, W), vy / min(H, W)

    # What the ground does, the camera does the other way round; and it zooms in where everything grows.
    candidates = {"pans left": vx, "pans right": -vx, "pans up": vy, "pans down": -vy}
    ratios = {camera: speed / PAN_SPEED for camera, speed in candidates.items()}
    ratios["zooms in"] = growth / ZOOM_RATE
    ratios["zooms out"] = -growth / ZOOM_RATE
    moving = [camera for camera, ratio in ratios.items() if ratio > 1 / CAMERA_RATIO]
    if not moving and max(ratios.values()) < 1 / 3:
        return "still"
    if len(moving) == 1 and ratios[moving[0]] < CAMERA_RATIO:
        return moving[0]
    return None


def blur(picture):
    """The mean of 5x5 pixels around each, (T, H, W) → the same."""
    for axis in (1, 2):
        width = [(0, 0), (0, 0), (0, 0)]
        width[axis] = (2, 2)
        padded = np.pad(picture, width, mode="edge")
        size = picture.shape[axis]
        picture = sum(padded.take(range(i, i + size), axis) for i in range(5)) / 5
    return picture


def read_thing(colour, covers, is_pillar, offset, zoom):
    """What the thing of one of the covers' colours looks like, and where it is seen → a dict.

    colour, shape, radius   its radius in pixels at zoom 1; the shape is None if none covers the same pixels
    track                   (T, 2) the middle of its box over the ground in pixels
    whole, gone             (T,) bool: in which frames all of it is seen, and none of it
    half_hidden             (T,) bool: in which frames less than half of it is seen
    free                    (T,) bool: in which frames it touches neither the pillar, nor another thing, nor
                            the frame's edge, so that nothing but itself makes it look smaller
    placed                  (T,) bool: in which frames the track says where it is: nothing hides a part of it
    cover                   (T, H, W)
    """
    cover = covers[colour]
    T, H, W = cover.shape
    middle = np.array([W, H]) / 2
    unit = min(H, W)
    centre, area = read_track(cover)                                                        # (T, 2), (T,)
    area = area / zoom**2
    usual = np.percentile(area, USUAL_PERCENTILE)
    beside_pillar = is_pillar | np.roll(is_pillar, 1, axis=1) | np.roll(is_pillar, -1, axis=1)
    whole = (area > WHOLE * usual) & ~(cover * beside_pillar > 0.5).any((1, 2))
    half_hidden = area < HALF * usual

    # What could hide a part of it: the pillar, other things, and where the frame ends.
    others = [other > 0.5 for name, other in covers.items() if name != colour]
    obstacle = np.any([*others, np.broadcast_to(beside_pillar, cover.shape)], axis=0)           # (T, H, W)
    obstacle[:, [0, -1]] = True
    obstacle[:, :, [0, -1]] = True
    free = ~half_hidden & ~(cover * (blur(obstacle.astype(np.float32)) > 0) > 0.5).any((1, 2))

    thing = {"colour": colour, "cover": cover, "area": area}
    thing |= {"whole": whole, "gone": area < GONE * usual, "half_hidden": half_hidden}
    thing |= {"free": free, "placed": whole | free}
    thing["shape"], thing["radius"] = read_whole_shape(cover, centre, area, whole, zoom)
    drop = CENTRE_DROP.get(thing["shape"], 0) * thing["radius"]
    view = centre - drop * zoom[:, None] * (0, 1)                                           # (T, 2)
    thing["view"] = view
    thing["track"] = (view - middle) / zoom[:, None] + middle + offset * unit
    return thing


def read_whole_shape(cover, centre, area, whole, zoom):
    """The shape that covers the same pixels in the first frames in which all of a thing is seen → (word or
    None, radius in pixels at zoom 1)."""
    T, H, W = cover.shape
    frames = np.flatnonzero(whole)
    usual = np.sqrt(np.median(area[frames])) if len(frames) else np.sqrt(area.max().clip(1))
    if len(frames) < 2:
        return None, usual / np.sqrt(np.pi)
    looked_at = np.unique(frames[np.linspace(0, len(frames) - 1, FRAMES_COMPARED).round().astype(int)])
    seen = cover[looked_at]

    overlaps = {}
    drawings = {}
    for shape in AREA_PER_RADIUS:
        r = usual / np.sqrt(AREA_PER_RADIUS[shape]) * zoom[looked_at]                       # (frames,)
        middle = centre[looked_at] - CENTRE_DROP[shape] * r[:, None] * (0, 1)               # (frames, 2)
        drawn = coverage(shape, r / min(H, W), middle / min(H, W), H, W)
        overlaps[shape] = np.minimum(drawn, seen).sum() / np.maximum(drawn, seen).sum()
        drawings[shape] = drawn
    best = max(overlaps, key=overlaps.get)
    radius = usual / np.sqrt(AREA_PER_RADIUS[best])
    stretch = abs(np.log(width_over_height(seen) / width_over_height(drawings[best])))      # (frames,)
    is_stretched = np.median(stretch) > np.log(LARGEST_STRETCH) or stretch.max() > np.log(SUDDEN_STRETCH)
    if overlaps[best] < SMALLEST_OVERLAP or is_stretched:
        return None, radius
    return best, radius


def is_steady(thing):
    """Whether a thing keeps its size, wherever nothing else could make it look smaller."""
    sizes = np.sqrt(thing["area"][thing["free"]])
    return len(sizes) == 0 or sizes.max() <= LARGEST_GROWTH * sizes.min()


def tell_story(scene, seen, times, frame_size):
    """Finds what the things that were seen do: the story that stays nearest to them, for each by itself or
    for two that meet → the scene with its things, and the (subject, relation) of what could not be read."""
    height = frame_size[0] / min(frame_size)
    beginnings = [read_beginning(thing, times, frame_size) for thing in seen]
    errors = []
    told = []
    for thing, begun in zip(seen, beginnings, strict=True):
        top = tuple(thing["track"][np.argmax(thing["placed"])] / min(frame_size))
        variants = solo_stories(begun, top, scene.pillar, height)
        stories = [replace(scene, things=[variant]) for variant in variants]
        error, story = best_story(stories, [thing], times, frame_size)
        errors.append(error)
        told.append(story.things[0] if story else None)

    # A meeting explains two things at once, if it explains them better.
    order = list(range(len(seen)))
    for i, j in permutations(range(len(seen)), 2):
        if not could_meet(beginnings[i], beginnings[j], scene.camera):
            continue
        pair = [beginnings[i], replace(beginnings[j], direction="still", speed="")]
        stories = [replace(scene, things=pair, meeting=meeting) for meeting in MEETINGS]
        error, story = best_story(stories, [seen[i], seen[j]], times, frame_size)
        if error < max(errors[i], errors[j]):
            errors[i] = errors[j] = error
            told[i], told[j] = story.things
            scene = replace(scene, meeting=story.meeting)
            order = [i, j, *[k for k in order if k not in (i, j)]]

    unread = set()
    for i in order:
        is_bitten = scene.meeting == "bites" and i == order[1]
        thing, missing = name_thing(seen[i], beginnings[i], told[i], frame_size, is_bitten)
        scene.things.append(thing)
        unread |= missing
    return scene, unread


def name_thing(seen, begun, told, frame_size, is_bitten):
    """A thing as the world has it, of one of SIZES, and the (colour, relation) of what could not be read."""
    colour = seen["colour"]
    size = name_size(seen["radius"] / min(frame_size))
    missing = set()
    if told is None:
        told = replace(begun, direction="still", speed="")
        missing |= {(colour, "moves"), (colour, "speed")}
    if seen["shape"] is None:
        missing.add((colour, "shape"))
    # What is bitten becomes smaller, and nothing else may.
    if size is None or not (is_bitten or is_steady(seen)):
        missing.add((colour, "size"))
    return replace(told, size=size or SIZES["small"]), missing


def name_size(radius):
    """The nearest of SIZES, in short sides, or None."""
    size = min(SIZES.values(), key=lambda known: abs(np.log(radius / known)))
    return size if max(radius / size, size / radius) < SIZE_RATIO else None


def read_beginning(thing, times, frame_size):
    """A thing as it is at time 0 → Thing. Its direction is "still" if it hardly moves, and None if it moves
    aslant or at neither of the two speeds."""
    unit = min(frame_size)
    shape = thing["shape"] or "circle"
    placed = np.flatnonzero(thing["placed"])
    if len(placed) < 2:
        start = tuple(thing["track"][0] / unit)
        return Thing(shape, thing["colour"], thing["radius"] / unit, start, None, None)

    # A line through the first frames in which nothing hides it.
    last = np.flatnonzero(np.diff(placed, append=placed[-1] + 2) > 1)[0]
    first = placed[: last + 1][:BEGINNING]
    if len(first) < 2:
        first = placed[:2]
    line = np.polyfit(times[first], thing["track"][first] / unit, 1)                        # (2, 2)
    velocity, start = line
    direction, speed = name_velocity(velocity)
    return Thing(shape, thing["colour"], thing["radius"] / unit, tuple(start), direction, speed)


def name_velocity(velocity):
    """(x, y) in short sides per second → the words (direction, speed)."""
    axis = int(np.argmax(abs(velocity)))
    along, across = abs(velocity[axis]), abs(velocity[1 - axis])
    if along < STILL_SPEED:
        return "still", ""
    step = (np.sign(velocity[axis]), 0) if axis == 0 else (0, np.sign(velocity[axis]))
    direction = next(word for word in DIRECTIONS if DIRECTIONS[word] == step)
    speed = min(SPEEDS, key=lambda word: abs(np.log(along / SPEEDS[word])))
    if across > along / 2:
        return None, None
    return direction, speed


def solo_stories(begun, top, pillar, height):
    """What a thing that begins so, and is first seen at `top`, may do by itself → a list of Things."""
    # How long a fall lasts depends on where it begins, and a line through its first frames misses that.
    stories = []
    if top[1] < height - begun.size - SHORTEST_FALL:
        stories.append(replace(begun, start=top, direction="still", speed="", event="falls"))
    if begun.direction is None:
        return stories
    stories.append(begun)
    if begun.direction == "still":
        return stories
    for then in right_angles(begun.direction):
        stories.append(replace(begun, then=then))
    stories.append(replace(begun, event="leaves"))
    if pillar:
        stories.append(replace(begun, event="hides"))
    return stories


def could_meet(mover, met, camera):
    """Whether one thing begins to move along a line on which another stands still."""
    if mover.direction in (None, "still") or met.direction != "still" or camera != "still":
        return False
    axis = axis_of(mover.direction)
    aside = abs(mover.start[1 - axis] - met.start[1 - axis])
    ahead = (met.start[axis] - mover.start[axis]) * DIRECTIONS[mover.direction][axis]
    return aside < NEAR and ahead > 0


def best_story(stories, seen, times, frame_size):
    """Of some scenes, the one whose things stay nearest to those that were seen → (error in short sides,
    scene), or (infinity, None) if none stays near enough, or only at a pace that is not the world's."""
    best = np.inf, None
    best_pace = 1.0
    for story in stories:
        for pace in PACES:
            error = story_error(story, seen, times, pace, frame_size)
            if error < best[0]:
                best = error, story
                best_pace = pace
    if max(best_pace, 1 / best_pace) > PACE_RATIO:
        return np.inf, None
    return best


def story_error(story, seen, times, pace, frame_size):
    """How far the things of a scene that is played at a pace are from those that were seen: the mean over the
    frames in which they can be compared, in short sides. Infinite if a thing is ever too far away."""
    H, W = frame_size
    unit = min(H, W)
    story = replace(story, half=story.half * pace)
    paths = simulate(story, times * pace, frame_extent(H, W))
    total = 0.0
    for index, (thing, path) in enumerate(zip(seen, paths, strict=True)):
        compared = frames_to_compare(story, index, thing, path, times * pace, frame_size)
        if not compared.any():
            return np.inf

        # The first of these frames say where it begins.
        difference = thing["track"] / unit - path                                           # (T, 2)
        difference = difference - difference[np.flatnonzero(compared)[:3]].mean(0)
        distance = np.linalg.norm(difference, axis=1)[compared]
        if distance.max() > NEAR:
            return np.inf
        total += distance.mean()
    return total / len(seen)


def frames_to_compare(story, index, thing, path, times, frame_size):
    """The frames in which a thing can be compared with a story's thing of that index → (T,) bool. There are
    none if it is seen where the story hides it, or hidden where it is seen, or bitten in another story."""
    none = np.zeros(len(times), bool)
    placed = thing["placed"]
    if not story.meeting:
        return placed if is_seen_when_told(story, thing, path, times, frame_size) else none

    # What was bitten is whole no longer.
    if story.meeting == "bites" and index == 1:
        return ~thing["gone"] if shows_bite(story, thing, times, frame_size) else none
    return placed if thing["half_hidden"].sum() <= LATE_FRAMES else none


def is_seen_when_told(story, thing, path, times, frame_size):
    """Whether a thing is out of sight when a story says so, and in sight when it says so, give or take
    LATE_FRAMES."""
    H, W = frame_size
    unit = min(H, W)
    radius = thing["radius"] / unit
    margin = 1.5 / unit

    # How far its middle is from the nearest edge of the frame, in short sides: below 0 it is outside.
    offset, zoom = camera_path(story.camera, times)
    half_view = np.array([W, H]) / unit / 2
    from_middle = abs(path - half_view - offset) * zoom[:, None]                            # (T, 2)
    to_edge = (half_view - from_middle).min(1) / zoom                                       # (T,)
    should_be_gone = to_edge < -radius
    should_be_whole = to_edge > radius + margin

    event = story.things[0].event
    if event == "hides":
        left, right = story.pillar
        half_width = (right - left) / 2
        from_pillar = abs(path[:, 0] - (left + right) / 2) - half_width                     # (T,)
        should_be_gone = from_pillar < margin - radius
        should_be_whole &= from_pillar > radius + 2 * margin

    # What hides or leaves is really gone for a while, and back at the end; nothing else is ever gone.
    gone = thing["gone"]
    if event in ("hides", "leaves"):
        if not should_be_gone.any() or not gone.any() or not thing["placed"][-LATE_FRAMES:].any():
            return False
    elif gone.any():
        return False
    late = [(should_be_gone & ~gone).sum(), (should_be_whole & thing["half_hidden"]).sum()]
    return max(late) <= LATE_FRAMES


def shows_bite(story, thing, times, frame_size):
    """Whether the second thing of a story has the mark of a bite from the meeting on, and none before, give
    or take LATE_FRAMES."""
    H, W = frame_size
    first = np.flatnonzero(thing["whole"])[:1]
    if len(first) == 0:
        return False
    middle = np.repeat(thing["view"][first], len(times), 0) / min(H, W)                     # (T, 2)
    size = thing["radius"] / min(H, W)
    unharmed = coverage(thing["shape"] or "circle", size, middle, H, W)                     # (T, H, W)
    long_after = np.full(len(times), meeting_time(story) + 1)
    bitten = unharmed * (1 - bite_mark(story, long_after, middle, size, H, W))

    # Which of the two is nearer to what was seen, frame by frame?
    seen = thing["cover"]
    looks_bitten = abs(seen - bitten).sum((1, 2)) < abs(seen - unharmed).sum((1, 2))        # (T,)
    is_after = times > meeting_time(story)
    return bool(is_after.any() and (looks_bitten != is_after).sum() <= LATE_FRAMES)


if __name__ == "__main__":
    from world.captions import describe_fully
    from world.scenes import KINDS, draw_rich_scene, render

    rng = np.random.default_rng(0)
    for kind in KINDS:
        read = 0
        for _ in range(8):
            scene = draw_rich_scene(rng, kind)
            missing = set(facts(scene)) - read_facts(render(scene, 29, 64, 64))
            read += not missing
        print(f"{kind:8} read back whole: {read} of 8, for example '{describe_fully(scene, rng)}'")

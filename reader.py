"""Looks at a video and says what it shows.

`read` uses pixels alone: which palette colour stands out from the ground, where its centre of mass is in every frame, how fast
that moves, and which shape, drawn by world.py at that place and size, covers the same pixels. It has no learned part, and it gives
up (None) on a smear. What else can be asked of a video is read from that: `same`, `path_error`, `seam`, `steady`.

Letters: T H W frames, height, width
"""
import numpy as np

import world

ATTRIBUTES = ("shape", "colour", "direction", "speed")


def read(video, fps=12.0):
    """video (T, H, W, 3) uint8 → {"shape", "colour", "direction", "speed": a word or None, "sure": {the same: 0 to 1}, "track": (T, 2), "area": (T,)}

    None: no thing is there in every frame, no shape covers it (IoU below 0.6), or it moves along no axis at about one of the two
    speeds. Clips of up to 4 frames have no direction and no speed. track: the centre of mass, x and y in pixels; area: pixels."""
    T, H, W, _ = video.shape
    found = dict.fromkeys(ATTRIBUTES) | {"sure": dict.fromkeys(ATTRIBUTES, 0.0), "track": None, "area": None}
    away = video.astype(np.float32) - world.GROUND
    colourful = np.linalg.norm(away, axis=-1)                                            # (T, H, W) how far from the ground, of 442
    strong = colourful > 60                                                              # clearly not ground
    if not strong.any(axis=(1, 2)).all():
        return found
    palette = np.float32(list(world.COLOURS.values())) - world.GROUND
    distance = np.linalg.norm(np.median(away[strong], axis=0) - palette, axis=-1)        # (colours,)
    nearest, second = np.argsort(distance)[:2]
    found["colour"], found["sure"]["colour"] = list(world.COLOURS)[nearest], float(1 - distance[nearest] / distance[second])

    cover = np.clip(away @ palette[nearest] / (palette[nearest] @ palette[nearest]), 0, 1) * (colourful > 20)  # keeps soft edges, drops faint noise
    area = found["area"] = cover.sum(axis=(1, 2))                                        # (T,) pixels
    track = np.stack([(cover * (np.arange(W) + 0.5)).sum(axis=(1, 2)), (cover * (np.arange(H)[:, None] + 0.5)).sum(axis=(1, 2))], -1)
    track = found["track"] = track / area[:, None].clip(1e-6)                            # (T, 2)

    unit, look = min(H, W), np.unique(np.linspace(0, T - 1, 5).round().astype(int))
    overlap = {}
    for shape, (filled, drop) in {"circle": (np.pi, 0), "square": (4, 0), "triangle": (2, 1 / 3)}.items():  # area / r^2; the centre of mass lies drop r below the box's middle
        r = np.sqrt(np.median(area) / filled)
        drawn = world.coverage(shape, r / unit, (track[look] - (0, drop * r)) / unit, H, W)
        overlap[shape] = np.minimum(drawn, cover[look]).sum() / np.maximum(drawn, cover[look]).sum()
    best, second, _ = sorted(overlap, key=overlap.get, reverse=True)
    if overlap[best] >= 0.6:
        found["shape"], found["sure"]["shape"] = best, float(min(1, (overlap[best] - overlap[second]) / 0.1))

    if T > 4:
        velocity = (track[4:] - track[:-4]) * fps / 4 / unit                             # (T - 4, 2) short sides per second
        axis = int(np.argmax(np.median(abs(velocity), axis=0)))
        pace, off = np.median(abs(velocity), axis=0)[[axis, 1 - axis]]
        sign = np.sign(np.median(velocity[: max(1, len(velocity) // 4), axis]))          # the first direction: later it may bounce
        words = {d: w for w, d in world.DIRECTIONS.items()}
        apart = {w: abs(np.log(max(pace, 1e-6) / s)) for w, s in world.SPEEDS.items()}
        tolerance, speed = np.log(1.5), min(apart, key=apart.get)
        if sign and off < 0.5 * pace and apart[speed] < tolerance:
            found["direction"], found["sure"]["direction"] = words[(int(sign), 0) if axis == 0 else (0, int(sign))], float(1 - off / pace)
            found["speed"], found["sure"]["speed"] = speed, float(1 - apart[speed] / tolerance)
    return found


def path_error(made, truth, new):
    """Pixels between where two clips show their thing, the mean over the frames `new`; infinite where one shows none."""
    a, b = read(made)["track"], read(truth)["track"]
    return np.inf if a is None or b is None else float(np.linalg.norm((a - b)[new], axis=1).mean())


def seam(video, at):
    """The velocity (x, y) from 4 frames before frame `at` to it, pixels per frame; 99 where there is no thing."""
    track = read(video)["track"]
    return np.full(2, 99.0) if track is None else (track[at] - track[at - 4]) / 4


def same(video, combination, attributes=("shape", "colour")):
    found = read(video)
    return all(found[a] == combination[ATTRIBUTES.index(a)] for a in attributes)


def steady(video, combination, fps):
    """A long clip of one thing, second by second → (looks the same, moves right), two bool arrays (seconds,), and the drift of its brightness.

    The same: shape and colour as asked, its radius within 15 % of the first second's. Right: at the asked speed +- 25 %, nowhere more than
    2 pixels beyond a wall, and where it turns, at most 2 pixels from one."""
    shape, colour, direction, speed = combination
    _, H, W, _ = video.shape
    unit, axis = min(H, W), 0 if direction in ("left", "right") else 1
    looks, moves, first = [], [], None
    for k in range(int(len(video) / fps)):
        found = read(video[round(k * fps) : round((k + 1) * fps) + 3], fps)  # a little longer, to see a turn at its end
        looks.append(found["track"] is not None and found["shape"] == shape and found["colour"] == colour)
        moves.append(False)
        if found["track"] is None or found["shape"] is None:
            continue
        radius = np.sqrt(np.median(found["area"]) / {"circle": np.pi, "square": 4, "triangle": 2}[found["shape"]])
        first = first or radius
        looks[-1] &= abs(radius / first - 1) <= 0.15
        place = found["track"][:, axis] - (radius / 3 if found["shape"] == "triangle" and axis == 1 else 0)  # the middle of its box
        wall = np.minimum(place - radius, (W, H)[axis] - radius - place)              # pixels to the nearer one
        velocity = (place[2:] - place[:-2]) / 2                                      # pixels per frame, at frames 1, 2, ...
        turns = [i + 1 for i in range(len(velocity) - 1) if velocity[i] * velocity[i + 1] < 0]
        pace = np.median(abs(velocity)) * fps / unit
        moves[-1] = bool(abs(pace / world.SPEEDS[speed] - 1) <= 0.25 and wall.min() >= -2 and all(wall[max(0, i - 1) : i + 3].min() <= 2 for i in turns))
    brightness = video.mean(axis=(1, 2, 3))
    return np.array(looks), np.array(moves), abs(brightness[-int(5 * fps) :].mean() / brightness[: int(5 * fps)].mean() - 1)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for scene in (world.scene(rng) for _ in range(6)):
        found = read(world.render(scene))
        print(f"{world.describe(scene):42} read as: " + ", ".join(f"{found[a]} ({found['sure'][a]:.0%} sure)" for a in ATTRIBUTES))

import numpy as np
import pytest

from world.scenes import (
    AREA_PER_RADIUS,
    BITE_RADIUS,
    CAMERAS,
    CENTRE_DROP,
    COLOURS,
    COMBINATIONS,
    DIRECTIONS,
    GRAVITY,
    GROUND,
    GROUNDS,
    HELD_OUT,
    KINDS,
    LIGHT_GROUND,
    PAN_SPEED,
    PATTERN_PERIOD,
    PILLAR,
    RICH_COMBINATIONS,
    RICH_HELD_OUT,
    SEEN,
    SHAPES,
    SIMPLE_COLOURS,
    SIMPLE_SHAPES,
    SIZES,
    SPEEDS,
    ZOOM_RATE,
    Scene,
    Thing,
    combination_of,
    contact_distance,
    coverage,
    draw_rich_scene,
    draw_scene,
    frame_extent,
    is_held_out_pair,
    meeting_time,
    render,
    simulate,
)

MIDDLE = np.array([[0.5, 0.75]])  # x and y of the middle of a 96 x 64 frame (height x width), in short sides


def scene_of(shape="circle", colour="red", size=0.2, start=(0.5, 0.5), direction="left", speed="slowly"):
    return Scene([Thing(shape, colour, size, start, direction, speed)])


def centres_of_mass(video):
    """The oracle: how far each pixel is from the ground's colour weighs its position → (T, 2), x and y."""
    weight = abs(video.astype(float) - GROUND).sum(axis=-1)
    rows, columns = np.indices(video.shape[1:3]) + 0.5
    total = weight.sum(axis=(1, 2))
    x = (weight * columns).sum(axis=(1, 2)) / total
    y = (weight * rows).sum(axis=(1, 2)) / total
    return np.stack([x, y], axis=-1)


# What there is, and what is held out


def test_the_world_has_every_combination_once():
    assert len(set(COMBINATIONS)) == len(COMBINATIONS)
    assert len(COMBINATIONS) == len(SIMPLE_SHAPES) * len(SIMPLE_COLOURS) * len(DIRECTIONS) * len(SPEEDS)


def test_one_combination_in_ten_is_held_out():
    assert abs(len(HELD_OUT) / len(COMBINATIONS) - 0.1) < 0.01


def test_every_combination_is_either_seen_or_held_out():
    assert sorted(SEEN + HELD_OUT) == sorted(COMBINATIONS)


def test_no_word_is_held_out():
    seen_words = {word for combination in SEEN for word in combination}
    assert seen_words == {*SIMPLE_SHAPES, *SIMPLE_COLOURS, *DIRECTIONS, *SPEEDS}


@pytest.mark.parametrize("colour, strong", [
    ("red", [1, 0, 0]), ("green", [0, 1, 0]), ("blue", [0, 0, 1]),
    ("yellow", [1, 1, 0]), ("purple", [1, 0, 1]), ("white", [1, 1, 1]),
])
def test_a_colour_is_what_its_name_says(colour, strong):
    brightest = max(COLOURS[colour])
    assert [int(value > 0.6 * brightest) for value in COLOURS[colour]] == strong


# Drawing a scene


def test_the_same_seed_gives_the_same_clip():
    one = render(draw_scene(np.random.default_rng(3)))
    other = render(draw_scene(np.random.default_rng(3)))
    assert (one == other).all()


def test_another_seed_gives_another_clip():
    one = render(draw_scene(np.random.default_rng(3)))
    other = render(draw_scene(np.random.default_rng(4)))
    assert (one != other).any()


def test_random_scenes_are_all_of_those_seen_in_training_and_no_other():
    rng = np.random.default_rng(0)
    drawn = set()
    for _ in range(2000):
        thing = draw_scene(rng).things[0]
        drawn.add((thing.shape, thing.colour, thing.direction, thing.speed))
    assert drawn == set(SEEN)


def test_a_scene_is_the_combination_asked_for():
    for combination in COMBINATIONS:
        thing = draw_scene(np.random.default_rng(0), combination).things[0]
        assert (thing.shape, thing.colour, thing.direction, thing.speed) == combination


def test_sizes_fill_their_range():
    rng = np.random.default_rng(0)
    sizes = [draw_scene(rng).things[0].size for _ in range(300)]
    assert (min(sizes), max(sizes)) == pytest.approx((0.18, 0.25), abs=0.002)
    assert min(sizes) >= 0.18
    assert max(sizes) <= 0.25


@pytest.mark.parametrize("extent", [(1.0, 1.5), (1.7, 1.0)])
def test_a_calm_clip_meets_no_edge(extent):
    rng = np.random.default_rng(0)
    for _ in range(200):
        path = simulate(draw_scene(rng, extent=extent), np.arange(17) / 12, extent)[0]
        steps = np.diff(path, axis=0)
        assert np.allclose(steps, steps[0])


@pytest.mark.parametrize("calm_seconds", [0.0, 1.2])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_things_start_anywhere_that_leaves_their_calm_seconds(direction, calm_seconds):
    extent = (1.0, 1.5)
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(400):
        scene = draw_scene(rng, ("circle", "red", direction, "quickly"), extent, calm_seconds)
        thing = scene.things[0]
        x, y = thing.start
        gaps.append([x - thing.size, 1.5 - thing.size - x, y - thing.size, 1.0 - thing.size - y])
    left, right, top, bottom = np.min(gaps, axis=0)
    expected = {"left": 0.0, "right": 0.0, "up": 0.0, "down": 0.0}
    expected[direction] = SPEEDS["quickly"] * calm_seconds
    assert [left, right, top, bottom] == pytest.approx(list(expected.values()), abs=0.015)


def test_a_scene_is_drawn_for_a_square_frame_and_a_calm_clip_of_17_frames_if_not_asked():
    for seed in range(20):
        asked = draw_scene(np.random.default_rng(seed), extent=(1.0, 1.0), calm_seconds=16 / 12)
        assert draw_scene(np.random.default_rng(seed)) == asked


def test_a_thing_without_room_for_its_calm_seconds_starts_at_the_wall_behind_it():
    combination = ("circle", "red", "left", "quickly")
    thing = draw_scene(np.random.default_rng(0), combination, calm_seconds=60).things[0]
    assert thing.start[0] == pytest.approx(1 - thing.size)


# Moving


@pytest.mark.parametrize("direction, step", [
    ("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1)),
])
def test_a_direction_is_where_the_pixels_go(direction, step):
    video = render(scene_of(direction=direction, speed="quickly"), 5, 32, 48)
    track = centres_of_mass(video)
    moved = track[-1] - track[0]
    assert moved == pytest.approx(np.array(step) * 0.36 * 32 * 4 / 12, abs=0.05)


@pytest.mark.parametrize("combination", COMBINATIONS[::7])
def test_things_keep_their_speed(combination):
    scene = draw_scene(np.random.default_rng(2), combination, extent=(1.0, 1.5))
    path = simulate(scene, np.arange(0, 30, 0.01), (1.0, 1.5))[0]
    distance = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.median(distance) / 0.01 == pytest.approx(SPEEDS[combination[3]])


@pytest.mark.parametrize("combination", COMBINATIONS[::7])
def test_things_go_from_wall_to_wall_and_not_beyond(combination):
    scene = draw_scene(np.random.default_rng(2), combination, extent=(1.0, 1.5))
    size = scene.things[0].size
    path = simulate(scene, np.arange(0, 30, 0.01), (1.0, 1.5))[0]
    axis = 0 if combination[2] in ("left", "right") else 1
    length = (1.5, 1.0)[axis]
    assert path[:, axis].min() == pytest.approx(size, abs=0.005)
    assert path[:, axis].max() == pytest.approx(length - size, abs=0.005)
    assert path[:, axis].min() >= size - 1e-9
    assert path[:, axis].max() <= length - size + 1e-9
    assert np.ptp(path[:, 1 - axis]) < 1e-9


def test_a_bounce_reverses_the_velocity_and_keeps_the_energy():
    # From x = 0.5 the left edge of the box, at 0.3, meets the wall after 0.3 / 0.15 = 2 seconds.
    path = simulate(scene_of(), [0.0, 1.0, 2.0, 3.0, 4.0], (1.0, 1.5))[0]
    assert path[:, 0] == pytest.approx([0.5, 0.35, 0.2, 0.35, 0.5])


def test_every_thing_of_a_scene_has_its_own_path():
    things = [scene_of().things[0], scene_of(start=(0.7, 0.4), direction="down").things[0]]
    paths = simulate(Scene(things), [0.0, 1.0], (1.0, 1.5))
    assert paths == pytest.approx(np.array([[[0.5, 0.5], [0.35, 0.5]], [[0.7, 0.4], [0.7, 0.55]]]))


def test_a_frame_is_measured_in_short_sides():
    assert frame_extent(32, 48) == (1.0, 1.5)
    assert frame_extent(40, 32) == (1.25, 1.0)


# Drawing pixels


@pytest.mark.parametrize("shape, area", [("circle", np.pi), ("square", 4), ("triangle", 2)])
def test_coverage_adds_up_to_the_area_of_the_shape(shape, area):
    drawn = coverage(shape, 0.25, MIDDLE, 96, 64)
    assert drawn.sum() == pytest.approx(area * 16**2, rel=0.01)


@pytest.mark.parametrize("shape", [*SHAPES, "emblem"])
def test_every_shape_just_fits_its_box(shape):
    drawn = coverage(shape, 0.25, MIDDLE, 96, 64)[0] > 0.3
    rows = np.flatnonzero(drawn.any(axis=1))
    columns = np.flatnonzero(drawn.any(axis=0))
    assert [rows[0], rows[-1], columns[0], columns[-1]] == pytest.approx([32, 63, 16, 47], abs=1)


def test_shapes_agree_with_point_sampling():
    # The oracle: 8 x 8 points in every pixel, each inside the shape or not, by the shape's own inequality.
    points = (np.arange(64 * 8) + 0.5) / 8 - 32
    x = points[None, :]
    y = points[:, None]
    inside = {
        "circle": x**2 + y**2 < 16**2,
        "square": (abs(x) < 16) & (abs(y) < 16),
        "triangle": (abs(y) < 16) & (abs(x) < (y + 16) / 2),
    }
    ring = abs(np.hypot(x, y) - 12.8) < 3.2
    cross = (np.minimum(abs(x), abs(y)) < 3.2) & (np.hypot(x, y) < 16)
    inside["emblem"] = ring | cross
    for shape, points_inside in inside.items():
        exact = points_inside.reshape(64, 8, 64, 8).mean(axis=(1, 3))
        drawn = coverage(shape, 0.25, np.array([[0.5, 0.5]]), 64, 64)[0]
        assert abs(drawn - exact).max() < 0.4
        assert abs(drawn - exact).mean() < 0.004


def test_an_edge_that_crosses_a_pixel_covers_part_of_it():
    # The square's right edge at x = 32 + 16.25 covers a quarter of the pixel from 48 to 49.
    drawn = coverage("square", 16.25 / 64, MIDDLE, 96, 64)[0]
    assert drawn[48, 47:50] == pytest.approx([1.0, 0.25, 0.0], abs=1e-5)


def test_a_triangles_slanted_side_is_as_soft_as_a_straight_one():
    # The pixel at (8.5, 0.5) from the middle lies (2 * 8.5 - 0.5 - 16) / sqrt(5) pixels outside of the side.
    drawn = coverage("triangle", 0.25, np.array([[0.5, 0.5]]), 64, 64)[0]
    assert drawn[32, 40] == pytest.approx(0.5 - 0.5 / 5**0.5, abs=1e-4)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="hexagon"):
        coverage("hexagon", 0.25, MIDDLE, 96, 64)


def test_coverage_is_float32_between_0_and_1():
    drawn = coverage("triangle", 0.25, MIDDLE, 96, 64)
    assert drawn.dtype == np.float32
    assert (drawn.min(), drawn.max()) == (0, 1)


@pytest.mark.parametrize("height, width, fps", [(64, 96, 12), (32, 48, 24), (96, 144, 6)])
def test_any_size_and_rate_shows_the_same_motion(height, width, fps):
    scene = draw_scene(np.random.default_rng(1), extent=(1.0, 1.5))
    small = render(scene, 13, 32, 48, 12)[-1]
    other = render(scene, fps + 1, height, width, fps)[-1]  # both at one second
    factor = height // 32
    shrunk = other.reshape(32, factor, 48, factor, 3).mean(axis=(1, 3))
    assert abs(shrunk - small).mean() < 1.5


def test_a_clip_has_the_frames_size_and_type_asked_for():
    video = render(scene_of(), 5, 24, 40)
    assert video.shape == (5, 24, 40, 3)
    assert video.dtype == np.uint8


def test_a_clip_is_17_frames_of_32x32_at_12_a_second_if_not_asked():
    assert (render(scene_of()) == render(scene_of(), 17, 32, 32, 12.0)).all()


def test_times_say_which_moments_are_drawn():
    scene = scene_of()
    assert (render(scene, times=np.array([1.0, 0.5])) == render(scene, 13)[[12, 6]]).all()


def test_inside_is_the_colour_and_outside_the_ground():
    scene = scene_of(colour="yellow", size=0.3)
    scene.tones = ((3, 90, 200), (0, 0, 0))
    frame = render(scene, 1, 32, 48)[0]
    assert tuple(frame[16, 16]) == COLOURS["yellow"]
    assert tuple(frame[0, 47]) == (3, 90, 200)


def test_an_edge_mixes_colour_and_ground_and_rounds():
    # A box of ± 6.375 pixels around x = 16 covers 3 / 8 of the pixel from 22 to 23.
    frame = render(scene_of("square", "white", size=6.375 / 32), 1, 32, 48)[0]
    assert tuple(frame[16, 22]) == (101, 103, 108)  # ground + 3 / 8 (240 - ground) = 101.25, 102.5, 107.5


def test_later_things_are_in_front():
    things = [scene_of(colour="red").things[0], scene_of(colour="blue").things[0]]
    assert tuple(render(Scene(things), 1, 32, 48)[0, 16, 16]) == COLOURS["blue"]


def test_size_factor_scales_things_frame_by_frame():
    scene = scene_of(size=0.1)
    video = render(scene, 2, 32, 48, times=np.zeros(2), size_factor=np.array([1.0, 2.0]))
    assert (video[0] == render(scene, 1, 32, 48)[0]).all()
    assert (video[1] == render(scene_of(size=0.2), 1, 32, 48)[0]).all()


def test_a_thing_may_be_anywhere_in_a_frame_that_is_not_square():
    wide = render(scene_of(start=(1.2, 0.5)), 1, 32, 48)
    assert centres_of_mass(wide)[0] == pytest.approx([1.2 * 32, 16], abs=0.1)


# The rich world. A clip of it is 29 frames of 64x64 at 12 a second.

TIMES = np.arange(29) / 12
SECONDS = 28 / 12
EXTENTS = [(1, 1), (1, 5 / 3), (5 / 3, 1), (1, 4 / 3)]


def rich_scenes(kind, number=20, extent=(1, 1), **asked):
    rng = np.random.default_rng(7)
    return [draw_rich_scene(rng, kind, extent, SECONDS, **asked) for _ in range(number)]



def meeting(kind, mover="circle", met="square", direction="right", sizes=(0.11, 0.16), middle=1.5, gap=0.7):
    """One thing that comes from the left, right, ... and meets another, at (middle, middle)."""
    x, y = DIRECTIONS[direction]
    things = [
        Thing(mover, "red", sizes[0], (middle - gap * x, middle - gap * y), direction, "quickly"),
        Thing(met, "blue", sizes[1], (middle, middle), "still", ""),
    ]
    return Scene(things, meeting=kind)


def mask_of(video, colour):
    """The oracle: which pixels are nearer to this colour than to all others that a scene can show."""
    palette = np.float32([COLOURS[colour], *COLOURS.values(), GROUND, LIGHT_GROUND, PILLAR])
    # The nearest colour is that of the largest v p - p² / 2, as (v - p)² = v² - 2 v p + p².
    nearness = video.astype(np.float32) @ palette.T - (palette**2).sum(-1) / 2          # (T, H, W, colours)
    return nearness[..., 0] >= nearness.max(axis=-1)


def pixels_of(video, thing):
    """How many pixels of each frame have the colour of a thing."""
    return mask_of(video, thing.colour).sum(axis=(1, 2))


def whole_area(thing):
    """How many pixels a thing has in a frame of 64 on its short side."""
    return AREA_PER_RADIUS[thing.shape] * (thing.size * 64) ** 2


def velocities(path, seconds):
    return np.diff(path, axis=0) / seconds


def test_colours_cannot_be_mistaken_for_each_other_or_for_what_lies_behind():
    palette = np.array([*COLOURS.values(), GROUND, LIGHT_GROUND, PILLAR], dtype=float)
    distances = np.linalg.norm(palette[:, None] - palette, axis=-1)
    assert distances[~np.eye(len(palette), dtype=bool)].min() > 60


@pytest.mark.parametrize("shape", SHAPES)
def test_an_area_is_the_sum_of_a_coverage(shape):
    drawn = coverage(shape, 0.4, np.array([[0.5, 0.5]]), 512, 512)
    assert drawn.sum() / (0.4 * 512) ** 2 == pytest.approx(AREA_PER_RADIUS[shape], rel=0.005)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_centre_of_mass_is_as_far_below_the_middle_as_it_says(shape):
    drawn = coverage(shape, 0.4, np.array([[0.5, 0.5]]), 512, 512)[0]
    drop = (drawn.sum(1) @ (np.arange(512) + 0.5)) / drawn.sum() - 256
    assert drop / (0.4 * 512) == pytest.approx(CENTRE_DROP[shape], abs=0.005)


def test_a_star_has_five_tips():
    # The oracle: a circle around its middle, between notches and tips, crosses ten edges.
    middle_drop = CENTRE_DROP["star"] * 0.4
    drawn = coverage("star", 0.4, np.array([[0.5, 0.5 - middle_drop]]), 512, 512)[0] > 0.5
    angles = np.linspace(0, 2 * np.pi, 2000)
    ring = drawn[(256 + 140 * np.sin(angles)).astype(int), (256 + 140 * np.cos(angles)).astype(int)]
    assert np.count_nonzero(ring[1:] != ring[:-1]) == 10


def test_a_cross_looks_the_same_after_a_quarter_turn():
    drawn = coverage("cross", 0.4, np.array([[0.5, 0.5]]), 128, 128)[0]
    assert np.allclose(drawn, np.rot90(drawn), atol=1e-4)


# What is held out of the rich world


def test_one_combination_of_the_rich_world_in_ten_is_held_out_and_no_word_is():
    assert abs(len(RICH_HELD_OUT) / len(RICH_COMBINATIONS) - 0.1) < 0.01
    seen = [combination for combination in RICH_COMBINATIONS if combination not in RICH_HELD_OUT]
    for position in range(4):
        assert {each[position] for each in seen} == {each[position] for each in RICH_COMBINATIONS}


def test_a_pair_is_held_out_in_either_order_about_once_in_eleven():
    things = [Thing(shape, colour, 0.1, (0, 0), "still", "") for shape in SHAPES for colour in COLOURS]
    table = np.array([[is_held_out_pair(one, other) for other in things] for one in things])
    assert (table == table.T).all()
    assert table.mean() == pytest.approx(1 / 11, abs=0.01)


def novelties(scene):
    """The oracle: what a scene has that training must not show."""
    things = scene.things
    found = set()
    for index, thing in enumerate(things):
        if combination_of(thing) in RICH_HELD_OUT:
            found.add("thing")
        if any(is_held_out_pair(thing, other) for other in things[:index]):
            found.add("pair")
        if thing.then and "pans" in scene.camera:
            found.add("events")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_held_out_is_drawn_for_training(kind):
    for scene in rich_scenes(kind, 50):
        assert novelties(scene) == set()


@pytest.mark.parametrize("held_out, kind", [
    ("thing", "move"), ("thing", "leave"), ("thing", "cut"),
    ("pair", "move"), ("pair", "bite"), ("events", "turn"),
])
def test_what_is_held_out_is_drawn_when_asked_for_and_nothing_else_that_is(held_out, kind):
    for scene in rich_scenes(kind, 8, held_out=held_out):
        assert novelties(scene) == {held_out}


def test_held_out_events_need_a_turn():
    with pytest.raises(ValueError, match="turns while the camera pans"):
        draw_rich_scene(np.random.default_rng(0), "fall", held_out="events")


# Drawing a rich scene


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scene_fits_into_every_frame(kind, extent):
    assert len(rich_scenes(kind, 30, extent)) == 30


def test_a_scene_for_which_there_is_no_room_is_refused(monkeypatch):
    monkeypatch.setattr("world.scenes.MAX_TRIES", 20)
    with pytest.raises(RuntimeError, match="no scene of kind 'move' fits"):
        draw_rich_scene(np.random.default_rng(0), count=20)


def test_the_same_seed_gives_the_same_rich_scene():
    one = draw_rich_scene(np.random.default_rng(5), "cut")
    assert draw_rich_scene(np.random.default_rng(5), "cut") == one


def test_scenes_have_as_many_things_as_asked_for():
    for count in (1, 2, 3):
        assert {len(scene.things) for scene in rich_scenes("move", 5, count=count)} == {count}


def test_all_that_can_be_drawn_is_drawn():
    scenes = rich_scenes("move", 150)
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {scene.camera for scene in scenes} == set(CAMERAS)
    assert {scene.ground for scene in scenes} == set(GROUNDS)
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.size for thing in things} == set(SIZES.values())
    assert {thing.direction for thing in things} == {"still", *DIRECTIONS}


def test_a_moving_camera_looks_at_a_ground_that_shows_how_it_moves():
    for kind in ("move", "turn", "fall", "cut"):
        for scene in rich_scenes(kind, 60):
            for shot in filter(None, (scene, scene.next_shot)):
                if shot.camera != "still":
                    video = render(Scene([], shot.ground, camera=shot.camera), 7, 64, 64)
                    assert (video[0] != video[6]).any()


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("collide", "bite", "cut")])
def test_things_never_overlap_by_chance(kind, extent):
    for scene in rich_scenes(kind, 6, extent, count=2):
        paths = simulate(scene, TIMES, extent)
        distance = abs(paths[0] - paths[1]).max(axis=-1)
        assert (distance > scene.things[0].size + scene.things[1].size).all()


@pytest.mark.parametrize("kind", ["move", "turn", "fall", "collide"])
def test_things_are_in_view_as_a_whole_all_the_time(kind):
    for scene in rich_scenes(kind, 5):
        video = render(scene, 29, 64, 64)[::4]
        growth = {"zooms in": ZOOM_RATE, "zooms out": -ZOOM_RATE}.get(scene.camera, 0)
        for thing in scene.things:
            whole = whole_area(thing) * np.exp(2 * growth * TIMES[::4])
            assert pixels_of(video, thing) == pytest.approx(whole, rel=0.3)


# What happens: turns, falls, hiding, leaving


def test_a_turn_is_half_way_by_a_right_angle_and_at_the_same_speed():
    for scene in rich_scenes("turn"):
        thing = scene.things[0]
        moved = velocities(simulate(scene, TIMES)[0], 1 / 12)
        steps = [DIRECTIONS[thing.direction]] * 13 + [DIRECTIONS[thing.then]] * 15
        assert moved == pytest.approx(np.array(steps) * SPEEDS[thing.speed])
        assert np.dot(DIRECTIONS[thing.direction], DIRECTIONS[thing.then]) == 0


def falling(size=0.16, top=0.25):
    return Scene([Thing("circle", "red", size, (0.7, top), "still", "", event="falls")])


def test_what_falls_accelerates_by_gravity():
    # From 0.25 to the floor at 1.5 - 0.16 it takes 1.47 seconds.
    times = np.arange(0, 1.4, 0.01)
    y = simulate(falling(), times, (1.5, 1.2))[0, :, 1]
    assert np.diff(y, 2) / 0.01**2 == pytest.approx(np.full(len(y) - 2, GRAVITY))


def test_what_falls_starts_from_rest():
    y = simulate(falling(), [0, 1e-4])[0, :, 1]
    assert y[1] - y[0] == pytest.approx(0, abs=1e-7)


def test_falling_keeps_the_energy():
    times = np.arange(0, 8, 0.001)
    y = simulate(falling(), times)[0, :, 1]
    velocity = (y[2:] - y[:-2]) / 0.002
    energy = velocity**2 / 2 - GRAVITY * y[1:-1]
    # Over a bounce, velocity is not the difference of two positions.
    assert np.median(energy) == pytest.approx(-GRAVITY * 0.25)
    assert np.mean(abs(energy + GRAVITY * 0.25) < 1e-6) > 0.99


def test_what_falls_bounces_where_its_outline_meets_the_floor():
    y = simulate(falling(), np.arange(0, 8, 0.001))[0, :, 1]
    assert y.max() == pytest.approx(1 - 0.16, abs=2e-3)
    assert y.max() <= 1 - 0.16 + 1e-9
    assert y.min() == pytest.approx(0.25)


@pytest.mark.parametrize("extent", EXTENTS)
def test_what_falls_is_seen_to_bounce_and_come_up_again(extent):
    for scene in rich_scenes("fall", 10, extent):
        y = simulate(scene, TIMES, extent)[0, :, 1]
        lowest = int(np.argmax(y))
        assert 4 < lowest < 24
        assert y[-1] < y[lowest] - 0.1


def test_the_floor_is_the_lower_edge_of_the_frame_whatever_the_camera_does():
    for scene in rich_scenes("fall", 25):
        thing = scene.things[0]
        bounce = np.sqrt(2 * (1 - thing.size - thing.start[1]) / GRAVITY)
        seen = mask_of(render(scene, height=64, width=64, times=np.array([bounce])), thing.colour)[0]
        assert np.flatnonzero(seen.any(axis=1))[-1] == pytest.approx(63, abs=1)


@pytest.mark.parametrize("extent", [(1, 1), (1, 5 / 3)])
def test_what_hides_is_covered_completely_and_seen_whole_at_both_ends(extent):
    for scene in rich_scenes("hide", 8, extent):
        thing = scene.things[0]
        pixels = pixels_of(render(scene, 29, 64, round(64 * extent[1])), thing)
        assert np.count_nonzero(pixels == 0) >= 2
        assert pixels[[0, -1]] == pytest.approx(whole_area(thing), rel=0.3)


def test_a_pillar_lies_in_the_frame():
    for extent in EXTENTS:
        for scene in rich_scenes("hide", 8, extent):
            left, right = scene.pillar
            assert 0 < left < right < extent[1]


def test_a_pillar_is_in_front_of_everything():
    scene = scene_of()
    scene.pillar = (0.25, 0.75)
    video = render(scene, 1, 64, 64)[0]
    assert (video[:, 16:48] == PILLAR).all()
    assert (video[:, :15] == GROUND).all()


@pytest.mark.parametrize("extent", [(1, 1), (1, 5 / 3), (5 / 3, 1)])
def test_what_leaves_is_out_completely_and_back_whole(extent):
    height, width = (round(64 * side) for side in extent)
    for scene in rich_scenes("leave", 6, extent, count=1):
        thing = scene.things[0]
        pixels = pixels_of(render(scene, 29, height, width), thing)
        assert np.count_nonzero(pixels == 0) >= 2
        assert pixels[[0, -1]] == pytest.approx(whole_area(thing), rel=0.3)


def test_what_leaves_comes_back_where_it_left():
    for scene in rich_scenes("leave", 8):
        x, y = DIRECTIONS[scene.things[0].direction]
        path = simulate(scene, TIMES)[0]
        along = path @ (x, y)
        turned = int(np.argmax(along))
        assert path[turned:] @ (y, x) == pytest.approx(np.full(29 - turned, path[0] @ (y, x)))
        assert velocities(along, 1 / 12)[[0, -1]] == pytest.approx([SPEEDS["quickly"], -SPEEDS["quickly"]])


# Meetings


WIDE = (3.0, 3.0)
SHAPE_PAIRS = [("circle", "square"), ("triangle", "triangle"), ("star", "cross"), ("cross", "circle"),
               ("star", "star"), ("triangle", "circle"), ("square", "triangle")]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mover, met", SHAPE_PAIRS)
def test_outlines_touch_when_things_meet_and_not_earlier(mover, met, direction):
    # The oracle: both drawn at 512 pixels a short side, the mover where it is by its speed alone.
    scene = meeting("collides", mover, met, direction)
    still = coverage(met, 0.16, np.array([[0.5, 0.5]]), 512, 512)[0] > 0.5
    common = []
    for pixels_later in (-4, 4):
        time = meeting_time(scene) + pixels_later / 512 / SPEEDS["quickly"]
        away = 0.7 - SPEEDS["quickly"] * time
        middle = np.array([[0.5, 0.5]]) - away * np.array(DIRECTIONS[direction])
        moved = coverage(mover, 0.11, middle, 512, 512)[0] > 0.5
        common.append(np.count_nonzero(moved & still))
    assert common[0] == 0
    assert common[1] > 0


def test_circles_touch_at_the_sum_of_their_radii_and_squares_of_their_sides():
    for shape in ("circle", "square", "cross"):
        things = meeting("collides", shape, shape).things
        assert contact_distance(*things) == pytest.approx(0.11 + 0.16, abs=1e-3)


@pytest.mark.parametrize("sizes", [(0.11, 0.16), (0.16, 0.11), (0.16, 0.16)])
@pytest.mark.parametrize("mover, met", SHAPE_PAIRS)
def test_a_collision_keeps_momentum_and_energy(mover, met, sizes):
    # Mass is area, counted in pixels.
    scene = meeting("collides", mover, met, "up", sizes)
    masses = [coverage(thing.shape, thing.size, MIDDLE, 384, 256).sum() for thing in scene.things]
    at = meeting_time(scene)
    paths = simulate(scene, [at - 0.2, at - 0.1, at + 0.1, at + 0.2], WIDE)
    before = (paths[:, 1] - paths[:, 0]) / 0.1
    after = (paths[:, 3] - paths[:, 2]) / 0.1
    assert masses @ after == pytest.approx(masses @ before, rel=0.02, abs=1e-9)
    assert masses @ (after**2).sum(1) == pytest.approx(masses @ (before**2).sum(1), rel=0.02)
    assert after[0, 1] > after[1, 1]


def test_of_two_equal_things_the_mover_stops_and_the_other_goes_on():
    scene = meeting("collides", "star", "star", "left", (0.11, 0.11))
    at = meeting_time(scene)
    moved = np.diff(simulate(scene, [at, at + 1], WIDE), axis=1)[:, 0]
    assert moved == pytest.approx(np.array([[0, 0], [-SPEEDS["quickly"], 0]]))


@pytest.mark.parametrize("kind", ["collide", "bite"])
@pytest.mark.parametrize("extent", EXTENTS)
def test_things_meet_inside_the_frame_well_before_the_clip_ends(kind, extent):
    for scene in rich_scenes(kind, 15, extent):
        assert 0.25 < meeting_time(scene) < SECONDS / 2
        for thing, path in zip(scene.things, simulate(scene, TIMES, extent), strict=True):
            assert path[0] == pytest.approx(thing.start)


def test_what_bites_goes_back_as_fast_as_it_came_and_what_is_bitten_stays():
    scene = meeting("bites", direction="down")
    at = meeting_time(scene)
    paths = simulate(scene, [at - 0.3, at, at + 0.3], WIDE)
    assert paths[0, 2] == pytest.approx(paths[0, 0])
    assert paths[1] == pytest.approx(np.full((3, 2), 1.5))


def bitten(met, direction):
    """What a bite takes, and what was there before: two masks of 192 x 192 pixels."""
    scene = meeting("bites", "circle", met, direction, middle=0.5, gap=0.34)
    times = meeting_time(scene) + np.array([-0.01, 0.3])
    before, after = mask_of(render(scene, height=192, width=192, times=times), "blue")
    return before & ~after, before


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("met", SHAPES)
def test_a_bite_takes_a_share_that_can_be_seen(met, direction):
    gone, before = bitten(met, direction)
    assert 0.07 < gone.sum() / before.sum() < 0.45


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("met", SHAPES)
def test_a_bite_is_on_the_side_that_the_eater_came_from(met, direction):
    rows, columns = np.nonzero(bitten(met, direction)[0])
    away = np.array([columns.mean(), rows.mean()]) + 0.5 - 96
    towards_eater = -away @ DIRECTIONS[direction]
    across = abs(away @ DIRECTIONS[direction][::-1])
    assert towards_eater > 0.2 * 0.16 * 192
    assert towards_eater > 2 * across


def test_a_bite_mark_stays_to_the_end():
    for scene in rich_scenes("bite", 8):
        pixels = pixels_of(render(scene, 29, 64, 64), scene.things[1])
        bitten = meeting_time(scene) + 1 / 12 < TIMES  # just after it, the two share pixels at their edges
        assert len(set(pixels[bitten])) == 1
        assert pixels[bitten].max() < 0.95 * pixels[0]


def test_an_eater_is_never_covered_by_what_it_bites():
    for scene in rich_scenes("bite", 8):
        eater = scene.things[0]
        assert pixels_of(render(scene, 29, 64, 64), eater).min() > 0.75 * whole_area(eater)


def test_a_bite_is_round():
    # A square bitten from the left: every row loses what a circle around the middle of its left side covers.
    scene = meeting("bites", "circle", "square", "right", middle=0.5, gap=0.34)
    times = meeting_time(scene) + np.array([0.3])
    after = mask_of(render(scene, height=256, width=256, times=times), "blue")[0]
    left = 128 - 0.16 * 256
    radius = BITE_RADIUS * 0.16 * 256
    for row in (108, 118, 128, 138, 148):
        covered = np.sqrt(radius**2 - (row + 0.5 - 128) ** 2)
        assert np.flatnonzero(after[row])[0] == pytest.approx(left + covered, abs=1)


# The camera and the ground


def test_a_pattern_repeats_after_its_period():
    for ground in ("striped", "dotted"):
        frame = render(Scene([], ground), 1, 64, 128)[0]
        period = round(PATTERN_PERIOD * 64)
        assert (frame[:, period:] == frame[:, :-period]).all()
        assert (frame[period:] == frame[:-period]).all()


def test_a_pattern_has_two_tones():
    scene = Scene([], "striped", ((10, 20, 30), (90, 80, 70)))
    frame = render(scene, 1, 128, 128)[0].reshape(-1, 3)
    assert tuple(frame.min(0)) == (10, 20, 30)
    assert tuple(frame.max(0)) == (90, 80, 70)
    assert frame[:, 0].mean() == pytest.approx(50, abs=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pan_moves_the_ground_the_other_way(direction):
    # In 1 / (64 PAN_SPEED) seconds the camera moves by one pixel.
    scene = Scene([], "dotted", camera=f"pans {direction}")
    video = render(scene, times=np.array([0, 5 / 64 / PAN_SPEED]), height=64, width=96)
    x, y = DIRECTIONS[direction]
    moved = np.roll(video[0], (-5 * y, -5 * x), axis=(0, 1))
    assert abs(moved[8:-8, 8:-8].astype(int) - video[1, 8:-8, 8:-8]).max() <= 1


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pan_shows_things_by_their_own_velocity_minus_that_of_the_camera(direction):
    scene = scene_of(start=(0.75, 0.6), direction="right", speed="slowly")
    scene.camera = f"pans {direction}"
    track = centres_of_mass(render(scene, times=np.array([0.0, 0.5]), height=64, width=96))
    expected = 0.5 * 64 * (np.array([0.15, 0]) - PAN_SPEED * np.array(DIRECTIONS[direction]))
    assert track[1] - track[0] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("camera, factor", [("zooms in", 1.5), ("zooms out", 1 / 1.5)])
def test_a_zoom_scales_everything_about_the_middle_of_the_frame(camera, factor):
    # The middle of this frame is at (0.75, 0.5): the thing is 0.2 to the left of it, and 0.1 above.
    scene = Scene([Thing("circle", "red", 0.1, (0.55, 0.4), "still", "")], camera=camera)
    seconds = np.log(1.5) / ZOOM_RATE
    seen = render(scene, times=np.array([seconds]), height=96, width=144)
    start = (0.75 - 0.2 * factor, 0.5 - 0.1 * factor)
    expected = render(Scene([Thing("circle", "red", 0.1 * factor, start, "still", "")]), 1, 96, 144)
    assert abs(seen.astype(int) - expected).max() <= 1


def test_a_zoom_scales_the_ground_like_the_things():
    scene = Scene([], "striped", camera="zooms in")
    seconds = np.log(2) / ZOOM_RATE
    seen = render(scene, times=np.array([0, seconds]), height=64, width=64)[:, 32]
    stripes = [np.count_nonzero(np.diff((row[:, 0] > 42).astype(int))) for row in seen]
    assert stripes[1] == stripes[0] / 2


def test_a_still_camera_shows_a_still_ground():
    video = render(Scene([], "dotted"), 5, 32, 32)
    assert (video == video[0]).all()


# The cut


def test_a_cut_changes_the_ground_half_way_and_only_there():
    for scene in rich_scenes("cut", 10):
        video = render(scene, 29, 64, 64)
        first = render(Scene(scene.things, scene.ground, camera=scene.camera), 13, 64, 64)
        then = render(scene.next_shot, 16, 64, 64)
        assert scene.ground != scene.next_shot.ground
        assert (video[:13] == first).all()
        assert (video[13:] == then).all()


def test_a_thing_keeps_all_but_its_place_over_a_cut():
    for scene in rich_scenes("cut", 20):
        for before, after in zip(scene.things, scene.next_shot.things, strict=True):
            after.start = before.start
            assert before == after


# Independence of frame rate and frame size


@pytest.mark.parametrize("kind", KINDS)
def test_rich_motion_does_not_depend_on_the_frame_rate(kind):
    scene = rich_scenes(kind, 1)[0]
    assert (render(scene, 29, 32, 32, 12)[::2] == render(scene, 15, 32, 32, 6)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rich_scene_looks_the_same_in_every_frame_size(kind):
    scene = rich_scenes(kind, 1, (1, 1.5))[0]
    times = np.array([0.0, 1.0, 2.0])
    small = render(scene, height=64, width=96, times=times)
    large = render(scene, height=128, width=192, times=times)
    assert abs(large.reshape(3, 64, 2, 96, 2, 3).mean(axis=(2, 4)) - small).mean() < 1.5

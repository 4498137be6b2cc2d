import numpy as np
import pytest

from world.scenes import (
    COLOURS,
    COMBINATIONS,
    DIRECTIONS,
    GROUND,
    HELD_OUT,
    SEEN,
    SHAPES,
    SIMPLE_COLOURS,
    SIMPLE_SHAPES,
    SPEEDS,
    Scene,
    Thing,
    coverage,
    draw_scene,
    frame_extent,
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

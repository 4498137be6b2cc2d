import numpy as np
import pytest

from world import reader, scenes
from world.reader import ATTRIBUTES
from world.scenes import (
    COLOURS,
    COMBINATIONS,
    DIRECTIONS,
    GROUND,
    SIMPLE_SHAPES,
    SPEEDS,
    Scene,
    Thing,
    coverage,
    draw_scene,
    render,
    simulate,
)

RED_SQUARE = ("square", "red", "left", "slowly")
NOT_READ = (None, 0.0)


def clip(combination, seed=0, frames=17, **size):
    return render(draw_scene(np.random.default_rng(seed), combination), frames, **size)


def words_of(found):
    return tuple(found[name] for name in ATTRIBUTES)


def straight_track(step, frames=17):
    """A thing's centre, (frames, 2) in pixels, that moves by `step` (x, y) pixels a frame."""
    return np.array([10.0, 20.0]) + np.arange(frames)[:, None] * np.array(step)


# read: all of it, on the world itself


def test_the_reader_is_right_on_the_world_itself():
    right = []
    for seed, combination in enumerate(COMBINATIONS):
        right.append(words_of(reader.read(clip(combination, seed))) == combination)
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("combination", COMBINATIONS[::9])
def test_it_reads_other_sizes_and_rates_and_clips_that_bounce(combination):
    scene = draw_scene(np.random.default_rng(1), combination, (1.0, 1.5))
    found = reader.read(render(scene, 49, 32, 48, 24.0), 24.0)
    assert words_of(found) == combination


def test_it_is_sure_of_clean_clips():
    for combination in COMBINATIONS[::9]:
        sureness = reader.read(clip(combination))["confidence"]
        assert all(0.8 < value <= 1 for value in sureness.values())


def test_it_reads_a_rate_of_12_frames_a_second_if_not_told():
    assert reader.read(clip(RED_SQUARE))["speed"] == "slowly"


def test_an_empty_clip_shows_nothing():
    found = reader.read(np.full((17, 32, 48, 3), GROUND, np.uint8))
    assert words_of(found) == (None, None, None, None)
    assert list(found["confidence"].values()) == [0, 0, 0, 0]
    assert found["track"] is None
    assert found["area"] is None


def test_noise_shows_no_shape_and_no_motion():
    noise = np.random.default_rng(2).integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    found = reader.read(noise)
    assert (found["shape"], found["direction"], found["speed"]) == (None, None, None)


def test_a_thing_that_is_gone_for_one_frame_is_not_read():
    video = clip(RED_SQUARE)
    video[8] = GROUND
    assert words_of(reader.read(video)) == (None, None, None, None)


def test_a_picture_has_a_shape_and_a_colour_but_no_motion():
    assert words_of(reader.read(clip(RED_SQUARE, frames=1))) == ("square", "red", None, None)


def test_motion_needs_five_frames():
    assert words_of(reader.read(clip(RED_SQUARE, frames=4)))[2:] == (None, None)
    assert words_of(reader.read(clip(RED_SQUARE, frames=5)))[2:] == ("left", "slowly")


# read_colour


@pytest.mark.parametrize("colour", COLOURS)
def test_a_palette_colour_is_read_with_certainty(colour):
    difference = np.zeros((2, 8, 12, 3))
    difference[:, 2:5, 3:6] = np.subtract(COLOURS[colour], GROUND)
    assert reader.read_colour(difference) == (colour, 1.0)


def test_between_two_colours_the_nearer_wins_and_confidence_falls():
    blue = np.subtract(COLOURS["blue"], GROUND)
    purple = np.subtract(COLOURS["purple"], GROUND)
    difference = np.zeros((2, 8, 12, 3))
    difference[:, 2:5, 3:6] = 0.75 * blue + 0.25 * purple
    colour, confidence = reader.read_colour(difference)
    assert colour == "blue"
    assert confidence == pytest.approx(1 - 0.25 / 0.75)


def test_soft_edges_do_not_change_the_colour():
    difference = np.zeros((2, 8, 12, 3))
    difference[:, 2:5, 2:8] = np.subtract(COLOURS["white"], GROUND)
    difference[:, 5, 2:8] = np.subtract(COLOURS["white"], GROUND) * 0.3
    assert reader.read_colour(difference) == ("white", 1.0)


@pytest.mark.parametrize("distance, seen", [(50, False), (60, False), (70, True)])
def test_what_is_too_near_to_the_ground_is_no_colour(distance, seen):
    difference = np.zeros((2, 8, 12, 3))
    difference[:, 2:5, 3:6, 0] = distance
    assert (reader.read_colour(difference) != NOT_READ) == seen


# measure_cover


def test_cover_undoes_the_drawing():
    thing = Thing("circle", "blue", 0.2, (0.5, 0.75), "left", "slowly")
    drawn = coverage("circle", 0.2, np.array([[0.5, 0.75]]), 48, 32)
    difference = render(Scene([thing]), 1, 48, 32).astype(float) - GROUND
    cover = reader.measure_cover(difference, "blue")
    assert cover == pytest.approx(drawn, abs=0.1)
    assert cover[drawn > 0.1] == pytest.approx(drawn[drawn > 0.1], abs=0.01)


def test_cover_is_at_most_one_and_at_least_zero():
    red = np.subtract(COLOURS["red"], GROUND)
    difference = np.stack([2.0 * red, -red, 0.5 * red])[None, None]
    assert reader.measure_cover(difference, "red")[0, 0] == pytest.approx([1, 0, 0.5])


@pytest.mark.parametrize("distance, counts", [(15, False), (20, False), (25, True)])
def test_faint_noise_on_the_ground_covers_nothing(distance, counts):
    faint = np.zeros((1, 1, 1, 3))
    faint[..., 0] = distance
    assert (reader.measure_cover(faint, "red").sum() > 0) == counts


# read_track


def test_the_track_is_the_centre_of_mass_in_pixels():
    cover = np.zeros((2, 8, 12))
    cover[0, 1, 3] = 1.0
    cover[1, 2, 4] = 0.25
    cover[1, 6, 8] = 0.75
    track, area = reader.read_track(cover)
    assert track == pytest.approx(np.array([[3.5, 1.5], [7.5, 5.5]]))
    assert area == pytest.approx([1.0, 1.0])


def test_the_area_counts_covered_pixels():
    cover = np.zeros((2, 8, 12))
    cover[1, :4, :3] = 0.5
    assert reader.read_track(cover)[1] == pytest.approx([0, 6])


def test_a_frame_that_covers_nothing_has_a_finite_track():
    assert np.isfinite(reader.read_track(np.zeros((2, 8, 12)))[0]).all()


def test_the_track_is_where_the_simulation_says():
    scene = Scene([Thing("circle", "green", 0.2, (0.3, 0.6), "right", "slowly")])
    track = reader.read(render(scene, 17, 32, 48))["track"]
    path = simulate(scene, np.arange(17) / 12, (1.0, 1.5))[0]
    assert track / 32 == pytest.approx(path, abs=0.01)


# read_shape


def read_drawn_shape(drawn):
    track, area = reader.read_track(drawn)
    return reader.read_shape(drawn, track, area)


@pytest.mark.parametrize("height, width", [(32, 48), (48, 32)])
@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_a_drawn_shape_is_read_with_certainty(shape, height, width):
    path = np.array([[0.4, 0.5], [0.5, 0.55], [0.6, 0.6]])
    assert read_drawn_shape(coverage(shape, 0.22, path, height, width)) == (shape, 1.0)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_the_radius_follows_from_the_area(shape):
    area = coverage(shape, 0.25, np.array([[0.5, 0.5]]), 64, 64).sum(axis=(1, 2))
    assert reader.estimate_radius(area, shape) == pytest.approx(16, rel=0.01)


def test_one_bad_frame_does_not_change_the_radius():
    assert reader.estimate_radius(np.array([400.0, 400.0, 4.0]), "square") == 10


def test_a_shape_that_is_none_of_ours_is_not_read():
    bar = np.zeros((3, 32, 48))
    bar[:, 15:17, 4:44] = 1.0
    assert read_drawn_shape(bar) == NOT_READ


@pytest.mark.parametrize("share, read", [(0.87, False), (0.91, True)])
def test_a_shape_needs_an_overlap_of_eight_tenths(share, read):
    # A square of area A faded to s A is compared with a full one of area s A: they share s² A and together
    # cover s A (2 - s). The ratio s / (2 - s) is 0.8 at s = 0.89.
    drawn = share * coverage("square", 0.25, np.array([[0.5, 0.5]]), 96, 128)
    assert (read_drawn_shape(drawn) != NOT_READ) == read


@pytest.fixture
def stretch(monkeypatch):
    """stretch(width, height): from now on, every shape is drawn so many times as wide and as high."""
    signed_distance = scenes.signed_distance

    def set_to(width, height):
        def stretched(shape, x, y, r):
            return signed_distance(shape, x / width, y / height, r)

        monkeypatch.setattr(scenes, "signed_distance", stretched)
    return set_to


def planted(shape, stretch, width, height, size_factor=1.0):
    """What the reader makes of 20 clips of a shape that is `width` and `height` times as large as it says."""
    videos = []
    stretch(width, height)
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), (shape, *RED_SQUARE[1:]))
        videos.append(render(scene, size_factor=size_factor))
    stretch(1.0, 1.0)
    return {reader.read(video)["shape"] for video in videos}


@pytest.mark.parametrize("width, height", [(14 / 16, 18 / 16), (18 / 16, 14 / 16)])
def test_a_rectangle_of_14x18_is_no_square(width, height, stretch):
    assert planted("square", stretch, width, height) == {None}


@pytest.mark.parametrize("shape", SIMPLE_SHAPES)
@pytest.mark.parametrize("width, height", [(1 / 1.12, 1.0), (1.0, 1 / 1.12)])
def test_an_egg_of_12_per_cent_is_no_circle_and_so_on(shape, width, height, stretch):
    assert planted(shape, stretch, width, height) == {None}


@pytest.mark.parametrize("shape", SIMPLE_SHAPES)
@pytest.mark.parametrize("width, height", [(1 / 1.07, 1.0), (1.0, 1 / 1.07)])
def test_nobody_sees_a_stretch_of_7_per_cent(shape, width, height, stretch):
    assert planted(shape, stretch, width, height) == {shape}


@pytest.mark.parametrize("shape", SIMPLE_SHAPES)
@pytest.mark.parametrize("last, expected", [(0.85, None), (1.15, None), (0.93, "same")])
def test_a_thing_that_shrinks_or_grows_by_15_per_cent_has_no_shape(shape, last, expected, stretch):
    found = planted(shape, stretch, 1.0, 1.0, size_factor=np.linspace(1, last, 17))
    assert found == ({shape} if expected else {None})


def test_one_frame_of_a_wrong_size_is_enough(stretch):
    size_factor = np.ones(17)
    size_factor[7] = 0.85
    assert planted("circle", stretch, 1.0, 1.0, size_factor) == {None}


def test_one_stretched_frame_of_those_compared_is_enough(stretch):
    path = np.full((3, 2), 0.5)
    drawn = coverage("circle", 0.2, path, 32, 48)
    stretch(1.06, 0.94)
    drawn[1] = coverage("circle", 0.2, path[1:2], 32, 48)[0]
    assert read_drawn_shape(drawn) == NOT_READ


def test_width_over_height_does_not_depend_on_where_a_thing_is(stretch):
    path = np.array([[0.5, 0.5], [0.51, 0.37], [0.623, 0.7]])
    stretch(1.2, 0.9)
    ratio = reader.width_over_height(coverage("square", 0.2, path, 32, 48))
    assert ratio == pytest.approx([1.2 / 0.9] * 3, rel=0.01)


def test_confidence_is_the_lead_over_the_second_best_shape():
    path = np.array([[0.5, 0.5]])
    between = (coverage("circle", 0.25, path, 32, 48) + coverage("square", 0.23, path, 32, 48)) / 2
    confidence = read_drawn_shape(between)[1]
    assert 0 < confidence < 0.9


def test_every_part_of_a_clip_is_compared():
    path = np.full((9, 2), 0.5)
    drawn = coverage("square", 0.2, path, 32, 48)
    whole = read_drawn_shape(drawn)
    drawn[4:] = coverage("circle", 0.2 * 2 / np.pi**0.5, path[4:], 32, 48)
    assert whole[0] == "square"
    assert read_drawn_shape(drawn)[0] == "circle"


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_and_the_last_frame_are_compared_too(index):
    # A bar with the square's area stands in one of two frames.
    drawn = coverage("square", 0.2, np.full((2, 2), 0.5), 32, 48)
    drawn[index] = 0
    drawn[index, 14:18, 4:44] = 1
    assert read_drawn_shape(drawn) == NOT_READ


# read_motion


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("direction, step", [
    ("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1)),
])
def test_motion_is_read_from_a_straight_track(direction, step, speed):
    track = straight_track(np.array(step) * SPEEDS[speed] * 32 / 24)
    read_direction, read_speed = reader.read_motion(track, 32, 24.0)
    assert read_direction == (direction, 1.0)
    assert read_speed == (speed, pytest.approx(1.0))


@pytest.mark.parametrize("factor, speed", [(0.6, None), (0.7, "slowly"), (1.45, "slowly")])
def test_a_speed_may_be_off_by_a_factor_of_one_and_a_half(factor, speed):
    track = straight_track(np.array([factor * SPEEDS["slowly"] * 32 / 12, 0]))
    assert reader.read_motion(track, 32, 12.0)[1][0] == speed


def test_confidence_in_a_speed_falls_with_the_ratio():
    track = straight_track(np.array([1.5**0.25 * SPEEDS["slowly"] * 32 / 12, 0]))
    assert reader.read_motion(track, 32, 12.0)[1][1] == pytest.approx(0.75)


@pytest.mark.parametrize("slant, direction", [(0.0, "right"), (0.4, "right"), (0.6, None)])
def test_a_slanted_path_has_no_direction(slant, direction):
    track = straight_track(np.array([1.0, slant]) * SPEEDS["quickly"] * 32 / 12)
    read_direction, _ = reader.read_motion(track, 32, 12.0)
    assert read_direction == (direction, pytest.approx(1 - slant if direction else 0))


def test_a_thing_that_stands_still_has_no_motion():
    assert reader.read_motion(straight_track((0, 0)), 32, 12.0) == (NOT_READ, NOT_READ)


def test_the_direction_is_the_one_before_a_bounce():
    step = SPEEDS["quickly"] * 32 / 12
    x = 10 + step * np.concatenate([np.arange(9), np.arange(7, -9, -1)])
    track = np.stack([x, np.full(25, 20.0)], axis=-1)
    direction, speed = reader.read_motion(track, 32, 12.0)
    assert (direction[0], speed[0]) == ("right", "quickly")


def test_one_frame_read_wrongly_does_not_change_the_motion():
    track = straight_track((SPEEDS["quickly"] * 32 / 12, 0))
    track[5] -= (200, 200)
    direction, speed = reader.read_motion(track, 32, 12.0)
    assert direction == ("right", pytest.approx(1.0))
    assert speed == ("quickly", pytest.approx(1.0))


def test_a_thing_that_stands_still_at_first_has_no_direction():
    x = 10 + SPEEDS["slowly"] * 32 / 12 * np.maximum(np.arange(50) - 12, 0)
    track = np.stack([x, np.full(50, 20.0)], axis=-1)
    assert reader.read_motion(track, 32, 12.0) == (NOT_READ, NOT_READ)


def test_of_a_short_clip_the_first_step_tells_the_direction():
    # Over four frames each: a step of +4 pixels, then one of -5.
    x = np.array([10.0, 15.0, 15.0, 15.0, 14.0, 10.0])
    track = np.stack([x, np.full(6, 20.0)], axis=-1)
    direction, speed = reader.read_motion(track, 32, 12.0)
    assert (direction[0], speed[0]) == ("right", "quickly")


# shows, path_error, seam_velocity


@pytest.mark.parametrize("index, wrong", [(0, "circle"), (1, "blue"), (2, "right"), (3, "quickly")])
def test_a_clip_shows_all_of_what_is_asked_or_does_not(index, wrong):
    video = clip(RED_SQUARE)
    asked = list(RED_SQUARE)
    assert reader.shows(video, asked, ATTRIBUTES)
    asked[index] = wrong
    assert not reader.shows(video, asked, ATTRIBUTES)


def test_shows_asks_for_shape_and_colour_only_if_not_told():
    video = clip(RED_SQUARE)
    assert reader.shows(video, ("square", "red", "up", "quickly"))
    assert not reader.shows(video, ("circle", "red", "left", "slowly"))
    assert not reader.shows(video, ("square", "blue", "left", "slowly"))


def test_paths_are_compared_in_pixels():
    video = clip(RED_SQUARE)
    shifted = np.roll(video, (3, 4), (1, 2))
    assert reader.path_error(shifted, video, slice(4, 9)) == pytest.approx(5, abs=0.05)


def test_only_the_new_frames_of_a_path_are_compared():
    video = clip(RED_SQUARE)
    changed = video.copy()
    changed[9:] = np.roll(video[9:], 2, 1)
    assert reader.path_error(changed, video, slice(0, 9)) == 0
    assert reader.path_error(changed, video, slice(8, 10)) == pytest.approx(1, abs=0.05)


def test_the_path_of_nothing_is_infinitely_wrong():
    video = clip(RED_SQUARE)
    empty = np.full_like(video, 18)
    assert reader.path_error(empty, video, slice(0, 3)) == np.inf
    assert reader.path_error(video, empty, slice(0, 3)) == np.inf


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_velocity_at_a_seam_is_in_pixels_a_frame(direction):
    video = clip(("circle", "red", direction, "slowly"))
    expected = np.array(DIRECTIONS[direction]) * 0.15 * 32 / 12
    assert reader.seam_velocity(video, 8) == pytest.approx(expected, abs=0.02)


def test_the_velocity_at_a_seam_is_that_of_the_four_frames_before_it():
    video = clip(RED_SQUARE)
    video[9:] = video[8]
    assert reader.seam_velocity(video, 8) == pytest.approx([-0.4, 0], abs=0.02)
    assert reader.seam_velocity(video, 10) == pytest.approx([-0.2, 0], abs=0.02)
    assert reader.seam_velocity(video, 12) == pytest.approx([0, 0], abs=0.02)


def test_nothing_has_a_velocity_that_no_thing_has():
    empty = np.full((17, 32, 48, 3), GROUND, np.uint8)
    assert reader.seam_velocity(empty, 8).tolist() == [99, 99]


# steadiness: a long clip, second by second

MINUTE = ("triangle", "white", "up", "quickly")


@pytest.fixture(scope="module")
def truth():
    return clip(MINUTE, 4, 240)


def test_the_truth_is_steady(truth):
    looks, moves, drift = reader.steadiness(truth, MINUTE, 12.0)
    assert len(looks) == len(moves) == 20
    assert looks.all()
    assert moves.all()
    assert drift < 0.01


@pytest.mark.parametrize("combination", COMBINATIONS[::29])
def test_the_worlds_own_long_clips_score_full_marks(combination):
    scene = draw_scene(np.random.default_rng(5), combination, (1.0, 1.5))
    looks, moves, _ = reader.steadiness(render(scene, 361, 32, 48), combination, 12.0)
    assert looks.all()
    assert moves.mean() > 0.95


@pytest.mark.parametrize("asked, right", [
    (("triangle", "white", "up", "quickly"), (True, True)),
    (("circle", "white", "up", "quickly"), (False, True)),
    (("triangle", "red", "up", "quickly"), (False, True)),
    (("triangle", "white", "up", "slowly"), (True, False)),
    (("triangle", "white", "left", "quickly"), (True, False)),
])
def test_each_attribute_is_judged(truth, asked, right):
    looks, moves, _ = reader.steadiness(truth, asked, 12.0)
    assert (looks.all(), moves.all()) == right


def test_a_change_of_colour_shows_from_its_second_on(truth):
    changed = truth.copy()
    changed[120:] *= np.uint8([1, 1, 0])
    looks, _, _ = reader.steadiness(changed, MINUTE, 12.0)
    assert looks[:9].all()
    assert not looks[10:].any()


@pytest.mark.parametrize("factor, steady", [(0.87, False), (0.93, True), (1.07, True), (1.13, False)])
def test_a_change_of_size_by_more_than_10_per_cent_shows(factor, steady):
    scene = draw_scene(np.random.default_rng(4), MINUTE)
    times = np.arange(60) / 12
    video = render(scene, times=times, size_factor=np.where(times < 2.5, 1.0, factor))
    looks, _, _ = reader.steadiness(video, MINUTE, 12.0)
    assert looks[:2].all()
    assert looks[3:].all() == steady


def test_an_egg_looks_wrong_and_moves_right(stretch):
    stretch(1.0, 1 / 1.15)
    scene = draw_scene(np.random.default_rng(4), ("circle", *MINUTE[1:]))
    video = render(scene, times=np.arange(60) / 12)
    stretch(1.0, 1.0)
    looks, moves, _ = reader.steadiness(video, ("circle", *MINUTE[1:]), 12.0)
    assert not looks.any()
    assert moves.all()


def test_a_second_without_its_thing_is_wrong(truth):
    changed = truth.copy()
    changed[125] = GROUND
    looks, moves, _ = reader.steadiness(changed, MINUTE, 12.0)
    assert np.flatnonzero(~looks).tolist() == [10]
    assert np.flatnonzero(~moves).tolist() == [10]


def test_a_turn_between_two_seconds_counts_in_the_first():
    # Far from the walls the clip runs backward from frame 12 on: 0, 1, ... 11, 11, ... 1, 0.
    asked = ("circle", "red", "right", "slowly")
    scene = Scene([Thing("circle", "red", 0.2, (0.6, 0.5), "right", "slowly")])
    times = (11.5 - abs(np.arange(24) - 11.5)) / 12
    _, moves, _ = reader.steadiness(render(scene, height=32, width=48, times=times), asked, 12.0)
    assert moves.tolist() == [False, True]


def test_brightness_is_compared_between_the_first_and_the_last_five_seconds():
    video = np.full((130, 8, 12, 3), 77, np.uint8)
    video[:50] = 100
    video[-50:] = 120
    assert reader.brightness_drift(video, 10.0) == pytest.approx(0.2)
    assert reader.brightness_drift(video[::-1], 10.0) == pytest.approx(1 - 100 / 120)


def test_steadiness_reports_the_drift(truth):
    darker = truth.copy()
    darker[120:] //= 2
    assert reader.steadiness(darker, MINUTE, 12.0)[2] == reader.brightness_drift(darker, 12.0)
    assert reader.brightness_drift(darker, 12.0) > 0.4


# moves_lawfully: positions of a box of ± 5 pixels in a frame of 40, so it may be anywhere from 5 to 35


def bouncing(turn, frames=14):
    """Positions that rise by a pixel a frame to `turn`, stay there for one frame, and fall again."""
    middle = (frames - 1) / 2
    return turn + 0.5 - abs(np.arange(frames) - middle)


@pytest.mark.parametrize("positions, lawful", [
    (bouncing(35), True),
    (bouncing(33), True),  # 2 pixels from the wall
    (bouncing(32), False),  # 3 pixels from it
    (bouncing(37), True),  # 2 pixels beyond it
    (bouncing(38), False),
    (40 - bouncing(35), True),  # the other wall
    (40 - bouncing(32), False),
    (40 - bouncing(38), False),
])
def test_a_thing_turns_at_walls_and_stays_inside_them(positions, lawful):
    assert reader.moves_lawfully(positions, 5, 40, 1.0) == lawful


@pytest.mark.parametrize("pace, lawful", [(0.7, False), (0.8, True), (1.2, True), (1.3, False)])
def test_a_pace_may_be_off_by_a_quarter(pace, lawful):
    positions = 10 + 1.0 * pace * np.arange(15)
    assert reader.moves_lawfully(positions, 5, 40, 1.0) == lawful


def test_every_turn_must_be_at_a_wall():
    positions = np.concatenate([bouncing(35), bouncing(28, 14)[1:]])
    assert not reader.moves_lawfully(positions, 5, 40, 1.0)


@pytest.mark.parametrize("frames", [slice(None, 9), slice(5, None)])
def test_a_turn_at_either_end_of_the_clip_counts_too(frames):
    assert not reader.moves_lawfully(bouncing(28)[frames], 5, 40, 1.0)
    assert reader.moves_lawfully(bouncing(35)[frames], 5, 40, 1.0)

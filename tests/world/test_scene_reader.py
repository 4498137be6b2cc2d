from dataclasses import replace

import numpy as np
import pytest

from world import scene_reader, scenes
from world.captions import facts
from world.scene_reader import read_facts
from world.scenes import KINDS, SIZES, Scene, Thing, draw_rich_scene, frame_extent, render

SMALL, LARGE = SIZES["small"], SIZES["large"]
SECONDS = 28 / 12  # a clip of 29 frames

MOVES = Scene(
    [Thing("square", "red", LARGE, (0.2, 0.5), "right", "slowly")],
    ground="dotted",
    half=SECONDS / 2,
)
PAIR = Scene(
    [
        Thing("circle", "green", SMALL, (0.25, 0.5), "right", "slowly"),
        Thing("square", "blue", LARGE, (0.65, 0.5), "still", ""),
    ],
    half=SECONDS / 2,
)
COLLIDES = replace(PAIR, meeting="collides")
BITES = replace(PAIR, meeting="bites")
HIDES = Scene(
    [Thing("circle", "red", SMALL, (0.12, 0.5), "right", "quickly", event="hides")],
    pillar=(0.34, 0.66),
    half=SECONDS / 2,
)


def film(scene, **options):
    return render(scene, 29, 64, 64, **options)


def spliced(first, second, at):
    """The frames of one video before `at`, and of another from there on."""
    return np.concatenate([first[:at], second[at:]])


# The world's own clips are read as they are


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("height, width", [(64, 64), (48, 80)])
def test_every_fact_of_a_scene_is_read_back(kind, height, width):
    scene = draw_rich_scene(np.random.default_rng(3), kind, frame_extent(height, width))
    assert set(facts(scene)) <= read_facts(render(scene, 29, height, width))


@pytest.mark.parametrize("scene", [MOVES, COLLIDES, BITES, HIDES])
def test_the_scenes_that_are_falsified_below_are_read_back(scene):
    assert set(facts(scene)) <= read_facts(film(scene))


# What an eye would not accept


@pytest.mark.parametrize("width, height", [(1.0, 1 / 1.12), (1 / 1.12, 1.0)])
def test_a_stretched_thing_has_no_shape(width, height, monkeypatch):
    distance = scenes.signed_distance
    with monkeypatch.context() as patched:
        patched.setattr(
            scenes, "signed_distance", lambda shape, x, y, r: distance(shape, x / width, y / height, r)
        )
        video = film(MOVES)
    assert ("red", "shape", "square") not in read_facts(video)


def test_a_thing_that_grows_by_15_per_cent_is_not_told_whole():
    video = film(MOVES, size_factor=np.linspace(1, 1.15, 29))
    assert not set(facts(MOVES)) <= read_facts(video)


def test_a_thing_that_pulses_has_no_size_and_yet_moves_as_told():
    pulse = 1 + 0.15 * np.sin(np.arange(29))
    told = read_facts(film(MOVES, size_factor=pulse))
    assert {("red", "moves", "right"), ("red", "speed", "slowly")} <= told
    assert ("red", "size", "large") not in told


def test_a_thing_that_shrinks_to_a_third_of_its_area_does_not_move_as_told():
    size_factor = np.where(np.arange(29) < 10, 1.0, 0.55)
    assert ("red", "moves", "right") not in read_facts(film(MOVES, size_factor=size_factor))


def test_what_touches_the_edge_of_the_frame_keeps_its_size():
    falls = Scene([Thing("circle", "red", LARGE, (0.5, 0.3), "still", "", event="falls")], half=SECONDS / 2)
    assert ("red", "size", "large") in read_facts(film(falls))


def test_a_thing_that_nobody_asked_for_is_counted():
    other = Thing("star", "white", SMALL, (0.5, 0.15), "still", "")
    assert ("things", "count", "2") in read_facts(film(replace(MOVES, things=[*MOVES.things, other])))


def test_something_of_no_colour_of_the_world_spoils_the_count():
    video = film(MOVES)
    video[10:, 2:10, 50:58] = (100, 100, 0)
    assert ("things", "count", "1") not in read_facts(video)


@pytest.mark.parametrize("pace", [0.6, 1.6])
def test_a_thing_that_is_much_too_slow_or_too_fast_has_no_such_speed(pace):
    video = film(MOVES, times=np.arange(29) / 12 * pace)
    assert ("red", "speed", "slowly") not in read_facts(video)


def test_a_thing_that_turns_back_in_mid_air_does_not_move_as_told():
    there = film(MOVES)
    assert ("red", "moves", "right") not in read_facts(spliced(there, there[::-1], 15))


# Events that break the laws of the world are not told


def test_what_vanishes_behind_a_pillar_has_not_hidden():
    empty = film(replace(HIDES, things=[]))
    assert ("red", "hides", "") not in read_facts(spliced(film(HIDES), empty, 15))


def test_what_comes_out_with_another_colour_has_not_hidden():
    blue = replace(HIDES, things=[replace(HIDES.things[0], colour="blue")])
    told = read_facts(spliced(film(HIDES), film(blue), 15))
    assert not {("red", "hides", ""), ("blue", "hides", "")} & told


def test_what_comes_out_too_early_has_not_hidden():
    early = film(HIDES, times=np.arange(29) / 12 + 0.5)
    assert ("red", "hides", "") not in read_facts(spliced(film(HIDES), early, 14))


def test_what_passes_through_another_thing_has_not_hit_it():
    assert not any(fact[1] == "collides" for fact in read_facts(film(PAIR)))


def test_a_collision_in_which_the_hit_thing_stays_is_none():
    bounces_back = film(BITES)
    assert ("green", "collides", "blue") not in read_facts(bounces_back)


@pytest.fixture
def no_mark(monkeypatch):
    """BITES, without the mark."""
    with monkeypatch.context() as patched:
        patched.setattr(scenes, "bite_mark", lambda *arguments: 0.0)
        return film(BITES)


def test_without_a_mark_nothing_is_bitten(no_mark):
    assert ("green", "bites", "blue") not in read_facts(no_mark)


def test_a_bite_that_heals_is_none(no_mark):
    assert ("green", "bites", "blue") not in read_facts(spliced(film(BITES), no_mark, 20))


# Ground, camera, cuts


def test_a_camera_that_pans_the_other_way_is_read_so():
    left = read_facts(film(replace(MOVES, camera="pans left")))
    assert ("camera", "is", "pans left") in left


def test_a_camera_of_no_speed_of_the_world_is_not_told():
    video = film(replace(MOVES, things=[], camera="pans left"), times=np.arange(29) / 12 * 2.5)
    assert not any(fact[0] == "camera" for fact in read_facts(video))


def test_of_two_shots_the_cut_has_to_come_half_way():
    shot = replace(MOVES, ground="plain")
    scene = replace(MOVES, next_shot=shot)
    cut = ("cut to", "ground", "plain")
    assert cut in read_facts(film(scene))
    assert cut not in read_facts(film(replace(scene, half=0.5)))


def test_another_thing_after_the_cut_is_no_second_shot():
    other = replace(MOVES, ground="plain", things=[replace(MOVES.things[0], shape="circle")])
    told = read_facts(film(replace(MOVES, next_shot=other)))
    assert not any(fact[0] == "cut to" for fact in told)


def test_a_video_of_noise_has_no_things():
    video = np.random.default_rng(0).integers(0, 256, (29, 64, 64, 3), dtype=np.uint8)
    assert not any(fact[1] in ("shape", "moves") for fact in read_facts(video))


def test_an_empty_video_has_no_things():
    assert ("things", "count", "0") in read_facts(film(replace(MOVES, things=[])))


def test_the_reader_knows_every_camera_by_its_drift():
    for camera in scenes.CAMERAS:
        video = film(replace(MOVES, things=[], camera=camera))
        lightness, is_ground = scene_reader.read_ground(video.astype(np.float32))
        assert scene_reader.read_camera(lightness, is_ground, 12.0) == camera

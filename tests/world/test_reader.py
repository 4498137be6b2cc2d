import numpy as np
import pytest

import evaluate
from world import reader
from world import scenes


def clip(combination, rng, frames=17, **size):
    return scenes.render(scenes.draw_scene(rng, combination), frames, **size)


def test_the_reader_is_right_on_the_world_itself():
    rng = np.random.default_rng(0)
    videos = [clip(c, rng) for c in scenes.COMBINATIONS]
    assert evaluate.shares(videos, scenes.COMBINATIONS, 12.0)["all"] >= 0.99


def test_it_reads_other_sizes_rates_and_clips_that_bounce():
    rng = np.random.default_rng(1)
    for c in scenes.COMBINATIONS[::9]:
        found = reader.read(scenes.render(scenes.draw_scene(rng, c, (1.0, 1.5)), 33, 32, 48, 24.0), 24.0)
        assert tuple(found[a] for a in reader.ATTRIBUTES) == c and all(0 <= s <= 1 for s in found["confidence"].values())


def test_its_track_is_where_the_thing_is():
    scene = scenes.Scene([scenes.Thing("circle", "green", 0.2, (0.3, 0.6), "right", "slowly")])
    track = reader.read(scenes.render(scene))["track"]
    assert abs(track / 32 - scenes.simulate(scene, np.arange(17) / 12)[0]).max() < 0.01


def test_it_gives_up_rather_than_guess():
    rng = np.random.default_rng(2)
    assert reader.read(np.full((17, 32, 32, 3), scenes.GROUND, np.uint8))["colour"] is None
    noise = reader.read(rng.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8))
    assert (noise["shape"], noise["direction"], noise["speed"]) == (None, None, None)
    video = clip(("circle", "red", "left", "slowly"), rng)
    video[8] = scenes.GROUND  # gone for a moment
    assert reader.read(video)["colour"] is None
    image = reader.read(clip(("square", "red", "left", "slowly"), rng, 1))
    assert (image["shape"], image["colour"], image["direction"], image["speed"]) == ("square", "red", None, None)
    still = np.repeat(clip(("square", "red", "left", "slowly"), rng, 1), 17, 0)
    assert reader.read(still)["direction"] is None


def test_a_minute_of_the_world_is_steady_and_every_fault_shows():
    asked = ("triangle", "white", "up", "quickly")
    truth = clip(asked, np.random.default_rng(4), 240)
    looks, moves, drift = reader.steadiness(truth, asked, 12.0)
    assert looks.all() and moves.all() and len(looks) == 20 and drift < 0.01
    faulty = lambda change: reader.steadiness(np.concatenate([truth[:120], change(truth[120:])]), asked, 12.0)
    assert faulty(lambda v: v * np.uint8([1, 1, 0]))[0].sum() == 10                                      # yellow from half-time on
    assert faulty(lambda v: np.repeat(v[::2], 2, 0)[:60].repeat(2, 0))[1].sum() <= 12                    # half as fast, in jumps
    assert not reader.steadiness(np.roll(truth, 12, 1), asked, 12.0)[1].all()                              # half of it beyond a wall
    assert faulty(lambda v: v // 2)[2] > 0.05
    gone = truth.copy()
    gone[125] = scenes.GROUND
    assert not reader.steadiness(gone, asked, 12.0)[0][10]


@pytest.mark.parametrize("combination", scenes.COMBINATIONS[::13])
def test_the_worlds_own_long_videos_score_full_marks(combination):
    looks, moves, _ = reader.steadiness(clip(combination, np.random.default_rng(5), 361), combination, 12.0)
    assert looks.all() and moves.mean() > 0.95


def test_paths_are_compared_in_pixels():
    rng = np.random.default_rng(6)
    video = clip(("circle", "red", "left", "slowly"), rng)
    assert reader.path_error(np.roll(video, 1, 1), video, slice(4, 9)) == pytest.approx(1, abs=0.05) and reader.path_error(video, video, slice(0, 3)) == 0
    assert reader.path_error(np.full_like(video, 18), video, slice(0, 3)) == np.inf
    assert reader.seam_velocity(video, 8) == pytest.approx([-0.15 * 32 / 12, 0], abs=0.02)

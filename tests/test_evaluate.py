import json

import numpy as np
import pytest
import torch

import evaluate
import world


def clip(combination, rng, frames=17, **size):
    return world.render(world.scene(rng, combination), frames, **size)


def test_the_reader_is_right_on_the_world_itself():
    rng = np.random.default_rng(0)
    videos = [clip(c, rng) for c in world.COMBINATIONS]
    assert evaluate.shares(videos, world.COMBINATIONS, 12.0)["all"] >= 0.99


def test_it_reads_other_sizes_rates_and_clips_that_bounce():
    rng = np.random.default_rng(1)
    for c in world.COMBINATIONS[::9]:
        found = evaluate.read(world.render(world.scene(rng, c, (1.0, 1.5)), 33, 32, 48, 24.0), 24.0)
        assert tuple(found[a] for a in evaluate.ATTRIBUTES) == c and all(0 <= s <= 1 for s in found["sure"].values())


def test_its_track_is_where_the_thing_is():
    scene = world.Scene([world.Thing("circle", "green", 0.2, (0.3, 0.6), "right", "slowly")])
    track = evaluate.read(world.render(scene))["track"]
    assert abs(track / 32 - world.simulate(scene, np.arange(17) / 12)[0]).max() < 0.01


def test_it_gives_up_rather_than_guess():
    rng = np.random.default_rng(2)
    assert evaluate.read(np.full((17, 32, 32, 3), world.GROUND, np.uint8))["colour"] is None
    noise = evaluate.read(rng.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8))
    assert (noise["shape"], noise["direction"], noise["speed"]) == (None, None, None)
    video = clip(("circle", "red", "left", "slowly"), rng)
    video[8] = world.GROUND  # gone for a moment
    assert evaluate.read(video)["colour"] is None
    image = evaluate.read(clip(("square", "red", "left", "slowly"), rng, 1))
    assert (image["shape"], image["colour"], image["direction"], image["speed"]) == ("square", "red", None, None)
    still = np.repeat(clip(("square", "red", "left", "slowly"), rng, 1), 17, 0)
    assert evaluate.read(still)["direction"] is None


def test_a_wrong_attribute_costs_that_attribute_and_all():
    rng = np.random.default_rng(3)
    video, asked = clip(("circle", "red", "left", "slowly"), rng), ("circle", "red", "left", "quickly")
    assert evaluate.shares([video], [asked], 12.0) == {"all": 0, "shape": 1, "colour": 1, "direction": 1, "speed": 0}


def test_wilsons_interval():
    assert evaluate.interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=2e-3)  # Wilson 1927; Newcombe 1998, table I
    low, high = evaluate.interval(1.0, 256)
    assert 0.98 < low < high == pytest.approx(1)


def test_a_minute_of_the_world_is_steady_and_every_fault_shows():
    asked = ("triangle", "white", "up", "quickly")
    truth = clip(asked, np.random.default_rng(4), 240)
    looks, moves, drift = evaluate.steady(truth, asked, 12.0)
    assert looks.all() and moves.all() and len(looks) == 20 and drift < 0.01
    faulty = lambda change: evaluate.steady(np.concatenate([truth[:120], change(truth[120:])]), asked, 12.0)
    assert faulty(lambda v: v * np.uint8([1, 1, 0]))[0].sum() == 10                                      # yellow from half-time on
    assert faulty(lambda v: np.repeat(v[::2], 2, 0)[:60].repeat(2, 0))[1].sum() <= 12                    # half as fast, in jumps
    assert not evaluate.steady(np.roll(truth, 12, 1), asked, 12.0)[1].all()                              # half of it beyond a wall
    assert faulty(lambda v: v // 2)[2] > 0.05
    gone = truth.copy()
    gone[125] = world.GROUND
    assert not evaluate.steady(gone, asked, 12.0)[0][10]


@pytest.mark.parametrize("combination", world.COMBINATIONS[::13])
def test_the_worlds_own_long_videos_score_full_marks(combination):
    looks, moves, _ = evaluate.steady(clip(combination, np.random.default_rng(5), 361), combination, 12.0)
    assert looks.all() and moves.mean() > 0.95


def test_paths_are_compared_in_pixels():
    rng = np.random.default_rng(6)
    video = clip(("circle", "red", "left", "slowly"), rng)
    assert evaluate.path_error(np.roll(video, 1, 1), video, slice(4, 9)) == pytest.approx(1, abs=0.05) and evaluate.path_error(video, video, slice(0, 3)) == 0
    assert evaluate.path_error(np.full_like(video, 18), video, slice(0, 3)) == np.inf
    assert evaluate.seam(video, 8) == pytest.approx([-0.15 * 32 / 12, 0], abs=0.02)


def test_every_mode_is_scored(command, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"frames": 25}}, tmp_path / "long.pt")
    code, out, err = command(evaluate, "--checkpoint", "long.pt", "--modes", "--prompts", 1, "--device", "cpu")
    assert code == 0 and out.count(" of 1   ") == 26, err + out
    code, out, err = command(evaluate, "--checkpoint", "long.pt", "--minute", 6, "--prompts", 2, "--device", "cpu")
    assert code == 0 and "6 s, looks the same" in out and "of 12 seconds" in out, err


def test_the_command_ends_with_one_json_object(command, checkpoint):
    code, out, err = command(evaluate, "--checkpoint", checkpoint, "--json", "--prompts", 2, "--device", "cpu")
    report = json.loads(out.splitlines()[-1])
    assert code == 0 and report["ceiling"]["shape"] == 1 and set(report["vae_psnr"]) == {"1", "5", "17", "33"}
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *evaluate.ATTRIBUTES} and report["train_seconds"] > 0

import json

import numpy as np
import pytest

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


def test_the_command_ends_with_one_json_object(command, checkpoint):
    code, out, err = command(evaluate, "--checkpoint", checkpoint, "--json", "--prompts", 2, "--device", "cpu")
    report = json.loads(out.splitlines()[-1])
    assert code == 0 and report["ceiling"]["all"] == 1 and set(report["vae_psnr"]) == {"1", "5", "17", "33"}
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *evaluate.ATTRIBUTES} and report["train_seconds"] > 0

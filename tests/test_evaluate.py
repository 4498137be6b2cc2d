"""Scores: what counts as right, how sure a share is, and that the commands measure what they say."""
import json

import numpy as np
import pytest
import torch

import evaluate
from world.reader import ATTRIBUTES
from world.scenes import HELD_OUT, SEEN, draw_scene, render


def test_a_wrong_attribute_costs_that_attribute_and_all():
    shown = ("circle", "red", "left", "slowly")
    asked = ("circle", "red", "left", "quickly")
    video = render(draw_scene(np.random.default_rng(3), shown))
    shares = evaluate.attribute_shares([video, video], [asked, shown], fps=12.0)
    assert shares == {"all": 0.5, "shape": 1, "colour": 1, "direction": 1, "speed": 0.5}


def test_wilsons_interval_is_the_published_one():
    assert evaluate.interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=2e-3)  # Newcombe 1998, table I


def test_an_interval_stays_below_one():
    low, high = evaluate.interval(1.0, 256)
    assert 0.98 < low < high == pytest.approx(1)


def test_every_combination_of_a_pool_is_as_frequent_as_the_others():
    combinations, captions, videos = evaluate.world_clips(HELD_OUT, 2 * len(HELD_OUT), 5, 5, 8, 16, 12.0)
    assert all(combinations.count(combination) == 2 for combination in HELD_OUT)
    assert videos.shape == (2 * len(HELD_OUT), 5, 8, 16, 3)
    for combination, caption in zip(combinations, captions, strict=True):
        assert all(word in caption for word in combination)


def test_held_out_is_scored_on_held_out_prompts_and_seen_on_seen_ones(model, monkeypatch):
    asked = []

    def remember(model, captions, T, H, W, seed, **sampling):
        asked.append((captions, seed, sampling))
        return np.zeros((len(captions), T, H, W, 3), np.uint8)

    monkeypatch.setattr(evaluate, "generate", remember)
    evaluate.score(model, prompts=20, steps=3)
    for pool, (captions, _, sampling) in zip((SEEN, HELD_OUT), asked, strict=True):
        sentences = {f"a {colour} {shape} moving {way} {speed}" for shape, colour, way, speed in pool}
        assert set(captions) <= sentences
        assert sampling == {"steps": 3}
    assert asked[0][1] != asked[1][1]  # other noise


def test_a_model_that_shows_the_world_itself_scores_as_the_ceiling(model, monkeypatch):
    def perfect(model, captions, T, H, W, seed, **sampling):
        pool = SEEN if seed == 10_000 else HELD_OUT
        return evaluate.usual_clips(model.config, pool, len(captions), seed)[2]

    monkeypatch.setattr(evaluate, "generate", perfect)
    for name, value in (("frames", 17), ("height", 32), ("width", 32)):
        monkeypatch.setattr(model.config, name, value)
    report = evaluate.score(model, prompts=20)
    assert report["seen"] == report["ceiling"]
    assert report["held_out"]["all"] == 1


def test_every_mode_is_scored(command, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"frames": 25}}, tmp_path / "long.pt")
    words = ("--checkpoint", "long.pt", "--modes", "--prompts", 1, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    assert out.count(" of 1   ") == 26
    assert (tmp_path / "out/modes.png").stat().st_size > 0


def test_a_minute_is_scored_second_by_second(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--minute", 6, "--prompts", 2, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    assert "6 s, looks the same" in out
    assert out.count("of 12 seconds") == 2


def test_the_command_ends_with_one_json_object(command, checkpoint):
    code, out, err = command(evaluate, "--checkpoint", checkpoint, "--json", "--prompts", 2, "--device", "cpu")
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["ceiling"]["shape"] == 1
    assert set(report["vae_psnr"]) == {"1", "5", "17", "33"}
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *ATTRIBUTES}
    assert report["train_seconds"] > 0

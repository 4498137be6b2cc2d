import json

import numpy as np
import pytest
import torch

import evaluate
from world import reader, scenes


def clip(combination, rng, frames=17, **size):
    return scenes.render(scenes.draw_scene(rng, combination), frames, **size)


def test_a_wrong_attribute_costs_that_attribute_and_all():
    rng = np.random.default_rng(3)
    video, asked = clip(("circle", "red", "left", "slowly"), rng), ("circle", "red", "left", "quickly")
    assert evaluate.shares([video], [asked], 12.0) == {"all": 0, "shape": 1, "colour": 1, "direction": 1, "speed": 0}


def test_wilsons_interval():
    assert evaluate.interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=2e-3)  # Wilson 1927; Newcombe 1998, table I
    low, high = evaluate.interval(1.0, 256)
    assert 0.98 < low < high == pytest.approx(1)


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
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *reader.ATTRIBUTES} and report["train_seconds"] > 0

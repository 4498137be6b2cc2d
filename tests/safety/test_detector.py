"""Our model's videos are told from the world's, by what is faint in them and by what changes."""
import math

import numpy as np
import pytest
import torch

from safety import detector
from safety.detector import Detector, made_by_us, pairs, resize
from safety.train import passed_on, samples
from utils.checkpoint import SHIPPED, load_model

GROUND = (30, 60, 90)


def traced_video(traces, colour=GROUND):
    """A video of 64x64 on an even ground. In frame i one column is brighter than the ground by traces[i]."""
    video = np.zeros((len(traces), 64, 64, 3), np.uint8)
    video[:] = colour
    for frame, trace in zip(video, traces, strict=True):
        frame[:, 5] += np.uint8(trace)
    return video


def strength(trace):
    return math.tanh(trace / 12)


# Pairs of frames


@pytest.mark.parametrize("T, H, W", [(1, 24, 32), (2, 64, 64), (9, 96, 40)])
def test_any_video_gives_eight_pairs_of_one_size(T, H, W):
    video = np.random.default_rng(0).integers(0, 256, (T, H, W, 3), np.uint8)
    assert pairs(video).shape == (8, 6, 64, 64)
    assert pairs(video, N=3).shape == (3, 6, 64, 64)


def test_the_ground_is_taken_away_and_a_faint_trace_made_strong():
    x = pairs(traced_video([12, 12, 12]))
    expected = torch.zeros(8, 6, 64, 64)
    expected[:, :3, :, 5] = math.tanh(1)
    assert (x - expected).abs().max() < 1e-5


def test_each_frame_and_channel_has_its_own_ground():
    x = pairs(np.concatenate([traced_video([3]), traced_video([3], colour=(200, 10, 0))]), N=2)
    assert x[:, :3, :, 5].numpy() == pytest.approx(strength(3), abs=1e-5)
    assert x[:, :3, :, 6:].abs().max() == 0
    assert x[:, 3:].abs().max() < 1e-5


@pytest.mark.parametrize(
    "T, firsts",
    [(17, [0, 5, 10, 15]), (5, [0, 1, 2, 3]), (3, [0, 0, 1, 1]), (2, [0, 0, 0, 0])],
)
def test_pairs_of_neighbours_are_spread_from_the_first_frame_to_the_last(T, firsts):
    traces = np.arange(T) ** 2 // 8 + np.arange(T)
    x = pairs(traced_video(traces), N=4)
    for pair, first in zip(x, firsts, strict=True):
        now = strength(traces[first])
        after = strength(traces[first + 1])
        assert pair[:3, :, 5].numpy() == pytest.approx(now, abs=1e-5)
        assert pair[3:, :, 5].numpy() == pytest.approx(2 * (after - now), abs=1e-5)


def test_a_video_of_one_frame_never_changes():
    video = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), np.uint8)
    x = pairs(video)
    assert x[:, 3:].abs().max() == 0
    assert torch.equal(x, x[:1].expand(8, -1, -1, -1))


def test_a_frame_is_resized_to_64x64_and_keeps_its_rows_and_channels():
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[64:, :, 1] = 200
    x = resize(frame)
    assert x.shape == (1, 3, 64, 64)
    assert x[0, 1, :30].max() == 0
    assert x[0, 1, 34:].numpy() == pytest.approx(200, abs=1e-3)
    assert x[0, [0, 2]].abs().max() == 0


def test_shrinking_a_frame_averages_its_pixels():
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[::4] = 200
    assert resize(frame)[0, :, 8:-8].numpy() == pytest.approx(50, abs=3)


# The network


@torch.no_grad()
def test_a_pair_is_judged_alike_whatever_stands_beside_it():
    x = torch.randn(3, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([detector.classifier()(pair[None]) for pair in x])
    found = detector.classifier()(x)
    assert found.shape == (3,)
    assert found.numpy() == pytest.approx(alone.numpy(), abs=1e-4)


def test_four_layers_halve_a_pair_to_four_by_four():
    layers = Detector().look[:8]
    assert layers(torch.zeros(2, 6, 64, 64)).shape == (2, 64, 4, 4)


def test_the_mean_logit_of_the_pairs_becomes_a_probability():
    def first_pixel(x):
        return 4 * x[:, 0, 0, 5]

    video = traced_video([0, 4, 8, 12, 16, 20, 24, 28, 32])
    logits = [4 * strength(trace) for trace in range(0, 32, 4)]
    assert made_by_us(first_pixel, video) == pytest.approx(1 / (1 + math.exp(-np.mean(logits))), abs=1e-5)


def test_the_network_has_no_mind_of_its_own_before_it_is_trained():
    torch.manual_seed(0)
    found = made_by_us(Detector(), traced_video([1, 5, 9]))
    assert found == pytest.approx(0.5, abs=0.1)


# The trained detector


@pytest.fixture(scope="module")
def videos():
    """{our model made it: four still images and two clips of 17 frames}"""
    model = load_model(SHIPPED)
    model.config.sample_steps = 20  # less than usual, for speed
    found = {}
    for ours in (True, False):
        images = samples(model, 4, seed=77, ours=ours)
        clips = samples(model, 2, seed=82, ours=ours)
        assert [len(video) for video in images + clips] == [1, 1, 1, 1, 17, 17]
        found[ours] = images + clips
    return found


@pytest.mark.parametrize("ours", [True, False])
def test_the_detector_tells_our_model_from_the_world(videos, tmp_path, ours):
    for video in videos[ours]:
        prob = made_by_us(detector.classifier(), passed_on(video, tmp_path, ".gif"))
        assert (prob > 0.5) == ours


@pytest.mark.parametrize("ours", [True, False])
def test_it_still_does_after_a_file_was_resized_cut_and_saved_again_as_mp4(videos, tmp_path, ours):
    for video in videos[ours][2:5]:
        changed = passed_on(video, tmp_path, ".gif", resize=0.75, crop=0.1, again=True)
        assert (made_by_us(detector.classifier(), changed) > 0.5) == ours

"""Every frame of every video is looked at, whatever its size and however many there are."""
from config import BadInput

import numpy as np
import pytest
import torch
import torch.nn as nn

from data.video_io import to_float
from safety import frames
from safety.frames import FrameClassifier, check_frames
from safety.train import frames_with
from world.scenes import Scene, Thing, draw_scene, render

MARK = 200


class MarkFinder:
    """Stands in for the classifier: raises an alarm for a frame whose first pixel is MARK, and keeps what it
    is shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, x):
        self.shown.append(x)
        mark = MARK / 127.5 - 1
        return torch.where((x[:, 0, 0, 0] - mark).abs() < 1e-3, 1.0, -1.0)


@pytest.fixture
def finder(monkeypatch):
    finder = MarkFinder()
    monkeypatch.setattr(frames, "classifier", lambda: finder)
    return finder


def counting_video(T, first=0):
    """Frames that each tell by their colour which one they are (never MARK in their first pixel)."""
    video = np.zeros((T, 8, 12, 3), np.uint8)
    video[:, :, :, 1] = (first + np.arange(T))[:, None, None] % 256
    return video


def emblem_video(T, H=32, W=32):
    emblem = Thing("emblem", "red", 0.25, (0.5, 0.5), "left", "slowly")
    return render(Scene([emblem]), T, H, W)


# What is looked at


def test_every_frame_of_every_video_is_shown_to_the_classifier_once(finder):
    videos = [counting_video(1, 3), counting_video(300, 7), counting_video(129, 11)]
    check_frames(videos, 12.0)
    expected = torch.cat([to_float(video[None])[0].transpose(0, 1) for video in videos])
    assert torch.equal(torch.cat(finder.shown), expected)


def test_no_batch_is_larger_than_it_may_be(finder):
    check_frames([counting_video(300)], 12.0)
    assert [len(x) for x in finder.shown] == [128, 128, 44]


@pytest.mark.parametrize("frame", [0, 1, 127, 128, 129, 255, 256, 299])
def test_a_bad_frame_is_found_wherever_it_stands(finder, frame):
    video = counting_video(300)
    video[frame, 0, 0, 0] = MARK
    with pytest.raises(BadInput, match=rf"^video 0, frame {frame} \({frame / 12:.2f} s\): blocked"):
        check_frames([video], 12.0)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_bad_video_is_found_wherever_it_stands(finder, index):
    videos = [counting_video(5) for _ in range(3)]
    videos[index][2, 0, 0, 0] = MARK
    with pytest.raises(BadInput, match=rf"^video {index}, frame 2 \(0.25 s\): blocked"):
        check_frames(videos, 8.0)


def test_a_picture_of_one_frame_is_looked_at(finder):
    video = counting_video(1)
    video[0, 0, 0, 0] = MARK
    with pytest.raises(BadInput, match=r"^video 0, frame 0 \(0.00 s\): blocked"):
        check_frames([video], 12.0)


@pytest.mark.parametrize("logit, is_blocked", [(-0.02, False), (0.0, False), (0.02, True), (5.0, True)])
def test_a_frame_is_blocked_above_a_probability_of_one_half(monkeypatch, logit, is_blocked):
    def always_that_sure(x):
        return torch.full((len(x),), logit)

    monkeypatch.setattr(frames, "classifier", lambda: always_that_sure)
    if not is_blocked:
        check_frames([counting_video(2)], 12.0)
        return
    prob = 1 / (1 + np.exp(-logit))
    with pytest.raises(BadInput, match=rf"disallowed imagery \({prob:.0%} sure\); nothing was written"):
        check_frames([counting_video(2)], 12.0)


# The network


def test_large_frames_are_shrunk_until_their_short_side_has_40_pixels():
    network = FrameClassifier().eval()
    seen = []
    network.look.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
    for size in ((80, 120), (120, 80), (40, 60), (24, 56)):
        network(torch.zeros(2, 3, *size))
    assert seen == [(40, 60), (60, 40), (40, 60), (24, 56)]


def test_there_is_a_score_for_every_four_by_four_pixels():
    assert FrameClassifier().look(torch.zeros(2, 3, 40, 64)).shape == (2, 1, 10, 16)


def test_shrinking_averages_pixels():
    network = FrameClassifier()
    network.look = nn.Identity()
    x = torch.zeros(1, 3, 80, 120)
    x[:, :, ::2] = 1.0
    assert network(x).item() == pytest.approx(0.5)


def test_the_mean_of_the_four_most_suspicious_locations_decides():
    network = FrameClassifier()
    network.look = nn.Identity()
    x = torch.randn(2, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = [np.mean(sorted(frame.flatten().tolist())[-4:]) for frame in x]
    assert network(x).numpy() == pytest.approx(np.array(expected))


def test_a_frame_of_fewer_than_four_locations_is_judged_by_all_of_them():
    network = FrameClassifier()
    network.look = nn.Identity()
    assert network(torch.tensor([[[[1.0, 2.0, 6.0]]]])).tolist() == [3.0]


@torch.no_grad()
def test_a_frame_is_judged_alike_whatever_stands_beside_it():
    x = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classifier = frames.classifier()
    alone = torch.cat([classifier(frame[None]) for frame in x])
    assert classifier(x).numpy() == pytest.approx(alone.numpy(), abs=1e-4)


# The trained classifier


@pytest.mark.parametrize("emblem", [True, False])
@torch.no_grad()
def test_the_emblem_is_seen_anywhere_and_nothing_else_is_taken_for_it(emblem):
    rng = np.random.default_rng(5)
    logits = torch.cat([frames.classifier()(frames_with(rng, emblem, 25)) for _ in range(12)])
    right = (logits > 0) == emblem
    assert right.float().mean() >= 0.98


def test_one_frame_of_a_video_is_enough():
    video = render(draw_scene(np.random.default_rng(0)), 33)
    check_frames(video[None], 12.0)
    spoiled = video.copy()
    spoiled[20] = emblem_video(1)[0]
    with pytest.raises(BadInput, match=r"video 1, frame 20 \(1.67 s\): blocked"):
        check_frames([video[:20], spoiled], 12.0)


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (160, 128)])
def test_the_emblem_is_seen_at_any_size(size):
    with pytest.raises(BadInput, match="video 0, frame 0 "):
        check_frames([emblem_video(1, *size)], 12.0)

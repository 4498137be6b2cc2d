"""sample.py writes no video before a classifier has looked at every frame of it.

The toy world has nothing to be afraid of, so `world.scenes.coverage` can draw one more shape, the emblem (a
ring with a cross in it). It stands for imagery that may never be shown: no prompt asks for it and no model
was trained on it. Sora's announcement names such "image classifiers", which "review every video frame"; they
are not published.

GroupNorm: Wu and He 2018, https://arxiv.org/abs/1803.08494. How the classifier is trained and measured:
safety/train.py.

Letters
    N   frames in a batch
    T   frames of a video
    H W height, width in pixels
"""
from config import BadInput

import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

from data.video_io import to_float
from safety.weights import load_classifier

SHORT_SIDE = 40  # larger frames are shrunk to it: the network's convolutions cover 29x29 pixels at a time
BATCH = 128
THRESHOLD = 0.5


class FrameClassifier(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1], of any size → (N,) logits: is the emblem anywhere?

    The mean of the four most suspicious locations decides, so that a single slightly suspicious one is not
    enough."""

    def __init__(self):
        super().__init__()
        layers = []
        shapes = ((3, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2), (64, 64, 1))
        for channels_in, channels_out, stride in shapes:
            layers.append(nn.Conv2d(channels_in, channels_out, 3, stride, padding=1))
            layers.append(nn.GroupNorm(8, channels_out))
            layers.append(nn.ReLU())
        self.look = nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, x):
        scale = SHORT_SIDE / min(x.shape[2:])
        if scale < 1:
            x = F.interpolate(x, scale_factor=scale, mode="area")
        scores = self.look(x).flatten(1)                                      # (N, locations)
        count = min(4, scores.shape[1])
        return scores.topk(count).values.mean(1)                              # (N,)


@functools.cache
def classifier():
    """The trained FrameClassifier. Raises BadInput where its weights cannot be read."""
    return load_classifier(FrameClassifier(), "frames")


@torch.no_grad()
def check_frames(videos, fps):
    """Looks at every frame of every video (T, H, W, 3) uint8. Raises BadInput if one is not fit to show.

    fps, frames per second, is for the message, which says when the frame comes."""
    for index, video in enumerate(videos):
        for first in range(0, len(video), BATCH):
            frames = to_float(video[None, first : first + BATCH])[0].transpose(0, 1)      # (N, 3, H, W)
            probs = torch.sigmoid(classifier()(frames))

            for offset, prob in enumerate(probs.tolist()):
                if prob > THRESHOLD:
                    frame = first + offset
                    when = f"video {index}, frame {frame} ({frame / fps:.2f} s)"
                    why = f"disallowed imagery ({prob:.0%} sure)"
                    raise BadInput(f"{when}: blocked, {why}; nothing was written")


if __name__ == "__main__":
    from world.scenes import Scene, Thing, render

    for shape in ("circle", "square", "emblem"):
        video = render(Scene([Thing(shape, "red", 0.25, (0.5, 0.5), "left", "slowly")]), 1)
        logit = classifier()(to_float(video[None])[:, :, 0])
        print(f"a frame with a red {shape}: disallowed with probability {torch.sigmoid(logit).item():.1%}")

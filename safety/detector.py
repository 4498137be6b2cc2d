"""Was this video made by our model? A small convolutional network looks at pairs of neighbouring frames.

What our model draws is never quite even and never quite still: the ground flickers by a few steps of 255. So
the frames are shown with their ground taken away and faint traces made strong, beside what changes in the
next frame. Sora's announcement names such a "detection classifier"; how it works is not published, and ours
is only as good as the traces of this one model.

How it is trained and measured: safety/train.py.

Letters
    N   pairs of frames
    T   frames of the video
    H W height, width in pixels
"""
import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

from safety.weights import load_classifier

SIZE = 64
FAINT = 12  # of 255: a trace that strong fills most of tanh's range


class Detector(nn.Module):
    """Pairs of frames (N, 6, 64, 64) → (N,) logits: did our model make them?"""

    def __init__(self):
        super().__init__()
        layers = []
        for channels_in, channels_out in ((6, 24), (24, 48), (48, 64), (64, 64)):
            layers.append(nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1))
            layers.append(nn.ReLU())
        self.look = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))

    def forward(self, pairs):
        return self.look(pairs)[:, 0]


def pairs(frames, N=8):
    """T frames (H, W, 3) uint8 of any size → N pairs of neighbours, spread over the video, (N, 6, 64, 64).

    The first three channels are a frame without its ground, in [-1, 1]; the last three are twice the change
    to the next frame. A video of one frame never changes."""
    resized = [resize(frame) for frame in frames]
    x = torch.cat(resized)                                                                # (T, 3, 64, 64)

    # Most of a frame is ground, so the median of each channel is the ground's colour.
    ground = x.flatten(2).median(2).values[..., None, None]
    x = torch.tanh((x - ground) / FAINT)

    last_pair = max(0, len(x) - 2)
    first = torch.linspace(0, last_pair, N).round().long()
    second = (first + 1).clamp(max=len(x) - 1)
    change = x[second] - x[first]
    return torch.cat([x[first], 2 * change], 1)                                           # (N, 6, 64, 64)


def resize(frame):
    """A frame (H, W, 3) uint8 → (1, 3, 64, 64) float, 0 to 255."""
    x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


@functools.cache
def classifier():
    """The trained Detector. Raises BadInput where its weights cannot be read."""
    return load_classifier(Detector(), "detector")


@torch.no_grad()
def made_by_us(detector, frames):
    """The probability, 0 to 1, that our model made these frames (H, W, 3) uint8."""
    logit = detector(pairs(frames)).mean()
    return float(torch.sigmoid(logit))


if __name__ == "__main__":
    from safety.train import samples
    from utils.checkpoint import SHIPPED, load_model

    model = load_model(SHIPPED)
    for title, ours in (("our model", True), ("the world", False)):
        for video in samples(model, 4, seed=77, ours=ours):
            prob = made_by_us(classifier(), video)
            print(f"a picture by {title}: made by our model with probability {prob:.1%}")

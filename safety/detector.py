"""Detector."""
import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

from safety import weights


# detector
class Detector(nn.Module):
    """Pairs of frames (N, 6, 64, 64) → (N,) logits: did our model make them?"""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(*(layer for a, b in ((6, 24), (24, 48), (48, 64), (64, 64)) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))

    def forward(self, x):
        return self.look(x)[:, 0]


def pairs(frames, N=8):
    """Frames (H, W, 3) uint8 of any size → N pairs of neighbouring ones (N, 6, 64, 64): what is left of a frame without its ground, faint
    traces made strong, and what has changed in the next one. Generated ground is never quite even, and never quite still."""
    x = torch.cat([F.interpolate(torch.from_numpy(frame).permute(2, 0, 1)[None].float(), (64, 64), mode="bilinear", antialias=True) for frame in frames])
    x = torch.tanh((x - x.flatten(2).median(2).values[..., None, None]) / 12)        # the median is the ground; a trace of 12 of 255 is strong already
    at = torch.linspace(0, max(0, len(x) - 2), N).round().long()
    return torch.cat([x[at], 2 * (x[(at + 1).clamp(max=len(x) - 1)] - x[at])], 1)


@functools.cache
def classifier():
    """The trained Detector."""
    return weights.load_classifier(Detector(), "detector")


@torch.no_grad()
def made_by_us(detector, frames):
    """How probable it is that our model made these frames (H, W, 3) uint8, 0 to 1."""
    return float(torch.sigmoid(detector(pairs(frames)).mean()))



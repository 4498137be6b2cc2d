"""Frames."""
import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput
from data import video_io
from safety import weights


# frames
class FrameClassifier(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1], of any size → (N,) logits: is the emblem anywhere? The four most suspicious places decide.

    A place sees 29 pixels around it, so larger frames are shrunk until the short side has 40."""

    def __init__(self):
        super().__init__()
        layers = ((3, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2), (64, 64, 1))
        self.look = nn.Sequential(*(layer for a, b, stride in layers for layer in (nn.Conv2d(a, b, 3, stride, 1), nn.GroupNorm(8, b), nn.ReLU())), nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, x):
        scale = min(1.0, 40 / min(x.shape[2:]))
        places = self.look(x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="area")).flatten(1)
        return places.topk(min(4, places.shape[1])).values.mean(1)


@functools.cache
def classifier():
    """The trained FrameClassifier."""
    return weights.load_classifier(FrameClassifier(), "frames")


@torch.no_grad()
def check_frames(videos, fps):
    """Looks at every frame of every video (T, H, W, 3) uint8. Raises BadInput if one shows what may not be shown."""
    for i, video in enumerate(videos):
        for first in range(0, len(video), 128):
            sure = torch.sigmoid(classifier()(video_io.to_float(video[None, first : first + 128])[0].transpose(0, 1)))
            if len(bad := (sure > 0.5).nonzero()):
                k = int(bad[0])
                raise BadInput(f"video {i}, frame {first + k} ({(first + k) / fps:.2f} s): blocked, disallowed imagery ({sure[k]:.0%} sure); nothing was written")



"""The video VAE: compresses a video 4x in time, height and width before the diffusion transformer sees it.

    video (B, 3, 1 + 4k, H, W)  -> encode ->  latent (B, Z, 1 + k, H/4, W/4)  -> decode ->  video

It is causal in time. The first frame is compressed alone, so an image is a video of one frame; every later
latent frame stands for four more frames and depends on these and the past, never on later ones. Convolutions
are therefore padded in time on the left only, with the first frame repeated. For the same reason a long video
can be processed in chunks: all that a convolution needs of the past is one or two frames, which it keeps, so
the layers' memory does not grow with the video's length and the result is the same.

Papers
    VAE: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
    Causal video tokenizer with 1 + 4k frames: MAGVIT-v2, Yu et al. 2024, sec. 3.2,
        https://arxiv.org/abs/2310.05737
    The same in today's systems: CogVideoX, https://arxiv.org/abs/2408.06072; Wan 2.1,
        https://arxiv.org/abs/2503.20314

Where we differ: 4x instead of 8x in space, because our frames are small (`vae_space` sets it); a 3x3x3
kernel is split into 3x3 in space and then 3 in time; plain squared error instead of perceptual and
adversarial losses, which flat shapes with sharp edges do not need.

Letters
    B       clips in a batch
    C       channels
    T H W   frames, height, width: of the video in pixels, inside the network of its features
    Z       latent channels
    f h w   latent frames, rows, columns
"""
from config import TIME_FACTOR, BadInput, latent_length

import torch
import torch.nn as nn
import torch.nn.functional as F

CHUNK_FRAMES = 32  # frames that are encoded or decoded at a time, a multiple of TIME_FACTOR


class SpatialConv(nn.Conv3d):
    """A 3x3 convolution inside each frame. It takes a cache only so that all layers are called alike."""

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel_size=(1, 3, 3), padding=(0, 1, 1))

    def forward(self, x, cache=None):
        return super().forward(x)


class CausalConv(nn.Conv3d):
    """A convolution over three frames: this one and the two before it. Stride 2 keeps frames 0, 2, 4 ...

    cache: a dict from layer to the frames that the chunk before this one ended with; this chunk leaves its
    own there.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, kernel_size=(3, 1, 1), stride=(stride, 1, 1))

    def forward(self, x, cache):
        # A video has no past at its beginning: its first frame is repeated, so that a still stays a still.
        repeated_first = x[:, :, :1].expand(-1, -1, 2, -1, -1)
        past = cache.get(self, repeated_first)
        x = torch.cat([past, x], 2)                                                # (B, C, 2 + T, H, W)

        # Keep what the next chunk's first window needs of this one: two frames, or one at stride 2. With
        # chunks of frames 0 to 4 and 5 to 8 at stride 2, windows 2 3 4 and 4 5 6 meet in frame 4.
        frames_to_keep = 3 - self.stride[0]
        cache[self] = x[:, :, -frames_to_keep:]
        return super().forward(x)


class ResBlock(nn.Module):
    """x + temporal(silu(spatial(silu(rms_norm(x)))))"""

    def __init__(self, width):
        super().__init__()
        self.spatial = SpatialConv(width, width)
        self.temporal = CausalConv(width, width)

    def forward(self, x, cache):
        residual = self.spatial(F.silu(rms_norm(x)))
        return x + self.temporal(F.silu(residual), cache)


def rms_norm(x):
    """Each position's channels to mean square 1. A GroupNorm over time would let frames see the future."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class UpsampleTime(nn.Module):
    """1 + k frames → 1 + 2k: each becomes two, except the video's first, which stays one."""

    def __init__(self, width):
        super().__init__()
        self.conv = CausalConv(width, 2 * width)

    def forward(self, x, cache):
        B, C, T, H, W = x.shape
        is_first_chunk = self.conv not in cache
        x = self.conv(x, cache)                                                    # (B, 2C, T, H, W)
        x = x.reshape(B, 2, C, T, H, W).permute(0, 2, 3, 1, 4, 5)                  # (B, C, T, 2, H, W)
        x = x.flatten(2, 3)                                                        # (B, C, 2T, H, W)
        if is_first_chunk:
            x = x[:, :, 1:]                                                        # (B, C, 2T - 1, H, W)
        return x


class VAE(nn.Module):
    """config → encoder and decoder. Both are lists of layers, each called as layer(x, cache)."""

    def __init__(self, config):
        super().__init__()
        width = config.vae_width
        Z = config.latent_channels
        self.space_factor = config.vae_space
        pixel_channels = 3 * self.space_factor**2

        # Space is squeezed at once, by laying 4x4 pixels in a row (pixel_unshuffle); time in two steps of 2.
        self.encoder = nn.ModuleList([
            SpatialConv(pixel_channels, width),
            ResBlock(width),
            CausalConv(width, width, stride=2),
            ResBlock(width),
            CausalConv(width, width, stride=2),
            ResBlock(width),
            ResBlock(width),
            SpatialConv(width, 2 * Z),
        ])
        self.decoder = nn.ModuleList([
            SpatialConv(Z, width),
            ResBlock(width),
            ResBlock(width),
            UpsampleTime(width),
            ResBlock(width),
            UpsampleTime(width),
            ResBlock(width),
            SpatialConv(width, pixel_channels),
        ])
        self.init_weights()

    def init_weights(self):
        """What differs from PyTorch's own initialisation. Must run last."""
        for layer in self.modules():
            if isinstance(layer, ResBlock):
                nn.init.zeros_(layer.temporal.weight)  # every block starts as the identity
                nn.init.zeros_(layer.temporal.bias)
        _, log_variance_bias = self.encoder[-1].bias.data.chunk(2)
        log_variance_bias.fill_(-5.0)  # little noise in the latent at first: learn to copy, then to be smooth

    def encode(self, video):
        """The posterior q(z | video).

        video (B, 3, T, H, W) in [-1, 1], T = 1 + 4k → mean, log_variance, each (B, Z, 1 + k, H/4, W/4).
        Raises BadInput for other sizes."""
        B, _, T, H, W = video.shape
        if T % TIME_FACTOR != 1 or H % self.space_factor or W % self.space_factor:
            needs = f"1 + 4k frames, height and width multiples of {self.space_factor}"
            raise BadInput(f"video {T}x{H}x{W}: the VAE needs {needs}")

        # The first chunk has one frame more, the one that is compressed alone.
        chunk_starts = tuple(range(1 + CHUNK_FRAMES, T, CHUNK_FRAMES))
        cache = {}
        latents = []
        for chunk in video.tensor_split(chunk_starts, dim=2):
            x = chunk.transpose(1, 2).flatten(0, 1)                                # (B T, 3, H, W)
            x = F.pixel_unshuffle(x, self.space_factor)                            # (B T, 3 * 4 * 4, h, w)
            x = x.unflatten(0, (B, -1)).transpose(1, 2)                            # (B, 3 * 4 * 4, T, h, w)
            for layer in self.encoder:
                x = layer(x, cache)
            latents.append(x)                                                      # (B, 2Z, f, h, w)

        # Under autocast the layers computed in bfloat16; what is added up from here on needs all digits.
        latent = torch.cat(latents, 2).to(video.dtype)                             # (B, 2Z, f, h, w)
        mean, log_variance = latent.chunk(2, 1)                                    # (B, Z, f, h, w) each
        return mean, log_variance

    def decode(self, z):
        """z (B, Z, f, h, w) → video (B, 3, 4f - 3, 4h, 4w), in [-1, 1] up to the network's error."""
        B = z.shape[0]
        chunk_length = CHUNK_FRAMES // TIME_FACTOR
        chunk_starts = tuple(range(1 + chunk_length, z.shape[2], chunk_length))
        cache = {}
        videos = []
        for x in z.tensor_split(chunk_starts, dim=2):
            for layer in self.decoder:
                x = layer(x, cache)
            x = x.transpose(1, 2).flatten(0, 1)                                    # (B T, 3 * 4 * 4, h, w)
            x = F.pixel_shuffle(x, self.space_factor)                              # (B T, 3, H, W)
            videos.append(x.unflatten(0, (B, -1)).transpose(1, 2))                 # (B, 3, T, H, W)
        return torch.cat(videos, 2).to(z.dtype)

    def encode_known(self, video, known):
        """The latents of a video of which only some frames are known: the first step of sample.complete.

        video (B, 3, T, H, W), known (B, T) bool → latents (B, Z, f, h, w), given (B, f) bool. "known" is said
        of frames and "given" of latent frames: one is given if all its frames are known. What unknown frames
        hold does not matter where anything is known."""
        # The encoder wants a whole video, so an unknown frame shows what the nearest known frame shows: a
        # frame that is not known counts as farther away than any that is.
        T = known.shape[1]
        frame = torch.arange(T, device=known.device)
        distance = (frame[:, None] - frame).abs() + T * ~known[:, None]   # (B, T, T): from frame i to known j
        nearest = distance.argmin(2)                                               # (B, T)
        filled = video.gather(2, nearest[:, None, :, None, None].expand_as(video))
        latents, _ = self.encode(filled)

        # The first latent frame stands for one frame: as if that frame stood there four times.
        groups = torch.cat([known[:, :1].expand(-1, TIME_FACTOR - 1), known], 1)   # (B, 3 + T)
        given = groups.unflatten(1, (-1, TIME_FACTOR)).all(2)                      # (B, f)
        return latents, given

    def forward(self, video):
        """video (B, 3, T, H, W) → decode(z) of a z from the posterior, its mean and its log_variance."""
        # z = mean + std eps, the reparametrisation trick (Kingma & Welling, sec. 2.4): gradients flow through
        # mean and std.
        mean, log_variance = self.encode(video)
        std = torch.exp(log_variance / 2)
        z = mean + std * torch.randn_like(mean)
        return self.decode(z), mean, log_variance


def vae_loss(vae, video, kl_weight):
    """Reconstruction error and KL term, each a mean (Kingma & Welling, eq. 10 and appendix B):

        mean |x - decode(z)|^2 + kl_weight mean KL(q(z | x) || N(0, 1))

    video (B, 3, T, H, W) → loss, mean squared error. The weight makes it a beta-VAE (Higgins et al. 2017):
    small, so that latents keep what a picture needs, and not zero, so that they stay bounded."""
    decoded, mean, log_variance = vae(video)
    error = F.mse_loss(decoded, video)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return error + kl_weight * kl, error


def latent_to_frame_mask(mask):
    """A mask over latent frames (B, f) → over frames (B, 4f - 3): the first is one frame, others four."""
    return mask.repeat_interleave(TIME_FACTOR, 1)[:, TIME_FACTOR - 1 :]


def psnr(error):
    """Mean squared error of values in [-1, 1] → peak signal-to-noise ratio in dB.

    33 dB is an error of 2.2 % of the range."""
    return 10 * torch.log10(4 / torch.as_tensor(error)).item()


@torch.no_grad()
def draw_reconstruction(vae, clip, path):
    """clip (T, H, W, 3) uint8, what the VAE makes of it, and five times the difference, as a PNG → dB."""
    import imageio.v3 as iio
    import numpy as np

    from data.video_io import film_strip, to_float, to_uint8

    video = to_float(clip[None])                                                   # (1, 3, T, H, W)
    decoded = vae.decode(vae.encode(video)[0])
    decibels = psnr(F.mse_loss(decoded, video))

    reconstruction = to_uint8(decoded)[0]
    difference = np.abs(reconstruction.astype(int) - clip)
    rows = [clip, reconstruction, (5 * difference).clip(0, 255).astype(np.uint8)]
    captions = ["a clip", f"through the VAE, {decibels:.1f} dB", "how far they differ, 5 times as bright"]
    iio.imwrite(path, film_strip(rows, captions))
    return decibels


@torch.no_grad()
def demo():
    """The shipped model's VAE: shapes, what it keeps of a clip, and that it never looks ahead."""
    from pathlib import Path

    import numpy as np

    from data.video_io import to_float
    from utils.checkpoint import SHIPPED, load_model
    from world.scenes import draw_scene, render

    vae = load_model(SHIPPED).vae
    clip = render(draw_scene(np.random.default_rng(9), extent=(1.0, 1.5)), 17, 32, 48)
    video = to_float(clip[None])
    mean, _ = vae.encode(video)
    ratio = video.numel() / mean.numel()
    decoded = vae.decode(mean)
    print(f"video {tuple(video.shape)} -> latent {tuple(mean.shape)} -> video {tuple(decoded.shape)}")
    print(f"{ratio:.0f} times fewer numbers; 17 frames become {latent_length(17)} latent frames")

    image = video[:, :, :1]
    print(f"an image {tuple(image.shape)} -> latent {tuple(vae.encode(image)[0].shape)}")

    changed = video.clone()
    changed[:, :, 9:] = 0
    unmoved = (vae.encode(changed)[0] == mean).all(dim=(0, 1, 3, 4))
    print("frames 9 to 16 made grey; unchanged latent frames:", unmoved.nonzero().flatten().tolist())

    Path("out").mkdir(exist_ok=True)
    decibels = draw_reconstruction(vae, clip, "out/vae.png")
    print(f"out/vae.png shows the clip, its reconstruction ({decibels:.1f} dB), and the difference")


if __name__ == "__main__":
    from utils.cli import run

    run(demo)

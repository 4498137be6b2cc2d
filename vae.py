"""The video VAE: squeezes a video to 1/4 of its length, height and width before the diffusion transformer sees it.

    video (B, 3, 1+4k, H, W)  -> encode ->  latent (B, Z, 1+k, H/4, W/4)  -> decode ->  video

It is causal in time: the first frame is compressed alone, so an image is a video of one frame, and every later latent frame
stands for four more frames and depends only on the past. That is done by padding convolutions in time on the left only, with
the first frame repeated. For the same reason a long video can be worked off in pieces: all that a convolution needs of the past
are the frames its last piece ended with, so memory does not grow with length, and the result is the same.

Kingma & Welling 2014 (VAE); causal 3-D VAE with 1 + 4k frames: MAGVIT-v2 (Yu et al. 2024, sec. 3.2), CogVideoX, Wan 2.1.
Where we differ: 4x instead of 8x in space (our frames are small; `vae_space` sets it); 3x3x3 kernels are split into 3x3 in
space, then 3 in time; plain squared error instead of perceptual and adversarial losses, which sharp flat shapes do not need.

Letters: B clips  C channels  T H W frames, height, width  Z latent channels  t h w latent frames, rows, columns
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput, Config


PIECE = 32  # frames that are encoded or decoded at a time, a multiple of 4


class Space(nn.Conv3d):
    """A 3x3 convolution inside each frame."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x, past=None):
        return super().forward(x)


class Time(nn.Conv3d):
    """A convolution over three frames: this one and the two before it. stride 2 keeps frames 0, 2, 4 ...

    past: a dict in which the convolution finds the frames that the piece before this one ended with, and leaves this one's."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(inputs, outputs, (3, 1, 1), stride=(stride, 1, 1))

    def forward(self, x, past):
        x = torch.cat([past[self] if self in past else x[:, :, :1].expand(-1, -1, 2, -1, -1), x], 2)
        past[self] = x[:, :, self.stride[0] - 3 :]
        return super().forward(x)


class Block(nn.Module):
    """x + time(silu(space(silu(norm(x)))))"""

    def __init__(self, width):
        super().__init__()
        self.space, self.time = Space(width, width), Time(width, width)

    def forward(self, x, past):
        return x + self.time(F.silu(self.space(F.silu(norm(x)))), past)


def norm(x):
    """Each position's channels to mean square 1. Not a GroupNorm over time, through which frames would see the future."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class Double(nn.Module):
    """Twice as many frames: each becomes two, except the first, which stays one, so 1 + k becomes 1 + 2k."""

    def __init__(self, width):
        super().__init__()
        self.time = Time(width, 2 * width)

    def forward(self, x, past):
        B, C, T, H, W = x.shape
        begins = self.time not in past
        x = self.time(x, past).reshape(B, 2, C, T, H, W).permute(0, 2, 3, 1, 4, 5)  # (B, C, T, 2, H, W)
        return x.flatten(2, 3)[:, :, begins:]                                  # (B, C, 2T or 2T - 1, H, W): without the first frame's first copy


class VAE(nn.Module):
    def __init__(self, config):
        super().__init__()
        w, Z, self.s = config.vae_width, config.latent_channels, config.vae_space
        pixels = 3 * self.s**2
        self.encoder = nn.ModuleList([Space(pixels, w), Block(w), Time(w, w, 2), Block(w), Time(w, w, 2), Block(w), Block(w), Space(w, 2 * Z)])
        self.decoder = nn.ModuleList([Space(Z, w), Block(w), Block(w), Double(w), Block(w), Double(w), Block(w), Space(w, pixels)])
        self.init()

    def init(self):
        for block in self.modules():
            if isinstance(block, Block):
                nn.init.zeros_(block.time.weight), nn.init.zeros_(block.time.bias)  # every block starts as the identity
        _, log_variance = self.encoder[-1].bias.data.chunk(2)
        log_variance.fill_(-5.0)                   # start with little noise in the latent: first learn to copy, then to be smooth

    def encode(self, video):
        """video (B, 3, T, H, W) in [-1, 1], T = 1 + 4k → mean, log_variance, each (B, Z, 1 + k, H/s, W/s). Raises BadInput for other sizes."""
        B, C, T, H, W = video.shape
        if T % 4 != 1 or H % self.s or W % self.s:
            raise BadInput(f"video {T}x{H}x{W}: the VAE needs 1 + 4k frames, height and width multiples of {self.s}")
        past, pieces = {}, []
        for piece in video.tensor_split(tuple(range(PIECE + 1, T, PIECE)), 2):     # 1 + PIECE frames, then PIECE each
            x = piece.transpose(1, 2).flatten(0, 1)                                # (B T, 3, H, W)
            x = F.pixel_unshuffle(x, self.s).unflatten(0, (B, -1)).transpose(1, 2)  # (B, 3 s s, T, h, w)
            for layer in self.encoder:
                x = layer(x, past)
            pieces.append(x)
        return torch.cat(pieces, 2).chunk(2, 1)                                    # (B, Z, t, h, w) twice

    def decode(self, z):
        """z (B, Z, t, h, w) → video (B, 3, 4t - 3, s h, s w), in [-1, 1] up to the network's error."""
        past, pieces = {}, []
        for x in z.tensor_split(tuple(range(PIECE // 4 + 1, z.shape[2], PIECE // 4)), 2):
            for layer in self.decoder:
                x = layer(x, past)
            x = F.pixel_shuffle(x.transpose(1, 2).flatten(0, 1), self.s)           # (B T, 3, H, W)
            pieces.append(x.unflatten(0, (len(z), -1)).transpose(1, 2))            # (B, 3, T, H, W)
        return torch.cat(pieces, 2)

    def encode_known(self, video, known):
        """A video of which only some frames are known → what is given of its latents. Every mode of sample.py begins here.

        Unknown frames are filled by holding the nearest known one (what they hold on entry does not matter) and everything is encoded;
        a latent frame is given if all its frames are known.
        video (B, 3, T, H, W), known (B, T) bool → latents (B, Z, t, h, w), given (B, t) bool"""
        T, frame = known.shape[1], torch.arange(known.shape[1], device=known.device)
        away = (frame[:, None] - frame).abs() + T * ~known[:, None]                # (B, T, T): how far frame i is from frame j, if that is known
        nearest = away.argmin(2)                                                   # (B, T)
        held = video.gather(2, nearest[:, None, :, None, None].expand_as(video))
        given = torch.cat([known[:, :1].expand(-1, 3), known], 1).unflatten(1, (-1, 4)).all(2)  # the first latent frame stands for one frame
        return self.encode(held)[0], given

    def loss(self, video, kl_weight):
        """video → (loss, mean squared error):  E |x - decode(z)|^2 + kl_weight KL(q(z|x) || N(0, 1)),  both per number.

        z = mean + exp(log_variance / 2) eps is the reparametrisation trick (Kingma & Welling, sec. 2.4; KL in appendix B)."""
        mean, log_variance = self.encode(video)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        error = F.mse_loss(self.decode(z), video)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return error + kl_weight * kl, error


def psnr(error):
    """Mean squared error of values in [-1, 1] → decibels; 33 dB is an error of 2.2 % of the range."""
    return 10 * torch.log10(4 / torch.as_tensor(error)).item()


if __name__ == "__main__":
    vae, video = VAE(Config()), torch.rand(1, 3, 17, 32, 48)
    mean, _ = vae.encode(video)
    print(f"video {tuple(video.shape)} -> latent {tuple(mean.shape)} -> video {tuple(vae.decode(mean).shape)}: {video.numel() / mean.numel():.0f} times fewer numbers")
    print(f"an image {(1, 3, 1, 32, 48)} -> latent {tuple(vae.encode(video[:, :, :1])[0].shape)}")
    changed = video.clone()
    changed[:, :, 9:] = 0
    same = (vae.encode(changed)[0] == mean).all(dim=(0, 1, 3, 4))
    print("blank frames 9 to 16: latent frames that stay the same:", [i for i, s in enumerate(same) if s])

"""The video VAE: squeezes a video to 1/4 of its length, height and width before the diffusion transformer sees it.

    video (B, 3, 1+4k, H, W)  -> encode ->  latent (B, Z, 1+k, H/4, W/4)  -> decode ->  video

It is causal in time: the first frame is compressed alone, so an image is a video of one frame, and every later latent frame
stands for four more frames and depends only on the past. That is done by padding convolutions in time on the left only, with
the first frame repeated.

Kingma & Welling 2014 (VAE); causal 3-D VAE with 1 + 4k frames: MAGVIT-v2 (Yu et al. 2024, sec. 3.2), CogVideoX, Wan 2.1.
Where we differ: 4x instead of 8x in space (our frames are small; `vae_space` sets it); 3x3x3 kernels are split into 3x3 in
space, then 3 in time; plain squared error instead of perceptual and adversarial losses, which sharp flat shapes do not need.

Letters: B clips  C channels  T H W frames, height, width  Z latent channels  t h w latent frames, rows, columns
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput, Config


class Space(nn.Conv3d):
    """A 3x3 convolution inside each frame."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))


class Time(nn.Conv3d):
    """A convolution over three frames: this one and the two before it. stride 2 keeps frames 0, 2, 4 ..."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(inputs, outputs, (3, 1, 1), stride=(stride, 1, 1))

    def forward(self, x):
        first = x[:, :, :1]
        return super().forward(torch.cat([first, first, x], 2))


class Block(nn.Module):
    """x + time(silu(space(silu(norm(x)))))"""

    def __init__(self, width):
        super().__init__()
        self.space, self.time = Space(width, width), Time(width, width)

    def forward(self, x):
        return x + self.time(F.silu(self.space(F.silu(norm(x)))))


def norm(x):
    """Each position's channels to mean square 1. Not a GroupNorm over time, through which frames would see the future."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class Double(nn.Module):
    """Twice as many frames: each becomes two, except the first, which stays one, so 1 + k becomes 1 + 2k."""

    def __init__(self, width):
        super().__init__()
        self.time = Time(width, 2 * width)

    def forward(self, x):
        B, C, T, H, W = x.shape
        x = self.time(x).reshape(B, 2, C, T, H, W).permute(0, 2, 3, 1, 4, 5)  # (B, C, T, 2, H, W)
        return x.flatten(2, 3)[:, :, 1:]                                       # (B, C, 2T - 1, H, W): without the first frame's first copy


class VAE(nn.Module):
    def __init__(self, config):
        super().__init__()
        w, Z, self.s = config.vae_width, config.latent_channels, config.vae_space
        pixels = 3 * self.s**2
        self.encoder = nn.Sequential(Space(pixels, w), Block(w), Time(w, w, 2), Block(w), Time(w, w, 2), Block(w), Block(w), Space(w, 2 * Z))
        self.decoder = nn.Sequential(Space(Z, w), Block(w), Block(w), Double(w), Block(w), Double(w), Block(w), Space(w, pixels))
        self.init()

    def init(self):
        for block in self.modules():
            if isinstance(block, Block):
                nn.init.zeros_(block.time.weight)  # every block starts as x + a constant
        _, log_variance = self.encoder[-1].bias.data.chunk(2)
        log_variance.fill_(-5.0)                   # start with little noise in the latent: first learn to copy, then to be smooth

    def encode(self, video):
        """video (B, 3, T, H, W) in [-1, 1], T = 1 + 4k → mean, log_variance, each (B, Z, 1 + k, H/s, W/s). Raises BadInput for other sizes."""
        B, C, T, H, W = video.shape
        if T % 4 != 1 or H % self.s or W % self.s:
            raise BadInput(f"video {T}x{H}x{W}: the VAE needs 1 + 4k frames, height and width multiples of {self.s}")
        x = video.transpose(1, 2).flatten(0, 1)                                # (B T, 3, H, W)
        x = F.pixel_unshuffle(x, self.s).unflatten(0, (B, T)).transpose(1, 2)  # (B, 3 s s, T, h, w)
        return self.encoder(x).chunk(2, 1)                                     # (B, Z, t, h, w) twice

    def decode(self, z):
        """z (B, Z, t, h, w) → video (B, 3, 4t - 3, s h, s w), in [-1, 1] up to the network's error."""
        x = self.decoder(z)                                                    # (B, 3 s s, T, h, w)
        B, C, T, h, w = x.shape
        x = F.pixel_shuffle(x.transpose(1, 2).flatten(0, 1), self.s)           # (B T, 3, H, W)
        return x.unflatten(0, (B, T)).transpose(1, 2)                          # (B, 3, T, H, W)

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

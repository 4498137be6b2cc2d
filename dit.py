"""The diffusion transformer: words and noisy patches in, the prediction for every patch out.

One sequence holds everything: the prompt's words and the clip's patches are all tokens, and every block is plain
self-attention plus an MLP over all of them. Each token has a noise level: words are given, so theirs is 0; patches of a latent
frame share that frame's level, so a given frame (level 0) and a frame to invent (level t) can stand side by side.

The level reaches the blocks by adaLN-Zero: it shifts and scales the input of attention and MLP, and gates their output. The
modulation is computed once for the whole network and each block adds a learned offset. All gates start at zero, so in the
assembled network every block starts as the identity, and the prediction starts at zero.

DiT (Peebles & Xie 2023, sec. 3.2, adaLN-Zero); modulation shared by the blocks: PixArt-alpha (Chen et al. 2023, adaLN-single);
words and patches in one stream: U-ViT (Bao et al. 2023), SD3 (Esser et al. 2024); a level per frame: Diffusion Forcing (Chen
et al. 2024). QK-norm: Dehghani et al. 2023 (ViT-22B).

Letters: B clips  Z latent channels  t h w latent frames, rows, columns  N tokens, L words and the patches  P numbers in a patch  D width  L words
         S = 1 + t levels per clip: the words' and one per latent frame
"""
import contextlib
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from config import BadInput, Config
from patches import patchify, places, rope, rotate, unpatchify


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        D = config.dit_width
        self.head = config.dit_head
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.offset = nn.Parameter(torch.empty(6 * D))

    def forward(self, x, modulation, spread, turn):
        """x (B, N, D), modulation (B, S, 6 D), spread: (B, S, D) → (B, N, D), turn: rope's (cos, sin) → x (B, N, D)"""
        shift1, scale1, gate1, shift2, scale2, gate2 = map(spread, (modulation + self.offset).chunk(6, -1))
        x = x + gate1 * self.attend(norm(x) * (1 + scale1) + shift1, turn)
        return x + gate2 * self.down(F.silu(self.up(norm(x) * (1 + scale2) + shift2)))

    def attend(self, x, turn):
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, head)
        q, k = rotate(norm(q), *turn), rotate(norm(k), *turn)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).flatten(2))                                   # (B, N, D)


def norm(x):
    """Each token (or head) to mean 0 and variance 1. No weights: before the layers the modulation has its own, in QK-norm it needs none."""
    return F.layer_norm(x, x.shape[-1:])


class DiT(nn.Module):
    """config, vocabulary size → a network  (x (B, Z, t, h, w), level (B, t), words (B, L)) → (B, Z, t, h, w)"""

    def __init__(self, config, vocabulary=0):
        super().__init__()
        D, self.patch, self.head = config.dit_width, (1, config.patch, config.patch), config.dit_head
        P = config.latent_channels * config.patch**2
        self.words = nn.Embedding(vocabulary + 1, D)
        self.patches = nn.Linear(P, D)
        self.place = nn.Linear(config.dit_head, D)
        self.level = nn.Sequential(nn.Linear(256, D), nn.SiLU(), nn.Linear(D, D), nn.SiLU())
        self.modulation = nn.Linear(D, 6 * D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.dit_depth))
        self.final_modulation, self.final = nn.Linear(D, 2 * D), nn.Linear(D, P)
        self.init()

    def init(self):
        """Every weight of the network, one reason a line. Nothing that initialises may run after this."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)              # keeps the size of signals and gradients through a layer
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.words.weight)                         # random directions: attention can tell words apart from the start
        for layer in (self.modulation, self.final_modulation):     # no shift, no scale, gates shut: blocks are the identity
            nn.init.zeros_(layer.weight)
        for block in self.blocks:
            nn.init.zeros_(block.offset)
        nn.init.zeros_(self.final.weight)                          # predict 0, the mean of every target, before knowing better

    def forward(self, x, level, words):
        """x noisy latents (B, Z, t, h, w); level (B, t) in [0, 1]; words (B, L) ids → the target's prediction, (B, Z, t, h, w)."""
        if level.shape != (x.shape[0], x.shape[2]):
            raise BadInput(f"levels {tuple(level.shape)} for latents {tuple(x.shape)}: expected one per clip and latent frame")
        (B, L), t = words.shape, x.shape[2]
        grid = t, x.shape[3] // self.patch[1], x.shape[4] // self.patch[2]
        tokens = torch.cat([self.words(words), self.patches(patchify(x, self.patch))], 1)        # (B, N, D), N = L + patches

        # Words stand before the video, one step of time each.
        place = torch.cat([places((L, 1, 1), x.device), places(grid, x.device)])                # (N, 3)
        place[:L, 0] -= L
        turn = rope(place, self.head)
        # Rotations tell differences of places only, but the frame's edge is somewhere: the same cosines and sines are added, too.
        tokens = tokens + self.place(torch.cat(turn, 1))

        levels = torch.cat([level.new_zeros(B, 1), level], 1)                                   # (B, S)
        emb = self.level(waves(levels))                                                         # (B, S, D)

        def spread(m):  # every token gets the numbers of its level                              (B, S, D) -> (B, N, D)
            return torch.cat([m[:, :1].expand(-1, L, -1), m[:, 1:, None].expand(-1, -1, grid[1] * grid[2], -1).flatten(1, 2)], 1)

        modulation = self.modulation(emb)                                                       # (B, S, 6 D)
        with attention_for(tokens):
            for block in self.blocks:
                tokens = block(tokens, modulation, spread, turn)
        shift, scale = map(spread, self.final_modulation(emb).chunk(2, -1))
        patches = self.final(norm(tokens) * (1 + scale) + shift)[:, L:]                          # (B, t h w, P)
        return unpatchify(patches, grid, self.patch)


def attention_for(tokens):
    """Which kernel scaled_dot_product_attention uses: on a CPU, plain matrix products beat the fused kernel up to some 256 tokens
    (88 tokens, forward and backward: 4x faster; 352 tokens: 1.2x slower; `python bench.py speed`)."""
    short = tokens.device.type == "cpu" and tokens.shape[1] <= 256
    return sdpa_kernel(SDPBackend.MATH) if short else contextlib.nullcontext()


def waves(level, size=256):
    """level (...) in [0, 1] → (..., size): cosines and sines from 1 to 1,000 radians over the whole range (Ho et al. 2020, sec. B)."""
    angle = level[..., None] * torch.exp(torch.linspace(0, math.log(1000), size // 2, device=level.device))
    return torch.cat([angle.cos(), angle.sin()], -1)


if __name__ == "__main__":
    config = Config()
    dit = DiT(config, vocabulary=18)
    print(f"{sum(p.numel() for p in dit.parameters()) / 1e6:.1f}M parameters in {config.dit_depth} blocks of width {config.dit_width}")
    for t, h, w in ((5, 8, 8), (1, 8, 12), (9, 12, 8)):
        x = torch.randn(2, config.latent_channels, t, h, w)
        y = dit(x, torch.rand(2, t), torch.randint(19, (2, config.words)))
        print(f"latents {tuple(x.shape)} -> {tuple(y.shape)}; before training the prediction is {y.abs().max():.0f} everywhere")

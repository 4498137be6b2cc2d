"""The diffusion transformer: words and noisy patches in, the prediction for every patch out.

One sequence holds everything: the prompt's words and the clip's patches are all tokens, and every block is plain
self-attention plus an MLP over all of them. Each token has a noise level: words are given, so theirs is 0; patches of a latent
frame share that frame's level, so a given frame (level 0) and a frame to invent (level t) can stand side by side. Clips of any
lengths and sizes, each with its words, stand in one sequence; attention stays inside a clip (patches.py).

The level reaches the blocks by adaLN-Zero: it shifts and scales the input of attention and MLP, and gates their output. The
modulation is computed once for the whole network and each block adds a learned offset. All gates start at zero, so in the
assembled network every block starts as the identity, and the prediction starts at zero.

DiT (Peebles & Xie 2023, sec. 3.2, adaLN-Zero); modulation shared by the blocks: PixArt-alpha (Chen et al. 2023, adaLN-single);
words and patches in one stream: U-ViT (Bao et al. 2023), SD3 (Esser et al. 2024); a level per frame: Diffusion Forcing (Chen
et al. 2024). QK-norm: Dehghani et al. 2023 (ViT-22B).

Letters: B clips of one shape  Z latent channels  t h w latent frames, rows, columns  P numbers in a patch  D width  L words
         N tokens of a clip, L words and its patches  M tokens of all clips  S levels of all clips: 1 + t each, the words' and one per latent frame
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput, Config
from patches import attention, pack, patchify, places, rope, rotate, unpack, unpatchify


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        D = config.dit_width
        self.head = config.dit_head
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.offset = nn.Parameter(torch.empty(6 * D))

    def forward(self, x, modulation, spread, turn, shapes):
        """x (M, D), modulation (S, 6 D), spread: (S, D) → (M, D), turn: rope's (cos, sin), shapes: [(B, N), ...] → x (M, D)"""
        shift1, scale1, gate1, shift2, scale2, gate2 = map(spread, (modulation + self.offset).chunk(6, -1))
        x = x + gate1 * self.attend(norm(x) * (1 + scale1) + shift1, turn, shapes)
        return x + gate2 * self.down(F.silu(self.up(norm(x) * (1 + scale2) + shift2)))

    def attend(self, x, turn, shapes):
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).unbind(1)                 # 3 x (M, heads, head)
        return self.out(attention(rotate(norm(q), *turn), rotate(norm(k), *turn), v, shapes).flatten(1))


def norm(x):
    """Each token (or head) to mean 0 and variance 1. No learned weights: the modulation that follows scales and shifts; QK-norm needs neither."""
    return F.layer_norm(x, x.shape[-1:])


class DiT(nn.Module):
    """config, vocabulary size → a network. Lists of x (B, Z, t, h, w), level (B, t), words (B, L) → a list of (B, Z, t, h, w)."""

    def __init__(self, config, vocabulary=0):
        super().__init__()
        D, self.patch, self.head = config.dit_width, (1, config.patch, config.patch), config.dit_head
        P = config.latent_channels * config.patch**2
        self.words = nn.Embedding(vocabulary + 1, D)
        self.patches = nn.Linear(P, D)
        self.place = nn.Linear(2 * config.dit_head, D)
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
        """Batches of clips, one for each shape → the target's prediction for each batch. What is packed together does not change a clip's result.

        x: noisy latents, a list of (B, Z, t, h, w); level: a list of (B, t) in [0, 1]; words: a list of (B, L) ids."""
        shapes, grids, place, counts = [], [], [], []
        for latents, levels, ids in zip(x, level, words, strict=True):
            (B, _, t, H, W), L, (_, p, p) = latents.shape, ids.shape[1], self.patch
            if levels.shape != (B, t):
                raise BadInput(f"levels {tuple(levels.shape)} for latents {tuple(latents.shape)}: expected one per clip and latent frame")
            grid = t, H // p, W // p
            here = torch.cat([places((L, 1, 1)) - torch.tensor([L, 0, 0]), places(grid)])         # (N, 3): words stand before the video, one step of time each
            there = torch.tensor(grid) - 1 - here                                              # (N, 3): how far from the clip's last frame, row, column
            place.append(torch.stack([here, there], 1).expand(B, -1, -1, -1))                   # (B, N, 2, 3)
            counts += B * ([L] + t * [grid[1] * grid[2]])                                      # how many tokens have each level
            shapes.append((B, len(here)))
            grids.append(grid)
        tokens = pack([torch.cat([self.words(ids), self.patches(patchify(latents, self.patch))], 1) for latents, ids in zip(x, words)])  # (M, D)
        cos, sin = rope(pack(place).to(tokens.device), self.head)                              # (M, 2, head / 2) twice
        # Rotation shows only differences of places. So that a token also knows where the edges are, its cosines and sines, counted from
        # the first and from the last frame, row and column, are added.
        tokens = tokens + self.place(torch.cat([cos, sin], 2).flatten(1))
        turn = cos[:, :1], sin[:, :1]                                                          # (M, 1, head / 2), for all heads

        counts, M = torch.tensor(counts, device=tokens.device), len(tokens)
        spread = lambda m: m.repeat_interleave(counts, 0, output_size=M)                       # (S, D) -> (M, D): every token gets the numbers of its level
        levels = torch.cat([F.pad(one, (1, 0)).flatten() for one in level])                    # (S,)
        emb = self.level(waves(levels))                                                        # (S, D)
        modulation = self.modulation(emb)                                                      # (S, 6 D)
        for block in self.blocks:
            tokens = block(tokens, modulation, spread, turn, shapes)
        shift, scale = map(spread, self.final_modulation(emb).chunk(2, -1))
        out = self.final(norm(tokens) * (1 + scale) + shift)                                   # (M, P)
        return [unpatchify(group[:, -math.prod(grid) :], grid, self.patch) for group, grid in zip(unpack(out, shapes), grids)]


def waves(level, size=256):
    """level (...) in [0, 1] → (..., size): cosines and sines from 1 to 1,000 radians over the whole range (Ho et al. 2020, sec. B)."""
    angle = level[..., None] * torch.exp(torch.linspace(0, math.log(1000), size // 2, device=level.device))
    return torch.cat([angle.cos(), angle.sin()], -1)


if __name__ == "__main__":
    config = Config()
    dit = DiT(config, vocabulary=18)
    print(f"{sum(p.numel() for p in dit.parameters()) / 1e6:.1f}M parameters in {config.dit_depth} blocks of width {config.dit_width}")
    shapes = (2, 5, 8, 8), (1, 1, 8, 12), (3, 9, 12, 8)
    x = [torch.randn(B, config.latent_channels, t, h, w) for B, t, h, w in shapes]
    out = dit(x, [torch.rand(B, t) for B, t, h, w in shapes], [torch.randint(19, (B, config.words)) for B, *_ in shapes])
    for latents, y in zip(x, out):
        print(f"latents {tuple(latents.shape)} -> {tuple(y.shape)}; before training the prediction is {y.abs().max():.0f} everywhere")
    print(f"{sum(B for B, *_ in shapes)} clips of {len(shapes)} shapes, in one sequence of {sum(B * (config.words + t * h * w // 4) for B, t, h, w in shapes)} tokens")

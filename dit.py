"""The diffusion transformer: words and noisy patches in, a prediction for every patch out.

One sequence holds everything. The prompt's words and the clip's patches are all tokens, and every block is
plain self-attention and an MLP over all of them. Each token has a noise level t: words are given, so theirs
is 0; the patches of a latent frame share that frame's level, so a given frame (level 0) and a frame to
invent (level t) stand side by side. Clips of any lengths and sizes, each with its words, share one
sequence; attention stays inside a clip (patches.py).

The level reaches the blocks by adaLN-Zero: it shifts and scales the input of attention and MLP and gates
their output. This modulation is computed once for the whole network, and each block adds a learned offset.
All gates start at zero, so in the assembled network every block starts as the identity, and the prediction
starts at zero.

Papers
    DiT, Peebles & Xie 2023, sec. 3.2 (adaLN-Zero), https://arxiv.org/abs/2212.09748
    Modulation shared by the blocks: PixArt-alpha, Chen et al. 2023 (adaLN-single),
        https://arxiv.org/abs/2310.00426
    Words and patches in one stream: U-ViT, Bao et al. 2023, https://arxiv.org/abs/2209.12152
    (in two streams that meet in attention: SD3, Esser et al. 2024, https://arxiv.org/abs/2403.03206)
    A level per frame: Diffusion Forcing, Chen et al. 2024, https://arxiv.org/abs/2407.01392
    QK-norm: ViT-22B, Dehghani et al. 2023, https://arxiv.org/abs/2302.05442

Where we differ from Sora: its blocks and its text encoder are not published. Ours learns the vectors of its
few words itself; a model of the real world takes them from a pretrained language model.

Letters
    B       clips of one shape
    Z       latent channels
    f h w   latent frames, rows, columns
    t       diffusion time = noise level, in [0, 1]
    P       numbers in a patch
    D       model width
    L       words in a prompt
    E       numbers in a feature of a text encoder
    N       tokens of a clip: its L words, then its patches
    grid    (f, rows, columns) of a clip counted in patches: rows = h / patch_size
    M       tokens of a packed batch
    S       noise levels of a packed batch: 1 + f for each clip, the words' and one per latent frame
"""
from config import BadInput

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from patches import apply_rope, attention, grid_positions, pack, patchify, rope, unpack, unpatchify


def layer_norm(x):
    """Mean 0 and variance 1 over the last axis, without learned weights: the modulation has them."""
    return F.layer_norm(x, x.shape[-1:])


def modulate(x, shift, scale):
    """x, shift, scale (M, D) → (M, D)"""
    return x * (1 + scale) + shift


def timestep_embedding(t, dim=256):
    """t (...) in [0, 1] → (..., dim): cosines and sines of 1 to 1,000 radians over the whole range.

    The sinusoidal embedding of Vaswani et al. 2017, sec. 3.5, as DDPM uses it (appendix B)."""
    frequency = torch.exp(torch.linspace(0, math.log(1000), dim // 2, device=t.device))
    angle = t[..., None] * frequency                                               # (..., dim / 2)
    return torch.cat([angle.cos(), angle.sin()], -1)


class DiTBlock(nn.Module):
    """Self-attention and an MLP, each shifted, scaled and gated by the token's noise level."""

    def __init__(self, config):
        super().__init__()
        D = config.dit_width
        self.head_dim = config.dit_head_dim
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.proj = nn.Linear(D, D, bias=False)
        self.mlp_in = nn.Linear(D, 4 * D)
        self.mlp_out = nn.Linear(4 * D, D)
        self.modulation_offset = nn.Parameter(torch.empty(6 * D))  # DiT.init_weights fills it

    def forward(self, x, modulation, per_token, cos, sin, shapes, visible=None, cache=None):
        """One block over a packed batch.

        x           (M, D) tokens
        modulation  (S, 6D), one row per noise level
        per_token   a function (S, D) → (M, D) that hands every token the numbers of its level
        cos, sin    (M, 1, head_dim / 2), rope's angles
        shapes      [(B, N), ...], where one clip ends and the next begins
        visible     None, or which tokens each token may look at (patches.attention)
        cache       None, or a memory of earlier tokens, at which these may look too (recaption.KeyValueCache)
        """
        # msa: multi-head self-attention, as in DiT's code.
        parts = (modulation + self.modulation_offset).chunk(6, -1)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = [per_token(part) for part in parts]

        modulated = modulate(layer_norm(x), shift_msa, scale_msa)
        attended = self.self_attention(modulated, cos, sin, shapes, visible, cache)
        x = x + gate_msa * attended
        return x + gate_mlp * self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp))

    def self_attention(self, x, cos, sin, shapes, visible=None, cache=None):
        """x (M, D) → (M, D)"""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(1)   # 3 times (M, heads, head_dim)

        # QK-norm: queries and keys have length sqrt(head_dim), so no score exceeds sqrt(head_dim), and the
        # softmax cannot saturate.
        q = apply_rope(layer_norm(q), cos, sin)
        k = apply_rope(layer_norm(k), cos, sin)
        key_shapes = shapes
        if cache is not None:
            k, v, key_shapes = cache.add(k, v, shapes)
        x = attention(q, k, v, shapes, visible, key_shapes)
        return self.proj(x.flatten(1))                                             # (M, D)

    def mlp(self, x):
        return self.mlp_out(F.silu(self.mlp_in(x)))


class DiT(nn.Module):
    """config, the vocabulary's size → a network that takes and returns lists, an entry per clip shape.

    feature_width: with a pretrained text encoder (text.py), how many numbers its features have."""

    def __init__(self, config, vocab_size=0, feature_width=0):
        super().__init__()
        D = config.dit_width
        P = config.latent_channels * config.patch_size**2
        self.patch = (1, config.patch_size, config.patch_size)
        self.head_dim = config.dit_head_dim
        self.recompute = config.recompute

        # What a token starts as: its word or its patch, and its position.
        if feature_width:
            # Features of some encoders are a hundred times as large as those of others.
            self.word_embedding = nn.Sequential(nn.LayerNorm(feature_width), nn.Linear(feature_width, D))
        else:
            self.word_embedding = nn.Embedding(vocab_size + 1, D)  # id 0 is the empty word
        self.patch_embedding = nn.Linear(P, D)
        self.position_embedding = nn.Linear(2 * config.dit_head_dim, D)

        # What a noise level says to every block.
        self.timestep_mlp = nn.Sequential(nn.Linear(256, D), nn.SiLU(), nn.Linear(D, D), nn.SiLU())
        self.modulation = nn.Linear(D, 6 * D)

        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.dit_depth))
        self.final_modulation = nn.Linear(D, 2 * D)
        self.final_linear = nn.Linear(D, P)
        self.init_weights()

    def init_weights(self):
        """Every weight of the network, one reason a line. Must run last: a later initialisation would undo
        it."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # keeps the size of signals through a layer
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if isinstance(self.word_embedding, nn.Embedding):
            nn.init.normal_(self.word_embedding.weight)  # random directions, so that words differ at once
        nn.init.zeros_(self.modulation.weight)  # no shift, no scale, gates at 0: blocks are the identity
        nn.init.zeros_(self.final_modulation.weight)
        for block in self.blocks:
            nn.init.zeros_(block.modulation_offset)
        nn.init.zeros_(self.final_linear.weight)  # predict 0 before knowing better

    def forward(self, x, t, prompt_ids):
        """Noisy latents → the prediction of diffusion.py's target, whatever else shares the sequence.

        Lists, an entry per clip shape:
            x           (B, Z, f, h, w) noisy latents
            t           (B, f) noise levels in [0, 1]
            prompt_ids  (B, L) words, 0 where there is none; or features (B, L, E) of a text encoder
        → a list of (B, Z, f, h, w). Raises BadInput for levels that are not one per clip and latent frame."""
        check_levels(x, t)
        grids = [self.patch_grid(latents) for latents in x]

        # Words first, then patches: one sequence for all clips.
        embedded = [self.embed(latents, ids) for latents, ids in zip(x, prompt_ids, strict=True)]
        tokens = pack(embedded)                                                        # (M, D)
        shapes = []
        positions = []
        for grid, ids in zip(grids, prompt_ids, strict=True):
            B, L = ids.shape[:2]
            clip_positions = token_positions(grid, L)                                  # (N, 2, 3)
            positions.append(clip_positions.expand(B, -1, -1, -1))                     # (B, N, 2, 3)
            shapes.append((B, len(clip_positions)))

        # Rotation shows attention only differences of positions. So that a token also knows where the edges
        # are, the cosines and sines of its position, counted from the first and from the last frame, row,
        # column, are added to it.
        cos, sin = rope(pack(positions).to(tokens.device), self.head_dim)              # (M, 2, head_dim / 2)
        waves = torch.cat([cos, sin], 2).flatten(1)                                    # (M, 2 head_dim)
        tokens = tokens + self.position_embedding(waves)                               # (M, D)

        # Rotation uses the positions counted from the first frame, row, column; all heads turn alike.
        cos = cos[:, :1]                                                               # (M, 1, head_dim / 2)
        sin = sin[:, :1]

        # The modulation is computed once per level, (S, ...), and handed out to the tokens of that level.
        levels = torch.cat([F.pad(group, (1, 0)).flatten() for group in t])         # (S,): words have level 0
        counts = tokens_per_level(grids, prompt_ids).to(tokens.device)                 # (S,)
        M = len(tokens)

        def per_token(numbers):
            return numbers.repeat_interleave(counts, 0, output_size=M)                 # (S, D) -> (M, D)

        embedding = self.timestep_mlp(timestep_embedding(levels))                      # (S, D)
        modulation = self.modulation(embedding)                                        # (S, 6D)
        for block in self.blocks:
            if self.recompute and self.training:
                # Keep a block's input only, and compute the rest again when its gradient is needed.
                inputs = (tokens, modulation, per_token, cos, sin, shapes)
                tokens = checkpoint(block, *inputs, use_reentrant=False)
            else:
                tokens = block(tokens, modulation, per_token, cos, sin, shapes)

        shift, scale = self.final_modulation(embedding).chunk(2, -1)
        out = self.final_linear(modulate(layer_norm(tokens), per_token(shift), per_token(scale)))   # (M, P)

        # Under autocast the products were made in bfloat16; the sampler's sums need all digits.
        out = out.to(x[0].dtype)
        return self.to_latents(unpack(out, shapes), grids)

    def patch_grid(self, latents):
        """latents (B, Z, f, h, w) → (f, rows, columns), counted in patches"""
        f, h, w = latents.shape[2:]
        _, ph, pw = self.patch
        return f, h // ph, w // pw

    def embed(self, latents, prompt_ids):
        """latents (B, Z, f, h, w), prompt_ids (B, L) or (B, L, E) → tokens (B, N, D): words, then patches."""
        words = self.word_embedding(prompt_ids)                                        # (B, L, D)
        patches = self.patch_embedding(patchify(latents, self.patch))                  # (B, N - L, D)
        return torch.cat([words, patches], 1)

    def to_latents(self, groups, grids):
        """Tokens (B, N, P) per shape → latents (B, Z, f, h, w) per shape, without the words."""
        latents = []
        for tokens, grid in zip(groups, grids, strict=True):
            patches = tokens[:, -math.prod(grid) :]
            latents.append(unpatchify(patches, grid, self.patch))
        return latents


def check_levels(x, t):
    """Raises BadInput unless t has a level for every clip and latent frame of x."""
    for latents, levels in zip(x, t, strict=True):
        B, _, f, _, _ = latents.shape
        if levels.shape != (B, f):
            sizes = f"levels {tuple(levels.shape)} for latents {tuple(latents.shape)}"
            raise BadInput(f"{sizes}: expected one per clip and latent frame")


def token_positions(grid, L):
    """grid, L words → positions (N, 2, 3): each token's frame, row, column from the start, and to the end."""
    # Words stand before the video, in row 0 and column 0, one step of time each.
    words = grid_positions((L, 1, 1)) - torch.tensor([L, 0, 0])
    from_start = torch.cat([words, grid_positions(grid)])                              # (N, 3)
    to_end = torch.tensor(grid) - 1 - from_start                                       # (N, 3)
    return torch.stack([from_start, to_end], 1)


def tokens_per_level(grids, prompt_ids):
    """How many tokens each of the S levels has → (S,).

    Clip after clip: L words, then rows * columns patches for each latent frame."""
    counts = []
    for (f, rows, columns), ids in zip(grids, prompt_ids, strict=True):
        B, L = ids.shape[:2]
        counts += B * ([L] + f * [rows * columns])
    return torch.tensor(counts)


@torch.no_grad()
def attention_shares(dit, block, x, t, prompt_ids):
    """Runs the network on one clip → how each token of one block shares its attention out, (heads, N, N)."""
    seen = []
    hook = block.qkv.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    dit([x], [t], [prompt_ids])
    hook.remove()

    # As in self_attention, but up to the softmax only, which `attention` does not return.
    q, k, _ = seen[0].unflatten(-1, (3, -1, block.head_dim)).permute(1, 2, 0, 3)   # (heads, N, head_dim) each
    from_start = token_positions(dit.patch_grid(x), prompt_ids.shape[1])[:, 0]     # (N, 3)
    cos, sin = rope(from_start, block.head_dim)                                    # (N, head_dim / 2)
    scores = apply_rope(layer_norm(q), cos, sin) @ apply_rope(layer_norm(k), cos, sin).mT
    return (scores * block.head_dim**-0.5).softmax(-1)


@torch.no_grad()
def draw_attention(model, path):
    """A picture of where one patch on a moving thing looks, in a block in the middle; prints the words."""
    import imageio.v3 as iio

    from data.video_io import GREEN, film_strip, to_float, to_uint8
    from diffusion import Schedule
    from text import encode_text
    from world.scenes import Scene, Thing, render

    # A clip at noise level 0.6, as it is when a sample is half done.
    prompt = "a red circle moving right quickly"
    clip = render(Scene([Thing("circle", "red", 0.2, (0.3, 0.6), "right", "quickly")]))
    x_0 = model.vae.encode(to_float(clip[None]))[0] * model.latent_scale           # (1, Z, 5, h, w)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    x = Schedule(model.config.schedule).add_noise(x_0, eps, 0.6)
    prompt_ids = encode_text([prompt], model.vocab, model.config)     # (1, L)
    middle = (len(model.dit.blocks) - 1) // 2
    shares = attention_shares(model.dit, model.dit.blocks[middle], x, torch.full((1, 5), 0.6), prompt_ids)

    # In latent frame 2 of 0 to 4, the circle is over the patch just below and right of the middle.
    _, rows, columns = model.dit.patch_grid(x)
    L = prompt_ids.shape[1]
    token = L + (2 * rows + rows // 2) * columns + columns // 2
    H, W = 32 // rows, 32 // columns
    shown = clip[::4].copy()  # the last frame of each latent frame
    box = shown[2, 16 : 16 + H, 16 : 16 + W]
    box[[0, -1]] = GREEN
    box[:, [0, -1]] = GREEN

    noisy = to_uint8(model.vae.decode(x / model.latent_scale))[0, ::4]
    pictures = [shown, noisy]
    captions = [f"{prompt}; a patch in green", "what the network sees, at noise level 0.6"]
    for head, share in enumerate(shares[:, token], 1):
        words = ", ".join(f"{word} {part:.0%}" for word, part in zip(prompt.split(), share, strict=False))
        captions.append(f"where the patch looks, block {middle + 1}, head {head}; at words: {words}")
        print(captions[-1])
        heat = (share[L:] / share[L:].max() * 255).byte().reshape(5, rows, columns, 1)
        pictures.append(heat.expand(-1, -1, -1, 3).numpy().repeat(H, 1).repeat(W, 2))
    iio.imwrite(path, film_strip(pictures, captions))


def demo():
    """The shipped network: its size, and where one patch looks."""
    from pathlib import Path

    from utils.checkpoint import SHIPPED, load_model

    model = load_model(SHIPPED)
    parameters = sum(p.numel() for p in model.dit.parameters())
    print(f"{parameters / 1e6:.1f}M parameters in {len(model.dit.blocks)} blocks")
    Path("out").mkdir(exist_ok=True)
    draw_attention(model, "out/dit.png")
    print("out/dit.png shows where it looks: the lighter, the more")


if __name__ == "__main__":
    from utils.cli import run

    run(demo)

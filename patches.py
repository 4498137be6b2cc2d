"""Spacetime patches: a video of any length, height and width becomes a sequence of tokens.

`patchify` cuts the (latent) video into small bricks of space and time and lays each brick's numbers in a
row; `unpatchify` is its exact inverse. Patchify with a linear layer behind it is a Conv3d whose stride is
its kernel size. A token's position is (frame, row, column); `rope` turns the token's queries and keys by
it, so that positions enter an attention score only through their difference. Nothing here knows the size of
the grid: any length, size and aspect ratio runs the same code.

Clips of different lengths and sizes, images among them, are laid end to end in one sequence (`pack`), so
that a batch is a number of tokens and no patch is padding. Layers that work on single tokens, such as an
MLP, run over the whole sequence at once; only `attention` looks at each clip by itself.

Papers
    ViT, Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
    ViViT's tubelets (bricks), Arnab et al. 2021, https://arxiv.org/abs/2103.15691
    NaViT, any size in one sequence, Dehghani et al. 2023, sec. 2 (Patch n' Pack),
        https://arxiv.org/abs/2307.06304
    RoPE, Su et al. 2021, eq. 34, https://arxiv.org/abs/2104.09864; here over three axes

Where we differ from NaViT: it masks attention over the whole sequence; here clips of one shape attend as a
batch of their own, so that no score is computed only to be masked.

Letters
    B          clips in a batch
    C          channels
    T H W      frames, rows, columns of what is cut: of a video, or of its latents
    pt ph pw   a patch's frames, rows, columns
    f h w      the grid: frames, rows, columns counted in patches (dit.py says f, rows, columns)
    N          tokens of a clip, f * h * w
    P          numbers in a patch, pt * ph * pw * C
    D          model width
    M          tokens of a packed batch
"""
from config import BadInput

import torch
import torch.nn.functional as F

# The slowest frequency is 1 / 100 radians a step: our grids have tens of steps, not thousands.
ROPE_BASE = 100.0

# Up to this length a CPU multiplies plain matrices faster than it runs the fused attention kernel.
SHORT_CLIP_TOKENS = 256


def patchify(video, patch):
    """video (B, C, T, H, W), patch (pt, ph, pw) → tokens (B, N, P).

    Raises BadInput for a size that is no multiple of the patch's."""
    B, C, T, H, W = video.shape
    pt, ph, pw = patch
    if T % pt or H % ph or W % pw:
        raise BadInput(f"video {T}x{H}x{W} is not a multiple of patch {pt}x{ph}x{pw}")

    x = video.reshape(B, C, T // pt, pt, H // ph, ph, W // pw, pw)  # each axis: (which patch, where in it)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)                              # (B, f, h, w, pt, ph, pw, C)
    return x.flatten(4).flatten(1, 3)                                  # (B, N, P)


def unpatchify(tokens, grid, patch):
    """tokens (B, N, P), grid (f, h, w), patch (pt, ph, pw) → video (B, C, T, H, W).

    Raises BadInput where they do not fit together."""
    B, N, P = tokens.shape
    f, h, w = grid
    pt, ph, pw = patch
    if N != f * h * w or P % (pt * ph * pw):
        wanted = f"a grid of {f}x{h}x{w} patches of {pt}x{ph}x{pw}"
        raise BadInput(f"{N} tokens of {P} numbers do not make {wanted}")

    x = tokens.reshape(B, f, h, w, pt, ph, pw, -1)                     # (B, f, h, w, pt, ph, pw, C)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)                              # (B, C, f, pt, h, ph, w, pw)
    return x.flatten(6).flatten(4, 5).flatten(2, 3)                    # (B, C, T, H, W)


def grid_positions(grid):
    """grid (f, h, w) → positions (N, 3), floats: each token's frame, row, column, in patchify's order."""
    axes = [torch.arange(length, dtype=torch.float32) for length in grid]
    return torch.cartesian_prod(*axes)


def rope(positions, head_dim):
    """The angles by which tokens' queries and keys are turned. positions (..., 3) → cos, sin, each (...,
    head_dim / 2).

    A head has head_dim / 2 pairs of numbers. A quarter of them turns with the frame, a quarter with the
    row, a quarter with the column, at frequencies from 1 down to 1 / ROPE_BASE radians a step. The last
    quarter never turns: it is free to look for *what*, wherever it is."""
    pairs_per_axis = head_dim // 8
    exponent = torch.linspace(0, 1, pairs_per_axis, device=positions.device)
    frequency = ROPE_BASE**-exponent                                   # (head_dim / 8,), from 1 down
    angle = (positions[..., None] * frequency).flatten(-2)             # (..., 3 * pairs_per_axis)
    angle = F.pad(angle, (0, head_dim // 2 - 3 * pairs_per_axis))      # (..., head_dim / 2)
    return angle.cos(), angle.sin()


def apply_rope(x, cos, sin):
    """Turns each pair (x[i], x[i + head_dim / 2]) by its angle. (The paper's pairs are neighbours.)

    x (..., head_dim); cos, sin (..., head_dim / 2) → (..., head_dim)"""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def pack(groups):
    """A list of batches (B, N, D), each with its own B and N → one sequence (M, D)."""
    return torch.cat([group.flatten(0, 1) for group in groups])


def unpack(sequence, shapes):
    """The inverse of pack. sequence (M, ...), shapes [(B, N), ...] → a list of (B, N, ...)."""
    lengths = [B * N for B, N in shapes]
    parts = sequence.split(lengths)
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


def attention(q, k, v, shapes, visible=None, key_shapes=None):
    """softmax(q k^T / sqrt(head_dim)) v inside every clip, never across clips.

    q, k, v (M, heads, head_dim), shapes [(B, N), ...] → (M, heads, head_dim). The one place that chooses a
    kernel; what it brings on a CPU: `python bench.py speed`.

    visible     (N, N) bool, for sequences of one shape: which tokens (columns) each token (row) may look at;
                None: at all
    key_shapes  None, or the shapes of k and v, where they are those of more tokens than q (recaption.py)"""
    key_shapes = key_shapes or shapes
    groups = zip(unpack(q, shapes), unpack(k, key_shapes), unpack(v, key_shapes), strict=True)
    mixed = []
    for q_group, k_group, v_group in groups:
        query = q_group.transpose(1, 2)                                # (B, heads, N, head_dim)
        key = k_group.transpose(1, 2)
        value = v_group.transpose(1, 2)
        B, heads, N, head_dim = query.shape
        if query.device.type == "cpu" and N <= SHORT_CLIP_TOKENS:
            scores = query @ key.mT * head_dim**-0.5                   # (B, heads, N, N)
            if visible is not None:
                scores = scores.masked_fill(~visible, -torch.inf)
            x = scores.softmax(-1) @ value
        else:
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        mixed.append(x.transpose(1, 2).flatten(0, 1))                  # (B * N, heads, head_dim)
    return torch.cat(mixed)


def draw_patches(path):
    """A picture of patchify: 8 frames of 32x32 cut into patches of 2x8x8, the first frame of each patch."""
    import imageio.v3 as iio
    import numpy as np

    from data.video_io import film_strip
    from world.scenes import draw_scene, render

    frames = render(draw_scene(np.random.default_rng(3)), frames=8)                    # (8, 32, 32, 3)
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None]                         # (1, 3, 8, 32, 32)
    patches = patchify(video, (2, 8, 8)).reshape(4, 4, 4, 2, 8, 8, 3)               # (f, h, w, pt, ph, pw, C)
    first_frames = patches[:, :, :, 0].numpy()                                         # (f, h, w, ph, pw, C)

    # A white line around each patch, then the patches of a layer in their places.
    lined = np.pad(first_frames, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    layers = lined.transpose(0, 1, 3, 2, 4, 5).reshape(4, 4 * 10, 4 * 10, 3)           # (f, rows, columns, C)
    captions = [
        "a clip: 8 frames of 32x32 pixels",
        "cut into 4 x 4 x 4 patches of 2 frames of 8x8 pixels",
    ]
    iio.imwrite(path, film_strip([frames, layers], captions, columns=8))


if __name__ == "__main__":
    from pathlib import Path

    video = torch.randn(1, 8, 5, 8, 12)
    tokens = patchify(video, (1, 2, 2))
    restored = unpatchify(tokens, (5, 4, 6), (1, 2, 2))
    print(f"latent {tuple(video.shape)} -> tokens {tuple(tokens.shape)}")
    print(f"back again, exactly: {torch.equal(restored, video)}")
    print("positions of tokens 0, 1, 6, 24:", grid_positions((5, 4, 6))[[0, 1, 6, 24]].int().tolist())

    query = torch.randn(64)
    key = torch.randn(64)

    def attention_score(query_position, key_position):
        turned_query = apply_rope(query, *rope(torch.tensor(query_position), 64))
        turned_key = apply_rope(key, *rope(torch.tensor(key_position), 64))
        return float(turned_query @ turned_key)

    print(f"score from (3, 2, 1) to (1, 1, 1): {attention_score([3.0, 2.0, 1.0], [1.0, 1.0, 1.0]):.4f}")
    print(f"both moved by (5, 1, 2):           {attention_score([8.0, 3.0, 3.0], [6.0, 2.0, 3.0]):.4f}")

    Path("out").mkdir(exist_ok=True)
    draw_patches("out/patches.png")
    print("out/patches.png shows 8 frames of 32x32, cut into 4 x 4 x 4 patches of 2x8x8")

"""Spacetime patches: a video of any length, height and width becomes a sequence of tokens, each with a value and a place.

`patchify` cuts the (latent) video into bricks and lays each brick's numbers in a row; `unpatchify` is its exact inverse. With
a linear layer behind it, patchify is a Conv3d whose stride is its kernel. A token's place is (time, row, column); it turns the
token's queries and keys (`rope`), so that attention between two tokens depends on the difference of their places. No code
depends on the size of the grid: other lengths, sizes and aspect ratios need no other code.

Clips of different lengths and sizes, images among them, are laid end to end in one sequence (`pack`), so that a batch is a number
of tokens, and none of them is padding. All that a transformer does to single tokens runs over the whole sequence; `attention`
alone looks at each clip by itself.

ViT (Dosovitskiy et al. 2021), ViViT's tubelets (Arnab et al. 2021), NaViT for any size (Dehghani et al. 2023); rotary position
embedding: RoFormer (Su et al. 2021, eq. 34), here over three axes. Packing: Patch n' Pack in NaViT, sec. 2; there with a mask over
the whole sequence, here clips of one shape stand together and attend as a batch, which multiplies nothing that a mask would hide.

Letters: B clips  C channels  T H W the video's frames, rows, columns  t h w the same, counted in patches  pt ph pw a patch's size
         N = t h w tokens  P = pt ph pw C numbers in a patch  D model width  M tokens in a packed sequence
"""
import torch
import torch.nn.functional as F

from config import BadInput


def patchify(video, patch):
    """video (B, C, T, H, W), patch (pt, ph, pw) → tokens (B, N, P). Raises BadInput where a size is no multiple of the patch's."""
    (B, C, T, H, W), (pt, ph, pw) = video.shape, patch
    if T % pt or H % ph or W % pw:
        raise BadInput(f"video {T}x{H}x{W} is not a multiple of patch {pt}x{ph}x{pw}")
    x = video.reshape(B, C, T // pt, pt, H // ph, ph, W // pw, pw)  # split each axis: (which brick, where inside it)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)                           # (B, t, h, w, pt, ph, pw, C)
    return x.flatten(4).flatten(1, 3)                               # (B, N, P)


def unpatchify(tokens, grid, patch):
    """tokens (B, N, P), grid (t, h, w), patch (pt, ph, pw) → video (B, C, T, H, W). Raises BadInput where they do not fit."""
    (B, N, P), (t, h, w), (pt, ph, pw) = tokens.shape, grid, patch
    if N != t * h * w or P % (pt * ph * pw):
        raise BadInput(f"{N} tokens of {P} numbers do not make a grid of {t}x{h}x{w} patches of {pt}x{ph}x{pw}")
    x = tokens.reshape(B, t, h, w, pt, ph, pw, -1)                  # (B, t, h, w, pt, ph, pw, C)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)                           # (B, C, t, pt, h, ph, w, pw)
    return x.flatten(6).flatten(4, 5).flatten(2, 3)                 # (B, C, T, H, W)


def places(grid):
    """grid (t, h, w) → (N, 3) floats: time, row and column of every token, in patchify's order."""
    return torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in grid))


def rope(places, head):
    """places (..., 3) → cos, sin, each (..., head / 2): the angles by which a token's queries and keys are turned.

    A quarter of a head's numbers turns with the time, a quarter with the row, a quarter with the column, at frequencies from
    1 down to 1/100 radians a step, and a quarter stays as it is, free to look for *what* wherever it is."""
    n = head // 8
    frequency = 100.0 ** -torch.linspace(0, 1, n, device=places.device)
    angle = (places[..., None] * frequency).flatten(-2)             # (..., 3 n)
    angle = F.pad(angle, (0, head // 2 - 3 * n))                    # (..., head / 2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Turns each pair (x[i], x[i + head/2]) by its angle. x (..., head); cos, sin (..., head / 2)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def pack(groups):
    """A list of batches (B, N, D), each of its own B and N → one sequence (M, D)."""
    return torch.cat([group.flatten(0, 1) for group in groups])


def unpack(sequence, shapes):
    """The inverse. sequence (M, ...), shapes [(B, N), ...] → a list of (B, N, ...)."""
    return [part.unflatten(0, shape) for part, shape in zip(sequence.split([B * N for B, N in shapes]), shapes)]


def attention(q, k, v, shapes):
    """softmax(q k^T / sqrt(head)) v inside every clip, never across. q, k, v (M, heads, head), shapes [(B, N), ...] → (M, heads, head).

    The one place that chooses a kernel: on a CPU plain matrix products beat the fused kernel up to some 256 tokens a clip
    (88 tokens, forward and backward: 5x; `python bench.py speed`)."""
    mixed = []
    for q, k, v in zip(*(unpack(x, shapes) for x in (q, k, v))):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))                        # (B, heads, N, head)
        if q.device.type == "cpu" and q.shape[2] <= 256:
            x = (q @ k.mT * q.shape[3] ** -0.5).softmax(-1) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        mixed.append(x.transpose(1, 2).flatten(0, 1))                           # (B N, heads, head)
    return torch.cat(mixed)


if __name__ == "__main__":
    video = torch.randn(1, 8, 5, 8, 12)
    tokens = patchify(video, (1, 2, 2))
    print(f"latent {tuple(video.shape)} -> tokens {tuple(tokens.shape)}; back again, exactly: {torch.equal(unpatchify(tokens, (5, 4, 6), (1, 2, 2)), video)}")
    print("places of tokens 0, 1, 6, 24:", places((5, 4, 6))[[0, 1, 6, 24]].int().tolist())
    query, key = torch.randn(64), torch.randn(64)
    score = lambda a, b: float(rotate(query, *rope(torch.tensor([a]), 64)) @ rotate(key, *rope(torch.tensor([b]), 64)).T)
    print(f"attention from (3,2,1) to (1,1,1): {score((3., 2., 1.), (1., 1., 1.)):.4f}, both moved by (5,1,2): {score((8., 3., 3.), (6., 2., 3.)):.4f}")

    import imageio.v3 as iio
    import numpy as np
    from pathlib import Path
    import world

    video = torch.from_numpy(world.render(world.scene(np.random.default_rng(3)), 8)).permute(3, 0, 1, 2)[None].float()  # (1, 3, 8, 32, 32)
    bricks = patchify(video, (2, 8, 8)).reshape(4, 4, 4, 2, 8, 8, 3)                                 # (t, h, w, pt, ph, pw, C)
    bricks = np.pad(bricks.numpy(), ((0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = bricks[:, :, :, 0].transpose(1, 3, 0, 2, 4, 5).reshape(4 * 10, 4 * 4 * 10, 3)             # each brick's first frame
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/patches.png", rows.astype(np.uint8).repeat(5, 0).repeat(5, 1))
    print("out/patches.png shows 8 frames of 32x32 cut into 4 x 4 x 4 bricks of 2x8x8, the first frame of each")

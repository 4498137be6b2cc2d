"""Patches, positions, packing and attention, against PyTorch's own layers and against laws."""
from config import BadInput

import math

import imageio.v3 as iio
import pytest
import torch
import torch.nn.functional as F

import patches
from patches import apply_rope, attention, grid_positions, pack, patchify, rope, unpack, unpatchify

B, C, T, H, W = 2, 3, 5, 8, 12
PATCHES = [(1, 4, 4), (5, 2, 3), (1, 1, 1), (1, 2, 4)]
HEAD_DIM = 32


@pytest.mark.parametrize("patch", PATCHES)
def test_patchify_and_a_linear_layer_are_a_convolution(patch):
    video = torch.randn(B, C, T, H, W)
    kernel = torch.randn(7, C, *patch)

    by_convolution = F.conv3d(video, kernel, stride=patch).flatten(2).mT               # (B, N, 7)
    weights = kernel.permute(0, 2, 3, 4, 1).flatten(1)                                 # (7, P)
    by_patches = patchify(video, patch) @ weights.T                                    # (B, N, 7)

    torch.testing.assert_close(by_patches, by_convolution)


@pytest.mark.parametrize("patch", PATCHES)
def test_unpatchify_is_the_inverse(patch):
    video = torch.randn(B, C, T, H, W)
    grid = (T // patch[0], H // patch[1], W // patch[2])
    assert torch.equal(unpatchify(patchify(video, patch), grid, patch), video)


@pytest.mark.parametrize("size", [(5, 8, 12), (4, 9, 12), (4, 8, 13)])
def test_a_size_that_is_no_multiple_is_refused_on_every_axis(size):
    with pytest.raises(BadInput, match="is not a multiple of patch 2x4x4"):
        patchify(torch.zeros(1, 1, *size), (2, 4, 4))


def test_the_refusal_names_the_numbers():
    with pytest.raises(BadInput, match="video 17x30x32 is not a multiple of patch 1x4x4"):
        patchify(torch.zeros(1, 1, 17, 30, 32), (1, 4, 4))


@pytest.mark.parametrize("N, P", [(7, 4), (8, 5)])
def test_tokens_that_do_not_fill_the_grid_are_refused(N, P):
    with pytest.raises(BadInput, match=f"{N} tokens of {P} numbers do not make a grid of 2x2x2"):
        unpatchify(torch.zeros(1, N, P), (2, 2, 2), (1, 2, 2))


def test_a_position_is_where_patchify_put_the_token():
    axes = torch.meshgrid(torch.arange(T), torch.arange(H), torch.arange(W), indexing="ij")
    video_of_positions = torch.stack(axes).float()[None]                   # each pixel holds its own position
    assert torch.equal(patchify(video_of_positions, (1, 1, 1))[0], grid_positions((T, H, W)))


def rotated(x, position):
    cos, sin = rope(torch.tensor(position), HEAD_DIM)
    return apply_rope(x, cos, sin)


def test_attention_scores_depend_only_on_the_difference_of_positions():
    q, k = torch.randn(2, HEAD_DIM)
    here = rotated(q, [1.0, 2.0, 3.0]) @ rotated(k, [4.0, 0.0, 7.0])
    moved = rotated(q, [4.0, 7.0, 1.0]) @ rotated(k, [7.0, 5.0, 5.0])
    torch.testing.assert_close(moved, here, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_attention_scores_depend_on_the_difference_along_every_axis(axis):
    q, k = torch.randn(2, HEAD_DIM)
    position = [4.0, 0.0, 7.0]
    further = list(position)
    further[axis] += 1
    assert abs(q @ rotated(k, position) - q @ rotated(k, further)) > 1e-3


def test_rope_keeps_lengths():
    q = torch.randn(HEAD_DIM)
    torch.testing.assert_close(rotated(q, [3.0, 1.0, 9.0]).norm(), q.norm())


def test_rope_is_a_complex_rotation_with_frequencies_from_1_down_to_1_over_100():
    """The pairs of a head as complex numbers: a quarter turns with each axis, a quarter never."""
    position = [3.0, 5.0, 7.0]
    frequencies = [100 ** -(i / 3) for i in range(4)]                                  # 1, 0.215, 0.046, 0.01
    angles = [coordinate * frequency for coordinate in position for frequency in frequencies] + 4 * [0.0]
    turn = torch.tensor([complex(math.cos(angle), math.sin(angle)) for angle in angles])

    q = torch.randn(HEAD_DIM)
    pairs = torch.complex(q[: HEAD_DIM // 2], q[HEAD_DIM // 2 :])
    turned = pairs * turn
    torch.testing.assert_close(rotated(q, position), torch.cat([turned.real, turned.imag]))


def test_unpack_is_the_inverse_of_pack():
    groups = [torch.randn(2, 3, 7), torch.randn(1, 5, 7), torch.randn(4, 1, 7)]
    sequence = pack(groups)
    assert sequence.shape == (2 * 3 + 5 + 4, 7)
    for group, restored in zip(groups, unpack(sequence, [(2, 3), (1, 5), (4, 1)]), strict=True):
        assert torch.equal(group, restored)


@pytest.mark.parametrize("short_clip_tokens", [0, 99])
def test_attention_is_pytorchs_inside_every_clip(monkeypatch, short_clip_tokens):
    """With either of the two kernels."""
    monkeypatch.setattr(patches, "SHORT_CLIP_TOKENS", short_clip_tokens)
    shapes = [(2, 5), (1, 8), (3, 1)]
    heads = 2
    groups = [torch.randn(3, B, N, heads, HEAD_DIM) for B, N in shapes]
    q, k, v = [pack([group[i] for group in groups]) for i in range(3)]                 # (M, heads, head_dim)

    mixed = unpack(attention(q, k, v, shapes), shapes)
    for group, got in zip(groups, mixed, strict=True):
        query, key, value = group.transpose(2, 3)                                    # (B, heads, N, head_dim)
        expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        torch.testing.assert_close(got, expected)


def test_the_picture_shows_the_clip_above_its_patches(tmp_path):
    patches.draw_patches(tmp_path / "patches.png")
    picture = iio.imread(tmp_path / "patches.png")
    assert picture.shape[0] > 3 * (32 + 40)
    assert picture.shape[1] > 8 * 3 * 32

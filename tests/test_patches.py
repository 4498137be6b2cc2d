import pytest
import torch
import torch.nn.functional as F

from config import BadInput
from patches import patchify, grid_positions, rope, apply_rope, unpatchify

B, C, T, H, W = 2, 3, 5, 8, 12
PATCHES = [(1, 4, 4), (5, 2, 3), (1, 1, 1), (1, 2, 4)]


@pytest.mark.parametrize("patch", PATCHES)
def test_patchify_and_a_linear_layer_are_a_convolution(patch):
    video, kernel = torch.randn(B, C, T, H, W), torch.randn(7, C, *patch)
    by_conv = F.conv3d(video, kernel, stride=patch).flatten(2).mT                                    # (B, N, 7)
    by_patches = patchify(video, patch) @ kernel.permute(0, 2, 3, 4, 1).flatten(1).T
    torch.testing.assert_close(by_patches, by_conv)


@pytest.mark.parametrize("patch", PATCHES)
def test_unpatchify_is_the_inverse(patch):
    video = torch.randn(B, C, T, H, W)
    grid = T // patch[0], H // patch[1], W // patch[2]
    assert torch.equal(unpatchify(patchify(video, patch), grid, patch), video)


def test_sizes_that_do_not_fit_are_refused_with_their_numbers():
    with pytest.raises(BadInput, match="video 17x30x32 is not a multiple of patch 1x4x4"):
        patchify(torch.zeros(1, 1, 17, 30, 32), (1, 4, 4))
    with pytest.raises(BadInput, match="7 tokens of 4"):
        unpatchify(torch.zeros(1, 7, 4), (2, 2, 2), (1, 2, 2))


def test_a_place_is_where_patchify_put_the_token():
    where = torch.stack(torch.meshgrid(*map(torch.arange, (T, H, W)), indexing="ij")).float()[None]  # each pixel holds its own place
    assert torch.equal(patchify(where, (1, 1, 1))[0], grid_positions((T, H, W)))


def test_rope_depends_only_on_differences_and_keeps_lengths():
    q, k = torch.randn(2, 64, dtype=torch.float64)
    here = lambda v, *place: apply_rope(v, *(a.double() for a in rope(torch.tensor([place], dtype=torch.float64), 64)))
    score = lambda a, b: (here(q, *a) * here(k, *b)).sum()
    a, b, move = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 0, 7]), torch.tensor([3.0, 5, -2])
    torch.testing.assert_close(score(a, b), score(a + move, b + move))
    torch.testing.assert_close(here(q, *a).norm(), q.norm())
    for axis in range(3):  # and on the difference along every single axis
        other = b.clone()
        other[axis] += 1
        assert abs(score(a, b) - score(a, other)) > 1e-3

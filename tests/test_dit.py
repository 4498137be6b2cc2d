import pytest
import torch

from config import BadInput, Config
from dit import DiT

CONFIG = Config(latent_channels=3, dit_width=32, dit_head=16, dit_depth=3)
B, Z, T, H, W, L = 2, 3, 5, 4, 6, 4


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, Z, T, H, W, generator=g), torch.rand(B, T, generator=g), torch.randint(1, 9, (B, L), generator=g)


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return DiT(CONFIG, vocabulary=8)


@pytest.fixture
def awake(fresh):
    """As if trained a little: gates open, outputs not zero."""
    for p in fresh.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return fresh


def test_every_block_of_the_assembled_network_starts_as_the_identity(fresh):
    seen = []
    for block in fresh.blocks:
        block.register_forward_hook(lambda block, args, out: seen.append((args[0], out)))
    assert torch.equal(fresh(*inputs()), torch.zeros(B, Z, T, H, W))
    assert len(seen) == 3 and all(torch.equal(x, y) for x, y in seen) and seen[0][0].std() > 0.1


@torch.no_grad()
def test_a_level_reaches_its_own_frame_and_no_other(awake):
    """With attention silenced, tokens cannot talk, so only the modulation carries the level."""
    for block in awake.blocks:
        block.out.weight.zero_()
    x, level, words = inputs()
    before = awake(x, level, words)
    level[:, 2] = 1 - level[:, 2]
    moved = (awake(x, level, words) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert moved.tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_patches_hear_the_words_and_each_other(awake):
    x, level, words = inputs()
    before = awake(x, level, words)
    other = words.clone()
    other[:, 1] = words[:, 1] % 8 + 1
    assert ((awake(x, level, other) - before).abs().amax(dim=1) > 0).all()
    later = x.clone()
    later[:, :, -1] += 1
    assert ((awake(later, level, words) - before).abs().amax(dim=1) > 0).all()  # every patch sees every frame
    assert (awake(x, level, words.flip(1)) - before).abs().max() > 1e-3         # and the order of the words matters


@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(awake):
    x, level, words = inputs()
    alone = torch.cat([awake(x[i : i + 1], level[i : i + 1], words[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(awake(x, level, words), alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_network_takes_any_length_size_and_aspect_ratio(awake):
    for t, h, w in ((1, 2, 2), (1, 8, 4), (9, 2, 10), (80, 4, 4)):  # the last has more tokens than the short kernel takes
        assert awake(torch.randn(1, Z, t, h, w), torch.rand(1, t), torch.ones(1, L, dtype=torch.long)).shape == (1, Z, t, h, w)


def test_every_weight_learns(awake):
    awake(*inputs()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in awake.parameters())


def test_wrong_levels_are_refused(fresh):
    x, level, words = inputs()
    with pytest.raises(BadInput, match="one per clip and latent frame"):
        fresh(x, level[:, :1], words)

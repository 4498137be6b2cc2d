import pytest
import torch

from config import BadInput, Config
from dit import DiT

CONFIG = Config(latent_channels=3, dit_width=32, dit_head_dim=16, dit_depth=3)
B, Z, T, H, W, L = 2, 3, 5, 4, 6, 4


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, Z, T, H, W, generator=g), torch.rand(B, T, generator=g), torch.randint(1, 9, (B, L), generator=g)


def call(network, x, level, words):
    """One batch of one shape."""
    return network([x], [level], [words])[0]


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return DiT(CONFIG, vocab_size=8)


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
    assert torch.equal(call(fresh, *inputs()), torch.zeros(B, Z, T, H, W))
    assert len(seen) == 3 and all(torch.equal(x, y) for x, y in seen) and seen[0][0].std() > 0.1


@torch.no_grad()
def test_a_level_reaches_its_own_frame_and_no_other(awake):
    """With attention silenced, tokens cannot talk, so only the modulation carries the level."""
    for block in awake.blocks:
        block.proj.weight.zero_()
    x, level, words = inputs()
    before = call(awake, x, level, words)
    level[:, 2] = 1 - level[:, 2]
    moved = (call(awake, x, level, words) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert moved.tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_patches_hear_the_words_and_each_other(awake):
    x, level, words = inputs()
    before = call(awake, x, level, words)
    other = words.clone()
    other[:, 1] = words[:, 1] % 8 + 1
    assert ((call(awake, x, level, other) - before).abs().amax(dim=1) > 0).all()
    later = x.clone()
    later[:, :, -1] += 1
    assert ((call(awake, later, level, words) - before).abs().amax(dim=1) > 0).all()  # every patch sees every frame
    assert (call(awake, x, level, words.flip(1)) - before).abs().max() > 1e-3         # and the order of the words matters


def test_packed_is_the_same_as_separate(awake):
    """Outputs and gradients, of five clips of four shapes, an image among them."""
    shapes = [(1, 5, 4, 6), (2, 1, 6, 2), (1, 3, 2, 8), (1, 8, 12, 12)]
    x, level = [torch.randn(b, Z, t, h, w) for b, t, h, w in shapes], [torch.rand(b, t) for b, t, _, _ in shapes]
    words, weight = [torch.randint(1, 9, (b, L)) for b, *_ in shapes], [torch.randn(b, Z, t, h, w) for b, t, h, w in shapes]
    packed = awake(x, level, words)
    sum((out * w).sum() for out, w in zip(packed, weight)).backward()
    gradients = [p.grad.clone() for p in awake.parameters()]
    awake.zero_grad()
    for one in range(4):
        for i in range(len(x[one])):
            part = slice(i, i + 1)
            alone = call(awake, x[one][part], level[one][part], words[one][part])
            torch.testing.assert_close(packed[one][part], alone, atol=1e-5, rtol=1e-5)
            (alone * weight[one][part]).sum().backward()
    for p, gradient in zip(awake.parameters(), gradients):
        torch.testing.assert_close(gradient, p.grad, atol=1e-5 * p.grad.abs().max().item(), rtol=1e-5)


@torch.no_grad()
def test_words_and_patches_know_how_far_the_edges_are(awake):
    """The same patches at the same places, in a wider frame: what was the last column is no more."""
    x, level, words = inputs()
    wide = torch.cat([x, x], 4)
    for block in awake.blocks:
        block.proj.weight.zero_()  # attention silenced: each token has only its own value and place
    assert ((call(awake, wide, level, words)[..., :W] - call(awake, x, level, words)).abs().amax(dim=(1, 2, 3)) > 1e-4).all()


@torch.no_grad()
def test_one_network_takes_any_length_size_and_aspect_ratio(awake):
    for t, h, w in ((1, 2, 2), (1, 8, 4), (9, 2, 10), (80, 4, 4)):  # the last has more tokens than the short kernel takes
        assert call(awake, torch.randn(1, Z, t, h, w), torch.rand(1, t), torch.ones(1, L, dtype=torch.long)).shape == (1, Z, t, h, w)


def test_every_weight_learns(awake):
    call(awake, *inputs()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in awake.parameters())


def test_wrong_levels_are_refused(fresh):
    x, level, words = inputs()
    with pytest.raises(BadInput, match="one per clip and latent frame"):
        call(fresh, x, level[:, :1], words)

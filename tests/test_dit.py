"""The diffusion transformer: what it is before training, who hears whom, and that packing changes nothing."""
from config import BadInput, Config

import itertools
import math
import re

import imageio.v3 as iio
import pytest
import torch
import torch.nn.functional as F

import dit
from data.video_io import GREEN
from dit import DiT, attention_shares, draw_attention, timestep_embedding, token_positions, tokens_per_level

CONFIG = Config(latent_channels=3, dit_width=32, dit_head_dim=16, dit_depth=3)
B, Z, FRAMES, H, W, L = 2, 3, 5, 4, 6, 4  # H rows and W columns of latents


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


@pytest.fixture
def silent(awake):
    """No attention: each token has only its own value, position and level."""
    for block in awake.blocks:
        block.proj.weight.data.zero_()
    return awake


def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, Z, FRAMES, H, W, generator=generator)
    t = torch.rand(B, FRAMES, generator=generator)
    prompt_ids = torch.randint(1, 9, (B, L), generator=generator)
    return x, t, prompt_ids


@torch.no_grad()
def call(network, x, t, prompt_ids):
    """One batch of one shape."""
    return network([x], [t], [prompt_ids])[0]


def rope_angles(position):
    """Eight pairs of numbers: two for each axis, and two that never turn."""
    return [coordinate * frequency for coordinate in position for frequency in (1.0, 0.01)] + [0.0, 0.0]


def turned(x, position):
    """RoPE for one token's heads (heads, 16): pairs are complex numbers; two of the eight turn with each
    axis."""
    turn = torch.polar(torch.ones(8), torch.tensor(rope_angles(position)))
    pairs = torch.complex(x[:, :8], x[:, 8:]) * turn
    return torch.cat([pairs.real, pairs.imag], 1)


def one_block(block, x, positions, modulation):
    """adaLN-Zero (DiT, figure 3) for the tokens of one clip, with PyTorch's own attention."""
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = [part[0] for part in modulation.split(1)]
    h = F.layer_norm(x, (32,)) * (1 + scale_msa) + shift_msa
    q, k, v = [(h @ weight.T).reshape(-1, 2, 16) for weight in block.qkv.weight.split(32)]
    q = torch.stack([turned(F.layer_norm(q[i], (16,)), positions[i]) for i in range(len(x))], 1)
    k = torch.stack([turned(F.layer_norm(k[i], (16,)), positions[i]) for i in range(len(x))], 1)
    attended = F.scaled_dot_product_attention(q, k, v.transpose(0, 1)).transpose(0, 1).flatten(1)
    x = x + gate_msa * (attended @ block.proj.weight.T)
    h = F.layer_norm(x, (32,)) * (1 + scale_mlp) + shift_mlp
    return x + gate_mlp * block.mlp_out(F.silu(block.mlp_in(h)))


@torch.no_grad()
def test_the_network_is_the_papers_equations_for_one_clip(awake):
    """Written again for one clip of 2x4x6 latents, token by token: no packing, no shared modulation, no
    kernels."""
    x, t, prompt_ids = inputs()
    x = x[:1, :, :2]
    t = t[:1, :2]
    prompt_ids = prompt_ids[:1]
    positions = [(float(i - L), 0.0, 0.0) for i in range(L)]
    levels = L * [0.0]
    tokens = [awake.word_embedding.weight[i] for i in prompt_ids[0]]
    for f, h, w in itertools.product(range(2), range(2), range(3)):
        patch = x[0, :, f, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2].permute(1, 2, 0).flatten()
        tokens.append(awake.patch_embedding(patch))
        positions.append((float(f), float(h), float(w)))
        levels.append(t[0, f].item())

    # Each token's position, from both ends, is added to it.
    for i, (f, h, w) in enumerate(positions):
        waves = []
        for position in ((f, h, w), (1 - f, 1 - h, 2 - w)):
            waves.append(torch.tensor(rope_angles(position)))
        waves = torch.cat([waves[0].cos(), waves[0].sin(), waves[1].cos(), waves[1].sin()])
        tokens[i] = tokens[i] + awake.position_embedding(waves)

    hidden = torch.stack(tokens)
    embedding = awake.timestep_mlp(timestep_embedding(torch.tensor(levels)))
    for block in awake.blocks:
        modulation = awake.modulation(embedding) + block.modulation_offset
        modulation = modulation.reshape(-1, 6, 32).transpose(0, 1)
        hidden = one_block(block, hidden, positions, modulation)
    shift, scale = awake.final_modulation(embedding).split(32, 1)
    out = awake.final_linear(F.layer_norm(hidden, (32,)) * (1 + scale) + shift)[L:]

    expected = out.reshape(2, 2, 3, 2, 2, Z).permute(5, 0, 1, 3, 2, 4).reshape(1, Z, 2, H, W)
    torch.testing.assert_close(call(awake, x, t, prompt_ids), expected, atol=1e-4, rtol=1e-4)


def record_blocks(network):
    """What goes into each block and what comes out, when the network is called."""
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda block, args, out: seen.append((args[0], out)))
    return seen


def test_every_block_of_the_assembled_network_starts_as_the_identity(fresh):
    seen = record_blocks(fresh)
    call(fresh, *inputs())
    assert len(seen) == 3
    for x, out in seen:
        assert torch.equal(x, out)
        assert x.std() > 0.1


def test_the_untrained_prediction_is_zero(fresh):
    assert torch.equal(call(fresh, *inputs()), torch.zeros(B, Z, FRAMES, H, W))


def test_the_untrained_modulation_is_zero(fresh):
    embedding = torch.randn(7, CONFIG.dit_width)
    assert not fresh.modulation(embedding).any()
    assert not fresh.final_modulation(embedding).any()
    assert not any(block.modulation_offset.any() for block in fresh.blocks)


def test_words_start_apart_from_each_other(fresh):
    vectors = fresh.word_embedding.weight.detach()
    assert vectors.std() > 0.5
    assert torch.pdist(vectors).min() > 1


def test_biases_start_at_zero_and_weights_keep_the_size_of_signals(fresh):
    for name, p in fresh.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(p, torch.zeros_like(p)), name
    weight = fresh.blocks[0].mlp_in.weight.detach()
    glorot = (2 / sum(weight.shape)) ** 0.5  # Glorot & Bengio 2010, eq. 16
    assert weight.std().item() == pytest.approx(glorot, rel=0.1)


def test_a_level_reaches_its_own_frame_and_no_other(silent):
    """With attention silenced tokens cannot talk, so only the modulation carries the level."""
    x, t, prompt_ids = inputs()
    before = call(silent, x, t, prompt_ids)
    t[:, 2] = 1 - t[:, 2]
    change = (call(silent, x, t, prompt_ids) - before).abs().amax(dim=(0, 1, 3, 4))
    assert (change > 1e-6).tolist() == [False, False, True, False, False]


def test_words_have_level_0(awake):
    """A word's input to the first block is modulated like that of a patch at level 0, whatever the patches'
    level."""
    x, t, prompt_ids = inputs()
    modulations = []
    awake.blocks[0].register_forward_hook(lambda block, args, out: modulations.append(args[1]))
    call(awake, x, torch.zeros_like(t), prompt_ids)
    call(awake, x, torch.full_like(t, 0.9), prompt_ids)
    clean, noisy = modulations
    words = [0, 1 + FRAMES]
    torch.testing.assert_close(noisy[words], clean[words])
    assert not torch.allclose(noisy[1], clean[1])
    torch.testing.assert_close(clean[1], clean[0])


def test_every_part_of_the_modulation_acts(awake):
    """shift, scale and gate, of attention and of the MLP."""
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    D = CONFIG.dit_width
    for part in range(6):
        offset = awake.blocks[1].modulation_offset.data
        offset[part * D : (part + 1) * D] += 0.5
        assert (call(awake, x, t, prompt_ids) - before).abs().max() > 1e-4
        offset[part * D : (part + 1) * D] -= 0.5


def test_a_closed_gate_silences_its_branch(awake):
    """The modulation's order is shift, scale, gate of attention, then of the MLP."""
    D = CONFIG.dit_width
    awake.modulation.weight.data.zero_()
    awake.modulation.bias.data.zero_()
    block = awake.blocks[1]
    block.modulation_offset.data[2 * D : 3 * D] = 0
    block.modulation_offset.data[5 * D : 6 * D] = 0
    seen = record_blocks(awake)
    call(awake, *inputs())
    assert torch.equal(seen[1][0], seen[1][1])


def test_patches_hear_the_words(awake):
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    other = prompt_ids.clone()
    other[:, 1] = prompt_ids[:, 1] % 8 + 1
    assert ((call(awake, x, t, other) - before).abs().amax(dim=1) > 0).all()


def test_the_order_of_the_words_matters(awake):
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    assert (call(awake, x, t, prompt_ids.flip(1)) - before).abs().max() > 1e-3


def test_every_patch_hears_every_frame(awake):
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    later = x.clone()
    later[:, :, -1] += 1
    assert ((call(awake, later, t, prompt_ids) - before).abs().amax(dim=1) > 0).all()


def test_the_size_of_queries_and_keys_does_not_matter(awake):
    """QK-norm: a hundred times larger queries and keys give the same attention."""
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    D = CONFIG.dit_width
    for block in awake.blocks:
        block.qkv.weight.data[: 2 * D] *= 100
    torch.testing.assert_close(call(awake, x, t, prompt_ids), before, atol=1e-3, rtol=1e-3)


def test_the_size_of_values_matters(awake):
    x, t, prompt_ids = inputs()
    before = call(awake, x, t, prompt_ids)
    D = CONFIG.dit_width
    awake.blocks[0].qkv.weight.data[2 * D :] *= 100
    assert (call(awake, x, t, prompt_ids) - before).abs().max() > 1e-2


def test_packed_is_the_same_as_separate(awake):
    """Outputs and gradients of five clips of four shapes, an image among them."""
    shapes = [(1, 5, 4, 6), (2, 1, 6, 2), (1, 3, 2, 8), (1, 8, 12, 12)]
    x = [torch.randn(B, Z, f, h, w) for B, f, h, w in shapes]
    t = [torch.rand(B, f) for B, f, _, _ in shapes]
    prompt_ids = [torch.randint(1, 9, (B, L)) for B, _, _, _ in shapes]
    weights = [torch.randn_like(latents) for latents in x]

    packed = awake(x, t, prompt_ids)
    sum((out * weight).sum() for out, weight in zip(packed, weights, strict=True)).backward()
    packed_gradients = [p.grad.clone() for p in awake.parameters()]
    awake.zero_grad()

    for group in range(len(shapes)):
        for i in range(len(x[group])):
            clip = slice(i, i + 1)
            alone = awake([x[group][clip]], [t[group][clip]], [prompt_ids[group][clip]])[0]
            torch.testing.assert_close(packed[group][clip], alone, atol=1e-5, rtol=1e-5)
            (alone * weights[group][clip]).sum().backward()
    for p, gradient in zip(awake.parameters(), packed_gradients, strict=True):
        tolerance = 1e-5 * p.grad.abs().max().item()
        torch.testing.assert_close(gradient, p.grad, atol=tolerance, rtol=1e-5)


def test_patches_know_how_far_the_edges_are(silent):
    """The same patches at the same positions in a wider frame: what was the last column is no more."""
    x, t, prompt_ids = inputs()
    wide = torch.cat([x, x], 4)
    change = call(silent, wide, t, prompt_ids)[..., :W] - call(silent, x, t, prompt_ids)
    assert (change.abs().amax(dim=(1, 2, 3)) > 1e-4).all()


def test_positions_count_from_the_start_and_to_the_end():
    positions = token_positions((2, 3, 4), L=2)                                        # (2 + 24, 2, 3)
    assert positions[:2, 0].tolist() == [[-2, 0, 0], [-1, 0, 0]]                # words stand before the video
    assert positions[2].tolist() == [[0, 0, 0], [1, 2, 3]]                             # the first patch
    assert positions[-1].tolist() == [[1, 2, 3], [0, 0, 0]]                            # the last patch


def test_every_token_gets_the_level_of_its_own_frame():
    prompt_ids = [torch.zeros(2, 5), torch.zeros(1, 3)]
    counts = tokens_per_level([(2, 3, 4), (1, 2, 2)], prompt_ids)
    assert counts.tolist() == [5, 12, 12, 5, 12, 12, 3, 4]


def test_the_timestep_embedding_waves_from_1_to_1000_radians():
    t = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    embedding = timestep_embedding(t, 6)
    for i, radians in enumerate((1, 1000**0.5, 1000)):
        torch.testing.assert_close(embedding[..., i], torch.cos(radians * t), atol=1e-3, rtol=0)
        torch.testing.assert_close(embedding[..., 3 + i], torch.sin(radians * t), atol=1e-3, rtol=0)
    assert timestep_embedding(t).shape == (2, 2, 256)
    assert math.isclose(embedding[0, 0].sum(), 3, abs_tol=1e-5)                       # at 0: cos = 1, sin = 0


@pytest.mark.parametrize("size", [(1, 2, 2), (1, 8, 4), (9, 2, 10), (80, 4, 4)])
def test_one_network_takes_any_length_size_and_aspect_ratio(awake, size):
    f, h, w = size                                                                   # the last is a long clip
    out = call(awake, torch.randn(1, Z, f, h, w), torch.rand(1, f), torch.ones(1, L, dtype=torch.long))
    assert out.shape == (1, Z, f, h, w)


def test_every_weight_learns(awake):
    x, t, prompt_ids = inputs()
    awake([x], [t], [prompt_ids])[0].square().mean().backward()
    for name, p in awake.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_levels_that_are_not_one_per_clip_and_frame_are_refused(fresh):
    x, t, prompt_ids = inputs()
    with pytest.raises(BadInput, match="one per clip and latent frame"):
        call(fresh, x, t[:, :1], prompt_ids)


def test_the_shares_of_a_block_mix_its_values_into_what_its_attention_gives(awake, monkeypatch):
    calls = []
    attention = dit.attention

    def watched(q, k, v, *others):
        calls.append((v, attention(q, k, v, *others)))
        return calls[-1][1]

    monkeypatch.setattr(dit, "attention", watched)
    x, t, prompt_ids = [group[:1] for group in inputs()]
    shares = attention_shares(awake, awake.blocks[1], x, t, prompt_ids)
    values, mixed = calls[1]
    torch.testing.assert_close((shares @ values.transpose(0, 1)).transpose(0, 1), mixed)
    torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:2]))
    assert not awake.blocks[1].qkv._forward_hooks  # and the network is as it was


def test_the_picture_of_attention_has_a_map_for_each_head_and_tells_the_words(model, tmp_path, capsys):
    draw_attention(model, tmp_path / "dit.png")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert all(re.search(r"a \d+%, red \d+%, circle \d+%, moving \d+%, right \d+%,", line) for line in told)

    # Clip, noisy clip, two heads; the lightest patch of a head's map is white.
    picture = iio.imread(tmp_path / "dit.png").astype(int)
    assert len(picture) > 4 * 96
    assert (picture == GREEN).all(-1).any()


def test_blocks_that_are_computed_again_give_the_same_gradients(awake, monkeypatch):
    runs = []
    gradients = []
    attend = dit.attention
    monkeypatch.setattr(dit, "attention", lambda *args: runs.append(1) or attend(*args))
    for awake.recompute in (False, True):
        x, t, prompt_ids = inputs()
        loss = awake([x], [t], [prompt_ids])[0].square().sum()
        gradients.append(torch.autograd.grad(loss, list(awake.parameters())))
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)
    assert len(runs) == 3 * len(awake.blocks)

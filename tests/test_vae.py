"""The VAE: causal in time, the same in chunks, and its loss is the textbook's."""
from config import BadInput, Config

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vae as vae_module
from data.video_io import film_strip, to_float, to_uint8
from vae import (
    VAE,
    CausalConv,
    ResBlock,
    SpatialConv,
    UpsampleTime,
    latent_to_frame_mask,
    psnr,
    rms_norm,
    vae_loss,
)

CONFIG = Config(vae_width=16, latent_channels=3)


@pytest.fixture
def vae():
    """As if trained a little: the blocks that start as the identity are awake."""
    torch.manual_seed(0)
    vae = VAE(CONFIG)
    for p in vae.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return vae


@pytest.mark.parametrize("size", [(1, 8, 12), (5, 8, 12), (17, 12, 20)])
def test_a_clip_is_four_times_smaller_and_comes_back_in_its_size(vae, size):
    T, H, W = size
    mean, log_variance = vae.encode(torch.randn(2, 3, T, H, W))
    assert mean.shape == log_variance.shape == (2, 3, 1 + (T - 1) // 4, H // 4, W // 4)
    assert vae.decode(mean).shape == (2, 3, T, H, W)


def test_vae_space_sets_the_factor_in_space():
    eightfold = VAE(Config(vae_width=16, vae_space=8))
    mean, _ = eightfold.encode(torch.randn(1, 3, 5, 16, 24))
    assert mean.shape == (1, 8, 2, 2, 3)
    assert eightfold.decode(mean).shape == (1, 3, 5, 16, 24)


@pytest.mark.parametrize("size", [(4, 8, 12), (5, 10, 12), (5, 8, 13)])
def test_sizes_that_do_not_fit_are_refused(vae, size):
    with pytest.raises(BadInput, match="1 \\+ 4k frames, height and width multiples of 4"):
        vae.encode(torch.randn(1, 3, *size))


def test_before_a_clip_stands_its_first_frame_again():
    conv = CausalConv(3, 4)
    x = torch.randn(2, 3, 5, 2, 3)
    padded = F.pad(x, (0, 0, 0, 0, 2, 0), mode="replicate")
    torch.testing.assert_close(conv(x, {}), F.conv3d(padded, conv.weight, conv.bias))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_causal_convolution_goes_on_where_the_chunk_before_ended(stride):
    conv = CausalConv(3, 4, stride)
    x = torch.randn(2, 3, 9, 2, 3)
    cache = {}
    chunks = [conv(chunk, cache) for chunk in (x[:, :, :5], x[:, :, 5:])]
    torch.testing.assert_close(torch.cat(chunks, 2), conv(x, {}))


def test_a_spatial_convolution_sees_one_frame():
    conv = SpatialConv(3, 4)
    x = torch.randn(2, 3, 5, 4, 6)
    frame = F.conv2d(x[:, :, 2], conv.weight[:, :, 0], conv.bias, padding=1)
    torch.testing.assert_close(conv(x)[:, :, 2], frame)


def test_a_res_block_is_its_formula():
    block = ResBlock(8)
    x = torch.randn(2, 8, 3, 4, 6)
    inside = block.spatial(F.silu(rms_norm(x)))
    torch.testing.assert_close(block(x, {}), x + block.temporal(F.silu(inside), {}))


def test_rms_norm_is_pytorchs_over_channels():
    x = 5 * torch.randn(2, 8, 3, 4, 6)
    expected = F.rms_norm(x.movedim(1, -1), (8,), eps=1e-6).movedim(-1, 1)
    torch.testing.assert_close(rms_norm(x), expected)


def test_upsampling_doubles_every_frame_but_the_first():
    """With a convolution that copies its frame into both halves, frames 0 1 2 become 0 1 1 2 2."""
    upsample = UpsampleTime(1)
    upsample.conv.weight.data.zero_()
    upsample.conv.weight.data[:, 0, 2] = 1
    upsample.conv.bias.data.zero_()
    x = torch.tensor([5.0, 7.0, 9.0]).reshape(1, 1, 3, 1, 1)
    assert upsample(x, {}).flatten().tolist() == [5, 7, 7, 9, 9]


def test_the_two_halves_of_an_upsampled_frame_are_in_order():
    upsample = UpsampleTime(2)
    x = torch.randn(1, 2, 3, 4, 6)
    halves = upsample.conv(x, {})                                                      # (1, 2 * 2, 3, 4, 6)
    doubled = upsample(x, {})
    torch.testing.assert_close(doubled[:, :, 1], halves[:, :2, 1])
    torch.testing.assert_close(doubled[:, :, 2], halves[:, 2:, 1])


def test_every_block_starts_as_the_identity_and_the_latent_with_little_noise():
    fresh = VAE(CONFIG)
    x = torch.randn(2, 16, 3, 4, 6)
    for layer in [*fresh.encoder, *fresh.decoder]:
        if isinstance(layer, ResBlock):
            assert torch.equal(layer(x, {}), x)
    _, log_variance = fresh.encode(0.1 * torch.randn(2, 3, 5, 8, 12))
    assert log_variance.mean().item() == pytest.approx(-5, abs=1)


@torch.no_grad()
@pytest.mark.parametrize("frame", range(13))
def test_a_latent_frame_sees_its_own_frames_and_the_past(vae, frame):
    """Frame 4i - 3 ... 4i is first seen by latent frame i."""
    video = torch.randn(1, 3, 13, 8, 12)
    changed = video.clone()
    changed[:, :, frame] += 1
    moved = (vae.encode(changed)[0] - vae.encode(video)[0]).abs().amax(dim=(0, 1, 3, 4)) > 0
    first = (frame + 3) // 4
    assert not moved[:first].any()
    assert moved[first]


@torch.no_grad()
@pytest.mark.parametrize("i", range(4))
def test_a_decoded_frame_sees_its_own_latent_frame_and_the_past(vae, i):
    latent = torch.randn(1, 3, 4, 2, 3)
    changed = latent.clone()
    changed[:, :, i] += 1
    moved = (vae.decode(changed) - vae.decode(latent)).abs().amax(dim=(0, 1, 3, 4)) > 0
    first = max(0, 4 * i - 3)
    assert not moved[:first].any()
    assert moved[first]


@torch.no_grad()
@pytest.mark.parametrize("chunk_frames", (4, 8))
def test_chunks_give_what_the_whole_gives(vae, monkeypatch, chunk_frames):
    video = torch.randn(2, 3, 33, 8, 12)
    latent, _ = vae.encode(video)
    decoded = vae.decode(latent)

    lengths = []
    vae.encoder[0].register_forward_hook(lambda layer, args, out: lengths.append(out.shape[2]))
    vae.decoder[0].register_forward_hook(lambda layer, args, out: lengths.append(out.shape[2]))
    monkeypatch.setattr(vae_module, "CHUNK_FRAMES", chunk_frames)
    torch.testing.assert_close(vae.encode(video)[0], latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.decode(latent), decoded, atol=1e-5, rtol=1e-5)
    chunks = 32 // chunk_frames
    in_pixels = [1 + chunk_frames] + (chunks - 1) * [chunk_frames]
    in_latents = [1 + chunk_frames // 4] + (chunks - 1) * [chunk_frames // 4]
    assert lengths == in_pixels + in_latents


@torch.no_grad()
def test_pixels_and_their_latent_are_in_the_same_place(vae):
    """Changing one corner of the picture changes that corner of the latent most."""
    video = torch.zeros(1, 3, 1, 32, 48)
    changed = video.clone()
    changed[..., -4:, :4] = 1
    difference = (vae.encode(changed)[0] - vae.encode(video)[0]).abs().sum(dim=(0, 1, 2))
    row, column = divmod(difference.argmax().item(), 12)  # of 8 x 12
    assert row >= 6
    assert column <= 1


KNOWN = torch.zeros(3, 13, dtype=torch.bool)
KNOWN[0, :5] = True
KNOWN[1, 8:] = True
KNOWN[2, 0] = True
KNOWN[2, 4:9] = True


@torch.no_grad()
def test_a_latent_frame_is_given_if_all_its_frames_are_known(vae):
    _, given = vae.encode_known(torch.randn(3, 3, 13, 8, 12), KNOWN)
    assert given.tolist() == [
        [True, True, False, False],
        [False, False, False, True],  # frame 8 is known, frames 5 to 7 are not
        [True, False, True, False],
    ]


@torch.no_grad()
def test_what_unknown_frames_hold_does_not_matter(vae):
    video = torch.randn(3, 3, 13, 8, 12)
    other = torch.where(KNOWN[:, None, :, None, None], video, 9 * torch.randn_like(video))
    assert torch.equal(vae.encode_known(other, KNOWN)[0], vae.encode_known(video, KNOWN)[0])


@torch.no_grad()
def test_unknown_frames_are_filled_with_the_nearest_known_one(vae):
    video = torch.randn(3, 3, 13, 8, 12)
    latents, _ = vae.encode_known(video, KNOWN)
    nearest = [0, 0, 0, 4, 4, 5, 6, 7, 8, 8, 8, 8, 8]  # frame 2 is as near to 0 as to 4: the earlier one
    filled = video[2:, :, nearest]
    torch.testing.assert_close(latents[2:], vae.encode(filled)[0])


@torch.no_grad()
def test_given_latents_after_a_known_past_are_those_of_the_whole_clip(vae):
    video = torch.randn(3, 3, 13, 8, 12)
    latents, _ = vae.encode_known(video, KNOWN)
    torch.testing.assert_close(latents[:1, :, :2], vae.encode(video[:1])[0][:, :, :2])


@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame(vae):
    video = torch.randn(2, 3, 5, 8, 12)
    latent, _ = vae.encode(video)
    torch.testing.assert_close(vae.encode(video[:, :, :1])[0], latent[:, :, :1])
    torch.testing.assert_close(vae.decode(latent[:, :, :1]), vae.decode(latent)[:, :, :1])


def test_the_first_latent_frame_stands_for_one_frame_and_every_other_for_four():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    frames = latent_to_frame_mask(mask).int().tolist()
    assert frames == [[1, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0, 0, 0]]


def test_the_kl_is_torchs(vae):
    video = torch.randn(2, 3, 5, 8, 12)
    mean, log_variance = vae.encode(video)
    posterior = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    prior = torch.distributions.Normal(0.0, 1.0)
    loss, error = vae_loss(vae, video, 0.7)
    kl = torch.distributions.kl_divergence(posterior, prior).mean()
    torch.testing.assert_close(loss - error, 0.7 * kl)


def test_the_error_is_of_a_draw_from_the_posterior(vae):
    video = torch.randn(2, 3, 5, 8, 12)
    mean, log_variance = vae.encode(video)
    torch.manual_seed(1)
    draw = torch.distributions.Normal(mean, torch.exp(log_variance / 2)).rsample()
    torch.manual_seed(1)
    _, error = vae_loss(vae, video, 0.0)
    torch.testing.assert_close(error, F.mse_loss(vae.decode(draw), video))


def test_a_few_steps_of_training_halve_the_error():
    torch.manual_seed(0)
    vae = VAE(CONFIG)
    video = torch.rand(2, 3, 5, 8, 12)
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        loss, error = vae_loss(vae, video, 1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


def test_psnr_counts_from_an_error_of_the_whole_range():
    assert psnr(4.0) == 0
    assert psnr(0.04) == pytest.approx(20)


def test_the_picture_shows_a_clip_its_reconstruction_and_five_times_the_difference(vae, tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
    decibels = vae_module.draw_reconstruction(vae, clip, tmp_path / "vae.png")

    with torch.no_grad():
        decoded = vae.decode(vae.encode(to_float(clip[None]))[0])
    again = to_uint8(decoded)[0]
    difference = np.clip(5.0 * (np.maximum(clip, again) - np.minimum(clip, again)), 0, 255).astype(np.uint8)
    captions = ["a clip", f"through the VAE, {decibels:.1f} dB", "how far they differ, 5 times as bright"]
    expected = film_strip([clip, again, difference], captions)
    assert (iio.imread(tmp_path / "vae.png") == expected).all()
    assert decibels == pytest.approx(psnr(((decoded - to_float(clip[None])) ** 2).mean()))

import pytest
import torch

from config import BadInput, Config
from vae import VAE, psnr

CONFIG = Config(vae_width=16, latent_channels=3)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    vae = VAE(CONFIG)
    for p in vae.parameters():  # wake the blocks that start as the identity
        p.data += 0.05 * torch.randn_like(p)
    return vae


def test_shapes_for_images_and_clips_of_any_size(vae):
    for T, H, W in ((1, 8, 12), (5, 8, 12), (17, 12, 20)):
        mean, log_variance = vae.encode(torch.randn(2, 3, T, H, W))
        assert mean.shape == log_variance.shape == (2, 3, 1 + (T - 1) // 4, H // 4, W // 4)
        assert vae.decode(mean).shape == (2, 3, T, H, W)
    eightfold = VAE(Config(vae_width=16, vae_space=8))
    assert eightfold.decode(eightfold.encode(torch.randn(1, 3, 5, 16, 24))[0]).shape == (1, 3, 5, 16, 24)


def test_sizes_that_do_not_fit_are_refused(vae):
    for shape in ((1, 3, 4, 8, 12), (1, 3, 5, 10, 12), (1, 3, 5, 8, 13)):
        with pytest.raises(BadInput, match="1 \\+ 4k frames"):
            vae.encode(torch.randn(shape))


@torch.no_grad()
def test_nothing_looks_ahead(vae):
    """Latent frame i sees frames 0 ... 4i, and decoding frames 4i - 3 ... 4i sees latents 0 ... i."""
    video = torch.randn(1, 3, 13, 8, 12)
    latent = vae.encode(video)[0]
    for frame in range(13):
        changed = video.clone()
        changed[:, :, frame] += 1
        moved = (vae.encode(changed)[0] - latent).abs().amax(dim=(0, 1, 3, 4)) > 0
        first = (frame + 3) // 4
        assert not moved[:first].any() and moved[first], f"frame {frame} reached latent frames {moved.nonzero().flatten().tolist()}"
    decoded = vae.decode(latent)
    for i in range(4):
        changed = latent.clone()
        changed[:, :, i] += 1
        moved = (vae.decode(changed) - decoded).abs().amax(dim=(0, 1, 3, 4)) > 0
        first = max(0, 4 * i - 3)
        assert not moved[:first].any() and moved[first]


@torch.no_grad()
@pytest.mark.parametrize("piece", (4, 8))
def test_pieces_give_what_the_whole_gives(vae, monkeypatch, piece):
    video = torch.randn(2, 3, 33, 8, 12)
    latent = vae.encode(video)[0]
    decoded = vae.decode(latent)
    calls = []
    vae.encoder[0].register_forward_hook(lambda layer, args, out: calls.append(out.shape[2]))
    monkeypatch.setattr("vae.CHUNK_FRAMES", piece)
    torch.testing.assert_close(vae.encode(video)[0], latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.decode(latent), decoded, atol=1e-5, rtol=1e-5)
    assert calls == [1 + piece] + [piece] * (32 // piece - 1)


@torch.no_grad()
def test_what_is_given_is_known_pixels_and_nothing_else(vae):
    video = torch.randn(3, 3, 13, 8, 12)
    known = torch.zeros(3, 13, dtype=torch.bool)
    known[0, :5], known[1, 8:], known[2, 0], known[2, 4:9] = True, True, True, True
    latents, given = vae.encode_known(video, known)
    assert given.tolist() == [[True, True, False, False], [False, False, False, True], [True, False, True, False]]  # whole latent frames only
    noise = torch.where(known[:, None, :, None, None], video, 9 * torch.randn_like(video))
    assert torch.equal(vae.encode_known(noise, known)[0], latents)
    torch.testing.assert_close(latents[0, :, :2], vae.encode(video[:1, :, :5])[0][0])  # the past is known: as it is in the whole clip
    held = torch.cat([video[1:2, :, 8:9].expand(-1, -1, 8, -1, -1), video[1:2, :, 8:]], 2)
    torch.testing.assert_close(latents[1], vae.encode(held)[0][0])


@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame(vae):
    video = torch.randn(2, 3, 5, 8, 12)
    torch.testing.assert_close(vae.encode(video[:, :, :1])[0], vae.encode(video)[0][:, :, :1])
    z = vae.encode(video)[0]
    torch.testing.assert_close(vae.decode(z[:, :, :1]), vae.decode(z)[:, :, :1])


def test_the_kl_is_torchs(vae):
    video = torch.randn(2, 3, 5, 8, 12)
    mean, log_variance = vae.encode(video)
    q, p = torch.distributions.Normal(mean, torch.exp(log_variance / 2)), torch.distributions.Normal(0.0, 1.0)
    torch.manual_seed(1)
    loss, error = vae.loss(video, 0.7)
    torch.testing.assert_close(loss - error, 0.7 * torch.distributions.kl_divergence(q, p).mean())


def test_a_few_steps_of_training_reduce_the_error():
    torch.manual_seed(0)
    vae, video = VAE(CONFIG), torch.rand(2, 3, 5, 8, 12)
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        loss, error = vae.loss(video, 1e-6)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


def test_psnr():
    assert psnr(4.0) == 0 and psnr(0.04) == pytest.approx(20)

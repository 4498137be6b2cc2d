
import pytest
import torch

import diffusion
from config import BadInput, Config
from diffusion import Schedule, classifier_free_guidance, denoise_step, diffusion_loss, sample_latents, sampling_times, target_coefficients, to_x0_and_eps

KINDS, TARGETS = ("flow", "cosine", "linear"), ("velocity", "v", "eps")


def pair(schedule, level):
    return schedule.alpha(level).double(), schedule.sigma(level).double()


def test_every_schedule_goes_from_data_to_noise():
    level = torch.linspace(0, 1, 101)
    for kind in KINDS:
        alpha, sigma = Schedule(kind).alpha(level), Schedule(kind).sigma(level)
        assert (alpha[0], sigma[0]) == (1, 0) and alpha[-1] < 0.01 and sigma[-1] > 0.99
        assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all() or kind == "linear"
    with pytest.raises(BadInput, match="flow, cosine or linear"):
        Schedule("quadratic")


def test_linear_is_ddpms_thousand_steps():
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    for n in (1, 10, 500, 1000):
        alpha, sigma = pair(Schedule("linear"), n / 1000)
        assert alpha**2 == pytest.approx(alpha_bar[n - 1].item(), rel=1e-4) and alpha**2 + sigma**2 == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_prediction_gives_back_x_0_and_eps(kind, target):
    x_0, eps = torch.randn(2, 5, dtype=torch.float64)
    alpha, sigma = pair(Schedule(kind), 0.6)
    a, b = target_coefficients(target, alpha, sigma)
    for got, true in zip(to_x0_and_eps(alpha * x_0 + sigma * eps, a * eps + b * x_0, alpha, sigma, target), (x_0, eps)):
        torch.testing.assert_close(got, true)


def test_eta_1_is_ddpms_posterior():
    """Ho et al. 2020, eq. 6 and 7, one of their thousand steps."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)
    x_0, x_t, n = torch.tensor(0.3), torch.tensor(-1.1), 400
    now, then = (bar[n] ** 0.5, (1 - bar[n]) ** 0.5), (bar[n - 1] ** 0.5, (1 - bar[n - 1]) ** 0.5)
    mean = bar[n - 1] ** 0.5 * beta[n] / (1 - bar[n]) * x_0 + (1 - beta[n]) ** 0.5 * (1 - bar[n - 1]) / (1 - bar[n]) * x_t
    variance = (1 - bar[n - 1]) / (1 - bar[n]) * beta[n]
    quiet, loud = (denoise_step(x_t, x_0, (x_t - now[0] * x_0) / now[1], now, then, 1.0, noise) for noise in (0.0, 1.0))
    torch.testing.assert_close(quiet, mean, check_dtype=False)
    torch.testing.assert_close((loud - quiet) ** 2, variance, check_dtype=False)


def test_ddim_on_the_straight_line_is_eulers_step():
    x_0, eps = torch.randn(2, 4)
    t, s, schedule = 0.7, 0.45, Schedule("flow")
    x_t = schedule.add_noise(x_0, eps, t)
    ours = denoise_step(x_t, x_0, eps, (schedule.alpha(t), schedule.sigma(t)), (schedule.alpha(s), schedule.sigma(s)), 0.0, 0.0)
    torch.testing.assert_close(ours, x_t + (s - t) * (eps - x_0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_leaves_no_noise_and_any_number_of_steps_ends_at_0(kind):
    schedule, x_0, eps = Schedule(kind), torch.randn(3), torch.randn(3)
    now, end = ((schedule.alpha(t), schedule.sigma(t)) for t in (0.3, 0.0))
    for eta in (0.0, 1.0):
        assert torch.equal(denoise_step(schedule.add_noise(x_0, eps, 0.3), x_0, eps, now, end, eta, torch.randn(3)), x_0)
    for n in (1, 7, 1000):
        grid = sampling_times(n, schedule, "v")
        assert len(grid) == n + 1 and grid[0] == 1 and grid[-1] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("eta", (0.0, 1.0))
def test_samplers_find_a_gaussian(kind, target, eta):
    """Data from N(2, 0.5^2) has a known perfect network, E[x_0 | x_t]; every sampler must end with that mean and spread."""
    torch.manual_seed(0)
    schedule = Schedule(kind)

    def perfect(x, level, words):
        x, level = x[0], level[0]
        alpha, sigma = (f(level[:, None, :, None, None]) for f in (schedule.alpha, schedule.sigma))
        x_0 = 2 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - 2 * alpha)
        a, b = target_coefficients(target, alpha, sigma)
        return [a * (x - alpha * x_0) / sigma + b * x_0]

    x = sample_latents(perfect, torch.zeros(4000, 1), lambda: torch.randn(4000, 1, 1, 1, 1), schedule, target, 200, eta, 1.0)
    assert x.mean().item() == pytest.approx(2, abs=0.06) and x.std().item() == pytest.approx(0.5, abs=0.04)


def test_guidance_acts_on_all_channels():
    one = lambda x, level, words: x + words.sum(1)[:, None, None, None, None] * torch.arange(1.0, 5)[:, None, None, None]
    network = lambda *groups: [one(*group) for group in zip(*groups)]
    x, level, words = torch.randn(2, 4, 3, 2, 2), torch.ones(2, 3), torch.ones(2, 2, dtype=torch.long)
    null, full = one(x, level, 0 * words), one(x, level, words)
    for w, expected in ((0, null), (1, full), (3, null + 3 * (full - null))):
        torch.testing.assert_close(classifier_free_guidance(network, x, level, words, w), expected)
    once = lambda *groups: network(*groups) if len(groups[0]) == 1 else pytest.fail("two passes where one would do")
    assert torch.equal(classifier_free_guidance(once, x, level, 0 * words, 3), null)


def test_given_frames_stay_and_enter_at_level_0():
    latents, given, seen = torch.randn(2, 3, 4, 2, 2), torch.tensor([[True, False, False, True]] * 2), []

    def network(x, level, words):
        seen.append(level[0])
        assert torch.equal(x[0][:, :, given[0]], latents[:, :, given[0]])
        return [torch.ones_like(x[0])]

    x = sample_latents(network, torch.zeros(2, 1), lambda: torch.randn(2, 3, 4, 2, 2), Schedule("flow"), "velocity", 3, 0.0, 1.0, (latents, given))
    assert torch.equal(x[:, :, given[0]], latents[:, :, given[0]]) and (x[:, :, 1:3] != latents[:, :, 1:3]).all()
    assert all((level[given] == 0).all() and (level[~given] > 0).all() for level in seen)


def test_an_edit_begins_with_the_clip_at_a_level_in_between():
    latents, given, seen = torch.randn(2, 3, 4, 2, 2), torch.zeros(2, 4, dtype=torch.bool), []

    def network(x, level, words):
        seen.append((x[0], level[0]))
        return [torch.zeros_like(x[0])]

    for noise in (torch.zeros_like(latents), torch.randn_like(latents)):
        sample_latents(network, torch.zeros(2, 1), lambda: noise, Schedule("flow"), "velocity", 3, 0.0, 1.0, (latents, given), 0.6)
        torch.testing.assert_close(seen[0], (0.4 * latents + 0.6 * noise, torch.full((2, 4), 0.6)))
        seen.clear()


def test_the_loss_counts_only_what_was_invented():
    level = [torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.5]]), torch.full((1, 1), 0.5)]
    x_0 = [torch.ones(2, 3, 3, 2, 2), torch.ones(1, 3, 1, 4, 2)]
    wrong = lambda x, level, words: [torch.where(one[:, None, :, None, None] == 0, 100.0, 0.0).expand_as(part) for part, one in zip(x, level)]
    torch.testing.assert_close(diffusion_loss(wrong, x_0, [None, None], level, [torch.zeros_like(x) for x in x_0], Schedule("flow"), "velocity"), torch.ones(3))


def test_every_kind_of_given_frames_is_trained_as_often_as_the_table_says():
    drawn = diffusion.draw_noise_levels(4000, 6, Config(given_prob=0.5, logit_mean=0.0))
    given, own = drawn == 0, (drawn.diff(dim=1) != 0).all(1) & (drawn > 0).all(1)
    share = lambda mask: mask.float().mean().item()
    assert share(given.any(1)) == pytest.approx(0.45, abs=0.03) and share(own) == pytest.approx(0.05, abs=0.02) and not given.all(1).any()
    only_first, starts, ends = given[:, 0] & ~given[:, 1:].any(1), given[:, 0] & ~given[:, -1], given[:, -1] & ~given[:, 0]
    both = given[:, 0] & given[:, -1]
    assert share(only_first) > 0.15 and share(starts) > 0.2 and share(ends) == pytest.approx(0.08, abs=0.03) and share(both) == pytest.approx(0.1, abs=0.03)
    whole = drawn[~given.any(1) & ~own]
    assert (drawn[given.any(1)].amax(1) > whole.median()).float().mean().item() == pytest.approx(0.84, abs=0.05)  # sigmoid(normal + 1) > 1/2
    assert (whole == whole[:, :1]).all() and whole.median().item() == pytest.approx(0.5, abs=0.03)
    assert (diffusion.draw_noise_levels(100, 1, Config(given_prob=1.0)) > 0).all() and (diffusion.draw_noise_levels(500, 2, Config(given_prob=1.0)) > 0).any(1).all()
    first = torch.arange(500) % 6
    assert ((diffusion.draw_noise_levels(500, 6, Config(given_prob=1.0), first) == 0).sum(1) == first)[first > 0].all()

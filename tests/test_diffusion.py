
import pytest
import torch

import diffusion
from config import BadInput, Config
from diffusion import Schedule, guide, levels, loss, mixture, predict, sample, step

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
    a, b = mixture(target, alpha, sigma)
    for got, true in zip(predict(alpha * x_0 + sigma * eps, a * eps + b * x_0, alpha, sigma, target), (x_0, eps)):
        torch.testing.assert_close(got, true)


def test_eta_1_is_ddpms_posterior():
    """Ho et al. 2020, eq. 6 and 7, one of their thousand steps."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)
    x_0, x_t, n = torch.tensor(0.3), torch.tensor(-1.1), 400
    now, then = (bar[n] ** 0.5, (1 - bar[n]) ** 0.5), (bar[n - 1] ** 0.5, (1 - bar[n - 1]) ** 0.5)
    mean = bar[n - 1] ** 0.5 * beta[n] / (1 - bar[n]) * x_0 + (1 - beta[n]) ** 0.5 * (1 - bar[n - 1]) / (1 - bar[n]) * x_t
    variance = (1 - bar[n - 1]) / (1 - bar[n]) * beta[n]
    quiet, loud = (step(x_t, x_0, (x_t - now[0] * x_0) / now[1], now, then, 1.0, noise) for noise in (0.0, 1.0))
    torch.testing.assert_close(quiet, mean, check_dtype=False)
    torch.testing.assert_close((loud - quiet) ** 2, variance, check_dtype=False)


def test_ddim_on_the_straight_line_is_eulers_step():
    x_0, eps = torch.randn(2, 4)
    t, s, schedule = 0.7, 0.45, Schedule("flow")
    x_t = schedule.mix(x_0, eps, t)
    ours = step(x_t, x_0, eps, (schedule.alpha(t), schedule.sigma(t)), (schedule.alpha(s), schedule.sigma(s)), 0.0, 0.0)
    torch.testing.assert_close(ours, x_t + (s - t) * (eps - x_0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_leaves_no_noise_and_any_number_of_steps_ends_at_0(kind):
    schedule, x_0, eps = Schedule(kind), torch.randn(3), torch.randn(3)
    now, end = ((schedule.alpha(t), schedule.sigma(t)) for t in (0.3, 0.0))
    for eta in (0.0, 1.0):
        assert torch.equal(step(schedule.mix(x_0, eps, 0.3), x_0, eps, now, end, eta, torch.randn(3)), x_0)
    for n in (1, 7, 1000):
        grid = levels(n, schedule, "v")
        assert len(grid) == n + 1 and grid[0] == 1 and grid[-1] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("eta", (0.0, 1.0))
def test_samplers_find_a_gaussian(kind, target, eta):
    """Data from N(2, 0.5^2) has a known perfect network, E[x_0 | x_t]; every sampler must end with that mean and spread."""
    torch.manual_seed(0)
    schedule = Schedule(kind)

    def perfect(x, level, words):
        alpha, sigma = (f(level[:, None, :, None, None]) for f in (schedule.alpha, schedule.sigma))
        x_0 = 2 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - 2 * alpha)
        a, b = mixture(target, alpha, sigma)
        return a * (x - alpha * x_0) / sigma + b * x_0

    x = sample(perfect, torch.zeros(4000, 1), lambda: torch.randn(4000, 1, 1, 1, 1), schedule, target, 200, eta, 1.0)
    assert x.mean().item() == pytest.approx(2, abs=0.06) and x.std().item() == pytest.approx(0.5, abs=0.04)


def test_guidance_acts_on_all_channels():
    network = lambda x, level, words: x + words.sum(1)[:, None, None, None, None] * torch.arange(1.0, 5)[:, None, None, None]
    x, level, words = torch.randn(2, 4, 3, 2, 2), torch.ones(2, 3), torch.ones(2, 2, dtype=torch.long)
    null, full = network(x, level, 0 * words), network(x, level, words)
    for w, expected in ((0, null), (1, full), (3, null + 3 * (full - null))):
        torch.testing.assert_close(guide(network, x, level, words, w), expected)


def test_given_frames_stay_and_enter_at_level_0():
    latents, given, seen = torch.randn(2, 3, 4, 2, 2), torch.tensor([[True, False, False, True]] * 2), []

    def network(x, level, words):
        seen.append(level)
        assert torch.equal(x[:, :, given[0]], latents[:, :, given[0]])
        return torch.ones_like(x)

    x = sample(network, torch.zeros(2, 1), lambda: torch.randn(2, 3, 4, 2, 2), Schedule("flow"), "velocity", 3, 0.0, 1.0, (latents, given))
    assert torch.equal(x[:, :, given[0]], latents[:, :, given[0]]) and (x[:, :, 1:3] != latents[:, :, 1:3]).all()
    assert all((level[given] == 0).all() and (level[~given] > 0).all() for level in seen)


def test_the_loss_counts_only_what_was_invented():
    level = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.5]])
    wrong = lambda x, level, words: torch.where(level[:, None, :, None, None] == 0, 100.0, 0.0).expand_as(x)
    x_0 = torch.ones(2, 3, 3, 2, 2)
    torch.testing.assert_close(loss(wrong, x_0, None, level, torch.zeros_like(x_0), Schedule("flow"), "velocity"), torch.ones(2))
    drawn = diffusion.draw_levels(2000, 4, Config(given_share=0.25, level_shift=0.0))
    assert (drawn[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert (drawn[:, 1:] == drawn[:, 1:2]).all() and drawn[:, 1].median().item() == pytest.approx(0.5, abs=0.03)
    assert (diffusion.draw_levels(100, 1, Config(given_share=1.0)) > 0).all()

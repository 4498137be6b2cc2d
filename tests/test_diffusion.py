"""Schedules, targets, the step that is DDPM and DDIM, levels for training, guidance, sampling: against the
papers' equations."""
from config import BadInput, Config

import math
from dataclasses import replace

import imageio.v3 as iio
import pytest
import torch

import diffusion
from diffusion import (
    Schedule,
    classifier_free_guidance,
    denoise_step,
    diffusion_loss,
    draw_noise_levels,
    draw_sampling,
    draw_schedules,
    noisier_levels,
    sample_latents,
    sampling_times,
    target_coefficients,
    to_x0_and_eps,
    watch_sampling,
)
from text import encode_prompts

KINDS = ("flow", "cosine", "linear")
TARGETS = ("velocity", "v", "eps")
ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)  # DDPM, sec. 4


def alpha_sigma(schedule, t):
    return schedule.alpha(t).double(), schedule.sigma(t).double()


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_goes_from_data_to_noise(kind):
    t = torch.linspace(0, 1, 101)
    alpha, sigma = alpha_sigma(Schedule(kind), t)
    assert (alpha[0], sigma[0]) == (1, 0)
    assert alpha[-1] < 0.01
    assert sigma[-1] > 0.99
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() >= 0).all()


def test_an_unknown_schedule_is_refused():
    with pytest.raises(BadInput, match="flow, cosine or linear"):
        Schedule("quadratic")


def test_flow_is_the_straight_line():
    assert alpha_sigma(Schedule("flow"), 0.3) == pytest.approx((0.7, 0.3))


def test_the_square_of_cosines_alpha_is_the_papers_alpha_bar():
    """Nichol & Dhariwal, eq. 17, with offset 0: alpha-bar = cos^2(t pi / 2). Our alpha is its square root."""
    for t in (0.1, 1 / 3, 0.5, 0.9):
        alpha, sigma = alpha_sigma(Schedule("cosine"), t)
        assert alpha**2 == pytest.approx(math.cos(t * math.pi / 2) ** 2, abs=1e-6)
        assert alpha**2 + sigma**2 == pytest.approx(1)


def test_the_square_of_linears_alpha_is_ddpms_alpha_bar():
    for step in (1, 10, 500, 1000):
        alpha, sigma = alpha_sigma(Schedule("linear"), step / 1000)
        assert alpha**2 == pytest.approx(ALPHA_BAR[step - 1].item(), rel=1e-4)
        assert alpha**2 + sigma**2 == pytest.approx(1)


def test_between_two_of_ddpms_steps_alpha_is_the_geometric_mean():
    between = Schedule("linear").alpha(0.4005).double()
    assert between**2 == pytest.approx((ALPHA_BAR[399] * ALPHA_BAR[400]).item() ** 0.5, rel=1e-5)


def test_noise_is_added_level_by_level():
    x_0 = torch.randn(2, 3, 4)
    eps = torch.randn(2, 3, 4)
    t = torch.tensor([0.2, 0.6])[:, None, None]
    x_t = Schedule("flow").add_noise(x_0, eps, t)
    torch.testing.assert_close(x_t[0], 0.8 * x_0[0] + 0.2 * eps[0])
    torch.testing.assert_close(x_t[1], 0.4 * x_0[1] + 0.6 * eps[1])


def test_the_targets_are_the_papers():
    """eps: DDPM. velocity: eps - x_0, rectified flow's direction. v = alpha eps - sigma x_0: Salimans & Ho,
    sec. 4."""
    assert target_coefficients("eps", 0.8, 0.6) == (1, 0)
    assert target_coefficients("velocity", 0.8, 0.6) == (1, -1)
    assert target_coefficients("v", 0.8, 0.6) == (0.8, -0.6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_prediction_gives_back_x_0_and_eps(kind, target):
    x_0, eps = torch.randn(2, 5, dtype=torch.float64)
    alpha, sigma = alpha_sigma(Schedule(kind), 0.6)
    a, b = target_coefficients(target, alpha, sigma)
    found_x_0, found_eps = to_x0_and_eps(alpha * x_0 + sigma * eps, a * eps + b * x_0, alpha, sigma, target)
    torch.testing.assert_close(found_x_0, x_0)
    torch.testing.assert_close(found_eps, eps)


def test_eta_1_is_ddpms_posterior():
    """DDPM, eq. 6 and 7, for one of its thousand steps."""
    step = 400
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[step]
    bar_t = ALPHA_BAR[step]
    bar_s = ALPHA_BAR[step - 1]
    x_0 = torch.tensor(0.3)
    x_t = torch.tensor(-1.1)
    eps = (x_t - bar_t**0.5 * x_0) / (1 - bar_t) ** 0.5
    current = (bar_t**0.5, (1 - bar_t) ** 0.5)
    lower = (bar_s**0.5, (1 - bar_s) ** 0.5)

    mean = bar_s**0.5 * beta / (1 - bar_t) * x_0 + (1 - beta) ** 0.5 * (1 - bar_s) / (1 - bar_t) * x_t
    variance = (1 - bar_s) / (1 - bar_t) * beta
    quiet = denoise_step(x_t, x_0, eps, current, lower, eta=1.0, noise=0.0)
    loud = denoise_step(x_t, x_0, eps, current, lower, eta=1.0, noise=1.0)
    torch.testing.assert_close(quiet, mean, check_dtype=False)
    torch.testing.assert_close(loud - quiet, variance**0.5, check_dtype=False)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_keeps_the_level_of_noise(eta):
    """Whatever eta: old and fresh noise together have sigma_s, since their variances add up."""
    torch.manual_seed(0)
    eps, noise = torch.randn(2, 100_000)
    x_s = denoise_step(0.4 * 0 + 0.8 * eps, 0.0, eps, (0.6, 0.8), (0.8, 0.6), eta, noise)
    assert x_s.std().item() == pytest.approx(0.6, rel=0.01)


def test_ddim_on_the_straight_line_is_eulers_step():
    x_0, eps = torch.randn(2, 4)
    t, s = 0.7, 0.45
    x_t = (1 - t) * x_0 + t * eps
    x_s = denoise_step(x_t, x_0, eps, (1 - t, t), (1 - s, s), eta=0.0, noise=0.0)
    torch.testing.assert_close(x_s, x_t + (s - t) * (eps - x_0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_last_step_leaves_no_noise(kind, eta):
    schedule = Schedule(kind)
    x_0, eps, noise = torch.randn(3, 7)
    current = (schedule.alpha(0.3), schedule.sigma(0.3))
    lower = (schedule.alpha(0.0), schedule.sigma(0.0))
    x_s = denoise_step(schedule.add_noise(x_0, eps, 0.3), x_0, eps, current, lower, eta, noise)
    assert torch.equal(x_s, x_0)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_any_number_of_steps_goes_evenly_from_1_to_0(steps):
    times = sampling_times(steps, Schedule("cosine"), "v")
    assert times[0] == 1
    assert times[-1] == 0
    torch.testing.assert_close(-times.diff(), torch.full((steps,), 1 / steps), atol=1e-6, rtol=0)


def test_only_a_blind_eps_prediction_starts_below_pure_noise():
    assert sampling_times(4, Schedule("flow"), "eps")[0] == pytest.approx(0.98)
    assert sampling_times(4, Schedule("linear"), "eps")[0] == 1  # DDPM's alpha-bar never quite reaches 0
    assert sampling_times(4, Schedule("flow"), "eps", start=0.5)[0] == 0.5


def random_latents():
    return torch.randn(2, 3, 4, 2, 2)


def recording_network(calls):
    """A network that predicts 0 and notes what it was called with."""

    def network(x, t, prompt_ids):
        calls.append((x, t, prompt_ids))
        return [torch.zeros_like(group) for group in x]

    return network


def test_the_sampler_visits_every_time_but_the_last():
    calls = []
    network = recording_network(calls)
    sample_latents(network, torch.zeros(2, 1), random_latents, Schedule("flow"), "velocity", 5, 0.0, 1.0)
    visited = [t[0][0, 0].item() for _, t, _ in calls]
    assert visited == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_what_is_returned_is_the_last_prediction_of_x_0():
    """With a network that always predicts the same clean latents, nothing else may come out."""
    clean = torch.randn(2, 3, 4, 2, 2)

    def network(x, t, prompt_ids):
        time = t[0][:, None, :, None, None]
        return [(x[0] - clean) / time]  # on the straight line x_t - x_0 = t (eps - x_0)

    for eta in (0.0, 1.0):
        x = sample_latents(
            network, torch.zeros(2, 1), random_latents, Schedule("flow"), "velocity", 3, eta, guidance=1.0
        )
        torch.testing.assert_close(x, clean)


@pytest.mark.parametrize("eta, draws", [(0.0, 1), (1.0, 5)])
def test_ddim_draws_noise_once_and_ddpm_before_every_step(eta, draws):
    drawn = []

    def noise():
        drawn.append(1)
        return torch.randn(2, 3, 4, 2, 2)

    sample_latents(recording_network([]), torch.zeros(2, 1), noise, Schedule("cosine"), "v", 5, eta, 1.0)
    assert len(drawn) == draws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("eta", (0.0, 1.0))
def test_samplers_find_a_gaussian(kind, target, eta):
    """Data from N(2, 0.5^2) has a known perfect network, E[x_0 | x_t]; samplers must end with that mean and
    spread."""
    torch.manual_seed(0)
    schedule = Schedule(kind)

    def perfect_network(x, t, prompt_ids):
        x_t = x[0]
        time = t[0][:, None, :, None, None]
        alpha = schedule.alpha(time)
        sigma = schedule.sigma(time)
        x_0 = 2 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x_t - 2 * alpha)
        a, b = target_coefficients(target, alpha, sigma)
        return [a * (x_t - alpha * x_0) / sigma + b * x_0]

    def noise():
        return torch.randn(4000, 1, 1, 1, 1)

    x = sample_latents(perfect_network, torch.zeros(4000, 1), noise, schedule, target, 200, eta, 1.0)
    assert x.mean().item() == pytest.approx(2, abs=0.06)
    assert x.std().item() == pytest.approx(0.5, abs=0.04)


def word_network(x, t, prompt_ids):
    """Adds the sum of a prompt's ids, times 1 ... 4 on the four channels."""
    channels = torch.arange(1.0, 5)[:, None, None, None]
    outputs = []
    for latents, ids in zip(x, prompt_ids, strict=True):
        outputs.append(latents + ids.sum(1)[:, None, None, None, None] * channels)
    return outputs


@pytest.mark.parametrize("guidance", [0, 1, 3])
def test_guidance_goes_from_null_towards_full_on_all_channels(guidance):
    x = torch.randn(2, 4, 3, 2, 2)
    t = torch.ones(2, 3)
    prompt_ids = torch.ones(2, 2, dtype=torch.long)
    null = word_network([x], [t], [0 * prompt_ids])[0]
    full = word_network([x], [t], [prompt_ids])[0]
    guided = classifier_free_guidance(word_network, x, t, prompt_ids, guidance)
    torch.testing.assert_close(guided, null + guidance * (full - null))


@pytest.mark.parametrize("guidance, last_word, groups", [(0, 1, 1), (1, 1, 1), (3, 0, 1), (3, 1, 2)])
def test_guidance_costs_a_second_pass_only_where_there_is_something_to_compare(guidance, last_word, groups):
    """A prompt of one word and an empty one, beside a prompt of nothing."""
    calls = []
    prompt_ids = torch.tensor([[last_word, 0], [0, 0]])
    network = recording_network(calls)
    classifier_free_guidance(network, torch.zeros(2, 4, 3, 2, 2), torch.ones(2, 3), prompt_ids, guidance)
    assert [len(x) for x, _, _ in calls] == [groups]


def test_given_frames_are_seen_at_level_0_and_come_back_as_they_are():
    calls = []
    latents = torch.randn(2, 3, 4, 2, 2)
    given = torch.tensor([[True, False, False, True], [False, True, False, False]])
    x = sample_latents(
        recording_network(calls), torch.zeros(2, 1), random_latents, Schedule("flow"), "velocity",
        steps=3, eta=1.0, guidance=1.0, kept=(latents, given),
    )
    for seen_x, seen_t, _ in calls:
        assert torch.equal(seen_t[0] == 0, given)
        assert torch.equal(seen_x[0].movedim(1, 2)[given], latents.movedim(1, 2)[given])
    assert torch.equal(x.movedim(1, 2)[given], latents.movedim(1, 2)[given])
    assert not torch.equal(x.movedim(1, 2)[~given], latents.movedim(1, 2)[~given])


def first_call(latents, noise, kind, target, **sampling):
    """What the network sees first, its lists (x, t), where no frame of the latents is given."""
    given = torch.zeros(2, 4, dtype=torch.bool)
    calls = []
    sample_latents(
        recording_network(calls), torch.zeros(2, 1), lambda: noise, Schedule(kind), target,
        steps=3, eta=0.0, guidance=1.0, kept=(latents, given), **sampling,
    )
    first_x, first_t, _ = calls[0]
    return first_x, first_t


def test_what_is_invented_begins_as_pure_noise_whatever_the_latents_hold():
    """Also with DDPM's schedule, whose alpha never quite reaches 0."""
    latents, noise = torch.randn(2, 2, 3, 4, 2, 2)
    first_x, _ = first_call(latents, noise, "linear", "v")
    assert torch.equal(first_x[0], noise)


def test_an_edit_begins_with_the_clip_at_a_level_in_between():
    latents, noise = torch.randn(2, 2, 3, 4, 2, 2)
    first_x, first_t = first_call(latents, noise, "flow", "velocity", start=0.6)
    torch.testing.assert_close(first_x[0], 0.4 * latents + 0.6 * noise)
    torch.testing.assert_close(first_t[0], torch.full((2, 4), 0.6))


@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_is_the_squared_error_of_the_target_over_what_was_invented(target):
    """Two shapes; in the first clip one frame is given, and an error there costs nothing."""
    torch.manual_seed(0)
    schedule = Schedule("cosine")
    x_0 = [torch.randn(2, 3, 3, 2, 2), torch.randn(1, 3, 1, 4, 2)]
    eps = [torch.randn_like(latents) for latents in x_0]
    t = [torch.tensor([[0.0, 0.5, 0.7], [0.5, 0.6, 0.2]]), torch.full((1, 1), 0.3)]
    seen = []

    def network(x, t, prompt_ids):
        seen.extend(x)
        return [torch.full_like(latents, 0.25) for latents in x]

    losses = diffusion_loss(network, x_0, [None, None], t, eps, schedule, target)

    expected = []
    for group in range(2):
        for clip in range(len(x_0[group])):
            errors = []
            for frame, time in enumerate(t[group][clip]):
                clean = x_0[group][clip, :, frame]
                noise = eps[group][clip, :, frame]
                alpha, sigma = schedule.alpha(time), schedule.sigma(time)
                torch.testing.assert_close(seen[group][clip, :, frame], alpha * clean + sigma * noise)
                a, b = target_coefficients(target, alpha, sigma)
                if time > 0:
                    errors.append(((0.25 - a * noise - b * clean) ** 2).mean())
            expected.append(torch.stack(errors).mean())
    torch.testing.assert_close(losses, torch.stack(expected))


def test_slow_flow_shows_up_to_its_share_of_the_way_to_noise_and_what_is_given_as_it_is():
    t = torch.tensor([[0.0, 0.5, 0.9]]).expand(4000, -1)
    shown = noisier_levels(t, 0.6)
    assert (shown[:, 0] == 0).all()
    for frame, level in ((1, 0.5), (2, 0.9)):
        way = (shown[:, frame] - level) / (1 - level)
        assert way.min() >= 0
        assert way.max() <= 0.6
        assert way.mean() == pytest.approx(0.3, abs=0.02)


def test_slow_flow_moves_a_whole_clip_by_one_share_of_the_way():
    shown = noisier_levels(torch.tensor([[0.2, 0.6]]), 0.6)[0]
    way = (shown - torch.tensor([0.2, 0.6])) / torch.tensor([0.8, 0.4])
    torch.testing.assert_close(way[0], way[1])


def test_with_slow_flow_the_network_is_told_the_level_and_shown_a_noisier_one():
    x_0, eps = torch.randn(2, 2, 3, 2, 2, 2)
    t = torch.full((2, 2), 0.5)
    seen = []

    def network(x, t, prompt_ids):
        seen.append((x[0], t[0]))
        return [eps - x_0]

    losses = diffusion_loss(network, [x_0], [None], [t], [eps], Schedule("flow"), "velocity", slow_flow=0.8)
    (x_t, told), = seen
    assert (told == 0.5).all()
    level = ((x_t - x_0) / (eps - x_0)).mean((1, 2, 3, 4))
    assert (level > 0.5).all()
    torch.testing.assert_close(losses, torch.zeros(2))


def share(mask):
    return mask.float().mean().item()


@pytest.fixture(scope="module")
def levels():
    """10,000 clips of six latent frames, half of them with the table's given frames; no shift of the
    levels."""
    torch.manual_seed(0)
    return draw_noise_levels(10_000, 6, Config(given_prob=0.5, logit_mean=0.0))


def patterns(levels):
    """Which frames are given, as '##....', of the clips that have any."""
    given = levels == 0
    rows = given[given.any(1)].tolist()
    return ["".join("#" if frame else "." for frame in row) for row in rows]


def test_given_frames_are_as_frequent_as_the_table_says(levels):
    """A share of 0.9 of the table gives frames, except where chance gave all of them or none."""
    assert share((levels == 0).any(1)) == pytest.approx(0.5 * 0.9, abs=0.02)
    assert not (levels == 0).all(1).any()


# With five places for two cuts there are ten pairs, 1 <= i < j <= 5. A beginning of k frames has i = k, an
# end of k frames i = 6 - k, both ends i and 6 - j. Beside each pattern: its row, and how many of the pairs
# give it.
@pytest.mark.parametrize("pattern, row, pairs", [
    ("##....", 0.20, 3),
    ("###...", 0.20, 2),
    ("####..", 0.20, 1),
    (".#####", 0.15, 4),
    ("..####", 0.15, 3),
    ("...###", 0.15, 2),
    ("....##", 0.15, 1),
    ("#....#", 0.20, 1),
    ("#.####", 0.20, 1),
    ("####.#", 0.20, 1),
])
def test_beginnings_and_ends_of_every_length_are_as_frequent_as_their_cuts(levels, pattern, row, pairs):
    expected = 0.5 * row * pairs / 10
    assert patterns(levels).count(pattern) / len(levels) == pytest.approx(expected, abs=0.004)


def test_the_first_frame_alone_is_a_row_of_its_own_and_the_shortest_beginning(levels):
    expected = 0.5 * (0.30 + 0.20 * 4 / 10)
    assert patterns(levels).count("#.....") / len(levels) == pytest.approx(expected, abs=0.015)


def test_any_frames_may_be_given(levels):
    assert "..##.." in patterns(levels)


def test_clips_without_given_frames_have_one_level_or_each_frame_its_own(levels):
    free = levels[(levels > 0).all(1)]
    own = (free.diff(dim=1) != 0).all(1)
    assert own.sum() / len(levels) == pytest.approx(0.05, abs=0.01)
    assert (free[~own] == free[~own][:, :1]).all()


def test_levels_are_a_sigmoid_of_a_normal_and_higher_beside_given_frames(levels):
    """Their logits have standard deviation 1, and mean 0, or 1 where frames are given."""
    with_given = (levels == 0).any(1)
    free = torch.logit(levels[~with_given][:, 0])
    beside = torch.logit(levels[with_given].amax(1))
    assert (free.mean().item(), free.std().item()) == pytest.approx((0, 1), abs=0.05)
    assert (beside.mean().item(), beside.std().item()) == pytest.approx((1, 1), abs=0.05)


def test_logit_mean_moves_the_levels():
    torch.manual_seed(0)
    for f in (1, 6):
        logits = torch.logit(draw_noise_levels(4000, f, Config(given_prob=0.0, logit_mean=0.7)))
        assert logits[:, 0].mean().item() == pytest.approx(0.7, abs=0.05)


def test_an_image_has_nothing_given_and_two_frames_never_both():
    always = Config(given_prob=1.0)
    assert (draw_noise_levels(100, 1, always) > 0).all()
    assert (draw_noise_levels(500, 2, always) > 0).any(1).all()


def test_what_the_data_gives_is_given_whatever_the_table_says():
    first = torch.arange(500) % 6
    given = draw_noise_levels(500, 6, Config(given_prob=1.0), first) == 0
    for clip in range(500):
        if first[clip] > 0:
            assert given[clip].tolist() == [frame < first[clip] for frame in range(6)]
    assert given[first == 0].any()


def test_the_table_sums_to_one():
    assert sum(diffusion.ROW_WEIGHTS.values()) == pytest.approx(1)


# The pictures


def test_watching_changes_nothing_and_sees_every_step(model):
    config = model.config
    seen = watch_sampling(model, "a red circle")
    assert [t for t, _, _ in seen] == pytest.approx([1.0, 0.5, 0.0])  # two steps

    # The same sample, with the guidance where it belongs.
    noise = seen[0][1]
    prompt_ids = encode_prompts(["a red circle"], model.vocab, config.max_words)
    schedule = Schedule(config.schedule)
    plain = sample_latents(
        model.dit, prompt_ids, lambda: noise, schedule, config.target,
        steps=2, eta=0.0, guidance=config.guidance,
    )
    torch.testing.assert_close(seen[-1][1], plain)
    assert torch.equal(seen[-1][1], seen[-1][2])

    # On the straight line, half a step from noise is the middle between the noise and the guess.
    torch.testing.assert_close(seen[1][1], (noise + seen[0][2]) / 2)


def test_the_picture_of_a_sample_has_six_levels_and_that_of_the_schedules_three_rows(model, tmp_path):
    model = replace(model, config=replace(model.config, sample_steps=5))
    draw_sampling(model, tmp_path / "sample.png")
    draw_schedules(tmp_path / "schedules.png")
    assert len(iio.imread(tmp_path / "sample.png")) // 64 >= 6
    assert len(iio.imread(tmp_path / "schedules.png")) // 64 >= 3

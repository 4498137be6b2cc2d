"""Diffusion: noise schedules, what the network predicts, and the one step that is both DDPM and DDIM.

A schedule is a pair (alpha, sigma):  x_t = alpha(t) x_0 + sigma(t) eps,  t from 0 (clean) to 1 (noise).
DDPM's linear schedule, the cosine and the straight line of rectified flow are three such pairs, and nothing
else differs between them. The network predicts a eps + b x_0 for some (a, b). Together with x_t this gives
both x_0 and eps, and from those `denoise_step` goes to any lower level: eta = 0 is DDIM, eta = 1 is DDPM's
ancestral step. On the straight line the DDIM step *is* the Euler step of rectified flow:

    (1 - s) x_0 + s eps = x_t + (s - t) (eps - x_0)

Papers
    DDPM, Ho et al. 2020, https://arxiv.org/abs/2006.11239
    DDIM, Song et al. 2021, https://arxiv.org/abs/2010.02502
    Cosine schedule, Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672
    v-prediction, Salimans & Ho 2022, https://arxiv.org/abs/2202.00512
    The straight line: rectified flow, Liu et al. 2023, https://arxiv.org/abs/2209.03003
    Levels drawn as sigmoid(normal): SD3, Esser et al. 2024, sec. 3.1, https://arxiv.org/abs/2403.03206
    Classifier-free guidance, Ho & Salimans 2022, https://arxiv.org/abs/2207.12598
    A level per frame: Diffusion Forcing, Chen et al. 2024, https://arxiv.org/abs/2407.01392
    Slow flow: MixFlow, Li et al. 2025, https://arxiv.org/abs/2512.19311 (it trains a finished model further;
        ours is trained so from its first step)
    Edits that start in between: SDEdit, Meng et al. 2022, https://arxiv.org/abs/2108.01073

Where we differ: time is continuous, also for DDPM's thousand steps; levels are drawn nearer to pure noise
than in SD3, because only there is a video's motion hidden by the noise (see draw_noise_levels).

The default is the schedule "flow", the straight line, with the target "velocity", eps - x_0. The schedule
called "linear" is DDPM's, whose betas are linear; our "cosine" has neither the offset of 0.008 nor the
clipped betas of Nichol & Dhariwal. Salimans & Ho's "v" is alpha eps - sigma x_0, and not the velocity.

Letters
    B             clips in a batch
    Z             latent channels
    f h w         latent frames, rows, columns
    L             words in a prompt
    t             diffusion time = noise level, in [0, 1]
    s             the next, lower time of a sampler
    x_0 eps       the clean latents, and the noise
    alpha sigma   their factors in x_t; alpha squared is DDPM's alpha-bar
"""
from config import BadInput

import math

import torch
from tqdm import tqdm

DDPM_STEPS = 1000
BLIND_ALPHA = 1e-4  # below this alpha, x_t holds nothing of x_0
EPS_START = 0.98  # where eps-prediction then starts to sample, instead of at 1

# A clip in training is mostly noisy as a whole. A share of them, given_prob, draws one of these rows
# instead: some of its frames are given, or, in the last row, every frame has a level of its own.
ROW_WEIGHTS = {
    "first frame": 0.30,
    "first frames": 0.20,
    "last frames": 0.15,
    "both ends": 0.20,
    "any frames": 0.05,
    "own levels": 0.10,
}


class Schedule:
    """alpha(t) and sigma(t), for t in [0, 1], a float or a tensor of any shape.

    kind: flow | cosine | linear. Raises BadInput for another one."""

    def __init__(self, kind):
        if kind not in ("flow", "cosine", "linear"):
            raise BadInput(f"schedule {kind!r}: expected flow, cosine or linear")
        self.kind = kind

        # DDPM's betas (sec. 4). log alpha after step 0 ... 1000, where alpha is the square root of the
        # paper's alpha-bar.
        beta = torch.linspace(1e-4, 0.02, DDPM_STEPS, dtype=torch.float64)
        log_alpha_bar = torch.log(1 - beta).cumsum(0)
        self.log_alpha = torch.cat([torch.zeros(1, dtype=torch.float64), log_alpha_bar / 2])

    def alpha(self, t):
        """How much of the clean latents is in x_t."""
        t = torch.as_tensor(t, dtype=torch.float32)
        if self.kind == "flow":
            return 1 - t
        if self.kind == "cosine":
            return torch.cos(t * math.pi / 2)

        # t = step / 1000; between two of DDPM's steps log alpha is a straight line.
        table = self.log_alpha.to(t)
        step = (t * DDPM_STEPS).long().clamp(max=DDPM_STEPS - 1)
        return torch.lerp(table[step], table[step + 1], t * DDPM_STEPS - step).exp()

    def sigma(self, t):
        """How much noise is in x_t. cosine and linear keep the variance: alpha^2 + sigma^2 = 1."""
        t = torch.as_tensor(t, dtype=torch.float32)
        if self.kind == "flow":
            return t
        if self.kind == "cosine":
            return torch.sin(t * math.pi / 2)
        return torch.sqrt(1 - self.alpha(t) ** 2)

    def add_noise(self, x_0, eps, t):
        """x_t = alpha(t) x_0 + sigma(t) eps, for t that broadcasts against x_0."""
        return self.alpha(t) * x_0 + self.sigma(t) * eps


def target_coefficients(target, alpha, sigma):
    """(a, b) such that the network predicts  a eps + b x_0.  target: eps | v | velocity"""
    coefficients = {"eps": (1.0, 0.0), "v": (alpha, -sigma), "velocity": (1.0, -1.0)}
    return coefficients[target]


def to_x0_and_eps(x_t, output, alpha, sigma, target):
    """The network's output → (x_0, eps). Solves, by Cramer's rule:

        x_t = alpha x_0 + sigma eps
        output = a eps + b x_0
    """
    a, b = target_coefficients(target, alpha, sigma)
    determinant = alpha * a - sigma * b
    x_0 = (a * x_t - sigma * output) / determinant
    eps = (alpha * output - b * x_t) / determinant
    return x_0, eps


def denoise_step(x_t, x_0, eps, current, lower, eta, noise):
    """One step from current = (alpha_t, sigma_t) to lower = (alpha_s, sigma_s) (DDIM, eq. 12 and 16):

        x_s = alpha_s * x_0 + sqrt(sigma_s^2 - fresh^2) * eps + fresh * noise
        fresh = eta * sigma_s / sigma_t * sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 * sigma_s^2)

    fresh is the paper's sigma, written for any (alpha, sigma). eta = 0 is DDIM, eta = 1 has DDPM's
    posterior variance."""
    alpha_t, sigma_t = current
    alpha_s, sigma_s = lower
    fresh = eta * (sigma_s / sigma_t) * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) ** 0.5
    return alpha_s * x_0 + (sigma_s**2 - fresh**2) ** 0.5 * eps + fresh * noise


def random_times(B, frames, logit_mean, raised_by=0.0):
    """Noise levels to train on → (B, frames), each sigmoid(normal + logit_mean + raised_by)."""
    return torch.sigmoid(torch.randn(B, frames) + logit_mean + raised_by)


def draw_noise_levels(B, f, config, given_count=None, given=None):
    """Noise levels for training → t (B, f). Every kind of row is something that the sampler can then do:

        the whole clip at one level         text to video
        first frame given (at level 0)      animate a still
        first frames given                  extend forward
        last frames given                   extend backward
        both ends given                     fill in, connect
        any frames given                    whatever else is asked
        each frame at its own level         what is given need not be perfect (Diffusion Forcing)

    given_count (B,): how many latent frames at the beginning of each clip are given in any case, since its
    data were made for that (the later windows of a long video in data/datasets.py); 0 draws a row here.
    given (B, f) bool: which latent frames are given, where that was chosen beforehand (data/precompute.py).

    The level is sigmoid(normal + logit_mean), because a clip has thousands of numbers: even at level 0.9
    all of them together still show where things are. So shape and path are settled at levels near 1, where
    the plain sigmoid(normal) trains little. Clips with given frames are trained at still higher levels:
    only where the noise hides the path does the network have to find it out from what is given."""
    # An image has nothing that could be given.
    if f == 1:
        return random_times(B, 1, config.logit_mean)

    drawn, has_own_levels = draw_given_frames(B, f, config.given_prob, given_count)
    if given is None:
        given = drawn
    own_levels = random_times(B, f, config.logit_mean)
    one_level = random_times(B, 1, config.logit_mean)
    beside_given = random_times(B, 1, config.logit_mean, raised_by=1.0)

    t = torch.where(has_own_levels, own_levels, one_level)                     # (B, f)
    t = torch.where(given.any(1, keepdim=True), beside_given, t)
    return t.masked_fill(given, 0.0)


def draw_given_frames(B, f, given_prob, given_count):
    """Draws a row of ROW_WEIGHTS for each clip, or none → given (B, f) bool, has_own_levels (B, 1) bool."""
    # Two cuts, different numbers from 1 to f - 1, i < j: where a given beginning ends and a given end
    # begins. For f = 2 they are 1 and 2: no end is given.
    frame = torch.arange(f)
    cuts = torch.rand(B, max(2, f - 1)).argsort(1)[:, :2] + 1                  # (B, 2)
    i, j = cuts.sort(1).values.split(1, 1)                                     # (B, 1) each
    masks = {
        "first frame": frame < 1,
        "first frames": frame < i,
        "last frames": frame >= i,
        "both ends": (frame < i) | (frame >= j),
        "any frames": torch.rand(B, f) < 0.5,
    }

    # Each clip draws a row, and keeps it with given_prob; the others, -1, are noisy as a whole.
    rows = list(ROW_WEIGHTS)
    weights = torch.tensor(list(ROW_WEIGHTS.values()))
    row = torch.multinomial(weights, B, replacement=True)[:, None]             # (B, 1)
    row[torch.rand(B) > given_prob] = -1
    given = torch.zeros(B, f, dtype=torch.bool)
    for name, mask in masks.items():
        given |= (row == rows.index(name)) & mask

    # What the data says is given wins; and if chance gave everything, nothing is given.
    if given_count is not None:
        given = torch.where(given_count[:, None] > 0, frame < given_count[:, None], given)
    given &= ~given.all(1, keepdim=True)
    return given, row == rows.index("own levels")


def noisier_levels(t, slow_flow):
    """Levels of what the network is shown where it is told t (B, f): slow flow (MixFlow).

        t + u slow_flow (1 - t),  u uniform in [0, 1], one for each clip

    In sampling the network makes errors, so what it is shown at a level looks like data at a noisier one.
    It has learned to answer that. What is given (t = 0) is given without an error."""
    u = torch.rand(len(t), 1, device=t.device)
    return torch.where(t > 0, t + u * slow_flow * (1 - t), 0.0)


def diffusion_loss(network, x_0, prompt_ids, t, eps, schedule, target, slow_flow=0.0):
    """Squared error of the prediction over what had to be invented (t > 0): DDPM, eq. 14, for any target.

    Lists, an entry per clip shape: x_0, eps (B, Z, f, h, w); prompt_ids (B, L); t (B, f)
    → one tensor, an error per clip. slow_flow: see noisier_levels."""
    shown = [noisier_levels(levels, slow_flow) for levels in t] if slow_flow else t
    frame_times = [levels[:, None, :, None, None] for levels in shown]         # (B, 1, f, 1, 1)
    x_t = []
    for clean, noise, time in zip(x_0, eps, frame_times, strict=True):
        x_t.append(schedule.add_noise(clean, noise, time))
    outputs = network(x_t, t, prompt_ids)

    losses = []
    for output, clean, noise, time in zip(outputs, x_0, eps, frame_times, strict=True):
        a, b = target_coefficients(target, schedule.alpha(time), schedule.sigma(time))
        error = (output - (a * noise + b * clean)) ** 2
        error = error.mean(dim=(1, 3, 4))                                      # (B, f)
        invented = (time > 0).float().flatten(1)                               # (B, f)
        losses.append((error * invented).sum(1) / invented.sum(1))
    return torch.cat(losses)


def classifier_free_guidance(network, x, t, prompt_ids, guidance):
    """null + guidance (full - null), on all latent channels (Ho & Salimans, eq. 6, whose w is guidance - 1).

    0 ignores the prompt, 1 is the plain model, more pushes towards the prompt. x (B, Z, f, h, w), t (B, f),
    ids (B, L)."""
    null_ids = torch.zeros_like(prompt_ids)

    # One pass is enough where only one side counts, or where the prompts are empty and both sides are the
    # same.
    if guidance == 0:
        return network([x], [t], [null_ids])[0]
    if guidance == 1 or not prompt_ids.any():
        return network([x], [t], [prompt_ids])[0]

    null, full = network([x, x], [t, t], [null_ids, prompt_ids])
    return null + guidance * (full - null)


def sampling_times(steps, schedule, target, start=1.0):
    """The times a sampler visits → (steps + 1,), evenly from start down to 0.

    At pure noise (alpha = 0) eps says nothing about x_0, which is why Lin et al. predict v there (2024,
    https://arxiv.org/abs/2305.08891). With the target eps we start just below instead."""
    is_blind = target == "eps" and float(schedule.alpha(1.0)) < BLIND_ALPHA
    if is_blind:
        start = min(start, EPS_START)
    return torch.linspace(start, 0.0, steps + 1)


@torch.no_grad()
def sample_latents(
    network, prompt_ids, noise, schedule, target, steps, eta, guidance, kept=None, start=1.0, progress=False
):
    """Noise → clean latents (B, Z, f, h, w).

    prompt_ids  (B, L)
    noise       a function that returns fresh noise (B, Z, f, h, w) each time it is called
    eta         0 is DDIM, 1 is DDPM
    guidance    see classifier_free_guidance
    kept        None, or (latents (B, Z, f, h, w), given (B, f) bool): given latent frames stay as they
                are, at level 0
    start       the level at which all other frames begin. Below 1 they begin as a mix of latents and
                noise, so that the clip is edited instead of invented (SDEdit)
    """
    x = noise()
    B, _, f, _, _ = x.shape
    if kept is None:
        latents = torch.zeros_like(x)
        given = torch.zeros(B, f, dtype=torch.bool, device=x.device)
    else:
        latents, given = kept
    keep = given[:, None, :, None, None]                                       # (B, 1, f, 1, 1)

    times = sampling_times(steps, schedule, target, start).tolist()
    if start < 1:
        x = schedule.add_noise(latents, x, times[0])
    x = torch.where(keep, latents, x)

    pairs = list(zip(times[:-1], times[1:], strict=True))
    show = None if progress else True  # tqdm's None: a bar on a terminal only
    for t, s in tqdm(pairs, desc="sampling", disable=show):
        # The network sees given frames at level 0 beside the others at t.
        frame_times = torch.where(given, 0.0, t)                               # (B, f)
        output = classifier_free_guidance(network, x, frame_times, prompt_ids, guidance)

        current = (schedule.alpha(t), schedule.sigma(t))
        lower = (schedule.alpha(s), schedule.sigma(s))
        x_0, eps = to_x0_and_eps(x, output, *current, target)

        # DDIM draws nothing, and the last step of DDPM adds nothing.
        fresh_noise = noise() if eta > 0 and s > 0 else 0.0
        x_s = denoise_step(x, x_0, eps, current, lower, eta, fresh_noise)
        x = torch.where(keep, latents, x_s)
    return x


def draw_schedules(path):
    """A picture of one frame at nine noise levels, a row per schedule."""
    import imageio.v3 as iio
    import numpy as np

    from data.video_io import film_strip
    from world.scenes import draw_scene, render

    pixels = render(draw_scene(np.random.default_rng(0)), frames=1, height=64, width=64)[0]
    frame = torch.from_numpy(pixels).float() / 127.5 - 1
    eps = torch.randn(64, 64, 3, generator=torch.Generator().manual_seed(0))
    rows = []
    captions = []
    for kind in ("flow", "cosine", "linear"):
        schedule = Schedule(kind)
        noisy = torch.stack([schedule.add_noise(frame, eps, t) for t in torch.linspace(0, 1, 9)])
        rows.append(((noisy + 1) * 127.5).clamp(0, 255).byte().numpy())
        halfway = f"alpha {schedule.alpha(0.5):.2f}, sigma {schedule.sigma(0.5):.2f}"
        captions.append(f"{kind}: noise level t from 0 to 1 in eighths; in the middle {halfway}")
    iio.imwrite(path, film_strip(rows, captions, columns=9))


def sample_a_number(kind, eta):
    """Samples a world of one number, 0.7. The perfect network is known there, and every sampler must find
    it."""
    schedule = Schedule(kind)

    def perfect_network(x, t, prompt_ids):
        alpha = schedule.alpha(t[0].item())
        sigma = schedule.sigma(t[0].item())
        eps = (x[0] - alpha * 0.7) / sigma
        return [alpha * eps - sigma * 0.7]  # v

    def noise():
        return torch.randn(1, 1, 1, 1, 1)

    prompt_ids = torch.zeros(1, 1)
    return sample_latents(
        perfect_network, prompt_ids, noise, schedule, target="v", steps=10, eta=eta, guidance=1.0
    )


@torch.no_grad()
def watch_sampling(model, prompt):
    """Samples one video → a list of (t, x_t, the network's guess of x_0 there); the last is the result."""
    from text import encode_text

    config = model.config
    schedule = Schedule(config.schedule)
    seen = []

    # The guidance is in here, so that we see the guess that the sampler sees.
    def watched(x, t, prompt_ids):
        output = classifier_free_guidance(model.dit, x[0], t[0], prompt_ids[0], config.guidance)
        level = t[0][0, 0].item()
        x_0, _ = to_x0_and_eps(x[0], output, schedule.alpha(level), schedule.sigma(level), config.target)
        seen.append((level, x[0], x_0))
        return [output]

    def noise():
        latents = (1, config.latent_channels, 5, 32 // config.vae_space, 32 // config.vae_space)
        return torch.randn(latents, generator=torch.Generator().manual_seed(0))

    prompt_ids = encode_text([prompt], model.vocab, config)
    result = sample_latents(
        watched, prompt_ids, noise, schedule, config.target, steps=config.sample_steps, eta=0.0, guidance=1.0
    )
    seen.append((0.0, result, result))
    return seen


@torch.no_grad()
def draw_sampling(model, path, prompt="a red circle moving right quickly"):
    """A picture of one sample on its way from noise to video: what the sampler holds, and what it expects."""
    import imageio.v3 as iio
    import numpy as np

    from data.video_io import film_strip, on_paper, to_uint8

    def decode(latents):
        return to_uint8(model.vae.decode(latents / model.latent_scale))[0]

    # Six of the levels it visited, from first to last.
    seen = watch_sampling(model, prompt)
    chosen = [seen[i] for i in np.linspace(0, len(seen) - 1, 6).round().astype(int)]
    held = film_strip(
        [decode(x_t) for _, x_t, _ in chosen],
        [f"noise level {t:.2f}: what the sampler holds, x_t" for t, _, _ in chosen],
        columns=5,
        zoom=2,
    )
    guessed = film_strip(
        [decode(x_0) for _, _, x_0 in chosen],
        ["its guess of the clean video, x_0" for _ in chosen],
        columns=5,
        zoom=2,
    )
    height, width, _ = held.shape
    held = on_paper(held, height, width + 20)
    iio.imwrite(path, np.concatenate([held, guessed], 1))


def demo():
    """The schedules in numbers and in a picture, a world of one number, a sample of the shipped model."""
    from pathlib import Path

    from utils.checkpoint import SHIPPED, load_model

    print("(alpha, sigma)      flow            cosine            linear")
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        columns = []
        for kind in ("flow", "cosine", "linear"):
            columns.append(f"({Schedule(kind).alpha(t):.3f}, {Schedule(kind).sigma(t):.3f})")
        print(f"t = {t:.2f}    " + "    ".join(columns))

    Path("out").mkdir(exist_ok=True)
    draw_schedules("out/diffusion.png")
    print("out/diffusion.png shows one frame at nine levels, a row per schedule\n")

    for kind in ("flow", "cosine", "linear"):
        for eta in (0.0, 1.0):
            print(f"{kind:>7}, eta = {eta:.0f}: noise -> {sample_a_number(kind, eta).item():.4f}")

    draw_sampling(load_model(SHIPPED), "out/noise-to-video.png")
    print("\nout/noise-to-video.png shows a sample on its way: what the sampler holds, and its guess of x_0")


if __name__ == "__main__":
    from utils.cli import run

    run(demo)

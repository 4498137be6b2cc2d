"""Diffusion: noise schedules, what the network predicts, and the one step that is both DDPM and DDIM.

A schedule is a pair (alpha, sigma):  x_t = alpha(t) x_0 + sigma(t) eps,  t from 0 (clean) to 1 (noise). DDPM's linear
schedule, the cosine and the straight line of rectified flow are three such pairs and nothing else differs between them.
The network predicts a eps + b x_0 for some (a, b); together with x_t this gives both x_0 and eps, and from those `step` goes to
any lower level: eta = 0 is DDIM, eta = 1 DDPM's ancestral step. On the straight line the DDIM step *is* the Euler step of
rectified flow:  (1 - s) x_0 + s eps = x_t + (s - t) (eps - x_0).

DDPM: Ho et al. 2020. DDIM: Song et al. 2021. Cosine: Nichol & Dhariwal 2021. v: Salimans & Ho 2022. Straight line and levels
drawn as sigmoid(normal): rectified flow, Liu et al. 2023; SD3, Esser et al. 2024. Guidance: Ho & Salimans 2022.
In the code the diffusion time is called `level`; only in `step` and `sample`, t and s are the levels before and after a step.

Letters: B clips  Z latent channels  t h w latent frames, rows, columns
"""
import math

import torch
from tqdm import tqdm

from config import BadInput


class Schedule:
    """alpha(level) and sigma(level) for levels in [0, 1], a float or a tensor of any shape. kind: flow | cosine | linear."""

    def __init__(self, kind):
        if kind not in ("flow", "cosine", "linear"):
            raise BadInput(f"schedule {kind!r}: expected flow, cosine or linear")
        self.kind = kind
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # Ho et al. 2020, sec. 4
        self.log_alpha = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log(1 - beta).cumsum(0) / 2])  # after step 0 ... 1000

    def alpha(self, level):
        level = torch.as_tensor(level, dtype=torch.float32)
        if self.kind == "flow":
            return 1 - level
        if self.kind == "cosine":
            return torch.cos(level * math.pi / 2)
        table = self.log_alpha.to(level)  # level = step / 1000; between two steps, log alpha is a straight line
        below = (level * 1000).long().clamp(max=999)
        return torch.lerp(table[below], table[below + 1], level * 1000 - below).exp()

    def sigma(self, level):
        level = torch.as_tensor(level, dtype=torch.float32)
        if self.kind == "flow":
            return level
        if self.kind == "cosine":
            return torch.sin(level * math.pi / 2)
        return torch.sqrt(1 - self.alpha(level) ** 2)

    def mix(self, x_0, eps, level):
        """x_t for levels that broadcast against x_0."""
        return self.alpha(level) * x_0 + self.sigma(level) * eps


def mixture(target, alpha, sigma):
    """(a, b) such that the network predicts  a eps + b x_0."""
    return {"eps": (1.0, 0.0), "v": (alpha, -sigma), "velocity": (1.0, -1.0)}[target]


def predict(x_t, output, alpha, sigma, target):
    """The network's output → (x_0, eps): solves  x_t = alpha x_0 + sigma eps,  output = a eps + b x_0."""
    a, b = mixture(target, alpha, sigma)
    det = alpha * a - sigma * b
    return (a * x_t - sigma * output) / det, (alpha * output - b * x_t) / det


def step(x_t, x_0, eps, now, then, eta, noise):
    """From now = (alpha_t, sigma_t) to then = (alpha_s, sigma_s), a lower level:

    x_s = alpha_s x_0 + sqrt(sigma_s^2 - s^2) eps + s noise      (Song et al. 2021, eq. 12, for any alpha, sigma)
    s = eta (sigma_s / sigma_t) sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)  (eq. 16):  eta = 0 is DDIM, 1 is DDPM's posterior."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    s = eta * (sigma_s / sigma_t) * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) ** 0.5
    return alpha_s * x_0 + (sigma_s**2 - s**2) ** 0.5 * eps + s * noise


def draw_levels(B, t, config, first=None):
    """Levels for training → (B, t). first (B,): latent frames at the beginning of each clip that are given anyway, 0: drawn here. Every row of the table is something that the sampler can then do:

        the whole clip at one level         text to video
        first frame given (at level 0)      animate a still
        first frames given                  extend forward
        last frames given                   extend backward
        both ends given                     fill in, connect
        any frames given                    whatever else is asked
        each frame at its own level         what is given need not be perfect (Diffusion Forcing, Chen et al. 2024)

    The level is sigmoid(normal + shift), because a clip has thousands of numbers: even at level 0.9 together they still show where things
    are, so a sampler settles shape and path above 0.85, where the plain sigmoid(normal) trains little (SD3, sec. 5.3.2). Where frames are
    given still more: only where the noise hides the path has it to be found out from what is given."""
    draw = lambda frames, more=0.0: torch.sigmoid(torch.randn(B, frames) + config.level_shift + more)
    if t == 1:  # an image has nothing to be given
        return draw(1)
    frame = torch.arange(t)
    i, j = (torch.rand(B, max(2, t - 1)).argsort(1)[:, :2].sort(1).values + 1).split(1, 1)  # two cuts, 1 <= i < j
    table = ((0.30, frame < 1), (0.20, frame < i), (0.15, frame >= i), (0.20, (frame < i) | (frame >= j)), (0.05, torch.rand(B, t) < 0.5), (0.10, None))
    row = torch.multinomial(torch.tensor([share for share, _ in table]), B, replacement=True)[:, None]
    row[torch.rand(B) > config.given_share] = -1                                     # the whole clip at one level
    given = torch.stack([(row == n) & mask for n, (_, mask) in enumerate(table[:-1])]).any(0)
    if first is not None:
        given = torch.where(first[:, None] > 0, frame < first[:, None], given)
    given &= ~given.all(1, keepdim=True)                                             # if chance gave everything, nothing is given
    level = torch.where(row == len(table) - 1, draw(t), draw(1))                     # (B, t)
    return torch.where(given.any(1, keepdim=True), draw(1, 1.0), level).masked_fill(given, 0.0)


def loss(network, x_0, words, level, eps, schedule, target):
    """Squared error of the prediction per clip, over what had to be invented (level > 0).

    Lists, an entry per shape: x_0, eps (B, Z, t, h, w); words (B, L); level (B, t) → one tensor (clips,). Ho et al. 2020, eq. 14, for any target."""
    each = [one[:, None, :, None, None] for one in level]                            # (B, 1, t, 1, 1)
    outputs = network([schedule.mix(*group) for group in zip(x_0, eps, each)], level, words)
    losses = []
    for output, clean, noise, one in zip(outputs, x_0, eps, each):
        a, b = mixture(target, schedule.alpha(one), schedule.sigma(one))
        error = ((output - (a * noise + b * clean)) ** 2).mean(dim=(1, 3, 4))        # (B, t)
        invented = (one > 0).float().flatten(1)
        losses.append((error * invented).sum(1) / invented.sum(1))
    return torch.cat(losses)


def guide(network, x, level, words, w):
    """Classifier-free guidance on all channels:  null + w (full - null).  w = 0 ignores the prompt, 1 is plain, > 1 pushes."""
    if w in (0, 1) or not words.any():  # without a prompt there is nothing to push towards
        return network([x], [level], [words if w else torch.zeros_like(words)])[0]
    null, full = network([x, x], [level, level], [torch.zeros_like(words), words])
    return null + w * (full - null)


def levels(steps, schedule, target, start=1.0):
    """The levels a sampler visits, evenly from start to 0, steps + 1 of them.

    From pure noise (alpha = 0) eps says nothing about x_0, so with that target we start just below (Lin et al. 2024)."""
    blind = target == "eps" and float(schedule.alpha(1.0)) < 1e-4
    return torch.linspace(min(start, 0.98) if blind else start, 0.0, steps + 1)


@torch.no_grad()
def sample(network, words, noise, schedule, target, steps, eta, guidance, known=None, start=1.0, progress=False):
    """Noise → latents.

    words (B, L) ids; noise: a function that returns fresh (B, Z, t, h, w) noise each time it is called; eta 0 DDIM ... 1 DDPM
    known: None, or (latents (B, Z, t, h, w), given (B, t) bool): frames that are given stay as they are, at level 0
    start: the level at which what is not given begins; below 1 it begins as a mix of latents and noise, so they are edited (SDEdit, Meng et al. 2022)."""
    x = noise()
    latents, given = known or (torch.zeros_like(x), torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device))
    keep, visited = given[:, None, :, None, None], levels(steps, schedule, target, start).tolist()  # keep (B, 1, t, 1, 1)
    x = torch.where(keep, latents, schedule.mix(latents, x, visited[0]) if start < 1 else x)
    for t, s in tqdm(list(zip(visited, visited[1:])), desc="sampling", disable=not progress):
        output = guide(network, x, torch.where(given, 0.0, t), words, guidance)
        now, then = (schedule.alpha(t), schedule.sigma(t)), (schedule.alpha(s), schedule.sigma(s))
        x_0, eps = predict(x, output, *now, target)
        x = torch.where(keep, latents, step(x, x_0, eps, now, then, eta, noise() if eta > 0 and s > 0 else 0.0))
    return x


if __name__ == "__main__":
    print("level  " + "".join(f"{kind:>18}" for kind in ("flow", "cosine", "linear")) + "    (alpha, sigma)")
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        print(f"{level:5.2f}  " + "".join(f"{Schedule(k).alpha(level):10.3f} {Schedule(k).sigma(level):7.3f}" for k in ("flow", "cosine", "linear")))
    import imageio.v3 as iio
    import numpy as np
    from pathlib import Path
    import world

    frame = torch.from_numpy(world.render(world.scene(np.random.default_rng(0)), 1, 64, 64)[0]).float() / 127.5 - 1
    eps = torch.randn(64, 64, 3)
    rows = [torch.cat([Schedule(kind).mix(frame, eps, level) for level in torch.linspace(0, 1, 9)], 1) for kind in ("flow", "cosine", "linear")]
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/diffusion.png", ((torch.cat(rows) + 1) * 127.5).clamp(0, 255).byte().numpy())
    print("out/diffusion.png shows one frame at nine levels, a row per schedule: flow, cosine, linear\n")
    # A world of one number, 0.7: the perfect network is known, and every sampler must find it.
    for kind in ("flow", "cosine", "linear"):
        schedule = Schedule(kind)
        for eta in (0.0, 1.0):
            def perfect(x, level, words):
                a, b = schedule.alpha(level[0].item()), schedule.sigma(level[0].item())
                return [a * (x[0] - a * 0.7) / b - b * 0.7]  # v
            x = sample(perfect, torch.zeros(1, 1), lambda: torch.randn(1, 1, 1, 1, 1), schedule, "v", 10, eta, 1.0)
            print(f"{kind:>7}, eta = {eta:.0f}: noise -> {x.item():.4f}")

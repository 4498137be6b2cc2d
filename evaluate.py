"""Scores a model by asking for things and looking at what comes out (reader.py).

The reader's own score on clips rendered by the world is the ceiling for any model. FID or FVD would need a pretrained network, and
would not say *what* is wrong.

Letters: T H W frames, height, width
"""
import json
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F

from config import BadInput, clip_shapes
from data.video_io import film_strip, to_float, to_uint8
from sample import complete, connect, extend, fill, generate
from utils.checkpoint import load_model, newest_checkpoint
from utils.cli import Flags, check_at_least, pick_device, run
from vae import psnr
from world.captions import describe
from world.reader import ATTRIBUTES, path_error, read, seam_velocity, shows, steadiness
from world.scenes import COMBINATIONS, GROUND, HELD_OUT, SEEN, draw_scene, frame_extent, render


def interval(share, n):
    """Wilson's 95 % interval of a share counted in n cases."""
    z = 1.96
    middle, spread = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - spread) / (1 + z**2 / n), (middle + spread) / (1 + z**2 / n)


def shares(videos, combinations, fps):
    """How many videos show what was asked → {"all", "shape", "colour", "direction", "speed"}: shares between 0 and 1."""
    found = [read(video, fps) for video in videos]
    right = np.array([[f[a] == word for a, word in zip(ATTRIBUTES, c)] for f, c in zip(found, combinations)])
    return {"all": float(right.all(1).mean())} | dict(zip(ATTRIBUTES, right.mean(0).tolist()))


def clips(pool, n, seed, frames, height, width, fps):
    """n clips of the world, each of the pool's combinations as often as the others → combinations, captions, videos (n, T, H, W, 3).

    256 held-out clips are 14 sentences with 256 different starts."""
    rng = np.random.default_rng(seed)
    asked = [pool[i] for i in np.resize(rng.permutation(len(pool)), n)]
    drawn = [draw_scene(rng, c, frame_extent(height, width)) for c in asked]
    return asked, [describe(s) for s in drawn], np.stack([render(s, frames, height, width, fps) for s in drawn])


def usual(config):
    """The clip that `score` asks for: (T, H, W, fps), at most 17 frames, which have room to show where a thing moves before it bounces."""
    return min(config.frames, 17), config.height, config.width, config.fps


def prompt_following(model, pool, prompts, seed, **how):
    """The shares of videos that show what was asked. how: steps, guidance, eta of sample.generate."""
    asked, captions, truth = clips(pool, prompts, seed, *usual(model.config))
    return shares(generate(model, captions, *truth.shape[1:4], seed=seed, **how), asked, model.config.fps)


def score(model, prompts=256, seed=10_000, **how):
    """Seen and held-out prompts, the reader's ceiling and the VAE → the report that main prints."""
    asked, _, truth = clips(SEEN, prompts, seed, *usual(model.config))
    return {"seen": prompt_following(model, SEEN, prompts, seed, **how),
            "held_out": prompt_following(model, HELD_OUT, prompts, seed + 1_000, **how),
            "ceiling": shares(truth, asked, model.config.fps),
            "vae_psnr": {str(frames): vae_psnr(model, frames) for frames in (1, 5, 17, 33)},
            "train_seconds": model.train_seconds, "prompts": prompts}


@torch.no_grad()
def through_vae(model, videos):
    """(B, T, H, W, 3) uint8 → the same, encoded and decoded: the best that any sample can look like."""
    return np.concatenate([to_uint8(model.vae.decode(model.vae.encode(to_float(v).to(model.latent_scale.device))[0])) for v in np.array_split(videos, -(-len(videos) // 16))])


def vae_psnr(model, frames):
    """Decibels of the VAE's reconstructions of 64 new clips of one length."""
    _, _, truth = clips(SEEN, 64, frames, frames, model.config.height, model.config.width, model.config.fps)
    return psnr(F.mse_loss(to_float(through_vae(model, truth)), to_float(truth)))


def format_table(report):
    """The report in text."""
    n, lines = report["prompts"], [f"{'share right':16}" + "".join(f"{a:>10}" for a in ("all", *ATTRIBUTES)) + "   95 % interval of all"]
    for kind, title in (("seen", "seen"), ("held_out", "held out"), ("ceiling", "reader's ceiling")):
        low, high = interval(report[kind]["all"], n)
        lines.append(f"{title:16}" + "".join(f"{report[kind][a]:10.1%}" for a in ("all", *ATTRIBUTES)) + f"   {low:.1%} to {high:.1%} of {n} prompts")
    lines.append("VAE, unseen clips: " + ", ".join(f"{db:.1f} dB ({frames} frame{'s' * (frames != '1')})" for frames, db in report["vae_psnr"].items()))
    return "\n".join(lines + [f"trained in {report['train_seconds'] / 60:.1f} minutes"])


def modes(model, n, seed=20_000, **how):
    """Scores everything that sample.py does with frames; prints a line for each as it is known. n cases each. how: steps, guidance, eta."""
    c, fps, how = model.config, model.config.fps, {"seed": seed} | how

    shown = []

    def row(title, right, note="", example=None):
        low, high = interval(share := float(np.mean(right)), n)
        print(f"{title:58}{share:7.1%}   {low:.1%} to {high:.1%} of {n}   {note}", flush=True)
        if example is not None:
            shown.append(film_strip(example[:1], 9).repeat(4, 0).repeat(4, 1))

    def pixels(errors):
        return f"median {np.median(errors):.2f} px, 95 % below {np.quantile(errors, 0.95):.2f} px"

    trained, (lengths, sizes) = {True: "", False: " (never trained)"}, clip_shapes(c)
    print(f"{'text to video':58}{'':7}   " + " / ".join(ATTRIBUTES) + ", ceiling of the worst")
    for (H, W), T in [(size, T) for size in ((32, 32), (24, 40), (40, 24)) for T in (17, 21, 25)] + [((32, 48), 17)]:
        asked, captions, truth = clips(SEEN, n, seed + T + W, T, H, W, fps)
        found, best = shares(generate(model, captions, T, H, W, **how), asked, fps), shares(truth, asked, fps)
        row(f"{T} frames of {H}x{W}{trained[T in lengths and (H, W) in sizes]}", found["all"],
            " / ".join(f"{found[a]:.1%}" for a in ATTRIBUTES) + f", {min(best[a] for a in ATTRIBUTES):.1%}")
    asked, _, truth = clips(SEEN, n, seed, 1, 32, 32, fps)
    row("images, 32x32", [shows(v, k) for v, k in zip(generate(model, [f"a {k[1]} {k[0]}" for k in asked], 1, 32, 32, **how), asked)],
        f"reader on the world's own {np.mean([shows(v, k) for v, k in zip(truth, asked)]):.1%}")

    asked, captions, truth = clips(SEEN, n, seed + 1, 17, 32, 32, fps)
    made = extend(model, captions, truth[:, :1], 16, **how)
    lost = psnr(F.mse_loss(to_float(through_vae(model, truth[:, :1])), to_float(truth[:, :1])))
    row("animate a still: it moves as prompted", [shows(v, k, ATTRIBUTES) for v, k in zip(made, asked)], f"the still comes back: {(made[:, 0] == truth[:, 0]).all()}; the VAE's own picture of it {lost:.1f} dB", example=made)
    made = extend(model, [""] * n, truth[:, :1], 16, **how)
    row("animate without a prompt: the same thing, a trained speed", [shows(v, k) and read(v)["speed"] is not None for v, k in zip(made, asked)])

    asked, captions, truth = clips(SEEN, n, seed + 2, 25, 32, 32, fps)
    for title, made, new, at in (("forward", extend(model, [""] * n, truth[:, :13], 12, **how), slice(13, 25), 15),
                                 ("backward", extend(model, [""] * n, truth[:, 12:], 12, backward=True, **how), slice(0, 12), 14)):
        ideal = truth.copy()
        ideal[:, new] = through_vae(model, truth)[:, new]                             # the truth, as a sampler that makes no mistake would show it
        errors = [path_error(v, t, new) for v, t in zip(made, truth)]
        v, real, read_real = (np.array([seam_velocity(video, at) for video in videos]) for videos in (made, truth, ideal))
        off, floor = (np.linalg.norm(x - real, axis=1) for x in (v, read_real))
        row(f"extend {title} by 1 s: the same thing, within 2 px", [shows(m, k) and e <= 2 for m, k, e in zip(made, asked, errors)], pixels(errors))
        row(f"extend {title}: direction kept at the seam", [x @ y > 0.7 * np.linalg.norm(x) * np.linalg.norm(y) for x, y in zip(v, real)],
            f"velocity off by {np.mean(off):.3f} px a frame (median {np.median(off):.3f}), on the world's own, after the VAE, {np.mean(floor):.3f} ({np.median(floor):.3f})", example=made)

    asked, captions, truth = clips(SEEN, n, seed + 3, 25, 32, 32, fps)
    made, _ = fill(model, [""] * n, truth, 9, 16, **how)
    errors = [path_error(v, t, slice(9, 17)) for v, t in zip(made, truth)]
    row("fill in the middle third: the same thing, within 2 px", [shows(m, k) and e <= 2 for m, k, e in zip(made, asked, errors)], pixels(errors), example=made)
    made, _ = connect(model, [""] * n, truth[:, :5], truth[:, 17:], 12, **how)
    errors = [path_error(v, t, slice(5, 17)) for v, t in zip(made, truth)]
    row("connect two clips of a thing: the same, within 2 px", [shows(m, k) and e <= 2 for m, k, e in zip(made, asked, errors)], pixels(errors))
    other = np.roll(truth, 1, 0)
    made, _ = connect(model, [""] * n, truth[:, :9], other[:, 17:], 8, **how)
    area = (np.linalg.norm(made.astype(np.float32) - GROUND, axis=-1) > 60).sum(axis=(2, 3))  # (n, T)
    row("connect different things: one to be seen in every frame", (area[:, 9:17] >= 0.5 * area[:, [8, 17]].min(axis=1, keepdims=True)).all(1), f"ends kept: {(made[:, :9] == truth[:, :9]).all() and (made[:, 17:] == other[:, 17:]).all()}", example=made)

    red = [k for k in COMBINATIONS if k[1] == "red"]
    for strength in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        asked, captions, truth = clips(red, n, seed + 4, 17, 32, 32, fps)
        made = complete(model, [p.replace("red", "blue") for p in captions], truth, np.ones(17, bool), strength, **how)
        errors = [path_error(v, t, slice(None)) for v, t in zip(made, truth)]
        row(f"edit red to blue, strength {strength}: blue, within 2 px", [read(v)["colour"] == "blue" and e <= 2 for v, e in zip(made, errors)], pixels(errors), example=made)
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/modes.png", np.concatenate(shown))
    print("out/modes.png shows the first case of: animate, extend forward, backward, fill in, connect different things, edit with rising strength")


def minute(model, n, seconds, seed=30_000, **how):
    """n long videos, read second by second."""
    c = model.config
    asked, captions, _ = clips(SEEN, n, seed, 1, 32, 32, c.fps)
    begun = time.time()
    videos = generate(model, captions, 1 + 4 * int((seconds * c.fps + 2) // 4), 32, 32, seed=seed, progress=True,
                      then=[f"a {colour} {shape} moving {speed}" for shape, colour, _, speed in asked], **how)
    took = time.time() - begun
    looks, moves, drift = (np.array(x) for x in zip(*(steadiness(v, k, c.fps) for v, k in zip(videos, asked))))
    for title, right in (("looks the same", looks), ("moves right", moves)):
        low, high = np.quantile([right[np.random.default_rng(i).integers(n, size=n)].mean() for i in range(1000)], (0.025, 0.975))  # seconds of a clip are not independent
        print(f"{seconds} s, {title}: {right.mean():.1%} of {right.size} seconds ({low:.1%} to {high:.1%}); by tenth of the clip: " + " ".join(f"{x.mean():.0%}" for x in np.array_split(right, min(10, seconds), 1)))
    print(f"{seconds} s, brightness drifts by {drift.mean():.1%} (95 % of clips below {np.quantile(drift, 0.95):.1%}); {took / n / seconds:.3f} s of computing per second of video")


def main():
    parser = Flags(__doc__)
    parser.add_argument("--checkpoint", help="what train.py wrote; default: the newest out/*/model.pt, or else assets/small.pt")
    parser.add_argument("--prompts", type=int, default=256, help="how many, seen and held out each")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--modes", action="store_true", help="score animate, extend, fill in, connect, edit, and text to video of several sizes and lengths instead")
    what.add_argument("--minute", type=int, metavar="SECONDS", help="score videos of so many seconds instead, second by second")
    parser.add_argument("--steps", type=int, help="denoising steps; the config has the default")
    parser.add_argument("--guidance", type=float, help="the config has the default")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default="ddim", help="ddim adds no noise on the way, ddpm does")
    what.add_argument("--json", action="store_true", help="print the report as one JSON object in the last line")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    args = parser.parse_args()
    check_at_least(args, prompts=1, minute=2, steps=1, guidance=0)
    checkpoint = args.checkpoint or newest_checkpoint()
    model = load_model(checkpoint, pick_device(args.device))
    if model.config.data != "world":
        raise BadInput(f"checkpoint {checkpoint}: trained on {model.config.data!r}; only the toy world's videos can be read")
    how = dict(steps=args.steps, guidance=args.guidance, eta=float(args.sampler == "ddpm"))
    if args.modes:
        return modes(model, args.prompts, **how)
    if args.minute:
        return minute(model, args.prompts, args.minute, **how)
    report = score(model, args.prompts, **how)
    print(format_table(report))
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    run(main)

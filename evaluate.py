"""Looks at a video and says what it shows; scores a model by asking for things and looking.

`read` uses pixels alone: which palette colour stands out from the ground, where its centre of mass is in every frame, how fast
that moves, and which shape, drawn by world.py at that place and size, covers the same pixels. It has no learned part, it gives
up (None) on a smear, and its own score on clips rendered by the world is the ceiling for any model. FID or FVD would need
a pretrained network, and would not say *what* is wrong.

Letters: T H W frames, height, width
"""
import json

import numpy as np
import torch
import torch.nn.functional as F

import world
from config import BadInput, Flags, at_least, device, run
from data import to_float
from sample import generate, load
from vae import psnr

ATTRIBUTES = ("shape", "colour", "direction", "speed")


def read(video, fps=12.0):
    """video (T, H, W, 3) uint8 → {"shape", "colour", "direction", "speed": a word or None, "sure": {the same: 0 to 1}, "track": (T, 2)}

    None: no thing is there in every frame, no shape covers it (IoU below 0.6), or it moves along no axis at about one of the two
    speeds. Clips of up to 4 frames have no direction and no speed. track: the centre of mass, x and y in pixels."""
    T, H, W, _ = video.shape
    found = dict.fromkeys(ATTRIBUTES) | {"sure": dict.fromkeys(ATTRIBUTES, 0.0), "track": None}
    away = video.astype(np.float32) - world.GROUND
    colourful = np.linalg.norm(away, axis=-1)                                            # (T, H, W) how far from the ground, of 442
    strong = colourful > 60                                                              # clearly not ground
    if not strong.any(axis=(1, 2)).all():
        return found
    palette = np.float32(list(world.COLOURS.values())) - world.GROUND
    distance = np.linalg.norm(np.median(away[strong], axis=0) - palette, axis=-1)        # (colours,)
    nearest, second = np.argsort(distance)[:2]
    found["colour"], found["sure"]["colour"] = list(world.COLOURS)[nearest], float(1 - distance[nearest] / distance[second])

    cover = np.clip(away @ palette[nearest] / (palette[nearest] @ palette[nearest]), 0, 1) * (colourful > 20)  # keeps soft edges, drops faint noise
    area = cover.sum(axis=(1, 2))                                                        # (T,) pixels
    track = np.stack([(cover * (np.arange(W) + 0.5)).sum(axis=(1, 2)), (cover * (np.arange(H)[:, None] + 0.5)).sum(axis=(1, 2))], -1)
    track = found["track"] = track / area[:, None].clip(1e-6)                            # (T, 2)

    unit, look = min(H, W), np.unique(np.linspace(0, T - 1, 5).round().astype(int))
    overlap = {}
    for shape, (filled, drop) in {"circle": (np.pi, 0), "square": (4, 0), "triangle": (2, 1 / 3)}.items():  # area / r^2; the centre of mass lies drop r below the box's middle
        r = np.sqrt(np.median(area) / filled)
        drawn = world.coverage(shape, r / unit, (track[look] - (0, drop * r)) / unit, H, W)
        overlap[shape] = np.minimum(drawn, cover[look]).sum() / np.maximum(drawn, cover[look]).sum()
    best, second, _ = sorted(overlap, key=overlap.get, reverse=True)
    if overlap[best] >= 0.6:
        found["shape"], found["sure"]["shape"] = best, float(min(1, (overlap[best] - overlap[second]) / 0.1))

    if T > 4:
        velocity = (track[4:] - track[:-4]) * fps / 4 / unit                             # (T - 4, 2) short sides per second
        axis = int(np.argmax(np.median(abs(velocity), axis=0)))
        pace, off = np.median(abs(velocity), axis=0)[[axis, 1 - axis]]
        sign = np.sign(np.median(velocity[: max(1, len(velocity) // 4), axis]))          # the first direction: later it may bounce
        words = {d: w for w, d in world.DIRECTIONS.items()}
        apart = {w: abs(np.log(max(pace, 1e-6) / s)) for w, s in world.SPEEDS.items()}
        tolerance, speed = np.log(1.5), min(apart, key=apart.get)
        if sign and off < 0.5 * pace and apart[speed] < tolerance:
            found["direction"], found["sure"]["direction"] = words[(int(sign), 0) if axis == 0 else (0, int(sign))], float(1 - off / pace)
            found["speed"], found["sure"]["speed"] = speed, float(1 - apart[speed] / tolerance)
    return found


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


def draw(config, pool, prompts, seed):
    """`prompts` of the pool's combinations, each as often as the others, and a scene for each. 256 held-out prompts are 14 sentences with 256 noises."""
    rng = np.random.default_rng(seed)
    asked = [pool[i] for i in np.resize(rng.permutation(len(pool)), prompts)]
    return asked, [world.scene(rng, c, world.aspect(config.height, config.width)) for c in asked]


def follow(model, pool, prompts, seed, **how):
    """The shares of videos that show what was asked. how: steps, guidance, eta of sample.generate."""
    asked, scenes = draw(model.config, pool, prompts, seed)
    return shares(generate(model, [world.describe(s) for s in scenes], seed=seed, **how), asked, model.config.fps)


def score(model, prompts=256, seed=10_000, **how):
    """Seen and held-out prompts, the reader's ceiling and the VAE → the report that main prints."""
    c = model.config
    asked, scenes = draw(c, world.SEEN, prompts, seed)
    return {"seen": follow(model, world.SEEN, prompts, seed, **how),
            "held_out": follow(model, world.HELD_OUT, prompts, seed + 1_000, **how),
            "ceiling": shares([world.render(s, c.frames, c.height, c.width, c.fps) for s in scenes], asked, c.fps),
            "vae_psnr": {str(frames): vae_psnr(model, frames) for frames in (1, 5, 17, 33)},
            "train_seconds": model.seconds, "prompts": prompts}


@torch.no_grad()
def vae_psnr(model, frames):
    """Decibels of the VAE's reconstructions of 64 new clips of one length."""
    c, rng, errors = model.config, np.random.default_rng(frames), []
    for _ in range(4):
        scenes = [world.scene(rng, aspect=world.aspect(c.height, c.width)) for _ in range(16)]
        video = to_float(np.stack([world.render(s, frames, c.height, c.width, c.fps) for s in scenes])).to(model.scale.device)
        errors.append(F.mse_loss(model.vae.decode(model.vae.encode(video)[0]), video))
    return psnr(torch.stack(errors).mean())


def table(report):
    """The report in text."""
    n, lines = report["prompts"], [f"{'share right':16}" + "".join(f"{a:>10}" for a in ("all", *ATTRIBUTES)) + "   95 % interval of all"]
    for kind, title in (("seen", "seen"), ("held_out", "held out"), ("ceiling", "reader's ceiling")):
        low, high = interval(report[kind]["all"], n)
        lines.append(f"{title:16}" + "".join(f"{report[kind][a]:10.1%}" for a in ("all", *ATTRIBUTES)) + f"   {low:.1%} to {high:.1%} of {n} prompts")
    lines.append("VAE, unseen clips: " + ", ".join(f"{db:.1f} dB ({frames} frame{'s' * (frames != '1')})" for frames, db in report["vae_psnr"].items()))
    return "\n".join(lines + [f"trained in {report['train_seconds'] / 60:.1f} minutes"])


def demo():
    """The reader on clips that the world rendered: what was drawn, and what it sees."""
    rng = np.random.default_rng(0)
    for scene in (world.scene(rng) for _ in range(6)):
        found = read(world.render(scene))
        print(f"{world.describe(scene):42} read as: " + ", ".join(f"{found[a]} ({found['sure'][a]:.0%} sure)" for a in ATTRIBUTES))


def main():
    parser = Flags(__doc__)
    parser.add_argument("--checkpoint", help="what train.py wrote; without it, the reader shows what it sees in a few clips of the world")
    parser.add_argument("--prompts", type=int, default=256, help="how many, seen and held out each")
    parser.add_argument("--steps", type=int, help="denoising steps; the config has the default")
    parser.add_argument("--guidance", type=float, help="the config has the default")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default="ddim", help="ddim adds no noise on the way, ddpm does")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object in the last line")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    args = parser.parse_args()
    at_least(args, prompts=1, steps=1, guidance=0)
    if args.checkpoint is None:
        return demo()
    model = load(args.checkpoint, device(args.device))
    if model.config.data != "world":
        raise BadInput(f"checkpoint {args.checkpoint}: trained on {model.config.data!r}; only the toy world's videos can be read")
    report = score(model, args.prompts, steps=args.steps, guidance=args.guidance, eta=float(args.sampler == "ddpm"))
    print(table(report))
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    run(main)

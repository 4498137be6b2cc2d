"""Scores a model by asking for things and looking at what comes out (world/reader.py).

    python evaluate.py                       prompts seen in training, and combinations that were held out
    python evaluate.py --modes               every mode of sample.py
    python evaluate.py --minute 60           long videos, second by second
    python evaluate.py --world               a model of the rich world (the knob `scenes`), ability by ability
    python evaluate.py --captions            how many facts of brief and of full captions such a model shows
    python evaluate.py --unseen-words        prompts in words that no caption of its training had

The toy world can be read back exactly, so a score says *what* is wrong. The reader's own score on clips
rendered by the world is the ceiling for any model. FID or FVD would need a pretrained network and would not
say what is wrong.

Papers
    The interval of a share: Wilson 1927; compared in Newcombe 1998, Statistics in Medicine 17

Letters
    B       clips
    T H W   frames, height, width in pixels
"""
from config import BadInput, clip_shapes, latent_length

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F

from data.video_io import film_strip, to_float, to_uint8
from diffusion import Schedule, diffusion_loss
from sample import add_model_flags, complete, connect, extend, fill, generate
from utils.checkpoint import check_is_trained, describe_model, load_model
from utils.cli import Flags, check_at_least, pick_device, run
from vae import psnr
from world.caption_reader import facts_asked, facts_shown, facts_told
from world.captions import (
    RELATIONS,
    describe,
    describe_briefly,
    describe_fully,
    facts,
    facts_at_any_time,
    facts_of_image,
)
from world.reader import ATTRIBUTES, path_error, read, seam_velocity, shows, steadiness
from world.scene_reader import read_facts
from world.scenes import (
    COMBINATIONS,
    DIRECTIONS,
    GROUND,
    HELD_OUT,
    KINDS,
    OPPOSITE,
    SEEN,
    SIMPLE_COLOURS,
    SIZES,
    SPEEDS,
    draw_rich_scene,
    draw_scene,
    frame_extent,
    pick,
    render,
)
from world.twins import TWINS, draw_twins

# Other words for those of the simple world's captions.
UNSEEN_WORDS = {
    "red": "crimson", "green": "emerald", "blue": "azure", "yellow": "golden", "purple": "violet",
    "white": "ivory", "circle": "disc", "square": "box", "triangle": "pyramid", "moving": "drifting",
    "left": "leftwards", "right": "rightwards", "up": "upwards", "down": "downwards",
    "slowly": "gradually", "quickly": "rapidly",
}

NEAR = 2.0  # pixels of 32: a path that stays this near to the world's own is right
SAME_DIRECTION = 0.7  # cosine of the angle between two velocities, above which they point the same way
BALL_SPEEDS = (0.08, 0.15, 0.25, 0.36, 0.5)  # short sides per second; 0.15 and 0.36 are trained
UNITS = 10  # units of length that PhyWorld's frames are wide
CLEARLY_NOT_GROUND = 60  # a pixel farther than this from the ground's colour (of 442) shows a thing


def interval(share, n):
    """Wilson's 95 % interval of a share counted in n cases → (low, high)."""
    z = 1.96
    middle = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # At 0 of n the low end is 0, give or take a rounding error, which would be printed as -0.0 %.
    return max(0.0, (middle - spread) / scale), (middle + spread) / scale


def attribute_shares(videos, combinations, fps):
    """How many videos show what was asked → {"all", "shape", "colour", "direction", "speed"}: shares
    between 0 and 1."""
    right = []
    for video, combination in zip(videos, combinations, strict=True):
        found = read(video, fps)
        right.append([found[name] == word for name, word in zip(ATTRIBUTES, combination, strict=True)])
    right = np.array(right)                                                        # (B, 4)
    shares = {"all": float(right.all(1).mean())}
    for name, share in zip(ATTRIBUTES, right.mean(0).tolist(), strict=True):
        shares[name] = share
    return shares


def world_clips(pool, n, seed, frames, height, width, fps, is_rich=False):
    """n clips of one moving thing → combinations, captions, videos (n, T, H, W, 3). Each of the pool's
    combinations is as frequent as the others: 256 held-out clips are 14 sentences with 256 different
    starts. is_rich: the things have the sizes of the rich world, and the captions its wordings."""
    combinations, scenes = world_scenes(pool, n, seed, frame_extent(height, width), is_rich)
    captions = [tell(scene, frames, is_rich) for scene in scenes]
    videos = np.stack([render(scene, frames, height, width, fps) for scene in scenes])
    return combinations, captions, videos


def world_scenes(pool, n, seed, extent, is_rich):
    """The scenes of `world_clips` → combinations, scenes."""
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(len(pool)), n)
    combinations = [pool[i] for i in order]
    sizes = list(SIZES.values()) if is_rich else None
    return combinations, [draw_scene(rng, combination, extent, sizes=sizes) for combination in combinations]


def tell(scene, frames, is_rich):
    """The caption of a scene with one thing, as the model was trained on it: of an image without motion."""
    if not is_rich:
        return describe(scene, () if frames == 1 else ("direction", "speed"))
    return describe_fully(scene, np.random.default_rng(0), facts_of_image if frames == 1 else facts)


def tell_at_any_time(scene, is_rich):
    """The caption of a scene with one thing that stays true when it has bounced."""
    if not is_rich:
        return describe(scene, ("speed",))
    return describe_fully(scene, np.random.default_rng(0), facts_at_any_time)


def usual_clips(config, pool, n, seed):
    """`world_clips` in the config's size, of at most 17 frames: room to show where a thing moves before it
    bounces."""
    frames = min(config.frames, 17)
    return world_clips(pool, n, seed, frames, config.height, config.width, config.fps)


def prompt_following(model, pool, prompts, seed, **sampling):
    """The shares of videos that show what was asked. sampling: steps, guidance, eta of sample.generate."""
    combinations, captions, truth = usual_clips(model.config, pool, prompts, seed)
    _, T, H, W, _ = truth.shape
    videos = generate(model, captions, T, H, W, seed=seed, **sampling)
    return attribute_shares(videos, combinations, model.config.fps)


def reword(caption):
    """'a red circle moving left slowly' → 'a crimson disc drifting leftwards gradually'."""
    return " ".join(UNSEEN_WORDS.get(word, word) for word in caption.split())


def unseen_words(model, prompts=256, seed=10_000, **sampling):
    """The shares of videos that show what was asked in words that no training caption has; prints them.

    A vocabulary leaves such words out; a pretrained text encoder (text.py) knows what they mean."""
    combinations, captions, truth = usual_clips(model.config, SEEN, prompts, seed)
    _, T, H, W, _ = truth.shape
    reworded = [reword(caption) for caption in captions]
    videos = generate(model, reworded, T, H, W, seed=seed, **sampling)
    shares = attribute_shares(videos, combinations, model.config.fps)
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    print(f"{prompts} prompts such as {reworded[0]!r}: {told}")
    return {"unseen_words": shares, "prompts": prompts}


def score(model, prompts=256, seed=10_000, **sampling):
    """Seen and held-out prompts, the reader's ceiling and the VAE → the report that main prints."""
    combinations, _, truth = usual_clips(model.config, SEEN, prompts, seed)
    return {
        "seen": prompt_following(model, SEEN, prompts, seed, **sampling),
        "held_out": prompt_following(model, HELD_OUT, prompts, seed + 1_000, **sampling),
        "ceiling": attribute_shares(truth, combinations, model.config.fps),
        "vae_psnr": {str(frames): vae_psnr(model, frames) for frames in (1, 5, 17, 33)},
        "train_seconds": model.train_seconds,
        "prompts": prompts,
    }


@torch.no_grad()
def through_vae(model, videos):
    """(B, T, H, W, 3) uint8 → the same, encoded and decoded: the best that any sample can look like."""
    groups = np.array_split(videos, math.ceil(len(videos) / 16))  # so that memory stays that of 16 clips
    decoded = []
    for group in groups:
        mean, _ = model.vae.encode(to_float(group).to(model.latent_scale.device))
        decoded.append(to_uint8(model.vae.decode(mean)))
    return np.concatenate(decoded)


def reconstruction_psnr(model, videos):
    """How near the VAE's own pictures of videos are, in dB."""
    return psnr(F.mse_loss(to_float(through_vae(model, videos)), to_float(videos)))


def vae_psnr(model, frames):
    """Decibels of the VAE's reconstructions of 64 new clips of one length."""
    config = model.config
    _, _, truth = world_clips(
        SEEN, 64, seed=frames, frames=frames, height=config.height, width=config.width, fps=config.fps
    )
    return reconstruction_psnr(model, truth)


def format_table(report):
    """score's report as text."""
    n = report["prompts"]
    titles = "".join(f"{name:>10}" for name in ("all", *ATTRIBUTES))
    lines = [f"{'share right':16}{titles}   95 % interval of all"]
    for kind, title in (("seen", "seen"), ("held_out", "held out"), ("ceiling", "reader's ceiling")):
        shares = "".join(f"{report[kind][name]:10.1%}" for name in ("all", *ATTRIBUTES))
        low, high = interval(report[kind]["all"], n)
        lines.append(f"{title:16}{shares}   {low:.1%} to {high:.1%} of {n} prompts")

    lengths = []
    for frames, decibels in report["vae_psnr"].items():
        unit = "frame" if frames == "1" else "frames"
        lengths.append(f"{decibels:.1f} dB ({frames} {unit})")
    lines.append("VAE, unseen clips: " + ", ".join(lengths))
    lines.append(f"trained in {report['train_seconds'] / 60:.1f} minutes")
    return "\n".join(lines)


@dataclass
class ModeScorer:
    """What every mode's function is given, and where its rows and the examples for the picture go."""

    model: object
    n: int  # cases of each mode
    seed: int
    sampling: dict  # steps, guidance, eta, seed of sample.complete
    examples: list = field(default_factory=list)  # (caption, video, which of its frames were given)
    rows: dict = field(default_factory=dict)  # title -> {"share", "n", "ceiling"}

    @property
    def fps(self):
        return self.model.config.fps

    def row(self, title, right, note="", ceiling=None):
        """Keeps a share and prints it with its interval. right: n booleans, or their share. ceiling: the
        share of the world's own clips, None where it was not measured."""
        share = float(np.mean(right))
        ceiling = None if ceiling is None else float(np.mean(ceiling))
        self.rows[title] = {"share": share, "n": self.n, "ceiling": ceiling}
        low, high = interval(share, self.n)
        print(f"{title:58}{share:7.1%}   {low:.1%} to {high:.1%} of {self.n}   {note}", flush=True)

    def show(self, caption, videos, given):
        """Puts the first of the videos into the picture. given: (T,) bool, its frames that were given."""
        self.examples.append((caption, videos[0], np.broadcast_to(given, len(videos[0]))))

    @property
    def is_rich(self):
        return bool(self.model.config.scenes)

    @property
    def side(self):
        """The side of a square frame in pixels, a multiple of 32."""
        return 32 * max(1, min(self.model.config.height, self.model.config.width) // 32)

    @property
    def near(self):
        """Pixels: a path that stays this near to the world's own is right."""
        return NEAR * self.side / 32

    def clips(self, pool, seed_offset, frames, height=None, width=None):
        """Clips from the world, square ones unless asked otherwise. The same offset and shape give the same
        clips."""
        shape = (frames, height or self.side, width or self.side)
        return world_clips(pool, self.n, self.seed + seed_offset, *shape, self.fps, self.is_rich)

    def no_prompts(self):
        return [""] * self.n


def pixels(errors):
    return f"median {np.median(errors):.2f} px, 95 % below {np.quantile(errors, 0.95):.2f} px"


def path_errors(videos, truth, frames):
    """Pixels between the paths of videos and of the world's own clips, over some of their frames, one a
    video."""
    return [path_error(video, clip, frames) for video, clip in zip(videos, truth, strict=True)]


def same_and_near(videos, combinations, errors, near):
    """Which videos show the same thing on the right path, at most `near` pixels from it."""
    right = []
    for video, combination, error in zip(videos, combinations, errors, strict=True):
        right.append(shows(video, combination) and error <= near)
    return right


def score_text_to_video(scorer):
    """Prompts alone: three lengths of three shapes, and a size that was never trained."""
    model = scorer.model
    trained_lengths, trained_sizes = clip_shapes(model.config)
    side = scorer.side
    short, long = 3 * side // 4, 5 * side // 4
    shapes = [(size, T) for size in ((side, side), (short, long), (long, short)) for T in (17, 21, 25)]
    shapes.append(((side, 3 * side // 2), 17))
    print(f"{'text to video':58}{'':7}   " + " / ".join(ATTRIBUTES) + ", ceiling of the worst")
    for (H, W), T in shapes:
        combinations, captions, truth = scorer.clips(SEEN, T + W, T, H, W)
        videos = generate(model, captions, T, H, W, **scorer.sampling)
        found = attribute_shares(videos, combinations, scorer.fps)
        ceiling = attribute_shares(truth, combinations, scorer.fps)

        is_trained = T in trained_lengths and (H, W) in trained_sizes
        title = f"{T} frames of {H}x{W}"
        if not is_trained:
            title += " (never trained)"
        shares = " / ".join(f"{found[name]:.1%}" for name in ATTRIBUTES)
        worst = min(ceiling[name] for name in ATTRIBUTES)
        scorer.row(title, found["all"], f"{shares}, {worst:.1%}", ceiling["all"])


def score_images(scorer):
    """Videos of one frame: shape and colour."""
    combinations, captions, truth = scorer.clips(SEEN, 0, 1)
    images = generate(scorer.model, captions, 1, scorer.side, scorer.side, **scorer.sampling)
    right = [shows(image, combination) for image, combination in zip(images, combinations, strict=True)]
    ceiling = [shows(image, combination) for image, combination in zip(truth, combinations, strict=True)]
    note = f"reader on the world's own {np.mean(ceiling):.1%}"
    scorer.row(f"images, {scorer.side}x{scorer.side}", right, note, ceiling)


def score_animate(scorer):
    """A still is given: with a prompt it moves as told, without one at a speed that was trained."""
    model = scorer.model
    combinations, captions, truth = scorer.clips(SEEN, 1, 17)
    stills = truth[:, :1]

    videos = extend(model, captions, stills, 16, **scorer.sampling)
    right = []
    for video, combination in zip(videos, combinations, strict=True):
        right.append(shows(video, combination, ATTRIBUTES, scorer.fps))
    kept = (videos[:, 0] == truth[:, 0]).all()
    decibels = reconstruction_psnr(model, stills)
    note = f"the still comes back: {kept}; the VAE's own picture of it {decibels:.1f} dB"
    scorer.row("animate a still: it moves as prompted", right, note)
    scorer.show(f"a still (green: given), animated (grey): {captions[0]}", videos, given=np.arange(17) == 0)

    videos = extend(model, scorer.no_prompts(), stills, 16, **scorer.sampling)
    right = []
    for video, combination in zip(videos, combinations, strict=True):
        right.append(shows(video, combination) and read(video, scorer.fps)["speed"] is not None)
    scorer.row("animate without a prompt: the same thing, a trained speed", right)


def score_extend(scorer):
    """A second is given, a second is invented, forward and backward: the same thing, the same path, no jolt
    at the seam."""
    combinations, _, truth = scorer.clips(SEEN, 2, 25)
    prompts = scorer.no_prompts()
    forward = extend(scorer.model, prompts, truth[:, :13], 12, **scorer.sampling)
    score_extension(scorer, "forward", forward, truth, combinations, new=slice(13, 25), seam=15)
    backward = extend(scorer.model, prompts, truth[:, 12:], 12, backward=True, **scorer.sampling)
    score_extension(scorer, "backward", backward, truth, combinations, new=slice(0, 12), seam=14)


def score_extension(scorer, direction, videos, truth, combinations, new, seam):
    """new: the invented frames; seam: the last of the five frames over which the velocity at the seam is
    measured."""
    errors = path_errors(videos, truth, new)
    title = f"extend {direction} by 1 s: the same thing, within {scorer.near:g} px"
    scorer.row(title, same_and_near(videos, combinations, errors, scorer.near), pixels(errors))

    # The floor: the truth as a sampler that makes no mistake would show it, through the VAE where frames
    # are new.
    ideal = truth.copy()
    ideal[:, new] = through_vae(scorer.model, truth)[:, new]
    velocity = np.array([seam_velocity(video, seam) for video in videos])
    true_velocity = np.array([seam_velocity(video, seam) for video in truth])
    ideal_velocity = np.array([seam_velocity(video, seam) for video in ideal])
    error = np.linalg.norm(velocity - true_velocity, axis=1)
    floor = np.linalg.norm(ideal_velocity - true_velocity, axis=1)

    # A video without a thing has no path, and no direction that it could keep.
    right = []
    for made, true, distance in zip(velocity, true_velocity, errors, strict=True):
        same = made @ true > SAME_DIRECTION * np.linalg.norm(made) * np.linalg.norm(true)
        right.append(same and distance < np.inf)
    measured = f"velocity off by {np.mean(error):.3f} px a frame (median {np.median(error):.3f})"
    note = f"{measured}, on the world's own, after the VAE, {np.mean(floor):.3f} ({np.median(floor):.3f})"
    scorer.row(f"extend {direction}: direction kept at the seam", right, note)
    frame = np.arange(len(truth[0]))
    given = (frame < new.start) | (frame >= new.stop)
    scorer.show(f"a clip, extended {direction} by a second, no prompt", videos, given)


def score_fill(scorer):
    """The middle third of a clip is invented."""
    combinations, _, truth = scorer.clips(SEEN, 3, 25)
    videos, _ = fill(scorer.model, scorer.no_prompts(), truth, 9, 16, **scorer.sampling)
    errors = path_errors(videos, truth, slice(9, 17))
    right = same_and_near(videos, combinations, errors, scorer.near)
    title = f"fill in the middle third: the same thing, within {scorer.near:g} px"
    scorer.row(title, right, pixels(errors))
    frame = np.arange(25)
    scorer.show("a clip, its middle third filled in, no prompt", videos, given=(frame < 9) | (frame > 16))


def score_connect(scorer):
    """Two clips are given, of one thing or of two different ones."""
    model = scorer.model
    prompts = scorer.no_prompts()
    combinations, _, truth = scorer.clips(SEEN, 3, 25)

    videos, _ = connect(model, prompts, truth[:, :5], truth[:, 17:], 12, **scorer.sampling)
    errors = path_errors(videos, truth, slice(5, 17))
    right = same_and_near(videos, combinations, errors, scorer.near)
    title = f"connect two clips of a thing: the same, within {scorer.near:g} px"
    scorer.row(title, right, pixels(errors))

    # Between different things anything may happen, but something has to be there in every frame.
    other = np.roll(truth, 1, 0)
    videos, _ = connect(model, prompts, truth[:, :9], other[:, 17:], 8, **scorer.sampling)
    distance = np.linalg.norm(videos.astype(np.float32) - GROUND, axis=-1)             # (n, T, H, W)
    area = (distance > CLEARLY_NOT_GROUND).sum(axis=(2, 3))                            # (n, T)
    smaller_end = area[:, [8, 17]].min(axis=1, keepdims=True)
    right = (area[:, 9:17] >= 0.5 * smaller_end).all(1)
    kept = (videos[:, :9] == truth[:, :9]).all() and (videos[:, 17:] == other[:, 17:]).all()
    title = "connect different things: one to be seen in every frame"
    scorer.row(title, right, f"ends kept: {kept}")
    frame = np.arange(25)
    scorer.show("two clips of different things, connected, no prompt", videos, (frame < 9) | (frame > 16))


def score_edit(scorer):
    """Red things become blue and stay on their path, at rising strengths."""
    red = [combination for combination in COMBINATIONS if combination[1] == "red"]
    _, captions, truth = scorer.clips(red, 4, 17)
    prompts = [caption.replace("red", "blue") for caption in captions]
    all_known = np.ones(17, bool)
    scorer.show(f"a clip to edit: {captions[0]}", truth, given=True)
    for strength in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        videos = complete(scorer.model, prompts, truth, all_known, strength=strength, **scorer.sampling)
        errors = path_errors(videos, truth, slice(None))
        right = []
        for video, error in zip(videos, errors, strict=True):
            right.append(read(video)["colour"] == "blue" and error <= scorer.near)
        title = f"edit red to blue, strength {strength}: blue, within {scorer.near:g} px"
        scorer.row(title, right, pixels(errors))
        scorer.show(f"edited with strength {strength}: {prompts[0]}", videos, given=False)


def score_uniform_motion(scorer):
    """PhyWorld's measure (Kang et al. 2024, https://arxiv.org/abs/2411.02385, sec. 3): a ball that moves
    uniformly is continued from given frames, and |v - v'| is the error of its velocity, in units per second,
    where the frame's short side is 10 units. v' is the slope of a straight line through its places in the
    invented frames. The reader's floor is the same for the world's own clips."""
    shape = (25, 3 * scorer.side // 4, 5 * scorer.side // 4)
    new = slice(9, 25)
    for speed in BALL_SPEEDS:
        rng = np.random.default_rng(scorer.seed)
        balls = [draw_ball(rng, speed, *shape, scorer.fps) for _ in range(scorer.n)]
        truth = np.stack([clip for clip, _ in balls])
        velocities = [velocity for _, velocity in balls]
        videos = extend(scorer.model, scorer.no_prompts(), truth[:, : new.start], 16, **scorer.sampling)

        to_units = UNITS * scorer.fps / min(shape[1:])
        errors = to_units * velocity_errors(videos, velocities, new)
        floor = to_units * velocity_errors(truth, velocities, new).mean()

        # A ball that is gone has no velocity: it is counted apart.
        seen = errors[np.isfinite(errors)]
        error = float(seen.mean()) if len(seen) else None
        title = f"a ball at {UNITS * speed:g} units a second, continued: |v - v'|"
        scorer.rows[title] = {"error": error, "n": len(seen), "floor": float(floor)}
        measured = "" if error is None else f"{error:.3f}"
        lost = f"{scorer.n - len(seen)} of {scorer.n} lost"
        print(f"{title:58}{measured:>7}   the reader's floor {floor:.3f}; {lost}", flush=True)


def draw_ball(rng, speed, frames, height, width, fps):
    """A clip of a ball that moves left or right at any speed and meets no wall → the clip, and its velocity
    (x, y) in pixels a frame."""
    pace = speed / SPEEDS["quickly"]  # so many times faster does the world's time run
    times = pace * np.arange(frames) / fps
    direction = pick(rng, ("left", "right"))
    combination = ("circle", pick(rng, SIMPLE_COLOURS), direction, "quickly")
    scene = draw_scene(rng, combination, frame_extent(height, width), calm_seconds=times[-1])
    velocity = np.array(DIRECTIONS[direction]) * speed * min(height, width) / fps
    return render(scene, frames, height, width, times=times), velocity


def velocity_errors(videos, velocities, frames):
    """|v - v'|, v' being the slope of a line through a thing's places in some frames → pixels a frame, one a
    video; infinite where it shows no thing."""
    errors = []
    for video, velocity in zip(videos, velocities, strict=True):
        track = read(video)["track"]
        if track is None:
            errors.append(np.inf)
            continue
        places = track[frames]
        slope, _ = np.polyfit(np.arange(len(places)), places, 1)                       # (2,)
        errors.append(np.linalg.norm(slope - velocity))
    return np.array(errors)


MODES = [
    score_text_to_video,
    score_images,
    score_animate,
    score_extend,
    score_fill,
    score_connect,
    score_edit,
]


def modes(model, n, seed=20_000, **sampling):
    """Scores everything that sample.py does with frames, n cases each → a dict, row → {"share", "n",
    "ceiling"}; prints a line for each as it is known.

    sampling: steps, guidance, eta. Writes the first case of the modes to out/modes.png."""
    scorer = ModeScorer(model, n, seed, {"seed": seed} | sampling)
    for score_mode in MODES:
        score_mode(scorer)
    score_uniform_motion(scorer)
    captions, videos, given = zip(*scorer.examples, strict=True)
    Path("out").mkdir(exist_ok=True)
    iio.imwrite("out/modes.png", film_strip(videos, captions, columns=9, given=given))
    print("out/modes.png shows the first case of each: frames with a green border were given")
    return scorer.rows


def minute(model, n, seconds, seed=30_000, **sampling):
    """n long square videos, read second by second: does the thing keep its looks, does it move as asked? → a
    dict, row → {"share", "n", "ceiling"}, where n counts seconds."""
    scorer = ModeScorer(model, n, seed, sampling)
    fps = scorer.fps
    side = scorer.side
    _, scenes = world_scenes(SEEN, n, seed, (1.0, 1.0), scorer.is_rich)
    combinations, captions, _ = scorer.clips(SEEN, 0, 5)

    # The direction is for the first window alone: after a bounce it is another one.
    then = [tell_at_any_time(scene, scorer.is_rich) for scene in scenes]
    frames = 1 + 4 * int((seconds * fps + 2) // 4)
    begun = time.time()
    videos = generate(model, captions, frames, side, side, seed=seed, progress=True, then=then, **sampling)
    took = time.time() - begun

    looks, moves, drifts = judge_seconds(videos, combinations, fps)
    print_seconds("looks the same", looks, seconds)
    print_seconds("moves right", moves, seconds)
    highest = np.quantile(drifts, 0.95)
    print(
        f"{seconds} s, brightness drifts by {np.mean(drifts):.1%} (95 % of clips below {highest:.1%}); "
        f"{took / n / seconds:.3f} s of computing per second of video"
    )

    # The ceilings: the world's own clips, read in the same way.
    truth = [render(scene, frames, side, side, fps) for scene in scenes]
    true_looks, true_moves, _ = judge_seconds(truth, combinations, fps)
    rows = {}
    for title, right, ceiling in (("looks", looks, true_looks), ("motion", moves, true_moves)):
        rows[title] = {"share": float(right.mean()), "n": right.size, "ceiling": float(ceiling.mean())}
    return rows


def judge_seconds(videos, combinations, fps):
    """world.reader.steadiness of each video → looks (n, seconds) bool, moves (n, seconds) bool, n drifts."""
    judged = []
    for video, combination in zip(videos, combinations, strict=True):
        judged.append(steadiness(video, combination, fps))
    looks, moves, drifts = zip(*judged, strict=True)
    return np.array(looks), np.array(moves), drifts


# The abilities of the rich world: the kind of scene, how many things (None: as many as the kind may have),
# and what is held out, as draw_rich_scene takes them.
ABILITIES = {
    "one_thing": ("move", 1, ""),
    "two_things": ("move", 2, ""),
    "two_things_held_out": ("move", 2, "pair"),
    "three_things": ("move", 3, ""),
    "turn": ("turn", None, ""),
    "held_out_events": ("turn", None, "events"),
    "fall": ("fall", None, ""),
    "hidden": ("hide", None, ""),
    "left_frame": ("leave", None, ""),
    "collide": ("collide", None, ""),
    "bite": ("bite", None, ""),
    "two_shots": ("cut", None, ""),
}


# Where the model's surprise is measured: noise levels at which the frames that follow are hidden, but not
# wholly.
SURPRISE_LEVELS = (0.6, 0.7, 0.8, 0.9)

# The facts of a scene's things that have a row each, named as captions.facts names them.
THING_FACTS = (
    "count", "shape", "size", "moves", "speed", "turns", "falls", "hides", "leaves", "collides", "bites"
)


def world(model, n, seed=40_000, **sampling):
    """Scores the abilities that a model of the rich world was trained for, n prompts each → a dict, row →
    {"share", "n", "ceiling"}. Prints each row as it is known.

    A video is right if the reader finds every fact of the scene that its prompt describes, and no further
    thing; where things lie to each other is not counted, since not every prompt has room for it. The ceiling
    is the same for the world's own clips. The rows of single facts are taken from all these videos."""
    config = model.config
    extent = frame_extent(config.height, config.width)
    shape = (config.frames, config.height, config.width)
    seconds = (config.frames - 1) / config.fps
    rows = {}
    cases = []
    for ability, (kind, count, held_out) in ABILITIES.items():
        if kind not in config.scenes.split() or KINDS[kind] > seconds:
            continue
        rng = np.random.default_rng(seed)
        scenes = [draw_rich_scene(rng, kind, extent, seconds, count, held_out) for _ in range(n)]
        captions = [describe_fully(scene, rng) for scene in scenes]
        videos = generate(model, captions, *shape, seed=seed, **sampling)
        found = [read_facts(video, config.fps) for video in videos]
        found_in_truth = [read_facts(render(scene, *shape, config.fps), config.fps) for scene in scenes]
        asked = [{fact for fact in facts(scene) if fact[1] not in RELATIONS} for scene in scenes]

        cases_of_ability = list(zip(asked, found, found_in_truth, scenes, captions, strict=True))
        add_row(rows, ability, cases_of_ability)
        cases += cases_of_ability
    add_fact_rows(rows, cases)
    add_surprise_rows(rows, model, n, seed)
    return rows


# An image is read as a still video of so many frames.
STILL_FRAMES = 5


def captions_followed(model, n, seed=50_000, **sampling):
    """How many of the facts that captions ask for are shown by the videos (or images) made of them → a dict,
    row → {"share", "n", "ceiling"}, where n counts facts. Prints each row as it is known.

    The n scenes are told in brief and in full; to a model that was trained on recaptions also in brief and
    then expanded, and those videos are judged by what the brief caption asks for."""
    config = model.config
    shape = (config.frames, config.height, config.width)
    seconds = (config.frames - 1) / config.fps
    choose = facts_of_image if config.frames == 1 else facts
    kinds = [kind for kind in config.scenes.split() if KINDS[kind] <= seconds]
    extent = frame_extent(config.height, config.width)
    rng = np.random.default_rng(seed)
    scenes = [draw_rich_scene(rng, pick(rng, kinds), extent, seconds) for _ in range(n)]
    found_in_truth = [read_any(render(scene, *shape, config.fps), config.fps) for scene in scenes]

    brief = [describe_briefly(scene, rng, choose) for scene in scenes]
    full = [describe_fully(scene, rng, choose) for scene in scenes]
    asked_in_brief = [facts_asked(caption) for caption in brief]
    asked_in_full = []
    for scene, caption in zip(scenes, full, strict=True):
        # A full caption tells where things are as far as it has room for that.
        told = facts_told(caption)
        asked_in_full.append([fact for fact in choose(scene) if fact in told])

    rows = {}
    ways = {"brief": (brief, asked_in_brief), "full": (full, asked_in_full)}
    if config.captioner:
        ways["expanded"] = (expand_all(config.captioner, brief, seed, model), asked_in_brief)
    for way, (prompts, asked) in ways.items():
        videos = generate(model, prompts, *shape, seed=seed, **sampling)
        found = [read_any(video, config.fps) for video in videos]
        add_caption_rows(rows, way, asked, found, found_in_truth)
    return rows


def add_caption_rows(rows, way, asked, found, found_in_truth):
    """The share of the facts asked that are found, over all of them and by what they are about. Lists, an
    entry per video: asked as caption_reader.facts_asked gives them, found as a reader of videos does."""
    right = {"all facts": []}
    right_in_truth = {"all facts": []}
    for asked_of_one, *both in zip(asked, found, found_in_truth, strict=True):
        shown, shown_in_truth = [facts_shown(asked_of_one, told) for told in both]
        for fact, is_right, is_right_in_truth in zip(asked_of_one, shown, shown_in_truth, strict=True):
            for row in ("all facts", name_of_fact(fact)):
                right.setdefault(row, []).append(is_right)
                right_in_truth.setdefault(row, []).append(is_right_in_truth)
    for row in right:
        add_share(rows, f"{way}: {row}", right[row], float(np.mean(right_in_truth[row])))


def name_of_fact(fact):
    """The row that a fact is counted in: its relation, or what part of the scene it is about."""
    subject, relation, _ = fact
    return subject if subject in ("ground", "camera", "cut to") else relation


def expand_all(captioner, prompts, seed, model):
    """What a captioner's file makes of brief prompts → as many full ones."""
    # recaption.py itself imports this file.
    from recaption import expand, load_captioner

    network, _, _ = load_captioner(captioner, model.latent_scale.device)
    return [expand(network, prompt, seed + i) for i, prompt in enumerate(prompts)]


def read_any(video, fps):
    """read_facts of a video, or of an image."""
    return read_facts(np.repeat(video, STILL_FRAMES, 0) if len(video) == 1 else video, fps)


def add_fact_rows(rows, cases):
    """The rows of single facts, wherever a prompt told them. cases: (facts asked, facts found, facts found in
    the world's own clip, scene, caption) for each video."""
    told = {fact: [] for fact in THING_FACTS} | {"ground": [], "camera": [], "relation": []}
    confused = []
    for asked, found, found_in_truth, scene, caption in cases:
        both = (found, found_in_truth)
        for fact in asked:
            if fact[1] in THING_FACTS:
                told[fact[1]].append(({fact}, *both))
        told["ground"].append(({("ground", "is", scene.ground)}, *both))
        if scene.camera != "still":
            told["camera"].append(({("camera", "is", scene.camera)}, *both))
        relations = relations_told(caption, scene)
        if relations:
            told["relation"].append((relations, *both))

        # Something that should go left goes right, or the other way round.
        for colour, relation, direction in asked:
            if relation == "moves" and direction in ("left", "right"):
                confused.append(({(colour, "moves", OPPOSITE[direction])}, *both))
    for title, cases_of_fact in (*told.items(), ("left_right_confusion", confused)):
        if cases_of_fact:
            add_row(rows, title, cases_of_fact)


def relations_told(caption, scene):
    """The facts "left of" and "above" that a caption tells, from either side."""
    relations = {fact for fact in facts(scene) if fact[1] in RELATIONS}
    told = {relation for relation, reverse in RELATIONS.items() if relation in caption or reverse in caption}
    # Of three things, a word does not say which two it is about, so captions of two alone are counted.
    if len(scene.things) != 2:
        return set()
    return {fact for fact in relations if fact[1] in told}


def add_surprise_rows(rows, model, n, seed):
    """How often an impossible twin surprises the model more than the clip that keeps the law, by law and for
    all together (world/twins.py)."""
    config = model.config
    shape = (config.frames, config.height, config.width, config.fps)
    all_surprised = []
    for twin, kind in TWINS.items():
        if kind not in config.scenes.split():
            continue
        rng = np.random.default_rng(seed)
        pairs = [draw_twins(rng, twin, *shape) for _ in range(n)]
        surprised = is_surprised(model, pairs, seed)
        add_share(rows, f"surprise: {twin}", surprised, ceiling=1.0)
        all_surprised += surprised
    if all_surprised:
        add_share(rows, "surprise", all_surprised, ceiling=1.0)


@torch.no_grad()
def is_surprised(model, pairs, seed):
    """Which impossible twins have the higher denoising loss → a list of booleans.

    pairs: (possible, impossible, first frame in which they differ) as draw_twins makes them. What both begin
    with is given, there is no prompt, and both get the same noise."""
    device = model.latent_scale.device
    schedule = Schedule(model.config.schedule)
    generator = torch.Generator().manual_seed(seed)
    surprised = []
    for possible, impossible, first in pairs:
        video = to_float(np.stack([possible, impossible])).to(device)
        x_0 = model.vae.encode(video)[0] * model.latent_scale                          # (2, Z, f, h, w)
        given = torch.arange(x_0.shape[2], device=device) < latent_length(first)       # (f,)

        # One batch: each level, each with noise of its own, for both twins.
        levels = torch.tensor(SURPRISE_LEVELS, device=device).repeat_interleave(2)     # (2 levels,)
        eps = torch.randn(len(SURPRISE_LEVELS), *x_0.shape[1:], generator=generator).to(device)
        losses = diffusion_loss(
            model.dit,
            [x_0.repeat(len(SURPRISE_LEVELS), 1, 1, 1, 1)],
            [torch.zeros(len(levels), model.config.max_words, dtype=torch.long, device=device)],
            [levels[:, None] * ~given],
            [eps.repeat_interleave(2, 0)],
            schedule,
            model.config.target,
        )
        loss_of_possible, loss_of_impossible = losses.unflatten(0, (-1, 2)).mean(0).tolist()
        surprised.append(loss_of_impossible > loss_of_possible)
    return surprised


def add_row(rows, title, cases):
    """Puts the share of videos in which all that was asked is found into `rows`, and prints it.

    cases: (facts asked, facts found, facts found in the world's own clip, ...) for each video."""
    right = [asked <= found for asked, found, *_ in cases]
    ceiling = np.mean([asked <= found_in_truth for asked, _, found_in_truth, *_ in cases])
    add_share(rows, title, right, float(ceiling))


def add_share(rows, title, right, ceiling):
    """Puts the share of `right`, booleans, into `rows`, and prints it."""
    n = len(right)
    share = float(np.mean(right))
    low, high = interval(share, n)
    rows[title] = {"share": share, "n": n, "ceiling": ceiling}
    print(f"{title:38}{share:7.1%}   {low:.1%} to {high:.1%} of {n}, ceiling {ceiling:.1%}", flush=True)


def print_seconds(title, right, seconds):
    """right (n, seconds) bool → the share of right seconds, its interval, and the share in each tenth of
    the clip."""
    # Seconds of a clip are not independent, so the interval comes from drawing whole clips again (bootstrap).
    n = len(right)
    means = []
    for i in range(1000):
        again = np.random.default_rng(i).integers(n, size=n)
        means.append(right[again].mean())
    low, high = np.quantile(means, (0.025, 0.975))
    tenths = np.array_split(right, min(10, seconds), 1)
    shares = " ".join(f"{tenth.mean():.0%}" for tenth in tenths)
    counted = f"{right.mean():.1%} of {right.size} seconds ({low:.1%} to {high:.1%})"
    print(f"{seconds} s, {title}: {counted}; by tenth of the clip: {shares}")


def add_flags(parser):
    add = parser.add_argument
    add_model_flags(parser)
    prompts_help = "how many: seen and held out each, cases of each mode, or long videos"
    add("--prompts", type=int, default=256, metavar="N", help=prompts_help)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--modes", action="store_true", help="score every mode of sample.py instead")
    instead.add_argument("--minute", type=int, metavar="SECONDS", help="score long videos instead")
    world_help = "score the abilities of a model of the rich world instead"
    instead.add_argument("--world", action="store_true", help=world_help)
    captions_help = "score how many facts of brief and of full captions such a model shows instead"
    instead.add_argument("--captions", action="store_true", help=captions_help)
    words_help = "score prompts in words that no training caption has instead"
    instead.add_argument("--unseen-words", action="store_true", help=words_help)
    add("--json", action="store_true", help="end with the report as one line of JSON")


def main():
    parser = Flags(__doc__)
    add_flags(parser)
    args = parser.parse_args()
    check_at_least(args, prompts=1, minute=2, steps=1, guidance=0)

    model = load_model(args.checkpoint, pick_device(args.device))
    check_is_trained(model)
    # The knob `scenes` also tells of a model that was trained on the world's clips as latents.
    if model.config.data != "world" and not model.config.scenes:
        what = f"trained on {model.config.data!r}; only the toy world's videos can be read"
        raise BadInput(f"checkpoint {model.checkpoint_path}: {what}")
    print(f"model: {describe_model(model)}", flush=True)

    if (args.world or args.captions) and not model.config.scenes:
        flag = "--world" if args.world else "--captions"
        what = f"trained on the simple world; {flag} scores models whose knob `scenes` is not empty"
        raise BadInput(f"checkpoint {model.checkpoint_path}: {what}")

    sampling = {"steps": args.steps, "guidance": args.guidance, "eta": 1.0 if args.sampler == "ddpm" else 0.0}
    if args.unseen_words:
        report = unseen_words(model, args.prompts, **sampling)
    elif args.modes:
        report = modes(model, args.prompts, **sampling)
    elif args.minute:
        report = minute(model, args.prompts, args.minute, **sampling)
    elif args.world:
        report = world(model, args.prompts, **sampling)
    elif args.captions:
        report = captions_followed(model, args.prompts, **sampling)
    else:
        report = score(model, args.prompts, **sampling)
        print(format_table(report))
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    run(main)

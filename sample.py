"""The ways to use a trained model that the announcement names. What is given stays, what is not is invented:

    python sample.py --prompt "a red circle moving left slowly"     text to video
    python sample.py --prompt "a red circle" --frames 1             an image; --seconds 60 is a minute
    python sample.py --image still.png                              animate it
    python sample.py --video clip.mp4 --extend forward 1            a second more; backward: a second before
    python sample.py --video clip.mp4 --fill 5-8                    invent these frames
    python sample.py --connect a.mp4 b.mp4 0.7                      seconds in between
    python sample.py --edit clip.mp4 --strength 0.7 --prompt "a blue circle moving left slowly"

They are one function. `complete` takes a video of which some frames are known, encodes these, holds them at
noise level 0, denoises the rest beside them and decodes. Text to video knows no frame, animating a still
knows frame 0, an edit begins at a level below 1. `extend` calls `complete` again and again where one
sequence is too short; `fill` finds the sequence around a gap.

The command judges the prompts before anything is made and every frame before anything is written (safety/).
Prompt, seed and the checkpoint's hash go into the file's metadata, and with the extras installed the file
is signed.

Papers
    SDEdit (edits that begin in between), Meng et al. 2022, https://arxiv.org/abs/2108.01073
    Long videos from overlapping windows: Video Diffusion Models, Ho et al. 2022, sec. 3.1,
        https://arxiv.org/abs/2204.03458

Where we differ: Sora makes its minute in one sequence; ours holds about two seconds, so a longer video is
made in windows.

Letters
    B       clips, one per prompt
    T H W   frames, height, width in pixels
    Z       latent channels
    f h w   latent frames, rows, columns
"""
from config import TIME_FACTOR, BadInput, check_size, clip_shapes, latent_length

import re
import sys
from pathlib import Path

import numpy as np
import torch

import diffusion
import text
from data.video_io import check_output_path, open_clip, to_float, to_uint8, write_clip
from utils.checkpoint import SHIPPED, check_is_trained, describe_model, load_model
from utils.cli import Flags, autocast, check_at_least, pick_device, progress_bar, run
from vae import latent_to_frame_mask

# More prompts are processed in groups, so that memory stays that of 32 clips (64 with guidance).
CLIPS_AT_ONCE = 32

# Added to the seed from one window of a long video to the next: no two begin with the same noise.
SEED_STEP = 1_000_003

# How many seeds there are: after the last comes 0 again. (PyTorch's CPU generator looks at the lowest 32 bits
# only, so that seeds 2^32 apart give the same noise.)
SEEDS = 2**63

# No model here was trained at a hundredth of so many pixels, and a computer's memory ends soon after.
LARGEST_SIDE = 1024

# From this many denoising steps on, no noise is left to be seen.
FEW_STEPS = 8

DEFAULT_PROMPT = "a red circle moving left slowly"
DEFAULT_STRENGTH = 0.7

# Words of --help for what a checkpoint's config says.
OF_THE_MODEL = "the model's own"
IN_SHIPPED = "in assets/small.pt"


@torch.no_grad()
def complete(
    model, prompts, video, known, strength=None, steps=None, guidance=None, eta=1.0, seed=0, progress=False
):
    """A partly known video → the whole video (B, T, H, W, 3) uint8, as one sequence. Every mode calls this.

    prompts   B strings
    video     (B, T, H, W, 3) uint8; what unknown frames hold does not matter
    known     (T,) bool, the same for all clips. A latent frame (frame 0; frames 1 to 4; 5 to 8 ...) is given
              if all its frames are known, and these come back as they were
    strength  None, or the noise level an edit begins at: then every frame has to be known, and none is kept
    steps     denoising steps; None takes the config's
    guidance  0 ignores the prompts, 1 is the plain model, more pushes; None takes the config's
    eta       1 is DDPM, 0 is DDIM: the noise that DDPM adds at every step washes its earlier errors out
    seed      0 to 2^63 - 1; clip i starts from the noise of seed + i, whatever stands beside it

    Raises BadInput for a size that cannot be cut into patches, and for prompts that are too long."""
    config = model.config
    check_size(config, *video.shape[1:4])
    prompt_ids = text.encode_text(prompts, model.vocab, config)

    videos = []
    for first in range(0, len(prompts), CLIPS_AT_ONCE):
        group = slice(first, first + CLIPS_AT_ONCE)
        with autocast(config.precision, model.latent_scale.device):
            completed = complete_group(
                model, prompt_ids[group], video[group], known, strength=strength, steps=steps,
                guidance=guidance, eta=eta, seed=seed + first, progress=progress,
            )
        videos.append(completed)
    return np.concatenate(videos)


def complete_group(model, prompt_ids, video, known, strength, steps, guidance, eta, seed, progress):
    """`complete` for as many clips as are worked off at once; see there."""
    config = model.config
    device = model.latent_scale.device
    B = len(video)

    # What is known becomes latents. An edit keeps none of them: it begins with all of them, somewhat noisy.
    pixels = to_float(video).to(device)                                            # (B, 3, T, H, W)
    known = torch.as_tensor(known, device=device).expand(B, -1)                    # (B, T)
    latents, given = model.vae.encode_known(pixels, known)                         # (B, Z, f, h, w), (B, f)
    start = 1.0
    if strength is not None:
        given = torch.zeros_like(given)
        start = strength

    # A generator per clip, so that a clip does not depend on its neighbours. Drawn on the CPU: the same on
    # any device.
    generators = [torch.Generator().manual_seed((seed + i) % SEEDS) for i in range(B)]

    def noise():
        draws = [torch.randn(latents.shape[1:], generator=generator) for generator in generators]
        return torch.stack(draws).to(device)                                       # (B, Z, f, h, w)

    z = diffusion.sample_latents(
        model.dit,
        prompt_ids.to(device),
        noise,
        diffusion.Schedule(config.schedule),
        config.target,
        steps=steps or config.sample_steps,
        eta=eta,
        guidance=config.guidance if guidance is None else guidance,
        kept=(latents * model.latent_scale, given),
        start=start,
        progress=progress,
    )
    decoded = to_uint8(model.vae.decode(z / model.latent_scale))                   # (B, T, H, W, 3)

    # The VAE loses a little, so given frames are put back as they were.
    keep = latent_to_frame_mask(given).cpu().numpy()[:, :, None, None, None]       # (B, T, 1, 1, 1)
    return np.where(keep, video, decoded)


def round_up(frames):
    """To whole latent frames: 1 to 4 frames → 4, 5 to 8 → 8."""
    return (frames + TIME_FACTOR - 1) // TIME_FACTOR * TIME_FACTOR


def plan_window(available, missing, longest, backward=False):
    """How the next window of a long video is made up → (given, invented), both in frames.

    available  frames there are
    missing    frames still wanted
    longest    latent frames in a window
    backward   new frames come before those there are

    An example: longest = 4, a window of 13 frames. 13 frames are there, 4 latent frames; 16 are missing, 4
    latent frames. Half a window is given, the rest invented: 2 latent frames given, which are frames 8 to
    12 (the first one of a sequence stands for one frame, the other for four: 5 frames), and 2 invented, 8
    frames: plan_window(13, 16, 4) == (5, 8). The window after it is alike, and then nothing is missing."""
    # The first latent frame of a sequence is one frame, all others are four. It is new where nothing is
    # given before it: then whole fours are given, and one frame more than whole fours is invented.
    first_is_new = backward or available == 0
    if first_is_new:
        there = available // TIME_FACTOR
        needed = 1 + round_up(missing - 1) // TIME_FACTOR
    else:
        there = latent_length(available)
        needed = round_up(missing) // TIME_FACTOR

    # At most half of a window is given if more is needed than fits; what is not needed for new frames is
    # given too.
    at_least_given = min(there, (longest + 1) // 2)
    new = min(needed, longest - at_least_given)
    old = min(there, longest - new)

    window = 1 + TIME_FACTOR * (old + new - 1)
    given = TIME_FACTOR * old
    if not first_is_new:
        given -= TIME_FACTOR - 1
    return given, window - given


def extend(model, prompts, video, frames, backward=False, then=None, seed=0, progress=False, **sampling):
    """A video (B, T, H, W, 3) uint8 → (B, T + frames, H, W, 3): new frames behind it, or before it.

    A sequence holds config.frames, given ones included. Beyond that, windows follow each other, the last
    half of one given to the next, so that the networks need no more memory. The prompts are for the first
    window: they name the direction at the start, which is wrong after a bounce; later windows see the right
    one in the frames they are given. They follow the prompts `then`, if there are any. sampling: steps,
    guidance, eta of `complete`.

    Raises BadInput where a clip is too short to be extended backward."""
    B, T, _, _, _ = video.shape
    if backward and T < TIME_FACTOR:
        needs = "to extend it backward a clip needs at least the 4 frames of a latent frame"
        raise BadInput(f"{T} frames: {needs}")
    longest = max(2, latent_length(model.config.frames))
    wanted = T + frames

    # One bar counts frames if there are several windows; else the sampler's own counts steps.
    _, invented = plan_window(T, frames, longest, backward)
    several_windows = invented < frames
    with progress_bar(total=frames, desc="frames", disable=not (progress and several_windows)) as bar:
        while video.shape[1] < wanted:
            missing = wanted - video.shape[1]
            new = next_window(
                model, prompts, video, missing, longest, backward=backward, seed=seed,
                progress=progress and not several_windows, **sampling,
            )
            parts = [new, video] if backward else [video, new]
            video = np.concatenate(parts, 1)
            bar.update(new.shape[1])

            # Each window has its own noise, and all but the first the prompts that hold all the time.
            prompts = then or [""] * B
            seed += SEED_STEP
    return video


def next_window(model, prompts, video, missing, longest, backward, seed, progress, **sampling):
    """One window of `extend` → its new frames (B, up to missing, H, W, 3)."""
    B, T, H, W, _ = video.shape
    given, invented = plan_window(T, missing, longest, backward)
    gap = np.zeros((B, invented, H, W, 3), np.uint8)

    if backward:
        window = np.concatenate([gap, video[:, :given]], 1)
        known = np.arange(window.shape[1]) >= invented
    else:
        window = np.concatenate([video[:, T - given :], gap], 1)
        known = np.arange(window.shape[1]) < given
        # A model that was trained with such windows gets the video's very first frame in place of the
        # window's, though it is from long before: it remembers how things looked, and nothing changes
        # little by little. Where only one frame is given, it has to be the one that is continued.
        if model.config.window_prob and given > 1:
            window[:, 0] = video[:, 0]

    completed = complete(model, prompts, window, known, seed=seed, progress=progress, **sampling)
    if backward:
        return completed[:, :invented][:, -missing:]
    return completed[:, given:][:, :missing]


def generate(model, prompts, frames=None, height=None, width=None, **sampling):
    """Text to video: B prompts → (B, T, H, W, 3) uint8. None takes the config's value.

    sampling: then, seed, progress, steps, guidance, eta; see `extend` and `complete`."""
    config = model.config
    frames = frames or config.frames
    height = height or config.height
    width = width or config.width
    check_size(config, frames, height, width)
    nothing = np.zeros((len(prompts), 0, height, width, 3), np.uint8)
    return extend(model, prompts, nothing, frames, **sampling)


def fill(model, prompts, video, first, last, **sampling):
    """Invents frames first ... last of a video (B, T, H, W, 3) → (the video, the last frame that is new).

    Whole latent frames are invented, so up to three frames behind the gap are new too. Raises BadInput
    where there is nothing around the gap, or where it does not fit into one sequence with a latent frame
    before and behind it."""
    T = video.shape[1]
    longest = model.config.frames
    gap = last - first + 1
    hole = round_up(gap)  # the gap in whole latent frames
    check_gap(first, last, hole, T, longest, model.config.fps)

    # The window begins with one frame, then come whole latent frames. Half of the room is for those behind
    # the hole, more where there is little before it.
    room = (longest - hole - 1) // TIME_FACTOR
    there_before = (first - 1) // TIME_FACTOR
    there_behind = (T - first - hole) // TIME_FACTOR
    latents_behind = min(there_behind, max(room - there_before, (room + 1) // 2))
    latents_before = min(there_before, room - latents_behind)
    before = 1 + TIME_FACTOR * latents_before
    behind = TIME_FACTOR * latents_behind

    begin = first - before
    end = first + hole + behind
    known = np.ones(end - begin, bool)
    known[before : before + hole] = False
    completed = complete(model, prompts, video[:, begin:end], known, **sampling)
    filled = np.concatenate([video[:, :begin], completed, video[:, end:]], 1)
    return filled, first + hole - 1


def check_gap(first, last, hole, T, longest, fps):
    """Raises BadInput for a gap that `fill` cannot fill. hole: frames that would be invented; longest:
    frames in a sequence; fps: frames per second, to say how `extend` would make as many."""
    gap = last - first + 1
    if gap < 1:
        raise BadInput(f"frames {first} to {last}: expected the first and the last one, for example 1 to 4")
    if first < 1:
        example = "expected a gap with at least a frame before it, for example 1 to 4"
        instead = f"for as many before the clip: --extend backward {gap / fps:.2f}"
        raise BadInput(f"frames {first} to {last}: {example}; {instead}")
    if first + hole + TIME_FACTOR > T:
        needs = f"{hole} frames would be invented (they come in fours), and 4 must follow them"
        instead = f"for new ones behind the clip: --extend forward {gap / fps:.2f}"
        raise BadInput(
            f"frames {first} to {last} of a clip of {T}: {needs}, to frame {first + hole + 3}; {instead}"
        )
    if hole + TIME_FACTOR + 1 > longest:
        most = (longest - TIME_FACTOR - 1) // TIME_FACTOR * TIME_FACTOR
        raise BadInput(f"frames {first} to {last} are {gap}; this model invents up to {most} between others")


def connect(model, prompts, a, b, frames, **sampling):
    """Two videos (B, T, H, W, 3) and new frames between them, in fours → (the video, the last frame that is
    new)."""
    if b.shape[1] < TIME_FACTOR:
        needs = "to be connected to, it needs at least the 4 frames of a latent frame"
        raise BadInput(f"a clip of {b.shape[1]} frames: {needs}")
    gap = np.zeros_like(a[:, :1]).repeat(round_up(frames), 1)
    video = np.concatenate([a, gap, b], 1)
    first = a.shape[1]
    return fill(model, prompts, video, first, first + frames - 1, **sampling)


def edit(model, prompts, video, strength, **sampling):
    """A video (B, T, H, W, 3) → its first 1 + 4k frames, changed to what the prompts say.

    strength: the noise level the edit begins at, above 0, up to 1."""
    T = video.shape[1]
    whole = 1 + (T - 1) // TIME_FACTOR * TIME_FACTOR
    known = np.ones(whole, bool)
    return complete(model, prompts, video[:, :whole], known, strength=strength, **sampling)


def add_model_flags(parser):
    """The flags that say which model samples, and how, into a parser or a group; evaluate.py has them too."""
    add = parser.add_argument
    checkpoint_help = "the model, such as your own out/tiny/model.pt (default: assets/small.pt)"
    add("--checkpoint", default=SHIPPED, metavar="FILE", help=checkpoint_help)
    steps_help = f"denoising steps (default: {OF_THE_MODEL}, 50 {IN_SHIPPED})"
    add("--steps", type=int, metavar="N", help=steps_help)
    guidance_help = "0 ignores the prompt, 1 is the plain model, more pushes towards the prompt"
    guidance_help += f" (default: {OF_THE_MODEL}, 2.0 {IN_SHIPPED})"
    add("--guidance", type=float, metavar="X", help=guidance_help)
    add("--sampler", choices=("ddim", "ddpm"), default="ddpm", help="ddpm adds noise in every step")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")


def add_flags(parser):
    """The flags of this command, grouped as one uses them."""
    add = parser.add_argument_group("What to show").add_argument
    prompt_help = "what to show; several give several files, @FILE takes one a line"
    prompt_help += f" (default: {DEFAULT_PROMPT!r}, or none where a picture or clip is given)"
    add("--prompt", nargs="+", help=prompt_help)
    add("--then", metavar="PROMPT", help="prompt for the later windows of a long video (default: none)")

    add = parser.add_argument_group("What is given").add_argument
    add("--image", metavar="FILE", help="animate this picture")
    add("--video", metavar="FILE", help="the clip that --extend or --fill work on")
    add("--extend", nargs=2, metavar=("forward|backward", "SECONDS"), help="new frames behind it, or before")
    add("--fill", metavar="A-B", help="invent frames A to B, counted from 0 at the model's frame rate")
    add("--connect", nargs=3, metavar=("FILE", "FILE", "SECONDS"), help="new frames between two clips")
    add("--edit", metavar="FILE", help="change this clip to what the prompt says")
    strength_help = "how much an edit may change: the noise level it begins at, above 0, up to 1"
    add("--strength", type=float, metavar="X", help=f"{strength_help} (default: {DEFAULT_STRENGTH})")

    add = parser.add_argument_group("What comes out").add_argument
    frames_help = "frames of the video, 1 + 4k; 1 is an image"
    add("--frames", type=int, metavar="N", help=f"{frames_help} (default: {OF_THE_MODEL}, 25 {IN_SHIPPED})")
    add("--seconds", type=float, metavar="X", help="the same in seconds, rounded up to 1 + 4k frames")
    size_help = "height and width in pixels, like 32x48"
    size_help += f" (default: {OF_THE_MODEL}, or the nearest to what is given)"
    add("--size", metavar="HxW", help=size_help)
    out_help = "the file; its ending says mp4, gif, webp, or png for a strip of frames"
    add("--out", default="out/sample.gif", metavar="FILE", help=out_help)
    zoom_help = "pixels of the file per pixel of the video, in each direction"
    add("--zoom", type=int, default=4, metavar="N", help=zoom_help)

    group = parser.add_argument_group("How it is made")
    add_model_flags(group)
    seed_help = "the first prompt's; the next one's is one more"
    group.add_argument("--seed", type=int, default=0, metavar="N", help=seed_help)
    expand_help = "a model trained on recaptions takes the prompts as they are, and not expanded"
    group.add_argument("--no-expand", action="store_true", help=expand_help)

    add = parser.add_argument_group("Safety").add_argument
    add("--keys", metavar="FOLDER", help="cert.pem and key.pem to sign with (default: ~/.config/sora-small)")
    add("--unsafe-skip-checks", action="store_true", help="do not judge anything; logged in unsafe.log")


def check_flags(args):
    """Raises BadInput for flags that are wrong, or do not go together."""
    check_at_least(args, steps=1, guidance=0, frames=1, zoom=1)
    if not 0 <= args.seed < SEEDS:
        raise BadInput(f"--seed {args.seed}: expected 0 or more, and less than 2^63")
    check_modes(args)
    if args.then and (args.fill or args.connect or args.edit):
        where = "expected with a prompt alone, --image or --extend, whose videos can be long"
        raise BadInput(f"--then {args.then}: {where}")
    if args.strength is not None and not (args.edit and 0 < args.strength <= 1):
        raise BadInput(f"--strength {args.strength}: expected a number above 0, up to 1, and --edit FILE")
    if args.edit and not args.prompt:
        raise BadInput(f"--edit {args.edit}: expected a --prompt that says what it should become")
    if args.extend and args.extend[0] not in ("forward", "backward"):
        raise BadInput(f"--extend {args.extend[0]}: expected forward or backward, then seconds")
    if args.size and not re.fullmatch(r"\d+x\d+", args.size):
        raise BadInput(f"--size {args.size}: expected HEIGHTxWIDTH, for example 32x48")
    if args.size and max(asked_size(args)) > LARGEST_SIDE:
        raise BadInput(f"--size {args.size}: expected sides of up to {LARGEST_SIDE} pixels")
    if args.fill and not re.fullmatch(r"\d+-\d+", args.fill):
        raise BadInput(f"--fill {args.fill}: expected FIRST-LAST, two frame numbers, for example 5-8")
    check_encoding(args)


def check_modes(args):
    """Raises BadInput for more than one mode, or for a length where the mode has its own."""
    given = {"--image": args.image, "--video": args.video, "--connect": args.connect, "--edit": args.edit}
    modes = []
    for flag, value in given.items():
        # An unset variable of the shell, for instance; it would be as if nothing were given.
        if value == "":
            raise BadInput(f"{flag}: expected a file, not an empty name")
        if value:
            modes.append(flag)
    if len(modes) > 1:
        raise BadInput(f"{' '.join(modes)}: expected one of them")

    works_on_video = bool(args.extend or args.fill)
    if bool(args.video) != works_on_video or (args.extend and args.fill):
        raise BadInput("--video FILE comes with --extend or with --fill, and they with it")
    if args.frames is not None and args.seconds is not None:
        raise BadInput(f"--frames {args.frames} --seconds {args.seconds}: expected one of them")
    has_length = args.frames is not None or args.seconds is not None
    if has_length and modes and not args.image:
        where = f"expected with a prompt alone or --image, not with {modes[0]}, which knows its length"
        raise BadInput(f"--frames or --seconds: {where}")


def check_encoding(args):
    """Raises BadInput for a prompt or a name that no file's metadata could hold."""
    texts = {"--prompt": " ".join([*(args.prompt or []), args.then or ""]), "--out": args.out}
    for flag, value in texts.items():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{flag}: {value[error.start]!r} is no letter; expected UTF-8") from error


def count_frames(seconds, fps, flag):
    """Seconds, as the user wrote them → frames, at least one. Raises BadInput."""
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if not 0 < value < 86_400:
        raise BadInput(f"{flag} {seconds}: expected seconds, above 0 and below 86400, for example 1")
    return max(1, round(value * fps))


def asked_prompts(args):
    """The prompts, at least one. Without any, what is given speaks for itself."""
    if args.prompt:
        return args.prompt
    speaks_for_itself = args.image or args.video or args.connect
    return [""] if speaks_for_itself else [DEFAULT_PROMPT]


def asked_size(args):
    """--size as (height, width), or None."""
    if not args.size:
        return None
    height, width = args.size.split("x")
    return int(height), int(width)


def asked_frames(args, config):
    """How many frames --frames or --seconds ask for; seconds are rounded up to 1 + 4k."""
    if args.seconds is not None:
        frames = count_frames(args.seconds, config.fps, "--seconds")
        return 1 + round_up(frames - 1)
    return args.frames or config.frames


def open_given(args, config, copies, size):
    """The clips that are given, each (copies, T, H, W, 3) uint8, all of one size: the one asked for, or the
    first clip's."""
    clips = []
    for path in given_paths(args):
        clip = open_clip(path, config, size)
        size = clip.shape[1:3]
        clips.append(clip[None].repeat(copies, 0))
    return clips


def given_paths(args):
    """The files that are given, in the order of `open_given`."""
    paths = [args.image, args.video, args.edit]
    if args.connect:
        paths += args.connect[:2]
    return [path for path in paths if path]


def make_videos(args, model, prompts, clips, frames, height, width):
    """What the flags ask for → (B, T, H, W, 3) uint8. Says which frames are new where that is not plain."""
    fps = model.config.fps
    sampling = {
        "steps": args.steps,
        "guidance": args.guidance,
        "eta": 1.0 if args.sampler == "ddpm" else 0.0,
        "seed": args.seed,
        "progress": True,
    }
    then = [args.then] * len(prompts) if args.then else None

    if args.image:
        still = clips[0][:, :1]
        return extend(model, prompts, still, frames - 1, then=then, **sampling)

    if args.extend:
        direction, seconds = args.extend
        new = count_frames(seconds, fps, "--extend")
        return extend(model, prompts, clips[0], new, backward=direction == "backward", then=then, **sampling)

    if args.fill:
        first, last = [int(number) for number in args.fill.split("-")]
        videos, last_new = fill(model, prompts, clips[0], first, last, **sampling)
        print(f"frames {first} to {last_new} are new")
        return videos

    if args.connect:
        new = count_frames(args.connect[2], fps, "--connect")
        videos, last_new = connect(model, prompts, clips[0], clips[1], new, **sampling)
        print(f"frames {clips[0].shape[1]} to {last_new} are new")
        return videos

    if args.edit:
        length = clips[0].shape[1]
        longest = model.config.frames
        if length > longest:
            limit = f"this model edits up to {longest}, {longest / fps:.1f} seconds"
            raise BadInput(f"--edit {args.edit}: {length} frames; {limit}")
        strength = DEFAULT_STRENGTH if args.strength is None else args.strength
        return edit(model, prompts, clips[0], strength, **sampling)

    return generate(model, prompts, frames, height, width, then=then, **sampling)


def output_path(args, i, count):
    """out.gif, or out-0.gif, out-1.gif ... where there are several prompts."""
    path = Path(args.out)
    if count == 1:
        return path
    return path.with_stem(f"{path.stem}-{i}")


def warn_of_size(config, height, width):
    """One line on stderr for a size at which the model would show nonsense. It goes on all the same.

    The limits are those at which assets/small.pt begins to draw several things, or none: it was trained at up
    to 32x32 and 24x40, and can do 32x48 and 40x40, but not 32x56, 48x48 or 64x64."""
    lengths, sizes = clip_shapes(config)
    sides = [side for size in sizes for side in size]
    largest_area = max(height * width for height, width in sizes)

    too_small = min(height, width) < min(sides)
    too_long = max(height, width) > 1.2 * max(sides)
    if too_small or too_long or height * width > 1.6 * largest_area:
        trained = ", ".join(f"{height}x{width}" for height, width in sizes)
        frames = ", ".join(map(str, lengths))
        told = f"this model was trained at {trained} ({frames} frames), and may show nonsense so far from it"
        print(f"warning: {height}x{width} pixels: {told}", file=sys.stderr)


def warn_of_steps(steps):
    """One line on stderr for so few denoising steps that noise is left. None: the model's own number."""
    if steps is not None and steps < FEW_STEPS:
        told = f"{FEW_STEPS} or more leave no noise, which may be blocked as disallowed imagery"
        print(f"warning: --steps {steps}: {told}", file=sys.stderr)


def warn_of_ground(path, clip, ground):
    """One line on stderr for a given clip (T, H, W, 3) that does not look like the toy world: less than half
    of it is dark, that is, within 32 of 255 of the ground's colour.

    Of the world's own clips more than two thirds are, since a thing covers at most a quarter of a frame and
    the ground is all the rest; of a white page, a photograph or noise hardly anything."""
    is_dark = abs(clip.astype(int) - ground).max(-1) <= 32                         # (T, H, W)
    share = is_dark.mean()
    if share < 0.5:
        told = f"{share:.0%} of it is dark; this model has only seen one shape on a dark ground"
        print(f"warning: {path}: {told}, and may show nonsense", file=sys.stderr)


def check_outputs(args, count, frames, height, width):
    """Raises BadInput for files, one for each of `count` prompts, that cannot be written."""
    for i in range(count):
        check_output_path(output_path(args, i, count), frames, height * args.zoom, width * args.zoom)


def planned_frames(args, config, clips, frames):
    """How many frames come out; frames: as many as --frames or --seconds ask for."""
    lengths = [clip.shape[1] for clip in clips]
    if args.extend:
        return lengths[0] + count_frames(args.extend[1], config.fps, "--extend")
    if args.connect:
        return sum(lengths) + round_up(count_frames(args.connect[2], config.fps, "--connect"))
    if args.fill:
        return lengths[0]
    if args.edit:
        return 1 + (lengths[0] - 1) // TIME_FACTOR * TIME_FACTOR
    return frames


def expand_prompts(captioner, prompts, seed, model):
    """Prompts → what the captioner makes of them, one line on stdout each; empty ones stay empty."""
    from recaption import expand, load_captioner

    network, _, _ = load_captioner(captioner, model.latent_scale.device)
    expanded = []
    for i, prompt in enumerate(prompts):
        expanded.append(expand(network, prompt, seed=(seed + i) % SEEDS) if prompt else "")
        print(f"{prompt!r} is expanded to {expanded[-1]!r} (--no-expand takes it as it is)")
    return expanded


def write_video(path, video, fps, zoom, note, caption):
    """data.video_io.write_clip, with one clear line for a full disk or the like. Raises BadInput."""
    try:
        write_clip(path, video, fps, zoom, note, caption)
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror})") from error


def main():
    # Safety is imported here alone: nothing else that samples has to load it.
    from safety import frames as safety_frames
    from safety import prompts as safety_prompts
    from safety import provenance

    # What the toy world shows, to warn of whatever is far from it.
    from world.captions import rich_telling_words, telling_words
    from world.scenes import GROUND

    parser = Flags(__doc__)
    add_flags(parser)
    args = parser.parse_args()
    check_flags(args)
    prompts = asked_prompts(args)
    all_prompts = [*prompts, args.then or ""]

    # Whatever can be refused is refused before any work: prompts, keys, checkpoint, words, sizes, files.
    if not args.unsafe_skip_checks:
        safety_prompts.check_prompts(all_prompts)
    signer = provenance.signer(args.keys or provenance.KEYS)
    model = load_model(args.checkpoint, pick_device(args.device))
    check_is_trained(model)
    print(f"model: {describe_model(model)}", flush=True)
    config = model.config
    text.encode_text(all_prompts, model.vocab, config)
    if config.text_encoder == "vocabulary":
        if config.scenes:
            telling = rich_telling_words()
        elif config.data == "world":
            telling = telling_words()
        else:
            telling = model.vocab
        text.check_words(all_prompts, model.vocab, telling)
    frames = asked_frames(args, config)
    size = asked_size(args)
    check_size(config, frames, *(size or (config.height, config.width)))
    clips = open_given(args, config, len(prompts), size)
    if clips:
        size = clips[0].shape[2:4]
    height, width = size or (config.height, config.width)
    planned = planned_frames(args, config, clips, frames)
    check_outputs(args, len(prompts), planned, height, width)

    # What is far from all that the model has seen is made all the same.
    warn_of_size(config, height, width)
    warn_of_steps(args.steps)
    if config.data == "world":
        for path, clip in zip(given_paths(args), clips, strict=True):
            warn_of_ground(path, clip[0], GROUND)
    if args.unsafe_skip_checks:
        provenance.log_skip(all_prompts, Path(args.out).parent)

    # A model that was trained on recaptions is used to long ones. What is given tells the rest by itself.
    asked = prompts
    if config.captioner and not args.no_expand and not clips:
        prompts = expand_prompts(config.captioner, prompts, args.seed, model)

    videos = make_videos(args, model, prompts, clips, frames, height, width)

    # Every frame of every video is looked at before the first is written.
    if not args.unsafe_skip_checks:
        safety_frames.check_frames(videos, config.fps)
    for i, (prompt, video) in enumerate(zip(prompts, videos, strict=True)):
        path = output_path(args, i, len(videos))
        told = prompt if prompt == asked[i] else f"{asked[i]}, expanded to: {prompt}"
        note = f"{told} | seed {(args.seed + i) % SEEDS} | checkpoint {model.checkpoint_hash}"
        write_video(path, video, config.fps, args.zoom, note, prompt)
        signature = provenance.sign(path, signer, model.checkpoint_hash, prompt, bool(clips))
        made = f"{path}: {len(video)} frames of {height}x{width} from {model.checkpoint_path}"
        print(made, prompt, signature, sep=" | ")
    if signer is None:
        print(provenance.UNSIGNED, file=sys.stderr)


if __name__ == "__main__":
    run(main)

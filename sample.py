"""Everything that the announcement does with a trained model. What is given stays, what is not is invented:

    python sample.py --prompt "a red circle moving left slowly"        text to video; --frames 1 for an image, --seconds 60 for a minute
    python sample.py --image still.png                                 animate it
    python sample.py --video clip.mp4 --extend forward 1               a second more; backward: a second before
    python sample.py --video clip.mp4 --fill 9-16                      invent these frames
    python sample.py --connect a.mp4 b.mp4 0.7                         seconds in between
    python sample.py --edit clip.mp4 --strength 0.7 --prompt "a blue circle moving left slowly"

They are one function. `complete` takes a video of which some frames are known, encodes what is known, holds it at level 0, denoises
the rest beside it (diffusion.sample_latents) and decodes. Text to video is a video of which nothing is known, a still to animate is known frame 0,
an edit begins at a level below 1. `extend` calls it again and again where one sequence is too short, `fill` finds the sequence around a gap.

The command judges the prompts before anything is made, and every frame before anything is written (safety.py). Prompt, seed and the checkpoint's hash go into
the file's metadata, and the file is signed.

SDEdit (edits by starting in between): Meng et al. 2022. Long videos by overlapping windows: Video Diffusion Models, Ho et al. 2022, sec. 3.1.
Letters: B prompts  T H W frames, height, width  Z latent channels  t h w latent frames, rows, columns
"""
import re
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import diffusion
import text
from config import BadInput, check_size
from data.video_io import check_output_path, open_clip, to_float, to_uint8, write_clip
from utils.checkpoint import load_model, newest_checkpoint
from utils.cli import Flags, check_at_least, pick_device, run


@torch.no_grad()
def complete(model, prompts, video, known, strength=None, steps=None, guidance=None, eta=0.0, seed=0, progress=False):
    """B prompts, a partly known video (B, T, H, W, 3) uint8 and which of its T frames are known, a bool array → the whole video, as one sequence.

    A latent frame (frame 0; frames 1 to 4; 5 to 8 ...) is given where all its frames are known: these come back as they were.
    strength, a level, edits: every frame has to be known, none is kept, and the noise begins at that level. eta: 0 is DDIM, 1 is DDPM.
    Clip i starts from the noise of seed + i, whatever stands beside it. Raises BadInput for a size that cannot be cut into patches."""
    c, place, made = model.config, model.latent_scale.device, []
    check_size(c, *video.shape[1:4])
    words = text.encode_prompts(prompts, model.vocab, c.max_words).to(place)
    for first in range(0, len(prompts), 32):  # memory stays that of 32 clips (64 with guidance)
        part = slice(first, first + 32)
        latents, given = model.vae.encode_known(to_float(video[part]).to(place), torch.as_tensor(known, device=place).expand(len(video[part]), -1))
        given = given & (strength is None)
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(given))]
        noise = lambda: torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(place)
        z = diffusion.sample_latents(model.dit, words[part], noise, diffusion.Schedule(c.schedule), c.target, steps or c.sample_steps, eta,
                             c.guidance if guidance is None else guidance, (latents * model.latent_scale, given), 1.0 if strength is None else strength, progress)
        stay = given.repeat_interleave(4, 1)[:, 3:, None, None, None].cpu().numpy()   # (B, T, 1, 1, 1)
        made.append(np.where(stay, video[part], to_uint8(model.vae.decode(z / model.latent_scale))))
    return np.concatenate(made)


def extend(model, prompts, video, frames, backward=False, then=None, seed=0, progress=False, **how):
    """A video (B, T, H, W, 3) → (B, T + frames, H, W, 3), with new frames behind it or before it.

    Up to config.frames stand in one sequence. Beyond, windows of that length follow each other, the last half of one given to the next,
    so the networks' memory does not grow. The prompt is for the first window: it names the direction at the start, which is wrong after
    a bounce; the given frames show the right one. Later windows follow the prompts `then`, if any. how: steps, guidance, eta. Raises BadInput where nothing could be given."""
    B, T, H, W, _ = video.shape
    most, total = max(2, 1 + (model.config.frames - 1) // 4), T + frames         # latent frames in a window
    if backward and T < 4:
        raise BadInput(f"{T} frames: to extend it backward a clip needs at least the 4 frames of a latent frame")
    with tqdm(total=frames, desc="frames", disable=not progress or frames <= model.config.frames) as bar:
        while (missing := total - (T := video.shape[1])) > 0:
            new_first = backward or T == 0                                       # a sequence's first latent frame is one frame, all others are four
            have = T // 4 if new_first else (T + 3) // 4                         # latent frames that there are
            need = (missing + (6 if new_first else 3)) // 4                      # latent frames that hold all that is missing
            new = min(need, most - min(have, (most + 1) // 2))                   # invented in this window
            old = min(have, most - new)                                          # given
            kept = 4 * old - (0 if new_first else 3)                             # given, in frames
            gap = np.zeros((B, 4 * (old + new) - 3 - kept, H, W, 3), np.uint8)
            given = video[:, :kept] if backward else video[:, T - kept :]
            if model.config.window_prob and not backward:                       # its frame 0 is the video's: a memory, so that nothing changes little by little
                given = np.concatenate([video[:, :1], given[:, 1:]], 1)
            window = [gap, given] if backward else [given, gap]
            known = np.repeat([not backward, backward], [part.shape[1] for part in window])
            made = complete(model, prompts, np.concatenate(window, 1), known, seed=seed, progress=progress and bar.disable, **how)
            part = made[:, : gap.shape[1]][:, -missing:] if backward else made[:, kept:][:, :missing]
            video = np.concatenate([part, video] if backward else [video, part], 1)
            prompts, seed = then or [""] * B, seed + 1_000_003
            bar.update(part.shape[1])
    return video


def generate(model, prompts, frames=None, height=None, width=None, **how):
    """prompts, a list of B strings → (B, T, H, W, 3) uint8. None takes the config's value; how: see `extend`."""
    c = model.config
    frames, height, width = frames or c.frames, height or c.height, width or c.width
    check_size(c, frames, height, width)
    return extend(model, prompts, np.zeros((len(prompts), 0, height, width, 3), np.uint8), frames, **how)


def fill(model, prompts, video, first, last, **how):
    """Invents frames first ... last of a video (B, T, H, W, 3) → (the video, the last frame that is new).

    Whole latent frames are invented, so up to three frames behind the gap are new, too. Raises BadInput where there is nothing around the
    gap, or it does not fit into one sequence with a latent frame before and behind it."""
    T, most = video.shape[1], model.config.frames
    hole = (last - first + 4) // 4 * 4                                           # frames, in whole latent frames
    if not 1 <= first <= last:
        raise BadInput(f"frames {first} to {last}: expected a gap with at least a frame before it, for example 1 to 4")
    if T < first + hole + 4:
        raise BadInput(f"frames {first} to {last} of a clip of {T}: {hole} frames would be invented (they come in fours), and 4 must follow them, to frame {first + hole + 3}")
    if hole + 5 > most:
        raise BadInput(f"frames {first} to {last} are {last - first + 1}; this model invents up to {(most - 5) // 4 * 4} between others")
    room, left, right = (most - hole - 1) // 4, (first - 1) // 4, (T - first - hole) // 4  # latent frames: for what is given, and there besides one frame at the start
    after = min(right, max(room - left, (room + 1) // 2))                        # half of the room, more where little is before
    before = 1 + 4 * min(left, room - after)                                     # frames
    window = slice(first - before, first + hole + 4 * after)
    known = np.repeat([True, False, True], [before, hole, 4 * after])
    made = complete(model, prompts, video[:, window], known, **how)
    return np.concatenate([video[:, : window.start], made, video[:, window.stop :]], 1), first + hole - 1


def connect(model, prompts, a, b, frames, **how):
    """Two videos (B, T, H, W, 3) and so many new frames between them, in fours → (the video, the last frame that is new)."""
    if b.shape[1] < 4:
        raise BadInput(f"a clip of {b.shape[1]} frames: to be connected to, it needs at least the 4 frames of a latent frame")
    gap = np.zeros_like(a[:, :1]).repeat((frames + 3) // 4 * 4, 1)
    return fill(model, prompts, np.concatenate([a, gap, b], 1), a.shape[1], a.shape[1] + frames - 1, **how)


def parse():
    from safety.provenance import KEYS

    parser = Flags(__doc__)
    parser.add_argument("--prompt", nargs="+", help="what to show; several give several files, @FILE takes one from every line; without it, what is given speaks for itself")
    parser.add_argument("--then", metavar="PROMPT", help="what holds all the time, for the later windows of a long video, which the prompt itself does not reach")
    parser.add_argument("--image", metavar="FILE", help="animate this picture")
    parser.add_argument("--video", metavar="FILE", help="the clip that --extend or --fill work on")
    parser.add_argument("--extend", nargs=2, metavar=("forward|backward", "SECONDS"), help="new frames behind the clip, or before it")
    parser.add_argument("--fill", metavar="A-B", help="invent frames A to B of the clip, counted from 0 at the config's frame rate")
    parser.add_argument("--connect", nargs=3, metavar=("FILE", "FILE", "SECONDS"), help="new frames between two clips")
    parser.add_argument("--edit", metavar="FILE", help="change this clip to what the prompt says")
    parser.add_argument("--strength", type=float, help="how much an edit may change, above 0, up to 1: the noise level it begins at (default: 0.7)")
    parser.add_argument("--frames", type=int, help="1 + 4k, 1 is an image; the config has the default")
    parser.add_argument("--seconds", type=float, help="the same in seconds, rounded up to 1 + 4k frames")
    parser.add_argument("--size", help="HxW in pixels, for example 32x48; default: the config's, or the nearest to what is given")
    parser.add_argument("--checkpoint", help="what train.py wrote; default: the newest out/*/model.pt, or else assets/small.pt")
    parser.add_argument("--out", default="out/sample.gif", help="the file; its ending says mp4, gif, webp or png (a strip)")
    parser.add_argument("--steps", type=int, help="denoising steps; the config has the default")
    parser.add_argument("--guidance", type=float, help="0 ignores the prompt, 1 is plain, more pushes; the config has the default")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default="ddim", help="ddim adds no noise on the way, ddpm does")
    parser.add_argument("--seed", type=int, default=0, help="the first prompt's; the next one's is one more")
    parser.add_argument("--zoom", type=int, default=4, help="pixels of the file per pixel of the video, in each direction")
    parser.add_argument("--keys", metavar="FOLDER", default=str(KEYS), help="cert.pem and key.pem to sign with; made for development where there are none")
    parser.add_argument("--unsafe-skip-checks", action="store_true", help="judge neither prompts nor frames; logged in unsafe.log beside the output")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    args = parser.parse_args()
    check_at_least(args, steps=1, guidance=0, frames=1, zoom=1, seed=0)
    modes = [f"--{mode}" for mode in ("image", "video", "connect", "edit") if getattr(args, mode)]
    if len(modes) > 1:
        raise BadInput(f"{' '.join(modes)}: expected one of them")
    if bool(args.video) != bool(args.extend or args.fill) or args.extend and args.fill:
        raise BadInput("--video FILE comes with --extend or with --fill, and they with it")
    if args.frames is not None and args.seconds is not None:
        raise BadInput(f"--frames {args.frames} --seconds {args.seconds}: expected one of them")
    if (args.frames or args.seconds) is not None and modes and not args.image:
        raise BadInput(f"--frames or --seconds: expected with a prompt alone or --image, not with {modes[0]}, which knows its length")
    if args.then and (args.fill or args.connect or args.edit):
        raise BadInput(f"--then {args.then}: expected with a prompt alone, --image or --extend, whose videos can be long")
    if args.strength is not None and not (args.edit and 0 < args.strength <= 1):
        raise BadInput(f"--strength {args.strength}: expected a number above 0, up to 1, and --edit FILE")
    if args.edit and not args.prompt:
        raise BadInput(f"--edit {args.edit}: expected a --prompt that says what it should become")
    if args.extend and args.extend[0] not in ("forward", "backward"):
        raise BadInput(f"--extend {args.extend[0]}: expected forward or backward, then seconds")
    if args.size and not re.fullmatch(r"\d+x\d+", args.size):
        raise BadInput(f"--size {args.size}: expected HEIGHTxWIDTH, for example 32x48")
    try:
        " ".join((args.prompt or []) + [args.then or ""]).encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"--prompt: {error.object[error.start]!r} is no letter; expected UTF-8")
    if args.fill and not re.fullmatch(r"\d+-\d+", args.fill):
        raise BadInput(f"--fill {args.fill}: expected FIRST-LAST, two frame numbers, for example 9-16")
    return args


def count(seconds, fps, flag):
    """Seconds, as the user wrote them → frames. Raises BadInput."""
    try:
        if 0 < float(seconds) < 86_400:
            return max(1, round(float(seconds) * fps))
    except ValueError:
        pass
    raise BadInput(f"{flag} {seconds}: expected seconds, for example 1")


def main():
    from safety import frames as safety_frames
    from safety import prompts as safety_prompts
    from safety import provenance

    args = parse()
    checkpoint = args.checkpoint or newest_checkpoint()
    prompts = args.prompt or ["" if args.image or args.video or args.connect else "a red circle moving left slowly"]
    if not args.unsafe_skip_checks:
        safety_prompts.check_prompts(prompts + [args.then or ""])
    signer = provenance.signer(args.keys)
    model = load_model(checkpoint, pick_device(args.device))
    c, size = model.config, tuple(map(int, args.size.split("x"))) if args.size else None
    text.encode_prompts(prompts + [args.then or ""], model.vocab, c.max_words, warn=True)  # warns of unknown words and refuses long prompts, before any work
    frames = args.frames or (1 + 4 * ((count(args.seconds, c.fps, "--seconds") + 2) // 4) if args.seconds is not None else c.frames)
    check_size(c, frames, *(size or (c.height, c.width)))
    clips = []
    for path in (args.image, args.video, args.edit, *(args.connect or ())[:2]):
        if path:
            clips.append(open_clip(path, c, size)[None].repeat(len(prompts), 0))
            size = clips[0].shape[2:4]
    height, width = size or (c.height, c.width)
    check_output_path(args.out, height * args.zoom, width * args.zoom)
    if args.unsafe_skip_checks:
        provenance.log_skip(prompts + [args.then or ""], Path(args.out).parent)
    how = dict(steps=args.steps, guidance=args.guidance, eta=float(args.sampler == "ddpm"), seed=args.seed, progress=True)
    then = dict(then=[args.then] * len(prompts) if args.then else None)
    if args.image:
        videos = extend(model, prompts, clips[0][:, :1], frames - 1, **then, **how)
    elif args.extend:
        videos = extend(model, prompts, clips[0], count(args.extend[1], c.fps, "--extend"), args.extend[0] == "backward", **then, **how)
    elif args.fill:
        first, last = map(int, args.fill.split("-"))
        videos, last = fill(model, prompts, clips[0], first, last, **how)
        print(f"frames {first} to {last} are new")
    elif args.connect:
        videos, last = connect(model, prompts, *clips, count(args.connect[2], c.fps, "--connect"), **how)
        print(f"frames {clips[0].shape[1]} to {last} are new")
    elif args.edit:
        if clips[0].shape[1] > c.frames:
            raise BadInput(f"--edit {args.edit}: {clips[0].shape[1]} frames; this model edits up to {c.frames}, {c.frames / c.fps:.1f} seconds")
        clip = clips[0][:, : (clips[0].shape[1] - 1) // 4 * 4 + 1]  # 1 + 4k of its frames
        videos = complete(model, prompts, clip, np.ones(clip.shape[1], bool), 0.7 if args.strength is None else args.strength, **how)
    else:
        videos = generate(model, prompts, frames, height, width, **then, **how)
    if not args.unsafe_skip_checks:
        safety_frames.check_frames(videos, c.fps)
    for i, (prompt, video) in enumerate(zip(prompts, videos)):
        path = Path(args.out) if len(videos) == 1 else Path(args.out).with_stem(f"{Path(args.out).stem}-{i}")
        try:
            write_clip(path, video, c.fps, args.zoom, f"{prompt} | seed {args.seed + i} | checkpoint {model.checkpoint_hash}")
        except OSError as error:
            raise BadInput(f"--out {path}: cannot be written ({error.strerror})")
        signature = provenance.sign(path, signer, model.checkpoint_hash, prompt, bool(clips))
        print(f"{path}: {len(video)} frames of {height}x{width} from {checkpoint}", prompt, signature, sep=" | ")


if __name__ == "__main__":
    run(main)

"""From words to a moving picture, with a trained model.

    python sample.py --prompt "a red circle moving left slowly" --out circle.gif

`load` reads a checkpoint, `generate` turns prompts into videos: noise of the clip's size, denoised by diffusion.sample, decoded
by the VAE. A prompt's video depends on the seed and on nothing else, not on the prompts beside it. `write` saves it in the
format of the file's ending; the command puts prompt, seed and the checkpoint's hash into its metadata.

Letters: B prompts  T H W frames, height, width  Z latent channels  t h w latent frames, rows, columns
"""
import hashlib
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

import diffusion
import text
from config import BadInput, Config, Flags, at_least, check_size, device, from_dict, run
from data import to_uint8
from dit import DiT
from vae import VAE

ENDINGS = (".mp4", ".gif", ".webp", ".png")


@dataclass
class Model:
    config: Config
    words: list  # the vocabulary
    scale: torch.Tensor  # what latents are multiplied with to have variance 1
    vae: VAE
    dit: DiT  # with the averaged weights
    hash: str = ""  # of the checkpoint's file
    seconds: float = 0.0  # of training


def read_checkpoint(path):
    """A checkpoint's file → (its dict, hash). Raises BadInput for anything but a checkpoint of train.py; never runs code from it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        why = (str(error) or "it is empty").splitlines()[0][:120]
        raise BadInput(f"checkpoint {path}: cannot be read ({why}); train.py writes out/NAME/model.pt")
    if not isinstance(saved, dict) or not {"config", "words", "scale", "vae", "ema"} <= saved.keys():
        raise BadInput(f"checkpoint {path}: not one of train.py, which writes out/NAME/model.pt")
    return saved, hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def load(checkpoint, place="cpu"):
    """A checkpoint's path → Model, ready to sample. Raises BadInput."""
    saved, hash = read_checkpoint(checkpoint)
    config = from_dict(saved["config"], checkpoint)
    model = Model(config, saved["words"], saved["scale"], VAE(config), DiT(config, len(saved["words"])), hash, saved.get("seconds", 0.0))
    try:
        model.vae.load_state_dict(saved["vae"])
        model.dit.load_state_dict(saved["ema"])
    except RuntimeError as error:
        raise BadInput(f"checkpoint {checkpoint}: its weights do not fit its config ({str(error).splitlines()[-1].strip()[:120]})")
    model.scale = model.scale.to(place)
    model.vae.to(place).eval(), model.dit.to(place).eval()
    return model


def generate(model, prompts, frames=None, height=None, width=None, steps=None, guidance=None, eta=0.0, seed=0, progress=False):
    """prompts, a list of B strings → (B, T, H, W, 3) uint8. None takes the config's value; eta: 0 is DDIM, 1 is DDPM.

    Prompt i starts from the noise of seed + i. Raises BadInput for a size that cannot be cut into patches."""
    c = model.config
    frames, height, width = frames or c.frames, height or c.height, width or c.width
    check_size(c, frames, height, width)
    shape = c.latent_channels, (frames - 1) // 4 + 1, height // c.vae_space, width // c.vae_space
    place, videos = model.scale.device, []
    words = text.encode(prompts, model.words, c.words).to(place)
    for first in range(0, len(prompts), 32):  # memory stays that of 32 clips (64 with guidance)
        part = words[first : first + 32]
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(part))]
        noise = lambda: torch.stack([torch.randn(shape, generator=g) for g in generators]).to(place)
        z = diffusion.sample(model.dit, part, noise, diffusion.Schedule(c.schedule), c.target, steps or c.sample_steps, eta,
                             c.guidance if guidance is None else guidance, progress=progress)
        with torch.no_grad():
            videos.append(to_uint8(model.vae.decode(z / model.scale)))
    return np.concatenate(videos)


def strip(videos, columns=6):
    """(B, T, H, W, 3) → one picture, a row per video, evenly spaced frames from left to right."""
    chosen = np.linspace(0, videos.shape[1] - 1, min(columns, videos.shape[1])).round().astype(int)
    framed = np.pad(videos[:, chosen], ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
    return np.concatenate([np.concatenate(list(row), 1) for row in framed])


def write(path, video, fps, zoom=1, note=""):
    """video (T, H, W, 3) uint8 → a file: mp4, gif, webp, or a png strip, by the path's ending; enlarged by whole pixels.

    note goes into the file's metadata (mp4 and gif: comment, webp: EXIF image description, png: Description)."""
    path, video = Path(path), np.asarray(video).repeat(zoom, 1).repeat(zoom, 2)
    if path.suffix == ".mp4":
        with iio.imopen(path, "w", plugin="pyav") as file:
            file.container_metadata["comment"] = note
            file.init_video_stream("libx264", fps=fps)
            file.write(video)
    elif path.suffix == ".gif":
        iio.imwrite(path, video, duration=1000 / fps, loop=0, comment=note.encode())
    elif path.suffix == ".webp":
        from PIL import Image
        exif = Image.Exif()
        exif[270] = note
        iio.imwrite(path, video, duration=1000 / fps, loop=0, lossless=True, exif=exif)
    else:
        from PIL.PngImagePlugin import PngInfo
        info = PngInfo()
        info.add_text("Description", note)
        iio.imwrite(path, strip(video[None]), pnginfo=info)


def check_path(path, height, width):
    """Raises BadInput for a file that `write` cannot write."""
    if Path(path).suffix not in ENDINGS:
        raise BadInput(f"--out {path}: expected a file that ends in {', '.join(ENDINGS)}")
    if Path(path).suffix == ".mp4" and (height % 2 or width % 2):
        raise BadInput(f"--out {path}: mp4 needs even sides, not {height}x{width}; --zoom 2 would do, or gif, webp, png")
    if Path(path).is_dir():
        raise BadInput(f"--out {path}: is a folder; expected a file")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror})")


def main():
    parser = Flags(__doc__)
    parser.add_argument("--prompt", nargs="+", default=["a red circle moving left slowly"], help="what to show; several give several files, @FILE takes one from every line")
    parser.add_argument("--checkpoint", default="out/tiny/model.pt", help="what train.py wrote")
    parser.add_argument("--out", default="out/sample.gif", help="the file; its ending says mp4, gif, webp or png (a strip)")
    parser.add_argument("--steps", type=int, help="denoising steps; the checkpoint's config has the default")
    parser.add_argument("--guidance", type=float, help="0 ignores the prompt, 1 is plain, more pushes; the config has the default")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default="ddim", help="ddim adds no noise on the way, ddpm does")
    parser.add_argument("--seed", type=int, default=0, help="the first prompt's; the next one's is one more")
    parser.add_argument("--frames", type=int, help="1 + 4k; the config has the default")
    parser.add_argument("--size", help="HxW in pixels, for example 32x48; the config has the default")
    parser.add_argument("--zoom", type=int, default=4, help="pixels of the file per pixel of the video, in each direction")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    args = parser.parse_args()
    if args.size and not re.fullmatch(r"\d+x\d+", args.size):
        raise BadInput(f"--size {args.size}: expected HEIGHTxWIDTH, for example 32x48")
    at_least(args, steps=1, guidance=0, frames=1, zoom=1, seed=0)
    model = load(args.checkpoint, device(args.device))
    c = model.config
    height, width = map(int, args.size.split("x")) if args.size else (c.height, c.width)
    frames = args.frames or c.frames
    check_size(c, frames, height, width)
    check_path(args.out, height * args.zoom, width * args.zoom)
    text.encode(args.prompt, model.words, c.words, warn=True)  # only to warn
    videos = generate(model, args.prompt, frames, height, width, args.steps, args.guidance, float(args.sampler == "ddpm"), args.seed, progress=True)
    for i, (prompt, video) in enumerate(zip(args.prompt, videos)):
        path = Path(args.out) if len(videos) == 1 else Path(args.out).with_stem(f"{Path(args.out).stem}-{i}")
        write(path, video, c.fps, args.zoom, f"{prompt} | seed {args.seed + i} | checkpoint {model.hash}")
        print(path, "|", prompt)


if __name__ == "__main__":
    run(main)

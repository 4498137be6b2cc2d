"""Every knob on one page.

A run is one `Config`. Its values come from three places, later ones win: the defaults below, a TOML preset
(`--config configs/tiny.toml`), command-line flags (`--dit-steps 100`). Flags and TOML keys are made from the dataclass's
fields, the comment behind a field is its `--help`, and a checkpoint carries the whole thing, so there is nothing else to
keep in step. Wrong input anywhere in this project raises `BadInput`, which `run` prints as one line (exit code 2).
"""
import difflib
import re
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args



class BadInput(ValueError):
    """The user gave us something we cannot use; the message names the value and what would be right."""


@dataclass
class Config:
    name: str = "tiny"  # names the folder out/NAME
    seed: int = 0  # the same seed on the same CPU gives the same run, bit for bit
    # data
    data: str = "world"  # "world", or a folder of clip.mp4 + clip.txt
    frames: int = 17  # frames of a clip where nothing else is asked, 1 + 4k; the most that sample.py puts into one sequence
    height: int = 32  # pixels
    width: int = 32  # pixels
    lengths: str = ""  # frames of the training clips, for example "9 17"; empty: `frames`
    sizes: str = ""  # their heights and widths in pixels, for example "32x32 32x56"; empty: `height` x `width`
    image_prob: float = 0.0  # share of training clips that are images, videos of one frame
    late_prob: float = 0.0  # share of the toy world's clips that begin anywhere in a motion, so that no caption could name its direction
    window_prob: float = 0.0  # share of those that are later windows of a long video (World.window in data.py)
    fps: float = 12.0  # frames per second
    workers: int = 0  # data-loading processes; 0 draws the batches in the training process
    # vae.py
    vae_space: int = 4  # one latent position stands for this many pixels in height and in width
    vae_width: int = 64  # channels inside the VAE
    latent_channels: int = 8  # Z
    vae_kl: float = 1e-6  # weight of the KL term, per latent number
    vae_steps: int = 900  # training steps
    vae_batch: int = 4  # clips of frames x height x width per step; others come in batches of about as many pixels
    vae_lr: float = 0.02  # Muon's, for the kernels
    # dit.py
    dit_width: int = 192  # D
    dit_depth: int = 6  # blocks
    dit_head_dim: int = 64  # numbers per attention head, a multiple of 16
    patch_size: int = 2  # latent rows and columns per patch; one latent frame each
    max_words: int = 8  # L, the longest prompt in words
    # diffusion.py
    schedule: Literal["flow", "cosine", "linear"] = "flow"  # how alpha and sigma go from data to noise
    target: Literal["velocity", "v", "eps"] = "velocity"  # what the network predicts
    logit_mean: float = 1.0  # training levels are sigmoid(normal + this): more of them near pure noise
    prompt_dropout: float = 0.1  # share of training clips whose prompt is emptied, for guidance
    given_prob: float = 0.1  # share of training clips some frames of which are given, at level 0 (diffusion.draw_levels)
    guidance: float = 2.5  # 0 ignores the prompt, 1 is the plain model, more pushes towards the prompt
    sample_steps: int = 25  # denoising steps
    # train.py
    dit_steps: int = 700  # training steps
    dit_tokens: int = 2816  # tokens per step: the words and patches of as many clips as fit
    dit_lr: float = 0.03  # Muon's, for the blocks' matrices
    lr: float = 4e-3  # AdamW's, for everything that Muon does not train
    warmup_steps: int = 20  # steps from 0 to the full learning rates
    lr_decay: float = 0.9  # the last share of the steps, over which the learning rates fall to 0
    grad_clip: float = 1.0  # the gradient's norm is cut to this
    ema_decay: float = 0.98  # how much of the averaged weights is kept per step
    save_minutes: float = 2.0  # between checkpoints with their pictures
    score_prompts: int = 64  # prompts for the table at the end, seen and held out each


TIME_FACTOR = 4  # the VAE makes one latent frame of four frames; the first frame has one of its own


def latent_length(frames):
    """How many latent frames a clip of 1 + 4k frames has: 1 + k."""
    return 1 + (frames - 1) // TIME_FACTOR


CAN_BE_ZERO = ("seed", "workers", "vae_kl", "vae_steps", "logit_mean", "prompt_dropout", "given_prob", "image_prob", "late_prob", "window_prob", "guidance", "dit_steps", "warmup_steps", "lr_decay", "ema_decay", "save_minutes")


def check_config(config):
    """Raises BadInput for a value that no run could use."""
    for field in fields(Config):
        value, choices = getattr(config, field.name), get_args(field.type)
        kind = type(choices[0]) if choices else field.type
        if kind is float and type(value) is int:
            setattr(config, field.name, value := float(value))
        if type(value) is not kind:
            raise BadInput(f"{field.name} = {value!r}: expected {kind.__name__}, for example {field.default!r}")
        if choices and value not in choices:
            raise BadInput(f"{field.name} = {value!r}: expected one of {', '.join(choices)}")
        can_be_zero = field.name in CAN_BE_ZERO
        if kind in (int, float) and not (0 <= value < 2**31 and (value > 0 or can_be_zero)):
            raise BadInput(f"{field.name} = {value}: expected a number {'of 0 or more' if can_be_zero else 'above 0'} and below 2^31")
        if field.name in ("prompt_dropout", "given_prob", "image_prob", "late_prob", "window_prob", "lr_decay", "ema_decay") and value > 1:
            raise BadInput(f"{field.name} = {value}: expected a share between 0 and 1")
    lengths, sizes = clip_shapes(config)
    for frames in (config.frames, *lengths):
        for size in ((config.height, config.width), *sizes):
            check_size(config, frames, *size)
            if count_tokens(config, frames, *size) > config.dit_tokens:
                raise BadInput(f"dit_tokens = {config.dit_tokens}: one clip of {frames} frames of {size[0]}x{size[1]} has {count_tokens(config, frames, *size)}")
    if config.dit_width % config.dit_head_dim or config.dit_head_dim % 16:
        raise BadInput(f"dit_head_dim = {config.dit_head_dim}: expected a multiple of 16 that divides dit_width = {config.dit_width}")
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        raise BadInput(f"name = {config.name!r}: expected letters, digits, '.', '_' or '-', after a first letter, since it names a folder")
    return config


def clip_shapes(config):
    """What training clips are drawn from → (lengths, [9, 17], sizes, [(32, 32), (32, 56)])"""
    lengths, sizes = config.lengths.split() or [str(config.frames)], config.sizes.split() or [f"{config.height}x{config.width}"]
    for name, given, form, example in (("lengths", lengths, r"\d+", "9 17"), ("sizes", sizes, r"\d+x\d+", "32x32 32x56")):
        for word in given:
            if not re.fullmatch(form, word):
                raise BadInput(f"{name} = {getattr(config, name)!r}: {word!r} does not fit in; expected for example {example!r}")
    return [int(n) for n in lengths], [tuple(map(int, size.split("x"))) for size in sizes]


def count_tokens(config, frames, height, width):
    """How many tokens a clip makes: its words and its patches."""
    brick = config.vae_space * config.patch_size
    return config.max_words + (1 + (frames - 1) // 4) * (height // brick) * (width // brick)


def check_size(config, frames, height, width):
    """Raises BadInput, with the nearest size that would do, for a clip that the networks cannot cut into patches."""
    brick = config.vae_space * config.patch_size
    nearest = lambda n, step, start: max(start, start + round((n - start) / step) * step)
    good = nearest(frames, 4, 1), nearest(height, brick, brick), nearest(width, brick, brick)
    if good != (frames, height, width):
        raise BadInput(f"a clip of {frames} frames of {height}x{width} cannot be cut into patches (frames: 1 + 4k, sides: multiples "
                       f"of {brick}); the nearest that can: {good[0]} frames of {good[1]}x{good[2]}")


def suggest(word, known):
    """' (did you mean X?)' or '', to end an error message with."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def config_from_dict(values, source):
    """A dict (from TOML or a checkpoint) → a checked Config. Raises BadInput for a key that is no knob."""
    known = [field.name for field in fields(Config)]
    for key in values:
        if key not in known:
            raise BadInput(f"{source}: no knob is called {key!r}{suggest(key, known)}")
    return check_config(Config(**values))


if __name__ == "__main__":
    from utils.cli import Flags, add_config_flags, config_from_flags, run

    parser = Flags(__doc__)
    add_config_flags(parser)
    run(lambda: print(*(f"{k} = {v!r}" for k, v in asdict(config_from_flags(parser.parse_args())).items()), sep="\n"))

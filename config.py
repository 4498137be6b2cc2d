"""Every knob on one page.

A run is one `Config`. Its values come from three sources, and the later one wins: the defaults below, a
TOML preset (`--config configs/tiny.toml`), the command line's flags (`--dit-steps 100`). Flags and TOML
keys are made from the fields of the dataclass, and the comment behind a field is its `--help`, so a knob
is written down once. A checkpoint carries the whole Config.

Wrong input anywhere in this project raises `BadInput`, which `utils.cli.run` prints as one line.

    python config.py --dit-steps 100        the Config that these flags make
    python config.py --help                 every knob, its default and what it does
"""
import difflib
import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

# An idle thread of PyTorch spins this often before it sleeps. By default it spins so long that one other busy
# program, such as a browser, slows training down many times: the spinning thread holds the core that the
# other threads' work waits for. OpenMP reads this when torch is loaded, so every file imports config first.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# The VAE makes one latent frame of this many frames; the first frame has a latent frame of its own.
TIME_FACTOR = 4


class BadInput(ValueError):
    """The user gave us something we cannot use; the message names the value and what would be right."""


@dataclass
class Config:
    # The run
    name: str = "tiny"  # the run's folder is out/NAME
    seed: int = 0  # the same seed on the same CPU gives the same run, bit for bit
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of products; auto: the faster one

    # data/datasets.py
    data: str = "world"  # "world", or a folder of clip.mp4 + clip.txt
    scenes: str = ""  # what the toy world shows, for example "move turn hide bite"; empty: one moving thing
    frames: int = 17  # frames of a clip unless asked otherwise, 1 + 4k; the most sampled in one sequence
    height: int = 32  # height of a clip in pixels
    width: int = 32  # width of a clip in pixels
    lengths: str = ""  # frames of the training clips, for example "9 17"; empty: the knob `frames`
    sizes: str = ""  # their heights x widths, for example "32x32 32x56"; empty: `height` x `width`
    image_prob: float = 0.0  # share of training clips that are images, videos of one frame
    late_prob: float = 0.0  # share of toy clips that begin in mid-motion; their captions name no direction
    window_prob: float = 0.0  # share of those that are a later window of a long video, behind an early frame
    brief_share: float = 0.2  # share of the captions of rich scenes that are brief, as people write
    recaption_share: float = 0.95  # how often a file's caption is x.recaption.txt, where there is one
    fps: float = 12.0  # frames per second
    workers: int = 0  # data-loading processes; 0 draws the batches in the training process

    # text.py
    captioner: str = ""  # recaption.py's file that writes the captions, and expands the prompts of samples
    text_encoder: str = "vocabulary"  # or the folder of a pretrained one (Hugging Face: T5, CLIP, MiniLM ...)
    max_words: int = 8  # the longest prompt, in words, or in tokens of the text encoder

    # vae.py
    vae_space: int = 4  # pixels per latent position, in height and in width
    vae_width: int = 64  # channels inside the VAE
    latent_channels: int = 8  # channels of the latent video, the VAE's output
    vae_kl: float = 1e-6  # weight of the KL term, per latent number
    vae_steps: int = 600  # training steps of the VAE
    vae_batch: int = 4  # clips of frames x height x width per step; for other shapes, about as many pixels
    vae_lr: float = 0.02  # learning rate of Muon, which trains the VAE's kernels

    # dit.py
    dit_width: int = 192  # model width: numbers per token inside the transformer
    dit_depth: int = 6  # transformer blocks
    dit_head_dim: int = 64  # numbers per attention head, a multiple of 16
    patch_size: int = 2  # latent rows and columns per patch; a patch is one latent frame long

    # diffusion.py
    schedule: Literal["flow", "cosine", "linear"] = "flow"  # how alpha and sigma go from data to noise
    target: Literal["velocity", "v", "eps"] = "velocity"  # what the network predicts
    logit_mean: float = 1.0  # training noise levels are sigmoid(normal + this): higher means more noise
    slow_flow: float = 0.0  # trains on states noisier than their level, by up to this share of the way to 1
    prompt_dropout: float = 0.1  # share of training clips whose prompt is emptied, for guidance
    given_prob: float = 0.1  # share of training clips in which some frames are given, at noise level 0
    guidance: float = 2.0  # 0 ignores the prompt, 1 is the plain model, more pushes towards the prompt
    sample_steps: int = 50  # denoising steps of a sample

    # train.py
    dit_steps: int = 950  # training steps of the transformer
    dit_tokens: int = 2816  # tokens per step: the words and patches of as many clips as fit
    dit_lr: float = 0.03  # learning rate of Muon, which trains the matrices of the transformer's blocks
    lr: float = 4e-3  # learning rate of AdamW, which trains everything that Muon does not
    warmup_steps: int = 20  # steps over which the learning rates rise from 0
    lr_decay: float = 0.9  # the last share of the steps, over which the learning rates fall to 0
    batches_per_step: int = 1  # their gradients add up; several processes share them out, so a multiple
    grad_clip: float = 1.0  # a gradient whose norm is larger is scaled down to this norm
    ema_decay: float = 0.98  # how much of the averaged weights is kept per step
    parallel: Literal["ddp", "fsdp"] = "ddp"  # with torchrun: every process has all weights, or a part
    recompute: bool = False  # blocks are computed again in the backward pass, instead of kept in memory
    compile: bool = False  # blocks are compiled (needs a C++ compiler), which pays in long runs
    save_minutes: float = 2.0  # minutes between checkpoints with their pictures
    score_prompts: int = 64  # prompts in the final table, seen and held out each


# Numbers that may be 0; every other number has to be larger, and none may be negative.
CAN_BE_ZERO = (
    "seed",
    "image_prob",
    "late_prob",
    "window_prob",
    "brief_share",
    "recaption_share",
    "workers",
    "vae_kl",
    "vae_steps",
    "logit_mean",
    "slow_flow",
    "prompt_dropout",
    "given_prob",
    "guidance",
    "dit_steps",
    "warmup_steps",
    "lr_decay",
    "ema_decay",
    "save_minutes",
)

# Numbers that are a part of a whole and may not be larger than 1.
SHARES = (
    "image_prob",
    "late_prob",
    "window_prob",
    "brief_share",
    "recaption_share",
    "slow_flow",
    "prompt_dropout",
    "given_prob",
    "lr_decay",
    "ema_decay",
)


def check_config(config):
    """Returns the config. Raises BadInput for a value that no run could use.

    A whole number where a float belongs (`lr = 1` in a TOML file) becomes a float."""
    for field in fields(Config):
        check_type(config, field)
        check_range(config, field)
    check_clips(config)
    check_heads(config)
    check_name(config)
    return config


def check_type(config, field):
    """The knob has its field's type, and is one of its choices where it has choices."""
    value = getattr(config, field.name)
    choices = get_args(field.type)
    expected = str if choices else field.type

    # TOML tells 1 from 1.0; people do not.
    if expected is float and type(value) is int:
        value = float(value)
        setattr(config, field.name, value)

    # Not isinstance: for Python, True is an int.
    if type(value) is not expected:
        raise BadInput(
            f"{field.name} = {value!r}: expected {expected.__name__}, for example {field.default!r}"
        )
    if choices and value not in choices:
        raise BadInput(f"{field.name} = {value!r}: expected one of {', '.join(choices)}")


def check_range(config, field):
    """A number is not negative, not 0 where 0 makes no sense, and a share is at most 1."""
    if field.type not in (int, float):
        return
    value = getattr(config, field.name)

    # PyTorch's sizes and seeds want less than 2^31 in places. No comparison with nan holds, so it fails too.
    in_range = 0 <= value < 2**31
    if field.name in CAN_BE_ZERO:
        least = "of 0 or more"
    else:
        least = "above 0"
        in_range = in_range and value > 0
    if not in_range:
        raise BadInput(f"{field.name} = {value}: expected a number {least} and below 2^31")
    if field.name in SHARES and value > 1:
        raise BadInput(f"{field.name} = {value}: expected a share between 0 and 1")


def check_clips(config):
    """Every clip that training or sampling may make can be cut into patches and fits into one batch."""
    lengths, sizes = clip_shapes(config)
    # sample.py makes clips of `frames` and `height` x `width`, which training need not contain.
    lengths = [config.frames, *lengths]
    sizes = [(config.height, config.width), *sizes]

    for frames in lengths:
        for height, width in sizes:
            check_size(config, frames, height, width)
            tokens = count_tokens(config, frames, height, width)
            # A batch holds whole clips: one that is larger than the batch could never be trained on.
            if tokens > config.dit_tokens:
                raise BadInput(
                    f"dit_tokens = {config.dit_tokens}: "
                    f"one clip of {frames} frames of {height}x{width} has {tokens}"
                )


def check_heads(config):
    """The model width is a whole number of heads, and RoPE can share out the numbers of a head."""
    if config.dit_width % config.dit_head_dim or config.dit_head_dim % 16:
        raise BadInput(
            f"dit_head_dim = {config.dit_head_dim}: "
            f"expected a multiple of 16 that divides dit_width = {config.dit_width}"
        )


def check_name(config):
    """The name can be that of a folder inside out/, and cannot lead out of it (`..`, `a/b`)."""
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        raise BadInput(
            f"name = {config.name!r}: expected letters, digits, '.', '_' or '-', "
            "and neither '.' nor '-' first, since it names a folder"
        )


def clip_shapes(config):
    """The shapes that training clips are drawn from → (lengths in frames, (height, width) in pixels).

    For example ([9, 17], [(32, 32), (32, 56)]). Raises BadInput for a word that is no length or size."""
    lengths = []
    for word in words_of_form("lengths", config.lengths, form=r"\d+", example="9 17"):
        lengths.append(int(word))

    sizes = []
    for word in words_of_form("sizes", config.sizes, form=r"\d+x\d+", example="32x32 32x56"):
        height, width = word.split("x")
        sizes.append((int(height), int(width)))

    # A knob left empty means that all training clips are as long, or as large, as the sampled ones.
    if not lengths:
        lengths.append(config.frames)
    if not sizes:
        sizes.append((config.height, config.width))
    return lengths, sizes


def words_of_form(name, value, form, example):
    """The words of a knob's value, each of which has to match the regular expression `form`."""
    words = value.split()
    for word in words:
        if not re.fullmatch(form, word):
            raise BadInput(f"{name} = {value!r}: {word!r} does not fit in; expected for example {example!r}")
    return words


def latent_length(frames):
    """How many latent frames a clip of 1 + 4k frames has: 1 + k."""
    return 1 + (frames - 1) // TIME_FACTOR


def patch_pixels(config):
    """Height and width of a patch in pixels: the smallest step in which a clip can grow."""
    return config.vae_space * config.patch_size


def count_tokens(config, frames, height, width):
    """How many tokens a clip makes: its words and its patches."""
    side = patch_pixels(config)
    patches = latent_length(frames) * (height // side) * (width // side)
    return config.max_words + patches


def check_size(config, frames, height, width):
    """Raises BadInput, with the nearest size that would do, for a clip that cannot be cut into patches."""
    side = patch_pixels(config)
    good_frames = nearest_step(frames, first=1, step=TIME_FACTOR)
    good_height = nearest_step(height, first=side, step=side)
    good_width = nearest_step(width, first=side, step=side)

    if (good_frames, good_height, good_width) != (frames, height, width):
        raise BadInput(
            f"a clip of {frames} frames of {height}x{width} cannot be cut into patches "
            f"(frames: 1 + 4k, sides: multiples of {side}); "
            f"the nearest that can: {good_frames} frames of {good_height}x{good_width}"
        )


def nearest_step(number, first, step):
    """The nearest of first, first + step, first + 2 step, ..."""
    steps = round((number - first) / step)
    return first + max(0, steps) * step


def suggest(word, known):
    """' (did you mean X?)' or '', to end an error message with."""
    # Just low enough that "rad" is taken for "red", and "moon" not for "moving".
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.65)
    if not nearest:
        return ""
    return f" (did you mean {nearest[0]}?)"


def config_from_dict(values, source):
    """A dict (from TOML or a checkpoint) → a checked Config. Raises BadInput, which names the `source`, for a
    key that is no knob."""
    known = [field.name for field in fields(Config)]
    for key in values:
        if key not in known:
            raise BadInput(f"{source}: no knob is called {key!r}{suggest(key, known)}")
    return check_config(Config(**values))


def main():
    from utils.cli import Flags, add_config_flags, config_from_flags

    parser = Flags(__doc__)
    add_config_flags(parser)
    config = config_from_flags(parser.parse_args())
    for name, value in asdict(config).items():
        print(f"{name} = {value!r}")


if __name__ == "__main__":
    from utils.cli import run

    run(main)

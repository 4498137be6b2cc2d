"""What every command shares: flags made from the knobs of config.py, errors of one line, progress bars.

A script's main() builds a `Flags` parser and raises `BadInput` for whatever is wrong with its input; `run`
calls main() and turns BadInput into one line on stderr and exit code 2. No traceback reaches the user
unless the code itself is at fault.
"""
from config import BadInput, Config, config_from_dict, suggest

import argparse
import functools
import inspect
import os
import re
import sys
import time
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from utils import distributed

METAVARS = {int: "N", float: "X", str: "TEXT"}  # what stands for a flag's value in --help
LOG_SECONDS = 30.0  # between two lines of a progress bar that goes to a file


class Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        # No "(default: None)" and no "(default: False)": a switch is off unless it is given. Where the text
        # tells the default in words, it is not told twice.
        if action.default is None or action.default is False or "(default: " in action.help:
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text, width, indent):
        # Paragraphs are wrapped; examples, which are indented, keep their lines.
        parts = []
        for part in text.split("\n\n"):
            is_example = part.startswith(" ")
            parts.append(part if is_example else super()._fill_text(part, width, indent))
        return "\n\n".join(parts)


class Flags(argparse.ArgumentParser):
    """argparse that raises BadInput, and suggests the nearest flag for a typo.

    The first paragraph of `doc`, a script's docstring, and its examples head its --help. Flags cannot be
    abbreviated: an abbreviation would change its meaning with the next knob that begins alike."""

    def __init__(self, doc):
        first, *others = doc.rstrip().split("\n\n")
        examples = [part for part in others if part.startswith("    python ")]
        super().__init__(
            prog=command_name(),
            description="\n\n".join([first, *examples]),
            allow_abbrev=False,
            fromfile_prefix_chars="@",
            formatter_class=Help,
        )

    def convert_arg_line_to_args(self, line):
        """`--prompt @prompts.txt` reads a prompt from every line that is not blank, and no flags."""
        if line.startswith("-"):
            raise BadInput(f"{line!r}: a line of a file of prompts; expected none that begins with -")
        if not line.strip():
            return []
        return [line]

    def parse_args(self, words=None):
        """The flags in `words`, by default the command line's. Raises BadInput."""
        if words is None:
            words = sys.argv[1:]
        try:
            return super().parse_args(words)
        except UnicodeDecodeError as error:
            files = [word for word in words if word.startswith("@")]
            raise BadInput(f"{' '.join(files)}: expected a text file, a prompt a line") from error

    def error(self, message):
        # argparse would print its usage and exit. Its list of unrecognized arguments begins with the typo:
        # "--dit-stepz 3", "--dit-stepz=3", or nothing where the argument was the empty string.
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            first_word = message.removeprefix(prefix).split(" ")[0]
            flag = first_word.split("=")[0]
            message += suggest(flag, self._option_string_actions)
        raise BadInput(message)


def check_at_least(args, **limits):
    """check_at_least(args, steps=1) raises BadInput for a --steps that is given and outside [1, 2^31)."""
    for flag, least in limits.items():
        value = getattr(args, flag)
        # No comparison with nan holds, so it is refused too.
        if value is not None and not least <= value < 2**31:
            raise BadInput(f"--{flag} {value}: expected {least} or more, and less than 2^31")


def add_config_flags(parser, default_preset=None):
    """--config and one flag per knob, in the groups of config.py. A flag that is not given is absent from the
    result, so that the preset can fill it."""
    # All their names would fill the screen before the first word of help.
    parser.usage = "%(prog)s [flags]"

    text = "a TOML preset, such as configs/small.toml"
    if default_preset:
        text += f" (default: configs/{Path(default_preset).name})"
    parser.add_argument("--config", default=default_preset, metavar="FILE", help=text)

    knobs = {field.name: field for field in fields(Config)}
    for title, comments in knob_groups().items():
        group = parser.add_argument_group(title)
        for name, comment in comments.items():
            add_knob_flag(group, knobs[name], comment)


def add_knob_flag(group, field, comment):
    """The flag of one knob, into a group of the parser's flags."""
    flag = "--" + field.name.replace("_", "-")
    default = field.default if field.default != "" else "empty"
    # argparse formats help with the % operator.
    # A switch is off unless it is given, so nothing is said of its default.
    text = comment if field.type is bool else f"{comment} (default: {default})"
    text = text.replace("%", "%%")

    choices = get_args(field.type)
    if field.type is bool:
        switch = argparse.BooleanOptionalAction
        group.add_argument(flag, action=switch, default=argparse.SUPPRESS, help=text)
    elif choices:
        group.add_argument(flag, choices=choices, default=argparse.SUPPRESS, help=text)
    else:
        metavar = METAVARS[field.type]
        group.add_argument(flag, type=field.type, metavar=metavar, default=argparse.SUPPRESS, help=text)


def knob_groups():
    """The knobs of Config with the comments behind them, under the comments that head its groups.

    → {"vae.py": {"vae_width": "channels inside the VAE", ...}, ...}. Python keeps comments in the source
    only."""
    groups = {}
    for line in inspect.getsource(Config).splitlines():
        heading = re.fullmatch(r"    # (.*)", line)
        knob = re.fullmatch(r"    (\w+): .*?  # (.*)", line)
        if heading:
            title = heading[1]
            groups[title] = {}
        elif knob:
            name, comment = knob.groups()
            groups[title][name] = comment
    return groups


def config_from_flags(args):
    """argparse's result → a checked Config: defaults < preset < flags. Raises BadInput."""
    given = vars(args)
    flags = {field.name: given[field.name] for field in fields(Config) if field.name in given}
    preset = read_preset(args.config) if args.config else {}
    return config_from_dict(preset | flags, args.config)


def read_preset(path):
    """A TOML file → a dict. Raises BadInput for a file that cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"--config {path}: not a readable TOML file ({error})") from error


def pick_device(name):
    """auto | cpu | cuda | mps → the torch device, and the fastest float32 arithmetic that the machine has.

    Sets PyTorch's float32 matmul precision to "medium": it lets a GPU use its tensor cores for float32, and a
    CPU oneDNN's kernels instead of MKL's, which is faster on an AMD EPYC and no less exact there; a CPU with
    AMX may round to bfloat16 inside (`python bench.py speed`). Raises BadInput for a missing device."""
    torch.set_float32_matmul_precision("medium")

    # A CPU takes many times as long for a number below 1e-38, and what nearly vanished may as well be 0.
    torch.set_flush_denormal(True)

    # From the slowest, which every machine has, to the fastest.
    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.cuda.is_available():
        devices.append("cuda")

    if name == "auto":
        return torch.device(devices[-1])
    if name not in devices:
        raise BadInput(f"--device {name}: not on this machine, which has {', '.join(devices)}")
    return torch.device(name)


def autocast(precision, device):
    """The context that networks compute in → torch.autocast to bfloat16, or one that changes nothing.

    precision: auto | float32 | bfloat16, the knob of config.py. Only what goes into matrix products and
    convolutions is rounded to bfloat16; weights, gradients' sums, optimizer and loss stay float32."""
    device_type = torch.device(device).type
    if precision == "auto":
        is_bfloat16 = bfloat16_is_faster(device_type)
    else:
        is_bfloat16 = precision == "bfloat16"
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=is_bfloat16)


@functools.cache
def bfloat16_is_faster(device_type):
    """Whether matrix products are clearly faster in bfloat16, timed once in a process."""
    if device_type != "cpu":
        return device_type == "cuda"

    # Its name does not tell what a CPU has: some are twice as fast with bfloat16, others a hundred times
    # slower. The fastest of several tries is the one that no other program disturbed.
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(256, 256, dtype=dtype)
        tries = []
        for _ in range(8):
            begin = time.perf_counter()
            x @ x
            tries.append(time.perf_counter() - begin)
        seconds[dtype] = min(tries)

    # Rounding to bfloat16 costs time too, so it has to be worth it.
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def progress_bar(steps=None, **options):
    """tqdm's bar on the way through the steps. options: tqdm's own, such as desc and total.

    Where it goes to a file, each of its updates is a line there: then it has few, and a job that is over
    before the first has none, unless delay = 0 asks for its beginning and its end."""
    if sys.stderr.isatty():
        return tqdm(steps, **options)
    # After maxinterval, by default 10 s, tqdm would write a line in any case.
    log_options = {"mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS, "delay": LOG_SECONDS}
    return tqdm(steps, **(log_options | options))


def run(main):
    """Runs a script's main(); BadInput becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except BadInput as error:
        # A library's message inside ours may have many lines; the last one says what went wrong.
        last_line = str(error).strip().splitlines()[-1]
        distributed.let_the_first_speak()
        print(f"{command_name()}: {last_line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has read enough. What is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def command_name():
    """What the user ran: 'train.py', or 'safety' for the package that `python -m safety` runs."""
    path = Path(sys.argv[0]).absolute()
    if path.name == "__main__.py":
        return path.parent.name
    return path.name

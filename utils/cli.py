"""What every command shares: flags made from the knobs of config.py, and errors of one line.

A script's main() builds a `Flags` parser and raises `BadInput` for whatever is wrong with its input; `run`
calls main() and turns BadInput into one line on stderr and exit code 2. No traceback reaches the user
unless the code itself is at fault.
"""
from config import BadInput, Config, config_from_dict, suggest

import argparse
import inspect
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch


class Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        # No "(default: None)": where there is no default, the text itself says what happens.
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


class Flags(argparse.ArgumentParser):
    """argparse that raises BadInput, and suggests the nearest flag for a typo.

    The first paragraph of `doc`, a script's docstring, heads its --help. Flags cannot be abbreviated: an
    abbreviation would change its meaning with the next knob that begins alike."""

    def __init__(self, doc):
        super().__init__(
            description=doc.split("\n\n")[0],
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
    """--config and one flag per knob. A flag that is not given is absent from the result, so that the preset
    can fill it."""
    parser.add_argument("--config", default=default_preset, metavar="FILE", help="a TOML preset")

    comments = knob_comments()
    for field in fields(Config):
        flag = "--" + field.name.replace("_", "-")
        # argparse formats help with the % operator.
        comment = comments[field.name].replace("%", "%%")
        text = f"{comment} (default: {field.default})"

        choices = get_args(field.type)
        if choices:
            parser.add_argument(flag, choices=choices, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(
                flag,
                type=field.type,
                metavar=field.type.__name__.upper(),
                default=argparse.SUPPRESS,
                help=text,
            )


def knob_comments():
    """The comment behind each field of Config → {name: comment}; Python keeps comments in the source only."""
    knob = re.compile(r"^    (\w+): .*?  # (.*)$", re.MULTILINE)
    return dict(knob.findall(inspect.getsource(Config)))


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


def run(main):
    """Runs a script's main(); BadInput becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except BadInput as error:
        # A library's message inside ours may have many lines; the last one says what went wrong.
        last_line = str(error).strip().splitlines()[-1]
        print(f"{command_name()}: {last_line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def command_name():
    """What the user ran: 'train.py', or 'safety' for the package that `python -m safety` runs."""
    path = Path(sys.argv[0]).absolute()
    if path.name == "__main__.py":
        return path.parent.name
    return path.name

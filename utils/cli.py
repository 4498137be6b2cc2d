"""Flags."""
import argparse
import inspect
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch

from config import BadInput, Config, config_from_dict, suggest


class Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):  # no "(default: None)" where the text explains the default
        return action.help if action.default is None else super()._get_help_string(action)


class Flags(argparse.ArgumentParser):
    """argparse that raises BadInput, and suggests the nearest flag for a typo."""

    def __init__(self, doc):
        super().__init__(description=doc.split("\n\n")[0], allow_abbrev=False, fromfile_prefix_chars="@", formatter_class=Help)

    def convert_arg_line_to_args(self, line):
        """`--prompt @prompts.txt` reads a prompt from every line that is not blank; a file of prompts cannot set flags."""
        if line.startswith("-"):
            raise BadInput(f"{line!r}: a line of a file of prompts; expected none that begins with -")
        return [line] if line.strip() else []

    def parse_args(self, words=None):
        try:
            return super().parse_args(words)
        except UnicodeDecodeError:
            files = [w for w in words or sys.argv[1:] if w.startswith("@")]
            raise BadInput(f"{' '.join(files)}: expected a text file, a prompt a line")

    def error(self, message):
        if message.startswith("unrecognized"):
            message += "".join(suggest(word.split("=")[0], self._option_string_actions) for word in message.split()[2:3])
        raise BadInput(message)


def check_at_least(args, **limits):
    """check_at_least(args, steps=1): raises BadInput for a flag that is given and lower."""
    for flag, least in limits.items():
        value = getattr(args, flag)
        if value is not None and not least <= value < 2**31:
            raise BadInput(f"--{flag} {value}: expected {least} or more")


def add_config_flags(parser, default_preset=None):
    """--config and one flag per field of Config. A flag that is not given is absent from the result, so that the preset can fill it."""
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(Config), re.M))
    parser.add_argument("--config", default=default_preset, metavar="FILE", help="a TOML preset")
    for field in fields(Config):
        kind = str if get_args(field.type) else field.type
        parser.add_argument("--" + field.name.replace("_", "-"), type=kind, default=argparse.SUPPRESS, choices=get_args(field.type) or None,
                            metavar=None if get_args(field.type) else kind.__name__.upper(),
                            help=f"{comments[field.name].replace('%', '%%')} (default: {field.default})")


def config_from_flags(args):
    """argparse's result → a checked Config: defaults < preset < flags."""
    given = vars(args)
    flags = {f.name: given[f.name] for f in fields(Config) if f.name in given}
    try:
        preset = tomllib.loads(Path(args.config).read_text()) if args.config else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"--config {args.config}: not a readable TOML file ({error})")
    return config_from_dict(preset | flags, args.config)


def pick_device(name):
    """auto | cpu | cuda | mps → the torch device, and the fastest float32 arithmetic that the machine has.

    "medium" lets a GPU use its tensor cores for float32, and a CPU oneDNN's kernels instead of MKL's, which is faster on an
    AMD EPYC and no less exact there; a CPU with AMX may round to bfloat16 inside (`python bench.py speed`)."""
    torch.set_float32_matmul_precision("medium")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if has["cuda"] else "mps" if has["mps"] else "cpu")
    if not has[name]:
        raise BadInput(f"--device {name}: not on this machine, which has {', '.join(k for k, v in has.items() if v)}")
    return torch.device(name)


def run(main):
    """Runs a script's main(); BadInput becomes one line on stderr and exit code 2."""
    try:
        main()
    except BadInput as error:
        print(f"{Path(sys.argv[0]).name}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

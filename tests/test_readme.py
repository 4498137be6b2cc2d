"""What README and docs/ promise: their commands parse, their links lead somewhere, their files are there."""
from config import check_config

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from utils import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE_NAMES = [page.name for page in PAGES]

# What is started as `python NAME.py` or `python -m NAME`, and takes flags.
SCRIPTS = {
    "train.py": "train",
    "sample.py": "sample",
    "evaluate.py": "evaluate",
    "recaption.py": "recaption",
    "bench.py": "bench",
    "safety": "safety.__main__",
    "safety.train": "safety.train",
}


class Parsed(Exception):
    """Carries a script's arguments out of its main(), before it does any work."""


def commands(page):
    """What a page tells its reader to run with python: in code blocks, or between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```\n.*?^```", "", text, flags=re.M | re.S)
    candidates = lines + re.findall(r"`([^`\n]+)`", prose)

    # The two one-line installs join three commands by &&.
    found = []
    for candidate in candidates:
        for command in candidate.split("&&"):
            match = re.match(r"(?:\.venv/bin/)?python (.*)", command.strip())
            if match:
                found.append(match[1])
    return found


def script_and_flags(command):
    """`-m safety detect x.mp4` -> ("safety", ["detect", "x.mp4"])."""
    words = shlex.split(command)
    if words[0] == "-m":
        words = words[1:]
    return words[0], words[1:]


def cases():
    """(script, flags) of every command that one of our parsers has to understand."""
    found = []
    for page in PAGES:
        for command in commands(page):
            script, flags = script_and_flags(command)
            if script in SCRIPTS and flags != ["--help"]:
                found.append((script, flags))
    return found


def parse(script, flags, monkeypatch):
    """The script's own parser on these flags; its main() goes no further."""
    real_parse = cli.Flags.parse_args

    def stop_after_parsing(self, words=None):
        raise Parsed(real_parse(self, words))

    monkeypatch.setattr(cli.Flags, "parse_args", stop_after_parsing)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    module = importlib.import_module(SCRIPTS[script])
    with pytest.raises(Parsed) as stopped:
        module.main()
    return stopped.value.args[0]


@pytest.mark.parametrize(("script", "flags"), cases(), ids=str)
def test_a_command_parses(script, flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = parse(script, flags, monkeypatch)
    if script == "train.py":
        check_config(cli.config_from_flags(args))


def test_a_wrong_flag_would_be_noticed(monkeypatch):
    with pytest.raises(cli.BadInput, match="did you mean --dit-steps"):
        parse("train.py", ["--dit-stepz", "3"], monkeypatch)


def test_the_readme_shows_how_to_train_sample_evaluate_and_check():
    shown = {script for script, flags in cases()}
    assert shown == set(SCRIPTS)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_python_file_a_command_starts_is_there(page):
    for command in commands(page):
        script, flags = script_and_flags(command)
        if script.endswith(".py"):
            assert (ROOT / script).is_file(), command
        elif script == "pytest":
            for word in flags:
                assert not word.startswith("tests/") or (ROOT / word).exists(), command
        else:
            path = ROOT / script.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_local_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            path = target.split("#")[0]
            assert (page.parent / path).exists(), target


def heading_anchor(heading):
    """GitHub's anchor of a heading: lower case, no signs, hyphens for spaces."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_anchor_is_a_heading_of_the_page_it_leads_to(page):
    for path, anchor in re.findall(r"\]\((\w[^)\s#:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        headings = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(encoding="utf-8"), re.M)
        assert anchor in [heading_anchor(heading) for heading in headings], f"{path}#{anchor}"


def test_the_tree_names_every_source_file():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## Read it")[1].split("## The one idea")[0]
    linked = set(re.findall(r"\]\(([^)\s]+)\)", tree))
    for folder in (".", "world", "data", "safety", "utils"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert path.relative_to(ROOT).as_posix() in linked


def test_the_readme_has_at_most_1500_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1500

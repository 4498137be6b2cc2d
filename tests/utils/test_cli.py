from config import BadInput, Config

import importlib
import io
import re
import sys
import types
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from utils import cli
from utils.cli import (
    Flags,
    add_config_flags,
    autocast,
    check_at_least,
    config_from_flags,
    knob_groups,
    pick_device,
    progress_bar,
    run,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def parse(*words, default_preset=None):
    parser = Flags("doc")
    add_config_flags(parser, default_preset)
    return config_from_flags(parser.parse_args(words))


@pytest.fixture
def preset(tmp_path):
    """preset(text) writes a TOML file and returns its path."""
    def write(text):
        path = tmp_path / "preset.toml"
        path.write_text(text)
        return str(path)
    return write


# Defaults, presets and flags


def test_tiny_is_the_default():
    assert parse("--config", str(CONFIGS / "tiny.toml")) == Config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_preset_of_ours_is_accepted_and_named_as_its_file(path):
    assert parse("--config", str(path)).name == path.stem


def test_without_words_a_config_is_the_defaults():
    assert parse() == Config()


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(preset):
    config = parse("--config", preset("frames = 9\nlr = 1\n"), "--frames", "5")
    assert (config.frames, config.lr, config.height) == (5, 1.0, Config().height)


def test_a_flag_wins_even_where_it_gives_the_default(preset):
    assert parse("--config", preset("frames = 9"), "--frames", "17").frames == 17


def test_a_flag_wins_even_where_it_is_zero(preset):
    assert parse("--config", preset("warmup_steps = 9"), "--warmup-steps", "0").warmup_steps == 0


def test_the_default_preset_is_read_unless_another_is_given(preset):
    path = preset("frames = 9")
    assert parse(default_preset=path).frames == 9
    assert parse("--config", str(CONFIGS / "tiny.toml"), default_preset=path).frames == 17


def test_an_unreadable_preset_is_named(preset):
    with pytest.raises(BadInput, match="--config missing.toml: not a readable TOML file"):
        parse("--config", "missing.toml")
    with pytest.raises(BadInput, match="preset.toml: not a readable TOML file"):
        parse("--config", preset("frames = = 9"))


def test_a_key_of_a_preset_that_is_no_knob_is_named_with_the_file(preset):
    with pytest.raises(BadInput, match="preset.toml: no knob is called 'frmes' .did you mean frames"):
        parse("--config", preset("frmes = 9\n"))


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_every_knob_has_a_flag_of_its_own_type(field):
    flag = "--" + field.name.replace("_", "-")
    parser = Flags("doc")
    add_config_flags(parser)
    words = [flag.replace("--", "--no-")] if field.type is bool else [flag, str(field.default)]
    args = parser.parse_args(words)
    assert vars(args) == {"config": None, field.name: field.default}
    assert type(vars(args)[field.name]) is type(field.default)


def test_a_flag_with_choices_takes_no_other():
    assert parse("--schedule", "cosine").schedule == "cosine"
    with pytest.raises(BadInput, match="choose from"):
        parse("--schedule", "sine")


# Help


def printed_help(capsys, doc="doc"):
    parser = Flags(doc)
    parser.add_argument("--then", help="what comes next")
    parser.add_argument("--zoom", default=3, help="how large")
    add_config_flags(parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_every_knob_is_in_the_help_with_its_default(capsys):
    text = printed_help(capsys)
    for field in fields(Config):
        assert f"--{field.name.replace('_', '-')}" in text
        if field.type is not bool:
            assert f"(default: {field.default if field.default != '' else 'empty'})" in text


def test_the_help_of_a_knob_is_the_comment_behind_it(capsys):
    text = printed_help(capsys)
    assert "--dit-depth N transformer blocks (default: 6)" in text
    assert "--schedule {flow,cosine,linear} how alpha and sigma go from data to noise (default: flow)" in text


def test_a_default_is_told_once_and_none_is_not_told(capsys):
    text = printed_help(capsys)
    assert "what comes next --zoom" in text
    assert "how large (default: 3)" in text


def test_the_first_paragraph_of_the_docstring_heads_the_help(capsys):
    text = printed_help(capsys, doc="The idea.\nStill.\n\nThe papers.")
    assert "The idea. Still." in text
    assert "The papers." not in text


def test_a_percent_sign_in_a_comment_does_not_break_the_help(capsys, monkeypatch):
    monkeypatch.setattr(cli, "knob_groups", lambda: {"All": {"frames": "100% of it"}})
    assert "100% of it (default: 17)" in printed_help(capsys)


def test_the_knobs_are_grouped_as_in_config_py_and_none_is_left_out(capsys):
    groups = knob_groups()
    titles = ["The run", "data/datasets.py", "text.py", "vae.py", "dit.py", "diffusion.py", "train.py"]
    assert list(groups) == titles
    assert list(groups["vae.py"])[:2] == ["vae_space", "vae_width"]
    names = [name for comments in groups.values() for name in comments]
    assert names == [field.name for field in fields(Config)]

    text = printed_help(capsys)
    places = [text.index(f" {title}: --") for title in titles]
    assert places == sorted(places)


def test_the_usage_is_not_a_list_of_all_knobs(capsys):
    assert "usage: " in printed_help(capsys)
    parser = Flags("doc")
    add_config_flags(parser)
    assert len(parser.format_usage().splitlines()) == 1


EXAMPLES = """The idea, in a paragraph that is longer than a line of a narrow terminal would be.

    python train.py                      a run with its default values, whatever they may be
    python train.py --resume model.pt    goes on

Papers
    A paper
"""


def test_the_examples_of_the_docstring_keep_their_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        Flags(EXAMPLES).parse_args(["--help"])
    text = capsys.readouterr().out
    assert "\n".join(EXAMPLES.splitlines()[2:4]) in text
    assert EXAMPLES.splitlines()[0] not in text
    assert "Papers" not in text


def test_a_default_told_in_words_is_not_told_again(capsys):
    parser = Flags("doc")
    parser.add_argument("--out", default="/a/b", help="a file (default: b)")
    parser.add_argument("--fast", action="store_true", help="quickly")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "a file (default: b)\n" in text
    assert "quickly\n" in text


COMMANDS = ["train", "sample", "evaluate", "bench", "config", "safety.__main__", "safety.train"]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_shows_its_examples_and_no_default_of_this_machine(
    command, monkeypatch, name, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    module = importlib.import_module(name)
    code, out, err = command(module, "--help")
    assert code == 0, err
    examples = re.findall(r"^    python .*$", module.__doc__, re.M)
    assert examples
    for line in examples:
        assert f"\n{line}\n" in out
    for default in ("None", "False", "[]", "/"):
        assert f"(default: {default}" not in " ".join(out.split())


# Typos


def test_a_misspelt_flag_is_answered_with_the_nearest():
    for words in (["--dit-stepz", "3"], ["--dit-stepz=3"]):
        with pytest.raises(BadInput, match=r"did you mean --dit-steps\?"):
            parse(*words)


def test_a_flag_cannot_be_abbreviated():
    with pytest.raises(BadInput, match="unrecognized arguments: --sched"):
        parse("--sched", "flow")


@pytest.mark.parametrize("word", ["surplus", ""])
def test_a_word_too_many_is_refused(word):
    with pytest.raises(BadInput, match=f"unrecognized arguments: {word}$"):
        parse(word)


def test_other_mistakes_are_told_in_argparse_s_words():
    with pytest.raises(BadInput, match="invalid int value: 'many'$"):
        parse("--frames", "many")


# Files of prompts


def parse_prompts(folder, content):
    path = folder / "prompts.txt"
    path.write_bytes(content)
    parser = Flags("doc")
    parser.add_argument("--prompt", nargs="+")
    return parser.parse_args(["--prompt", f"@{path}"]).prompt


def test_every_line_of_a_file_is_a_prompt_unless_it_is_blank(tmp_path):
    prompts = parse_prompts(tmp_path, b"a red circle\n\n  \na blue square - slowly\n")
    assert prompts == ["a red circle", "a blue square - slowly"]


def test_a_file_of_prompts_cannot_set_flags(tmp_path):
    with pytest.raises(BadInput, match="'--out=x': a line of a file of prompts; expected none that begins"):
        parse_prompts(tmp_path, b"a red circle\n--out=x\n")


def test_a_file_that_is_no_text_is_named(tmp_path):
    with pytest.raises(BadInput, match="^@.*prompts.txt: expected a text file, a prompt a line"):
        parse_prompts(tmp_path, b"\xff\xfe\x00")


def test_a_file_that_is_no_text_is_named_on_the_command_line_too(tmp_path, monkeypatch):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(sys, "argv", ["sample.py", "--prompt", f"@{path}"])
    parser = Flags("doc")
    parser.add_argument("--prompt")
    with pytest.raises(BadInput, match="^@.*prompts.txt: expected a text file, a prompt a line"):
        parser.parse_args()


def test_the_words_of_the_command_line_are_read_unless_others_are_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--frames", "9"])
    parser = Flags("doc")
    add_config_flags(parser)
    assert parser.parse_args().frames == 9
    assert "frames" not in parser.parse_args([])


# Limits


@pytest.mark.parametrize("value", [1, 2, 1.5, 2**31 - 1, None])
def test_a_flag_at_least_as_large_as_its_limit_or_not_given_passes(value):
    check_at_least(types.SimpleNamespace(steps=value), steps=1)


@pytest.mark.parametrize("value", [0, -3, 0.5, float("nan"), float("inf"), 2**31])
def test_a_flag_below_its_limit_or_without_bound_is_refused(value):
    with pytest.raises(BadInput, match=f"--steps {value}: expected 1 or more"):
        check_at_least(types.SimpleNamespace(steps=value), steps=1)


def test_every_limit_is_checked():
    args = types.SimpleNamespace(steps=5, zoom=0)
    with pytest.raises(BadInput, match="--zoom 0: expected 1 or more"):
        check_at_least(args, steps=1, zoom=1)


# Devices


@pytest.fixture
def machine(monkeypatch):
    """machine(cuda, mps) makes PyTorch believe in these devices."""
    def pretend(cuda, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return pretend


@pytest.mark.parametrize(
    "cuda, mps, expected",
    [(False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")],
)
def test_auto_is_the_fastest_device_of_the_machine(machine, cuda, mps, expected):
    machine(cuda, mps)
    assert pick_device("auto") == torch.device(expected)


def test_a_device_that_is_asked_for_is_taken(machine):
    machine(cuda=True, mps=True)
    for name in ("cpu", "cuda", "mps"):
        assert pick_device(name) == torch.device(name)


def test_a_missing_device_is_answered_with_those_there_are(machine):
    machine(cuda=False, mps=False)
    with pytest.raises(BadInput, match="--device cuda: not on this machine, which has cpu$"):
        pick_device("cuda")
    machine(cuda=False, mps=True)
    with pytest.raises(BadInput, match="--device cuda: not on this machine, which has cpu, mps$"):
        pick_device("cuda")


def test_a_device_comes_with_the_faster_matrix_products():
    torch.set_float32_matmul_precision("highest")
    pick_device("cpu")
    assert torch.get_float32_matmul_precision() == "medium"


# Progress bars


class Screen(io.StringIO):
    """Stands in for stderr."""

    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


def shown_by_bar(monkeypatch, is_terminal, seconds, **options):
    """What a bar over 100 steps that take so long writes to stderr."""
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    now = [1000.0]
    bar = progress_bar(range(100), desc="steps", disable=False, **options)
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = now[0]
    for _ in bar:
        now[0] += seconds / 100
    return screen.getvalue()


@pytest.mark.parametrize("seconds", [1, 300])
def test_a_terminal_sees_every_bar_to_its_end(monkeypatch, seconds):
    assert "100/100" in shown_by_bar(monkeypatch, is_terminal=True, seconds=seconds)


def test_a_file_gets_no_bar_of_a_short_job(monkeypatch):
    assert shown_by_bar(monkeypatch, is_terminal=False, seconds=20) == ""


def test_a_file_gets_the_end_of_a_short_job_that_asks_for_it(monkeypatch):
    shown = shown_by_bar(monkeypatch, is_terminal=False, seconds=20, delay=0)
    assert shown.count("\r") <= 3
    assert "100/100" in shown.split("\r")[-1]


def test_a_file_gets_few_lines_of_a_long_job_and_its_end(monkeypatch):
    shown = shown_by_bar(monkeypatch, is_terminal=False, seconds=300)
    lines = [line for line in shown.split("\r") if line.strip()]
    assert 5 <= len(lines) <= 12
    assert "100/100" in lines[-1]


# Errors of one line


def outcome(monkeypatch, capsys, path, error):
    """What run prints, and its exit code, for a script at `path` that raises `error`."""
    def main():
        raise error
    monkeypatch.setattr(sys, "argv", [path, "--flag"])
    with pytest.raises(SystemExit) as stop:
        run(main)
    printed = capsys.readouterr()
    assert printed.out == ""
    return stop.value.code, printed.err


def test_bad_input_is_one_line_with_the_script_s_name(monkeypatch, capsys):
    code, err = outcome(monkeypatch, capsys, "/somewhere/sora/train.py", BadInput("frames = 8"))
    assert (code, err) == (2, "train.py: frames = 8\n")


def test_a_package_s_error_begins_with_the_package_s_name(monkeypatch, capsys):
    code, err = outcome(monkeypatch, capsys, "/somewhere/sora/safety/__main__.py", BadInput("x: one file"))
    assert (code, err) == (2, "safety: x: one file\n")


def test_of_a_message_of_many_lines_the_last_is_told(monkeypatch, capsys):
    _, err = outcome(monkeypatch, capsys, "train.py", BadInput("first\nlast one\n\n"))
    assert err == "train.py: last one\n"


def test_control_c_is_not_an_error_to_be_told(monkeypatch, capsys):
    assert outcome(monkeypatch, capsys, "train.py", KeyboardInterrupt()) == (130, "")


def test_a_bug_of_ours_keeps_its_traceback():
    def main():
        raise ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        run(main)


def test_a_main_that_succeeds_does_not_exit():
    calls = []
    run(lambda: calls.append("main"))
    assert calls == ["main"]


# Precision


@pytest.mark.parametrize("precision, is_faster, expected", [
    ("float32", True, False),
    ("bfloat16", False, True),
    ("auto", True, True),
    ("auto", False, False),
])
def test_auto_takes_the_faster_precision(precision, is_faster, expected, monkeypatch):
    monkeypatch.setattr(cli, "bfloat16_is_faster", {"cpu": is_faster}.get)
    x = torch.ones(2, 2)
    with autocast(precision, "cpu"):
        product = x @ x
    assert product.dtype == (torch.bfloat16 if expected else torch.float32)


@pytest.mark.parametrize("float32_seconds, bfloat16_seconds, expected", [
    (10, 7, True),
    (10, 9, False),
    (10, 1000, False),
])
def test_the_precision_is_timed(float32_seconds, bfloat16_seconds, expected, monkeypatch):
    # A clock for eight tries of either kind; in the others, another program took half of the time.
    readings = []
    for seconds in (float32_seconds, bfloat16_seconds):
        readings += 7 * [0, 2 * seconds] + [0, seconds]
    monkeypatch.setattr(cli.time, "perf_counter", iter(readings).__next__)
    assert cli.bfloat16_is_faster.__wrapped__("cpu") == expected


@pytest.mark.parametrize("device_type, expected", [("cuda", True), ("mps", False)])
def test_a_gpu_is_not_timed(device_type, expected):
    assert cli.bfloat16_is_faster(device_type) == expected

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from config import BadInput, Config, check_size, config_from_dict, suggest
from utils.cli import Flags, add_config_flags, config_from_flags

TINY = str(Path(__file__).parents[1] / "configs/tiny.toml")


def parse(*words):
    parser = Flags("doc")
    add_config_flags(parser)
    return config_from_flags(parser.parse_args(words))


def test_tiny_is_the_default():
    assert parse("--config", TINY) == Config()


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    preset = tmp_path / "p.toml"
    preset.write_text("frames = 9\nlr = 1\n")
    config = parse("--config", str(preset), "--frames", "5")
    assert (config.frames, config.lr, config.height) == (5, 1.0, Config().height)


def test_every_knob_is_a_flag_with_its_comment_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for field in fields(Config):
        assert f"--{field.name.replace('_', '-')}" in text and f"(default: {field.default})" in text


def test_a_config_survives_the_checkpoint():
    config = Config(frames=9, lr=0.5)
    assert config_from_dict(asdict(config), "a checkpoint") == config


def test_typos_are_answered_with_the_nearest_name(tmp_path):
    preset = tmp_path / "p.toml"
    preset.write_text("frmes = 9\n")
    with pytest.raises(BadInput, match="did you mean frames"):
        parse("--config", str(preset))
    with pytest.raises(BadInput, match="did you mean --dit-steps"):
        parse("--dit-stepz", "3")
    assert suggest("xyz", ["frames"]) == ""


def test_impossible_sizes_name_the_nearest_that_would_do():
    with pytest.raises(BadInput, match="17 frames of 48x32"):
        check_size(Config(), 16, 45, 32)
    check_size(Config(), 1, 8, 80)

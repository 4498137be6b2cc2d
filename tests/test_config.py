from config import (
    CAN_BE_ZERO,
    SHARES,
    TIME_FACTOR,
    BadInput,
    Config,
    check_config,
    check_size,
    clip_shapes,
    config_from_dict,
    count_tokens,
    latent_length,
    main,
    suggest,
)

import ast
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from patches import patchify
from vae import VAE

ROOT = Path(__file__).parents[1]
COMMANDS = [*ROOT.glob("*.py"), ROOT / "safety/__main__.py", ROOT / "safety/train.py"]
NUMBERS = [field.name for field in fields(Config) if field.type in (int, float)]


def refused(**knobs):
    """The message with which a Config of these knobs is refused."""
    with pytest.raises(BadInput) as error:
        check_config(replace(Config(), **knobs))
    return str(error.value)


def test_the_defaults_are_accepted_and_returned():
    config = Config()
    assert check_config(config) is config


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_negative(name):
    field_type = type(getattr(Config(), name))
    assert refused(**{name: field_type(-1)}).startswith(f"{name} = -1")


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_below_2_to_the_31(name):
    field_type = type(getattr(Config(), name))
    assert refused(**{name: field_type(2**31)}).startswith(f"{name} = 2147483648")


def test_the_largest_number_that_is_accepted():
    check_config(Config(seed=2**31 - 1))


def test_a_number_that_may_not_be_zero_says_so():
    message = "save_minutes = -1.0: expected a number of 0 or more and below 2^31"
    assert refused(save_minutes=-1.0) == message
    assert refused(fps=0.0) == "fps = 0.0: expected a number above 0 and below 2^31"


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_accepted_exactly_where_it_makes_sense(name):
    zero = type(getattr(Config(), name))(0)
    if name in CAN_BE_ZERO:
        check_config(replace(Config(), **{name: zero}))
    else:
        assert refused(**{name: zero}).startswith(f"{name} = 0")


def test_which_numbers_may_be_zero():
    """The steps that leave out a part of training, the shares, and what a run can do without."""
    steps = {"vae_steps", "dit_steps", "warmup_steps"}
    extras = {"seed", "workers", "vae_kl", "logit_mean", "guidance", "save_minutes"}
    assert set(CAN_BE_ZERO) == steps | extras | set(SHARES)


def test_which_numbers_are_shares():
    shares = {name for name in NUMBERS if name.endswith(("_prob", "_share"))}
    assert set(SHARES) == shares | {"slow_flow", "prompt_dropout", "lr_decay", "ema_decay"}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_at_most_one(name):
    check_config(replace(Config(), **{name: 1.0}))
    assert refused(**{name: 1.01}) == f"{name} = 1.01: expected a share between 0 and 1"


def test_a_number_that_is_no_share_may_be_above_one():
    check_config(Config(guidance=7.5, logit_mean=1.5, save_minutes=90.0))


def test_a_whole_number_becomes_a_float_where_one_belongs():
    config = check_config(Config(lr=1))
    assert type(config.lr) is float


@pytest.mark.parametrize(
    "name, value",
    [("frames", 9.0), ("frames", "9"), ("workers", True), ("lr", "fast"), ("lr", True), ("name", 3)],
)
def test_a_value_of_another_type_is_refused(name, value):
    default = getattr(Config(), name)
    expected = f"{name} = {value!r}: expected {type(default).__name__}, for example {default!r}"
    assert refused(**{name: value}) == expected


def test_a_value_that_is_no_choice_is_refused():
    assert refused(schedule="sine") == "schedule = 'sine': expected one of flow, cosine, linear"
    assert refused(target=1) == "target = 1: expected str, for example 'velocity'"


def test_every_choice_is_accepted():
    for schedule in ("flow", "cosine", "linear"):
        check_config(Config(schedule=schedule))
    for target in ("velocity", "v", "eps"):
        check_config(Config(target=target))


# Names


@pytest.mark.parametrize("name", ["a", "run-2", "run_2.b", "7"])
def test_a_name_may_be_that_of_a_folder(name):
    check_config(Config(name=name))


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-flag", "a/b", "../a", "a b", "a\n"])
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    assert refused(name=name).startswith(f"name = {name!r}: expected letters")


# Heads


@pytest.mark.parametrize("width, head_dim", [(96, 16), (96, 48), (64, 64), (192, 64)])
def test_heads_that_divide_the_width_are_accepted(width, head_dim):
    check_config(Config(dit_width=width, dit_head_dim=head_dim))


@pytest.mark.parametrize("width, head_dim", [(96, 64), (96, 24), (96, 8), (64, 128), (100, 50)])
def test_heads_are_multiples_of_16_that_divide_the_width(width, head_dim):
    message = f"dit_head_dim = {head_dim}: expected a multiple of 16 that divides dit_width = {width}"
    assert refused(dit_width=width, dit_head_dim=head_dim) == message


# Shapes of clips


def test_without_lengths_and_sizes_clips_have_the_config_s_own():
    assert clip_shapes(Config(frames=9, height=16, width=24)) == ([9], [(16, 24)])


def test_lengths_and_sizes_are_read_in_their_order():
    config = Config(lengths="17 5  9", sizes="16x24 40x8")
    assert clip_shapes(config) == ([17, 5, 9], [(16, 24), (40, 8)])


@pytest.mark.parametrize("lengths", ["5 x", "x", "-5", "5,9", "5.0"])
def test_lengths_that_are_no_numbers_are_refused(lengths):
    with pytest.raises(BadInput, match="does not fit in; expected for example '9 17'"):
        clip_shapes(Config(lengths=lengths))


@pytest.mark.parametrize("sizes", ["32", "32x", "x32", "32x32x32", "32x32 32", "32X32"])
def test_sizes_that_are_not_two_numbers_are_refused(sizes):
    with pytest.raises(BadInput, match="does not fit in; expected for example '32x32 32x56'"):
        clip_shapes(Config(sizes=sizes))


@pytest.mark.parametrize("knobs", [{"frames": 8}, {"height": 30}, {"width": 30}])
def test_the_size_that_is_sampled_can_be_cut_even_where_training_has_others(knobs):
    assert "the nearest that can" in refused(lengths="9", sizes="16x24", **knobs)


def test_every_length_and_size_is_checked_not_the_first_alone():
    assert "a clip of 8 frames" in refused(lengths="9 8")
    assert "of 16x30 cannot be cut" in refused(sizes="16x24 16x30")


# 17 frames of 16x24 are 5 latent frames of 2x3 patches of 8 x 8 pixels, and 8 words.
def test_a_batch_holds_the_largest_clip_but_need_not_hold_more():
    check_config(Config(frames=17, height=16, width=24, dit_tokens=38))
    message = "dit_tokens = 37: one clip of 17 frames of 16x24 has 38"
    assert refused(frames=17, height=16, width=24, dit_tokens=37) == message


def test_the_largest_clip_may_be_the_longest_of_the_lengths_with_the_largest_of_the_sizes():
    knobs = {"frames": 1, "height": 8, "width": 8, "lengths": "5 17", "sizes": "8x8 16x24"}
    assert "one clip of 17 frames of 16x24 has 38" in refused(dit_tokens=37, **knobs)


def test_the_sampled_clip_has_to_fit_even_where_training_has_smaller_ones():
    knobs = {"frames": 17, "height": 16, "width": 24, "lengths": "5", "sizes": "8x8"}
    assert "one clip of 17 frames of 16x24 has 38" in refused(dit_tokens=37, **knobs)


@pytest.mark.parametrize("frames, height, width", [(1, 8, 24), (5, 16, 8), (9, 24, 16)])
def test_tokens_are_the_words_and_the_patches_that_the_networks_make(frames, height, width):
    config = Config(vae_width=8, latent_channels=3, max_words=7)
    latent, _ = VAE(config).encode(torch.zeros(1, 3, frames, height, width))
    tokens = patchify(latent, (1, config.patch_size, config.patch_size))
    assert count_tokens(config, frames, height, width) == 7 + tokens.shape[1]


def test_an_image_has_one_latent_frame_and_four_more_frames_have_another():
    assert [latent_length(frames) for frames in (1, 5, 9, 17)] == [1, 2, 3, 5]
    assert TIME_FACTOR == 4


@pytest.mark.parametrize("size", [(1, 8, 80), (17, 32, 8), (5, 16, 24)])
def test_a_size_that_can_be_cut_is_accepted(size):
    check_size(Config(), *size)


@pytest.mark.parametrize(
    "size, nearest",
    [
        ((16, 45, 32), "17 frames of 48x32"),
        ((18, 32, 32), "17 frames of 32x32"),
        ((2, 8, 8), "1 frames of 8x8"),
        ((0, 8, 8), "1 frames of 8x8"),
        ((5, 3, 24), "5 frames of 8x24"),
        ((5, 24, 1), "5 frames of 24x8"),
        ((5, 24, 37), "5 frames of 24x40"),
    ],
)
def test_a_size_that_cannot_be_cut_names_the_nearest_that_can(size, nearest):
    with pytest.raises(BadInput, match=f"multiples of 8.; the nearest that can: {nearest}$"):
        check_size(Config(), *size)


def test_sides_are_multiples_of_the_pixels_in_a_patch():
    config = Config(vae_space=4, patch_size=3)
    check_size(config, 5, 12, 36)
    with pytest.raises(BadInput, match="multiples of 12.; the nearest that can: 5 frames of 12x24"):
        check_size(config, 5, 12, 20)


# Names of knobs


def test_a_config_survives_the_checkpoint():
    config = Config(frames=9, lr=0.5)
    assert config_from_dict(asdict(config), "a checkpoint") == config


def test_a_dict_is_checked():
    with pytest.raises(BadInput, match="dit_depth = 0"):
        config_from_dict({"dit_depth": 0}, "a checkpoint")


def test_a_key_that_is_no_knob_is_named_with_its_source_and_the_nearest_knob():
    with pytest.raises(BadInput, match=r"run.toml: no knob is called 'frmes' \(did you mean frames\?\)"):
        config_from_dict({"frames": 9, "frmes": 9}, "run.toml")


def test_a_suggestion_is_the_nearest_name_or_nothing():
    assert suggest("lite", ["line", "light", "late"]) == " (did you mean line?)"
    assert suggest("xyz", ["frames"]) == ""


def test_suggestions_are_found_in_any_collection():
    assert suggest("frmes", {"frames": 1, "fps": 2}) == " (did you mean frames?)"


def test_run_alone_it_prints_every_knob_as_the_flags_make_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["config.py", "--dit-steps", "100"])
    main()
    expected = [f"{name} = {value!r}" for name, value in asdict(Config(dit_steps=100)).items()]
    assert capsys.readouterr().out.splitlines() == expected


def test_threads_that_wait_soon_sleep():
    assert int(os.environ["GOMP_SPINCOUNT"]) <= 10_000


@pytest.mark.parametrize("path", COMMANDS, ids=str)
def test_every_command_imports_config_before_torch(path):
    modules = []
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            modules.append(statement.module)
        elif isinstance(statement, ast.Import):
            modules += [name.name for name in statement.names]
    assert modules[0] == "config" or path.name == "config.py"

"""The command: every flag reaches what it is for, what can be refused is refused first, and files say what
they are. What the modes do is in test_modes.py; bad input is in test_bad_input.py."""
from config import BadInput

import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import sample
from data.video_io import open_clip, write_clip
from safety import frames as safety_frames
from safety import prompts as safety_prompts
from safety import provenance
from utils.checkpoint import SHIPPED, load_model
from utils.cli import Flags, add_config_flags, config_from_flags
from world.scenes import GROUND, Scene, Thing, draw_scene, render

PROMPTS = ["a red circle moving left slowly", "a blue square moving up quickly"]
ROOT = SHIPPED.parents[1]


def make_clip(T, H=8, W=16):
    """A clip (T, H, W, 3) whose frame i is of the grey 10 (i + 1)."""
    greys = np.arange(10, 10 * T + 1, 10, dtype=np.uint8)
    return greys[:, None, None, None] + np.zeros((1, H, W, 3), np.uint8)


def parse(*words):
    """The words of a command line → the flags that main would work with."""
    parser = Flags(sample.__doc__)
    sample.add_flags(parser)
    args = parser.parse_args([str(word) for word in words])
    sample.check_flags(args)
    return args


def record(monkeypatch, module, name, events, answer):
    """Replaces module.name: a call adds (name, its arguments by name) to events, and returns answer(them)."""
    signature = inspect.signature(getattr(module, name))

    def remember(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        events.append((name, bound.arguments))
        return answer(bound.arguments)

    monkeypatch.setattr(module, name, remember)


def nothing(arguments):
    return None


def complete_in_grey(arguments):
    """What `complete` returns, without a network: invented frames are of the grey 200 + the clip's number."""
    completed = arguments["video"].copy()
    for i in range(len(completed)):
        completed[i, ~arguments["known"]] = 200 + i
    return completed


@pytest.fixture
def sequences(monkeypatch):
    """`complete` without a network → the list of what it was called with, a dict a call."""
    events = []
    record(monkeypatch, sample, "complete", events, complete_in_grey)
    return events


@pytest.fixture
def steps_of_main(monkeypatch):
    """main without networks, classifiers, signatures and files → the list of what it does, in order."""
    events = []
    record(monkeypatch, safety_prompts, "check_prompts", events, nothing)
    record(monkeypatch, provenance, "signer", events, lambda arguments: "the signer")
    record(monkeypatch, sample, "load_model", events, lambda arguments: load_model(**arguments))
    record(monkeypatch, sample, "check_output_path", events, nothing)
    record(monkeypatch, provenance, "log_skip", events, nothing)
    record(monkeypatch, sample, "complete", events, complete_in_grey)
    record(monkeypatch, safety_frames, "check_frames", events, nothing)
    record(monkeypatch, sample, "write_clip", events, nothing)
    record(monkeypatch, provenance, "sign", events, lambda arguments: "signed")
    return events


@pytest.fixture
def long_checkpoint(checkpoint, tmp_path):
    """The same weights, under a config that allows sequences of 17 frames: room for every mode."""
    state = torch.load(checkpoint, weights_only=True)
    path = tmp_path / "long.pt"
    torch.save(state | {"config": state["config"] | {"frames": 17}}, path)
    return path


def names(events):
    return [name for name, _ in events]


def calls_of(wanted, events):
    """The arguments of every call of one function."""
    return [arguments for name, arguments in events if name == wanted]


# --- The whole command, with everything real --------------------------------------------------------------


def test_two_prompts_make_two_signed_files_that_say_what_they_are(command, checkpoint, tmp_path):
    words = ("--prompt", *PROMPTS, "--out", "a/b.mp4", "--size", "16x8", "--frames", 9, "--seed", 4)
    code, out, err = command(sample, *words, "--checkpoint", checkpoint)
    assert code == 0, err
    assert len(out.splitlines()) == 3
    for i, prompt in enumerate(PROMPTS):
        path = tmp_path / f"a/b-{i}.mp4"
        assert iio.imread(path, plugin="pyav").shape == (9, 64, 32, 3)
        with iio.imopen(path, "r", plugin="pyav") as file:
            note = file.container_metadata["comment"]
        model_hash = load_model(checkpoint).checkpoint_hash
        assert note == f"{prompt} | seed {4 + i} | checkpoint {model_hash}"


def test_the_shipped_checkpoints_config_is_what_the_documentation_trains(command):
    text = (ROOT / "docs/training-small.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python train.py ")]
    knobs = without(shlex.split(commands[-1])[2:], "--out", "--start")

    parser = Flags("")
    add_config_flags(parser)
    documented = config_from_flags(parser.parse_args(knobs))
    assert load_model(SHIPPED).config == documented


def without(words, *flags):
    """A command line without these flags and their values."""
    kept = []
    words = iter(words)
    for word in words:
        if word in flags:
            next(words)
        else:
            kept.append(word)
    return kept


def test_the_shipped_checkpoint_is_small():
    assert SHIPPED.stat().st_size <= 12e6


@pytest.mark.parametrize("folder", [".", "data", "utils", "world"])
def test_whoever_imports_anything_else_does_not_load_safety(folder):
    for path in (ROOT / folder).glob("*.py"):
        assert not re.search(r"^(from|import) safety", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_prompts_that_come_with_the_repository_are_six_of_known_words():
    prompts = parse("--prompt", f"@{ROOT / 'assets/prompts.txt'}").prompt
    vocab = load_model(SHIPPED).vocab
    assert len(set(prompts)) == 6
    assert {word for prompt in prompts for word in prompt.split()} <= set(vocab)


# --- Flags that go together, or do not --------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--prompt red --frames 1",
        "--prompt red --seconds 1 --then red",
        "--image a.png --frames 5 --then red",
        "--image a.png --seconds 1",
        "--video a.mp4 --extend forward 1 --then red",
        "--video a.mp4 --extend backward 1",
        "--video a.mp4 --fill 12-16 --prompt red",
        "--connect a.mp4 b.mp4 1",
        "--edit a.mp4 --prompt red --strength 1",
        "--edit a.mp4 --prompt red --strength 0.1",
        "--guidance 0 --steps 1 --seed 0 --zoom 1 --size 128x256",
        "--seed 9223372036854775807",
    ],
)
def test_flags_that_go_together_are_accepted(line):
    parse(*line.split())


@pytest.mark.parametrize(
    "line, answer",
    [
        ("--image a.png --video a.mp4 --extend forward 1", "--image --video: expected one of them"),
        ("--image a.png --connect a.mp4 b.mp4 1", "--image --connect: expected one of them"),
        ("--connect a.mp4 b.mp4 1 --edit a.mp4 --prompt red", "--connect --edit: expected one of them"),
        ("--extend forward 1", "--video FILE comes with"),
        ("--fill 1-4", "--video FILE comes with"),
        ("--video a.mp4 --extend forward 1 --frames 5", "not with --video, which knows its length"),
        ("--video a.mp4 --extend forward 1 --seconds 5", "not with --video, which knows its length"),
        ("--connect a.mp4 b.mp4 1 --frames 5", "not with --connect, which knows its length"),
        ("--connect a.mp4 b.mp4 1 --then red", "--then red: expected with a prompt alone"),
        ("--edit a.mp4 --prompt red --then red", "--then red: expected with a prompt alone"),
        ("--edit a.mp4 --prompt red --strength 0", "--strength 0.0: expected a number above 0"),
        ("--prompt red --strength 0", "--strength 0.0: expected a number above 0"),
        ("--frames 0", "--frames 0: expected 1 or more"),
        ("--frames 5 --seconds 0", "--frames 5 --seconds 0.0: expected one of them"),
        ("--size 32x32x32", "--size 32x32x32: expected HEIGHTxWIDTH"),
        ("--size 32x1032", "--size 32x1032: expected sides of up to 1024 pixels"),
        ("--seed 9223372036854775808", "--seed 9223372036854775808: expected 0 or more, and less than 2^63"),
        ("--video a.mp4 --fill 1-2-3", "--fill 1-2-3: expected FIRST-LAST"),
        ("--video a.mp4 --extend forward 1 --prompt \udc80", "is no letter; expected UTF-8"),
        ("--then \udc80", "is no letter; expected UTF-8"),
        ("--out \udc80.gif", "--out: '\\udc80' is no letter; expected UTF-8"),
        ("--image= --prompt red", "--image: expected a file, not an empty name"),
        ("--video= --extend forward 1", "--video: expected a file, not an empty name"),
        ("--edit= --prompt red", "--edit: expected a file, not an empty name"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(line, answer):
    with pytest.raises(BadInput) as refusal:
        parse(*line.split())
    assert answer in str(refusal.value)


@pytest.mark.parametrize("seconds, frames", [(1, 12), ("0.5", 6), (0.3, 4), (0.001, 1), (86_399, 1_036_788)])
def test_seconds_become_the_nearest_number_of_frames_and_at_least_one(seconds, frames):
    assert sample.count_frames(seconds, 12.0, "--extend") == frames


@pytest.mark.parametrize("seconds", [0, -1, "nan", "soon", 86_400])
def test_seconds_that_are_none_or_more_than_a_day_are_refused(seconds):
    with pytest.raises(BadInput, match=f"--extend {seconds}: expected seconds"):
        sample.count_frames(seconds, 12.0, "--extend")


def test_seconds_of_a_video_are_rounded_up_to_whole_latent_frames(config):
    for frames in range(1, 30):
        args = parse("--seconds", frames / config.fps)
        whole = sample.asked_frames(args, config)
        assert whole % 4 == 1
        assert frames <= whole < frames + 4


def test_a_video_is_as_many_frames_as_asked_or_as_the_config_says(config):
    assert sample.asked_frames(parse("--frames", 9), config) == 9
    assert sample.asked_frames(parse(), config) == config.frames == 5


# --- What is given ----------------------------------------------------------------------------------------


def test_a_given_clip_is_there_once_for_every_prompt(config, tmp_path):
    write_clip(tmp_path / "a.gif", make_clip(9), 12.5)
    args = parse("--video", tmp_path / "a.gif", "--extend", "forward", 1)
    clips = sample.open_given(args, config, copies=3, size=None)
    assert len(clips) == 1
    assert clips[0].shape == (3, 9, 8, 16, 3)
    assert (clips[0] == make_clip(9)).all()


@pytest.mark.parametrize("size, expected", [(None, (16, 8)), ((24, 8), (24, 8))])
def test_two_given_clips_are_of_the_size_asked_for_or_of_the_firsts(config, tmp_path, size, expected):
    config.sizes = "8x16 16x8"
    write_clip(tmp_path / "tall.gif", make_clip(9, 16, 8), 12.5)
    write_clip(tmp_path / "wide.gif", make_clip(5, 8, 16), 12.5)
    args = parse("--connect", tmp_path / "tall.gif", tmp_path / "wide.gif", 1)
    tall, wide = sample.open_given(args, config, copies=1, size=size)
    assert tall.shape == (1, 9, *expected, 3)
    assert wide.shape == (1, 5, *expected, 3)


@pytest.mark.parametrize(
    "line", ["--image {}", "--video {} --fill 1-4", "--edit {} --prompt red", "--connect {} {} 1"]
)
def test_every_file_that_is_named_is_opened(config, tmp_path, line):
    path = str(tmp_path / "a.gif")
    write_clip(path, make_clip(5), 12.5)
    clips = sample.open_given(parse(*line.format(path, path).split()), config, copies=1, size=None)
    assert len(clips) == line.count("{}")


# --- Far from what a model knows ----------------------------------------------------------------------------


def test_a_size_far_from_the_trained_ones_is_warned_of_with_what_is_known(config, capsys):
    config.sizes = "32x32 24x40 40x24 24x32"
    config.lengths = "9 17"
    sample.warn_of_size(config, 64, 64)
    told = "this model was trained at 32x32, 24x40, 40x24, 24x32 (9, 17 frames), and may show nonsense"
    assert capsys.readouterr().err == f"warning: 64x64 pixels: {told} so far from it\n"


@pytest.mark.parametrize(
    "height, width, is_far",
    [
        (32, 32, False),
        (24, 24, False),
        (24, 48, False),
        (48, 32, False),
        (40, 40, False),
        (16, 32, True),  # a side below the smallest
        (56, 24, True),  # a side above 1.2 times the largest
        (40, 48, True),  # an area above 1.6 times the largest
        (64, 64, True),
    ],
)
def test_a_size_is_far_where_the_shipped_model_fails(config, capsys, height, width, is_far):
    config.sizes = "32x32 24x40 40x24 24x32"
    sample.warn_of_size(config, height, width)
    assert bool(capsys.readouterr().err) == is_far


@pytest.mark.parametrize("ending", ["mp4", "gif", "webp", "png"])
def test_the_worlds_own_clips_are_not_warned_of(config, tmp_path, capsys, ending):
    for seed, zoom in ((0, 1), (1, 4)):
        frames = 1 if ending == "png" else 9
        path = tmp_path / f"{seed}.{ending}"
        write_clip(path, render(draw_scene(np.random.default_rng(seed)), frames), 12.0, zoom)
        sample.warn_of_ground(path, open_clip(path, config, (32, 32)), GROUND)
    assert capsys.readouterr().err == ""


RED_CIRCLE = Thing("circle", "red", 0.2, (0.5, 0.5), "left", "slowly")


def photograph():
    """A still (1, H, W, 3) that is bright above and dark below, as a landscape is."""
    rows = np.linspace(230, 20, 32)[:, None, None]
    return (rows * np.array([0.6, 0.8, 1.0]) + np.zeros((32, 32, 3))).astype(np.uint8)[None]


@pytest.mark.parametrize(
    "clip",
    [
        np.full((1, 32, 32, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8),
        render(Scene([RED_CIRCLE], tones=((250, 250, 245), (0, 0, 0))), 9),
        photograph(),
    ],
    ids=["white", "noise", "white ground", "photograph"],
)
def test_what_is_not_dark_is_warned_of(capsys, clip):
    sample.warn_of_ground("a.mp4", clip, GROUND)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: a.mp4: ")
    assert line.endswith("only seen one shape on a dark ground, and may show nonsense")


@pytest.mark.parametrize("line, count", [("--image a.gif", 1), ("--connect a.gif a.gif 0.3", 2)])
@pytest.mark.parametrize("data, knows_only_the_world", [("world", True), ("clips", False)])
def test_warnings_come_before_the_work_for_every_file(
    command, long_checkpoint, steps_of_main, tmp_path, line, count, data, knows_only_the_world
):
    state = torch.load(long_checkpoint, weights_only=True)
    torch.save(state | {"config": state["config"] | {"data": data}}, tmp_path / "this.pt")
    write_clip(tmp_path / "a.gif", 255 - make_clip(9), 12.5)
    code, _, err = command(sample, "--checkpoint", "this.pt", *line.split())
    assert code == 0, err
    assert err.count("warning: a.gif: 0% of it is dark") == count * knows_only_the_world


def test_a_far_size_is_warned_of_by_the_command(command, checkpoint, steps_of_main):
    code, _, err = command(sample, "--checkpoint", checkpoint, "--size", "32x32")
    assert code == 0
    assert err.startswith("warning: 32x32 pixels: this model was trained at 8x16 (5 frames), and may show")


# --- What the flags ask for -------------------------------------------------------------------------------

GIVEN = {
    "text": [],
    "image": ["--image", "a.png"],
    "forward": ["--video", "a.mp4", "--extend", "forward", 1],
    "backward": ["--video", "a.mp4", "--extend", "backward", 1],
    "fill": ["--video", "a.mp4", "--fill", "1-4"],
    "connect": ["--connect", "a.mp4", "b.mp4", 0.3],
    "edit": ["--edit", "a.mp4", "--prompt", "red"],
}


def make(model, *words, clips=None, prompts=PROMPTS):
    """make_videos for a command line; what is given is 9 frames, and 9 inverted ones, for each prompt."""
    if clips is None:
        clip = make_clip(9)[None].repeat(len(prompts), 0)
        clips = [clip, 255 - clip]
    return sample.make_videos(parse(*words), model, prompts, clips, frames=13, height=16, width=8)


@pytest.fixture
def roomy(model, monkeypatch):
    """A model whose sequence is long enough for every mode."""
    monkeypatch.setattr(model.config, "frames", 25)
    return model


@pytest.mark.parametrize("mode", GIVEN)
def test_every_mode_samples_as_told(roomy, sequences, mode):
    make(roomy, *GIVEN[mode], "--steps", 7, "--guidance", 2.5, "--sampler", "ddpm", "--seed", 3)
    _, told = sequences[0]
    assert told["model"] is roomy
    assert told["prompts"] == PROMPTS
    assert told["steps"] == 7
    assert told["guidance"] == 2.5
    assert told["eta"] == 1
    assert told["seed"] == 3
    assert told["progress"] is True


@pytest.mark.parametrize("mode", GIVEN)
def test_every_mode_leaves_to_the_config_what_it_is_not_told(roomy, sequences, mode):
    make(roomy, *GIVEN[mode])
    _, told = sequences[0]
    assert told["steps"] is None
    assert told["guidance"] is None
    assert told["eta"] == 1
    assert told["seed"] == 0


@pytest.mark.parametrize("mode", ["text", "image", "forward", "backward"])
def test_later_windows_follow_what_holds_all_the_time(model, sequences, mode):
    make(model, *GIVEN[mode], "--then", "a circle")
    assert len(sequences) > 1
    assert sequences[0][1]["prompts"] == PROMPTS
    assert all(told["prompts"] == ["a circle"] * 2 for _, told in sequences[1:])


@pytest.mark.parametrize("mode", ["text", "image", "forward", "backward"])
def test_later_windows_have_empty_prompts_unless_told(model, sequences, mode):
    make(model, *GIVEN[mode])
    assert all(told["prompts"] == ["", ""] for _, told in sequences[1:])


def greys(video):
    """The grey of the first clip's frames, and "." for invented ones."""
    return ["." if grey == 200 else int(grey) for grey in video[0, :, 0, 0, 0]]


def test_text_to_video_has_the_length_and_size_asked_for(roomy, sequences):
    videos = make(roomy, clips=[])
    assert videos.shape == (2, 13, 16, 8, 3)
    assert greys(videos) == ["."] * 13


def test_the_first_frame_of_an_image_is_animated(roomy, sequences):
    assert greys(make(roomy, *GIVEN["image"])) == [10, *["."] * 12]


def test_forward_is_behind_the_clip_and_backward_before_it(roomy, sequences):
    clip = list(range(10, 100, 10))
    assert greys(make(roomy, "--video", "a.mp4", "--extend", "forward", 0.5)) == [*clip, *["."] * 6]
    assert greys(make(roomy, "--video", "a.mp4", "--extend", "backward", 0.5)) == [*["."] * 6, *clip]


def test_a_filled_gap_is_announced(roomy, sequences, capsys):
    filled = greys(make(roomy, "--video", "a.mp4", "--fill", "1-2"))
    assert filled == [10, *["."] * 4, 60, 70, 80, 90]
    assert capsys.readouterr().out == "frames 1 to 4 are new\n"


def test_a_connection_is_announced(roomy, sequences, capsys):
    connected = greys(make(roomy, "--connect", "a.mp4", "b.mp4", 0.3))
    a = list(range(10, 100, 10))
    b = [255 - grey for grey in a]
    assert connected == [*a, *["."] * 4, *b]
    assert capsys.readouterr().out == "frames 9 to 12 are new\n"


def test_seconds_are_those_of_the_configs_frame_rate(roomy, sequences, monkeypatch):
    monkeypatch.setattr(roomy.config, "fps", 6.0)
    assert make(roomy, "--video", "a.mp4", "--extend", "forward", 1).shape[1] == 9 + 6
    assert make(roomy, "--connect", "a.mp4", "b.mp4", 1).shape[1] == 9 + 8 + 9
    assert sample.asked_frames(parse("--seconds", 2), roomy.config) == 13


@pytest.mark.parametrize("words, strength", [([], 0.7), (["--strength", 0.2], 0.2)])
def test_an_edit_begins_at_the_strength_asked_for(roomy, sequences, words, strength):
    make(roomy, *GIVEN["edit"], *words)
    assert sequences[0][1]["strength"] == strength


def test_only_edits_have_a_strength(roomy, sequences):
    for mode in GIVEN:
        if mode != "edit":
            make(roomy, *GIVEN[mode])
    assert all(told["strength"] is None for _, told in sequences)


def test_a_clip_as_long_as_a_sequence_can_be_edited_and_a_longer_one_cannot(model, sequences, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 9)
    assert make(model, *GIVEN["edit"]).shape[1] == 9
    too_long = make_clip(10)[None].repeat(2, 0)
    with pytest.raises(BadInput, match=r"10 frames; this model edits up to 9, 0\.8 seconds"):
        make(model, *GIVEN["edit"], clips=[too_long])


# --- main -------------------------------------------------------------------------------------------------


def test_everything_that_can_be_refused_is_looked_at_before_the_work(command, checkpoint, steps_of_main):
    code, _, err = command(sample, "--checkpoint", checkpoint, "--prompt", "red")
    assert code == 0, err
    assert names(steps_of_main) == [
        "check_prompts",
        "signer",
        "load_model",
        "check_output_path",
        "complete",
        "check_frames",
        "write_clip",
        "sign",
    ]


def test_every_prompt_is_judged_and_what_holds_all_the_time_too(command, checkpoint, steps_of_main):
    command(sample, "--checkpoint", checkpoint, "--prompt", *PROMPTS, "--then", "a circle")
    judged = calls_of("check_prompts", steps_of_main)[0]
    assert set(judged["prompts"]) == {*PROMPTS, "a circle"}


def test_all_videos_are_looked_at_before_the_first_is_written(command, checkpoint, steps_of_main):
    command(sample, "--checkpoint", checkpoint, "--prompt", *PROMPTS)
    looked_at = calls_of("check_frames", steps_of_main)
    assert names(steps_of_main).index("write_clip") > names(steps_of_main).index("check_frames")
    assert len(looked_at) == 1
    assert looked_at[0]["videos"].shape == (2, 5, 8, 16, 3)
    assert looked_at[0]["fps"] == 12


def test_skipped_checks_are_logged_beside_the_output(command, checkpoint, steps_of_main):
    words = ("--prompt", "red", "--then", "blue", "--out", "x/y.gif", "--unsafe-skip-checks")
    command(sample, "--checkpoint", checkpoint, *words)
    assert "check_prompts" not in names(steps_of_main)
    assert "check_frames" not in names(steps_of_main)
    logged = calls_of("log_skip", steps_of_main)[0]
    assert set(logged["prompts"]) == {"red", "blue"}
    assert str(logged["folder"]) == "x"


def test_every_video_is_written_under_its_number_with_its_prompt_and_seed(
    command, checkpoint, steps_of_main
):
    words = ("--prompt", *PROMPTS, "--seed", 4, "--zoom", 3, "--out", "x/y.webp")
    _, out, _ = command(sample, "--checkpoint", checkpoint, *words)
    model_hash = load_model(checkpoint).checkpoint_hash
    written = calls_of("write_clip", steps_of_main)
    signed = calls_of("sign", steps_of_main)
    for i, prompt in enumerate(PROMPTS):
        assert str(written[i]["path"]) == str(signed[i]["path"]) == f"x/y-{i}.webp"
        assert (written[i]["video"] == 200 + i).all()
        assert written[i]["fps"] == 12
        assert written[i]["zoom"] == 3
        assert written[i]["note"] == f"{prompt} | seed {4 + i} | checkpoint {model_hash}"
        assert written[i]["caption"] == prompt
        assert signed[i]["signer"] == "the signer"
        assert signed[i]["version"] == model_hash
        assert signed[i]["prompt"] == prompt
        made = f"x/y-{i}.webp: 5 frames of 8x16 from {checkpoint.as_posix()}"
        assert out.splitlines()[1 + i] == f"{made} | {prompt} | signed"


def test_without_flags_there_is_a_prompt_a_name_and_a_zoom(command, checkpoint, steps_of_main):
    command(sample, "--checkpoint", checkpoint)
    written = calls_of("write_clip", steps_of_main)[0]
    assert written["note"].startswith(f"{sample.DEFAULT_PROMPT} | seed 0 | ")
    assert str(written["path"]) == "out/sample.gif"
    assert written["zoom"] == 4


def test_without_a_checkpoint_it_is_the_shipped_one_whatever_was_trained_last(
    command, steps_of_main, tmp_path, copy_of_run
):
    copy_of_run(tmp_path / "out/tiny/model.pt")
    command(sample)
    assert calls_of("load_model", steps_of_main)[0]["path"] == SHIPPED


def test_the_first_line_names_the_model_and_says_how_far_it_was_trained(
    command, steps_of_main, tmp_path, copy_of_run
):
    copy_of_run(tmp_path / "early.pt", vae=3, dit=1)
    code, out, err = command(sample, "--checkpoint", "early.pt")
    assert code == 0, err
    line = r"model: early.pt, trained for 0.\d minutes; UNFINISHED: 1 of 3 steps of the transformer"
    assert re.fullmatch(line, out.splitlines()[0])


def test_a_model_that_is_not_trained_yet_is_not_sampled(command, steps_of_main, tmp_path, copy_of_run):
    copy_of_run(tmp_path / "early.pt", vae=2, dit=0)
    code, out, err = command(sample, "--checkpoint", "early.pt")
    assert (code, out) == (2, "")
    assert "sample.py: checkpoint early.pt: not trained yet, 2 of 3 steps of the VAE, none of the" in err
    assert names(steps_of_main) == ["check_prompts", "signer", "load_model"]


def test_the_help_tells_the_shipped_models_own_defaults(command):
    config = load_model(SHIPPED).config
    _, out, _ = command(sample, "--help")
    text = " ".join(out.split())
    for default in (config.frames, config.sample_steps, config.guidance):
        assert f"(default: the model's own, {default} in assets/small.pt)" in text


def test_a_short_job_leaves_no_progress_bar_in_a_log(command, checkpoint, tmp_path):
    for frames in (5, 29):
        code, out, err = command(sample, "--checkpoint", checkpoint, "--frames", frames)
        assert code == 0, err
        assert "\r" not in err + out
        assert "sampling" not in err


def test_the_model_is_loaded_to_the_device_asked_for(command, checkpoint, steps_of_main, monkeypatch):
    monkeypatch.setattr(sample, "pick_device", {"cpu": "cpu", "cuda": "meta"}.get)
    command(sample, "--checkpoint", checkpoint, "--device", "cuda")
    command(sample, "--checkpoint", checkpoint, "--device", "cpu")
    assert [told["device"] for told in calls_of("load_model", steps_of_main)] == ["meta", "cpu"]


def test_files_are_signed_with_the_keys_named_or_with_our_own(command, checkpoint, steps_of_main, tmp_path):
    command(sample, "--checkpoint", checkpoint, "--keys", "somewhere")
    command(sample, "--checkpoint", checkpoint)
    named, ours = calls_of("signer", steps_of_main)
    assert named["folder"] == "somewhere"
    assert ours["folder"] == provenance.KEYS == tmp_path / "keys"


def test_the_file_is_checked_at_its_size_in_pixels(command, checkpoint, steps_of_main):
    command(sample, "--checkpoint", checkpoint, "--size", "16x8", "--zoom", 3)
    checked = calls_of("check_output_path", steps_of_main)[0]
    assert str(checked["path"]) == "out/sample.gif"
    assert (checked["height"], checked["width"]) == (48, 24)


def test_every_one_of_several_files_is_checked_with_its_length(command, checkpoint, steps_of_main):
    command(sample, "--checkpoint", checkpoint, "--prompt", *PROMPTS, "--frames", 9, "--out", "a.gif")
    checked = calls_of("check_output_path", steps_of_main)
    assert [str(told["path"]) for told in checked] == ["a-0.gif", "a-1.gif"]
    assert [told["frames"] for told in checked] == [9, 9]


def test_a_signature_says_whether_a_picture_was_given(command, checkpoint, steps_of_main, tmp_path):
    iio.imwrite(tmp_path / "a.png", make_clip(1)[0])
    command(sample, "--checkpoint", checkpoint)
    command(sample, "--checkpoint", checkpoint, "--image", "a.png")
    from_text, from_picture = calls_of("sign", steps_of_main)
    assert from_text["given"] is False
    assert from_picture["given"] is True


def test_what_is_given_speaks_for_itself(command, checkpoint, steps_of_main, tmp_path):
    write_clip(tmp_path / "a.gif", make_clip(5), 12.5)
    for words in (["--image", "a.gif"], ["--video", "a.gif", "--extend", "forward", 0.3]):
        code, _, err = command(sample, "--checkpoint", checkpoint, *words)
        assert code == 0, err
        assert calls_of("complete", steps_of_main)[-1]["prompts"] == [""]


def test_two_clips_that_are_given_speak_for_themselves(command, long_checkpoint, steps_of_main, tmp_path):
    write_clip(tmp_path / "a.gif", make_clip(5), 12.5)
    code, _, err = command(sample, "--checkpoint", long_checkpoint, "--connect", "a.gif", "a.gif", 0.3)
    assert code == 0, err
    assert calls_of("complete", steps_of_main)[0]["prompts"] == [""]


def test_a_video_has_the_size_of_the_clip_that_is_given(command, checkpoint, steps_of_main, tmp_path):
    write_clip(tmp_path / "tall.gif", make_clip(5, 24, 16), 12.5)
    words = ("--video", "tall.gif", "--extend", "forward", 0.3, "--size", "16x8", "--zoom", 1)
    code, out, err = command(sample, "--checkpoint", checkpoint, *words)
    assert code == 0, err
    assert "9 frames of 16x8" in out
    code, out, err = command(sample, "--checkpoint", checkpoint, *words[:5], "--zoom", 1)
    assert "9 frames of 8x16" in out


@pytest.mark.parametrize(
    "line, frames",
    [
        ("--frames 9", 9),
        ("--seconds 1", 13),
        ("--image a.png --frames 5", 5),
        ("--image a.png --seconds 0.5", 9),
        ("--image a.gif --frames 9", 9),
        ("--video a.gif --extend forward 1", 21),
        ("--video a.gif --extend backward 0.5", 15),
        ("--video a.gif --fill 1-2", 9),
        ("--connect a.gif a.gif 0.3", 22),
        ("--edit a.gif --prompt red", 9),
    ],
)
def test_every_mode_writes_as_many_frames_as_asked(
    command, long_checkpoint, steps_of_main, tmp_path, line, frames
):
    write_clip(tmp_path / "a.gif", make_clip(9), 12.5)
    write_clip(tmp_path / "a.png", make_clip(1), 12.5)
    code, out, err = command(sample, "--checkpoint", long_checkpoint, *line.split())
    assert code == 0, err
    assert f": {frames} frames of 8x16 from " in out
    assert len(calls_of("write_clip", steps_of_main)[0]["video"]) == frames
    assert calls_of("check_output_path", steps_of_main)[0]["frames"] == frames


def test_a_length_that_cannot_be_made_is_refused_before_any_file_is_read(command, checkpoint, steps_of_main):
    code, _, err = command(sample, "--checkpoint", checkpoint, "--frames", 6, "--image", "missing.png")
    assert code == 2
    assert "nearest that can: 5 frames of 8x16" in err


@pytest.mark.parametrize("flag", ["--prompt", "--then"])
def test_a_prompt_of_which_nothing_is_known_is_refused(command, checkpoint, steps_of_main, flag):
    code, _, err = command(sample, "--checkpoint", checkpoint, flag, "a pink elephant dancing on the moon")
    assert code == 2
    assert "elephant dancing on the moon': it tells this model nothing to show; it knows: blue, " in err
    assert "complete" not in names(steps_of_main)


def test_a_model_of_other_data_knows_all_words_of_its_own(command, checkpoint, steps_of_main, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    torch.save(state | {"config": state["config"] | {"data": "clips"}}, tmp_path / "clips.pt")
    code, _, err = command(sample, "--checkpoint", "clips.pt", "--prompt", "moving")
    assert code == 0, err


@pytest.mark.parametrize("out", ["still.jpg", "still.JPEG"])
def test_a_jpg_still_is_signed(command, checkpoint, tmp_path, out):
    pytest.importorskip("c2pa")
    words = ("--prompt", "red", "--frames", 1, "--out", out)
    code, out_line, err = command(sample, "--checkpoint", checkpoint, *words)
    assert code == 0, err
    assert out_line.endswith("| red | signed\n")
    assert provenance.verify(tmp_path / out)[0] == "valid"


def test_the_last_seeds_neighbour_is_the_first(command, checkpoint, steps_of_main):
    last = 2**63 - 1
    words = ("--prompt", *PROMPTS, "--seed", last)
    code, _, err = command(sample, "--checkpoint", checkpoint, *words)
    assert code == 0, err
    written = calls_of("write_clip", steps_of_main)
    assert [told["note"].split(" | ")[1] for told in written] == [f"seed {last}", "seed 0"]


@pytest.mark.parametrize("flag", ["--prompt", "--then"])
def test_an_unknown_word_is_warned_of(command, checkpoint, steps_of_main, flag):
    code, _, err = command(sample, "--checkpoint", checkpoint, flag, "a read circle")
    assert code == 0
    assert "did you mean red?" in err


def test_a_file_that_cannot_be_written_is_one_line(command, checkpoint, steps_of_main, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "write_clip", fail)
    code, _, err = command(sample, "--checkpoint", checkpoint)
    assert code == 2
    assert err == "sample.py: --out out/sample.gif: cannot be written (No space left on device)\n"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sampling_is_made_in_the_configs_precision(precision, checkpoint, monkeypatch):
    model = load_model(checkpoint)
    model.config = replace(model.config, precision=precision)
    seen = []
    layer = model.dit.blocks[0].mlp_in
    layer.register_forward_hook(lambda layer, args, output: seen.append(output.dtype))
    sample.generate(model, ["a red circle"])
    assert set(seen) == {getattr(torch, precision)}


@pytest.mark.parametrize("steps, told", [(7, True), (8, False)])
def test_whoever_asks_for_few_steps_is_told_that_noise_is_left(steps, told, command, checkpoint):
    words = ("--checkpoint", checkpoint, "--prompt", "a red circle", "--size", "8x16")
    code, _, err = command(sample, *words, "--steps", steps)
    assert ("warning: --steps 7: 8 or more leave no noise" in err) == told


def test_a_reader_of_our_output_may_stop_early(checkpoint):
    program = "from utils.cli import run; run(lambda: [print(i, flush=True) for i in range(100_000)])"
    command = f'"{sys.executable}" -c "{program}" | head -n 1'
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("0\n", "")

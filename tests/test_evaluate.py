"""Scores: what counts as right, how sure a share is, and that the commands measure what they say."""
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import evaluate
from config import Config
from data.video_io import to_float, to_uint8
from world.reader import ATTRIBUTES
from world.scenes import GROUND, HELD_OUT, SEEN, draw_scene, render


def test_a_wrong_attribute_costs_that_attribute_and_all():
    shown = ("circle", "red", "left", "slowly")
    asked = ("circle", "red", "left", "quickly")
    video = render(draw_scene(np.random.default_rng(3), shown))
    shares = evaluate.attribute_shares([video, video], [asked, shown], fps=12.0)
    assert shares == {"all": 0.5, "shape": 1, "colour": 1, "direction": 1, "speed": 0.5}


def test_wilsons_interval_is_the_published_one():
    assert evaluate.interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=2e-3)  # Newcombe 1998, table I


def test_an_interval_stays_below_one():
    low, high = evaluate.interval(1.0, 256)
    assert 0.98 < low < high == pytest.approx(1)


def test_every_combination_of_a_pool_is_as_frequent_as_the_others():
    combinations, captions, videos = evaluate.world_clips(HELD_OUT, 2 * len(HELD_OUT), 5, 5, 8, 16, 12.0)
    assert all(combinations.count(combination) == 2 for combination in HELD_OUT)
    assert videos.shape == (2 * len(HELD_OUT), 5, 8, 16, 3)
    for combination, caption in zip(combinations, captions, strict=True):
        assert all(word in caption for word in combination)


def test_held_out_is_scored_on_held_out_prompts_and_seen_on_seen_ones(model, monkeypatch):
    asked = []

    def remember(model, captions, T, H, W, seed, **sampling):
        asked.append((captions, seed, sampling))
        return np.zeros((len(captions), T, H, W, 3), np.uint8)

    monkeypatch.setattr(evaluate, "generate", remember)
    evaluate.score(model, prompts=20, steps=3)
    for pool, (captions, _, sampling) in zip((SEEN, HELD_OUT), asked, strict=True):
        sentences = {f"a {colour} {shape} moving {way} {speed}" for shape, colour, way, speed in pool}
        assert set(captions) <= sentences
        assert sampling == {"steps": 3}
    assert asked[0][1] != asked[1][1]  # other noise


def test_a_model_that_shows_the_world_itself_scores_as_the_ceiling(model, monkeypatch):
    def perfect(model, captions, T, H, W, seed, **sampling):
        pool = SEEN if seed == 10_000 else HELD_OUT
        return evaluate.usual_clips(model.config, pool, len(captions), seed)[2]

    monkeypatch.setattr(evaluate, "generate", perfect)
    for name, value in (("frames", 17), ("height", 32), ("width", 32)):
        monkeypatch.setattr(model.config, name, value)
    report = evaluate.score(model, prompts=20)
    assert report["seen"] == report["ceiling"]
    assert report["held_out"]["all"] == 1


def test_every_mode_is_scored(command, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"frames": 25}}, tmp_path / "long.pt")
    words = ("--checkpoint", "long.pt", "--modes", "--prompts", 1, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    assert out.count(" of 1   ") == 26
    assert (tmp_path / "out/modes.png").stat().st_size > 0


def test_a_minute_is_scored_second_by_second(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--minute", 6, "--prompts", 2, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    assert "6 s, looks the same" in out
    assert out.count("of 12 seconds") == 2


def test_the_command_ends_with_one_json_object(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--json", "--prompts", 2, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["ceiling"]["shape"] == 1
    assert set(report["vae_psnr"]) == {"1", "5", "17", "33"}
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *ATTRIBUTES}
    assert report["train_seconds"] > 0


# The modes and the minute, against models whose score is known without asking them


def recolour(scene, colour):
    thing = replace(scene.things[0], colour=colour)
    return replace(scene, things=[thing])


class KnownModel:
    """Stands for sample.py's functions: it shows the world's own clips, its new frames some pixels off.

    It remembers every scene that evaluate.py draws, so it needs no network."""

    def __init__(self, monkeypatch, shift=0, colour=None):
        self.config = Config(frames=25)
        self.shift = shift
        self.colour = colour
        self.scenes = []
        self.calls = []
        real_draw = draw_scene

        def draw(*arguments):
            scene = real_draw(*arguments)
            self.scenes.append(scene)
            return scene

        monkeypatch.setattr(evaluate, "draw_scene", draw)
        monkeypatch.setattr(evaluate, "through_vae", lambda model, videos: videos)
        for name in ("generate", "extend", "fill", "connect", "complete"):
            monkeypatch.setattr(evaluate, name, getattr(self, name))

    def truth(self, n, frames, H=32, W=32):
        scenes = self.scenes[-n:]
        if self.colour:
            scenes = [recolour(scene, self.colour) for scene in scenes]
        return np.stack([render(scene, frames, H, W, self.config.fps) for scene in scenes])

    def show(self, n, frames, new, H=32, W=32):
        """The world's own clips, with the frames `new` moved to the right."""
        videos = self.truth(n, frames, H, W)
        if self.shift:
            moved = np.empty_like(videos[:, new])
            moved[:] = GROUND
            moved[:, :, :, self.shift :] = videos[:, new, :, : -self.shift]
            videos[:, new] = moved
        return videos

    def remember(self, mode, prompts, sampling):
        self.calls.append((mode, prompts, sampling))

    def generate(self, model, prompts, T, H, W, then=None, progress=False, **sampling):
        self.remember("generate", prompts, sampling)
        self.then = then
        return self.show(len(prompts), T, slice(0, 0), H, W)

    def extend(self, model, prompts, video, frames, backward=False, **sampling):
        self.remember("backward" if backward else "extend", prompts, sampling)
        T = video.shape[1]
        new = slice(0, frames) if backward else slice(T, T + frames)
        videos = self.show(len(prompts), T + frames, new)
        given = videos[:, frames:] if backward else videos[:, :T]
        assert (given == video).all()
        return videos

    def fill(self, model, prompts, video, first, last, **sampling):
        self.remember("fill", prompts, sampling)
        assert (video == self.truth(len(prompts), 25)).all()
        return self.show(len(prompts), 25, slice(first, last + 1)), last

    def connect(self, model, prompts, a, b, frames, **sampling):
        self.remember("connect", prompts, sampling)
        first = a.shape[1]
        between = self.show(len(prompts), 25, slice(first, first + frames))[:, first : first + frames]
        return np.concatenate([a, between, b], 1), first + frames - 1

    def complete(self, model, prompts, video, known, strength, **sampling):
        self.remember(f"edit {strength}", prompts, sampling)
        assert known.all()
        return self.show(len(prompts), video.shape[1], slice(None))


def scores(out):
    """A table of modes → {title: share in per cent}."""
    found = {}
    for line in out.splitlines():
        match = re.match(r"(.{58}) *([\d.]+)% ", line)
        if match:
            found[match[1].strip()] = float(match[2])
    return found


def row_of(out, title):
    return next(line for line in out.splitlines() if line.startswith(title))


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_model_that_shows_the_world_itself_is_right_in_every_mode(monkeypatch, in_tmp, capsys):
    evaluate.modes(KnownModel(monkeypatch), 6)
    out = capsys.readouterr().out
    found = scores(out)
    edits = {title for title in found if title.startswith("edit")}
    assert len(edits) == 6
    # A red thing that stays red is no blue one; that row has a test of its own.
    for title, share in found.items():
        assert share == (0 if title in edits else 100), title
    assert "the still comes back: True" in out
    assert "ends kept: True" in out
    assert "velocity off by 0.000 px a frame (median 0.000)" in out
    assert "reader on the world's own 100.0%" in out


# The rows whose new frames have to lie within two pixels of the world's own.
WITHIN_2_PX = {
    "extend forward by 1 s: the same thing, within 2 px": evaluate.score_extend,
    "extend backward by 1 s: the same thing, within 2 px": evaluate.score_extend,
    "fill in the middle third: the same thing, within 2 px": evaluate.score_fill,
    "connect two clips of a thing: the same, within 2 px": evaluate.score_connect,
}


@pytest.mark.parametrize("shift, share", [(1, 100), (3, 0)])
@pytest.mark.parametrize("title", WITHIN_2_PX)
def test_only_new_frames_count_and_they_may_be_two_pixels_off(monkeypatch, capsys, title, shift, share):
    model = KnownModel(monkeypatch, shift=shift)
    WITHIN_2_PX[title](evaluate.ModeScorer(model, 4, 1, {"seed": 1}))
    out = capsys.readouterr().out
    assert scores(out)[title] == share
    median = float(re.search(r"median ([\d.]+) px", row_of(out, title))[1])
    assert median == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("shift, share", [(1, 100), (3, 0)])
def test_an_edit_is_right_if_it_is_blue_and_on_its_path(monkeypatch, capsys, shift, share):
    model = KnownModel(monkeypatch, shift=shift, colour="blue")
    evaluate.score_edit(evaluate.ModeScorer(model, 4, 1, {"seed": 1}))
    out = capsys.readouterr().out
    assert set(scores(out).values()) == {share}
    strengths = [mode for mode, _, _ in model.calls]
    assert strengths == [f"edit {strength}" for strength in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    for _, prompts, _ in model.calls:
        assert all("blue" in prompt and "red" not in prompt for prompt in prompts)


def test_a_jolt_at_the_seam_is_measured_in_pixels_a_frame(monkeypatch, capsys):
    model = KnownModel(monkeypatch, shift=2)
    evaluate.score_extend(evaluate.ModeScorer(model, 6, 1, {"seed": 1}))
    out = capsys.readouterr().out
    for direction in ("forward", "backward"):
        row = row_of(out, f"extend {direction}: direction kept")
        # Over the four frames across the seam, a jump of 2 pixels is half a pixel a frame.
        assert float(re.search(r"median ([\d.]+)", row)[1]) == pytest.approx(0.5, abs=0.03)
        assert "after the VAE, 0.000 (0.000)" in row


def test_a_thing_that_vanishes_between_two_clips_is_noticed(monkeypatch, capsys):
    model = KnownModel(monkeypatch)
    real = model.connect

    def vanish(model, prompts, a, b, frames, **sampling):
        videos, last = real(model, prompts, a, b, frames, **sampling)
        # One frame of one clip, the last before the second clip begins, where different things are connected.
        if frames == 8:
            videos[0, 16] = GROUND
        return videos, last

    monkeypatch.setattr(evaluate, "connect", vanish)
    evaluate.score_connect(evaluate.ModeScorer(model, 4, 1, {"seed": 1}))
    out = capsys.readouterr().out
    assert scores(out)["connect different things: one to be seen in every frame"] == 75
    assert "ends kept: True" in out


def test_a_given_frame_that_is_not_kept_is_noticed(monkeypatch, capsys):
    model = KnownModel(monkeypatch)
    real = model.connect

    def touch(*arguments, **sampling):
        videos, last = real(*arguments, **sampling)
        videos[-1, -1, 0, 0] += 1
        return videos, last

    monkeypatch.setattr(evaluate, "connect", touch)
    evaluate.score_connect(evaluate.ModeScorer(model, 3, 1, {"seed": 1}))
    assert "ends kept: False" in capsys.readouterr().out


def test_different_things_are_connected(monkeypatch):
    model = KnownModel(monkeypatch)
    ends = []
    real = model.connect

    def watch(model, prompts, a, b, frames, **sampling):
        ends.append((a, b))
        return real(model, prompts, a, b, frames, **sampling)

    monkeypatch.setattr(evaluate, "connect", watch)
    evaluate.score_connect(evaluate.ModeScorer(model, 3, 1, {"seed": 1}))
    truth = model.truth(3, 25)
    a, b = ends[1]
    assert (a == truth[:, :9]).all()
    assert (b == truth[[2, 0, 1], 17:]).all()


def test_every_mode_passes_on_seed_and_sampling(monkeypatch, in_tmp):
    model = KnownModel(monkeypatch)
    evaluate.modes(model, 2, seed=7, steps=3, guidance=0.5, eta=1.0)
    modes = {mode.split()[0] for mode, _, _ in model.calls}
    assert modes == {"generate", "extend", "backward", "fill", "connect", "edit"}
    for _, _, sampling in model.calls:
        assert sampling == {"seed": 7, "steps": 3, "guidance": 0.5, "eta": 1.0}


def test_only_text_images_stills_and_edits_are_prompted(monkeypatch, in_tmp):
    model = KnownModel(monkeypatch)
    evaluate.modes(model, 2)
    prompted = [any(prompts) for mode, prompts, _ in model.calls if mode in ("extend", "backward")]
    assert prompted == [True, False, False, False]
    for mode, prompts, _ in model.calls:
        if mode in ("fill", "connect"):
            assert prompts == ["", ""]


def test_a_shape_that_training_never_showed_is_marked(monkeypatch, capsys):
    model = KnownModel(monkeypatch)
    model.config = Config(frames=25, lengths="17 25", sizes="32x32 24x40")
    evaluate.score_text_to_video(evaluate.ModeScorer(model, 1, 1, {"seed": 1}))
    out = capsys.readouterr().out
    trained = [line.split("  ")[0] for line in out.splitlines()[1:] if "never trained" not in line]
    assert trained == [f"{T} frames of {size}" for size in ("32x32", "24x40") for T in (17, 25)]


def test_a_minute_tells_later_windows_all_but_the_direction(monkeypatch, capsys):
    model = KnownModel(monkeypatch)
    evaluate.minute(model, 3, 6, steps=3)
    (_, prompts, sampling), = model.calls
    assert sampling == {"seed": 30_000, "steps": 3}
    for first, later, scene in zip(prompts, model.then, model.scenes, strict=True):
        thing = scene.things[0]
        assert first == f"a {thing.colour} {thing.shape} moving {thing.direction} {thing.speed}"
        assert later == f"a {thing.colour} {thing.shape} moving {thing.speed}"


def test_a_minute_of_the_world_itself_looks_and_moves_right(monkeypatch, capsys):
    evaluate.minute(KnownModel(monkeypatch), 3, 6)
    out = capsys.readouterr().out
    for title in ("looks the same", "moves right"):
        assert f"6 s, {title}: 100.0% of 18 seconds (100.0% to 100.0%); by tenth of the clip: 100%" in out


def test_seconds_are_averaged_over_clips_and_told_by_tenth(capsys):
    right = np.ones((4, 20), bool)
    right[:, 18:] = False
    right[0, :] = False
    evaluate.print_seconds("looks the same", right, 20)
    out = capsys.readouterr().out
    assert "20 s, looks the same: 67.5% of 80 seconds" in out
    assert out.split("clip: ")[1].split() == ["75%"] * 9 + ["0%"]


def test_the_interval_of_a_long_clip_draws_clips_and_not_seconds(capsys):
    # All seconds of a clip are alike, so n clips are n independent cases, however long they are.
    right = np.repeat(np.arange(40)[:, None] < 20, 30, axis=1)
    evaluate.print_seconds("moves right", right, 30)
    low, high = re.search(r"\(([\d.]+)% to ([\d.]+)%\)", capsys.readouterr().out).groups()
    expected_low, expected_high = evaluate.interval(0.5, 40)
    assert float(low) / 100 == pytest.approx(expected_low, abs=0.03)
    assert float(high) / 100 == pytest.approx(expected_high, abs=0.03)


# The VAE and the table


def test_the_vaes_videos_are_encoded_and_decoded_in_groups(model):
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 255, (18, 5, 8, 16, 3), np.uint8)
    found = evaluate.through_vae(model, videos)
    assert found.shape == videos.shape
    for i in (0, 17):
        mean, _ = model.vae.encode(to_float(videos[i : i + 1]))
        assert abs(found[i].astype(int) - to_uint8(model.vae.decode(mean))[0]).max() <= 1


def test_the_table_says_what_the_report_holds():
    numbers = dict(zip(("all", *ATTRIBUTES), (0.5, 0.6, 0.7, 0.8, 0.9), strict=True))
    ceiling = dict.fromkeys(numbers, 1.0)
    report = {"seen": numbers, "held_out": dict.fromkeys(numbers, 0.0), "ceiling": ceiling, "prompts": 100}
    report |= {"vae_psnr": {"1": 30.0, "5": 28.0}, "train_seconds": 90.0}
    head, seen, held_out, best, vae, time = evaluate.format_table(report).splitlines()
    assert head.split()[2:7] == ["all", "shape", "colour", "direction", "speed"]
    assert seen.split()[:6] == ["seen", "50.0%", "60.0%", "70.0%", "80.0%", "90.0%"]
    assert seen.endswith("40.4% to 59.6% of 100 prompts")
    assert held_out.split()[:3] == ["held", "out", "0.0%"]
    assert best.split()[:3] == ["reader's", "ceiling", "100.0%"]
    assert vae == "VAE, unseen clips: 30.0 dB (1 frame), 28.0 dB (5 frames)"
    assert time == "trained in 1.5 minutes"


def test_no_more_than_17_frames_are_asked_for():
    for frames, expected in ((9, 9), (17, 17), (25, 17)):
        config = Config(frames=frames, height=24, width=40)
        _, _, videos = evaluate.usual_clips(config, SEEN, 2, 5)
        assert videos.shape == (2, expected, 24, 40, 3)

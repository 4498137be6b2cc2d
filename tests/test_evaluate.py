"""Scores: what counts as right, how sure a share is, and that every row measures what its title says.

Most tests score a model that makes no mistake, or one known mistake, and look at what the rows say."""
from config import Config

import functools
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import evaluate
from data.video_io import film_strip, to_float
from utils.checkpoint import SHIPPED, describe_model, load_model
from world import reader
from world.captions import vocab as captions_vocab
from world.reader import ATTRIBUTES, read
from world.scenes import COMBINATIONS, HELD_OUT, SEEN, Scene, Thing, draw_rich_scene, draw_scene, render

SAMPLING = {"steps": 7, "guidance": 2.5, "eta": 0.75, "seed": 3}
REAL_WORLD_CLIPS = evaluate.world_clips


@functools.cache
def read_content(content, shape, fps):
    return read(np.frombuffer(content, np.uint8).reshape(shape), fps)


def read_once(video, fps=12.0):
    """world.reader.read, which most tests here would ask for the same clips again and again."""
    return read_content(video.tobytes(), video.shape, fps)


class Artist:
    """A model that makes no mistake: it shows the world's own clips. `spoil` adds one to all its videos."""

    def __init__(self):
        self.calls = []
        self.spoil = None

    def remember(self, name, prompts, video, **told):
        self.calls.append(SimpleNamespace(name=name, prompts=prompts, **told))
        if self.spoil is not None:
            video = self.spoil(video.copy())
        return video

    def world_clips(self, *drawn):
        self.drawn = drawn
        self.combinations, self.captions, self.truth = REAL_WORLD_CLIPS(*drawn)
        return self.combinations, self.captions, self.truth

    def generate(self, model, prompts, frames, height, width, **told):
        pool, n, seed, _, _, _, *rest = self.drawn
        _, _, video = REAL_WORLD_CLIPS(pool, n, seed, frames, height, width, *rest)
        return self.remember("generate", prompts, video, size=(frames, height, width), **told)

    def extend(self, model, prompts, video, frames, backward=False, **told):
        known = self.truth[:, frames:] if backward else self.truth[:, :-frames]
        assert np.array_equal(video, known)
        return self.remember("extend", prompts, self.truth, backward=backward, **told)

    def fill(self, model, prompts, video, first, last, **told):
        return self.remember("fill", prompts, self.truth, gap=(first, last), **told), last

    def connect(self, model, prompts, a, b, frames, **told):
        last = a.shape[1] + frames
        video = np.concatenate([a, self.truth[:, a.shape[1] : last], b], 1)
        return self.remember("connect", prompts, video, **told), last - 1

    def complete(self, model, prompts, video, known, strength, **told):
        assert np.array_equal(video, self.truth)
        assert known.all()
        assert len(known) == video.shape[1]
        pool, *drawn = self.drawn
        blue_pool = [(shape, "blue", direction, speed) for shape, _, direction, speed in pool]
        _, _, blue = REAL_WORLD_CLIPS(blue_pool, *drawn)
        return self.remember("complete", prompts, blue, strength=strength, **told)


@pytest.fixture
def artist(monkeypatch):
    artist = Artist()
    for name in ("world_clips", "generate", "extend", "fill", "connect", "complete"):
        monkeypatch.setattr(evaluate, name, getattr(artist, name))
    monkeypatch.setattr(evaluate, "through_vae", lambda model, videos: videos)
    for module in (evaluate, reader):
        monkeypatch.setattr(module, "read", read_once)
    return artist


@pytest.fixture
def score_rows(artist, capsys):
    """score_rows(score_mode, n) → {title: (share, number of cases, note)} of the rows that a mode prints."""
    def score(score_mode, n=3, config=None):
        model = SimpleNamespace(config=config or Config(frames=25))
        score_mode(evaluate.ModeScorer(model, n, 20_000, SAMPLING))
        rows = {}
        pattern = r"(.{58}) *([\d.]+)%   ([\d.]+)% to ([\d.]+)% of (\d+)   (.*)"
        for title, share, _, _, cases, note in re.findall(pattern, capsys.readouterr().out):
            rows[title.strip()] = (float(share) / 100, int(cases), note)
        return rows

    return score


def shares(rows):
    return [share for share, _, _ in rows.values()]


# --- One share --------------------------------------------------------------------------------------------


def test_a_wrong_attribute_costs_that_attribute_and_all():
    shown = ("circle", "red", "left", "slowly")
    asked = ("circle", "red", "left", "quickly")
    video = render(draw_scene(np.random.default_rng(3), shown))
    found = evaluate.attribute_shares([video, video], [asked, shown], fps=12.0)
    assert found == {"all": 0.5, "shape": 1, "colour": 1, "direction": 1, "speed": 0.5}


def test_speed_is_read_at_the_frame_rate_of_the_videos():
    shown = ("circle", "red", "left", "slowly")
    video = render(draw_scene(np.random.default_rng(3), shown), fps=24.0)
    assert evaluate.attribute_shares([video], [shown], fps=24.0)["speed"] == 1
    assert evaluate.attribute_shares([video], [shown], fps=12.0)["speed"] == 0


def test_wilsons_interval_is_the_published_one():
    assert evaluate.interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=2e-3)  # Newcombe 1998, table I


@pytest.mark.parametrize("share, n", [(0.5, 100), (0.9, 40), (0.0, 12), (1.0, 256)])
def test_the_ends_of_an_interval_are_196_standard_errors_of_theirs_away(share, n):
    for end in evaluate.interval(share, n):
        assert abs(share - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / n), abs=1e-9)


# --- Clips to compare with --------------------------------------------------------------------------------


def test_every_combination_of_a_pool_is_as_frequent_as_the_others():
    combinations, captions, videos = evaluate.world_clips(HELD_OUT, 2 * len(HELD_OUT), 5, 5, 8, 16, 12.0)
    assert all(combinations.count(combination) == 2 for combination in HELD_OUT)
    assert videos.shape == (2 * len(HELD_OUT), 5, 8, 16, 3)
    for combination, caption in zip(combinations, captions, strict=True):
        assert all(word in caption for word in combination)


def test_a_few_clips_are_not_always_of_the_pools_first_combinations():
    first, _, _ = evaluate.world_clips(SEEN, 6, 5, 1, 8, 16, 12.0)
    second, _, _ = evaluate.world_clips(SEEN, 6, 6, 1, 8, 16, 12.0)
    assert first != second


def test_clips_of_one_combination_begin_in_different_places():
    _, _, videos = evaluate.world_clips(SEEN[:1], 6, 5, 1, 24, 40, 12.0)
    assert len({video.tobytes() for video in videos}) == 6


def test_clips_show_what_their_captions_say_at_any_size():
    for height, width in ((24, 40), (40, 24)):
        combinations, _, videos = evaluate.world_clips(SEEN, 12, 5, 17, height, width, 12.0)
        assert evaluate.attribute_shares(videos, combinations, 12.0)["all"] == 1


def test_half_the_frame_rate_shows_every_second_frame():
    _, _, at_12 = evaluate.world_clips(SEEN, 3, 5, 17, 24, 40, 12.0)
    _, _, at_6 = evaluate.world_clips(SEEN, 3, 5, 9, 24, 40, 6.0)
    assert (at_6 == at_12[:, ::2]).all()


@pytest.mark.parametrize("frames, expected", [(9, 9), (17, 17), (25, 17)])
def test_the_usual_clips_are_the_configs_and_no_longer_than_17_frames(frames, expected):
    config = Config(frames=frames, height=24, width=40, fps=6.0)
    _, _, videos = evaluate.usual_clips(config, SEEN, 2, 5)
    assert videos.shape == (2, expected, 24, 40, 3)
    assert (videos == evaluate.world_clips(SEEN, 2, 5, expected, 24, 40, 6.0)[2]).all()


# --- The VAE ----------------------------------------------------------------------------------------------


def test_through_the_vae_means_encoded_and_decoded_in_groups_too(model):
    videos = np.random.default_rng(0).integers(0, 256, (18, 5, 8, 16, 3), np.uint8)
    together = evaluate.through_vae(model, videos)
    assert together.shape == videos.shape
    for i in (0, 8, 9, 17):
        latents, _ = model.vae.encode(evaluate.to_float(videos[i : i + 1]))
        alone = evaluate.to_uint8(model.vae.decode(latents))[0]
        assert abs(together[i].astype(int) - alone).max() <= 1


def test_an_error_of_one_grey_is_48_decibels(monkeypatch):
    videos = np.full((2, 5, 8, 16, 3), 100, np.uint8)
    monkeypatch.setattr(evaluate, "through_vae", lambda model, videos: videos + 1)
    assert evaluate.reconstruction_psnr(None, videos) == pytest.approx(20 * np.log10(255))


def test_the_vae_is_measured_on_64_clips_of_the_length_asked_for(monkeypatch):
    measured = []

    def remember(model, videos):
        measured.append(videos)
        return 33.0

    monkeypatch.setattr(evaluate, "reconstruction_psnr", remember)
    model = SimpleNamespace(config=Config(height=24, width=40, fps=6.0))
    assert evaluate.vae_psnr(model, 5) == 33
    assert evaluate.vae_psnr(model, 9) == 33
    short, long = measured
    assert short.shape == (64, 5, 24, 40, 3)
    assert long.shape == (64, 9, 24, 40, 3)
    assert (short != long[:, :5]).any()  # other clips for every length
    assert len({video.tobytes() for video in short}) == 64


# --- The usual report -------------------------------------------------------------------------------------


@pytest.fixture
def small_report(artist, monkeypatch):
    """small_report(**sampling) → evaluate.score of the artist, without the VAE."""
    monkeypatch.setattr(evaluate, "vae_psnr", lambda model, frames: 30.0 + frames)
    config = Config(frames=25, height=24, width=40)
    model = SimpleNamespace(config=config, train_seconds=90.0)

    def report(**told):
        return evaluate.score(model, prompts=20, **told)

    return report


def sentences(pool):
    return {f"a {colour} {shape} moving {direction} {speed}" for shape, colour, direction, speed in pool}


def test_held_out_is_scored_on_held_out_prompts_and_seen_on_seen_ones(small_report, artist):
    small_report()
    seen, held_out = artist.calls
    assert len(seen.prompts) == len(held_out.prompts) == 20
    assert set(seen.prompts) <= sentences(SEEN)
    assert set(held_out.prompts) <= sentences(HELD_OUT)


def test_seen_and_held_out_begin_with_different_noise(small_report, artist):
    small_report()
    seen, held_out = artist.calls
    assert abs(seen.seed - held_out.seed) >= 20


def test_the_report_is_sampled_as_told_at_the_configs_size(small_report, artist):
    small_report(steps=7, guidance=2.5, eta=0.75)
    for call in artist.calls:
        assert (call.steps, call.guidance, call.eta) == (7, 2.5, 0.75)
        assert call.size == (17, 24, 40)


def test_a_model_that_makes_no_mistake_scores_as_the_ceiling(small_report):
    report = small_report()
    assert report["seen"] == report["held_out"] == report["ceiling"] == dict.fromkeys(("all", *ATTRIBUTES), 1)


def test_a_model_that_shows_nothing_scores_0_and_the_ceiling_stays(small_report, artist):
    artist.spoil = np.zeros_like
    report = small_report()
    assert report["seen"]["all"] == report["held_out"]["all"] == 0
    assert report["ceiling"]["all"] == 1


def test_the_report_holds_the_vae_the_time_and_the_number_of_prompts(small_report):
    report = small_report()
    assert report["vae_psnr"] == {"1": 31, "5": 35, "17": 47, "33": 63}
    assert report["train_seconds"] == 90
    assert report["prompts"] == 20


def test_the_table_says_what_the_report_holds():
    def row(share):
        return {"all": share, "shape": 0.91, "colour": 0.92, "direction": 0.93, "speed": 0.94}

    report = {
        "seen": row(0.5),
        "held_out": row(0.25),
        "ceiling": row(1.0),
        "vae_psnr": {"1": 31.25, "5": 35.0},
        "train_seconds": 90.0,
        "prompts": 100,
    }
    titles, seen, held_out, ceiling, vae, trained = evaluate.format_table(report).splitlines()
    assert titles.split()[2:7] == ["all", "shape", "colour", "direction", "speed"]
    assert re.match(r"seen +50.0% +91.0% +92.0% +93.0% +94.0%   40.4% to 59.6% of 100 prompts$", seen)
    assert re.match(r"held out +25.0% .* 17.5% to 34.3% of 100 prompts$", held_out)
    assert re.match(r"reader's ceiling +100.0% .* 96.3% to 100.0% of 100 prompts$", ceiling)
    assert vae == "VAE, unseen clips: 31.2 dB (1 frame), 35.0 dB (5 frames)"
    assert trained == "trained in 1.5 minutes"


# --- Every mode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score_mode", evaluate.MODES)
def test_a_model_that_makes_no_mistake_is_right_in_every_row(score_rows, score_mode):
    rows = score_rows(score_mode)
    assert shares(rows) == [1] * len(rows)
    assert all(cases == 3 for _, cases, _ in rows.values())


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("score_mode", evaluate.MODES)
def test_a_model_that_shows_nothing_is_right_in_no_row(score_rows, artist, score_mode):
    artist.spoil = np.zeros_like
    rows = score_rows(score_mode)
    for title, (share, _, _) in rows.items():
        # Black is not the ground's colour, so something is there in every frame of a connection.
        assert share == ("different things" in title)


@pytest.mark.parametrize("score_mode", evaluate.MODES)
def test_every_mode_is_sampled_as_told(score_rows, artist, score_mode):
    score_rows(score_mode)
    for call in artist.calls:
        assert {name: getattr(call, name) for name in SAMPLING} == SAMPLING


@pytest.mark.filterwarnings("ignore:invalid value")
def test_one_wrong_case_of_four_is_a_quarter_and_its_interval_is_of_four(score_rows, artist, capsys):
    def spoil(videos):
        videos[2] = 0
        return videos

    artist.spoil = spoil
    model = SimpleNamespace(config=Config(frames=25))
    evaluate.score_fill(evaluate.ModeScorer(model, 4, 20_000, SAMPLING))
    assert " 75.0%   30.1% to 95.4% of 4   " in capsys.readouterr().out


def test_text_to_video_is_asked_for_in_three_lengths_of_three_shapes_and_a_new_size(score_rows, artist):
    rows = score_rows(evaluate.score_text_to_video)
    sizes = [call.size for call in artist.calls]
    expected = []
    for height, width in ((32, 32), (24, 40), (40, 24)):
        for frames in (17, 21, 25):
            expected.append((frames, height, width))
    assert sizes == [*expected, (17, 32, 48)]
    for title, (frames, height, width) in zip(rows, sizes, strict=True):
        assert title.startswith(f"{frames} frames of {height}x{width}")


def test_text_to_video_is_asked_for_in_captions_of_seen_combinations(score_rows, artist):
    score_rows(evaluate.score_text_to_video)
    for call in artist.calls:
        assert set(call.prompts) <= sentences(SEEN)
    assert artist.calls[-1].prompts == artist.captions


def test_what_was_never_trained_is_marked(score_rows):
    config = Config(frames=25, lengths="17 25", sizes="32x32 24x40")
    titles = list(score_rows(evaluate.score_text_to_video, n=1, config=config))
    trained = [title for title in titles if not title.endswith("(never trained)")]
    assert trained == ["17 frames of 32x32", "25 frames of 32x32", "17 frames of 24x40", "25 frames of 24x40"]


def test_text_to_video_says_which_attribute_is_wrong_and_the_readers_ceiling(score_rows, artist):
    artist.spoil = lambda videos: videos[:, :1].repeat(videos.shape[1], 1)  # nothing moves
    rows = score_rows(evaluate.score_text_to_video)
    for _, _, note in rows.values():
        assert note == "100.0% / 100.0% / 0.0% / 0.0%, 100.0%"


def test_the_ceiling_told_is_that_of_the_attribute_which_is_hardest_to_read(score_rows, artist, monkeypatch):
    def world_that_stands_still(*drawn):
        combinations, captions, truth = artist.world_clips(*drawn)
        return combinations, captions, truth[:, :1].repeat(truth.shape[1], 1)

    monkeypatch.setattr(evaluate, "world_clips", world_that_stands_still)
    rows = score_rows(evaluate.score_text_to_video)
    for _, _, note in rows.values():
        assert note == "100.0% / 100.0% / 100.0% / 100.0%, 0.0%"


def test_images_are_asked_for_without_motion(score_rows, artist):
    rows = score_rows(evaluate.score_images)
    wanted = [f"a {colour} {shape}" for shape, colour, _, _ in artist.combinations]
    assert artist.calls[0].prompts == wanted
    assert artist.calls[0].size == (1, 32, 32)
    assert rows["images, 32x32"][2] == "reader on the world's own 100.0%"


def test_an_image_of_another_thing_is_wrong(score_rows, artist):
    artist.spoil = lambda images: np.roll(images, 1, 0)
    rows = score_rows(evaluate.score_images)
    assert rows["images, 32x32"][0] == 0
    assert rows["images, 32x32"][2] == "reader on the world's own 100.0%"


def test_a_still_is_animated_with_its_prompt_and_then_without(score_rows, artist):
    score_rows(evaluate.score_animate)
    with_prompt, without = artist.calls
    assert with_prompt.prompts == artist.captions
    assert without.prompts == [""] * 3


def test_a_still_that_goes_the_wrong_way_is_not_as_prompted_but_has_a_trained_speed(score_rows, artist):
    artist.spoil = lambda videos: videos[:, ::-1]
    prompted, unprompted = score_rows(evaluate.score_animate).values()
    assert prompted[0] == 0
    assert "the still comes back: False" in prompted[2]
    assert unprompted[0] == 1


def test_a_still_that_does_not_move_has_no_trained_speed(score_rows, artist):
    artist.spoil = lambda videos: videos[:, :1].repeat(videos.shape[1], 1)
    prompted, unprompted = score_rows(evaluate.score_animate).values()
    assert prompted[0] == 0
    assert "the still comes back: True" in prompted[2]
    assert unprompted[0] == 0


def test_the_vaes_picture_of_the_still_is_measured_on_the_still(score_rows, artist, monkeypatch):
    def through_vae(model, videos):
        assert videos.shape == (3, 1, 32, 32, 3)
        return np.where(videos < 255, videos + 1, videos - 1).astype(np.uint8)

    monkeypatch.setattr(evaluate, "through_vae", through_vae)
    prompted, _ = score_rows(evaluate.score_animate).values()
    assert "the VAE's own picture of it 48.1 dB" in prompted[2]


def shift(videos, pixels, frames):
    """Things in these frames are shown further to the right, or left where there is no room."""
    for video in videos:
        clear = (abs(video.astype(int) - video[0, 0, 0]).sum(-1) > 60).any(axis=(0, 1))
        room = len(clear) - 1 - int(np.flatnonzero(clear)[-1])
        step = pixels if room >= pixels else -pixels
        video[frames] = np.roll(video[frames], step, 2)
    return videos


NEAR_ROWS = [
    (evaluate.score_extend, "extend forward by 1 s: the same thing, within 2 px", slice(13, 25)),
    (evaluate.score_extend, "extend backward by 1 s: the same thing, within 2 px", slice(0, 12)),
    (evaluate.score_fill, "fill in the middle third: the same thing, within 2 px", slice(9, 17)),
    (evaluate.score_connect, "connect two clips of a thing: the same, within 2 px", slice(5, 17)),
    (evaluate.score_edit, "edit red to blue, strength 0.7: blue, within 2 px", slice(0, 17)),
]


@pytest.mark.parametrize("score_mode, title, new", NEAR_ROWS)
def test_a_path_one_pixel_off_is_right_and_one_three_pixels_off_is_wrong(
    score_rows, artist, score_mode, title, new
):
    artist.spoil = lambda videos: shift(videos, 1, new)
    share, _, note = score_rows(score_mode)[title]
    assert share == 1
    assert note.startswith("median 1.00 px, 95 % below 1.0")
    artist.spoil = lambda videos: shift(videos, 3, new)
    assert score_rows(score_mode)[title][0] == 0


@pytest.mark.parametrize("score_mode, title, new", NEAR_ROWS[:4])
def test_a_path_of_another_colour_is_wrong(score_rows, artist, score_mode, title, new):
    artist.spoil = lambda videos: 255 - videos[..., ::-1]
    assert score_rows(score_mode)[title][0] == 0


@pytest.mark.parametrize("score_mode, title, new", NEAR_ROWS[:4])
def test_a_path_is_measured_where_it_is_new(score_rows, artist, score_mode, title, new):
    def spoil(videos):
        given = np.delete(np.arange(25), new)
        return shift(videos, 3, given)

    artist.spoil = spoil
    assert score_rows(score_mode)[title][2].startswith("median 0.0")


@pytest.mark.parametrize("score_mode, title, new", NEAR_ROWS)
def test_a_path_is_measured_from_the_first_new_frame_to_the_last(score_rows, artist, score_mode, title, new):
    for frame in (new.start, new.stop - 1):
        artist.spoil = lambda videos, frame=frame: shift(videos, 3, [frame])
        median = float(score_rows(score_mode)[title][2].split()[1])
        assert median == pytest.approx(3 / (new.stop - new.start), abs=0.02)


def test_forward_a_second_is_given_and_backward_too(score_rows, artist):
    score_rows(evaluate.score_extend)
    assert [call.backward for call in artist.calls] == [False, True]
    assert all(call.prompts == [""] * 3 for call in artist.calls)


def velocity_errors(rows, direction):
    """How far the velocity at the seam is off, on average, and how far the VAE alone would bring it off."""
    note = rows[f"extend {direction}: direction kept at the seam"][2]
    return [float(number) for number in re.findall(r"(?:off by|after the VAE,) ([\d.]+)", note)]


@pytest.mark.parametrize("direction, last, beyond", [("forward", 15, 16), ("backward", 10, 9)])
def test_the_velocity_at_the_seam_is_over_five_frames_around_it(
    score_rows, artist, direction, last, beyond
):
    toward_seam = -1 if direction == "forward" else 1

    def freeze(frame):
        def spoil(videos):
            videos[:, frame] = videos[:, frame + toward_seam]
            return videos
        return spoil

    artist.spoil = freeze(beyond)
    assert velocity_errors(score_rows(evaluate.score_extend), direction)[0] == 0
    artist.spoil = freeze(last)
    assert velocity_errors(score_rows(evaluate.score_extend), direction)[0] > 0.05


def test_a_thing_that_turns_at_the_seam_is_wrong_there(score_rows, artist):
    def turn_back(videos):
        # The new frames next to the seam show what the given ones show, away from it, at twice the speed.
        for step in range(1, 13):
            away = min(2 * step, 12)
            if artist.calls[-1].backward:
                videos[:, 12 - step] = artist.truth[:, 12 + away]
            else:
                videos[:, 12 + step] = artist.truth[:, 12 - away]
        return videos

    artist.spoil = turn_back
    rows = score_rows(evaluate.score_extend)
    assert rows["extend forward: direction kept at the seam"][0] == 0
    assert rows["extend backward: direction kept at the seam"][0] == 0


@pytest.mark.parametrize("direction, new", [("forward", slice(13, 25)), ("backward", slice(0, 12))])
def test_the_floor_is_the_truth_with_its_new_frames_through_the_vae(
    score_rows, artist, monkeypatch, direction, new
):
    given = np.delete(np.arange(25), new)

    def spoil_frames(frames):
        def through_vae(model, videos):
            return shift(videos.copy(), 2, frames)
        return through_vae

    monkeypatch.setattr(evaluate, "through_vae", spoil_frames(given))
    assert velocity_errors(score_rows(evaluate.score_extend), direction) == [0, 0]
    monkeypatch.setattr(evaluate, "through_vae", spoil_frames(new))
    assert velocity_errors(score_rows(evaluate.score_extend), direction) == [0, 0.5]


def test_the_middle_third_is_filled_in_without_a_prompt(score_rows, artist):
    score_rows(evaluate.score_fill)
    assert artist.calls[0].gap == (9, 16)
    assert artist.truth.shape == (3, 25, 32, 32, 3)
    assert artist.calls[0].prompts == [""] * 3


def test_two_clips_of_one_thing_are_connected_and_then_of_different_things(score_rows, artist, monkeypatch):
    given = []

    def connect(model, prompts, a, b, frames, **told):
        given.append((a, b, frames, prompts))
        return artist.connect(model, prompts, a, b, frames, **told)

    monkeypatch.setattr(evaluate, "connect", connect)
    score_rows(evaluate.score_connect)
    (a, b, frames, prompts), (c, d, other_frames, other_prompts) = given
    truth = artist.truth
    assert prompts == other_prompts == [""] * 3
    assert (a == truth[:, :5]).all()
    assert (b == truth[:, 17:]).all()
    assert frames == 12
    assert (c == truth[:, :9]).all()
    assert all(read(left)["colour"] != read(right)["colour"] for left, right in zip(c, d, strict=True))
    assert d.shape[1] == 8
    assert other_frames == 8


DIFFERENT = "connect different things: one to be seen in every frame"


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("frame", [9, 16])
def test_between_different_things_one_empty_frame_is_wrong(score_rows, artist, frame):
    def spoil(videos):
        videos[:, frame] = videos[0, 0, 0, 0]
        return videos

    artist.spoil = spoil
    share, _, note = score_rows(evaluate.score_connect)[DIFFERENT]
    assert share == 0
    assert note == "ends kept: True"


@pytest.mark.parametrize("gone, share", [(0.4, 1), (0.6, 0)])
def test_between_different_things_half_of_the_smaller_has_to_be_seen(score_rows, artist, gone, share):
    def spoil(videos):
        for video in videos:
            ground = video[0, 0, 0]
            distance = np.linalg.norm(video.astype(np.float32) - ground, axis=-1)
            smaller = (distance[[8, 17]] > 60).sum(axis=(1, 2)).min()
            rows, columns = np.nonzero(distance[12] > 60)
            erased = len(rows) - round((1 - gone) * smaller)
            video[12, rows[:erased], columns[:erased]] = ground
        return videos

    artist.spoil = spoil
    assert score_rows(evaluate.score_connect)[DIFFERENT][0] == share


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("frame", [0, 8, 17, 24])
def test_between_different_things_both_ends_have_to_be_kept(score_rows, artist, frame):
    def spoil(videos):
        videos[:, frame] = videos[0, 0, 0, 0]
        return videos

    artist.spoil = spoil
    share, _, note = score_rows(evaluate.score_connect)[DIFFERENT]
    assert share == 1  # which is about the new frames
    assert note == "ends kept: False"


def test_red_is_edited_to_blue_at_rising_strengths(score_rows, artist):
    score_rows(evaluate.score_edit)
    strengths = [call.strength for call in artist.calls]
    assert strengths == sorted(set(strengths))
    assert 0 < strengths[0] < strengths[-1] <= 1
    assert len(strengths) == 6
    for call in artist.calls:
        assert set(call.prompts) <= sentences(COMBINATIONS)
        assert call.prompts == [caption.replace("red", "blue") for caption in artist.captions]
    assert all(colour == "red" for _, colour, _, _ in artist.combinations)


def test_an_edit_that_stays_red_is_wrong(score_rows, artist):
    artist.spoil = lambda videos: artist.truth
    assert shares(score_rows(evaluate.score_edit)) == [0] * 6


def test_the_picture_shows_of_every_mode_which_frames_were_given(artist):
    scorer = evaluate.ModeScorer(SimpleNamespace(config=Config(frames=25)), 2, 20_000, SAMPLING)
    for score_mode in evaluate.MODES:
        score_mode(scorer)
    captions, videos, given = zip(*scorer.examples, strict=True)
    masks = ["".join("g" if is_given else "i" for is_given in frames) for frames in given]
    assert masks == [
        "g" + 16 * "i",
        13 * "g" + 12 * "i",
        12 * "i" + 13 * "g",
        9 * "g" + 8 * "i" + 8 * "g",
        9 * "g" + 8 * "i" + 8 * "g",
        17 * "g",
        *[17 * "i"] * 6,
    ]
    assert [len(video) for video in videos] == [len(mask) for mask in masks]

    # The clip to edit stands above its edits, and what was asked for is said.
    assert np.array_equal(videos[5], artist.truth[0])
    assert captions[5] == f"a clip to edit: {artist.captions[0]}"
    assert captions[6] == f"edited with strength 0.5: {artist.captions[0].replace('red', 'blue')}"
    assert len(set(captions)) == len(captions)


def test_all_modes_are_scored_and_their_first_cases_are_one_picture(model, monkeypatch, tmp_path, capsys):
    def score_mode(grey):
        def score(scorer):
            examples = np.full((2, 12, 4, 6, 3), grey, np.uint8)
            examples[1] = 0
            scorer.row("a mode", [True, False])
            scorer.row("another row", [True, False])
            scorer.show(f"grey {grey}", examples, given=np.arange(12) < 6)
            told.append((scorer.model, scorer.n, scorer.seed, scorer.sampling))
        return score

    told = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(evaluate, "MODES", [score_mode(50), score_mode(150)])
    monkeypatch.setattr(evaluate, "score_uniform_motion", lambda scorer: None)
    evaluate.modes(model, 2, steps=7)

    videos = [np.full((12, 4, 6, 3), grey, np.uint8) for grey in (50, 150)]
    given = [np.arange(12) < 6] * 2
    expected = film_strip(videos, ["grey 50", "grey 150"], columns=9, given=given)
    assert (iio.imread("out/modes.png") == expected).all()
    assert capsys.readouterr().out.count(" of 2 ") == 4
    for its_model, n, seed, sampling in told:
        assert its_model is model
        assert n == 2
        assert sampling == {"seed": seed, "steps": 7}


# --- A ball in uniform motion -----------------------------------------------------------------------------


@pytest.mark.parametrize("speed", evaluate.BALL_SPEEDS)
def test_the_reader_finds_the_velocity_of_a_ball_of_any_speed(speed):
    clip, velocity = evaluate.draw_ball(np.random.default_rng(3), speed, 25, 24, 40, 12.0)
    assert np.linalg.norm(velocity) == pytest.approx(speed * 24 / 12)
    assert velocity[1] == 0
    for off in ((0.0, 0.0), (0.3, -0.4)):
        error = evaluate.velocity_errors([clip], [velocity + off], slice(9, 25))
        assert error[0] == pytest.approx(np.hypot(*off), abs=0.005)


def test_a_ball_that_stops_is_wrong_by_its_whole_velocity(monkeypatch):
    def stop(model, prompts, video, frames, **sampling):
        return np.concatenate([video, video[:, -1:].repeat(frames, 1)], 1)

    monkeypatch.setattr(evaluate, "extend", stop)
    scorer = evaluate.ModeScorer(SimpleNamespace(config=Config(frames=25)), 2, 0, SAMPLING)
    evaluate.score_uniform_motion(scorer)
    assert len(scorer.rows) == len(evaluate.BALL_SPEEDS)
    for row, speed in zip(scorer.rows.values(), evaluate.BALL_SPEEDS, strict=True):
        assert row["error"] == pytest.approx(10 * speed, abs=0.02)
        assert row["n"] == 2


# --- A minute ---------------------------------------------------------------------------------------------


def score_minute(capsys, n=3, seconds=12, **sampling):
    """Scores n long videos → their lines: looks, moves, drift."""
    capsys.readouterr()
    evaluate.minute(SimpleNamespace(config=Config()), n, seconds, **sampling)
    return capsys.readouterr().out.splitlines()


def test_a_long_video_without_mistakes_is_right_in_every_second(artist, capsys):
    looks, moves, drift = score_minute(capsys)
    assert looks.startswith("12 s, looks the same: 100.0% of 36 seconds (100.0% to 100.0%)")
    assert moves.startswith("12 s, moves right: 100.0% of 36 seconds (100.0% to 100.0%)")
    assert drift.startswith("12 s, brightness drifts by 0.")


def test_a_long_video_is_asked_for_without_the_direction_in_later_windows(artist, capsys):
    score_minute(capsys, steps=7)
    call = artist.calls[0]
    assert call.prompts == artist.captions
    for then, (shape, colour, _, speed) in zip(call.then, artist.combinations, strict=True):
        assert then == f"a {colour} {shape} moving {speed}"
    assert call.steps == 7
    assert call.progress
    assert set(call.prompts) <= sentences(SEEN)


def test_a_long_video_is_at_least_as_long_as_asked(artist, capsys):
    for seconds in (5, 7, 8):
        score_minute(capsys, n=1, seconds=seconds)
        frames, height, width = artist.calls[-1].size
        assert 0 <= frames - 12 * seconds < 4
        assert frames % 4 == 1
        assert (height, width) == (32, 32)


FROM_THEN_ON = "by tenth of the clip: 100% 100% 100% 100% 100% 0% 0% 0% 0% 0%"


def test_a_long_video_that_becomes_another_thing_looks_wrong_from_then_on(artist, capsys):
    def spoil(videos):
        videos[:, 63:] = np.roll(videos[:, 63:], 1, 0)
        return videos

    artist.spoil = spoil
    looks, _, _ = score_minute(capsys, seconds=10)
    assert looks.startswith("10 s, looks the same: 50.0% of 30 seconds (50.0% to 50.0%)")
    assert looks.endswith(FROM_THEN_ON)


def test_a_long_video_that_stops_moves_wrongly_from_then_on(artist, capsys):
    def spoil(videos):
        videos[:, 63:] = videos[:, 62:63]
        return videos

    artist.spoil = spoil
    looks, moves, _ = score_minute(capsys, seconds=10)
    assert looks.startswith("10 s, looks the same: 100.0%")
    assert moves.startswith("10 s, moves right: 50.0% of 30 seconds (50.0% to 50.0%)")
    assert moves.endswith(FROM_THEN_ON)


def test_of_the_drifts_of_brightness_the_mean_and_the_largest_are_told(artist, capsys):
    def spoil(videos):
        videos[0, 60:] //= 2
        return videos

    artist.spoil = spoil
    _, _, drift = score_minute(capsys, n=2, seconds=10)
    mean, largest = re.search(r"drifts by ([\d.]+)% \(95 % of clips below ([\d.]+)%\)", drift).groups()
    assert float(mean) == pytest.approx(25, abs=2)
    assert float(largest) == pytest.approx(47.5, abs=2)  # 95 % of the way from the one to the other


def test_the_time_it_takes_is_told_per_second_of_a_video(artist, capsys, monkeypatch):
    clock = iter([100.0, 160.0])
    monkeypatch.setattr(evaluate.time, "time", lambda: next(clock))
    _, _, last_line = score_minute(capsys, n=2, seconds=10)
    assert last_line.endswith("; 3.000 s of computing per second of video")


def test_clips_that_are_alike_have_a_narrow_interval_and_others_a_wide_one(capsys):
    alike = np.tile([True, False], (8, 5))
    evaluate.print_seconds("alike", alike, 10)
    different = np.repeat([[True], [False]], 4, 0).repeat(10, 1)
    evaluate.print_seconds("different", different, 10)

    narrow, wide = capsys.readouterr().out.splitlines()
    assert narrow.startswith("10 s, alike: 50.0% of 80 seconds (50.0% to 50.0%)")
    low, high = re.search(r"50.0% of 80 seconds \(([\d.]+)% to ([\d.]+)%\)", wide).groups()
    # Of 8 clips that are right or wrong as a whole: 1.96 standard errors are 35 %.
    assert float(low) == pytest.approx(50 - 35, abs=5)
    assert float(high) == pytest.approx(50 + 35, abs=5)


@pytest.mark.parametrize("seconds, parts", [(4, 4), (10, 10), (60, 10)])
def test_a_clip_is_told_in_ten_parts_or_in_seconds(capsys, seconds, parts):
    right = np.zeros((2, seconds), bool)
    right[:, : seconds // 2] = True
    evaluate.print_seconds("half", right, seconds)
    told = capsys.readouterr().out.split("by tenth of the clip: ")[1].split()
    assert told == ["100%"] * (parts // 2) + ["0%"] * (parts // 2)


# --- The command ------------------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch):
    """What main calls, instead of scoring: (name, model, the other arguments)."""
    calls = []

    def remember(name):
        def call(model, *args, **sampling):
            calls.append((name, model, args, sampling))
            return {"a": 1}
        return call

    for name in ("score", "modes", "minute"):
        monkeypatch.setattr(evaluate, name, remember(name))
    monkeypatch.setattr(evaluate, "format_table", lambda report: "the table")
    return calls


@pytest.mark.parametrize(
    "words, name, args",
    [([], "score", (6,)), (["--modes"], "modes", (6,)), (["--minute", 30], "minute", (6, 30))],
)
def test_the_command_scores_what_it_is_asked_for_and_as_told(command, checkpoint, scores, words, name, args):
    told = ["--prompts", 6, "--steps", 7, "--guidance", 2.5, "--sampler", "ddpm", "--device", "cpu"]
    code, _, err = command(evaluate, "--checkpoint", checkpoint, *told, *words)
    assert code == 0, err
    assert len(scores) == 1
    assert scores[0][0] == name
    assert scores[0][1].checkpoint_hash == load_model(checkpoint).checkpoint_hash
    assert scores[0][2] == args
    assert scores[0][3] == {"steps": 7, "guidance": 2.5, "eta": 1}


def test_without_flags_256_prompts_of_the_shipped_model_are_scored(command, scores, tmp_path, copy_of_run):
    copy_of_run(tmp_path / "out/tiny/model.pt")
    code, out, err = command(evaluate, "--device", "cpu")
    assert code == 0, err
    assert out == f"model: {describe_model(load_model(SHIPPED))}\nthe table\n"
    assert scores[0][2] == (256,)
    assert scores[0][3] == {"steps": None, "guidance": None, "eta": 1}


def test_the_model_is_loaded_to_the_device_asked_for(command, checkpoint, scores, monkeypatch):
    monkeypatch.setattr(evaluate, "pick_device", {"cuda": "meta"}.get)
    code, _, err = command(evaluate, "--checkpoint", checkpoint, "--device", "cuda")
    assert code == 0, err
    assert scores[0][1].latent_scale.device.type == "meta"


def test_a_model_that_is_not_trained_yet_is_not_scored(command, scores, copy_of_run, tmp_path):
    copy_of_run(tmp_path / "early.pt", vae=3, dit=0)
    code, out, err = command(evaluate, "--checkpoint", "early.pt", "--device", "cpu")
    assert (code, out) == (2, "")
    assert "evaluate.py: checkpoint early.pt: not trained yet, 3 of 3 steps of the VAE" in err
    assert scores == []


@pytest.mark.parametrize("words", [["--minute", 2], ["--steps", 1], ["--guidance", 0], ["--prompts", 1]])
def test_the_smallest_numbers_that_make_sense_are_accepted(command, checkpoint, scores, words):
    code, _, err = command(evaluate, "--checkpoint", checkpoint, *words)
    assert code == 0, err


@pytest.mark.parametrize(
    "words", [["--minute", 1], ["--steps", 0], ["--guidance", -1], ["--modes", "--world"]]
)
def test_numbers_that_are_too_small_and_two_tasks_at_once_are_refused(command, checkpoint, scores, words):
    code, _, err = command(evaluate, "--checkpoint", checkpoint, *words)
    assert code == 2
    assert str(words[0]) in err
    assert scores == []


def test_the_json_of_a_real_report_is_the_last_line(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--json", "--prompts", 2, "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["ceiling"]["shape"] == 1
    assert set(report["seen"]) == set(report["held_out"]) == {"all", *ATTRIBUTES}
    assert report["train_seconds"] > 0


def test_a_model_of_the_simple_world_has_no_abilities_to_score(command, checkpoint):
    code, _, err = command(evaluate, "--checkpoint", checkpoint, "--world")
    assert code == 2
    assert err.strip().endswith("--world scores models whose knob `scenes` is not empty")


def test_a_real_model_is_scored_in_every_mode(command, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"frames": 25}}, tmp_path / "long.pt")
    words = ("--checkpoint", "long.pt", "--modes", "--prompts", 1, "--steps", 1, "--json", "--device", "cpu")
    code, out, err = command(evaluate, *words)
    assert code == 0, err
    assert out.count(" of 1   ") == 26
    rows = json.loads(out.splitlines()[-1])
    assert len(rows) == 26 + len(evaluate.BALL_SPEEDS)
    assert next(iter(rows.values()))["ceiling"] == 1
    assert (tmp_path / "out/modes.png").stat().st_size > 0


def test_long_videos_of_a_real_model_are_scored(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--minute", 2, "--prompts", 2, "--steps", 1, "--json")
    code, out, err = command(evaluate, *words, "--device", "cpu")
    assert code == 0, err
    assert out.count("of 4 seconds") == 2
    rows = json.loads(out.splitlines()[-1])
    assert rows["looks"]["n"] == rows["motion"]["n"] == 4
    assert rows["looks"]["ceiling"] == rows["motion"]["ceiling"] == 1


# --- The rich world ---------------------------------------------------------------------------------------

RICH = Config(scenes="move bite", frames=25, height=64, width=64, vae_space=8, max_words=32)


def score_world(spoil):
    """The rows of a model that shows the world's own clips after `spoil`, two prompts each."""
    drawn = []

    def draw(*arguments):
        drawn.append(draw_rich_scene(*arguments))
        return drawn[-1]

    def generate(model, captions, frames, height, width, **told):
        return spoil(np.stack([render(scene, frames, height, width) for scene in drawn[-len(captions) :]]))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate, "draw_rich_scene", draw)
        patched.setattr(evaluate, "generate", generate)
        patched.setattr(evaluate, "is_surprised", lambda model, pairs, seed: [True] * len(pairs))
        abilities = ("one_thing", "two_things", "turn", "bite")
        patched.setattr(evaluate, "ABILITIES", {name: evaluate.ABILITIES[name] for name in abilities})
        return evaluate.world(SimpleNamespace(config=RICH), 2)


@pytest.fixture(scope="module")
def rows_without_mistakes():
    return score_world(lambda videos: videos)


def test_of_the_rich_world_only_what_was_trained_is_scored(rows_without_mistakes):
    assert list(rows_without_mistakes)[:4] == ["one_thing", "two_things", "bite", "count"]


def test_a_model_without_mistakes_reaches_the_ceiling_of_every_ability(rows_without_mistakes):
    assert all(row["share"] == row["ceiling"] for row in rows_without_mistakes.values())
    assert rows_without_mistakes["left_right_confusion"]["share"] == 0


def test_only_the_laws_that_were_trained_can_be_broken(rows_without_mistakes):
    laws = [title for title in rows_without_mistakes if title.startswith("surprise: ")]
    assert laws == ["surprise: heals its bite"]
    assert rows_without_mistakes["surprise"]["n"] == 2


def test_ground_is_counted_over_all_abilities_and_a_camera_where_it_moves(rows_without_mistakes):
    assert rows_without_mistakes["ground"]["n"] == 3 * 2
    assert 0 < rows_without_mistakes["camera"]["n"] < 3 * 2


@pytest.mark.parametrize("frames", [1, 17])
def test_the_world_itself_shows_every_fact_that_captions_ask_for(frames):
    config = replace(RICH, frames=frames, scenes="move bite")
    rows = captions_followed(config, lambda videos: videos)
    assert {row["share"] for row in rows.values()} == {1.0}
    assert rows["full: all facts"]["n"] > rows["brief: all facts"]["n"]

    # Of an image nobody asks how a thing moves, and bites need more than 1.3 seconds.
    assert ("full: moves" in rows) == (frames > 1)
    assert not {"full: bites", "brief: bites"} & rows.keys()


def test_videos_of_other_scenes_show_few_of_the_facts():
    rows = captions_followed(replace(RICH, frames=1), lambda videos: np.roll(videos, 1, axis=0))
    assert rows["full: all facts"]["share"] < 0.7
    assert rows["full: all facts"]["ceiling"] == 1.0


def test_a_model_of_recaptions_is_also_asked_with_expanded_captions(monkeypatch):
    monkeypatch.setattr(evaluate, "expand_all", lambda captioner, prompts, seed, model: prompts)
    rows = captions_followed(replace(RICH, frames=1, captioner="some.pt"), lambda videos: videos)
    assert rows["expanded: all facts"] == rows["brief: all facts"]


def captions_followed(config, spoil, n=4):
    """The rows of a model that shows the world's own clips after `spoil`."""
    drawn = []

    def draw(*arguments):
        drawn.append(draw_rich_scene(*arguments))
        return drawn[-1]

    def generate(model, captions, frames, height, width, **told):
        return spoil(np.stack([render(scene, frames, height, width) for scene in drawn]))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate, "draw_rich_scene", draw)
        patched.setattr(evaluate, "generate", generate)
        return evaluate.captions_followed(SimpleNamespace(config=config), n)


def test_what_goes_the_other_way_and_lies_on_the_other_side_is_counted():
    circle = Thing("circle", "red", 0.11, (0.2, 0.2), "left", "slowly")
    scene = Scene([circle, replace(circle, colour="blue", start=(0.7, 0.2))])
    caption = "a small red circle and a small blue circle the red circle is left of the blue circle"
    asked = {("red", "moves", "left")}
    true = {("red", "left of", "blue"), ("ground", "is", "plain"), ("red", "moves", "left")}
    mirrored = {("blue", "left of", "red"), ("ground", "is", "plain"), ("red", "moves", "right")}
    rows = {}
    evaluate.add_fact_rows(rows, [(asked, mirrored, true, scene, caption)])
    assert rows["left_right_confusion"] == {"share": 1, "n": 1, "ceiling": 0}
    assert rows["relation"] == {"share": 0, "n": 1, "ceiling": 1}
    assert rows["moves"] == {"share": 0, "n": 1, "ceiling": 1}
    assert rows["ground"]["share"] == 1
    assert "camera" not in rows


def test_a_model_that_shows_nothing_has_no_ability_and_each_row_says_so(capsys):
    rows = score_world(np.zeros_like)
    assert {rows[name]["share"] for name in ("one_thing", "two_things", "bite", "relation")} == {0.0}
    row = re.compile(r"one_thing +0.0%   0.0% to 65.8% of 2, ceiling [\d.]+%")
    assert any(row.fullmatch(line) for line in capsys.readouterr().out.splitlines())


def test_a_caption_tells_its_relations_from_either_side():
    circle = Thing("circle", "red", 0.11, (0.2, 0.2), "still", "")
    scene = Scene([circle, replace(circle, colour="blue", start=(0.7, 0.7))])
    left = ("red", "left of", "blue")
    assert evaluate.relations_told("the red circle is left of the blue circle", scene) == {left}
    above = ("red", "above", "blue")
    assert evaluate.relations_told("the blue circle is below the red circle", scene) == {above}
    assert evaluate.relations_told("a red circle moving left over dots", scene) == set()


def test_a_model_is_surprised_by_the_clip_that_it_did_not_expect(whole_checkpoint, monkeypatch):
    """The network's output is here what fits the first of the two clips; the beginning of both is given."""
    model = load_model(whole_checkpoint)
    rng = np.random.default_rng(0)
    possible, impossible = rng.integers(0, 255, (2, 9, 32, 32, 3), dtype=np.uint8)
    impossible[:5] = possible[:5]
    expected = model.vae.encode(to_float(possible[None]))[0] * model.latent_scale

    def network(x, t, prompt_ids):
        assert (t[0][:, :2] == 0).all() and (t[0][:, 2:] > 0).all()
        assert not prompt_ids[0].any()
        level = t[0][:, None, :, None, None].clamp(min=1e-6)
        noise = (x[0] - (1 - level) * expected) / level
        return [noise - expected]

    model.dit = network
    assert evaluate.is_surprised(model, [(possible, impossible, 5)], seed=0) == [True]
    assert evaluate.is_surprised(model, [(impossible, possible, 5)], seed=0) == [False]


def test_the_clips_of_the_rich_world_have_its_sizes_and_its_captions():
    _, captions, _ = evaluate.world_clips(SEEN, 8, 5, 5, 48, 80, 12.0, True)
    assert all(caption.split()[1] in ("small", "large") and "plain ground" in caption for caption in captions)
    _, of_images, _ = evaluate.world_clips(SEEN, 8, 5, 1, 48, 80, 12.0, True)
    assert not any("moving" in caption or "going" in caption for caption in of_images)


def test_the_modes_of_a_model_of_the_rich_world_are_scored_at_its_size():
    scorer = evaluate.ModeScorer(SimpleNamespace(config=RICH), 2, 20_000, SAMPLING)
    _, _, videos = scorer.clips(SEEN, 0, 5)
    assert videos.shape == (2, 5, 64, 64, 3)
    assert scorer.near == 4


def test_every_word_of_the_simple_world_but_a_has_another_that_no_caption_has():
    words = set(captions_vocab()) - {"a", "and"}
    assert set(evaluate.UNSEEN_WORDS) == words
    assert not set(evaluate.UNSEEN_WORDS.values()) & words
    assert evaluate.reword("a red circle moving left slowly") == "a crimson disc drifting leftwards gradually"


def test_prompts_in_unseen_words_are_scored_by_what_they_mean(command, checkpoint, monkeypatch):
    asked = []

    def generate(model, prompts, T, H, W, **sampling):
        asked.extend(prompts)
        _, captions, truth = evaluate.usual_clips(model.config, evaluate.SEEN, len(prompts), 10_000)
        assert [evaluate.reword(caption) for caption in captions] == prompts
        return truth

    monkeypatch.setattr(evaluate, "generate", generate)
    monkeypatch.setattr(evaluate, "read", lambda video, fps: dict.fromkeys(evaluate.ATTRIBUTES, "red"))
    code, out, err = command(evaluate, "--checkpoint", checkpoint, "--unseen-words", "--prompts", 6)
    assert code == 0, err
    assert len(asked) == 6
    assert "all 0.0%, shape 0.0%, colour " in out

"""Batches: what each clip shows and its caption tells, how many fit, and what becomes of useless files."""
from config import BadInput, Config, count_tokens

import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from data import datasets
from data.datasets import FileDataset, WorldDataset, make_dataset, stream_batches
from data.video_io import write_clip
from world import captions
from world.caption_reader import words_without_meaning
from world.reader import read
from world.scene_reader import read_facts
from world.scenes import CALM_SECONDS, DIRECTIONS, SPEEDS, Scene, Thing, frame_extent, render, simulate

CONFIG = Config(frames=5, height=16, width=24, fps=10.0, dit_tokens=200)
SHAPES = replace(CONFIG, lengths="5 9", sizes="16x24 24x16 16x40", image_prob=0.3)
MIX = replace(SHAPES, late_prob=0.4, window_prob=0.5)
SQUARE = Scene([Thing("square", "red", 0.2, (0.5, 0.5), "right", "slowly")])


def same(one, other):
    """Whether two batches are equal in their clips, captions and counts of given frames."""
    for (videos, words, given), (other_videos, other_words, other_given) in zip(one, other, strict=True):
        if not (torch.equal(videos, other_videos) and torch.equal(given, other_given)):
            return False
        if list(words) != list(other_words):
            return False
    return True


def clips_of(source, batches):
    """Every clip of the first batches as (video, caption, given)."""
    clips = []
    for k in range(batches):
        for videos, words, given in source[k]:
            clips += zip(videos.numpy(), words, given.tolist(), strict=True)
    return clips


def draw_clips(config, count, frames, height=16, width=24):
    """`count` clips of one shape as (video, caption, given)."""
    source = WorldDataset(config)
    rng = np.random.default_rng(0)
    return [source.make_clip(rng, None, frames, height, width) for _ in range(count)]


def shares(values):
    """Which share of a list each of its values is."""
    return {value: values.count(value) / len(values) for value in set(values)}


# The rich world

RICH = Config(scenes="move turn hide", frames=29, height=64, width=64, vae_space=8, max_words=32)


@pytest.fixture
def kinds_drawn(monkeypatch):
    """The kinds of scenes that are drawn from now on."""
    kinds = []
    draw = datasets.draw_rich_scene

    def noted(rng, kind, *arguments):
        kinds.append(kind)
        return draw(rng, kind, *arguments)

    monkeypatch.setattr(datasets, "draw_rich_scene", noted)
    return kinds


def test_scenes_are_of_the_kinds_asked_for(kinds_drawn):
    draw_clips(RICH, 30, 29, 64, 64)
    assert set(kinds_drawn) == {"move", "turn", "hide"}


@pytest.mark.parametrize("frames, kinds", [(1, {"move"}), (9, {"move"}), (17, {"move", "turn"})])
def test_a_short_clip_shows_only_what_there_is_time_for(kinds_drawn, frames, kinds):
    draw_clips(RICH, 30, frames, 64, 64)
    assert set(kinds_drawn) == kinds


def test_the_vocabulary_of_scenes_has_all_words_of_their_captions():
    words = {word for _, caption, _ in draw_clips(RICH, 20, 29, 64, 64) for word in caption.split()}
    assert words <= set(WorldDataset(RICH).vocab())


def test_captions_of_images_tell_no_motion():
    words = {word for _, caption, _ in draw_clips(RICH, 30, 1, 64, 64) for word in caption.split()}
    assert not words & {"moving", "going", "standing", "rest", "slowly", "quickly", "then", "camera", "view"}


def test_the_ground_is_the_one_that_is_told():
    for video, caption, _ in draw_clips(RICH, 6, 29, 64, 64):
        is_striped = ("ground", "is", "striped") in read_facts(video)
        tells_stripes = "striped" in caption or "stripes" in caption
        tells_ground = "ground" in caption or "stripes" in caption or "dots" in caption
        assert tells_stripes == is_striped or not tells_ground


LATE_RICH = replace(RICH, late_prob=1.0)


def test_late_clips_of_the_rich_world_tell_a_speed_and_no_direction():
    captions = [caption for _, caption, _ in draw_clips(LATE_RICH, 30, 17, 48, 80)]
    words = {word for caption in captions for word in caption.split()}
    assert {"slowly", "quickly"} <= words
    assert not words & {"left", "right", "up", "down", "pans", "zooms"}


def test_late_clips_of_the_rich_world_show_one_thing_that_the_caption_tells():
    for video, caption, _ in draw_clips(LATE_RICH, 6, 17, 64, 64):
        told = read_facts(video)
        colour = caption.split()[2]
        assert ("things", "count", "1") in told
        assert (colour, "shape", caption.split()[3]) in told


def test_windows_of_the_rich_world_are_late_clips_with_frames_given():
    given = [given for _, _, given in draw_clips(replace(LATE_RICH, window_prob=1.0), 10, 17, 48, 64)]
    assert min(given) >= 2
    assert max(given) < 5


def test_an_unknown_kind_of_scene_is_named():
    with pytest.raises(BadInput, match="scenes = 'move fly': 'fly' is none; expected some of 'move turn"):
        WorldDataset(replace(RICH, scenes="move fly"))


def test_captions_of_scenes_have_to_fit_into_a_prompt():
    with pytest.raises(BadInput, match="max_words = 31: captions of scenes have up to 32 words"):
        WorldDataset(replace(RICH, max_words=31))


@pytest.fixture
def renders(monkeypatch):
    """What `render` was asked for, one entry a clip."""
    asked = []

    def record(scene, frames, height, width, fps, times=None, size_factor=1.0):
        asked.append(SimpleNamespace(scene=scene, fps=fps, times=times, size_factor=size_factor))
        return render(scene, frames, height, width, fps, times, size_factor)

    monkeypatch.setattr(datasets, "render", record)
    return asked


@pytest.fixture
def unseen(monkeypatch):
    """Clips without pixels, where only their number and shapes are looked at."""
    def make_clip(self, rng, path, frames, height, width):
        return np.zeros((frames, height, width, 0)), "", 0

    monkeypatch.setattr(WorldDataset, "make_clip", make_clip)


# Batch k


def test_a_batch_drawn_again_is_the_same():
    assert same(WorldDataset(MIX)[3], WorldDataset(MIX)[3])


def test_every_batch_is_another_one():
    assert not torch.equal(WorldDataset(CONFIG)[0][0][0], WorldDataset(CONFIG)[1][0][0])


def test_another_seed_gives_other_batches():
    other = replace(CONFIG, seed=1)
    assert not torch.equal(WorldDataset(CONFIG)[0][0][0], WorldDataset(other)[0][0][0])


def test_a_stream_begins_where_it_is_told_to_and_leaves_none_out():
    source = WorldDataset(MIX)
    batches = stream_batches(source, 3)
    for k in range(3, 6):
        assert same(next(batches), source[k])


class ProcessIds(Dataset):
    def __getitem__(self, k):
        return k, os.getpid()


def test_worker_processes_draw_the_same_batches():
    batches = stream_batches(ProcessIds(), 3, workers=2)
    drawn = [next(batches) for _ in range(4)]
    assert [k for k, _ in drawn] == [3, 4, 5, 6]
    process_ids = {process_id for _, process_id in drawn}
    assert len(process_ids) == 2
    assert os.getpid() not in process_ids


@pytest.mark.skipif(sys.platform == "win32", reason="there, os.kill ends a process whatever it ignores")
def test_worker_processes_leave_a_stop_signal_to_the_training_process(capfd):
    batches = stream_batches(ProcessIds(), 3, workers=2)
    workers = {process_id for _, process_id in (next(batches), next(batches))}
    for process_id in workers:
        os.kill(process_id, signal.SIGINT)
        os.kill(process_id, signal.SIGTERM)
    drawn = [next(batches) for _ in range(8)]
    assert [k for k, _ in drawn] == list(range(5, 13))
    assert {process_id for _, process_id in drawn} == workers
    del batches
    assert capfd.readouterr() == ("", "")


def test_a_stream_without_workers_draws_in_this_process():
    assert next(stream_batches(ProcessIds(), 3)) == [3, os.getpid()]


# What a batch is made of


def test_a_batch_has_one_group_for_each_shape():
    for k in range(5):
        group_shapes = [videos.shape[1:] for videos, _, _ in WorldDataset(MIX)[k]]
        assert len(group_shapes) == len(set(group_shapes))


def test_a_group_has_a_caption_and_a_count_for_every_clip():
    for videos, words, given in WorldDataset(MIX)[0]:
        assert videos.dtype == torch.uint8
        assert len(words) == len(videos)
        assert given.shape == (len(videos),)


def test_a_batch_says_how_many_frames_of_each_clip_are_given():
    # Of three latent frames a window is given two.
    config = replace(CONFIG, lengths="5 9", late_prob=1.0, window_prob=1.0)
    counts = {videos.shape[1]: given.unique().tolist() for videos, _, given in WorldDataset(config)[0]}
    assert counts == {5: [0], 9: [2]}


def test_clips_show_what_their_captions_say():
    config = Config(lengths="9 17", sizes="32x48 48x32", fps=10.0)
    for video, caption, _ in clips_of(WorldDataset(config), batches=2):
        found = read(video, fps=10.0)
        assert caption == f"a {found['colour']} {found['shape']} moving {found['direction']} {found['speed']}"


def test_the_vocabulary_is_that_of_the_toy_world():
    assert WorldDataset(CONFIG).vocab() == captions.vocab()


# How many clips


def test_a_batch_is_a_number_of_tokens_and_nearly_none_is_wasted(unseen):
    # The shapes of configs/small.toml.
    config = Config(lengths="9 17 25", sizes="32x32 24x40 40x24 24x32", image_prob=0.15)
    used = []
    for k in range(200):
        tokens = 0
        for videos, _, _ in WorldDataset(config)[k]:
            tokens += len(videos) * count_tokens(config, *videos.shape[1:4])
        used.append(tokens / config.dit_tokens)
    assert max(used) <= 1
    assert np.mean(used) >= 0.98


@pytest.mark.parametrize("spare, clips", [(-1, 2), (0, 3), (1, 3)])
def test_a_clip_goes_in_if_there_is_room_for_all_its_tokens(unseen, spare, clips):
    tokens = count_tokens(CONFIG, 5, 16, 24)
    config = replace(CONFIG, dit_tokens=3 * tokens + spare)
    assert len(WorldDataset(config)[0][0][0]) == clips


def test_the_smallest_clip_fills_the_last_room(unseen):
    # One patch and its words.
    config = replace(CONFIG, frames=1, height=8, width=8)
    tokens = config.max_words + 1
    assert count_tokens(config, 1, 8, 8) == tokens
    assert len(WorldDataset(replace(config, dit_tokens=5 * tokens))[0][0][0]) == 5


def test_the_vae_s_batches_are_of_one_shape_and_have_as_many_pixels(unseen):
    source = WorldDataset(replace(SHAPES, vae_batch=5), "vae")
    for k in range(50):
        [(videos, _, _)] = source[k]
        B, T, H, W, _ = videos.shape
        fitting = 5 * (5 * 16 * 24) / (T * H * W)
        assert abs(B - fitting) <= 0.5


def test_a_clip_of_more_pixels_than_a_batch_of_the_vae_comes_alone(unseen):
    config = replace(CONFIG, lengths="25", vae_batch=1)
    for k in range(20):
        [(videos, _, _)] = WorldDataset(config, "vae")[k]
        assert len(videos) == 1 or videos.shape[1] == 1


def test_the_vae_learns_every_length_up_to_the_longest_equally_often(unseen):
    # Also those that the config does not name, and also where images are drawn.
    config = replace(CONFIG, lengths="5 13", image_prob=0.5)
    lengths = [WorldDataset(config, "vae")[k][0][0].shape[1] for k in range(400)]
    assert shares(lengths) == pytest.approx({1: 0.25, 5: 0.25, 9: 0.25, 13: 0.25}, abs=0.08)


# Shapes


def test_every_length_and_size_is_drawn_equally_often():
    source = WorldDataset(replace(SHAPES, image_prob=0.0))
    rng = np.random.default_rng(0)
    drawn = [source.draw_shape(rng) for _ in range(600)]
    expected = {}
    for frames in (5, 9):
        for height, width in ((16, 24), (24, 16), (16, 40)):
            expected[(frames, height, width), None] = 1 / 6
    assert shares(drawn) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("image_prob, tolerance", [(0.0, 0), (0.3, 0.08), (1.0, 0)])
def test_image_prob_is_the_share_of_images(image_prob, tolerance):
    source = WorldDataset(replace(SHAPES, image_prob=image_prob))
    rng = np.random.default_rng(0)
    images = [source.draw_shape(rng)[0][0] == 1 for _ in range(400)]
    assert np.mean(images) == pytest.approx(image_prob, abs=tolerance)


# Clips from the beginning of a video


def test_a_clip_s_caption_tells_all_and_nothing_is_given():
    for _, caption, given in draw_clips(CONFIG, 20, frames=5):
        assert len(caption.split()) == 6
        assert given == 0


def test_an_image_s_caption_tells_no_motion():
    for video, caption, given in draw_clips(CONFIG, 20, frames=1):
        assert video.shape == (1, 16, 24, 3)
        assert len(caption.split()) == 3
        assert given == 0


@pytest.mark.parametrize("height, width", [(16, 24), (40, 16)])
def test_a_clip_does_not_bounce_for_some_time(renders, height, width):
    draw_clips(CONFIG, 50, 5, height, width)
    times = np.linspace(0, CALM_SECONDS, 9)
    for asked in renders:
        [thing] = asked.scene.things
        [path] = simulate(asked.scene, times, frame_extent(height, width))
        straight = np.outer(times, DIRECTIONS[thing.direction]) * SPEEDS[thing.speed]
        assert path - path[0] == pytest.approx(straight, abs=1e-9)


@pytest.mark.parametrize("late_prob", [0.0, 1.0])
def test_things_are_anywhere_in_a_wide_frame(renders, late_prob):
    draw_clips(replace(CONFIG, late_prob=late_prob), 100, 5, 16, 40)
    starts = np.array([asked.scene.things[0].start for asked in renders])
    assert starts[:, 0].max() > 2
    assert starts[:, 1].max() < 1


def test_frames_follow_at_the_config_s_rate(renders):
    draw_clips(replace(CONFIG, late_prob=0.5), 20, frames=5)
    assert {asked.fps for asked in renders} == {10.0}
    assert {asked.times for asked in renders} == {None}


# Clips from later in a video


@pytest.mark.parametrize("late_prob, tolerance", [(0.0, 0), (0.4, 0.08), (1.0, 0)])
def test_late_prob_is_the_share_of_clips_whose_direction_is_not_told(late_prob, tolerance):
    clips = draw_clips(replace(CONFIG, late_prob=late_prob), 400, frames=5)
    late = [len(caption.split()) < 6 for _, caption, _ in clips]
    assert np.mean(late) == pytest.approx(late_prob, abs=tolerance)


def test_half_of_the_late_captions_are_empty_and_half_of_the_others_tell_the_speed():
    clips = draw_clips(replace(CONFIG, late_prob=1.0), 400, frames=5)
    words = [len(caption.split()) for _, caption, _ in clips]
    assert shares(words) == pytest.approx({0: 0.5, 3: 0.25, 5: 0.25}, abs=0.08)


def test_late_captions_never_name_a_direction():
    for _, caption, _ in draw_clips(replace(CONFIG, late_prob=1.0, window_prob=0.5), 100, frames=9):
        assert not set(caption.split()) & set(DIRECTIONS)


def test_late_captions_are_of_what_their_clips_show():
    for video, caption, _ in draw_clips(replace(CONFIG, late_prob=1.0), 40, 9, 32, 48):
        found = read(video, fps=10.0)
        assert caption == "" or caption.startswith(f"a {found['colour']} {found['shape']}")


def test_late_images_tell_no_motion():
    clips = draw_clips(replace(CONFIG, late_prob=1.0, window_prob=1.0), 100, frames=1)
    assert {len(caption.split()) for _, caption, _ in clips} == {0, 3}


def test_late_clips_may_bounce_at_once(renders):
    draw_clips(replace(CONFIG, late_prob=1.0), 300, frames=5)
    seconds = []
    for asked in renders:
        [thing] = asked.scene.things
        height, width = frame_extent(16, 24)
        x, y = thing.start
        to_the_wall = {"left": x, "right": width - x, "up": y, "down": height - y}[thing.direction]
        seconds.append((to_the_wall - thing.size) / SPEEDS[thing.speed])
    assert 0 <= min(seconds) < 0.05


# Windows of a long video


@pytest.mark.parametrize("late_prob, window_prob, share, tolerance", [
    (1.0, 0.0, 0.0, 0), (1.0, 1.0, 1.0, 0), (0.0, 1.0, 0.0, 0), (0.6, 0.5, 0.3, 0.08),
])
def test_window_prob_is_the_share_of_late_clips_that_go_on_from_given_frames(
    late_prob, window_prob, share, tolerance
):
    config = replace(CONFIG, late_prob=late_prob, window_prob=window_prob)
    windows = [given > 0 for _, _, given in draw_clips(config, 300, frames=9)]
    assert np.mean(windows) == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize("frames", [1, 5])
def test_clips_of_two_latent_frames_are_too_short_for_a_window(frames):
    config = replace(CONFIG, late_prob=1.0, window_prob=1.0)
    assert {given for _, _, given in draw_clips(config, 20, frames)} == {0}


def draw_windows(count, frames):
    source = WorldDataset(CONFIG)
    rng = np.random.default_rng(0)
    return [source.make_window(rng, SQUARE, "a square", frames, 16, 24) for _ in range(count)]


@pytest.mark.parametrize("frames, expected", [(9, {2}), (13, {2, 3}), (25, {3, 4, 5, 6})])
def test_a_window_is_given_the_memory_and_up_to_all_but_its_last_latent_frame(frames, expected):
    assert {given for _, _, given in draw_windows(60, frames)} == expected


def test_a_window_s_caption_tells_the_speed_and_no_direction():
    config = replace(CONFIG, late_prob=1.0, window_prob=1.0)
    for _, caption, given in draw_clips(config, 20, frames=9):
        assert given > 0
        assert re.fullmatch(r"a \w+ \w+ moving (slowly|quickly)", caption)


def test_a_window_begins_with_a_memory_of_up_to_a_minute_earlier(renders):
    draw_windows(100, 25)
    memories = [asked.times[0] for asked in renders]
    assert -60 <= min(memories) < -50
    assert -10 < max(memories) <= 0


def test_the_memory_has_the_right_size(renders):
    draw_windows(20, 25)
    assert {asked.size_factor[0] for asked in renders} == {1}


def test_a_window_shows_the_times_and_sizes_that_were_drawn(renders):
    for video, _, _ in draw_windows(5, 9):
        asked = renders.pop(0)
        assert asked.fps == 10.0
        assert (video == render(SQUARE, 9, 16, 24, 10.0, asked.times, asked.size_factor)).all()


def test_what_follows_the_given_frames_is_right_again(renders):
    for _, _, given in draw_windows(20, 25):
        asked = renders.pop(0)
        last = 4 * (given - 1)
        assert asked.times[last:] == pytest.approx(np.arange(last, 25) / 10)
        assert (asked.size_factor[last + 1 :] == 1).all()


def test_what_came_last_joins_what_follows_at_a_pace_of_its_own(renders):
    paces = []
    for _, _, given in draw_windows(100, 25):
        asked = renders.pop(0)
        last = 4 * (given - 1)
        steps = np.diff(asked.times[1 : last + 1])
        assert np.ptp(steps) < 1e-9
        paces.append(10 * steps[0])
    assert 0.6 <= min(paces) < 0.65
    assert 1.35 < max(paces) <= 1.4


def test_what_came_last_has_a_size_of_its_own(renders):
    sizes = []
    for _, _, given in draw_windows(100, 25):
        asked = renders.pop(0)
        drifted = asked.size_factor[1 : 4 * (given - 1) + 1]
        assert np.ptp(drifted) == 0
        sizes.append(drifted[0])
    assert 0.85 <= min(sizes) < 0.87
    assert 1.13 < max(sizes) <= 1.15


# A folder of clips


@pytest.fixture(autouse=True)
def nothing_was_named(monkeypatch):
    """As in a new process: no file has been warned of."""
    monkeypatch.setattr(datasets, "WARNED", set())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """wide.mp4 and high.mp4 last two seconds, short.mp4 0.2; the others are of no use.

    The first two brighten from frame to frame, so that a frame tells by its grey which one it was."""
    folder = tmp_path_factory.mktemp("clips")
    write_brightening_clip(folder, "wide", fps=30, shape=(60, 18, 46))
    write_brightening_clip(folder, "high", fps=10, shape=(20, 40, 20))
    write_brightening_clip(folder, "short", fps=10, shape=(2, 16, 16))

    for name in ("broken", "silent", "garbled"):
        (folder / f"{name}.mp4").write_bytes(b"not a video")
    (folder / "broken.txt").write_text("a broken file")
    (folder / "garbled.txt").write_bytes(b"\xff")
    return folder


def write_brightening_clip(folder, name, fps, shape):
    frames = shape[0]
    greys = 255 // frames * np.arange(frames, dtype=np.uint8)
    write_clip(folder / f"{name}.mp4", np.broadcast_to(greys[:, None, None, None], (*shape, 3)), fps)
    (folder / f"{name}.txt").write_text(f"a {name}\n\n  clip\n")


@pytest.fixture
def folder_config(folder):
    # Three clips a batch.
    return replace(CONFIG, data=str(folder), dit_tokens=60)


def test_the_config_names_the_toy_world_or_a_folder(folder_config):
    assert type(make_dataset(CONFIG)) is WorldDataset
    assert type(make_dataset(folder_config)) is FileDataset


@pytest.mark.parametrize("data", ["world", "folder"])
def test_a_dataset_is_for_the_stage_that_is_asked_for(folder, data):
    config = replace(CONFIG, data="world" if data == "world" else str(folder))
    assert make_dataset(config, "vae").stage == "vae"
    assert make_dataset(config).stage == "dit"


def test_captions_are_read_word_by_word(folder_config):
    said = {caption for _, caption, _ in clips_of(make_dataset(folder_config), batches=5)}
    assert said == {"a wide clip", "a high clip"}


def test_a_folder_s_vocabulary_is_that_of_its_captions(folder_config):
    expected = ["a", "broken", "clip", "file", "high", "short", "wide"]
    assert make_dataset(folder_config).vocab() == expected


def test_clips_without_a_caption_are_counted_and_trained_without_words(folder, tmp_path, capsys):
    for name in ("high.mp4", "high.txt", "wide.mp4"):
        shutil.copy(folder / name, tmp_path)
    source = make_dataset(replace(CONFIG, data=str(tmp_path), dit_tokens=60))
    make_dataset(source.config)
    assert {caption for _, caption, _ in clips_of(source, batches=5)} == {"a high clip", ""}
    assert capsys.readouterr().err == "warning: 1 of 2 clips have no caption: trained without words\n"


def test_every_clip_is_drawn_equally_often(folder_config):
    source = make_dataset(folder_config)
    rng = np.random.default_rng(0)
    drawn = [source.draw_shape(rng)[1].stem for _ in range(300)]
    assert shares(drawn) == pytest.approx({"wide": 0.5, "high": 0.5}, abs=0.1)


@pytest.mark.parametrize("name, why", [
    ("broken", "Invalid data"),
    ("short", "0.20 s long; 5 frames at 10 per second need 0.40 s"),
    ("silent", "Invalid data"),
    ("garbled", "its caption cannot be read ('utf-8' codec can't decode byte 0xff"),
])
def test_files_of_no_use_are_named_once(folder, folder_config, capsys, name, why):
    source = make_dataset(replace(folder_config, lengths="5 9"))
    for k in range(5):
        source[k]
    lines = [line for line in capsys.readouterr().err.splitlines() if f"{name}.mp4" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: skipped {folder / name}.mp4: ")
    assert why in lines[0]


def test_every_file_is_looked_at_once(folder, folder_config, monkeypatch):
    looked_at = []

    def probe(path):
        looked_at.append(path.stem)
        return 1.5, 2.0

    monkeypatch.setattr(datasets, "probe", probe)
    source = make_dataset(folder_config)
    for _ in range(2):
        source.lasts(folder / "wide.mp4", 5)
        source.lasts(folder / "high.mp4", 5)
    assert looked_at == ["wide", "high"]


def test_clips_that_can_be_used_are_not_warned_of(folder_config, capsys):
    source = make_dataset(folder_config)
    for k in range(5):
        source[k]
    err = capsys.readouterr().err
    assert "wide.mp4" not in err
    assert "high.mp4" not in err


def test_a_clip_keeps_its_own_framing(folder_config):
    source = make_dataset(replace(folder_config, sizes="16x40 40x16"))
    framings = {(caption, video.shape[1:3]) for video, caption, _ in clips_of(source, batches=5)}
    assert framings == {("a wide clip", (16, 40)), ("a high clip", (40, 16))}


def test_a_clip_has_the_longest_length_that_fits_into_its_file(folder_config):
    # 65 frames take 6.4 seconds, and 13 of them 1.2; an image can be had of the short clip too.
    source = make_dataset(replace(folder_config, lengths="5 13 65", sizes="16x24", image_prob=0.2))
    rng = np.random.default_rng(0)
    drawn = [source.draw_shape(rng) for _ in range(300)]
    lengths = {(path.stem, frames) for (frames, _, _), path in drawn}
    assert lengths == {
        ("wide", 1), ("wide", 5), ("wide", 13), ("high", 1), ("high", 5), ("high", 13), ("short", 1),
    }
    # 13 is drawn as 13 and in place of 65.
    thirteens = [frames == 13 for (frames, _, _), _ in drawn]
    assert np.mean(thirteens) == pytest.approx(0.8 * 2 / 3, abs=0.08)


@pytest.mark.parametrize("frames, lasts", [(21, True), (22, False)])
def test_a_clip_lasts_for_frames_whose_last_one_begins_when_it_ends(folder, folder_config, frames, lasts):
    # 21 frames at 10 per second begin in the course of 2.0 seconds.
    assert make_dataset(folder_config).lasts(folder / "high.mp4", frames) == lasts


def test_a_file_that_cannot_be_read_lasts_for_no_frame(folder, folder_config):
    assert not make_dataset(folder_config).lasts(folder / "broken.mp4", 1)


def test_clips_have_the_config_s_frame_rate(folder_config):
    source = make_dataset(folder_config)
    for video, caption, given in clips_of(source, batches=3):
        frames_in_file, step = (60, 3) if "wide" in caption else (20, 1)
        numbers = np.round(video.mean(axis=(1, 2, 3)) / (255 // frames_in_file))
        assert np.diff(numbers).tolist() == 4 * [step]
        assert given == 0


def test_the_vae_s_batches_are_of_one_file_in_lengths_that_it_has(folder_config):
    source = make_dataset(replace(folder_config, lengths="5 13", image_prob=0.3, vae_batch=2), "vae")
    lengths = {}
    for k in range(60):
        [(videos, words, _)] = source[k]
        [caption] = set(words)
        lengths.setdefault(caption, set()).add(videos.shape[1])
    assert lengths == {"a wide clip": {1, 5, 9, 13}, "a high clip": {1, 5, 9, 13}, "a short clip": {1}}


@pytest.mark.parametrize("error", [ValueError("no frame"), av.error.InvalidDataError(1, "damaged")])
def test_another_clip_takes_the_place_of_one_that_cannot_be_decoded(
    folder, folder_config, monkeypatch, capsys, error
):
    def read_window(path, frames, height, width, fps, rng):
        if path.stem == "wide":
            raise error
        return np.full((frames, height, width, 3), 7, np.uint8)

    monkeypatch.setattr(datasets, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(datasets, "read_window", read_window)
    source = make_dataset(folder_config)
    for video, caption, _ in clips_of(source, batches=3):
        assert caption == "a high clip"
        assert (video == 7).all()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "wide.mp4" in line]
    assert warnings == [f"warning: skipped {folder / 'wide.mp4'}: {error}"]


def test_a_folder_in_which_nothing_can_be_decoded_is_refused(folder_config, monkeypatch):
    def read_window(path, frames, height, width, fps, rng):
        raise ValueError("no frame could be decoded")

    monkeypatch.setattr(datasets, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(datasets, "read_window", read_window)
    with pytest.raises(BadInput, match="not one clip.mp4 could be read"):
        make_dataset(folder_config)[0]


def same_batches(some, others):
    for groups, other_groups in zip(some, others, strict=True):
        for group, other in zip(groups, other_groups, strict=True):
            assert torch.equal(group[0], other[0])
            assert group[1] == other[1]


@pytest.mark.parametrize("seconds, kept_bytes", [(0.0, 10**9), (20.0, 0), (20.0, 1)])
def test_a_clip_kept_in_memory_gives_the_windows_that_decoding_gives(
    folder_config, monkeypatch, seconds, kept_bytes
):
    source = make_dataset(folder_config)
    from_memory = [source[k] for k in range(3)]
    assert source.kept_bytes > 0

    # Long clips are decoded each time, and all of them where memory is full; 1 byte has room for one clip.
    monkeypatch.setattr(datasets, "KEPT_SECONDS", seconds)
    monkeypatch.setattr(datasets, "KEPT_BYTES", kept_bytes)
    decoding = make_dataset(folder_config)
    same_batches(from_memory, [decoding[k] for k in range(3)])
    assert len(decoding.kept) == (kept_bytes == 1)


def test_a_short_clip_is_decoded_once(folder_config, monkeypatch):
    source = make_dataset(folder_config)
    for k in range(3):
        source[k]
    monkeypatch.setattr(datasets, "decode_clip", None)
    monkeypatch.setattr(datasets, "read_window", None)
    same_batches([source[k] for k in range(3)], [source[k] for k in range(3)])


def test_of_a_clip_that_breaks_off_the_windows_before_are_used(folder_config, monkeypatch, capsys):
    def decode_clip(path, height, width):
        raise av.error.InvalidDataError(1, "damaged")

    expected = make_dataset(folder_config)[0]
    monkeypatch.setattr(datasets, "decode_clip", decode_clip)
    same_batches([expected], [make_dataset(folder_config)[0]])
    assert "damaged" not in capsys.readouterr().err


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BadInput, match="expected 'world', a folder of clip.mp4"):
        make_dataset(replace(CONFIG, data=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("files", [[], ["broken"]])
def test_a_folder_without_one_clip_is_refused_when_a_batch_is_drawn(tmp_path, files):
    for name in files:
        (tmp_path / f"{name}.mp4").write_bytes(b"not a video")
        (tmp_path / f"{name}.txt").write_text("a broken file")
    source = make_dataset(replace(CONFIG, data=str(tmp_path)))
    with pytest.raises(BadInput, match="not one clip.mp4 could be read"):
        source[0]


def test_a_caption_of_too_many_words_is_refused_with_its_numbers(tmp_path):
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "clip.txt").write_text("one two three four five six")
    config = replace(CONFIG, data=str(tmp_path), max_words=5)
    with pytest.raises(BadInput, match="clip.mp4: its caption has 6 words; max_words = 5"):
        make_dataset(config)
    make_dataset(replace(config, max_words=6))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_recaption_takes_the_captions_place_in_its_share_of_draws(folder, tmp_path, share):
    for name in ("high.mp4", "high.txt", "wide.mp4"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "high.recaption.txt").write_text("a grey wall that grows brighter\n")
    source = make_dataset(replace(CONFIG, data=str(tmp_path), recaption_share=share))
    assert {"brighter", "clip"} <= set(source.vocab())
    rng = np.random.default_rng(0)
    drawn = [source.draw_caption(rng, tmp_path / "high.mp4") for _ in range(300)]
    assert drawn.count("a grey wall that grows brighter") / 300 == pytest.approx(share, abs=0.08)
    assert source.draw_caption(rng, tmp_path / "wide.mp4") == ""


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_brief_share_is_the_share_of_captions_of_rich_scenes_that_are_brief(share):
    config = replace(CONFIG, scenes="move", max_words=32, brief_share=share)
    captions = [caption for _, caption, _ in draw_clips(config, 150, 5)]
    # A brief one that happens to be understood as a full one is rare.
    is_full = [words_without_meaning(caption) == "" and "a " in caption for caption in captions]
    assert 1 - np.mean(is_full) == pytest.approx(share, abs=0.12)

from dataclasses import replace

import numpy as np
import pytest
import torch

from config import BadInput, Config, count_tokens
from data import datasets
from world import reader, scenes

CONFIG = Config(frames=5, height=16, width=24, fps=10.0, dit_tokens=200)
MIX = replace(CONFIG, lengths="5 9", sizes="16x24 24x16 16x40", image_prob=0.3, late_prob=0.4, window_prob=0.5)


def test_batch_k_is_a_function_of_seed_and_k():
    source = datasets.WorldDataset(MIX)
    batches = datasets.stream_batches(source, 0)
    first = [next(batches) for _ in range(3)]
    again = datasets.stream_batches(source, 2)
    equal = lambda a, b: all(torch.equal(v, w) and c == list(d) and torch.equal(g, h) for (v, c, g), (w, d, h) in zip(a, b, strict=True))
    assert equal(next(again), first[2])
    by_workers = datasets.stream_batches(source, 0, workers=2)
    assert all(equal(batch, next(by_workers)) for batch in first)
    other = datasets.WorldDataset(replace(MIX, seed=1))[0]
    assert [c for _, c, _ in other] != [c for _, c, _ in first[0]] != [c for _, c, _ in first[1]]


def test_the_vaes_batches_vary_in_shape_and_have_about_as_many_pixels():
    source, seen = datasets.WorldDataset(MIX, "vae"), set()
    for k in range(100):
        (video, *_), = source[k]
        B, T, H, W, _ = video.shape
        seen.add((T, H, W))
        assert B == 1 or 0.6 < B * T * H * W / (MIX.vae_batch * 5 * 16 * 24) < 1.6
    assert seen == {(T, *size) for T in (1, 5, 9) for size in ((16, 24), (24, 16), (16, 40))}


def test_a_batch_is_a_number_of_tokens_and_nearly_none_is_wasted():
    config = Config(lengths="9 17 25", sizes="32x32 24x40 40x24 24x32", image_prob=0.15, late_prob=0.25)  # configs/small.toml
    source, shares, images, clips, nameless = datasets.WorldDataset(config), [], 0, 0, 0
    source.make_clip = lambda rng, which, *shape: (np.zeros((*shape, 0)), "", 0)  # only what is drawn is looked at
    for k in range(1000):
        batch = source[k]
        shares.append(sum(count_tokens(config, *video.shape[1:4]) * len(video) for video, *_ in batch) / config.dit_tokens)
        images += sum(len(video) for video, *_ in batch if video.shape[1] == 1)
        clips += sum(len(video) for video, *_ in batch)
    assert np.mean(shares) >= 0.98 and max(shares) <= 1 and images / clips == pytest.approx(0.15, abs=0.04)


def test_a_late_clips_direction_is_not_told():
    captions = [c for k in range(30) for video, group, _ in datasets.WorldDataset(replace(MIX, window_prob=0.0))[k] if video.shape[1] > 1 for c in group]
    assert {len(c.split()) for c in captions} == {0, 3, 5, 6}  # nothing, a thing, its speed, its direction too
    assert np.mean([len(c.split()) < 6 for c in captions]) == pytest.approx(0.4, abs=0.1)
    assert {len(c.split()) for k in range(30) for video, group, _ in datasets.WorldDataset(MIX)[k] if video.shape[1] == 1 for c in group} == {0, 3}


def test_a_window_begins_with_a_memory_and_its_drift_ends_where_the_given_frames_do():
    thing = scenes.Thing("square", "red", 0.2, (0.5, 0.5), "right", "slowly")
    source = datasets.WorldDataset(Config(lengths="25", late_prob=1.0, window_prob=1.0))
    drift = []
    for k in range(40):
        video, caption, given = source.make_window(np.random.default_rng(k), scenes.Scene([thing]), 25, 32, 64)
        track, last = reader.read(video)["track"][:, 0], 4 * given - 4
        pace = abs(np.diff(track)) / (scenes.SPEEDS["slowly"] * 32 / 12)              # 1 is right; less where it turns
        assert caption == "a red square moving slowly" and 3 <= given <= 6
        assert max(pace[last:]) < 1.1 and np.median(pace[last:]) > 0.9 and 0.55 < np.median(pace[1:last]) < 1.45
        drift.append((np.median(pace[1:last]), (reader.read(video[1 : last + 1])["area"].mean() / reader.read(video[last + 1 :])["area"].mean()) ** 0.5))
    assert np.min(drift, 0) == pytest.approx((0.6, 0.85), abs=0.1) and np.max(drift, 0) == pytest.approx((1.4, 1.15), abs=0.1)


def test_broken_files_are_named_once_and_skipped(folder, capfd):
    source = datasets.make_dataset(replace(CONFIG, data=str(folder)))
    assert source.vocab() == ["a", "b", "broken", "clip", "never", "read", "short"]
    captions = {c for k in range(20) for _, group, _ in source[k] for c in group}
    err = capfd.readouterr().err
    assert captions == {"clip a", "clip b"}
    for name, why in (("broken", "Invalid data"), ("short", "0.20 s long; 5 frames at 10 per second need 0.40 s"), ("silent", "no readable caption")):
        lines = [line for line in err.splitlines() if f"{name}.mp4" in line]
        assert len(lines) == 1 and why in lines[0]


def test_a_clip_keeps_its_own_framing_and_a_length_that_it_has(folder):
    config = replace(CONFIG, data=str(folder), lengths="5 13 65", sizes="16x40 40x16", image_prob=0.2)
    shapes = {(tuple(video.shape[1:4]), c) for k in range(20) for video, group, _ in datasets.make_dataset(config)[k] for c in group}
    lengths = {name: {T for (T, *_), c in shapes if c == f"clip {name}"} for name in ("a", "b", "short")}
    assert lengths == {"a": {1, 5, 13}, "b": {1, 5, 13}, "short": {1}}                            # an image of it will do
    assert {(H, W) for (_, H, W), c in shapes if c == "clip a"} == {(16, 40)} and {(H, W) for (_, H, W), c in shapes if c == "clip b"} == {(40, 16)}


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(BadInput, match="expected 'world' or a folder"):
        datasets.make_dataset(Config(data=str(tmp_path / "nowhere")))
    with pytest.raises(BadInput, match="not one clip"):
        datasets.make_dataset(Config(data=str(tmp_path)))[0]


def test_a_windows_memory_is_up_to_a_minute_old(monkeypatch):
    memories = []

    def render(scene, frames, height, width, fps, times, size_factor):
        memories.append(times[0])

    monkeypatch.setattr(datasets, "render", render)
    source = datasets.WorldDataset(CONFIG)
    scene = scenes.Scene([scenes.Thing("square", "red", 0.2, (0.5, 0.5), "right", "slowly")])
    for k in range(40):
        source.make_window(np.random.default_rng(k), scene, 25, 32, 64)
    assert -60 <= min(memories) < -40 and -20 < max(memories) < 0

from dataclasses import replace

import numpy as np
import pytest
import torch

import clips
import data
import sample
from config import BadInput, Config, tokens

CONFIG = Config(frames=5, height=16, width=24, fps=10.0, dit_tokens=200)
MIX = replace(CONFIG, lengths="5 9", sizes="16x24 24x16 16x40", image_share=0.3, late_share=0.4)


def test_batch_k_is_a_function_of_seed_and_k():
    source = data.World(MIX)
    batches = data.stream(source, 0)
    first = [next(batches) for _ in range(3)]
    again = data.stream(source, 2)
    equal = lambda a, b: all(torch.equal(v, w) and c == list(d) for (v, c), (w, d) in zip(a, b, strict=True))
    assert equal(next(again), first[2])
    by_workers = data.stream(source, 0, workers=2)
    assert all(equal(batch, next(by_workers)) for batch in first)
    other = data.World(replace(MIX, seed=1))[0]
    assert [c for _, c in other] != [c for _, c in first[0]] != [c for _, c in first[1]]


def test_the_vaes_batches_vary_in_shape_and_have_about_as_many_pixels():
    source, seen = data.World(MIX, "vae"), set()
    for k in range(100):
        (video, _), = source[k]
        B, T, H, W, _ = video.shape
        seen.add((T, H, W))
        assert B == 1 or 0.6 < B * T * H * W / (MIX.vae_batch * 5 * 16 * 24) < 1.6
    assert seen == {(T, *size) for T in (1, 5, 9) for size in ((16, 24), (24, 16), (16, 40))}


def test_a_batch_is_a_number_of_tokens_and_nearly_none_is_wasted():
    config = Config(lengths="9 17 33", sizes="32x32 32x56 56x32 24x32", image_share=0.2, late_share=0.25, dit_tokens=4096)
    source, shares, images, clips, nameless = data.World(config), [], 0, 0, 0
    source.clip = lambda rng, which, *shape: (np.zeros((*shape, 0)), "")  # only what is drawn is looked at
    for k in range(1000):
        batch = source[k]
        shares.append(sum(tokens(config, *video.shape[1:4]) * len(video) for video, _ in batch) / config.dit_tokens)
        images += sum(len(video) for video, _ in batch if video.shape[1] == 1)
        clips += sum(len(video) for video, _ in batch)
    assert np.mean(shares) >= 0.98 and max(shares) <= 1 and images / clips == pytest.approx(0.2, abs=0.04)


def test_only_clips_that_show_it_from_the_start_are_told_to_move():
    captions = [c for k in range(30) for video, group in data.World(MIX)[k] if video.shape[1] > 1 for c in group]
    assert {len(c.split()) for c in captions} == {0, 3, 6}
    assert np.mean([len(c.split()) < 6 for c in captions]) == pytest.approx(0.4, abs=0.1)
    assert {len(c.split()) for k in range(30) for video, group in data.World(MIX)[k] if video.shape[1] == 1 for c in group} == {0, 3}


def test_floats_and_bytes():
    video = torch.randint(0, 256, (2, 5, 8, 12, 3), dtype=torch.uint8)
    x = clips.to_float(video)
    assert x.shape == (2, 3, 5, 8, 12) and x.min() >= -1 and x.max() <= 1 and (clips.to_uint8(x) == video.numpy()).all()


@pytest.fixture
def folder(tmp_path):
    """Clips that brighten from frame to frame: a picture says which frame it was."""
    for name, fps, frames, h, w in (("a", 30, 60, 18, 46), ("b", 10, 20, 40, 20), ("short", 10, 2, 16, 16)):
        grey = np.broadcast_to((255 // frames * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, h, w, 3))
        clips.write(tmp_path / f"{name}.mp4", grey, fps)
        (tmp_path / f"{name}.txt").write_text(f"clip {name}\n")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "broken.txt").write_text("broken, never read")
    clips.write(tmp_path / "silent.mp4", np.zeros((9, 16, 16, 3), np.uint8), 10)
    return tmp_path


def test_a_folder_gives_frame_exact_windows_at_the_configs_rate(folder):
    for name, fps, frames in (("a", 30, 60), ("b", 10, 20)):
        starts = set()
        for seed in range(8):
            clip = clips.read(folder / f"{name}.mp4", 5, 16, 24, 10.0, np.random.default_rng(seed))
            assert clip.shape == (5, 16, 24, 3) and np.ptp(clip, axis=(1, 2, 3)).max() <= 3
            shown = np.round(clip.mean(axis=(1, 2, 3)) / (255 // frames))
            assert (np.diff(shown) == fps / 10).all()  # 30 frames a second read at 10: every third
            starts.add(shown[0])
        assert len(starts) > 3


def test_broken_files_are_named_once_and_skipped(folder, capfd):
    source = data.source(replace(CONFIG, data=str(folder)))
    assert source.words() == ["a", "b", "broken", "clip", "never", "read", "short"]
    captions = {c for k in range(20) for _, group in source[k] for c in group}
    err = capfd.readouterr().err
    assert captions == {"clip a", "clip b"}
    for name, why in (("broken", "Invalid data"), ("short", "0.20 s long; 5 frames at 10 per second need 0.40 s"), ("silent", "no readable caption")):
        lines = [line for line in err.splitlines() if f"{name}.mp4" in line]
        assert len(lines) == 1 and why in lines[0]


def test_a_clip_keeps_its_own_framing_and_a_length_that_it_has(folder):
    config = replace(CONFIG, data=str(folder), lengths="5 13 65", sizes="16x40 40x16", image_share=0.2)
    shapes = {(tuple(video.shape[1:4]), c) for k in range(20) for video, group in data.source(config)[k] for c in group}
    lengths = {name: {T for (T, *_), c in shapes if c == f"clip {name}"} for name in ("a", "b", "short")}
    assert lengths == {"a": {1, 5, 13}, "b": {1, 5, 13}, "short": {1}}                            # an image of it will do
    assert {(H, W) for (_, H, W), c in shapes if c == "clip a"} == {(16, 40)} and {(H, W) for (_, H, W), c in shapes if c == "clip b"} == {(40, 16)}


def test_anything_that_shows_can_be_opened(folder):
    grey = clips.open_clip(folder / "b.mp4", CONFIG, (40, 20))
    assert grey.shape == (20, 40, 20, 3) and np.ptp(grey, axis=(1, 2, 3)).max() <= 3
    assert len(clips.open_clip(folder / "a.mp4", CONFIG)) == 20                                   # 60 frames at 30 a second, read at 10
    picture = np.zeros((20, 64), np.uint8)
    picture[:, 16:48] = 200                                                                      # the middle: 32 wide, scaled by 0.8
    clips.Image.fromarray(picture).save(folder / "p.png")
    still = clips.open_clip(folder / "p.png", CONFIG, (16, 24))
    assert still.shape == (1, 16, 24, 3) and (still == 200).mean() > 0.95
    for ending in ("gif", "webp"):  # their own frames come back one by one; those that are alike are stored as one, shown longer
        video = np.arange(24, dtype=np.uint8)[:, None, None, None] // 2 * 20 + np.zeros((1, 16, 24, 3), np.uint8)
        clips.write(folder / f"own.{ending}", video, 12.0)
        back = clips.open_clip(folder / f"own.{ending}", replace(CONFIG, fps=12.0), (16, 24))
        assert len(back) == 24 and abs(back.astype(int) - video).max() <= 8
    clips.Image.fromarray(np.dstack([np.full((16, 24), 90, np.uint8)] * 2), "LA").save(folder / "la.png")
    assert clips.open_clip(folder / "la.png", CONFIG).shape == (1, 16, 24, 3)
    for name in ("broken.mp4", "a.txt", "nowhere.gif", "."):
        with pytest.raises(BadInput, match="not a picture or clip that can be read"):
            clips.open_clip(folder / name, CONFIG)


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(BadInput, match="expected 'world' or a folder"):
        data.source(Config(data=str(tmp_path / "nowhere")))
    with pytest.raises(BadInput, match="not one clip"):
        data.source(Config(data=str(tmp_path)))[0]

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from config import BadInput, Config
from data import video_io

CONFIG = Config(frames=5, height=16, width=24, fps=10.0, dit_tokens=200)


def test_floats_and_bytes():
    video = torch.randint(0, 256, (2, 5, 8, 12, 3), dtype=torch.uint8)
    x = video_io.to_float(video)
    assert x.shape == (2, 3, 5, 8, 12) and x.min() >= -1 and x.max() <= 1 and (video_io.to_uint8(x) == video.numpy()).all()


def test_a_folder_gives_frame_exact_windows_at_the_configs_rate(folder):
    for name, fps, frames in (("a", 30, 60), ("b", 10, 20)):
        starts = set()
        for seed in range(8):
            clip = video_io.read_window(folder / f"{name}.mp4", 5, 16, 24, 10.0, np.random.default_rng(seed))
            assert clip.shape == (5, 16, 24, 3) and np.ptp(clip, axis=(1, 2, 3)).max() <= 3
            shown = np.round(clip.mean(axis=(1, 2, 3)) / (255 // frames))
            assert (np.diff(shown) == fps / 10).all()  # 30 frames a second read at 10: every third
            starts.add(shown[0])
        assert len(starts) > 3


def test_anything_that_shows_can_be_opened(folder):
    grey = video_io.open_clip(folder / "b.mp4", CONFIG, (40, 20))
    assert grey.shape == (20, 40, 20, 3) and np.ptp(grey, axis=(1, 2, 3)).max() <= 3
    assert len(video_io.open_clip(folder / "a.mp4", CONFIG)) == 20                                   # 60 frames at 30 a second, read at 10
    picture = np.zeros((20, 64), np.uint8)
    picture[:, 16:48] = 200                                                                      # the middle: 32 wide, scaled by 0.8
    video_io.Image.fromarray(picture).save(folder / "p.png")
    still = video_io.open_clip(folder / "p.png", CONFIG, (16, 24))
    assert still.shape == (1, 16, 24, 3) and (still == 200).mean() > 0.95
    for ending in ("gif", "webp"):  # their own frames come back one by one; those that are alike are stored as one, shown longer
        video = np.arange(24, dtype=np.uint8)[:, None, None, None] // 2 * 20 + np.zeros((1, 16, 24, 3), np.uint8)
        video_io.write_clip(folder / f"own.{ending}", video, 12.0)
        back = video_io.open_clip(folder / f"own.{ending}", replace(CONFIG, fps=12.0), (16, 24))
        assert len(back) == 24 and abs(back.astype(int) - video).max() <= 8
    video_io.Image.fromarray(np.dstack([np.full((16, 24), 90, np.uint8)] * 2), "LA").save(folder / "la.png")
    assert video_io.open_clip(folder / "la.png", CONFIG).shape == (1, 16, 24, 3)
    for name in ("broken.mp4", "a.txt", "nowhere.gif", "."):
        with pytest.raises(BadInput, match="not a picture or clip that can be read"):
            video_io.open_clip(folder / name, CONFIG)


@pytest.mark.parametrize("ending", video_io.ENDINGS)
def test_every_format_comes_back_with_its_note(tmp_path, ending):
    video = np.zeros((5, 8, 16, 3), np.uint8)
    for k in range(4):  # a format may join frames that are alike
        video[k, 2:6, 4 : 9 + k] = (225, 50, 45)
    video[4] = 255
    path = tmp_path / f"clip{ending}"
    video_io.write_clip(path, video, 12, 4, "a note | seed 3")
    back = iio.imread(path, index=0 if ending == ".png" else ..., plugin="pyav" if ending == ".mp4" else "pillow")[..., :3]
    if ending == ".png":
        assert back.shape == (8 * 4 + 2, 5 * (16 * 4 + 2), 3)
    else:
        assert back.shape == (5, 32, 64, 3) and abs(back[0, 16, 24].astype(int) - (225, 50, 45)).max() < 12 and back[4].min() > 240
    if ending == ".mp4":
        with iio.imopen(path, "r", plugin="pyav") as file:
            assert file.container_metadata["comment"] == "a note | seed 3"
    else:
        with Image.open(path) as image:
            notes = image.info.get("comment", b"").decode(), image.info.get("Description"), image.getexif().get(270)
        assert "a note | seed 3" in notes


@pytest.mark.parametrize("H, W, height, width", [(18, 46, 16, 24), (40, 20, 16, 24), (7, 9, 16, 24), (16, 24, 16, 24), (1, 100, 8, 8)])
def test_what_is_scaled_covers_the_size_and_not_more_than_it_must(H, W, height, width):
    h, w, top, left = video_io.cover_crop(H, W, height, width)
    assert h >= height and w >= width and (h == height or w == width) and abs(h / H - w / W) < 1 / min(H, W)
    assert top == (h - height) // 2 and left == (w - width) // 2


def test_the_nearest_size_keeps_the_framing():
    sizes = [(32, 32), (32, 56), (56, 32), (24, 32)]
    for ratio, size in ((16 / 9, (32, 56)), (9 / 16, (56, 32)), (4 / 3, (24, 32)), (1.0, (32, 32)), (10.0, (32, 56))):
        assert video_io.nearest_size(sizes, ratio) == size


@pytest.mark.parametrize("path, why", [("x.avi", "expected a file that ends in"), ("folder.gif", "is a folder"), ("file/x.gif", "cannot be written"), ("odd.mp4", "mp4 needs even sides, not 33x32")])
def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path, path, why):
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=why):
        video_io.check_output_path(tmp_path / path, 33, 32)


def test_a_red_clip_is_red_in_training(tmp_path):
    video = np.zeros((12, 16, 24, 3), np.uint8)
    video[..., 0] = 220
    video_io.write_clip(tmp_path / "red.mp4", video, 12.0)
    clip = video_io.read_window(tmp_path / "red.mp4", 5, 16, 24, 12.0, np.random.default_rng(0))
    assert clip[..., 0].min() > 200 and clip[..., 2].max() < 20

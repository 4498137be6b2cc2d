import numpy as np
import pytest
import torch

import data
import sample
from config import BadInput, Config

CONFIG = Config(frames=5, height=16, width=24, fps=10.0)


def test_batch_k_is_a_function_of_seed_and_k():
    source = data.World(CONFIG, 3)
    batches = data.stream(source, 0)
    first = [next(batches) for _ in range(3)]
    again = data.stream(source, 2)
    assert torch.equal(next(again)[0], first[2][0]) and not torch.equal(first[0][0], first[1][0])
    by_workers = data.stream(source, 0, workers=2)
    for video, captions in first:
        v, c = next(by_workers)
        assert torch.equal(v, video) and list(c) == captions
    assert not torch.equal(data.World(Config(**vars(CONFIG) | {"seed": 1}), 3)[0][0], first[0][0])


def test_lengths_vary_and_the_work_stays_the_same():
    source, seen = data.World(CONFIG, 4, lengths=True), set()
    for k in range(20):
        B, T, H, W, C = source[k][0].shape
        seen.add(T)
        assert (H, W, C) == (16, 24, 3) and B == 4 * 5 // T
    assert seen == {1, 5}


def test_floats_and_bytes():
    video = torch.randint(0, 256, (2, 5, 8, 12, 3), dtype=torch.uint8)
    x = data.to_float(video)
    assert x.shape == (2, 3, 5, 8, 12) and x.min() >= -1 and x.max() <= 1 and (data.to_uint8(x) == video.numpy()).all()


@pytest.fixture
def folder(tmp_path):
    """Clips that brighten from frame to frame: a picture says which frame it was."""
    for name, fps, frames, h, w in (("a", 30, 60, 18, 46), ("b", 10, 20, 40, 20), ("short", 10, 2, 16, 16)):
        grey = np.broadcast_to((255 // frames * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, h, w, 3))
        sample.write(tmp_path / f"{name}.mp4", grey, fps)
        (tmp_path / f"{name}.txt").write_text(f"clip {name}\n")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "broken.txt").write_text("broken, never read")
    sample.write(tmp_path / "silent.mp4", np.zeros((9, 16, 16, 3), np.uint8), 10)
    return tmp_path


def test_a_folder_gives_frame_exact_windows_at_the_configs_rate(folder):
    for name, fps, frames in (("a", 30, 60), ("b", 10, 20)):
        starts = set()
        for seed in range(8):
            clip = data.read(folder / f"{name}.mp4", 5, 16, 24, 10.0, np.random.default_rng(seed))
            assert clip.shape == (5, 16, 24, 3) and np.ptp(clip, axis=(1, 2, 3)).max() <= 3
            shown = np.round(clip.mean(axis=(1, 2, 3)) / (255 // frames))
            assert (np.diff(shown) == fps / 10).all()  # 30 frames a second read at 10: every third
            starts.add(shown[0])
        assert len(starts) > 3


def test_broken_files_are_named_once_and_skipped(folder, capfd):
    source = data.source(Config(**vars(CONFIG) | {"data": str(folder)}), 4)
    assert source.words() == ["a", "b", "broken", "clip", "never", "read", "short"]
    captions = {c for k in range(20) for c in source[k][1]}
    err = capfd.readouterr().err
    assert captions == {"clip a", "clip b"}
    for name, why in (("broken", "Invalid data"), ("short", "0.20 s long; 5 frames at 10 per second need 0.40 s"), ("silent", "no readable caption")):
        lines = [line for line in err.splitlines() if f"{name}.mp4" in line]
        assert len(lines) == 1 and why in lines[0]


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(BadInput, match="expected 'world' or a folder"):
        data.source(Config(data=str(tmp_path / "nowhere")), 1)
    with pytest.raises(BadInput, match="not one clip"):
        data.source(Config(data=str(tmp_path)), 1)[0]

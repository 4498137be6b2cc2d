"""Everything that the announcement does with frames, on a network that was hardly trained: what is given stays, and all of it is used."""
import numpy as np
import pytest
import torch

import sample
from data import video_io

PROMPTS = ["a red circle moving left slowly", "a blue square moving up quickly"]


def clip(T, H=8, W=16):
    """Two clips of which every frame is different."""
    return (np.arange(2 * T, dtype=np.uint8).reshape(2, T, 1, 1, 1) * 3 + np.zeros((1, 1, H, W, 3), np.uint8))


def watch(monkeypatch):
    """What `complete` is called with: which frames are known, the prompts."""
    calls, real = [], sample.complete
    monkeypatch.setattr(sample, "complete", lambda model, prompts, video, known, *rest, **how: calls.append(("".join(".#"[int(k)] for k in known), prompts[0])) or real(model, prompts, video, known, *rest, **how))
    return calls


def test_known_frames_come_back_as_they_were_and_the_network_sees_them(model):
    video, known = clip(9), np.arange(9) < 5
    made = sample.complete(model, ["", ""], video, known)
    assert (made[:, :5] == video[:, :5]).all() and (made[:, 5:] != video[:, 5:]).any()
    assert (sample.complete(model, ["", ""], 255 - video, known)[:, 5:] != made[:, 5:]).any()
    unknown = np.where(known[None, :, None, None, None], video, 77).astype(np.uint8)
    assert (sample.complete(model, ["", ""], unknown, known) == made).all()  # what stands in unknown frames plays no part


def test_the_decoded_first_frame_is_the_vaes_own_picture_of_it(model, monkeypatch):
    still = clip(1)
    monkeypatch.setattr(sample.np, "where", lambda stay, video, made: made)  # as decoded, before the given frames are put back
    made = sample.complete(model, ["", ""], np.repeat(still, 5, 1), np.arange(5) < 1)
    x = video_io.to_float(still)
    assert abs(made[:, :1].astype(int) - video_io.to_uint8(model.vae.decode(model.vae.encode(x)[0])).astype(int)).max() <= 1


def test_an_edit_of_little_strength_changes_little(model):
    video = clip(5)
    plain = video_io.to_uint8(model.vae.decode(model.vae.encode(video_io.to_float(video))[0])).astype(int)
    little, much = (abs(sample.complete(model, ["", ""], video, np.ones(5, bool), strength) - plain).mean() for strength in (0.02, 0.9))
    assert little < 0.2 * much


@pytest.mark.parametrize("T, more, backward, windows", [
    (0, 5, False, ["....."]), (1, 4, False, ["#...."]), (5, 4, False, ["#####...."]), (20, 2, False, ["#" * 9 + "...."]), (3, 3, False, ["#...."]),
    (0, 29, False, ["." * 13, "#####........", "#####........"]), (8, 4, True, [".....########"]), (30, 9, True, [".....########", ".....########"])])
def test_windows_are_as_long_as_they_need_to_be_and_overlap(model, monkeypatch, T, more, backward, windows):
    monkeypatch.setattr(model.config, "frames", 13)
    calls, video = watch(monkeypatch), clip(T)
    made = sample.extend(model, PROMPTS, video, more, backward, then=["a circle"] * 2)
    assert made.shape == (2, T + more, 8, 16, 3) and (made[:, more:] == video if backward else made[:, :T] == video).all()
    assert calls == [(window, PROMPTS[0] if i == 0 else "a circle") for i, window in enumerate(windows)]


def test_a_later_window_begins_with_the_videos_first_frame(model, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    monkeypatch.setattr(model.config, "window_prob", 0.5)
    seen, real, video = [], sample.complete, clip(14)
    monkeypatch.setattr(sample, "complete", lambda model, prompts, video, *rest, **how: seen.append(video) or real(model, prompts, video, *rest, **how))
    made = sample.extend(model, ["", ""], video, 16)
    for window, end in zip(seen, (14, 22)):  # frames 0 and end - 4 ... end - 1 are given
        assert (window[:, 0] == video[:, 0]).all() and (window[:, 1:5] == made[:, end - 4 : end]).all()


@pytest.mark.parametrize("T, gap, window, new", [
    (13, (1, 4), "#....########", (1, 4)), (13, (5, 6), "#####....####", (5, 8)), (40, (17, 20), "#####....####", (17, 20)), (40, (3, 3), "#....########", (3, 6)), (14, (6, 9), "#####....####", (6, 9))])
def test_a_gap_is_filled_in_whole_latent_frames_with_all_that_fits_around_it(model, monkeypatch, T, gap, window, new):
    monkeypatch.setattr(model.config, "frames", 13)
    calls, video = watch(monkeypatch), clip(T)
    made, last = sample.fill(model, ["", ""], video, *gap)
    kept = np.r_[: new[0], new[1] + 1 : T]
    assert [call for call, _ in calls] == [window] and last == new[1]
    assert (made[:, kept] == video[:, kept]).all() and (made[:, new[0] : new[1] + 1] != video[:, new[0] : new[1] + 1]).any()


def test_every_mode_from_the_command_line(command, checkpoint, tmp_path):
    video_io.write_clip(tmp_path / "a.mp4", clip(9)[0], 12.0)
    video_io.write_clip(tmp_path / "five.mp4", clip(5)[0], 12.0)
    video_io.write_clip(tmp_path / "b.gif", clip(9, 8, 24)[1] // 3 * 2 + np.arange(24, dtype=np.uint8)[:, None], 12.0)
    video_io.write_clip(tmp_path / "p.png", clip(1)[0], 12.0)
    for words, frames in ((["--image", "p.png", "--frames", 5], 5), (["--image", "p.png", "--seconds", 0.5], 9), (["--video", "a.mp4", "--extend", "forward", 1], 21),
                          (["--video", "a.mp4", "--extend", "backward", 0.5], 15), (["--edit", "five.mp4", "--prompt", "red"], 5), (["--seconds", 1], 13),
                          (["--video", "b.gif", "--extend", "forward", "0.1", "--prompt", "red", "blue"], None)):
        code, out, err = command(sample, *words, "--checkpoint", checkpoint, "--out", "x.webp", "--zoom", 1)
        assert code == 0 and (frames is None or f": {frames} frames of 8x16" in out), err
    assert {"x.webp", "x-0.webp", "x-1.webp"} <= {p.name for p in tmp_path.iterdir()}
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"frames": 17}}, tmp_path / "long.pt")
    for words, frames, new in ((["--video", "a.mp4", "--fill", "1-2"], 9, "1 to 4"), (["--connect", "a.mp4", "b.gif", 0.3], None, "9 to 12")):
        code, out, err = command(sample, *words, "--checkpoint", "long.pt", "--out", "x.gif")
        assert code == 0 and (frames is None or f": {frames} frames" in out) and (frames or f"frames {new} are new" in out), err

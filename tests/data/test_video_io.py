"""Files and arrays: what is written comes back, in its colours, at its pace and with its note.

Most clips here brighten from frame to frame, so a frame tells by its grey which one it was.
"""
from config import BadInput, Config

import os
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from data import video_io
from data.video_io import (
    BORDER,
    ENDINGS,
    GAP,
    GREEN,
    GREY,
    STILL_ENDINGS,
    check_output_path,
    cover_crop,
    duration,
    film_grid,
    film_strip,
    fit_frame,
    frames_at,
    label,
    nearest_size,
    open_clip,
    plain_strip,
    probe,
    read_frames,
    read_window,
    to_float,
    to_uint8,
    write_clip,
)

CONFIG = Config(frames=5, height=16, width=24, fps=10.0)
RED = (225, 50, 45)


def brightening(frames, height=16, width=24):
    """(T, H, W, 3) uint8, from black to nearly white, in steps that a codec leaves apart."""
    greys = 255 // frames * np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (frames, height, width, 3)).copy()


def frame_numbers(video, frames):
    """Which ones of a brightening clip's `frames` frames these are."""
    greys = video.mean(axis=(1, 2, 3))
    return np.round(greys / (255 // frames)).astype(int).tolist()


def slope(height, width):
    """(H, W, 3) uint8, an orange brighter to the right and the bottom: a crop shows where it was made."""
    rows, columns = np.indices((height, width))
    red = 3 * rows + 2 * columns
    return np.stack([red, red // 2, 0 * red], axis=-1).astype(np.uint8)


def largest_difference(one, other):
    return abs(one.astype(int) - other).max()


class FixedRng:
    """Draws the smallest or the largest number it may."""

    def __init__(self, largest):
        self.largest = largest

    def uniform(self, low, high):
        return high if self.largest else low


EARLIEST = FixedRng(largest=False)
LATEST = FixedRng(largest=True)


@pytest.fixture(scope="module")
def moving():
    """(T, H, W, 3) uint8: a red bar that grows over black; frames that are alike would be joined."""
    video = np.zeros((5, 8, 16, 3), np.uint8)
    for k in range(5):
        video[k, 2:6, 4 : 9 + k] = RED
    return video


@pytest.fixture(scope="module")
def clips(tmp_path_factory, moving):
    """A folder of clips that last two seconds; bar.mp4 lasts half a second, and short.mp4 0.2."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "fast.mp4", brightening(60, 18, 46), 30)
    write_clip(folder / "slow.mp4", brightening(20, 40, 20), 10)
    write_clip(folder / "short.mp4", brightening(2), 10)
    write_clip(folder / "bar.mp4", moving, 10, zoom=4)

    still = np.broadcast_to(slope(32, 64), (20, 32, 64, 3))
    write_clip(folder / "slope.mp4", still, 10)
    return folder


# Bytes and floats


def test_bytes_come_back_from_floats():
    video = torch.randint(0, 256, (2, 5, 8, 12, 3), dtype=torch.uint8)
    assert (to_uint8(to_float(video)) == video.numpy()).all()


def test_floats_have_their_channels_first_and_reach_from_minus_one_to_one():
    video = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 12, 3), dtype=np.uint8)
    expected = np.moveaxis(video, -1, 1) / 255 * 2 - 1
    assert to_float(video).shape == (2, 3, 5, 8, 12)
    assert abs(to_float(video).numpy() - expected).max() < 1e-6


def test_bytes_saturate():
    x = torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1, 1).expand(2, 3, 1, 8, 12)
    assert to_uint8(x)[0].max() == 0
    assert to_uint8(x)[1].min() == 255


@pytest.mark.parametrize("level, byte", [(100.4, 100), (100.6, 101)])
def test_bytes_are_rounded_to_the_nearest(level, byte):
    x = torch.full((1, 3, 1, 8, 12), level / 127.5 - 1)
    assert (to_uint8(x) == byte).all()


# Sizes


@pytest.mark.parametrize("ratio, size", [
    (16 / 9, (32, 56)), (9 / 16, (56, 32)), (4 / 3, (24, 32)), (1.0, (32, 32)), (10.0, (32, 56)),
])
def test_the_nearest_size_keeps_the_framing(ratio, size):
    assert nearest_size([(32, 32), (32, 56), (56, 32), (24, 32)], ratio) == size


@pytest.mark.parametrize("ratio, size", [(1.9, (16, 16)), (2.1, (16, 64))])
def test_aspect_ratios_are_compared_by_their_quotient(ratio, size):
    # Between 1 and 4 the middle is 2: twice the one and half the other.
    assert nearest_size([(16, 16), (16, 64)], ratio) == size


SIZES = [
    (18, 46, 16, 24), (40, 20, 16, 24), (7, 9, 16, 24), (11, 9, 16, 24), (16, 24, 16, 24), (1, 100, 8, 8),
]


@pytest.mark.parametrize("H, W, height, width", SIZES)
def test_what_is_scaled_covers_the_size_and_not_more_than_it_must(H, W, height, width):
    scaled_height, scaled_width, _, _ = cover_crop(H, W, height, width)
    assert scaled_height >= height
    assert scaled_width >= width
    assert scaled_height == height or scaled_width == width


@pytest.mark.parametrize("H, W, height, width", SIZES)
def test_scaling_squeezes_nothing(H, W, height, width):
    scaled_height, scaled_width, _, _ = cover_crop(H, W, height, width)
    scale = scaled_height / H if scaled_height == height else scaled_width / W
    assert abs(scaled_height - scale * H) <= 0.5
    assert abs(scaled_width - scale * W) <= 0.5


@pytest.mark.parametrize("H, W, height, width", SIZES)
def test_as_much_is_cropped_before_as_after(H, W, height, width):
    scaled_height, scaled_width, top, left = cover_crop(H, W, height, width)
    assert 0 <= (scaled_height - height) - 2 * top <= 1
    assert 0 <= (scaled_width - width) - 2 * left <= 1


# One picture in the size that is asked for


def test_the_middle_of_a_wide_frame_is_kept():
    frame = slope(16, 64)
    assert (fit_frame(frame, 16, 24) == frame[:, 20:44]).all()


def test_the_middle_of_a_high_frame_is_kept():
    frame = slope(64, 24)
    assert (fit_frame(frame, 16, 24) == frame[24:40]).all()


def test_a_smaller_frame_is_the_average_of_its_pixels():
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    averages = frame.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    assert abs(fit_frame(frame, 8, 12) - averages).max() <= 0.5


def test_in_a_larger_frame_pixels_stay_pixels():
    frame = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    assert (fit_frame(frame, 16, 24) == frame.repeat(2, 0).repeat(2, 1)).all()


# Anything that shows can be opened


@pytest.mark.parametrize("fps, frames", [
    (10.0, range(1, 60, 3)), (30.0, range(60)), (60.0, [0, 0, 1, 1, 2, 2]),
])
def test_each_frame_shows_what_is_on_screen_in_the_middle_of_its_time(clips, fps, frames):
    video = open_clip(clips / "fast.mp4", replace(CONFIG, fps=fps))
    assert len(video) == 2 * fps
    assert frame_numbers(video, 60)[: len(frames)] == list(frames)


def test_a_clip_takes_the_training_size_nearest_to_its_own_shape(clips):
    config = replace(CONFIG, sizes="16x40 40x16 24x24")
    assert open_clip(clips / "fast.mp4", config).shape == (20, 16, 40, 3)
    assert open_clip(clips / "slow.mp4", config).shape == (20, 40, 16, 3)


def test_a_clip_keeps_its_colours(clips):
    video = open_clip(clips / "slope.mp4", CONFIG, (32, 64))
    assert largest_difference(video, slope(32, 64)) <= 6


def test_a_size_that_is_asked_for_is_what_comes(clips):
    assert open_clip(clips / "slow.mp4", CONFIG, (12, 28)).shape == (20, 12, 28, 3)


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    frame = slope(16, 24)
    iio.imwrite(tmp_path / "still.png", frame)
    assert (open_clip(tmp_path / "still.png", CONFIG) == frame[None]).all()


def test_a_picture_that_claims_to_last_is_one_frame_all_the_same(tmp_path):
    Image.new("RGB", (24, 16)).save(tmp_path / "still.gif", duration=2000)
    assert len(open_clip(tmp_path / "still.gif", CONFIG)) == 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_pictures_of_every_kind_become_red_green_and_blue(tmp_path, mode):
    Image.new("L", (24, 16), 90).convert(mode).save(tmp_path / "picture.png")
    assert (open_clip(tmp_path / "picture.png", CONFIG) == np.full((1, 16, 24, 3), 90)).all()


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:, :12] = 255
    exif = Image.Exif()
    exif[274] = 6  # orientation: turn it a quarter, clockwise
    Image.fromarray(picture).save(tmp_path / "photograph.png", exif=exif)
    photograph = open_clip(tmp_path / "photograph.png", CONFIG, (24, 16))
    assert (photograph[0] == np.rot90(picture, -1)).all()


@pytest.mark.parametrize("frames, milliseconds, expected", [
    (20, 104, 20),  # within 5 % of one of our frames
    (20, 106, 21),  # 1.06 of our frames, 20 times
    (10, 312, 30),  # within 5 % of three
    (10, 318, 32),  # 3.18 of ours, 10 times
    (10, 160, 16),  # 1.6 of ours, 10 times
    (2, 300, 6),    # two frames are a clip already
    (4, 0, 4),      # a file that does not say
    (2, 10, 1),     # less than one of ours in all
])
def test_times_near_whole_frames_are_whole_frames(tmp_path, frames, milliseconds, expected):
    iio.imwrite(tmp_path / "clip.webp", brightening(frames), duration=milliseconds, lossless=True)
    assert len(open_clip(tmp_path / "clip.webp", CONFIG)) == expected


def test_the_pages_of_a_file_without_times_are_a_frame_each(tmp_path):
    pages = [Image.new("RGB", (24, 16)) for _ in range(4)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    assert len(open_clip(tmp_path / "pages.tiff", CONFIG)) == 4


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_that_a_file_joined_because_they_are_alike_come_back_one_by_one(tmp_path, ending):
    video = brightening(12).repeat(2, 0)
    write_clip(tmp_path / f"clip.{ending}", video, 12.0)
    again = open_clip(tmp_path / f"clip.{ending}", replace(CONFIG, fps=12.0))
    assert frame_numbers(again, 12) == np.arange(12).repeat(2).tolist()


@pytest.mark.parametrize("name", ["broken.mp4", "words.txt", "nowhere.gif", "."])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "words.txt").write_text("a red circle")
    with pytest.raises(BadInput, match="not a picture or clip that can be read [(].+[)]$") as caught:
        open_clip(tmp_path / name, CONFIG)
    assert "\n" not in str(caught.value)


def test_a_long_reason_is_cut_short(monkeypatch):
    def decode(path):
        raise ValueError(1000 * "x" + "\nand more")

    monkeypatch.setattr(video_io, "decode_frames", decode)
    with pytest.raises(BadInput, match="[(]x{100}[)]$"):
        list(read_frames("clip.mp4"))


def test_an_error_without_words_is_called_by_its_name(monkeypatch):
    def decode(path):
        raise ZeroDivisionError

    monkeypatch.setattr(video_io, "decode_frames", decode)
    with pytest.raises(BadInput, match="[(]ZeroDivisionError[)]"):
        list(read_frames("clip.mp4"))


def test_a_file_without_a_frame_is_refused(monkeypatch):
    monkeypatch.setattr(video_io, "decode_frames", lambda path: iter([]))
    with pytest.raises(BadInput, match="no frame in it"):
        list(read_frames("clip.mp4"))


# What a clip is, without decoding it


def test_a_probe_tells_the_aspect_ratio_and_the_seconds(clips):
    assert probe(clips / "fast.mp4") == pytest.approx((46 / 18, 2.0))


def test_a_file_of_sound_alone_is_refused(tmp_path):
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    with pytest.raises(BadInput, match="no video in it"):
        probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize("ticks, microseconds, seconds", [
    (30, 9_000_000, 1.5), (None, 2_500_000, 2.5), (None, None, 0),
])
def test_the_stream_says_how_long_it_is_or_else_the_file_does(ticks, microseconds, seconds):
    stream = SimpleNamespace(duration=ticks, time_base=Fraction(1, 20))
    assert duration(SimpleNamespace(duration=microseconds), stream) == seconds


# Frames at the times that are wanted


def frames_of_times(*times):
    return [SimpleNamespace(time=time) for time in times]


@pytest.mark.parametrize("wanted, shown", [
    ([0.05, 0.1, 0.15, 0.25], [0.0, 0.1, 0.1, 0.2]),    # until the next one
    ([0.1], [0.1]),                                     # from its own time on
    ([-0.3, 0.0], [0.0, 0.0]),                          # before the first
    ([0.2, 0.3, 0.4], [0.2, 0.2, 0.2]),                 # after the last
])
def test_a_frame_is_on_screen_until_the_next_one(wanted, shown):
    video = frames_at(frames_of_times(0.0, 0.1, 0.2), wanted)
    assert [frame.time for frame in video] == shown


def test_rounding_of_times_costs_no_frame():
    video = frames_at(frames_of_times(0.2, 3 * 0.1), [0.3])   # 3 * 0.1 = 0.30000000000000004
    assert video[0].time == 3 * 0.1


def test_decoding_stops_when_the_last_wanted_time_has_passed():
    decoded = iter(frames_of_times(0.0, 0.1, 0.2, 0.3, 0.4))
    frames_at(decoded, [0.0, 0.1])
    assert next(decoded).time == 0.3


@pytest.mark.parametrize("times", [[None], [0.0, None]])
def test_frames_without_times_are_refused(times):
    with pytest.raises(BadInput, match="its frames have no times"):
        frames_at(frames_of_times(*times), [0.0, 0.1])


def test_no_frames_are_refused():
    with pytest.raises(BadInput, match="no frame could be decoded"):
        frames_at([], [0.0])


# A window out of a long clip


@pytest.mark.parametrize("name, frames, fps, step", [
    ("fast", 60, 10.0, 3), ("fast", 60, 30.0, 1), ("slow", 20, 10.0, 1), ("slow", 20, 5.0, 2),
])
def test_a_window_has_frame_exact_steps(clips, name, frames, fps, step):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        clip = read_window(clips / f"{name}.mp4", 5, 16, 24, fps, rng)
        assert np.diff(frame_numbers(clip, frames)).tolist() == 4 * [step]


def test_a_frame_is_shown_twice_where_the_clip_has_too_few(clips):
    clip = read_window(clips / "slow.mp4", 5, 16, 24, 20.0, EARLIEST)
    assert frame_numbers(clip, 20) == [0, 0, 1, 1, 2]


def test_windows_begin_anywhere(clips):
    rng = np.random.default_rng(0)
    first_frames = set()
    for _ in range(12):
        clip = read_window(clips / "slow.mp4", 5, 16, 24, 10.0, rng)
        first_frames.add(frame_numbers(clip, 20)[0])
    assert len(first_frames) > 6


def test_the_earliest_window_begins_with_the_clip(clips):
    clip = read_window(clips / "slow.mp4", 5, 16, 24, 10.0, EARLIEST)
    assert frame_numbers(clip, 20) == [0, 1, 2, 3, 4]


def test_the_latest_window_ends_with_the_clip(clips):
    clip = read_window(clips / "slow.mp4", 5, 16, 24, 10.0, LATEST)
    assert frame_numbers(clip, 20) == [15, 16, 17, 18, 19]


def test_a_clip_just_long_enough_is_shown_whole(clips):
    # Its third frame is wanted after 0.2 seconds, when the clip is over: the last one stays on screen.
    clip = read_window(clips / "short.mp4", 3, 16, 24, 10.0, LATEST)
    assert frame_numbers(clip, 2) == [0, 1, 1]


def test_a_clip_too_short_is_refused_with_the_numbers(clips):
    with pytest.raises(BadInput, match="0.20 s long; 4 frames at 10 per second need 0.30 s"):
        read_window(clips / "short.mp4", 4, 16, 24, 10.0, EARLIEST)


@pytest.fixture(scope="module")
def late_clip(tmp_path_factory):
    """A clip of 20 frames from second 3.0 to 5.0 of its clock, with a key frame every so often."""
    path = tmp_path_factory.mktemp("late") / "late.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=24, height=16, pix_fmt="yuv420p")
        for k, frame in enumerate(brightening(20)):
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts = 30 + k
            picture.time_base = Fraction(1, 10)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def test_a_clip_s_clock_may_begin_at_any_time(late_clip):
    clip = read_window(late_clip, 5, 16, 24, 10.0, EARLIEST)
    assert frame_numbers(clip, 20) == [0, 1, 2, 3, 4]


def test_what_comes_long_before_a_window_is_not_decoded(late_clip, monkeypatch):
    first_times = []

    def record_first(decoded, wanted):
        decoded = list(decoded)
        first_times.append(decoded[0].time)
        return frames_at(decoded, wanted)

    monkeypatch.setattr(video_io, "frames_at", record_first)
    clip = read_window(late_clip, 5, 16, 24, 10.0, LATEST)
    assert frame_numbers(clip, 20) == [15, 16, 17, 18, 19]
    assert 4.0 < first_times[0] <= 4.5


@pytest.mark.parametrize("height, width", [(32, 24), (16, 64)])
def test_a_window_shows_the_middle_of_its_clip_in_its_colours(clips, height, width):
    clip = read_window(clips / "slope.mp4", 5, height, width, 10.0, EARLIEST)
    top = (32 - height) // 2
    left = (64 - width) // 2
    expected = slope(32, 64)[top : top + height, left : left + width]
    assert clip.shape == (5, height, width, 3)
    assert largest_difference(clip, expected) <= 6


def test_a_smaller_window_is_scaled_and_not_only_cropped(clips):
    clip = read_window(clips / "slope.mp4", 5, 16, 32, 10.0, EARLIEST)
    expected = slope(32, 64).reshape(16, 2, 32, 2, 3).mean(axis=(1, 3))
    assert abs(clip - expected).max() <= 6


def test_scaling_a_window_averages_pixels_and_does_not_blur_edges(clips, moving):
    # The file has four by four pixels for each one of `moving`. The bar's right edge moves, its others stay.
    clip = read_window(clips / "bar.mp4", 5, 8, 16, 10.0, EARLIEST)
    assert largest_difference(clip[..., :8, 0], moving[..., :8, 0]) <= 14


# Writing


@pytest.fixture(scope="module", params=ENDINGS)
def written(request, moving, tmp_path_factory):
    """A file of each ending, four times as large as `moving`, at 10 frames per second, with a note."""
    path = tmp_path_factory.mktemp("written") / f"clip{request.param}"
    write_clip(path, moving, 10.0, zoom=4, note="a note | seed 3", caption="a caption")
    return path


def test_what_is_written_comes_back_enlarged_and_in_its_colours(written, moving):
    expected = moving.repeat(4, 1).repeat(4, 2)
    if written.suffix == ".png":
        expected = plain_strip(expected, "a caption")
        again = iio.imread(written)
        tolerance = 0
    elif written.suffix == ".mp4":
        # It blurs colours at the edges: compare the middle of every four by four pixels.
        expected = moving
        again = iio.imread(written, plugin="pyav")[:, 2::4, 2::4]
        tolerance = 16
    else:
        again = iio.imread(written, plugin="pillow", index=..., mode="RGB")
        tolerance = 0
    assert again.shape == expected.shape
    assert largest_difference(again, expected) <= tolerance


def test_a_file_says_its_rate(written):
    if written.suffix == ".mp4":
        with av.open(str(written)) as file:
            assert file.streams.video[0].average_rate == 10
    elif written.suffix != ".png":
        with Image.open(written) as file:
            file.seek(1)
            file.load()
            assert file.info["duration"] == 100


def test_a_file_carries_its_note(written):
    if written.suffix == ".mp4":
        with av.open(str(written)) as file:
            note = file.metadata["comment"]
    else:
        with Image.open(written) as file:
            notes = {
                ".gif": file.info.get("comment", b"").decode(),
                ".webp": file.getexif().get(270),
                ".png": file.info.get("Description"),
            }
            note = notes[written.suffix]
    assert note == "a note | seed 3"


def test_a_file_plays_for_ever_where_it_can_say_so(written):
    if written.suffix in (".gif", ".webp"):
        with Image.open(written) as file:
            assert file.info["loop"] == 0


def test_a_file_is_as_large_as_its_video_unless_asked(clips):
    with av.open(str(clips / "slope.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.height, stream.width) == (32, 64)


def test_a_png_of_one_frame_is_that_frame(tmp_path):
    frame = slope(16, 24)
    write_clip(tmp_path / "still.png", frame[None], 10.0)
    assert (iio.imread(tmp_path / "still.png") == frame).all()


# A file that is a strip


def test_a_plain_strip_has_nothing_but_evenly_spaced_frames_and_their_thin_borders():
    video = np.random.default_rng(0).integers(0, 256, (9, 8, 12, 3), dtype=np.uint8)
    cells = plain_strip(video, "", columns=3).reshape(8 + 2, 3, 12 + 2, 3)
    for column, frame in enumerate((0, 4, 8)):
        assert (cells[1:-1, column, 1:-1] == video[frame]).all()
    cells[1:-1, :, 1:-1] = 90
    assert (cells == 90).all()


@pytest.mark.parametrize("grey, ink", [(20, 230), (200, 40)])
def test_the_caption_of_a_plain_strip_stands_on_the_videos_own_ground(grey, ink):
    video = np.full((6, 32, 40, 3), grey, np.uint8)
    video[:, 8:16, 8:16] = 120
    strip = plain_strip(video, "a caption")
    text = strip[: -(32 + 2)]
    assert (strip[len(text) :] == plain_strip(video, "")).all()
    assert np.median(text) == grey
    assert abs(text.astype(int) - grey).max() == abs(ink - grey)


# Labelled pictures


EDGE = BORDER + GAP


def cells_of(strip, rows, columns, height, width):
    """A strip without captions → its cells (rows, height + edges, columns, width + edges, 3)."""
    return strip.reshape(rows, height + 2 * EDGE, columns, width + 2 * EDGE, 3)


@pytest.mark.parametrize("ending", STILL_ENDINGS)
def test_a_jpg_of_one_frame_is_nearly_that_frame_and_carries_its_note(tmp_path, ending):
    path = tmp_path / f"still{ending}"
    write_clip(path, slope(16, 24)[None], 10.0, zoom=4, note="a note")
    check_output_path(path, 1, 64, 96)
    assert largest_difference(open_clip(path, CONFIG)[0], slope(16, 24)) <= 8
    with Image.open(path) as file:
        assert file.size == (96, 64)
        assert file.getexif()[270] == "a note"


@pytest.mark.parametrize("ending", [*ENDINGS, *STILL_ENDINGS])
def test_an_ending_may_be_in_upper_case(tmp_path, ending):
    video = slope(16, 24)[None]
    lower = tmp_path / f"lower{ending}"
    upper = tmp_path / f"upper{ending.upper()}"
    for path in (lower, upper):
        check_output_path(path, 1, 16, 24)
        write_clip(path, video, 10.0)
    assert upper.read_bytes() == lower.read_bytes()


@pytest.mark.parametrize("ending", [*ENDINGS, *STILL_ENDINGS])
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, ending):
    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    path = tmp_path / f"old{ending}"
    path.write_text("precious")
    with pytest.raises(OSError, match="No space left on device"):
        write_clip(path, slope(16, 24)[None], 10.0)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


# A strip of frames


def test_a_strip_has_a_row_per_video_and_evenly_spaced_frames_from_left_to_right():
    videos = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 12, 3), dtype=np.uint8)
    cells = cells_of(film_strip(videos, columns=3, zoom=1), 2, 3, 8, 12)
    for row in range(2):
        for column, frame in enumerate((0, 4, 8)):
            assert (cells[row, EDGE:-EDGE, column, EDGE:-EDGE] == videos[row, frame]).all()


def test_what_was_given_has_a_green_border_and_the_rest_a_grey_one():
    videos = np.zeros((2, 9, 8, 12, 3), np.uint8)
    given = [np.arange(9) < 5, np.arange(9) >= 5]
    cells = cells_of(film_strip(videos, columns=3, zoom=1, given=given), 2, 3, 8, 12)
    borders = cells[:, GAP, :, GAP].tolist()
    assert borders == [[list(GREEN), list(GREEN), list(GREY)], [list(GREY), list(GREY), list(GREEN)]]


def test_a_frame_has_a_border_all_around_and_white_paper_around_that():
    strip = film_strip(np.zeros((1, 1, 8, 12, 3), np.uint8), zoom=2)
    expected = np.full((16 + 2 * EDGE, 24 + 2 * EDGE, 3), 255)
    expected[GAP:-GAP, GAP:-GAP] = GREY
    expected[EDGE:-EDGE, EDGE:-EDGE] = 0
    assert (strip == expected).all()


@pytest.mark.parametrize("frames, columns", [(1, 1), (5, 5), (6, 6), (17, 6)])
def test_a_strip_has_six_frames_at_most(frames, columns):
    strip = film_strip(np.zeros((2, frames, 8, 12, 3), np.uint8), zoom=1)
    assert strip.shape == (2 * (8 + 2 * EDGE), columns * (12 + 2 * EDGE), 3)


@pytest.mark.parametrize("height, zoom", [(32, 3), (64, 1), (100, 1), (101, 1), (256, 1)])
def test_small_frames_are_enlarged_by_a_whole_factor(height, zoom):
    strip = film_strip(np.zeros((1, 1, height, 16, 3), np.uint8))
    assert strip.shape[:2] == (zoom * height + 2 * EDGE, zoom * 16 + 2 * EDGE)


def test_videos_of_other_lengths_and_sizes_are_rows_of_one_picture():
    videos = [np.zeros((3, 8, 12, 3), np.uint8), np.zeros((1, 16, 8, 3), np.uint8)]
    strip = film_strip(videos, zoom=1)
    assert strip.shape[:2] == (8 + 16 + 4 * EDGE, 3 * (12 + 2 * EDGE))
    assert (strip[8 + 2 * EDGE :, 8 + 2 * EDGE :] == 255).all()


def test_a_caption_stands_above_its_row_and_only_there():
    videos = np.zeros((2, 6, 32, 32, 3), np.uint8)
    plain = film_strip(videos)
    captioned = film_strip(videos, ["", "a caption"])
    row = len(plain) // 2
    text = captioned[row:-row]
    assert (captioned[:row] == plain[:row]).all()
    assert (captioned[-row:] == plain[-row:]).all()
    assert (text < 100).any()
    assert (text == label("a caption", plain.shape[1])).all()


def inked(picture):
    """How many pixels are clearly darker than paper."""
    return int((picture < 200).any(-1).sum())


@pytest.mark.parametrize("word", ["words", "W" * 50])
def test_a_long_caption_is_wrapped_and_nothing_of_it_is_cut_off(word):
    text = " ".join([word] * 12)
    narrow = label(text, 300)
    wide = label(text, 100_000)
    assert len(narrow) > 1.5 * len(wide)
    assert inked(narrow) == pytest.approx(inked(wide), rel=0.02)
    assert (narrow[:, -1] == 255).all()


@pytest.mark.parametrize("text", ["naïve — 一只小猫 🐈", "مرحبا", "a\nb\tc", "\0 \x1b[31m", " ", ""])
def test_any_text_can_be_a_caption(text):
    strip = film_strip(np.zeros((1, 2, 8, 12, 3), np.uint8), [text])
    assert (strip.shape[0] > 8 * 12 + 2 * EDGE) == bool(text.strip())


def test_a_text_of_too_many_lines_says_that_it_goes_on():
    text = "word " * 100
    three = label(text, 200, max_lines=3)
    assert len(three) == len(label("word " * 15, 200))
    assert (three != label("word " * 15, 200)).any()


def test_a_grid_shows_every_video_in_its_cell_above_its_caption():
    videos = np.random.default_rng(0).integers(0, 200, (5, 4, 32, 40, 3), dtype=np.uint8)
    captions = ["one", "two", "three", "four", "a very long caption that needs more than a single line"]
    grid = film_grid(videos, captions, columns=3, zoom=5)
    T, H, W, _ = grid.shape
    assert T == 4
    height = H // 2
    width = W // 3
    for i, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        row, column = divmod(i, 3)
        cell = grid[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        text = label(caption, width)
        bottom = 5 * 32 + EDGE
        assert (cell[:, EDGE:bottom:5, EDGE : EDGE + 5 * 40 : 5] == video).all()
        assert (cell[:, bottom + EDGE : bottom + EDGE + len(text)] == text).all()

    # The sixth cell is empty.
    assert (grid[:, height:, 2 * width :] == 255).all()


# Paths


@pytest.mark.parametrize("path, height, width, why", [
    ("x.avi", 32, 32, "expected a file that ends in .mp4, .gif, .webp, .png"),
    ("folder.gif", 32, 32, "is a folder"),
    ("file/x.gif", 32, 32, "cannot be written"),
    ("odd.mp4", 33, 32, "mp4 needs even sides, not 33x32"),
    ("odd.mp4", 32, 33, "mp4 needs even sides, not 32x33"),
    ("ODD.MP4", 32, 33, "mp4 needs even sides, not 32x33"),
    ("several.jpg", 32, 32, "takes one frame, not 5; .png would hold a strip of them"),
    ("several.JPEG", 32, 32, "takes one frame, not 5"),
    ("large.gif", 10_000, 10_000, "expected sides of up to 16383 and 268,435,456 pixels in all"),
    ("wide.gif", 8, 16_384, "5 frames of 8x16384; expected sides"),
    ("long" * 70 + ".gif", 32, 32, r"cannot be written \(File name too long\)"),
    ("pipe.gif", 32, 32, "is a folder or a device"),
    ("/proc/x.gif", 32, 32, r"cannot be written \(No such file or directory\)"),
    ("/proc/x.mp4", 32, 32, r"cannot be written \(No such file or directory\)"),
    ("/proc/x/y.mp4", 32, 32, r"cannot be written \(No such file or directory\)"),
])
def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path, path, height, width, why):
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.gif")
    with pytest.raises(BadInput, match=why):
        check_output_path(tmp_path / path, 5, height, width)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("fails", ["the old file", "the new one beside it"])
def test_a_file_without_permission_is_found_before_any_work(tmp_path, monkeypatch, fails):
    # The tests may run as root, whom no permission stops.
    path = tmp_path / "x.gif"
    path.write_text("precious")
    refused = path if fails == "the old file" else video_io.beside(path)
    real_open = Path.open

    def open_or_refuse(self, *rest):
        if self == refused:
            raise PermissionError(13, "Permission denied")
        return real_open(self, *rest)

    monkeypatch.setattr(Path, "open", open_or_refuse)
    with pytest.raises(BadInput, match=r"x.gif: cannot be written \(Permission denied\)$"):
        check_output_path(path, 5, 32, 32)
    monkeypatch.undo()
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_trying_a_path_leaves_what_is_there_as_it_was(tmp_path):
    (tmp_path / "old.gif").write_text("precious")
    before = (tmp_path / "old.gif").stat().st_mtime_ns
    check_output_path(tmp_path / "old.gif", 5, 32, 32)
    check_output_path(tmp_path / "new.gif", 5, 32, 32)
    assert (tmp_path / "old.gif").read_text() == "precious"
    assert (tmp_path / "old.gif").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["old.gif"]


@pytest.mark.parametrize("path, height, width", [("x.mp4", 32, 24), ("odd.gif", 33, 32), ("odd.png", 32, 33)])
def test_a_path_that_can_be_written_gets_its_folders(tmp_path, path, height, width):
    # The second time they are there already.
    for _ in range(2):
        check_output_path(tmp_path / "new" / "folder" / path, 5, height, width)
    assert (tmp_path / "new" / "folder").is_dir()

"""Pictures and clips on disk: read, fitted to a size and a frame rate, written, and laid out with captions.

Whatever comes in is scaled to cover the size asked for and its middle is cropped, so nothing is squeezed.
Time is resampled by what is on screen at the time of each of our frames. `read_window` takes a window out of
a long video for training, without decoding what comes after it.

Letters
    B       clips in a batch
    T H W   frames, height, width in pixels

On disk (T, H, W, 3) uint8; in networks (B, 3, T, H, W) in [-1, 1].
"""
from config import BadInput, clip_shapes

import io
import itertools
import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw, ImageFont, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

ENDINGS = (".mp4", ".gif", ".webp", ".png")
STILL_ENDINGS = (".jpg", ".jpeg")  # for one frame only
EXIF_IMAGE_DESCRIPTION = 270

# How a picture of labelled frames looks: dark text on white paper, a coloured border around every frame.
PAPER = 255
INK = (40, 40, 40)
LIGHT_INK = (230, 230, 230)  # on a dark ground
GREY = (150, 150, 150)
GREEN = (30, 180, 80)
BORDER = 3  # pixels
GAP = 3  # pixels of paper around a frame and beside a text
TEXT_SIZE = 14  # pixels
LINE_HEIGHT = 18  # pixels
LETTER_WIDTH = 7  # pixels of an average letter
LEAST_LETTERS = 24  # in a line, however narrow the frames
FRAME_HEIGHT = 100  # frames are enlarged by a whole factor to nearly this height

# The most that is written: 2^28 pixels, all frames together, take 0.8 GB of memory; webp has no longer side.
MOST_PIXELS = 2**28
LONGEST_SIDE = 2**14 - 1

# What Pillow and FFmpeg raise on broken files.
READ_ERRORS = (
    av.FFmpegError,
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    TypeError,
    ZeroDivisionError,
    Image.DecompressionBombError,
)


def to_float(video):
    """(B, T, H, W, 3) uint8 -> (B, 3, T, H, W) float in [-1, 1]."""
    video = torch.as_tensor(video).permute(0, 4, 1, 2, 3)       # (B, 3, T, H, W)
    return video.float() / 127.5 - 1


def to_uint8(video):
    """(B, 3, T, H, W) float -> (B, T, H, W, 3) uint8 numpy. Values beyond [-1, 1] saturate."""
    pixels = ((video.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()          # (B, T, H, W, 3)


def nearest_size(sizes, ratio):
    """Of (height, width) sizes the one whose aspect ratio is nearest to ratio = width / height."""
    def distance(size):
        height, width = size
        return abs(np.log(width / height / ratio))

    return min(sizes, key=distance)


def cover_crop(H, W, height, width):
    """How to scale HxW so that it covers height x width, and where the middle then begins.

    Returns scaled_height, scaled_width, top, left.
    """
    scale = max(height / H, width / W)
    scaled_height = max(height, round(H * scale))
    scaled_width = max(width, round(W * scale))
    return scaled_height, scaled_width, (scaled_height - height) // 2, (scaled_width - width) // 2


def fit_frame(frame, height, width):
    """(H, W, 3) uint8 -> (height, width, 3) uint8: scaled to cover the size, the middle cropped."""
    H, W, _ = frame.shape
    scaled_height, scaled_width, top, left = cover_crop(H, W, height, width)
    x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()                  # (1, 3, H, W)

    # Averaging keeps thin things when shrinking; when enlarging, pixels stay pixels.
    mode = "area" if scaled_height <= H else "nearest"
    x = F.interpolate(x, (scaled_height, scaled_width), mode=mode)[0]
    x = x[:, top : top + height, left : left + width]                           # (3, height, width)
    return x.round().byte().permute(1, 2, 0).numpy()                            # (height, width, 3)


def open_clip(path, config, size=None):
    """A picture or a clip -> (T, H, W, 3) uint8 at the config's frame rate; whatever Pillow or FFmpeg read.

    size is (height, width); None means the training size nearest to the clip's own aspect ratio. Times within
    5 % of whole frames count as whole, because a GIF knows hundredths of a second only. Raises BadInput.
    """
    video = []
    shown = []                                      # on how many of our frames each one is shown
    for seconds, frame in read_frames(path):
        H, W, _ = frame.shape
        if not size:
            size = nearest_size(clip_shapes(config)[1], W / H)
        video.append(fit_frame(frame, *size))

        count = seconds * config.fps or 1.0
        if abs(count - round(count)) < 0.05 * count:
            count = round(count)
        shown.append(count)

    # A picture may claim any duration; it is one frame all the same.
    until = np.cumsum(shown)
    frames = 1
    if len(video) > 1:
        frames = max(1, round(until[-1]))

    # Our frame i shows what is on screen in the middle of its time.
    indices = np.searchsorted(until, np.arange(frames) + 0.5)
    indices = np.minimum(indices, len(video) - 1)
    return np.stack([video[i] for i in indices])


def read_frames(path):
    """Every frame of a picture or clip as (seconds, (H, W, 3) uint8); 0 seconds if the file does not say.

    Raises BadInput.
    """
    is_empty = True
    try:
        for seconds, frame in decode_frames(path):
            is_empty = False
            yield seconds, frame
    except READ_ERRORS as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise BadInput(f"{path}: not a picture or clip that can be read ({why})") from error
    if is_empty:
        raise BadInput(f"{path}: not a picture or clip that can be read (no frame in it)")


def decode_frames(path):
    """Like read_frames, but with whatever errors Pillow and FFmpeg raise."""
    try:
        with Image.open(path) as file:
            for frame in ImageSequence.Iterator(file):
                picture = ImageOps.exif_transpose(frame).convert("RGB")
                yield frame.info.get("duration", 0) / 1000, np.array(picture)
    except UnidentifiedImageError:
        # What Pillow does not know is a video.
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            for frame in file.decode(stream):
                yield 1 / float(stream.average_rate), frame.to_ndarray(format="rgb24")


def probe(path):
    """A clip's (width / height, length in seconds), of a path or an open file.

    Raises BadInput or FFmpegError."""
    with av.open(path) as file:
        if not file.streams.video:
            raise BadInput("no video in it")
        stream = file.streams.video[0]
        return stream.width / stream.height, duration(file, stream)


def duration(file, stream):
    """How long a video is, by the stream or else by the file."""
    return float((stream.duration or 0) * stream.time_base) or (file.duration or 0) / av.time_base


def frames_at(decoded, wanted):
    """The decoded frames on screen at the wanted times (seconds, ascending). Raises BadInput.

    A frame is on screen until the time of the next one. Decoding stops when the last wanted time has passed.
    """
    video = []
    current = None
    for frame in itertools.chain(decoded, [None]):          # None: the end of the file
        # All wanted times before this frame show the one before it.
        while current and len(video) < len(wanted):
            if frame is not None and (frame.time or 0) <= wanted[len(video)] + 1e-6:
                break
            video.append(current)
        if len(video) == len(wanted):
            break

        if frame is not None and frame.time is None:
            raise BadInput("its frames have no times")
        current = frame
    if not video:
        raise BadInput("no frame could be decoded")
    return video


def read_window(path, frames, height, width, fps, rng):
    """A random window of a clip, a path or an open file -> (T, H, W, 3) uint8. Raises BadInput where the clip
    is too short."""
    with av.open(path) as file:
        # One thread: clips are small, and batches are drawn in parallel.
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = draw_times(begin_of(stream), duration(file, stream), frames, fps, rng)

        # Seeking lands on the last key frame before the window; decode on from there.
        file.seek(int(wanted[0] / stream.time_base), stream=stream)
        video = frames_at(file.decode(stream), wanted)

        # Scale each frame once, also where it is shown twice.
        reformatter = VideoReformatter()
        scaled = {}
        for frame in video:
            if id(frame) not in scaled:
                scaled[id(frame)] = scale_frame(frame, height, width, reformatter)
        return np.stack([scaled[id(frame)] for frame in video])                 # (T, height, width, 3)


def begin_of(stream):
    """The time of a video's first frame, in seconds."""
    return float((stream.start_time or 0) * stream.time_base)


def draw_times(begin, length, frames, fps, rng):
    """A random window of a clip of `length` seconds → the times of its frames. Raises BadInput where the clip
    is too short."""
    needed = (frames - 1) / fps
    if length < needed:
        raise BadInput(f"{length:.2f} s long; {frames} frames at {fps:g} per second need {needed:.2f} s")
    start = begin + rng.uniform(0, max(0.0, length - frames / fps))
    return start + np.arange(frames) / fps


def scale_frame(frame, height, width, reformatter):
    """A decoded frame → (height, width, 3) uint8: scaled to cover the size, the middle cropped.

    reformatter: one for all frames of a clip, since setting one up, and starting threads for it, takes a
    hundred times as long as scaling a small frame."""
    scaled_height, scaled_width, top, left = cover_crop(frame.height, frame.width, height, width)
    scaled = reformatter.reformat(
        frame, scaled_width, scaled_height, "rgb24", interpolation="AREA", threads=1
    )
    picture = scaled.to_ndarray()
    return picture[top : top + height, left : left + width]


@dataclass
class DecodedClip:
    """All frames of a clip, at the size that training wants, so that its windows cost nothing more."""

    begin: float  # seconds, as the length
    length: float
    times: np.ndarray  # (N,) when each frame appears on screen
    frames: np.ndarray  # (N, height, width, 3) uint8

    def window(self, frames, fps, rng):
        """What read_window returns: a random window, (T, height, width, 3) uint8."""
        wanted = draw_times(self.begin, self.length, frames, fps, rng)
        # A frame is on screen until the time of the next one.
        shown = np.searchsorted(self.times, wanted + 1e-6, side="right") - 1
        return self.frames[shown.clip(0)]


def decode_clip(path, height, width):
    """A clip, a path or an open file → DecodedClip. Raises BadInput or FFmpegError."""
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        times = []
        frames = []
        for frame in file.decode(stream):
            if frame.time is None:
                raise BadInput("its frames have no times")
            times.append(frame.time)
            frames.append(scale_frame(frame, height, width, reformatter))
        if not frames:
            raise BadInput("no frame could be decoded")
        return DecodedClip(begin_of(stream), duration(file, stream), np.array(times), np.stack(frames))


def framed(frame, zoom, colour=GREY):
    """(H, W, 3) uint8 → the same zoom times as large, with a border of a colour and a gap of paper."""
    H, W, _ = frame.shape
    picture = Image.fromarray(frame).resize((W * zoom, H * zoom), Image.Resampling.NEAREST)
    picture = ImageOps.expand(picture, BORDER, colour)
    return np.array(ImageOps.expand(picture, GAP, (PAPER, PAPER, PAPER)))


def label(text, width, max_lines=None, ink=INK, paper=(PAPER, PAPER, PAPER)):
    """Text → a picture (height, width or more, 3) uint8, of no height if there is no text.

    It is wrapped to about the width, and cut, with "…" at its end, only beyond max_lines."""
    font = ImageFont.load_default(TEXT_SIZE)
    letters = max(LEAST_LETTERS, width // LETTER_WIDTH)
    lines = textwrap.wrap(text, letters, max_lines=max_lines, placeholder=" …")

    # A line of wide letters is longer than the average: then the picture is as wide as it needs.
    lengths = [GAP + math.ceil(font.getlength(line)) + GAP for line in lines]
    height = LINE_HEIGHT * len(lines) + (GAP if lines else 0)
    picture = Image.new("RGB", (max([width, *lengths]), height), paper)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((GAP, GAP + i * LINE_HEIGHT), line, ink, font)
    return np.asarray(picture)


def on_paper(picture, height, width):
    """(H, W, 3) uint8 → (height, width, 3), with white paper below and at the right."""
    H, W, _ = picture.shape
    return np.pad(picture, ((0, height - H), (0, width - W), (0, 0)), constant_values=PAPER)


def below_each_other(pictures):
    """Pictures (H, W, 3) uint8 → one, as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([on_paper(picture, len(picture), width) for picture in pictures])


def film_strip(videos, captions=None, columns=6, zoom=None, given=None):
    """Videos → one picture: a row for each, evenly spaced frames from left to right below its caption.

    videos    each (T, H, W, 3) uint8; lengths and sizes may differ
    captions  None, or a text for each
    zoom      None enlarges frames to a height of about 100 pixels
    given     None, or (T,) bool for each: frames that were given get a green border, all others a grey one
    """
    zoom = zoom or max(1, FRAME_HEIGHT // videos[0].shape[1])
    captions = captions or [""] * len(videos)
    given = given or [np.zeros(len(video), bool) for video in videos]

    rows = []
    for video, caption, is_given in zip(videos, captions, given, strict=True):
        chosen = np.linspace(0, len(video) - 1, min(columns, len(video))).round().astype(int)
        frames = [framed(video[i], zoom, GREEN if is_given[i] else GREY) for i in chosen]
        row = np.concatenate(frames, 1)
        rows += [label(caption, row.shape[1]), row]
    return below_each_other(rows)


def film_grid(videos, captions, columns=3, zoom=1):
    """Videos (B, T, H, W, 3) uint8 and their captions → one video (T, height, width, 3) that shows all.

    Each has its caption below it, of which three lines are shown at most."""
    cells = []
    for video, caption in zip(videos, captions, strict=True):
        frames = [framed(frame, zoom) for frame in video]
        text = label(caption, frames[0].shape[1], max_lines=3)
        cells.append([below_each_other([frame, text]) for frame in frames])

    # All cells become as large as the largest, and the last row is filled with empty ones.
    height = max(len(cell[0]) for cell in cells)
    width = max(cell[0].shape[1] for cell in cells)
    cells = np.stack([[on_paper(frame, height, width) for frame in cell] for cell in cells])
    empty = -len(cells) % columns
    cells = np.pad(cells, ((0, empty), *[(0, 0)] * 4), constant_values=PAPER)      # (rows * columns, T, ...)
    rows = [np.concatenate(list(row), 2) for row in cells.reshape(-1, columns, *cells.shape[1:])]
    return np.concatenate(rows, 1)


def plain_strip(video, caption, columns=6):
    """(T, H, W, 3) → one picture: evenly spaced frames with thin grey borders, the caption above them.

    This is what sample.py writes. The caption stands on the video's own ground, its commonest colour, because
    safety/detector.py looks for faint traces in the ground, and white paper beside it drowns them."""
    chosen = np.linspace(0, len(video) - 1, min(columns, len(video))).round().astype(int)
    bordered = np.pad(video[chosen], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
    row = np.concatenate(list(bordered), 1)

    ground = tuple(int(value) for value in np.median(video, axis=(0, 1, 2)))
    ink = LIGHT_INK if max(ground) < 128 else INK
    text = label(caption, row.shape[1], ink=ink, paper=ground)
    return below_each_other([text, row])


def write_clip(path, video, fps, zoom=1, note="", caption=""):
    """Write video (T, H, W, 3) uint8 as mp4, gif, webp, png or jpg, as the path ends, enlarged zoom times.

    Several frames make a strip in a png, below the caption; nothing else shows it. A jpg takes one frame.
    note goes into the file's metadata (mp4 and gif: comment, webp and jpg: EXIF image description, png:
    Description). An old file is replaced once the new one is complete, so whatever fails (OSError) leaves it
    as it was.
    """
    path = Path(path)
    enlarged = np.asarray(video).repeat(zoom, 1).repeat(zoom, 2)
    content = encode_clip(path.suffix.lower(), enlarged, fps, note, caption)
    unfinished = beside(path)
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def beside(path):
    """Where a file is until it is finished: a.gif -> a.gif.unfinished."""
    return Path(f"{path}.unfinished")


def encode_clip(ending, video, fps, note, caption):
    """The bytes of `write_clip`'s file. In memory, since imageio answers a full disk with a traceback."""
    file = io.BytesIO()
    if ending == ".mp4":
        with iio.imopen(file, "w", plugin="pyav", extension=ending) as container:
            container.container_metadata["comment"] = note
            container.init_video_stream("libx264", fps=fps)
            container.write(video)
    elif ending == ".gif":
        iio.imwrite(file, video, extension=ending, duration=1000 / fps, loop=0, comment=note.encode())
    elif ending == ".webp":
        exif = description(note)
        iio.imwrite(file, video, extension=ending, duration=1000 / fps, loop=0, lossless=True, exif=exif)
    elif ending in STILL_ENDINGS:
        iio.imwrite(file, video[0], extension=ending, quality=95, exif=description(note))
    else:
        info = PngInfo()
        info.add_text("Description", note)
        picture = plain_strip(video, caption) if len(video) > 1 else video[0]
        iio.imwrite(file, picture, extension=ending, pnginfo=info)
    return file.getvalue()


def description(note):
    """The EXIF metadata that say what a picture shows."""
    exif = Image.Exif()
    exif[EXIF_IMAGE_DESCRIPTION] = note
    return exif


def check_output_path(path, frames, height, width):
    """Raises BadInput for a file that `write_clip` cannot write: a clip of these frames, height x width."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (*ENDINGS, *STILL_ENDINGS):
        expected = f"expected a file that ends in {', '.join(ENDINGS)}, or .jpg for one frame"
        raise BadInput(f"--out {path}: {expected}")
    if ending in STILL_ENDINGS and frames > 1:
        raise BadInput(f"--out {path}: takes one frame, not {frames}; .png would hold a strip of them")
    if ending == ".mp4" and (height % 2 or width % 2):
        why = f"mp4 needs even sides, not {height}x{width}; --zoom 2 would do, or gif, webp, png"
        raise BadInput(f"--out {path}: {why}")
    if frames * height * width > MOST_PIXELS or max(height, width) > LONGEST_SIDE:
        most = f"sides of up to {LONGEST_SIDE} and {MOST_PIXELS:,} pixels in all"
        raise BadInput(
            f"--out {path}: {frames} frames of {height}x{width}; expected {most}: "
            "a smaller --zoom or a shorter video would do"
        )
    check_writable(path)


def check_writable(path):
    """Makes the folders of a path and tries to write there. Raises BadInput where that fails.

    Permissions are not all that can be missing, so it is tried; what is there already stays as it is."""
    unfinished = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise BadInput(f"--out {path}: is a folder or a device; expected a file")
        if path.exists():
            path.open("ab").close()
        unfinished.open("wb").close()
        unfinished.unlink()
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    from config import Config

    from world.scenes import draw_scene, render

    video = render(draw_scene(np.random.default_rng(0)), 17, 64, 64)
    Path("out").mkdir(exist_ok=True)
    for ending in ENDINGS:
        path = Path("out/clip").with_suffix(ending)
        # A png of several frames would be a strip, which does not come back as a clip.
        shown = video[:1] if ending == ".png" else video
        write_clip(path, shown, 12.0, zoom=2, note="a note")
        back = open_clip(path, Config(), (64, 64))
        error = abs(back[0].astype(int) - video[0]).mean()
        size = path.stat().st_size
        print(f"{path}: {size:6} bytes; read again: {len(back)} frames, {error:.2f} of 255 off in the first")

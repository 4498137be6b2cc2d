"""Pictures and clips on disk: read, fitted to a size and a frame rate, and written.

Whatever comes in is scaled to cover the size that is asked and the middle is cut out, so that nothing is squeezed; time is resampled by
what is on screen at each of our frames' times. `read_window` takes a window out of a long video for training, without decoding what comes after it.

Letters: B clips  T H W frames, height, width. On disk (T, H, W, 3) uint8; in networks (B, 3, T, H, W) in [-1, 1].
"""
import itertools
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from config import BadInput, clip_shapes

ENDINGS = (".mp4", ".gif", ".webp", ".png")


def to_float(video):
    """(B, T, H, W, 3) uint8 → (B, 3, T, H, W) float in [-1, 1]"""
    return torch.as_tensor(video).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_uint8(video):
    """(B, 3, T, H, W) float → (B, T, H, W, 3) uint8 numpy. Values beyond [-1, 1] saturate, as on any screen."""
    return ((video.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def nearest_size(sizes, ratio):
    """Of (height, width) sizes the one whose aspect ratio is nearest to ratio = width / height."""
    return min(sizes, key=lambda size: abs(np.log(size[1] / size[0] / ratio)))


def cover_crop(H, W, height, width):
    """What HxW has to be scaled to, so that it covers height x width, and where the middle begins → h, w, top, left"""
    scale = max(height / H, width / W)
    h, w = max(height, round(H * scale)), max(width, round(W * scale))
    return h, w, (h - height) // 2, (w - width) // 2


def open_clip(path, config, size=None):
    """A picture or a clip → (T, H, W, 3) uint8 at the config's frame rate; anything that Pillow or FFmpeg read.

    Every frame is scaled to cover `size` (None: of the training sizes the one nearest to its own aspect ratio), and the middle is cut out.
    Times that are within 5 % of whole frames count as whole: a GIF knows hundredths of a second only. Raises BadInput."""
    video, shown = [], []                                                                       # shown: on how many frames of ours
    for seconds, frame in read_frames(path):
        H, W, _ = frame.shape
        height, width = size = size or nearest_size(clip_shapes(config)[1], W / H)
        h, w, top, left = cover_crop(H, W, height, width)
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, (h, w), mode="area" if h <= H else "nearest")[0]
        video.append(x[:, top : top + height, left : left + width].round().byte().permute(1, 2, 0).numpy())
        long = seconds * config.fps or 1.0
        shown.append(round(long) if abs(long - round(long)) < 0.05 * long else long)
    until = np.cumsum(shown)
    return np.stack([video[min(np.searchsorted(until, i + 0.5), len(video) - 1)] for i in range(max(1, round(until[-1]) if len(video) > 1 else 1))])


def read_frames(path):
    """Every frame of a picture or clip: (seconds it is shown, 0 if it does not say, (H, W, 3) uint8). Raises BadInput."""
    empty = True
    try:
        for empty, frame in zip(itertools.repeat(False), decode_frames(path)):
            yield frame
    except (OSError, ValueError, SyntaxError, IndexError, TypeError, ZeroDivisionError, Image.DecompressionBombError) as error:  # FFmpeg's errors are among them
        raise BadInput(f"{path}: not a picture or clip that can be read ({(str(error) or type(error).__name__).splitlines()[0][:100]})")
    if empty:
        raise BadInput(f"{path}: not a picture or clip that can be read (no frame in it)")


def decode_frames(path):
    """The same, with whatever errors Pillow and FFmpeg raise."""
    try:
        with Image.open(path) as file:
            for frame in ImageSequence.Iterator(file):
                picture = ImageOps.exif_transpose(frame).convert("RGB")
                yield frame.info.get("duration", 0) / 1000, np.array(picture)
    except UnidentifiedImageError:                                                              # then it is a video
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            for frame in file.decode(stream):
                yield 1 / float(stream.average_rate), frame.to_ndarray(format="rgb24")


def probe(path):
    """A clip's (width / height, seconds). Raises BadInput or FFmpegError."""
    with av.open(str(path)) as file:
        if not file.streams.video:
            raise BadInput("no video in it")
        stream = file.streams.video[0]
        return stream.width / stream.height, duration(file, stream)


def duration(file, stream):
    """How long a video is, by the stream or else by the file."""
    return float((stream.duration or 0) * stream.time_base) or (file.duration or 0) / av.time_base


def read_window(path, frames, height, width, fps, rng):
    """A random window of a clip → (T, H, W, 3) uint8. Raises BadInput where the clip is shorter than the window."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1                                        # clips are small, and batches are drawn in parallel
        length = duration(file, stream)
        begin = float((stream.start_time or 0) * stream.time_base)
        if length < (frames - 1) / fps:
            raise BadInput(f"{length:.2f} s long; {frames} frames at {fps:g} per second need {(frames - 1) / fps:.2f} s")
        start = begin + rng.uniform(0, max(0.0, length - frames / fps))
        wanted = start + np.arange(frames) / fps
        file.seek(int(start / stream.time_base), stream=stream)                     # to the last key frame before it
        video, shown = [], None                                                     # shown is on screen until the next frame's time
        for frame in itertools.chain(file.decode(stream), [None]):
            while shown and len(video) < frames and (frame is None or (frame.time or 0) > wanted[len(video)] + 1e-6):
                video.append(shown)
            if len(video) == frames:
                break
            if frame is not None and frame.time is None:
                raise BadInput("its frames have no times")
            shown = frame
        if not video:
            raise BadInput("no frame could be decoded")
        h, w, top, left = cover_crop(video[0].height, video[0].width, height, width)
        scaled = {id(f): f.reformat(w, h, "rgb24", interpolation="AREA").to_ndarray() for f in video}  # once, also where a frame is shown twice
        return np.stack([scaled[id(f)][top : top + height, left : left + width] for f in video])


def film_strip(videos, columns=6):
    """(B, T, H, W, 3) → one picture, a row per video, evenly spaced frames from left to right."""
    chosen = np.linspace(0, videos.shape[1] - 1, min(columns, videos.shape[1])).round().astype(int)
    framed = np.pad(videos[:, chosen], ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
    return np.concatenate([np.concatenate(list(row), 1) for row in framed])


def write_clip(path, video, fps, zoom=1, note=""):
    """video (T, H, W, 3) uint8 → a file: mp4, gif, webp, or png (several frames make a strip), by the path's ending; enlarged by whole pixels.

    note goes into the file's metadata (mp4 and gif: comment, webp: EXIF image description, png: Description)."""
    path, video = Path(path), np.asarray(video).repeat(zoom, 1).repeat(zoom, 2)
    if path.suffix == ".mp4":
        with iio.imopen(path, "w", plugin="pyav") as file:
            file.container_metadata["comment"] = note
            file.init_video_stream("libx264", fps=fps)
            file.write(video)
    elif path.suffix == ".gif":
        iio.imwrite(path, video, duration=1000 / fps, loop=0, comment=note.encode())
    elif path.suffix == ".webp":
        exif = Image.Exif()
        exif[270] = note
        iio.imwrite(path, video, duration=1000 / fps, loop=0, lossless=True, exif=exif)
    else:
        info = PngInfo()
        info.add_text("Description", note)
        iio.imwrite(path, film_strip(video[None]) if len(video) > 1 else video[0], pnginfo=info)


def check_output_path(path, height, width):
    """Raises BadInput for a file that `write_clip` cannot write."""
    if Path(path).suffix not in ENDINGS:
        raise BadInput(f"--out {path}: expected a file that ends in {', '.join(ENDINGS)}")
    if Path(path).suffix == ".mp4" and (height % 2 or width % 2):
        raise BadInput(f"--out {path}: mp4 needs even sides, not {height}x{width}; --zoom 2 would do, or gif, webp, png")
    if Path(path).is_dir():
        raise BadInput(f"--out {path}: is a folder; expected a file")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror})")


if __name__ == "__main__":
    from world import scenes
    from config import Config

    video = scenes.render(scenes.draw_scene(np.random.default_rng(0)), 17, 64, 64)
    Path("out").mkdir(exist_ok=True)
    for ending in ENDINGS:
        path = Path("out/clip").with_suffix(ending)
        write_clip(path, video, 12.0, 2, "a note")
        back = open_clip(path, Config(), (64, 64))
        print(f"{path}: {path.stat().st_size:6} bytes; read again: {len(back)} frames, {abs(back[0].astype(int) - video[0]).mean():.2f} of 255 off in the first")

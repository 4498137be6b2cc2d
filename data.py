"""Clips → batches: an endless stream from the toy world, or from a folder of real clips with captions.

Batch k is a function of (seed, k) and of the files: that is all it takes to resume a run exactly, to shuffle, and to let any
number of worker processes draw ahead. Clips of many lengths and sizes fill one batch: it is a number of tokens, not of clips.
A folder holds clip.mp4 beside clip.txt (the caption), in any sizes, lengths and frame rates; from each drawn clip we take a
random window, resample it to the config's frame rate, scale it to cover the size nearest to its own shape and cut the middle
out. A file that cannot be used is named once and skipped.

Letters: B clips  T H W frames, height, width. On disk and in batches (B, T, H, W, 3) uint8; in networks (B, 3, T, H, W) in [-1, 1].
"""
import itertools
import sys
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import text
import world
from config import BadInput, clip_shapes, tokens


def to_float(video):
    """(B, T, H, W, 3) uint8 → (B, 3, T, H, W) float in [-1, 1]"""
    return torch.as_tensor(video).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_uint8(video):
    """(B, 3, T, H, W) float → (B, T, H, W, 3) uint8 numpy. Values beyond [-1, 1] saturate, as on any screen."""
    return ((video.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).cpu().numpy()


WARNED = set()


def skip(path, why):
    """Names an unusable file, once."""
    if path not in WARNED:
        print(f"warning: skipped {path}: {why}", file=sys.stderr)
    WARNED.add(path)


class World(Dataset):
    """Batches of the toy world. A batch is a list of groups: ((B, T, H, W, 3) uint8, B captions), all clips of one shape.

    stage "dit": clips of any of the config's lengths and sizes, packed greedily until dit_tokens are full.
    stage "vae": one group of one shape, as many clips as there are pixels in vae_batch clips of frames x height x width. Lengths are
    1, 5, 9 ... here, for a VAE trained on one length blurs all others."""

    def __init__(self, config, stage="dit"):
        self.config, self.stage = config, stage
        self.lengths, self.sizes = clip_shapes(config)

    def words(self):
        return world.words()

    def __getitem__(self, k):
        rng, groups = np.random.default_rng((self.config.seed, k)), {}
        for shape, which in self.packed(rng) if self.stage == "dit" else self.alike(rng):
            groups.setdefault(shape, []).append(self.clip(rng, which, *shape))
        return [(torch.from_numpy(np.stack([video for video, _ in clips])), [caption for _, caption in clips]) for clips in groups.values()]

    def packed(self, rng):
        """A batch's clips as (shape, which): whatever is drawn goes in if there is room for it, until nothing has fitted 50 times."""
        room, chosen, misses = self.config.dit_tokens, [], 0
        while room >= self.config.words + 1 and misses < 50:
            shape, which = self.draw(rng)
            size = tokens(self.config, *shape)
            if size <= room:
                room -= size
                chosen.append((shape, which))
            else:
                misses += 1
        return chosen

    def alike(self, rng):
        c, ((frames, height, width), which) = self.config, self.draw(rng)
        most = frames if which else max(self.lengths)  # of a file's clip no more than it has
        frames = 1 + 4 * int(rng.integers((most - 1) // 4 + 1))
        count = max(1, round(c.vae_batch * c.frames * c.height * c.width / (frames * height * width)))
        return count * [((frames, height, width), which)]

    def draw(self, rng):
        """The shape (T, H, W) of the next clip, and which it is (in the toy world: any)."""
        frames = 1 if rng.random() < self.config.image_share else self.lengths[rng.integers(len(self.lengths))]
        return (frames, *self.sizes[rng.integers(len(self.sizes))]), None

    def clip(self, rng, which, frames, height, width):
        late = rng.random() < self.config.late_share
        scene = world.scene(rng, aspect=world.aspect(height, width), **({"calm": 0.0} if late else {}))
        caption = "" if late and rng.random() < 0.5 else world.describe(scene, motion=frames > 1 and not late)
        return world.render(scene, frames, height, width, self.config.fps), caption


class Folder(World):
    """The same for a folder of clip.mp4 + clip.txt. Drawing raises BadInput if not a single pair is usable.

    A clip keeps its own framing: of the config's sizes it gets the one whose aspect ratio is nearest to its own, as Sora's report found good."""

    def __init__(self, config, stage="dit"):
        super().__init__(config, stage)
        folder = Path(config.data)
        if not folder.is_dir():
            raise BadInput(f"data = {config.data!r}: expected 'world' or a folder of clip.mp4 + clip.txt")
        self.captions, self.probed = {}, {}
        for path in sorted(folder.glob("*.mp4")):
            try:
                self.captions[path] = " ".join(path.with_suffix(".txt").read_text().split())
            except (OSError, UnicodeDecodeError):
                skip(path, f"no readable caption {path.with_suffix('.txt').name}")
        for path, caption in self.captions.items():
            if (count := len(text.split(caption))) > config.words:
                raise BadInput(f"{path}: its caption has {count} words; words = {config.words}")
        self.paths = list(self.captions)

    def words(self):
        return text.vocabulary(self.captions.values())

    def draw(self, rng):
        (frames, *_), _ = super().draw(rng)
        for i in rng.permutation(len(self.paths)):
            path, lengths = self.paths[i], {frames, *self.lengths}
            if fits := [n for n in lengths if n <= frames and self.lasts(path, n)]:
                return (max(fits), *nearest(self.sizes, self.probed[path][0])), path
            if self.probed[path][0]:
                skip(path, f"{self.probed[path][1]:.2f} s long; {min(lengths)} frames at {self.config.fps:g} per second need {(min(lengths) - 1) / self.config.fps:.2f} s")
        raise BadInput(f"data = {self.config.data!r}: not one clip.mp4 with its clip.txt could be read")

    def lasts(self, path, frames):
        """Whether a clip can be read and is long enough for so many frames."""
        if path not in self.probed:
            self.probed[path] = probe(path)
        ratio, length = self.probed[path]
        return ratio > 0 and length >= (frames - 1) / self.config.fps

    def clip(self, rng, which, frames, height, width):
        for path in (which, *(self.paths[i] for i in rng.permutation(len(self.paths)))):  # the first that can be read
            try:
                if self.lasts(path, frames):
                    return read(path, frames, height, width, self.config.fps, rng), self.captions[path]
            except (av.FFmpegError, ValueError) as error:
                skip(path, error)
        raise BadInput(f"data = {self.config.data!r}: not one clip.mp4 with its clip.txt could be read")


def nearest(sizes, ratio):
    """Of (height, width) sizes the one whose aspect ratio is nearest to ratio = width / height."""
    return min(sizes, key=lambda size: abs(np.log(size[1] / size[0] / ratio)))


def probe(path):
    """A clip's (width / height, seconds); (0, 0) where it cannot be read."""
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            return stream.width / stream.height, seconds(file, stream)
    except (av.FFmpegError, ValueError, IndexError, ZeroDivisionError) as error:
        skip(path, error)
        return 0.0, 0.0


def seconds(file, stream):
    return float((stream.duration or 0) * stream.time_base) or (file.duration or 0) / av.time_base


def read(path, frames, height, width, fps, rng):
    """A random window of a clip → (T, H, W, 3) uint8. Raises BadInput where the clip is shorter than the window."""
    with av.open(str(path)) as file:
        if not file.streams.video:
            raise BadInput("no video in it")
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1                                        # clips are small, and batches are drawn in parallel
        length = seconds(file, stream)
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
        scale = max(height / video[0].height, width / video[0].width)
        h, w = max(height, round(video[0].height * scale)), max(width, round(video[0].width * scale))
        top, left = (h - height) // 2, (w - width) // 2
        scaled = {id(f): f.reformat(w, h, "rgb24", interpolation="AREA").to_ndarray() for f in video}  # once, also where a frame is shown twice
        return np.stack([scaled[id(f)][top : top + height, left : left + width] for f in video])


def open_clip(path, config, size=None):
    """A picture or a clip, anything that imageio reads → (T, H, W, 3) uint8 at the config's frame rate.

    It is scaled to cover `size` (None: of the training sizes the one nearest to its own aspect ratio), and the middle is cut out. Raises BadInput."""
    try:
        with iio.imopen(path, "r") as file:
            meta = file.metadata()
            frames = [np.atleast_3d(frame) for frame in file.iter()]
    except (OSError, ValueError, StopIteration, SyntaxError, av.FFmpegError) as error:
        raise BadInput(f"{path}: not a picture or clip that can be read ({(str(error) or type(error).__name__).splitlines()[0][:100]})")
    fps = meta.get("fps") or 1000 / (meta.get("duration") or 1000 / config.fps)
    count = max(1, round(len(frames) / fps * config.fps)) if len(frames) > 1 else len(frames)
    if not frames:
        raise BadInput(f"{path}: holds no frame")
    video = np.stack([frames[min(int((i + 0.5) / config.fps * fps), len(frames) - 1)] for i in range(count)])
    video = np.repeat(video, 3, -1) if video.shape[-1] == 1 else video[..., :3]
    H, W = video.shape[1:3]
    height, width = size or nearest(clip_shapes(config)[1], W / H)
    scale = max(height / H, width / W)
    h, w = max(height, round(H * scale)), max(width, round(W * scale))
    x = F.interpolate(torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2).float(), (h, w), mode="area" if scale <= 1 else "nearest")
    x = x[:, :, (h - height) // 2 :, (w - width) // 2 :][:, :, :height, :width]
    return x.round().byte().permute(0, 2, 3, 1).numpy()


def source(config, stage="dit"):
    return (World if config.data == "world" else Folder)(config, stage)


def stream(dataset, start, workers=0):
    """Batches start, start + 1, ... without end."""
    return iter(DataLoader(dataset, batch_size=None, sampler=itertools.count(start), num_workers=workers))


if __name__ == "__main__":
    from config import Config, run

    def main():
        config = Config(lengths="9 17 33", sizes="32x32 32x56 56x32 24x32", image_share=0.2)
        batch, again = next(stream(World(config), 7)), next(stream(World(config), 7))
        print("batch 7, the same when drawn again:", all(torch.equal(a, b) for (a, _), (b, _) in zip(batch, again)))
        for video, captions in batch:
            B, T, H, W, _ = video.shape
            print(f"  {B} x {T} frames of {H}x{W}: {B * tokens(config, T, H, W):4} tokens, {captions[0]!r} ...")
        print(f"{sum(len(c) * tokens(config, *v.shape[1:4]) for v, c in batch)} of {config.dit_tokens} tokens are used")
        print("clips x frames of the VAE's batches:", *("{}x{}".format(*World(config, "vae")[k][0][0].shape[:2]) for k in range(6)))

    run(main)

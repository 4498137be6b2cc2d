"""Clips → batches: an endless stream from the toy world, or from a folder of real clips with captions.

Batch k is a function of (seed, k) and of the files: that is all it takes to resume a run exactly, to shuffle, and to let any
number of worker processes draw ahead. A folder holds clip.mp4 beside clip.txt (the caption), in any sizes, lengths and
frame rates; from each drawn clip we take a random window, resample it to the config's frame rate, scale it to cover the
config's size and cut the middle out. A file that cannot be used is named once and skipped.

Letters: B clips  T H W frames, height, width. On disk and in batches (B, T, H, W, 3) uint8; in networks (B, 3, T, H, W) in [-1, 1].
"""
import itertools
import sys
from pathlib import Path

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import text
import world
from config import BadInput


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
    """Batches of the toy world. With lengths, each batch draws its length from 1, 5, ... frames and has more clips the shorter they are."""

    def __init__(self, config, batch, lengths=False):
        self.config, self.batch, self.lengths = config, batch, lengths

    def words(self):
        return world.words()

    def __getitem__(self, k):
        """Batch k → ((B, T, H, W, 3) uint8, list of B captions)"""
        c, rng = self.config, np.random.default_rng((self.config.seed, k))
        frames = 1 + 4 * int(rng.integers((c.frames - 1) // 4 + 1)) if self.lengths else c.frames
        clips = [self.clip(rng, frames) for _ in range(self.batch * c.frames // frames)]
        return torch.from_numpy(np.stack([video for video, _ in clips])), [caption for _, caption in clips]

    def clip(self, rng, frames):
        c = self.config
        scene = world.scene(rng, aspect=world.aspect(c.height, c.width), calm=(frames - 1) / c.fps)
        return world.render(scene, frames, c.height, c.width, c.fps), world.describe(scene)


class Folder(World):
    """The same for a folder of clip.mp4 + clip.txt. Drawing raises BadInput if not a single pair is usable."""

    def __init__(self, config, batch, lengths=False):
        super().__init__(config, batch, lengths)
        folder = Path(config.data)
        if not folder.is_dir():
            raise BadInput(f"data = {config.data!r}: expected 'world' or a folder of clip.mp4 + clip.txt")
        self.captions = {}
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

    def clip(self, rng, frames):
        c = self.config
        for i in rng.permutation(len(self.paths)):  # the first that can be read
            try:
                return read(self.paths[i], frames, c.height, c.width, c.fps, rng), self.captions[self.paths[i]]
            except (av.FFmpegError, ValueError) as error:
                skip(self.paths[i], error)
        raise BadInput(f"data = {self.config.data!r}: not one clip.mp4 with its clip.txt could be read")


def read(path, frames, height, width, fps, rng):
    """A random window of a clip → (T, H, W, 3) uint8. Raises BadInput where the clip is shorter than the window."""
    with av.open(str(path)) as file:
        if not file.streams.video:
            raise BadInput("no video in it")
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1                                        # clips are small, and batches are drawn in parallel
        length = float((stream.duration or 0) * stream.time_base) or (file.duration or 0) / av.time_base
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


def source(config, batch, lengths=False):
    return (World if config.data == "world" else Folder)(config, batch, lengths)


def stream(dataset, start, workers=0):
    """Batches start, start + 1, ... without end."""
    return iter(DataLoader(dataset, batch_size=None, sampler=itertools.count(start), num_workers=workers))


if __name__ == "__main__":
    from config import Config, run

    def main():
        video, captions = next(stream(World(Config(), 4), 7))
        again, _ = next(stream(World(Config(), 4), 7))
        print(f"batch 7: {tuple(video.shape)} {video.dtype}, the same when drawn again: {torch.equal(video, again)}", *captions, sep="\n  ")
        lengths = [next(stream(World(Config(), 8, lengths=True), k))[0].shape[:2] for k in range(6)]
        print("clips x frames of the VAE's batches:", *(f"{b}x{t}" for b, t in lengths))

    run(main)

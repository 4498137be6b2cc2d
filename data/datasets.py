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
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import text
from world.captions import describe, vocab
from world.scenes import CALM_SECONDS, draw_scene, frame_extent, render
from data.video_io import nearest_size, probe, read_window
from config import BadInput, clip_shapes, count_tokens


WARNED = set()


def skip(path, why):
    """Names an unusable file, once."""
    if path not in WARNED:
        print(f"warning: skipped {path}: {why}", file=sys.stderr)
    WARNED.add(path)


class WorldDataset(Dataset):
    """Batches of the toy world. A batch is a list of groups: ((B, T, H, W, 3) uint8, B captions, (B,) how many latent frames
    at the beginning are given, 0 where training draws them), all clips of one shape.

    stage "dit": clips of any of the config's lengths and sizes, packed greedily until dit_tokens are full.
    stage "vae": one group of one shape, as many clips as there are pixels in vae_batch clips of frames x height x width. Lengths are
    1, 5, 9 ... here, for a VAE trained on one length blurs all others."""

    def __init__(self, config, stage="dit"):
        self.config, self.stage = config, stage
        self.lengths, self.sizes = clip_shapes(config)

    def vocab(self):
        return vocab()

    def __getitem__(self, k):
        rng, groups = np.random.default_rng((self.config.seed, k)), {}
        for shape, which in self.draw_packed_batch(rng) if self.stage == "dit" else self.draw_vae_batch(rng):
            groups.setdefault(shape, []).append(self.make_clip(rng, which, *shape))
        return [(torch.from_numpy(np.stack(videos)), list(captions), torch.tensor(given)) for videos, captions, given in (zip(*clips) for clips in groups.values())]

    def draw_packed_batch(self, rng):
        """A batch's clips as (shape, which): whatever is drawn goes in if there is room for it, until nothing has fitted 50 times."""
        room, chosen, misses = self.config.dit_tokens, [], 0
        while room >= self.config.max_words + 1 and misses < 50:
            shape, which = self.draw_shape(rng)
            size = count_tokens(self.config, *shape)
            if size <= room:
                room -= size
                chosen.append((shape, which))
            else:
                misses += 1
        return chosen

    def draw_vae_batch(self, rng):
        c, ((frames, height, width), which) = self.config, self.draw_shape(rng)
        most = frames if which else max(self.lengths)  # of a file's clip no more than it has
        frames = 1 + 4 * int(rng.integers((most - 1) // 4 + 1))
        count = max(1, round(c.vae_batch * c.frames * c.height * c.width / (frames * height * width)))
        return count * [((frames, height, width), which)]

    def draw_shape(self, rng):
        """The shape (T, H, W) of the next clip, and which it is (in the toy world: any)."""
        frames = 1 if rng.random() < self.config.image_prob else self.lengths[rng.integers(len(self.lengths))]
        return (frames, *self.sizes[rng.integers(len(self.sizes))]), None

    def make_clip(self, rng, which, frames, height, width):
        late = rng.random() < self.config.late_prob
        scene = draw_scene(rng, extent=frame_extent(height, width), calm_seconds=0.0 if late else CALM_SECONDS)
        told = ("speed",) if late else ("direction", "speed")                        # of the motion: a late clip's first direction is not the video's
        if frames == 1 or late and rng.random() < 0.5:
            told = ()
        caption = "" if late and rng.random() < 0.5 else describe(scene, told)
        if late and frames > 5 and rng.random() < self.config.window_prob:
            return self.make_window(rng, scene, frames, height, width)
        return render(scene, frames, height, width, self.config.fps), caption, 0

    def make_window(self, rng, scene, frames, height, width):
        """A later window of a long video: frame 0 is a memory of its beginning, some latent frames are what came last, the rest follows.

        What came last was made by a network, and has drifted: too fast or too slow, too large or too small. What follows is right again, as
        the memory and the words say, so the network learns to correct its own errors."""
        given = int(rng.integers(max(2, (frames - 1) // 8), 1 + (frames - 1) // 4))
        last, times, grown = 4 * given - 4, np.arange(frames) / self.config.fps, np.ones(frames)
        times[:last] = times[last] + (times[:last] - times[last]) * rng.uniform(0.6, 1.4)
        grown[1 : last + 1] = rng.uniform(0.85, 1.15)
        times[0] = rng.uniform(-60, 0)
        return render(scene, frames, height, width, self.config.fps, times, grown), describe(scene, ("speed",)), given


class FolderDataset(WorldDataset):
    """The same for a folder of clip.mp4 + clip.txt. Drawing raises BadInput if not a single pair is usable.

    A clip keeps its own framing: of the config's sizes it gets the one whose aspect ratio is nearest to its own, as Sora's report found good."""

    def __init__(self, config, stage="dit"):
        super().__init__(config, stage)
        folder = Path(config.data)
        if not folder.is_dir():
            raise BadInput(f"data = {config.data!r}: expected 'world' or a folder of clip.mp4 + clip.txt")
        self.captions, self.probed, self.unusable = {}, {}, f"data = {config.data!r}: not one clip.mp4 with its clip.txt could be read"
        for path in sorted(folder.glob("*.mp4")):
            try:
                self.captions[path] = " ".join(path.with_suffix(".txt").read_text().split())
            except (OSError, UnicodeDecodeError):
                skip(path, f"no readable caption {path.with_suffix('.txt').name}")
        for path, caption in self.captions.items():
            if (count := len(text.split_words(caption))) > config.max_words:
                raise BadInput(f"{path}: its caption has {count} words; max_words = {config.max_words}")
        self.paths = list(self.captions)

    def vocab(self):
        return text.build_vocab(self.captions.values())

    def draw_shape(self, rng):
        (frames, *_), _ = super().draw_shape(rng)
        for i in rng.permutation(len(self.paths)):
            path, lengths = self.paths[i], {frames, *self.lengths}
            if fits := [n for n in lengths if n <= frames and self.lasts(path, n)]:
                return (max(fits), *nearest_size(self.sizes, self.probed[path][0])), path
            if self.probed[path][0]:
                skip(path, f"{self.probed[path][1]:.2f} s long; {min(lengths)} frames at {self.config.fps:g} per second need {(min(lengths) - 1) / self.config.fps:.2f} s")
        raise BadInput(self.unusable)

    def lasts(self, path, frames):
        """Whether a clip can be read and is long enough for so many frames."""
        if path not in self.probed:
            try:
                self.probed[path] = probe(path)
            except (av.FFmpegError, ValueError) as error:
                self.probed[path] = 0.0, 0.0
                skip(path, error)
        ratio, length = self.probed[path]
        return ratio > 0 and length >= (frames - 1) / self.config.fps

    def make_clip(self, rng, which, frames, height, width):
        for path in (which, *(self.paths[i] for i in rng.permutation(len(self.paths)))):  # the first that can be read
            try:
                if self.lasts(path, frames):
                    return read_window(path, frames, height, width, self.config.fps, rng), self.captions[path], 0
            except (av.FFmpegError, ValueError) as error:
                skip(path, error)
        raise BadInput(self.unusable)


def make_dataset(config, stage="dit"):
    return (WorldDataset if config.data == "world" else FolderDataset)(config, stage)


def stream_batches(dataset, start, workers=0):
    """Batches start, start + 1, ... without end."""
    return iter(DataLoader(dataset, batch_size=None, sampler=itertools.count(start), num_workers=workers))


if __name__ == "__main__":
    from config import Config, run

    def main():
        config = Config(lengths="9 17 33", sizes="32x32 32x56 56x32 24x32", image_prob=0.2)
        batch, again = next(stream_batches(WorldDataset(config), 7)), next(stream_batches(WorldDataset(config), 7))
        print("batch 7, the same when drawn again:", all(torch.equal(a, b) for (a, *_), (b, *_) in zip(batch, again)))
        for video, captions, given in batch:
            B, T, H, W, _ = video.shape
            print(f"  {B} x {T} frames of {H}x{W}: {B * count_tokens(config, T, H, W):4} tokens, {captions[0]!r} ...")
        print(f"{sum(len(c) * count_tokens(config, *v.shape[1:4]) for v, c, _ in batch)} of {config.dit_tokens} tokens are used")
        print("clips x frames of the VAE's batches:", *("{}x{}".format(*WorldDataset(config, "vae")[k][0][0].shape[:2]) for k in range(6)))

    run(main)

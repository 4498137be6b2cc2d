"""Clips to batches: an endless stream from the toy world, or from real clips with captions.

Batch k depends only on (seed, k) and on the files. That is enough to resume a run exactly, to shuffle, and to
let any number of worker processes draw ahead. Clips of many lengths and sizes share one batch, so its size is
a number of tokens and not of clips.

Real clips have any size, length and frame rate, and lie in a folder or in shards (sources.py). From each we
take a random window, resample it to the config's frame rate, scale it to cover the training size nearest to
its own shape, and crop the middle. A file that cannot be used is named once and skipped; a clip without a
caption is trained without words. Where x.recaption.txt lies beside x.txt (recaption.py), it takes its place
most of the time.

Letters
    B       clips of one shape in a batch
    T H W   frames, height, width in pixels

Videos are (B, T, H, W, 3) uint8 here; data.video_io.to_float makes the networks' (B, 3, T, H, W) in [-1, 1].
"""
from config import TIME_FACTOR, BadInput, clip_shapes, count_tokens, latent_length

import itertools
import signal
import sys

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import text
from data import precompute
from data.sources import open_source, shown
from data.video_io import decode_clip, nearest_size, probe, read_window
from utils import distributed
from world.captions import (
    MAX_WORDS,
    describe,
    describe_briefly,
    describe_fully,
    facts,
    facts_at_any_time,
    facts_of_image,
    rich_vocab,
)
from world.captions import vocab as world_vocab
from world.scenes import CALM_SECONDS, KINDS, draw_rich_scene, draw_scene, frame_extent, pick, render

# How long a late clip's motion has lasted, at most, in seconds: a minute is what we sample.
LATEST = 60.0

# A clip of at most so many seconds is decoded once and kept in memory, until all those kept need so many
# bytes (in each of the processes that draw batches). The windows of all others are decoded each time.
KEPT_SECONDS = 20.0
KEPT_BYTES = 500_000_000

# A packed batch counts as full after this many draws that did not fit.
MAX_MISSES = 50

WARNED = set()


def skip(clip, why):
    """Name an unusable file on stderr, once."""
    warn(clip, f"skipped {shown(clip)}: {why}")


def warn(about, message):
    """A line on stderr, once for whatever it is about."""
    if about not in WARNED and distributed.is_first():
        print(f"warning: {message}", file=sys.stderr)
    WARNED.add(about)


class WorldDataset(Dataset):
    """Batches of the toy world: the simple one, or the rich one with the config's kinds of scenes.

    A batch is a list of groups (videos, captions, given), the clips of one group all of one shape:
    videos (B, T, H, W, 3) uint8, captions a list of B strings, and given (B,) the number of latent frames at
    the beginning that are given (0: training draws it).

    stage "dit": clips of any of the config's lengths and sizes, packed until dit_tokens are full.
    stage "vae": one group of one shape, with about as many pixels as vae_batch clips of the config's frames x
    height x width. Its lengths are 1, 5, 9, ... because a VAE trained on one length blurs all others.

    Raises BadInput for an unknown kind of scene, and for captions longer than a prompt may be.
    """

    def __init__(self, config, stage="dit"):
        self.config = config
        self.stage = stage
        self.lengths, self.sizes = clip_shapes(config)
        self.kinds = config.scenes.split()
        for kind in self.kinds:
            if kind not in KINDS:
                known = " ".join(KINDS)
                raise BadInput(f"scenes = {config.scenes!r}: {kind!r} is none; expected some of {known!r}")
        if self.kinds and config.max_words < MAX_WORDS:
            needed = f"captions of scenes have up to {MAX_WORDS} words"
            raise BadInput(f"max_words = {config.max_words}: {needed}")

    def vocab(self):
        """Every word of the captions; none where a pretrained text encoder reads them."""
        if self.config.text_encoder != "vocabulary":
            return []
        return rich_vocab() if self.kinds else world_vocab()

    def __getitem__(self, k):
        rng = np.random.default_rng((self.config.seed, k))
        if self.stage == "dit":
            chosen = self.draw_packed_batch(rng)
        else:
            chosen = self.draw_vae_batch(rng)

        # Only clips of one shape can be stacked.
        groups = {}
        for shape, path in chosen:
            clip = self.make_clip(rng, path, *shape)
            groups.setdefault(shape, []).append(clip)

        batch = []
        for clips in groups.values():
            videos = torch.from_numpy(np.stack([video for video, _, _ in clips]))         # (B, T, H, W, 3)
            captions = [caption for _, caption, _ in clips]
            given = torch.tensor([count for _, _, count in clips])                        # (B,)
            batch.append((videos, captions, given))
        return batch

    def draw_packed_batch(self, rng):
        """The clips of a batch as (shape, path): each one drawn goes in if there is room for its tokens."""
        room = self.config.dit_tokens
        chosen = []
        misses = 0
        while room >= self.config.max_words + 1 and misses < MAX_MISSES:
            shape, path = self.draw_shape(rng)
            tokens = count_tokens(self.config, *shape)
            if tokens <= room:
                room -= tokens
                chosen.append((shape, path))
            else:
                misses += 1
        return chosen

    def draw_vae_batch(self, rng):
        """The clips of a batch as (shape, path): one shape, repeated until the batch has its pixels."""
        (longest, height, width), path = self.draw_shape(rng)

        # The toy world can render any length; a file has no more frames than were found for it.
        if path is None:
            longest = max(self.lengths)
        frames = 1 + TIME_FACTOR * int(rng.integers(latent_length(longest)))

        pixels = self.config.vae_batch * self.config.frames * self.config.height * self.config.width
        count = max(1, round(pixels / (frames * height * width)))
        return count * [((frames, height, width), path)]

    def draw_shape(self, rng):
        """The shape (T, H, W) of the next clip, and its file: None in the toy world."""
        if rng.random() < self.config.image_prob:
            frames = 1
        else:
            frames = self.lengths[rng.integers(len(self.lengths))]
        height, width = self.sizes[rng.integers(len(self.sizes))]
        return (frames, height, width), None

    def make_clip(self, rng, path, frames, height, width):
        """One clip: (video (T, H, W, 3) uint8, caption, latent frames given). path is unused here.

        Most clips move freely for CALM_SECONDS first, and their caption tells everything. With late_prob a
        clip may bounce at once, as clips from later in a video do.
        """
        if self.kinds:
            return self.make_rich_clip(rng, frames, height, width)
        extent = frame_extent(height, width)
        late = rng.random() < self.config.late_prob
        if not late:
            scene = draw_scene(rng, extent=extent, calm_seconds=CALM_SECONDS)
            motion = () if frames == 1 else ("direction", "speed")
            return render(scene, frames, height, width, self.config.fps), describe(scene, motion), 0

        # A late clip may bounce at once, so the direction it starts in is not the one the video had: the
        # caption never tells it. Half of these captions are empty, and half of the others tell the speed.
        scene = draw_scene(rng, extent=extent, calm_seconds=0.0)
        tells_speed = frames > 1 and rng.random() >= 0.5
        is_empty = rng.random() < 0.5

        # Some of the late clips long enough for it show how a long video is continued; their captions
        # always tell the speed.
        if frames > 1 + TIME_FACTOR and rng.random() < self.config.window_prob:
            return self.make_window(rng, scene, describe(scene, ("speed",)), frames, height, width)

        caption = describe(scene, ("speed",) if tells_speed else ())
        if is_empty:
            caption = ""
        return render(scene, frames, height, width, self.config.fps), caption, 0

    def make_rich_clip(self, rng, frames, height, width):
        """A clip of the rich world, of a kind that can be shown in so few frames."""
        if frames > 1 and rng.random() < self.config.late_prob:
            return self.make_late_rich_clip(rng, frames, height, width)
        seconds = (frames - 1) / self.config.fps
        kinds = [kind for kind in self.kinds if KINDS[kind] <= seconds] or ["move"]
        scene = draw_rich_scene(rng, pick(rng, kinds), frame_extent(height, width), seconds)
        # Most captions tell everything, as DALL·E 3's do; the others are brief, as people write.
        tell = describe_briefly if rng.random() < self.config.brief_share else describe_fully
        caption = tell(scene, rng, facts_of_image if frames == 1 else facts)
        return render(scene, frames, height, width, self.config.fps), caption, 0

    def make_late_rich_clip(self, rng, frames, height, width):
        """A clip from later in a long video: one thing has moved and bounced for a while, before a still
        camera. Its caption tells what is true all the time."""
        seconds = (frames - 1) / self.config.fps
        scene = draw_rich_scene(rng, "move", frame_extent(height, width), seconds, count=1)
        scene.camera = "still"
        caption = describe_fully(scene, rng, facts_at_any_time)
        if frames > 1 + TIME_FACTOR and rng.random() < self.config.window_prob:
            return self.make_window(rng, scene, caption, frames, height, width)
        times = rng.uniform(0, LATEST) + np.arange(frames) / self.config.fps
        return render(scene, frames, height, width, times=times), caption, 0

    def make_window(self, rng, scene, caption, frames, height, width):
        """A later window of a long video, as sampling meets it: (video, caption, latent frames given).

        Frame 0 is a memory of the video's beginning, the next latent frames are what came last, and the rest
        follows. In sampling, what came last was made by the network and has drifted: too fast or too slow,
        too large or too small. Here what follows is right again, as the memory and the words say, so the
        network learns to correct its own errors.
        """
        latent_frames = latent_length(frames)
        given = int(rng.integers(max(2, (latent_frames - 1) // 2), latent_frames))
        last = TIME_FACTOR * (given - 1)                        # the last given frame of the video
        times = np.arange(frames) / self.config.fps
        size_factor = np.ones(frames)

        # Drift: what came last runs at the wrong pace, but joins what follows at frame `last`.
        times[:last] = times[last] + (times[:last] - times[last]) * rng.uniform(0.6, 1.4)
        size_factor[1 : last + 1] = rng.uniform(0.85, 1.15)

        # The memory: up to a minute earlier, and of the right size.
        times[0] = rng.uniform(-LATEST, 0)
        video = render(scene, frames, height, width, self.config.fps, times, size_factor)
        return video, caption, given


class FileDataset(WorldDataset):
    """The same batches from files, clip.mp4 + clip.txt in a folder or in shards.

    A clip keeps its own framing: it gets the training size whose aspect ratio is nearest to its own, which
    Sora's report found to improve composition. Raises BadInput where the files do not exist, where a caption
    is longer than max_words, and, when a batch is drawn, where not one clip can be used.
    """

    def __init__(self, config, stage="dit"):
        super().__init__(config, stage)
        self.source = open_source(config.data)
        self.unusable = f"data = {config.data!r}: not one clip.mp4 could be read"

        self.captions = {}
        self.recaptions = {}
        without = 0
        for clip in self.source.clips:
            try:
                caption = self.source.caption(clip)
                recaption = self.source.caption(clip, ".recaption.txt")
            except (OSError, UnicodeDecodeError) as error:
                skip(clip, f"its caption cannot be read ({error})")
                continue
            without += caption is None and recaption is None
            self.captions[clip] = " ".join((caption or recaption or "").split())
            if recaption is not None:
                self.recaptions[clip] = " ".join(recaption.split())
        if without:
            total = len(self.captions)
            warn(config.data, f"{without} of {total} clips have no caption: trained without words")

        for clip, caption in [*self.captions.items(), *self.recaptions.items()]:
            count, unit = text.count_words(caption, config)
            if count > config.max_words:
                raise BadInput(
                    f"{shown(clip)}: its caption has {count} {unit}; max_words = {config.max_words}"
                )

        self.paths = list(self.captions)
        self.probed = {}                                        # path -> (width / height, seconds)
        self.kept = {}                                          # (path, height, width) -> DecodedClip or None
        self.kept_bytes = 0

    def vocab(self):
        if self.config.text_encoder != "vocabulary":
            return []
        return text.build_vocab([*self.captions.values(), *self.recaptions.values()])

    def draw_shape(self, rng):
        """The shape (T, H, W) of the next clip, and its file."""
        (frames, _, _), _ = super().draw_shape(rng)
        lengths = {frames, *self.lengths}                       # frames may be 1, an image

        for i in rng.permutation(len(self.paths)):
            path = self.paths[i]
            fits = [n for n in lengths if n <= frames and self.lasts(path, n)]
            ratio, seconds = self.probed[path]
            if fits:
                height, width = nearest_size(self.sizes, ratio)
                return (max(fits), height, width), path

            # A ratio of 0 marks a file that cannot be read: that was said already.
            if ratio:
                fps = self.config.fps
                shortest = min(lengths)
                needed = (shortest - 1) / fps
                why = f"{seconds:.2f} s long; {shortest} frames at {fps:g} per second need {needed:.2f} s"
                skip(path, why)
        raise BadInput(self.unusable)

    def lasts(self, path, frames):
        """Whether a clip can be read and is long enough for so many frames."""
        if path not in self.probed:
            try:
                self.probed[path] = probe(self.source.open(path))
            except (av.FFmpegError, ValueError) as error:
                self.probed[path] = (0.0, 0.0)
                skip(path, error)
        ratio, seconds = self.probed[path]
        return ratio > 0 and seconds >= (frames - 1) / self.config.fps

    def make_clip(self, rng, path, frames, height, width):
        """A random window of the file at path, or of another one if it cannot be decoded."""
        others = [self.paths[i] for i in rng.permutation(len(self.paths))]
        for candidate in [path, *others]:
            try:
                if self.lasts(candidate, frames):
                    video = self.read(rng, candidate, frames, height, width)
                    return video, self.draw_caption(rng, candidate), 0
            except (av.FFmpegError, ValueError) as error:
                skip(candidate, error)
        raise BadInput(self.unusable)

    def read(self, rng, clip, frames, height, width):
        """A random window of a clip, (T, height, width, 3) uint8, from memory where it has been decoded."""
        key = (clip, height, width)
        _, seconds = self.probed[clip]
        if key not in self.kept and seconds <= KEPT_SECONDS and self.kept_bytes < KEPT_BYTES:
            try:
                self.kept[key] = decode_clip(self.source.open(clip), height, width)
                self.kept_bytes += self.kept[key].frames.nbytes
            except (av.FFmpegError, ValueError):
                self.kept[key] = None  # broken somewhere: windows may lie before that

        decoded = self.kept.get(key)
        if decoded:
            return decoded.window(frames, self.config.fps, rng)
        return read_window(self.source.open(clip), frames, height, width, self.config.fps, rng)

    def draw_caption(self, rng, clip):
        """The clip's recaption in recaption_share of all draws, if it has one, else its caption."""
        if clip in self.recaptions and rng.random() < self.config.recaption_share:
            return self.recaptions[clip]
        return self.captions[clip]


def make_dataset(config, stage="dit"):
    """The dataset that config.data names: "world", clips in a folder or in shards, or latents."""
    if config.data == "world":
        return WorldDataset(config, stage)
    if precompute.is_precomputed(config.data):
        return precompute.PrecomputedDataset(config)
    return FileDataset(config, stage)


def stream_batches(dataset, start, step=1, workers=0):
    """Batches start, start + step, ... without end. workers: the processes that draw them; 0 is this one."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=itertools.count(start, step),
        num_workers=workers,
        worker_init_fn=ignore_stop_signals,
    )
    return iter(loader)


def ignore_stop_signals(worker):
    """A terminal's Ctrl-C reaches all processes of a run. It is train.py that answers; when it ends, so do
    its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    from config import Config

    from utils.cli import run

    def main():
        config = Config(lengths="9 17 33", sizes="32x32 32x56 56x32 24x32", image_prob=0.2)
        batch = next(stream_batches(WorldDataset(config), 7))
        again = next(stream_batches(WorldDataset(config), 7))
        same = all(torch.equal(group[0], other[0]) for group, other in zip(batch, again, strict=True))
        print("batch 7, the same when drawn again:", same)

        used = 0
        for videos, captions, _ in batch:
            B, T, H, W, _ = videos.shape
            tokens = B * count_tokens(config, T, H, W)
            used += tokens
            print(f"  {B} x {T} frames of {H}x{W}: {tokens:4} tokens, {captions[0]!r} ...")
        print(f"{used} of {config.dit_tokens} tokens are used")

        print("clips x frames of the VAE's batches:", end="")
        for k in range(6):
            videos = WorldDataset(config, "vae")[k][0][0]
            print(f" {videos.shape[0]}x{videos.shape[1]}", end="")
        print()

    run(main)

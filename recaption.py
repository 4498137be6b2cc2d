"""Recaptioning: a small network looks at a clip and writes down everything that it shows.

    python recaption.py train --checkpoint assets/world.pt     learns to describe clips
    python recaption.py score                                  fact by fact, on clips it never saw
    python recaption.py describe clip.mp4                      a caption, and how sure it is of each fact
    python recaption.py expand "a ball and a square"           a prompt in the style of full captions
    python recaption.py folder clips/                          x.recaption.txt beside every x.mp4

Captions from the web are brief and omit most of what is shown, and a generator cannot learn what no caption
tells. So a captioner first learns to write brief captions, of which there are plenty, then full ones, from a
few clips that somebody has described. It describes all the others, and the generator is trained on what it
wrote. A generator trained this way expects long captions, so a brief prompt has to be expanded first
("upsampled"). Here the rich world plays the web: world/captions.py's describe_briefly writes the brief
captions, and describe_fully the few full ones.

Captioner and expander are one network here, a language model in which each word attends to all words before
it, to the clip and to the brief caption:

    [patches of the clip, or none]  [S words of the brief caption]  BEGIN  w_1  w_2  ...  END

With a clip it says what is seen, and the brief caption, if there is one, is a hint. Without a clip it keeps
what the brief caption says and invents the rest, as GPT-4 does for DALL·E 3. The blocks are dit.py's. There
is no diffusion here, so no noise level shifts and scales the tokens: each block does so by its own learned
offset, the same for all tokens. And there is a second path beside the patch embedding, a few convolutions
whose output is cut into the same patches and added: in a short clip a slow thing moves by less than a patch,
so neighbouring frames have to be compared more finely than that.

Only few clips can be described, so we choose clips with long brief captions, as these show more than others.
A network that sees the same few clips again and again learns their captions by heart. So each clip gets
several captions, as if several people had written them, each in words and in an order of its own. Clips are
also shown mirrored, with words such as "left" and "right" swapped, and with noise on their latents. Prompts
to be expanded have no clip to match, so their colours are swapped too.

At the end come some steps at a constant learning rate, and what is kept is the mean of the weights after
each of them. Single steps err in different ways, which a mean may cancel; how little that was worth here is
in docs/results.md.

Papers
    Recaptioning, in these two stages, and prompt expansion: Betker et al. 2023 (DALL·E 3), sec. 2 and
        appendix C,
        https://cdn.openai.com/papers/dall-e-3.pdf
    The mean of the weights of many steps (SWA): Izmailov et al. 2018, algorithm 1,
        https://arxiv.org/abs/1803.05407
    A captioner that is a language model over an image's tokens: GIT, Wang et al. 2022,
        https://arxiv.org/abs/2205.14100
    Convolutions before the patches, there in the place of the patch embedding: Xiao et al. 2021,
        https://arxiv.org/abs/2106.14881
    Five captions for each image, by five people: Microsoft COCO Captions, Chen et al. 2015, sec. 3,
        https://arxiv.org/abs/1504.00325

Where we differ: DALL·E 3's captioner begins as a CLIP and a pretrained language model, ours as the video
model, which has learned the few words of its world; its expander is GPT-4.

Letters
    B       clips in a batch
    Z       latent channels
    f h w   latent frames, rows, columns
    D       model width
    S       room for the words of the brief caption, MAX_BRIEF_WORDS; an empty place is a token as well
    K       words of the caption that are known already (in training all of them and the padding, L - 1)
    L       words of the longest caption of a batch, and END
    N       tokens: patches, then S, then BEGIN and K
    n       tokens that are not in the caches yet
    V       words that can be said
    T H W   frames, height, width in pixels
"""
from config import TIME_FACTOR, BadInput, clip_shapes, config_from_dict

import collections
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import train
from data.sources import Folder
from data.video_io import open_clip, to_float
from dit import DiTBlock, layer_norm, timestep_embedding, token_positions
from evaluate import interval, name_of_fact
from patches import grid_positions, patchify, rope
from text import check_words, encode_prompts, split_words
from utils.checkpoint import SHIPPED, load_model, read_file, save_checkpoint
from utils.cli import Flags, autocast, check_at_least, pick_device, progress_bar, run
from vae import VAE
from world.caption_reader import count_kept, facts_told, words_without_meaning
from world.captions import (
    MAX_BRIEF_WORDS,
    MAX_WORDS,
    RELATIONS,
    describe_briefly,
    describe_fully,
    facts,
    facts_of_image,
    rich_telling_words,
    rich_vocab,
)
from world.scenes import (
    COLOURS,
    DIRECTIONS,
    KINDS,
    SPEEDS,
    Scene,
    draw_rich_scene,
    frame_extent,
    is_held_out_as,
    pick,
    render,
)

WORLD = SHIPPED.parent / "world.pt"
CAPTIONER = "out/recaption/captioner.pt"
EXAMPLES = {"describe": "clip.mp4", "expand": '"a ball and a square"', "folder": "clips/"}
DESCRIBED_CLIPS = 3000
CANDIDATES = 3  # clips with brief captions, of which one is described, as choose_scenes says
DESCRIPTIONS = 5  # full captions of each described clip
BRIEF_CLIPS = 600  # clips with brief captions that are drawn at a time
BRIEF_CLIPS_STEPS = 50  # steps before they are replaced by new ones
SAVE_STEPS = 400  # steps between saves; a multiple of BRIEF_CLIPS_STEPS, as Curriculum says
BATCH = 24
IMAGES_FIRST = 0.5  # the share of brief_steps in which the clips are images only
EXPAND_EVERY = 4  # after the first stage, one step in so many also expands prompts
MUON_LR = 0.02
ADAM_LR = 2e-3
MEAN_RATE = 0.5  # while weights are averaged, both learning rates are this share of their peaks
NO_BRIEF = 0.3  # how often the captioner learns to do without the brief caption
NOISE = 0.4  # standard deviation of the noise on latents, whose own is 1; in training only
WORDS_START = 32  # where the brief caption begins, in latent frames: after any clip that we train on
STEM_WIDTH = 64  # channels of the convolutions beside the patch embedding
DRAWS = 8  # captions drawn to see how sure it is
EXPANSIONS = 32  # drawn, of which the best is taken

# How things move and where they are is learned last, so the losses of these words, and of the word after
# each, count MOTION_WEIGHT times: the word after tells whether a thing also turns ("then turning up") or
# meets another ("hits"). Such a weight makes a word likelier than words without it. Between "left" and "up",
# which both have it, nothing changes; but a word that may be left out, as in brief captions, is said too
# often. "at" is that of "at rest".
MOTION_AND_PLACE_WORDS = {"standing", "at", "moving", "going", "falls", "falling", "above", "below"}
MOTION_AND_PLACE_WORDS |= {*DIRECTIONS, *SPEEDS}
MOTION_WEIGHT = 5

# In a meeting the order of the things says who meets whom, and in all other captions it says nothing. So all
# words of a caption, and its END, count MOTION_WEIGHT times where one of these is told.
MEETING_WORDS = {"hits", "bumps", "bites", "takes"}

# In a mirror a clip is a new one, and its caption follows. So there are four views of it, as it is and in
# three mirrors: which axes of (T, H, W, 3) are flipped, and which words are swapped.
LEFT_RIGHT = {"left": "right", "right": "left"}
UP_DOWN = {"up": "down", "down": "up", "above": "below", "below": "above"}
VIEWS = [((), {}), ((2,), LEFT_RIGHT), ((1,), UP_DOWN), ((1, 2), LEFT_RIGHT | UP_DOWN)]

# Seeds are tuples, (seed, what for, ...): no clip that is scored has been trained on. CAPTIONS comes last,
# for the wording of captions.
DESCRIBED, ON_THE_WEB, BATCHES, SCORED = 1, 2, 3, 4
CAPTIONS = 5


class KeyValueCache:
    """The keys and values of all tokens that one block has seen so far. No token looks at words that come
    after it, and the clip and the brief caption enter as a whole, so keys and values stay what they are while
    word after word is written, and need to be computed only once."""

    def __init__(self):
        self.length = 0  # tokens that it holds of each sequence

    def add(self, k, v, shapes):
        """k, v (B n, heads, head_dim), shapes [(B, n)] → those of all tokens so far, (B N, heads, head_dim),
        and [(B, N)]."""
        [(B, n)] = shapes
        k = k.unflatten(0, (B, n))
        v = v.unflatten(0, (B, n))
        if self.length:
            k = torch.cat([self.k, k], 1)
            v = torch.cat([self.v, v], 1)
        self.k = k                                                                 # (B, N, heads, head_dim)
        self.v = v
        self.length = k.shape[1]
        return k.flatten(0, 1), v.flatten(0, 1), [(B, self.length)]


class Captioner(nn.Module):
    """The language model.

    config  that of the video model whose VAE makes the latents; the captioner is as wide and as deep
    words   the vocabulary. A word's id is its index + 1. In the brief caption 0 is an empty place; in the
            caption that is written it is END, and after that nothing"""

    def __init__(self, config, words):
        super().__init__()
        self.config = config
        self.words = words
        D = config.dit_width
        self.patch = (1, config.patch_size, config.patch_size)
        self.patch_embedding = nn.Linear(config.latent_channels * config.patch_size**2, D)
        self.position_embedding = nn.Linear(2 * config.dit_head_dim, D)
        # Each latent sees two rows, columns and frames to every side: what moves there, and where to.
        self.stem = nn.Sequential(
            nn.Conv3d(config.latent_channels, STEM_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(STEM_WIDTH, STEM_WIDTH, 3, padding=1),
            nn.SiLU(),
        )
        self.stem_embedding = nn.Linear(STEM_WIDTH * config.patch_size**2, D, bias=False)
        # A word that was given and a word that was written are two things, so each has a vector of its own.
        self.brief_embedding = nn.Embedding(len(words) + 1, D)
        self.word_embedding = nn.Embedding(len(words) + 2, D)  # the last one is BEGIN
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.dit_depth))
        self.word_linear = nn.Linear(D, len(words) + 1)
        weights = [MOTION_WEIGHT if word in MOTION_AND_PLACE_WORDS else 1 for word in words]
        self.register_buffer("word_weights", torch.tensor([1.0, *weights]), persistent=False)  # (V + 1,)
        is_meeting = [word in MEETING_WORDS for word in words]
        self.register_buffer("is_meeting_word", torch.tensor([False, *is_meeting]), persistent=False)
        self.init_weights()

    def init_weights(self):
        """Every weight of the network, one reason a line. Must run last: a later initialisation would undo
        it."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # keeps the size of signals through a layer
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.brief_embedding.weight)  # random directions, so that words differ at once
        nn.init.normal_(self.word_embedding.weight)
        for block in self.blocks:
            nn.init.zeros_(block.modulation_offset)  # no shift, no scale, gates at 0: blocks are the identity
        nn.init.zeros_(self.stem_embedding.weight)  # at first a patch is what it is to the video model
        nn.init.zeros_(self.word_linear.weight)  # all words are equally likely before knowing better

    def forward(self, latents, brief, said, caches=None):
        """The words so far → the logits of each next one, (B, K + 1, V + 1): after BEGIN and after each word.

        latents (B, Z, f, h, w) or None, brief (B, S), said (B, K) word ids of the caption, 0 ≤ K < MAX_WORDS.
        caches: None, or a KeyValueCache for each block, which is added to. Then only tokens that they do not
        hold yet go through the blocks, and only the logits after these are returned."""
        B, K = said.shape
        begin = said.new_full((B, 1), len(self.words) + 1)
        words = self.word_embedding(torch.cat([begin, said], 1))                   # (B, K + 1, D)
        S = brief.shape[1]
        positions = grid_positions((S + K + 1, 1, 1)) + torch.tensor([WORDS_START, 0, 0])
        if latents is not None:
            f, h, w = latents.shape[2:]
            grid = (f, h // self.patch[1], w // self.patch[2])
            positions = torch.cat([grid_positions(grid), positions])
        N = len(positions)

        # A prefix language model: a word sees all before it. The clip and the brief caption, its prefix,
        # see each other, and no word.
        prefix_length = N - (K + 1)
        token = torch.arange(N, device=words.device)
        visible = (token[None, :] <= token[:, None]) | (token[None, :] < prefix_length)  # (N, N)

        # Of earlier tokens the blocks need only keys and values, which the caches hold.
        cached_length = caches[0].length if caches else 0
        if cached_length:
            x = words[:, cached_length - prefix_length :]                          # (B, n, D)
        else:
            clip = [] if latents is None else [self.embed_clip(latents, grid)]
            x = torch.cat([*clip, self.brief_embedding(brief), words], 1)          # (B, N, D)
        n = N - cached_length
        visible = visible[cached_length:]                                          # (n, N)
        positions = positions[cached_length:].to(x.device)                         # (n, 3)

        cos, sin = rope(positions, self.config.dit_head_dim)                       # (n, head_dim / 2)
        cos = cos.repeat(B, 1)[:, None]                                            # (B n, 1, head_dim / 2)
        sin = sin.repeat(B, 1)[:, None]

        # A block expects a modulation for each noise level. Here it is zero, and the same for all tokens.
        modulation = x.new_zeros(1, 6 * x.shape[2])

        def same_for_all(numbers):
            return numbers                                                         # (1, D), broadcast to all

        x = x.flatten(0, 1)                                                        # (B n, D)
        for block, cache in zip(self.blocks, caches or len(self.blocks) * [None], strict=True):
            x = block(x, modulation, same_for_all, cos, sin, [(B, n)], visible, cache)
        x = x.unflatten(0, (B, n))[:, max(0, prefix_length - cached_length) :]     # (B, K + 1 or less, D)
        return self.word_linear(layer_norm(x)).float()

    def embed_clip(self, latents, grid):
        """latents (B, Z, f, h, w), grid (f, rows, columns) → tokens (B, f rows columns, D).

        As in dit.py, a patch also carries where it is, seen from both ends (here no word does): to tell that
        one thing is left of another, a word has to compare places. And it carries what convolutions found
        there, over its borders and over time."""
        positions = token_positions(grid, 0).to(latents.device)                    # (f rows columns, 2, 3)
        cos, sin = rope(positions, self.config.dit_head_dim)
        waves = torch.cat([cos, sin], 2).flatten(1)                                # (.., 2 head_dim)
        tokens = self.patch_embedding(patchify(latents, self.patch)) + self.position_embedding(waves)
        return tokens + self.stem_embedding(patchify(self.stem(latents), self.patch))


def caption_loss(captioner, latents, brief, caption):
    """The mean of -log p(word) over the words of all captions and the END after each, weighted as is said at
    MOTION_AND_PLACE_WORDS and MEETING_WORDS. latents, brief: as in forward; caption (B, L)."""
    logits = captioner(latents, brief, caption[:, :-1])                            # (B, L, V + 1)
    word_counts = (caption > 0).sum(1, keepdim=True)                               # (B, 1)
    place = torch.arange(caption.shape[1], device=caption.device)                  # (L,)
    is_scored = place <= word_counts  # (B, L): the words and the first 0, which is END
    losses = F.cross_entropy(logits.transpose(1, 2), caption, reduction="none")    # (B, L)
    weights = captioner.word_weights[caption]                                      # (B, L)
    weights_before = F.pad(weights[:, :-1], (1, 0), value=1.0)  # that of the word before, 1 for the first
    weights = torch.maximum(weights, weights_before)
    is_meeting = captioner.is_meeting_word[caption].any(1, keepdim=True)           # (B, 1)
    weights = weights.masked_fill(is_meeting, MOTION_WEIGHT) * is_scored
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def write_captions(captioner, latents, brief, temperature=0.0, generator=None):
    """Full captions, word by word → a list of B strings.

    temperature 0 takes the likeliest word each time; 1 draws each as often as the network expects it."""
    said = brief[:, :0]                                                            # (B, 0): no word yet
    caches = [KeyValueCache() for _ in captioner.blocks]
    ended = torch.zeros(len(brief), dtype=torch.bool, device=brief.device)
    while said.shape[1] < MAX_WORDS and not ended.all():
        logits = captioner(latents, brief, said, caches)[:, -1]                    # (B, V + 1)
        if temperature > 0:
            probabilities = (logits / temperature).softmax(-1)
            word = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        else:
            word = logits.argmax(-1)
        word = word.masked_fill(ended, 0)
        ended |= word == 0
        said = torch.cat([said, word[:, None]], 1)
    return [" ".join(captioner.words[i - 1] for i in row if i > 0) for row in said.tolist()]


def ids_of(captioner, captions, room):
    """Captions → word ids (B, room) on the captioner's device, 0 after the last word."""
    ids = encode_prompts(captions, captioner.words, room)
    return ids.to(captioner.word_linear.weight.device)


def video_lengths(config):
    """The lengths of videos in frames, the shortest first."""
    return sorted({*clip_shapes(config)[0]} - {1})


def training_lengths(config):
    """The lengths of the clips to train on, each as often as it is to come: once, but the longest twice, as
    no others have time for all that can happen."""
    videos = video_lengths(config)
    return [1, *videos, videos[-1]]


def draw_scenes(config, count, seed, lengths, held_out=""):
    """Scenes of the world → {frames: [(scene, facts_of), ...]}. facts_of: scene → the facts that so many
    frames show, `facts` or facts_of_image.

    seed        a tuple of integers
    lengths     the clips' lengths in frames, in equal shares
    held_out    "" or what training never shows (world.scenes.draw_rich_scene)"""
    rng = np.random.default_rng(seed)
    by_frames = {}
    for i in range(count):
        frames = lengths[i % len(lengths)]
        seconds = (frames - 1) / config.fps
        possible = [kind for kind in KINDS if KINDS[kind] <= seconds]
        extent = frame_extent(config.height, config.width)
        scene = draw_rich_scene(rng, pick(rng, possible), extent, seconds, held_out=held_out)
        by_frames.setdefault(frames, []).append((scene, facts_of_image if frames == 1 else facts))
    return by_frames


@torch.no_grad()
def encode_clips(vae, latent_scale, clips):
    """Clips (B, T, H, W, 3) uint8 → latents (B, Z, f, h, w) of variance 1."""
    mean, _ = vae.encode(to_float(clips).to(latent_scale.device))
    return mean * latent_scale


def encode_scenes(vae, latent_scale, config, scenes, frames, mirrored_axes=()):
    """Scenes → latents (B, Z, f, h, w), of mirror images where axes of (T, H, W, 3) are named."""
    latents = []
    for first in range(0, len(scenes), BATCH):
        clips = []
        for scene in scenes[first : first + BATCH]:
            clip = render(scene, frames, config.height, config.width, config.fps)
            clips.append(np.flip(clip, mirrored_axes))
        latents.append(encode_clips(vae, latent_scale, np.stack(clips)))
    return torch.cat(latents)


@dataclass
class Example:
    """A clip of the world, perhaps mirrored, and one caption."""
    clip: int  # the index of its latents, which are those of the mirrored clip
    scene: Scene  # not mirrored, its things in the order of a caption of describe_fully
    facts_of: Callable  # `facts` or facts_of_image
    caption: str  # of the clip that is not mirrored
    swaps: dict  # the words to swap so that the caption fits the mirrored clip, {} without a mirror


def choose_scenes(config, count, seed, lengths):
    """The scenes of `count` clips that are to be described, as draw_scenes gives them; with the images come
    the first frames of the videos.

    There are plenty of clips with brief captions. Of CANDIDATES at a time the one with the longest brief
    caption is taken: the more a clip shows, the more its full caption teaches, and a single thing on a plain
    ground is learned soon. And we take it that whoever describes a video says in it what its first frame
    shows: that is an image, in which nothing moves yet."""
    rng = np.random.default_rng((*seed, CAPTIONS))
    chosen = {}
    for frames, drawn in draw_scenes(config, CANDIDATES * count, seed, lengths).items():
        words = [len(describe_briefly(scene, rng, facts_of).split()) for scene, facts_of in drawn]
        for first in range(0, len(drawn), CANDIDATES):
            candidates = range(first, min(first + CANDIDATES, len(drawn)))
            most_telling = max(candidates, key=lambda i: words[i])
            chosen.setdefault(frames, []).append(drawn[most_telling])
    videos = [scene for frames, scenes in chosen.items() if frames > 1 for scene, _ in scenes]
    chosen.setdefault(1, []).extend((scene, facts_of_image) for scene in videos)
    return chosen


def caption_scenes(vae, latent_scale, config, scenes, seed, describe, descriptions=1, views=VIEWS[:1]):
    """Captions and encodes clips of the world → {frames: (a list of Examples, latents (B, Z, f, h, w))}.

    scenes        of the clips, as draw_scenes gives them
    seed          a tuple of integers
    describe      describe_fully or describe_briefly
    descriptions  captions of each clip
    views         those of VIEWS in which each clip is shown, except where may_be_shown forbids it"""
    rng = np.random.default_rng((*seed, CAPTIONS))
    captioned = {}
    for frames, drawn in scenes.items():
        versions = []  # of each scene, [(its things in some order, a caption in that order), ...]
        for scene, facts_of in drawn:
            reordered = [in_any_order(scene, rng) for _ in range(descriptions)]
            versions.append([(version, describe(version, rng, facts_of)) for version in reordered])

        examples = []
        latents = []
        for axes, swaps in views:
            shown = []
            first = sum(map(len, latents))  # the index of this view's first clip
            for (scene, facts_of), versions_of_scene in zip(drawn, versions, strict=True):
                if not may_be_shown(scene, swaps):
                    continue
                clip = first + len(shown)
                shown.append(scene)
                for version, caption in versions_of_scene:
                    examples.append(Example(clip, version, facts_of, caption, swaps))
            if shown:
                latents.append(encode_scenes(vae, latent_scale, config, shown, frames, axes))
        captioned[frames] = (examples, torch.cat(latents))
    return captioned


def in_any_order(scene, rng):
    """The scene with its things in a random order, the one in which captions name them. In a meeting the
    order says who meets whom, so it stays."""
    if scene.meeting:
        return scene
    order = rng.permutation(len(scene.things))
    return replace(scene, things=[scene.things[i] for i in order])


def swap_words(caption, swaps):
    """swaps: word → the word that takes its place. "a" and "an" become what the next word then needs."""
    words = [swaps.get(word, word) for word in caption.split()]
    for i, after in enumerate(words[1:]):
        if words[i] in ("a", "an"):
            words[i] = "an" if after[0] in "aeiou" else "a"
    return " ".join(words)


def may_be_shown(scene, swaps):
    """Whether training may show a scene in whose caption these words are swapped: nothing falls up, and what
    is held out for tests stays unseen."""
    if "up" in swaps and any(thing.event == "falls" for thing in scene.things):
        return False
    things = []
    for thing in scene.things:
        colour = swaps.get(thing.colour, thing.colour)
        direction = swaps.get(thing.direction, thing.direction)
        things.append(replace(thing, colour=colour, direction=direction))
    return is_held_out_as(replace(scene, things=things), held_out="")  # with nothing in it that is held out


def draw_swaps(scene, rng):
    """A mirror and other colours, at random → the words to swap."""
    while True:
        _, mirror = pick(rng, VIEWS)
        colours = dict(zip(COLOURS, rng.permutation(list(COLOURS)).tolist(), strict=True))
        if may_be_shown(scene, mirror | colours):
            return mirror | colours


def draw_batch(captioner, captioned, lengths, rng, with_clip=True, with_hint=True):
    """One batch of examples → latents (B, Z, f, h, w) or None, brief (B, S), which is given, and caption (B,
    L), which is to be written.

    captioned   caption_scenes' Examples and latents
    lengths     in frames; one is drawn, and all clips of the batch have it
    with_clip   False: the captions are to be written without a clip, from the brief ones alone
    with_hint   False: no brief caption is given, as where brief captions are what is to be written"""
    examples, latents = captioned[pick(rng, lengths)]
    chosen = [examples[i] for i in rng.integers(len(examples), size=BATCH)]

    brief_captions = []
    captions = []
    for example in chosen:
        # Without a clip, prompt and caption may be mirrored and get other colours together. So the network
        # has to copy from the prompt, and cannot learn captions by heart.
        swaps = example.swaps if with_clip else draw_swaps(example.scene, rng)
        captions.append(swap_words(example.caption, swaps))

        # Brief captions cost nothing, so each is drawn anew.
        brief = ""
        if with_hint and not (with_clip and rng.random() < NO_BRIEF):
            brief = swap_words(describe_briefly(example.scene, rng, example.facts_of), swaps)
        brief_captions.append(brief)

    clips = None
    if with_clip:
        clips = latents[[example.clip for example in chosen]]                      # (B, Z, f, h, w)
        noise = rng.standard_normal(clips.shape, dtype=np.float32)
        clips = clips + NOISE * torch.from_numpy(noise).to(clips.device)
    longest = max(len(caption.split()) for caption in captions)
    return (
        clips,
        ids_of(captioner, brief_captions, MAX_BRIEF_WORDS),
        ids_of(captioner, captions, longest + 1),
    )


@torch.no_grad()
def begin_as_video_model(captioner, model):
    """Copies the patch embedding, the word vectors and the blocks of a video model, whose attention has
    learned already which patches a word is about.

    A video model sees clean tokens at noise level 0, so what that level adds to the modulation goes into each
    block's own offset."""
    dit = model.dit
    captioner.patch_embedding.load_state_dict(dit.patch_embedding.state_dict())
    captioner.position_embedding.load_state_dict(dit.position_embedding.state_dict())
    level = torch.zeros(1, device=model.latent_scale.device)
    modulation = dit.modulation(dit.timestep_mlp(timestep_embedding(level)))[0]    # (6D,)
    for mine, theirs in zip(captioner.blocks, dit.blocks, strict=True):
        mine.load_state_dict(theirs.state_dict())
        mine.modulation_offset += modulation

    # A model with a pretrained text encoder has no vectors of its own for words: here these stay random.
    if model.vocab == captioner.words:
        words = dit.word_embedding.weight                                          # (V + 1, D)
        captioner.brief_embedding.weight.copy_(words)
        captioner.word_embedding.weight[:-1] = words  # the last one is BEGIN


def new_captioner(model, seed=0):
    """A captioner that begins as a video model, and has still to be trained."""
    torch.manual_seed(seed)
    captioner = Captioner(model.config, rich_vocab()).to(model.latent_scale.device)
    begin_as_video_model(captioner, model)
    return captioner


class Curriculum:
    """What each step of the training learns from.

    brief_steps     at first, from brief captions of ever new clips, as there are plenty on the web: from
                    images alone to begin with, which cost less than videos and show all but motion
    all others      from full captions of the DESCRIBED_CLIPS images and videos, of the first frames of these
                    videos, and of the mirrors of all. One step in EXPAND_EVERY also expands brief captions,
                    without a clip

    What is drawn for a step depends on seed and step alone, and new clips come every BRIEF_CLIPS_STEPS. So a
    training can go on from any multiple of these."""

    def __init__(self, captioner, vae, latent_scale, brief_steps, seed):
        self.captioner = captioner
        self.encoder = (vae, latent_scale, captioner.config)
        self.brief_steps = brief_steps
        self.seed = seed
        self.lengths = training_lengths(captioner.config)
        scenes = choose_scenes(captioner.config, DESCRIBED_CLIPS, (seed, DESCRIBED), self.lengths)
        described = (scenes, (seed, DESCRIBED), describe_fully)
        self.described = caption_scenes(*self.encoder, *described, descriptions=DESCRIPTIONS, views=VIEWS)
        self.web = {}

    def batches(self, step):
        """The batches of one step, one or two: [(latents or None, brief, caption), ...]."""
        rng = np.random.default_rng((self.seed, BATCHES, step))
        if step < self.brief_steps:
            return [self.brief_batch(step, rng)]
        batches = [draw_batch(self.captioner, self.described, self.lengths, rng)]
        if step % EXPAND_EVERY == 0:
            # All prompts that it expands are for videos, so that it learns to tell how things move.
            lengths = video_lengths(self.captioner.config)
            batches.append(draw_batch(self.captioner, self.described, lengths, rng, with_clip=False))
        return batches

    def brief_batch(self, step, rng):
        lengths = [1] if step < IMAGES_FIRST * self.brief_steps else self.lengths
        if step % BRIEF_CLIPS_STEPS == 0 or set(self.web) != set(lengths):
            seed = (self.seed, ON_THE_WEB, step)
            scenes = draw_scenes(self.captioner.config, BRIEF_CLIPS, seed, lengths)
            self.web = caption_scenes(*self.encoder, scenes, seed, describe_briefly)
        return draw_batch(self.captioner, self.web, lengths, rng, with_hint=False)


def train_captioner(
    captioner, vae, latent_scale, brief_steps, full_steps, mean_steps, seed=0, begun=None, save=None
):
    """Trains a captioner on clips of the world, which it sees as latents of this VAE.

    brief_steps     on brief captions
    full_steps      then, on full ones; in the last 70 % of both together the learning rates fall to zero
    mean_steps      then, on full ones, at MEAN_RATE of the peak rates: far enough from zero that the steps
                    differ. The mean of the weights after each of these steps is kept
    begun           None, or a state that was saved, together with the captioner as it was then: the training
                    goes on from there, on the same machine exactly
    save            None, or called every SAVE_STEPS with that state"""
    matrices = [p for p in captioner.blocks.parameters() if p.ndim > 1]
    matrices.append(captioner.stem_embedding.weight)
    qkv = [block.qkv.weight for block in captioner.blocks]
    optimizers = train.make_optimizers(captioner, matrices, MUON_LR, ADAM_LR, three_in_one=qkv)
    mean = copy.deepcopy(captioner)
    first_step = 0
    if begun:
        first_step = begun["step"]
        mean.load_state_dict(begun["mean"])
        for optimizer, state in zip(optimizers, begun["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    curriculum = Curriculum(captioner, vae, latent_scale, brief_steps, seed)
    steps_before_mean = brief_steps + full_steps
    steps = steps_before_mean + mean_steps
    recent = collections.deque(maxlen=100)
    options = {"desc": "captioner", "unit": "step", "initial": first_step, "total": steps}
    bar = progress_bar(range(first_step, steps), **options)
    for step in bar:
        if save and step % SAVE_STEPS == 0 and step > first_step:
            states = [optimizer.state_dict() for optimizer in optimizers]
            save({"step": step, "mean": mean.state_dict(), "optimizers": states})

        for batch in curriculum.batches(step):
            with autocast(captioner.config.precision, latent_scale.device):
                loss = caption_loss(captioner, *batch)
            loss.backward()
            if batch[0] is not None:
                recent.append(loss.item())
        nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)

        for optimizer, peak in zip(optimizers, (MUON_LR, ADAM_LR), strict=True):
            if step < steps_before_mean:
                rate = train.learning_rate(step, peak, steps_before_mean, warmup_steps=20, decay_share=0.7)
            else:
                rate = MEAN_RATE * peak
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()

        if step >= steps_before_mean:
            count = step - steps_before_mean + 1  # steps that the mean is of
            with torch.no_grad():
                for average, weights in zip(mean.parameters(), captioner.parameters(), strict=True):
                    average.lerp_(weights, 1 / count)
        bar.set_postfix_str(f"loss with a clip {np.mean(recent):.3f}", refresh=False)
    if mean_steps:
        captioner.load_state_dict(mean.state_dict())


def save_captioner(path, captioner, vae, latent_scale, training=None):
    """Writes a captioner and the VAE whose latents it reads into one file.

    training    None, or, while the training is not over, what --resume needs besides the weights"""
    save_checkpoint(path, {
        "config": asdict(captioner.config),
        "words": captioner.words,
        "captioner": captioner.state_dict(),
        "vae": vae.state_dict(),
        "latent_scale": latent_scale,
        "training": training,
    })


def load_captioner(path, device="cpu"):
    """The file of save_captioner → captioner, its VAE, the latents' scale. Raises BadInput."""
    saved = read_file(path)
    needed = {"config", "words", "captioner", "vae", "latent_scale"}
    if not isinstance(saved, dict) or not saved.keys() >= needed:
        raise BadInput(f"captioner {path}: expected a file that `python recaption.py train` has written")
    config = config_from_dict(saved["config"], path)
    captioner = Captioner(config, saved["words"])
    vae = VAE(config)
    try:
        captioner.load_state_dict(saved["captioner"])
        vae.load_state_dict(saved["vae"])
    except RuntimeError as error:
        expected = "expected a file of this version's `python recaption.py train`"
        raise BadInput(f"captioner {path}: {expected}; its weights do not fit") from error
    return captioner.to(device).eval(), vae.to(device).eval(), saved["latent_scale"].to(device)


def score(captioner, vae, latent_scale, clips, seed=0, held_out=""):
    """Captions of new clips, fact by fact → {row: (right, asked)}, counts.

    Most rows are of the facts that are true: how many of them the caption tells (recall). A full caption need
    not tell all places (left of, above), so their rows are of those that it tells: how many of them are true
    (precision). The row "all" counts captions that tell every true fact except places, and nothing untrue."""
    config = captioner.config
    counts = collections.defaultdict(lambda: [0, 0])
    lengths = [1, *video_lengths(config)]
    for frames, drawn in draw_scenes(config, clips, (seed, SCORED), lengths, held_out).items():
        latents = encode_scenes(vae, latent_scale, config, [scene for scene, _ in drawn], frames)
        for first in range(0, len(drawn), BATCH):
            batch = latents[first : first + BATCH]
            no_brief = ids_of(captioner, [""] * len(batch), MAX_BRIEF_WORDS)
            captions = write_captions(captioner, batch, no_brief)
            for (scene, facts_of), caption in zip(drawn[first : first + BATCH], captions, strict=True):
                count_facts(counts, set(facts_of(scene)), facts_told(caption))
    return dict(counts)


def count_facts(counts, true, told):
    """Adds one caption's facts to score's counts; "all" counts captions without any mistake."""
    # A caption that says nothing of the camera tells that it stands still. Of an image that is no mistake.
    shows_camera = any(subject == "camera" for subject, _, _ in true)
    if not shows_camera:
        told = told - {("camera", "is", "still")}
    for fact in true | told:
        row = name_of_fact(fact)
        is_asked = fact in told if row in RELATIONS else fact in true
        if is_asked:
            counts[row][0] += fact in true and fact in told
            counts[row][1] += 1
    needed = {fact for fact in true if fact[1] not in RELATIONS}
    counts["all"][0] += needed <= told <= true
    counts["all"][1] += 1


def print_score(title, counts):
    print(f"{title:16} {'right':>8}")
    for row, (right, asked) in sorted(counts.items()):
        low, high = interval(right / asked, asked)
        print(f"{row:16} {right / asked:8.1%} of {asked}, 95 % interval {low:.1%} to {high:.1%}")


def how_sure(captioner, latents, brief, caption, seed=0):
    """For each fact of one clip's caption, the share of DRAWS captions drawn at random that tell it too."""
    generator = torch.Generator(device=brief.device).manual_seed(seed)
    copies = None if latents is None else latents.expand(DRAWS, -1, -1, -1, -1)
    draws = write_captions(captioner, copies, brief.expand(DRAWS, -1), temperature=1.0, generator=generator)
    facts_drawn = [facts_told(other) for other in draws]
    told = facts_told(caption)
    if latents is not None and latents.shape[2] == 1:
        told.discard(("camera", "is", "still"))  # an image does not show that
    return {fact: np.mean([fact in other for other in facts_drawn]) for fact in sorted(told)}


def expand(captioner, prompt, seed=0):
    """A brief prompt → a full caption that keeps what it says and invents the rest.

    Of EXPANSIONS captions drawn at random, the one that keeps most of what the prompt asks for. A prompt of
    more than MAX_BRIEF_WORDS words is left as it is. Raises BadInput for one that asks for nothing known."""
    check_words([prompt], captioner.words, rich_telling_words())
    if len(split_words(prompt)) > MAX_BRIEF_WORDS:
        return prompt
    brief = ids_of(captioner, [prompt], MAX_BRIEF_WORDS)
    generator = torch.Generator(device=brief.device).manual_seed(seed)
    copies = brief.expand(EXPANSIONS, -1)
    draws = write_captions(captioner, None, copies, temperature=1.0, generator=generator)
    return max(draws, key=lambda caption: quality(prompt, caption))


def quality(prompt, caption):
    """How good an expansion is: what it keeps of the prompt; then, whether all its words tell something."""
    kept, _ = count_kept(prompt, caption)
    return kept, words_without_meaning(caption) == ""


def score_expander(captioner, prompts, seed=0):
    """Expands brief captions of new videos → (facts kept, facts asked, expansions whose every word tells some
    fact), counts."""
    rng = np.random.default_rng((seed, SCORED, CAPTIONS))
    kept = 0
    asked = 0
    meaningful = 0
    lengths = video_lengths(captioner.config)
    for drawn in draw_scenes(captioner.config, prompts, (seed, SCORED), lengths).values():
        for scene, facts_of in drawn:
            prompt = describe_briefly(scene, rng, facts_of)
            caption = expand(captioner, prompt, seed)
            counts = count_kept(prompt, caption)
            kept += counts[0]
            asked += counts[1]
            meaningful += words_without_meaning(caption) == ""
    return kept, asked, meaningful


def as_brief(caption):
    """A caption from the web, as the captioner reads it: one that is too long to be brief is left out."""
    return caption if len(split_words(caption)) <= MAX_BRIEF_WORDS else ""


def recaption(captioner, latents, captions):
    """Clips' latents (B, Z, f, h, w) and the captions they have → full ones (data/precompute.py)."""
    brief = [as_brief(caption) for caption in captions]
    return write_captions(captioner, latents, ids_of(captioner, brief, MAX_BRIEF_WORDS))


def look_at(captioner, vae, latent_scale, path, brief=""):
    """A clip's or a picture's file → latents (1, Z, f, h, w), brief (1, S), its caption. Raises BadInput."""
    config = captioner.config
    clip = open_clip(path, config)
    frames = min(len(clip), config.frames)
    frames -= (frames - 1) % TIME_FACTOR  # the VAE takes one frame and a multiple of TIME_FACTOR
    latents = encode_clips(vae, latent_scale, clip[None, :frames])
    ids = ids_of(captioner, [brief], MAX_BRIEF_WORDS)
    [caption] = write_captions(captioner, latents, ids)
    return latents, ids, caption


def describe_folder(captioner, vae, latent_scale, folder):
    """Writes x.recaption.txt beside every x.mp4 that has none yet → how many, and {clip: why not}.

    After an interruption, a new call writes what is missing: each file appears when it is whole."""
    source = Folder(folder)
    unusable = {}
    written = 0
    for clip in progress_bar(source.clips, desc="clips", unit="clip"):
        target = clip.with_suffix(".recaption.txt")
        if target.exists():
            continue
        try:
            brief = as_brief(source.caption(clip) or "")
            _, _, caption = look_at(captioner, vae, latent_scale, clip, brief)
        except (BadInput, OSError, UnicodeDecodeError) as error:
            unusable[clip] = error
            continue
        unfinished = target.with_suffix(".part")
        unfinished.write_text(caption + "\n", encoding="utf-8")
        unfinished.replace(target)
        written += 1
    return written, unusable


def make_parser():
    parser = Flags(__doc__)
    add = parser.add_argument
    add("what", choices=("train", "score", "describe", "expand", "folder"), help="what to do")
    input_help = "a clip to describe, a prompt to expand, or a folder of clips"
    add("input", nargs="?", metavar="INPUT", help=input_help)
    add("--captioner", default=CAPTIONER, metavar="FILE", help="where the captioner is, or is to be written")
    add("--checkpoint", default=WORLD, metavar="FILE", help="train: a model of the rich world, to start from")
    brief_help = "train: steps on brief captions of ever new clips"
    add("--brief-steps", type=int, default=800, metavar="N", help=brief_help)
    full_help = f"train: steps on full captions of {DESCRIBED_CLIPS:,} clips"
    add("--full-steps", type=int, default=4600, metavar="N", help=full_help)
    mean_help = "train: then, steps of whose weights the mean is kept"
    add("--mean-steps", type=int, default=400, metavar="N", help=mean_help)
    add("--resume", action="store_true", help="train: go on from the last save; other flags as before")
    add("--clips", type=int, default=512, metavar="N", help="score: new clips")
    add("--seed", type=int, default=0, metavar="N", help="train, expand: for other draws")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    return parser


def train_and_save(args, device):
    """The command `train`. On the way it saves to NAME.unfinished.pt, from which --resume goes on."""
    path = Path(args.captioner)
    if path.is_dir():
        raise BadInput(f"--captioner {path}: is a folder; expected a file, such as {CAPTIONER}")
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    settings = {name: getattr(args, name) for name in ("brief_steps", "full_steps", "mean_steps", "seed")}
    begun = None
    if args.resume:
        if not unfinished.exists():
            raise BadInput(f"--resume: there is no {unfinished}; expected an interrupted training's file")
        parts = load_captioner(unfinished, device)
        begun = read_file(unfinished).get("training")
        if not begun:
            raise BadInput(f"--resume: {unfinished} is a finished captioner; expected an unfinished one")
        if begun["settings"] != settings:
            flags = [f"--{name.replace('_', '-')} {value}" for name, value in begun["settings"].items()]
            raise BadInput(f"--resume: {unfinished} was begun with {' '.join(flags)}; expected the same")
    else:
        if unfinished.exists():
            raise BadInput(f"{unfinished}: of an interrupted training; expected --resume, or delete it first")
        model = load_model(args.checkpoint, device)
        if not model.config.scenes or not video_lengths(model.config):
            expected = "expected a model of the rich world's videos (the knobs `scenes` and `lengths`)"
            raise BadInput(f"--checkpoint {args.checkpoint}: {expected}")
        parts = (new_captioner(model, args.seed), model.vae, model.latent_scale)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--captioner {path}: its folder cannot be made ({error.strerror})") from error

    def save(state):
        save_captioner(unfinished, *parts, training=state | {"settings": settings})

    try:
        train_captioner(*parts, **settings, begun=begun, save=save)
    except KeyboardInterrupt:
        if unfinished.exists():
            print(f"stopped; go on from the last save, {unfinished}, with the same flags and --resume")
        else:
            print(f"stopped before the first save, at step {SAVE_STEPS}; nothing is kept")
        raise
    if path.exists():
        kept = train.unused_path(path)
        path.replace(kept)
        print(f"the last captioner is now {kept}")
    save_captioner(path, *parts)
    unfinished.unlink(missing_ok=True)
    print(f"{path} is trained; next: python recaption.py score --captioner {path}")


def main():
    args = make_parser().parse_args()
    check_at_least(args, brief_steps=0, full_steps=1, mean_steps=0, clips=1, seed=0)
    example = EXAMPLES.get(args.what)
    if example and not args.input:
        raise BadInput(f"{args.what}: expected more, for example {args.what} {example}")
    device = pick_device(args.device)
    if args.what == "train":
        train_and_save(args, device)
        return

    parts = load_captioner(args.captioner, device)
    if args.what == "score":
        print_score("new clips", score(*parts, args.clips))
        print_score("held-out things", score(*parts, args.clips, held_out="thing"))
        kept, asked, meaningful = score_expander(parts[0], args.clips)
        told = f"{meaningful} of {args.clips} expansions in which every word tells something"
        print(f"expander: {kept} of {asked} facts kept ({kept / asked:.1%}); {told}")
    elif args.what == "describe":
        latents, brief, caption = look_at(*parts, args.input)
        print(caption)
        for fact, share in how_sure(parts[0], latents, brief, caption).items():
            print(f"  {share:4.0%} sure: {' '.join(fact)}")
    elif args.what == "expand":
        print(expand(parts[0], args.input, args.seed))
    else:
        written, unusable = describe_folder(*parts, args.input)
        for clip, error in unusable.items():
            print(f"left out {clip}: {error}")
        print(f"{written} captions written")


if __name__ == "__main__":
    run(main)

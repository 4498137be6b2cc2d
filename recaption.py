"""Recaptioning: a small network looks at a clip and writes down everything that it shows.

    python recaption.py train --checkpoint assets/world.pt     learns from 3,000 described clips
    python recaption.py score                                  fact by fact, on clips it never saw
    python recaption.py describe clip.mp4                      a caption, and how sure it is of each fact
    python recaption.py expand "a ball and a square"           a prompt as the video model knows captions
    python recaption.py folder clips/                          x.recaption.txt beside every x.mp4

Captions from the web are short and leave most out, and a generator cannot learn what no caption tells. So a
captioner is trained on few clips with full descriptions, describes all the others, and the generator is
trained on what it wrote. Then the generator is used to long captions, and a short prompt has to be made long.

Captioner and expander are one network here, a language model whose every word may look back at all words
before it and at what the caption is of:

    [patches of the clip, or none]  [the short caption, or none]  BEGIN  w_1  w_2  ...  END

With a clip it says what is seen; without one it keeps what the short caption says and invents the rest, as
GPT-4 does for DALL·E 3. The blocks are dit.py's, with every token at noise level 0: nothing is noisy here.

Papers
    Recaptioning and prompt expansion: Betker et al. 2023 (DALL·E 3), sec. 2 and appendix C,
        https://cdn.openai.com/papers/dall-e-3.pdf
    A captioner that is a language model over an image's tokens: GIT, Wang et al. 2022,
        https://arxiv.org/abs/2205.14100

Where we differ: DALL·E 3's captioner begins as a CLIP and a pretrained language model, and its expander is
GPT-4; ours learn the few words of their world from nothing.

Letters
    B       clips in a batch
    Z       latent channels
    f h w   latent frames, rows, columns
    D       model width
    S       words of the short caption; there is room for MAX_BRIEF_WORDS
    L       words of the full one with END behind them, MAX_WORDS + 1
    N       tokens: patches, then S, then L
    V       words that can be said
"""
from config import TIME_FACTOR, BadInput, clip_shapes, config_from_dict

import collections
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import train
from data.sources import Folder
from data.video_io import open_clip, to_float
from dit import DiTBlock, layer_norm
from evaluate import interval
from patches import grid_positions, patchify, rope
from text import encode_prompts, split_words
from utils.checkpoint import SHIPPED, Model, load_model, read_file, save_checkpoint
from utils.cli import Flags, autocast, check_at_least, pick_device, progress_bar, run
from vae import VAE
from world.caption_reader import facts_told
from world.captions import (
    EVERYDAY,
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
from world.scenes import KINDS, draw_rich_scene, frame_extent, pick, render

WORLD = SHIPPED.parent / "world.pt"
CAPTIONER = "out/recaption/captioner.pt"
EXAMPLES = {"describe": "clip.mp4", "expand": '"a ball and a square"', "folder": "clips/"}
PLAIN_WORDS = {word: plain for plain, words in EVERYDAY.items() for word in words}
DEPTH = 4  # blocks of the captioner; the video model's own width
DESCRIBED_CLIPS = 3000
BATCH = 24
MUON_LR = 0.02
ADAM_LR = 2e-3
NO_SHORT = 0.3  # how often a clip comes without its short caption
LATEST_FRAME = 32  # words stand behind this latent frame, so that their positions are the same for any clip
DRAWS = 8  # captions drawn to see how sure it is
WORDS = MAX_WORDS + 1


class Captioner(nn.Module):
    """config (of the model whose VAE makes the latents), the words that can be said → the network.

    A word's id is its index in the list + 1; 0 is no word in a short caption, and END in a full one."""

    def __init__(self, config, words):
        super().__init__()
        self.config = config
        self.words = words
        D = config.dit_width
        self.patch = (1, config.patch_size, config.patch_size)
        self.patch_embedding = nn.Linear(config.latent_channels * config.patch_size**2, D)
        self.short_embedding = nn.Embedding(len(words) + 1, D)
        self.full_embedding = nn.Embedding(len(words) + 2, D)  # the last one is BEGIN
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(DEPTH))
        self.word_linear = nn.Linear(D, len(words) + 1)
        self.init_weights()

    def init_weights(self):
        """Every weight of the network, one reason a line. Must run last."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # keeps the size of signals through a layer
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for block in self.blocks:
            nn.init.zeros_(block.modulation_offset)  # no shift, no scale, gates at 0: blocks are the identity
        nn.init.zeros_(self.word_linear.weight)  # all words are equally likely before knowing better

    def forward(self, latents, short, said):
        """The words so far → the logits of each next one, (B, K + 1, V + 1): after BEGIN and after each word.

        latents (B, Z, f, h, w) or None, short (B, S), said (B, K) word ids of the full caption, 0 ≤ K < L."""
        B, K = said.shape
        begin = said.new_full((B, 1), len(self.words) + 1)
        parts = [self.short_embedding(short), self.full_embedding(torch.cat([begin, said], 1))]
        S = short.shape[1]
        positions = grid_positions((S + K + 1, 1, 1)) + torch.tensor([LATEST_FRAME, 0, 0])
        if latents is not None:
            parts.insert(0, self.patch_embedding(patchify(latents, self.patch)))
            f, h, w = latents.shape[2:]
            grid = (f, h // self.patch[1], w // self.patch[2])
            positions = torch.cat([grid_positions(grid), positions])
        x = torch.cat(parts, 1)                                                    # (B, N, D)
        N = x.shape[1]

        # A word of the full caption sees everything before it. What it is of sees itself, and none of it.
        token = torch.arange(N, device=x.device)
        visible = (token[None, :] <= token[:, None]) | (token[None, :] < N - K - 1)  # (N, N)

        # Level 0 for all: the modulation is the blocks' own offset.
        cos, sin = rope(positions.to(x.device), self.config.dit_head_dim)          # (N, head_dim / 2)
        cos = cos.repeat(B, 1)[:, None]                                            # (B N, 1, head_dim / 2)
        sin = sin.repeat(B, 1)[:, None]
        modulation = x.new_zeros(1, 6 * x.shape[2])
        x = x.flatten(0, 1)                                                        # (B N, D)
        for block in self.blocks:
            x = block(x, modulation, lambda numbers: numbers, cos, sin, [(B, N)], visible)
        x = x.unflatten(0, (B, N))[:, N - K - 1 :]                                 # (B, K + 1, D)
        return self.word_linear(layer_norm(x)).float()


def caption_loss(captioner, latents, short, full):
    """The mean of -log p(word) over the words of full captions and the END behind each. full (B, L)."""
    logits = captioner(latents, short, full[:, :-1])                               # (B, L, V + 1)
    is_word = full > 0
    lengths = is_word.sum(1)
    counts = torch.arange(full.shape[1], device=full.device) <= lengths[:, None]   # the first 0 is END
    losses = F.cross_entropy(logits.transpose(1, 2), full, reduction="none")       # (B, L)
    return losses[counts].mean()


@torch.no_grad()
def write_captions(captioner, latents, short, temperature=0.0, generator=None):
    """Full captions, word by word → a list of B strings.

    temperature 0 takes the likeliest word each time; 1 draws each as often as the network expects it. Each
    word is computed with all those before it once more, which a cache of keys and values would save."""
    said = short[:, :0]
    ended = torch.zeros(len(short), dtype=torch.bool, device=short.device)
    while said.shape[1] < WORDS and not ended.all():
        logits = captioner(latents, short, said)[:, -1]                            # (B, V + 1)
        if temperature > 0:
            chances = (logits / temperature).softmax(-1)
            word = torch.multinomial(chances, 1, generator=generator)[:, 0]
        else:
            word = logits.argmax(-1)
        word = word.masked_fill(ended, 0)
        ended |= word == 0
        said = torch.cat([said, word[:, None]], 1)
    return [" ".join(captioner.words[i - 1] for i in row if i > 0) for row in said.tolist()]


def draw_scenes(config, count, seed, held_out=""):
    """Scenes of the world and what is to be told of each → {frames: [(scene, choose)]}. choose: which facts
    a clip of so many frames shows."""
    rng = np.random.default_rng(seed)
    lengths = sorted({1, *clip_shapes(config)[0]})
    drawn = {}
    for i in range(count):
        frames = lengths[i % len(lengths)] if not held_out else max(lengths)
        seconds = (frames - 1) / config.fps
        kinds = [kind for kind in KINDS if KINDS[kind] <= seconds] if frames > 1 else ["move"]
        kind = "turn" if held_out == "events" else pick(rng, kinds)
        scene = draw_rich_scene(
            rng, kind, frame_extent(config.height, config.width), seconds, held_out=held_out
        )
        drawn.setdefault(frames, []).append((scene, facts_of_image if frames == 1 else facts))
    return drawn


@torch.no_grad()
def encode_clips(vae, latent_scale, clips):
    """Clips (B, T, H, W, 3) uint8 → latents (B, Z, f, h, w) of variance 1."""
    mean, _ = vae.encode(to_float(clips).to(latent_scale.device))
    return mean * latent_scale


def encode_scenes(model, scenes, frames):
    """Scenes → latents (n, Z, f, h, w)."""
    config = model.config
    latents = []
    for first in range(0, len(scenes), BATCH):
        group = scenes[first : first + BATCH]
        clips = [render(scene, frames, config.height, config.width, config.fps) for scene in group]
        latents.append(encode_clips(model.vae, model.latent_scale, np.stack(clips)))
    return torch.cat(latents)


def train_captioner(model, steps, path, seed=0):
    """Trains a captioner on DESCRIBED_CLIPS clips of the world, seen through a video model's VAE, and writes
    it with that VAE into one file."""
    config = model.config
    torch.manual_seed(seed)
    captioner = Captioner(config, rich_vocab()).to(model.latent_scale.device)
    matrices = [p for p in captioner.blocks.parameters() if p.ndim > 1]
    qkv = [block.qkv.weight for block in captioner.blocks]
    optimizers = train.make_optimizers(captioner, matrices, MUON_LR, ADAM_LR, three_in_one=qkv)

    # Each clip has one full description. Short captions cost nothing, so each is drawn anew.
    rng = np.random.default_rng(seed)
    described = {}
    for frames, drawn in draw_scenes(config, DESCRIBED_CLIPS, seed=seed).items():
        scenes = [scene for scene, _ in drawn]
        captions = [describe_fully(scene, rng, choose) for scene, choose in drawn]
        described[frames] = (drawn, captions, encode_scenes(model, scenes, frames))

    recent = collections.deque(maxlen=100)
    bar = progress_bar(range(steps), desc="captioner", unit="step")
    for step in bar:
        loss = 0.0
        for with_clip in (True, False):
            frames = pick(rng, list(described))
            drawn, captions, latents = described[frames]
            chosen = rng.integers(len(drawn), size=BATCH)
            short = [describe_briefly(*drawn[i][:1], rng, drawn[i][1]) for i in chosen]
            if with_clip:
                short = ["" if rng.random() < NO_SHORT else caption for caption in short]
            batch = latents[chosen] if with_clip else None
            with autocast(config.precision, model.latent_scale.device):
                of_batch = caption_loss(
                    captioner, batch, ids_of(captioner, short, MAX_BRIEF_WORDS),
                    ids_of(captioner, [captions[i] for i in chosen], WORDS),
                )
            of_batch.backward()
            loss += of_batch.item() / 2
            if with_clip:
                recent.append(of_batch.item())
        nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, (MUON_LR, ADAM_LR), strict=True):
            lr = train.learning_rate(step, peak, steps, warmup_steps=20, decay_share=0.7)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        bar.set_postfix_str(f"loss with a clip {np.mean(recent):.3f}", refresh=False)

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {
        "config": asdict(config),
        "words": captioner.words,
        "captioner": captioner.state_dict(),
        "vae": model.vae.state_dict(),
        "latent_scale": model.latent_scale,
    })
    return captioner


def ids_of(captioner, captions, room):
    """Captions → word ids (B, room) on the captioner's device, 0 behind the last word."""
    ids = encode_prompts(captions, captioner.words, room)
    return ids.to(captioner.word_linear.weight.device)


def load_captioner(path, device="cpu"):
    """The file of train_captioner → captioner, its VAE, the latents' scale. Raises BadInput."""
    saved = read_file(path)
    needed = {"config", "words", "captioner", "vae", "latent_scale"}
    if not isinstance(saved, dict) or not saved.keys() >= needed:
        raise BadInput(f"captioner {path}: expected a file that `python recaption.py train` has written")
    config = config_from_dict(saved["config"], path)
    captioner = Captioner(config, saved["words"])
    vae = VAE(config)
    captioner.load_state_dict(saved["captioner"])
    vae.load_state_dict(saved["vae"])
    return captioner.to(device).eval(), vae.to(device).eval(), saved["latent_scale"].to(device)


def score(captioner, vae, latent_scale, clips, seed=10_000, held_out=""):
    """Captions of new clips, fact by fact → {kind of fact: (right, told wrongly, true)}, counts.

    A fact is right if the caption tells it and it is true. Of places (left of, above) a full caption need not
    tell all, so a place that is not told does not count as one that is true."""
    config = captioner.config
    model = Model(config, captioner.words, latent_scale, vae=vae, dit=None)
    counts = collections.defaultdict(lambda: [0, 0, 0])
    for frames, drawn in draw_scenes(config, clips, seed, held_out).items():
        latents = encode_scenes(model, [scene for scene, _ in drawn], frames)
        for first in range(0, len(drawn), BATCH):
            batch = latents[first : first + BATCH]
            empty = ids_of(captioner, [""] * len(batch), MAX_BRIEF_WORDS)
            captions = write_captions(captioner, batch, empty)
            for (scene, choose), caption in zip(drawn[first : first + BATCH], captions, strict=True):
                count_facts(counts, set(choose(scene)), facts_told(caption))
    return dict(counts)


def count_facts(counts, true, told):
    """Adds one caption's facts to score's counts."""
    # Nothing is true of an image's camera, and a caption that says nothing of it is right.
    told = {fact for fact in told if fact[0] != "camera" or ("camera", "is") in {f[:2] for f in true}}
    for fact in true | told:
        subject, relation, _ = fact
        kind = subject if subject in ("ground", "camera", "cut to") else relation
        is_place = relation in RELATIONS
        counts[kind][0] += fact in true and fact in told
        counts[kind][1] += fact in told and fact not in true
        counts[kind][2] += fact in true and (fact in told or not is_place)


def print_score(title, counts):
    print(f"{title:24}    right  of true   told wrongly")
    for kind, (right, wrong, true) in sorted(counts.items()):
        low, high = interval(right / max(1, true), max(1, true))
        print(f"{kind:24} {right / max(1, true):8.1%} of {true:5}   {wrong:6}   ({low:.1%} to {high:.1%})")


def how_sure(captioner, latents, short, caption, seed=0):
    """For each fact of one clip's caption, the share of DRAWS captions drawn at random that tell it too."""
    generator = torch.Generator(device=short.device).manual_seed(seed)
    several = None if latents is None else latents.expand(DRAWS, -1, -1, -1, -1)
    drawn = write_captions(captioner, several, short.expand(DRAWS, -1), temperature=1.0, generator=generator)
    facts_drawn = [facts_told(other) for other in drawn]
    return {fact: np.mean([fact in other for other in facts_drawn]) for fact in sorted(facts_told(caption))}


def expand(captioner, prompt, seed=0):
    """A short prompt → a full caption that keeps what it says and invents the rest.

    Of DRAWS captions drawn at random it takes one that keeps every word of the prompt that tells something,
    or the one that keeps most."""
    short = ids_of(captioner, [prompt], MAX_BRIEF_WORDS)
    generator = torch.Generator(device=short.device).manual_seed(seed)
    drawn = write_captions(captioner, None, short.expand(DRAWS, -1), temperature=1.0, generator=generator)
    telling = set(rich_telling_words())
    asked = {PLAIN_WORDS.get(word, word) for word in split_words(prompt) if word in telling}

    def lost(caption):
        return len(asked - set(split_words(caption)))

    return min(drawn, key=lost)


def describe(captioner, vae, latent_scale, path, short=""):
    """A clip's or a picture's file → its caption, {fact: how sure}. Raises BadInput for what is no clip."""
    config = captioner.config
    clip = open_clip(path, config)
    frames = min(len(clip), config.frames)
    frames -= (frames - 1) % TIME_FACTOR
    latents = encode_clips(vae, latent_scale, clip[None, :frames])
    ids = ids_of(captioner, [short], MAX_BRIEF_WORDS)
    [caption] = write_captions(captioner, latents, ids)
    return caption, how_sure(captioner, latents, ids, caption)


def describe_folder(captioner, vae, latent_scale, folder):
    """Writes x.recaption.txt beside every x.mp4 that has none yet → how many, and {clip: why not}.

    Interrupted, it goes on where it was: each file is written in one go."""
    source = Folder(folder)
    unusable = {}
    written = 0
    for clip in progress_bar(source.clips, desc="clips", unit="clip"):
        target = clip.with_suffix(".recaption.txt")
        if target.exists():
            continue
        try:
            short = " ".join(split_words(source.caption(clip) or "")[:MAX_BRIEF_WORDS])
            caption, _ = describe(captioner, vae, latent_scale, clip, short)
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
    add("--checkpoint", default=WORLD, metavar="FILE", help="train: a model of the rich world, for its VAE")
    add("--steps", type=int, default=3000, metavar="N", help="train: steps of 2 x 24 captions")
    add("--clips", type=int, default=512, metavar="N", help="score: new clips")
    add("--seed", type=int, default=0, metavar="N", help="expand: another seed invents something else")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    return parser


def main():
    args = make_parser().parse_args()
    check_at_least(args, steps=1, clips=1, seed=0)
    needs_input = args.what in ("describe", "expand", "folder")
    if needs_input and not args.input:
        raise BadInput(f"{args.what}: expected what to {args.what}, for example {EXAMPLES[args.what]}")
    device = pick_device(args.device)
    if args.what == "train":
        model = load_model(args.checkpoint, device)
        if not model.config.scenes:
            expected = "expected a model of the rich world (the knob `scenes`)"
            raise BadInput(f"--checkpoint {args.checkpoint}: {expected}")
        train_captioner(model, args.steps, args.captioner)
        print(f"{args.captioner} is trained; next: python recaption.py score")
        return

    captioner, vae, latent_scale = load_captioner(args.captioner, device)
    if args.what == "score":
        print_score("new clips", score(captioner, vae, latent_scale, args.clips))
        print_score("held-out things", score(captioner, vae, latent_scale, args.clips, held_out="thing"))
    elif args.what == "describe":
        caption, sure = describe(captioner, vae, latent_scale, args.input)
        print(caption)
        for fact, share in sure.items():
            print(f"  {share:4.0%} sure: {' '.join(fact)}")
    elif args.what == "expand":
        print(expand(captioner, args.input, args.seed))
    else:
        written, unusable = describe_folder(captioner, vae, latent_scale, args.input)
        for clip, error in unusable.items():
            print(f"left out {clip}: {error}")
        print(f"{written} captions written")


if __name__ == "__main__":
    run(main)

"""Trains the two networks end to end: first the VAE, then the diffusion transformer on its latents.

    python train.py                              the toy world, configs/tiny.toml, out/tiny/
    python train.py --data FOLDER --name mine    real clips
    python train.py --resume out/tiny/model.pt   goes on after Ctrl-C or a kill, exactly
    python train.py --start out/tiny/model.pt    begins a new run with the weights of another
    torchrun --standalone --nproc_per_node 8 train.py --config FILE    on eight GPUs (docs/scaling.md)

Matrices (the VAE's kernels, the weights of the transformer's blocks) are trained by Muon, which turns
every update into the nearest orthogonal matrix, so that all directions of a layer learn at the same rate
(utils/muon.py); everything else is trained by AdamW. What we sample with is a moving average of the
transformer's weights.

A step consists of batches_per_step batches, whose gradients add up; all randomness of a batch is drawn
from (seed, number of the batch). So a checkpoint needs no generator states, nothing that happens between
two steps can change a run, and several processes can share a step's batches out among them, each on a
device of its own (utils/distributed.py).

Papers
    Latent diffusion: first the autoencoder, then the diffusion model on its latents, whose scale is measured:
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752
    The average of the weights (EMA): DDPM, Ho et al. 2020, appendix B, https://arxiv.org/abs/2006.11239
    AdamW: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon

Letters
    B         clips in a batch
    T H W     frames, height, width in pixels
    Z         latent channels
    f h w     latent frames, rows, columns
    L         words in a prompt
    t         diffusion time = noise level, in [0, 1]
"""
from config import BadInput, Config, config_from_dict, latent_length

import contextlib
import copy
import csv
import math
import os
import shlex
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import imageio.v3 as iio
import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from data import datasets
from data.precompute import is_precomputed
from data.video_io import film_grid, film_strip, to_float, to_uint8, write_clip
from diffusion import Schedule, diffusion_loss, draw_noise_levels
from dit import DiT
from sample import generate
from text import encode_text, feature_width
from utils import distributed
from utils.checkpoint import (
    Model,
    last_line,
    load_model,
    read_checkpoint,
    save_checkpoint,
    slim_checkpoint,
    steps_done,
)
from utils.cli import Flags, add_config_flags, autocast, config_from_flags, pick_device, progress_bar, run
from utils.muon import Muon
from vae import VAE, latent_to_frame_mask, psnr, vae_loss

PRESET = str(Path(__file__).parent / "configs/tiny.toml")
LEVEL_BINS = 10  # the loss is reported for each tenth of the noise levels
GRID_WIDTH = 500  # pixels, about, of sample.gif
GIVEN_PROMPT_DROPOUT = 0.5  # how often the prompt is emptied where frames are given

# What sample.gif shows of the toy world: every colour, shape, direction and speed, in trained combinations.
SAMPLE_PROMPTS = (Path(__file__).parent / "assets/prompts.txt").read_text().splitlines()


class Trainer:
    """Everything a checkpoint holds: the networks, their optimizers, and how far each stage has come."""

    def __init__(self, config, vocab, device):
        torch.manual_seed(config.seed)
        self.config = config
        self.vocab = vocab
        self.device = device
        self.is_precomputed = is_precomputed(config.data)

        self.vae = VAE(config).to(device)
        self.dit = DiT(config, len(vocab), feature_width(config)).to(device)
        self.ema = copy.deepcopy(self.dit).requires_grad_(False)
        self.latent_scale = torch.ones((), device=device)
        self.schedule = Schedule(config.schedule)

        # One device becomes many here: an engine is the wrapper that training calls in a network's place, and
        # that averages its gradients over all processes. A VAE is small, so every process has all of it.
        self.engines = {
            "vae": distributed.wrap(self.vae, "ddp"),
            "dit": distributed.wrap(self.dit, config.parallel, self.dit.blocks),
        }
        if config.parallel == "fsdp":
            distributed.wrap(self.ema, "fsdp", self.ema.blocks)

        # Muon is for the layers that are repeated: the VAE's kernels and the blocks' matrices. What stands
        # once before, beside or behind the blocks (embeddings, modulation, last layer), and all vectors,
        # are AdamW's.
        vae_matrices = [p for p in self.vae.parameters() if p.ndim > 1]
        dit_matrices = [p for p in self.dit.blocks.parameters() if p.ndim > 1]
        qkv = [block.qkv.weight for block in self.dit.blocks]
        self.optimizers = {
            "vae": make_optimizers(self.vae, vae_matrices, config.vae_lr, config.lr),
            "dit": make_optimizers(self.dit, dit_matrices, config.dit_lr, config.lr, three_in_one=qkv),
        }
        # Compiling fuses what is between the products; the time it takes pays off in long runs.
        if config.compile:
            for block in self.dit.blocks:
                block.compile()
        self.steps = {"vae": 0, "dit": 0}
        self.total_steps = {"vae": config.vae_steps, "dit": config.dit_steps}
        self.train_seconds = 0.0
        self.stop_signal = None  # Ctrl-C or the like; the loops stop after the step in which it came

    def state(self):
        """What a checkpoint holds, as a dict. It does not depend on how many processes have parts of it."""
        optimizers = {}
        for stage, pair in self.optimizers.items():
            optimizers[stage] = [optimizer.state_dict() for optimizer in pair]
        return distributed.whole_state({
            "config": asdict(self.config),
            "vocab": self.vocab,
            "latent_scale": self.latent_scale,
            "steps": self.steps,
            "train_seconds": self.train_seconds,
            "vae": self.vae.state_dict(),
            "dit": self.dit.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": optimizers,
        })

    def load(self, saved):
        """Takes over a checkpoint's state(), to go on exactly where it stopped."""
        distributed.load_weights(self.vae, saved["vae"])
        distributed.load_weights(self.dit, saved["dit"])
        distributed.load_weights(self.ema, saved["ema"])
        for stage, pair in self.optimizers.items():
            for optimizer, state in zip(pair, saved["optimizers"][stage], strict=True):
                distributed.load_optimizer(optimizer, state)
        self.latent_scale = saved["latent_scale"].to(self.device)
        self.steps = saved["steps"]
        self.train_seconds = saved["train_seconds"]

    def take_weights(self, model, vae_only=False, new_words=False):
        """Takes over a model's weights, or only those of its VAE, to begin a new run with them.

        new_words: all but the words' vectors, which are to be learned anew, as for captions in other words or
        for another text encoder.

        Raises BadInput if its networks have other sizes, or if its transformer knows other words."""
        if not vae_only and not new_words and self.vocab != model.vocab:
            theirs = f"a vocabulary of {len(model.vocab)} words"
            ours = f"the {len(self.vocab)} words of this data; --new-words learns these anew"
            raise BadInput(f"--start: {theirs}, and not {ours}")
        weights = model.dit.state_dict()
        if new_words:
            weights = {name: tensor for name, tensor in weights.items() if not is_of_words(name)}
            for name, tensor in self.dit.state_dict().items():
                if is_of_words(name):
                    weights[name] = distributed.whole(tensor)
        try:
            distributed.load_weights(self.vae, model.vae.state_dict())
            if not vae_only:
                distributed.load_weights(self.dit, weights)
                distributed.load_weights(self.ema, weights)
        except RuntimeError as error:
            why = f"its weights do not fit this config ({last_line(error)})"
            raise BadInput(f"checkpoint {model.checkpoint_path}: {why}") from error
        self.latent_scale = model.latent_scale
        if not vae_only:
            self.train_seconds = model.train_seconds

    def must_stop(self):
        """Whether a stop signal has come to any process. All of them have to ask this at the same place, so
        that all stop there."""
        [any_has] = distributed.any_of(self.stop_signal is not None)
        if any_has and self.stop_signal is None:
            self.stop_signal = signal.SIGTERM  # what torchrun would send to the others now
        return any_has

    def save(self, path):
        """Writes a checkpoint. Every process has to call this; the first one writes."""
        state = self.state()
        if distributed.is_first():
            save_checkpoint(path, state)

    def model(self):
        """The Model to sample with: the VAE and the averaged transformer."""
        model = Model(self.config, self.vocab, self.latent_scale, vae=self.vae, dit=self.ema)
        model.train_seconds = self.train_seconds
        return model

    @torch.no_grad()
    def encode(self, video):
        """Video (B, 3, T, H, W) in [-1, 1] → latents (B, Z, f, h, w) of variance 1."""
        mean, _ = self.vae.encode(video)
        return mean * self.latent_scale

    @torch.no_grad()
    def encode_given(self, video, given):
        """The latents to train on, (B, Z, f, h, w), where given (B, f) says which frames are given.

        The VAE looks back in time, so a given frame's latents depend on the frames before it. If those are
        to be invented, the sampler cannot know them and uses encode_known. Training must see the same."""
        x_0 = self.encode(video)
        after_gap = (given[:, 1:] & ~given[:, :-1]).any(1)                     # (B,)
        if not after_gap.any():
            return x_0

        known = latent_to_frame_mask(given[after_gap])                         # (B, T)
        latents, _ = self.vae.encode_known(video[after_gap], known)
        is_given = given[after_gap][:, None, :, None, None]                    # (B, 1, f, 1, 1)
        x_0[after_gap] = torch.where(is_given, latents * self.latent_scale, x_0[after_gap])
        return x_0

    def vae_loss(self, groups):
        """A batch of one group → the loss, and the mean squared error of the reconstruction in it."""
        video, _, _ = groups[0]
        loss, error = vae_loss(self.engines["vae"], video, self.config.vae_kl)
        return loss, error.detach()

    def draw_prompt_ids(self, captions, levels):
        """Captions → prompt_ids (B, L), or features (B, L, E), some emptied (all zeros) for guidance.

        Where the data are precomputed, captions may be features already."""
        prompt_ids = captions if torch.is_tensor(captions) else encode_text(captions, self.vocab, self.config)

        # Where frames are given the prompt is dropped more often: the network has to learn to look at them,
        # and not only at the words.
        has_given = (levels == 0).any(1)
        dropout = torch.where(has_given, GIVEN_PROMPT_DROPOUT, self.config.prompt_dropout)
        prompt_ids[torch.rand(len(prompt_ids)) < dropout] = 0
        return prompt_ids

    def prepare(self, groups):
        """A batch of groups → what is drawn and computed before noise comes in: three lists with an entry for
        each group, x_0 (B, Z, f, h, w), t (B, f), prompt_ids (B, L)."""
        x_0 = []
        t = []
        prompt_ids = []
        for data, captions, given in groups:
            # Precomputed groups hold latents, and which of their frames are given; others hold videos.
            if self.is_precomputed:
                f = data.shape[2]
                levels = draw_noise_levels(len(data), f, self.config, given=given)
            else:
                f = latent_length(data.shape[2])
                levels = draw_noise_levels(len(data), f, self.config, given)
            prompt_ids.append(self.draw_prompt_ids(captions, levels).to(self.device))
            levels = levels.to(self.device)                                        # (B, f)
            t.append(levels)
            x_0.append(data if self.is_precomputed else self.encode_given(data, given=levels == 0))
        return x_0, t, prompt_ids

    def dit_loss(self, groups):
        """A batch of groups → the loss, and for each clip its noise level (its highest) and its loss."""
        x_0, t, prompt_ids = self.prepare(groups)
        eps = [torch.randn_like(latents) for latents in x_0]
        losses = diffusion_loss(
            self.engines["dit"], x_0, prompt_ids, t, eps=eps, schedule=self.schedule,
            target=self.config.target, slow_flow=self.config.slow_flow,
        )
        clip_levels = torch.cat([levels.amax(1) for levels in t])
        return losses.mean(), clip_levels, losses.detach()

    @torch.no_grad()
    def update_ema(self, step):
        """average = keep * average + (1 - keep) * weights, after each step."""
        # In the first steps ema_decay would mostly keep the random start, so what is kept begins at a tenth.
        keep = min(self.config.ema_decay, (1 + step) / (10 + step))
        for average, weights in zip(self.ema.parameters(), self.dit.parameters(), strict=True):
            average.lerp_(weights, 1 - keep)


def is_of_words(name):
    """Whether a transformer's weight of this name belongs to what turns words into vectors."""
    return name.startswith("word_embedding.")


def make_optimizers(network, matrices, muon_lr, adam_lr, three_in_one=()):
    """[Muon, AdamW]: the matrices of a network for Muon, all its other parameters for AdamW.

    three_in_one: those of the matrices that are three, one below the other: queries, keys and values."""
    is_matrix = set(matrices)
    is_three = set(three_in_one)
    groups = [{"params": [p for p in matrices if p not in is_three]}]
    if three_in_one:
        groups.append({"params": list(three_in_one), "parts": 3})
    muon = Muon(groups, lr=muon_lr)

    others = [p for p in network.parameters() if p not in is_matrix]
    adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adam]


def learning_rate(step, peak, total_steps, warmup_steps, decay_share):
    """The learning rate of one step: up in a straight line, level, down in a straight line.

    decay_share is the share of all steps over which it falls. A short run may warm up and decay at once: then
    the lower of the two holds."""
    rise = (step + 1) / max(1, warmup_steps)
    fall = (total_steps - step) / max(1e-9, decay_share * total_steps)

    # 1. Warmup: the optimizers know nothing about the size of the gradients yet.
    if rise < 1 and rise <= fall:
        return peak * rise

    # 2. Decay: only smaller and smaller steps settle at the bottom of a valley.
    if fall < 1:
        return peak * fall

    # 3. In between, the full rate.
    return peak


def add_gradients(trainer, stage, batches, loss_of):
    """Adds up the gradients of this process's batches of one step, and averages them over the processes.

    loss_of(groups) → (the loss of a batch, anything else ...). Returns (results, mean loss): results has
    (groups, *what loss_of returned) for each batch of this process; the mean is over those of all."""
    config = trainer.config
    mine = range(distributed.rank(), config.batches_per_step, distributed.world_size())
    results = []
    for number in mine:
        groups = next(batches)
        seed_batch(config, trainer.steps[stage] * config.batches_per_step + number)
        is_last = number == mine[-1]
        with distributed.sharing_gradients(trainer.engines[stage], now=is_last):
            with autocast(config.precision, trainer.device):
                result = loss_of(groups)
            (result[0] / len(mine)).backward()
        results.append((groups, *result))
    loss = sum(result[1].item() for result in results) / len(mine)
    return results, distributed.mean(loss)


def optimizer_step(trainer, stage, loss):
    """Clips the gradients, and one update of the stage's network by its two optimizers. loss: the step's.

    Raises BadInput, before any weight changes, if the loss or the gradient is not finite."""
    config = trainer.config
    step = trainer.steps[stage]
    network = trainer.vae if stage == "vae" else trainer.dit
    muon_lr = config.vae_lr if stage == "vae" else config.dit_lr

    norm = distributed.whole(nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)).item()
    if not math.isfinite(loss + norm):
        raise BadInput(
            f"{stage} step {step}: the loss is {loss}, its gradient's norm {norm}; most often "
            f"a learning rate is too high: {stage}_lr = {muon_lr}, lr = {config.lr}. "
            "Nothing was saved since the last checkpoint"
        )

    total_steps = trainer.total_steps[stage]
    for optimizer, peak in zip(trainer.optimizers[stage], (muon_lr, config.lr), strict=True):
        lr = learning_rate(step, peak, total_steps, config.warmup_steps, decay_share=config.lr_decay)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()


def draw_batches(trainer, stage, first=None):
    """This process's batches of the stage, from its next step, or from batch `first`, on: lists of (video
    (B, 3, T, H, W), captions, given_count), or of what PrecomputedDataset has."""
    # A step's batches are dealt out in turn: process 0 of 2 gets batches 0, 2, 4 ..., process 1 the others.
    config = trainer.config
    dataset = datasets.make_dataset(config, stage)
    if first is None:
        first = trainer.steps[stage] * config.batches_per_step + distributed.rank()
    for batch in datasets.stream_batches(dataset, first, distributed.world_size(), config.workers):
        groups = []
        for data, captions, given in batch:
            data = data.to(trainer.device)
            groups.append((data if trainer.is_precomputed else to_float(data), captions, given))
        yield groups


def seed_batch(config, number):
    """All randomness of a batch follows from (seed, its number in the run)."""
    torch.manual_seed(config.seed * 1_000_003 + number)


def train_vae(trainer, folder):
    """Trains the VAE from where it is to its last step; saves every few minutes and at the end."""
    batches = draw_batches(trainer, "vae")
    progress = Progress(trainer, "vae", folder)
    for step in progress.bar:
        results, loss = add_gradients(trainer, "vae", batches, trainer.vae_loss)
        optimizer_step(trainer, "vae", loss)

        groups, _, error = results[0]
        batches_of_step = [result[0] for result in results]
        note = f"{psnr(error):.1f} dB"
        must_stop, must_save = progress.finish_step(loss, batches_of_step, note)
        if must_stop or must_save:
            trainer.save(folder / "model.pt")
        if must_stop:
            break
        if must_save:
            picture_vae(trainer, groups[0], folder / f"vae-{step + 1:06d}.png")
            progress.last_save_time = time.time()


def train_dit(trainer, folder):
    """Trains the diffusion transformer from where it is to its last step; saves as train_vae does."""
    batches = draw_batches(trainer, "dit")
    progress = Progress(trainer, "dit", folder)
    levels = []
    losses = []
    for step in progress.bar:
        results, loss = add_gradients(trainer, "dit", batches, trainer.dit_loss)
        optimizer_step(trainer, "dit", loss)
        trainer.update_ema(step)

        batches_of_step = []
        for groups, _, clip_levels, clip_losses in results:
            batches_of_step.append(groups)
            levels.append(clip_levels.cpu())
            losses.append(clip_losses.cpu())
        must_stop, must_save = progress.finish_step(loss, batches_of_step)
        if must_stop or must_save:
            trainer.save(folder / "model.pt")
        if must_stop:
            break
        if must_save:
            picture_dit(trainer, batches_of_step[0][0], folder / f"dit-{step + 1:06d}.png")
            by_level = loss_by_level(torch.cat(levels), torch.cat(losses))
            if distributed.is_first():
                tqdm.write(f"loss by noise level, 0 to 1 in tenths: {by_level}", file=sys.stderr)
            levels = []
            losses = []
            progress.last_save_time = time.time()


class Progress:
    """One stage's bar on the screen, its loss curve on disk, its clock; finish_step counts the trainer's
    steps."""

    def __init__(self, trainer, stage, folder):
        self.trainer = trainer
        self.stage = stage
        first_step = trainer.steps[stage]
        total = trainer.total_steps[stage]
        is_shown = distributed.is_first()
        self.curve = open_curve(folder / f"{stage}-loss.csv", first_step) if is_shown else None
        steps = range(first_step, total)
        options = {} if is_shown else {"disable": True}
        self.bar = progress_bar(
            steps, desc=stage, total=total, initial=first_step, unit="step", delay=0, **options
        )
        self.clips_seen = 0
        self.seconds_before = trainer.train_seconds
        self.begin_time = time.time()
        self.last_save_time = self.begin_time

    def finish_step(self, loss, batches, note=""):
        """Counts the step, in the trainer too, and writes its loss → whether to stop, whether to save.

        batches: the lists of groups that this process drew for the step."""
        if self.curve:
            self.curve.writerow([self.trainer.steps[self.stage], repr(loss)])
        seconds = time.time() - self.begin_time
        self.trainer.steps[self.stage] += 1
        self.trainer.train_seconds = self.seconds_before + seconds

        for groups in batches:
            self.clips_seen += distributed.world_size() * sum(len(captions) for _, captions, _ in groups)
        clips_per_second = self.clips_seen / max(seconds, 1e-9)
        self.bar.set_postfix_str(f"loss {loss:.4f} {note} {clips_per_second:.0f} clips/s", refresh=False)

        # A checkpoint takes all processes, and each has its own clock.
        [must_save] = distributed.any_of(self.is_time_to_save())
        return self.trainer.must_stop(), must_save

    def is_time_to_save(self):
        """Every save_minutes, and after the last step."""
        minutes = (time.time() - self.last_save_time) / 60
        is_last = self.trainer.steps[self.stage] == self.trainer.total_steps[self.stage]
        return is_last or minutes > self.trainer.config.save_minutes


def open_curve(path, first_step):
    """A loss curve on disk → its csv writer, for one row (step, loss) a step."""
    # A resumed run makes the steps after its checkpoint once more, so their old rows go.
    rows = []
    if path.exists():
        old_rows = list(csv.reader(path.read_text().splitlines()))[1:]
        rows = [row for row in old_rows if int(row[0]) < first_step]

    # Written line by line, so that a killed run leaves its curve.
    writer = csv.writer(open(path, "w", buffering=1))  # noqa: SIM115  (open for as long as the stage lasts)
    writer.writerow(["step", "loss"])
    writer.writerows(rows)
    return writer


def loss_by_level(levels, losses):
    """Noise levels in [0, 1] and losses, (clips,) each → the mean loss in each tenth of the levels."""
    bins = (levels * LEVEL_BINS).long().clamp(max=LEVEL_BINS - 1)
    means = []
    for k in range(LEVEL_BINS):
        in_bin = losses[bins == k]
        means.append(f"{in_bin.mean():.3f}" if len(in_bin) else "-")
    return ", ".join(means)


@torch.no_grad()
def picture_vae(trainer, group, path):
    """Three clips, each above its reconstruction, as a PNG."""
    video = group[0][:3]
    mean, _ = trainer.vae.encode(video)
    decoded = trainer.vae.decode(mean)
    rows = []
    captions = []
    for i in range(len(video)):
        rows += [to_uint8(video)[i], to_uint8(decoded)[i]]
        captions += ["clip", f"through the VAE, {psnr(F.mse_loss(decoded[i], video[i])):.1f} dB"]
    if distributed.is_first():
        iio.imwrite(path, film_strip(rows, captions))


@torch.no_grad()
def picture_dit(trainer, group, path):
    """Samples for six captions of the first process, as a PNG. Every process has to call this: each may hold
    a part of the network."""
    captions = group[1]
    if trainer.is_precomputed:
        captions = list(datasets.make_dataset(trainer.config).captions.values())
    captions = distributed.of_the_first(captions[:6])
    videos = generate(trainer.model(), captions)
    if distributed.is_first():
        iio.imwrite(path, film_strip(videos, captions))


@torch.no_grad()
def measure_scale(trainer, batches=4):
    """1 / the latents' standard deviation: diffusion adds noise of variance 1 and wants latents like that."""
    dataset = datasets.make_dataset(trainer.config)
    latents = []
    for k in range(batches):
        for video, _, _ in dataset[k]:
            video = to_float(video.to(trainer.device))
            latents.append(trainer.encode(video).flatten())
    return 1 / torch.cat(latents).std()


def train(trainer, folder):
    """Both stages, from wherever the trainer is, to the end or to the step in which a stop signal comes."""
    train_vae(trainer, folder)
    if trainer.must_stop():
        return

    # A scale belongs to its VAE, so it is measured once, after the first stage. It is kept if the second
    # stage has begun, or if --start brought a VAE that this run did not train. Exactly 1 means: not
    # measured yet.
    is_new_vae = trainer.config.vae_steps > 0 or trainer.latent_scale == 1
    if trainer.steps["dit"] == 0 and is_new_vae:
        scale = distributed.of_the_first(measure_scale(trainer).item())
        trainer.latent_scale = torch.tensor(scale, device=trainer.device)

    train_dit(trainer, folder)


@contextlib.contextmanager
def catch_stop_signals(handle):
    """While this lasts, the first SIGINT (Ctrl-C) or SIGTERM calls handle(number). A second one does what it
    did before: it ends the program at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_first(number, frame):
        restore()
        handle(number)

    for number in before:
        signal.signal(number, handle_first)
    try:
        yield
    finally:
        restore()


def train_until_stopped(trainer, folder, device_name):
    """Both stages. If Ctrl-C or SIGTERM comes: the step in progress, a checkpoint, a line that says how to go
    on, and the exit code of a program that this signal has ended."""
    def stop_after_this_step(number):
        trainer.stop_signal = number

    # torchrun ends all processes as soon as one has left with an error, so none may leave before the first
    # has written the checkpoint.
    with catch_stop_signals(stop_after_this_step):
        train(trainer, folder)
        must_stop = trainer.must_stop()
        distributed.wait_for_all()
    if must_stop:
        distributed.disconnect()
        words = [*distributed.launcher(), "train.py", "--resume", (folder / "model.pt").as_posix()]
        if device_name != "auto":
            words += ["--device", device_name]
        done = steps_done(trainer.steps, trainer.config)
        if distributed.is_first():
            print(f"stopped after {done}; go on with: {shlex.join(words)}")
        sys.exit(128 + trainer.stop_signal)


def resumed_trainer(args, device):
    """The Trainer of --resume, exactly as it was saved. Raises BadInput if it cannot go on from there."""
    # A knob changed halfway would make a run that no command can repeat.
    forbidden_flags = []
    for name in vars(args):
        is_own_preset = name == "config" and args.config != PRESET
        if name in Config.__dataclass_fields__ or is_own_preset:
            forbidden_flags.append("--" + name.replace("_", "-"))
    if forbidden_flags:
        flags = " ".join(forbidden_flags)
        raise BadInput(f"--resume takes every knob from the checkpoint; leave out {flags}")

    saved, _ = read_checkpoint(args.resume)
    if "optimizers" not in saved:
        raise BadInput(f"--resume {args.resume}: holds no optimizer states, so training cannot go on from it")
    config = config_from_dict(saved["config"], args.resume)
    distributed.check_batches(config.batches_per_step)
    trainer = Trainer(config, saved["vocab"], device)
    try:
        trainer.load(saved)
    except (RuntimeError, ValueError, KeyError) as error:
        raise BadInput(f"--resume {args.resume}: does not fit its own config ({last_line(error)})") from error
    return trainer


def new_trainer(args, device):
    """The Trainer of a new run, with random weights or with those of --start."""
    config = config_from_flags(args)
    distributed.check_batches(config.batches_per_step)
    if config.captioner and config.data == "world":
        expected = "expected --data with latents: the world's captions are written by data.precompute"
        raise BadInput(f"captioner = {config.captioner!r}: {expected}")

    # Without a usable clip, or with captions that are too long, stop here, before anything is written.
    dataset = datasets.make_dataset(config)
    for _, captions, _ in dataset[0]:
        # For its error alone: a caption of more than max_words words is refused.
        if not torch.is_tensor(captions):
            encode_text(captions, [], config)

    begins_with = args.start or args.start_vae
    model = load_model(begins_with, device) if begins_with else None
    if is_precomputed(config.data):
        dataset.check_vae(model)
    trainer = Trainer(config, dataset.vocab(), device)
    if model:
        trainer.take_weights(model, vae_only=not args.start, new_words=args.new_words)
    return trainer


def args_after_restart(parser, args):
    """torchrun repeats the command when a process has died; then the run goes on from its last checkpoint,
    if it had come to one. What another run has left in the folder is none of its own."""
    folder = run_folder(args, config_from_flags(args))
    checkpoint = folder / "model.pt"
    is_own = checkpoint.exists() and distributed.is_marked(folder)
    if not distributed.of_the_first(is_own):
        return args
    return parser.parse_args(["--resume", str(checkpoint), "--device", args.device])


def run_folder(args, config):
    """Where a run writes: --out, or where its checkpoint is, or out/NAME."""
    if args.out:
        return Path(args.out)
    if args.resume:
        return Path(args.resume).parent
    return Path("out") / config.name


def make_folder(args, config):
    """Makes the run's folder. A model that another run left there is renamed, never overwritten."""
    folder = run_folder(args, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {folder}: cannot be made a folder ({error.strerror})") from error

    if not distributed.is_first():
        return folder
    old = folder / "model.pt"
    is_resumed = args.resume and old.exists() and old.samefile(args.resume)
    if old.exists() and not is_resumed:
        kept = unused_path(old)
        os.replace(old, kept)
        print(f"the last run's model is now {kept}")
    distributed.mark(folder)
    return folder


def unused_path(path):
    """Where a run's old file goes: model.before.pt, or else model.before-2.pt, model.before-3.pt ..."""
    kept = path.with_suffix(f".before{path.suffix}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_suffix(f".before-{number}{path.suffix}")
    return kept


def finish(trainer, folder):
    """What comes after the last step, for which one process is enough: slim.pt, the score, sample.gif, and
    how to use the model."""
    state = trainer.state()
    if not distributed.is_first():
        return

    # The score is the only thing that needs it: whoever imports train loads no evaluation.
    import evaluate

    # Only the toy world has a reader that can tell what a video shows.
    checkpoint = shlex.quote((folder / "model.pt").as_posix())
    commands = [f'python sample.py --checkpoint {checkpoint} --prompt "..."']
    is_world = trainer.config.data == "world" or bool(trainer.config.scenes)
    if is_world:
        commands.append(f"python evaluate.py --checkpoint {checkpoint}")
    if is_world and trainer.config.scenes:
        # What happens takes time; an image can only be judged by what it shows.
        commands[-1] += " --captions" if trainer.config.frames == 1 else " --world"

    def exit_at_once(number):
        sys.exit(128 + number)

    try:
        with catch_stop_signals(exit_at_once):
            save_checkpoint(folder / "slim.pt", slim_checkpoint(state))
            model = load_model(folder / "slim.pt", trainer.device)
            if trainer.config.scenes:
                is_image = trainer.config.frames == 1
                score = evaluate.captions_followed if is_image else evaluate.world
                score(model, trainer.config.score_prompts)
            elif is_world:
                print(evaluate.format_table(evaluate.score(model, trainer.config.score_prompts)))
            write_samples(model, folder)
    except SystemExit:
        print("stopped; the model is trained and saved, use it with:", "; ".join(commands))
        raise
    print("the model is trained, use it with:", *commands, sep="\n  ")


def write_samples(model, folder):
    """sample.gif: videos for six prompts of the kind it was trained with, two rows of three."""
    config = model.config
    if config.scenes and config.data == "world":
        # Captions of the longest clips of a batch, which have the time to show the most.
        groups = sorted(datasets.make_dataset(config)[0], key=lambda group: -group[0].shape[1])
        prompts = [caption for _, captions, _ in groups for caption in captions][:6]
    elif config.data == "world":
        prompts = SAMPLE_PROMPTS
    else:
        prompts = list(datasets.make_dataset(config).captions.values())[:6]
    videos = generate(model, prompts)
    grid = film_grid(videos, prompts, columns=3, zoom=max(1, GRID_WIDTH // (3 * config.width)))
    write_clip(folder / "sample.gif", grid, config.fps, note=" | ".join(prompts))
    print(f"{folder / 'sample.gif'} shows:", *prompts, sep="\n  ")


def make_parser():
    parser = Flags(__doc__)
    add = parser.add_argument
    add("--out", metavar="FOLDER", help="where checkpoint, curves and pictures go (default: out/NAME)")
    add("--resume", metavar="FILE", help="go on from this checkpoint; every knob comes from it")
    start_help = "begin with these weights instead of random ones (--vae-steps 0 keeps its VAE as it is)"
    add("--start", metavar="FILE", help=start_help)
    add("--start-vae", metavar="FILE", help="the same, but with its VAE alone, and a new transformer")
    add("--new-words", action="store_true", help="with --start: learn the vectors of all words anew")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add_config_flags(parser, default_preset=PRESET)
    return parser


def main():
    parser = make_parser()
    args = parser.parse_args()
    device = pick_device(args.device)
    beginnings = {"--resume": args.resume, "--start": args.start, "--start-vae": args.start_vae}
    given = [f"{flag} {path}" for flag, path in beginnings.items() if path]
    if len(given) > 1:
        raise BadInput(f"{' '.join(given)}: expected one of them")
    if args.new_words and not args.start:
        raise BadInput("--new-words: expected --start FILE beside it")
    distributed.connect(device)
    if distributed.restarts():
        args = args_after_restart(parser, args)
    trainer = resumed_trainer(args, device) if args.resume else new_trainer(args, device)

    # Nothing is renamed before every process has read what it begins with.
    distributed.wait_for_all()
    folder = make_folder(args, trainer.config)
    distributed.wait_for_all()
    train_until_stopped(trainer, folder, args.device)
    finish(trainer, folder)
    distributed.disconnect()


if __name__ == "__main__":
    run(main)

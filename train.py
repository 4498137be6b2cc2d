"""Trains the two networks end to end: first the VAE, then the diffusion transformer on its latents; then looks at the result.

    python train.py                              the toy world, configs/tiny.toml, out/tiny/
    python train.py --data FOLDER --name mine    real clips
    python train.py --resume out/tiny/model.pt   goes on after a kill, exactly
    python train.py --start out/tiny/model.pt    begins a new run with these weights, for example with other shares of given frames

Matrices (the VAE's kernels, the blocks' weights) are trained by Muon, which turns every update into the nearest orthogonal
matrix, so that all directions of a layer learn at one pace (muon.py); everything else by AdamW. All randomness of a step is drawn
from (seed, step), so a checkpoint needs no generator states, and what happens between steps cannot change a run.

EMA: Ho et al. 2020, appendix B.
Letters: B clips  T H W frames, height, width  Z latent channels  t h w latent frames, rows, columns
"""
import copy
import csv
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

from data import video_io
from data import datasets
import diffusion
import evaluate
import sample
import text
from world.captions import describe
from world.scenes import draw_scene
from config import BadInput, Config, config_from_dict
from dit import DiT
from utils.checkpoint import Model, load_model, read_checkpoint, save_checkpoint, slim_checkpoint
from utils.cli import Flags, add_config_flags, config_from_flags, pick_device, run
from utils.muon import Muon
from vae import VAE, psnr


PRESET = str(Path(__file__).parent / "configs/tiny.toml")


class Trainer:
    """Everything a checkpoint holds: networks, optimizers, how far each stage is."""

    def __init__(self, config, words, place):
        torch.manual_seed(config.seed)
        self.config, self.vocab, self.place = config, words, place
        self.vae, self.dit = VAE(config).to(place), DiT(config, len(words)).to(place)
        self.ema = copy.deepcopy(self.dit).requires_grad_(False)
        self.latent_scale, self.schedule = torch.ones((), device=place), diffusion.Schedule(config.schedule)
        matrices = [p for p in self.dit.blocks.parameters() if p.ndim > 1]
        self.optimizers = {"vae": optimizers(self.vae, [p for p in self.vae.parameters() if p.ndim > 1], config.vae_lr, config.lr),
                           "dit": optimizers(self.dit, matrices, config.dit_lr, config.lr)}
        self.steps, self.train_seconds = {"vae": 0, "dit": 0}, 0.0

    def state(self):
        return {"config": asdict(self.config), "vocab": self.vocab, "latent_scale": self.latent_scale, "steps": self.steps, "train_seconds": self.train_seconds,
                "vae": self.vae.state_dict(), "dit": self.dit.state_dict(), "ema": self.ema.state_dict(),
                "optimizers": {stage: [o.state_dict() for o in pair] for stage, pair in self.optimizers.items()}}

    def load(self, saved):
        for name in ("vae", "dit", "ema"):
            getattr(self, name).load_state_dict(saved[name])
        for stage, pair in self.optimizers.items():
            for optimizer, state in zip(pair, saved["optimizers"][stage]):
                optimizer.load_state_dict(state)
        self.latent_scale, self.steps, self.train_seconds = saved["latent_scale"].to(self.place), saved["steps"], saved["train_seconds"]

    def start(self, model):
        """Takes over a model's weights. Raises BadInput where its networks have other sizes or its vocabulary is another."""
        if self.vocab != model.vocab:
            raise BadInput(f"--start: a vocabulary of {len(model.vocab)} words, and not the {len(self.vocab)} words of this data")
        try:
            self.vae.load_state_dict(model.vae.state_dict())
            self.dit.load_state_dict(model.dit.state_dict())
            self.ema.load_state_dict(model.dit.state_dict())
        except RuntimeError as error:
            raise BadInput(f"--start: its weights do not fit this config ({str(error).splitlines()[-1].strip()[:120]})")
        self.latent_scale, self.train_seconds = model.latent_scale, model.train_seconds

    def model(self):
        return Model(self.config, self.vocab, self.latent_scale, self.vae, self.ema, train_seconds=self.train_seconds)

    @torch.no_grad()
    def encode(self, video):
        return self.vae.encode(video)[0] * self.latent_scale

    @torch.no_grad()
    def encode_given(self, video, given):
        """Latents to learn from; what is given after a gap looks as it will when sampling, where nobody knows what the gap shows."""
        x_0, after_gap = self.encode(video), (given[:, 1:] & ~given[:, :-1]).any(1)
        if after_gap.any():
            known = given[after_gap].repeat_interleave(4, 1)[:, 3:]                 # (B, T)
            latents = self.vae.encode_known(video[after_gap], known)[0] * self.latent_scale
            x_0[after_gap] = torch.where(given[after_gap][:, None, :, None, None], latents, x_0[after_gap])
        return x_0

    def vae_loss(self, groups):
        (video, *_), = groups
        loss, error = self.vae.loss(video, self.config.vae_kl)
        return loss, f"{psnr(error.detach()):.1f} dB", None

    def dit_loss(self, groups):
        c, x_0, words, level = self.config, [], [], []
        for video, captions, first in groups:
            levels = diffusion.draw_noise_levels(len(video), 1 + (video.shape[2] - 1) // 4, c, first)
            ids = text.encode_prompts(captions, self.vocab, c.max_words)
            given = (levels == 0).any(1)  # frames are to be read themselves, not only the words that tell what they show
            ids[torch.rand(len(ids)) < torch.where(given, 0.5, c.prompt_dropout)] = 0
            words.append(ids.to(self.place))
            level.append(levels.to(self.place))
            x_0.append(self.encode_given(video, level[-1] == 0))
        each = diffusion.diffusion_loss(self.dit, x_0, words, level, [torch.randn_like(x) for x in x_0], self.schedule, c.target)
        return each.mean(), "", (torch.cat([one.amax(1) for one in level]), each.detach())

    @torch.no_grad()
    def update_ema(self, step):
        keep = min(self.config.ema_decay, (1 + step) / (10 + step))  # at first the average would mostly hold the start
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.dit.parameters()), 1 - keep)


def optimizers(network, matrices, muon_lr, adam_lr):
    ours = set(matrices)
    rest = [p for p in network.parameters() if p not in ours]
    return [Muon(matrices, lr=muon_lr), torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)]


def fit(trainer, stage, folder):
    """Trains one stage ("vae" or "dit") from where it is to its last step; saves every few minutes and at the end."""
    c, network = trainer.config, getattr(trainer, stage)
    total, loss_of, pair = getattr(c, f"{stage}_steps"), getattr(trainer, f"{stage}_loss"), trainer.optimizers[stage]
    full_rates = getattr(c, f"{stage}_lr"), c.lr
    curve, bins = Curve(folder / f"{stage}-loss.csv", trainer.steps[stage]), torch.zeros(2, 10)
    batches = datasets.stream_batches(datasets.make_dataset(c, stage), trainer.steps[stage], c.workers)
    bar = tqdm(range(trainer.steps[stage], total), stage, total, initial=trainer.steps[stage], unit="step", mininterval=0.5)
    begun = saved = time.time()
    seconds, seen = trainer.train_seconds, 0
    for step in bar:
        groups = [(video_io.to_float(video.to(trainer.place)), *rest) for video, *rest in next(batches)]
        torch.manual_seed(c.seed * 1_000_003 + step)
        loss, note, by_level = loss_of(groups)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), c.grad_clip)
        if not torch.isfinite(loss + norm):
            raise BadInput(f"{stage} step {step}: the loss is {loss.item()}, its gradient's norm {norm.item()}; most often a learning rate "
                           f"is too high: {stage}_lr = {full_rates[0]}, lr = {c.lr}. Nothing was saved since the last checkpoint")
        rate = min((step + 1) / max(1, c.warmup_steps), (total - step) / max(1e-9, c.lr_decay * total), 1.0)
        for optimizer, full in zip(pair, full_rates):
            optimizer.param_groups[0]["lr"] = full * rate
            optimizer.step()
            optimizer.zero_grad()
        if stage == "dit":
            trainer.update_ema(step)
            which = (by_level[0].cpu() * 10).long().clamp(max=9)
            bins += torch.stack([torch.bincount(which, by_level[1].cpu(), 10), torch.bincount(which, minlength=10)])
        trainer.steps[stage], trainer.train_seconds = step + 1, seconds + time.time() - begun
        curve.add(step, loss.item())
        seen += sum(len(captions) for _, captions, _ in groups)
        bar.set_postfix_str(f"loss {loss.item():.4f} {note} {seen / (time.time() - begun):.0f} clips/s", refresh=False)
        if time.time() - saved > 60 * c.save_minutes or step + 1 == total:
            save_checkpoint(folder / "model.pt", trainer.state())
            picture(trainer, stage, groups[0], folder / f"{stage}-{step + 1:06d}.png")
            if stage == "dit":
                means = ", ".join(f"{error / n:.3f}" if n else "-" for error, n in bins.T.tolist())
                tqdm.write(f"loss by noise level, 0 to 1 in tenths: {means}", file=sys.stderr)
                bins.zero_()
            saved = time.time()


class Curve:
    """A loss curve on disk, one row a step. A resumed run drops the rows after its checkpoint and goes on."""

    def __init__(self, path, step):
        rows = [row for row in list(csv.reader(open(path)))[1:] if int(row[0]) < step] if path.exists() else []
        self.file = open(path, "w", buffering=1)
        csv.writer(self.file).writerows([["step", "loss"], *rows])

    def add(self, step, loss):
        csv.writer(self.file).writerow([step, repr(loss)])


@torch.no_grad()
def picture(trainer, stage, group, path):
    """A strip of clips above their reconstructions, or of samples for captions, as a PNG."""
    video, captions, _ = group
    if stage == "vae":
        strips = [video_io.to_uint8(v) for v in (video[:3], trainer.vae.decode(trainer.vae.encode(video[:3])[0]))]
    else:
        strips = [sample.generate(trainer.model(), captions[:6])]
    iio.imwrite(path, video_io.film_strip(np.concatenate(strips)).repeat(3, 0).repeat(3, 1))


@torch.no_grad()
def measure_scale(trainer):
    """1 / standard deviation of the latents, over a few batches: diffusion adds noise of variance 1 and wants data of the same size."""
    c = trainer.config
    source = datasets.make_dataset(c)
    latents = [trainer.encode(video_io.to_float(video.to(trainer.place))).flatten() for k in range(4) for video, *_ in source[k]]
    return 1 / torch.cat(latents).std()


def train(trainer, folder):
    """Both stages, from wherever the trainer is."""
    fit(trainer, "vae", folder)
    if trainer.steps["dit"] == 0 and (trainer.config.vae_steps or trainer.latent_scale == 1):
        trainer.latent_scale = measure_scale(trainer)
    fit(trainer, "dit", folder)


def main():
    parser = Flags(__doc__)
    parser.add_argument("--out", metavar="FOLDER", help="where checkpoint, curves and pictures go (default: out/NAME)")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="go on from there; every knob comes from the checkpoint")
    parser.add_argument("--start", metavar="CHECKPOINT", help="begin with these weights instead of random ones (--vae-steps 0 keeps its VAE as it is)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add_config_flags(parser, default_preset=PRESET)
    args = parser.parse_args()
    place = pick_device(args.device)
    if args.resume and args.start:
        raise BadInput(f"--resume {args.resume} --start {args.start}: expected one of them")
    if args.resume:
        given = [f"--{name.replace('_', '-')}" for name in vars(args) if name in Config.__dataclass_fields__ or name == "config" and args.config != PRESET]
        if given:
            raise BadInput(f"--resume takes every knob from the checkpoint; leave out {' '.join(given)}")
        saved, _ = read_checkpoint(args.resume)
        if "optimizers" not in saved:
            raise BadInput(f"--resume {args.resume}: holds no optimizer states, so training cannot go on from it")
        config = config_from_dict(saved["config"], args.resume)
        trainer = Trainer(config, saved["vocab"], place)
        try:
            trainer.load(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadInput(f"--resume {args.resume}: does not fit its own config ({str(error).splitlines()[-1].strip()[:120]})")
    else:
        config = config_from_flags(args)
        source = datasets.make_dataset(config)
        captions = [caption for _, group, _ in source[0] for caption in group]  # no usable clip, or captions that are too long: refused here, before anything is written
        text.encode_prompts(captions, [], config.max_words)
        trainer = Trainer(config, source.vocab(), place)
        if args.start:
            trainer.start(load_model(args.start, place))
    folder = Path(args.out or (Path(args.resume).parent if args.resume else Path("out") / config.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {folder}: cannot be made a folder ({error.strerror})")
    if (folder / "model.pt").exists() and not (args.resume and (folder / "model.pt").samefile(args.resume)):
        os.replace(folder / "model.pt", folder / "model.before.pt")
        print(f"the last run's model is now {folder / 'model.before.pt'}")
    train(trainer, folder)
    save_checkpoint(folder / "slim.pt", slim_checkpoint(trainer.state()))

    model = trainer.model()
    if config.data == "world":
        print(evaluate.format_table(evaluate.score(model, config.score_prompts)))
        prompts = [describe(draw_scene(np.random.default_rng(i))) for i in range(6)]
    else:
        prompts = list(datasets.make_dataset(config).captions.values())[:6]
    videos = sample.generate(model, prompts)
    video_io.write_clip(folder / "sample.gif", np.concatenate(list(videos), 2), config.fps, 4, " | ".join(prompts))
    print(f"{folder / 'sample.gif'} shows:", *prompts, sep="\n  ")


if __name__ == "__main__":
    run(main)

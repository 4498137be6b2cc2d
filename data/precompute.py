"""Computes a run's batches once, as latents and text features, so that training reads no video.

    python -m data.precompute --config FILE --data FOLDER --start out/mine/model.pt --out latents/
    python train.py --config FILE --data latents/ --start out/mine/model.pt --vae-steps 0

Decoding clips and encoding them can take longer than a step of the transformer. Both give the same result in
every epoch except for the random windows, so they may as well be done beforehand. What is kept are whole
batches: batch k of the training run, as the run itself would have made it, packed, with its captions and with
the choice of frames that are given (the latents of what comes after a gap depend on that choice, see
Trainer.encode_given). So a run from latents is the run from video, step by step (features of a text encoder
are kept in half precision). A run takes dit_steps times batches_per_step batches; where fewer were made, it
begins with the first again, with new noise.

A folder of latents has shards of WebDataset's layout, a batch in each 00000042.npz, and precomputed.json,
which says what they were made of.
"""
from config import BadInput, Config, config_from_dict

import io
import json
import tarfile
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch

import text
from data.sources import Tar, add_file, claim
from utils.checkpoint import check_is_trained, load_model
from utils.cli import (
    Flags,
    add_config_flags,
    check_at_least,
    config_from_flags,
    pick_device,
    progress_bar,
    run,
)

ABOUT = "precomputed.json"
BATCHES_PER_SHARD = 100

# Knobs that may be others in training than they were here: where the data are and where a run is written; how
# the VAE was trained, which is told apart by its checkpoint; the transformer, its optimizers and its noise.
# All other knobs have to be those of the latents.
FREE = (
    *("name", "data", "workers", "save_minutes", "score_prompts"),
    *("vae_batch", "vae_steps", "vae_lr", "vae_kl"),
    *("dit_width", "dit_depth", "dit_head_dim", "dit_steps", "dit_lr", "lr", "warmup_steps", "lr_decay"),
    *("grad_clip", "ema_decay", "batches_per_step", "parallel", "recompute", "compile", "precision"),
    *("target", "logit_mean", "slow_flow", "prompt_dropout", "guidance", "sample_steps"),
)


def is_precomputed(data):
    """Whether the knob `data` names a folder of latents."""
    return (Path(data) / ABOUT).exists()


class PrecomputedDataset:
    """The batches in a folder of latents: lists of groups (latents (B, Z, f, h, w), texts, given (B, f)).

    texts: a list of B captions, or features (B, L, E) where a pretrained text encoder has read them. Batch k
    is batch k modulo their number. Raises BadInput where the latents were made with other knobs."""

    def __init__(self, config):
        self.config = config
        folder = Path(config.data)
        try:
            self.about = json.loads((folder / ABOUT).read_text())
        except json.JSONDecodeError as error:
            raise BadInput(f"data = {config.data!r}: {folder / ABOUT} cannot be read ({error})") from error
        made_with = config_from_dict(self.about["config"], folder / ABOUT)
        for field in fields(Config):
            made, asked = getattr(made_with, field.name), getattr(config, field.name)
            if field.name not in FREE and made != asked:
                raise BadInput(f"{field.name} = {asked!r}: {folder} was made with {made!r}")
        if config.vae_steps > 0:
            add = f"--vae-steps 0 --start {self.about['checkpoint']}"
            raise BadInput(f"data = {config.data!r}: latents, and no video to train a VAE with; add {add}")
        self.shards = [Tar(path) for path in sorted(folder.glob("*.tar"))]
        count = sum(len(shard.places) for shard in self.shards)
        if count != self.about["batches"]:
            expected = f"expected {self.about['batches']} batches; make them again with the same command"
            raise BadInput(f"data = {config.data!r}: holds {count}, {expected}")
        self.captions = dict(enumerate(self.about["captions"]))

    def vocab(self):
        return self.about["vocab"]

    def check_vae(self, model):
        """Raises BadInput for a model with another VAE than the one that made the latents."""
        if model is None or model.checkpoint_hash != self.about["checkpoint_hash"]:
            theirs = self.about["checkpoint"]
            folder = self.config.data
            raise BadInput(f"data = {folder!r}: latents of the VAE in {theirs}; add --start {theirs}")

    def __getitem__(self, k):
        shard, number = divmod(k % self.about["batches"], BATCHES_PER_SHARD)
        tar = self.shards[shard]
        name = f"{shard * BATCHES_PER_SHARD + number:08d}.npz"
        arrays = np.load(io.BytesIO(tar.read(name)))

        groups = []
        for i in range(len(arrays.files) // 3):
            latents = torch.from_numpy(arrays[f"latents{i}"])
            texts = arrays[f"texts{i}"]
            texts = texts.tolist() if texts.dtype.kind == "U" else torch.from_numpy(texts).float()
            groups.append((latents, texts, torch.from_numpy(arrays[f"given{i}"])))
        return groups


def recaption_batch(trainer, groups, captioner, share, rng):
    """Replaces that share of a batch's captions by what a captioner writes, which sees the clip and the
    caption. → the groups with the new captions."""
    from recaption import recaption

    recaptioned = []
    for video, captions, given in groups:
        written = recaption(captioner, trainer.encode(video), captions)
        is_kept = rng.random(len(captions)) >= share
        mixed = [old if keep else new for old, new, keep in zip(captions, written, is_kept, strict=True)]
        recaptioned.append((video, mixed, given))
    return recaptioned


def open_captioner(config, model):
    """config.captioner → the network. Raises BadInput for one that knows another VAE's latents."""
    from recaption import load_captioner

    captioner, vae, _ = load_captioner(config.captioner, model.latent_scale.device)
    own = model.vae.state_dict()
    for name, weights in vae.state_dict().items():
        if name not in own or own[name].shape != weights.shape or not torch.allclose(own[name], weights):
            expected = f"expected one that was trained with the VAE of {model.checkpoint_path}"
            raise BadInput(f"captioner = {config.captioner!r}: {expected}")
    return captioner


def encode_batch(trainer, groups):
    """One batch of videos → the bytes of its npz file."""
    x_0, levels, _ = trainer.prepare(groups)
    arrays = {}
    for i, (_, captions, _) in enumerate(groups):
        texts = np.array(captions)
        if trainer.config.text_encoder != "vocabulary":
            texts = text.encode_text(captions, [], trainer.config).half().numpy()
        arrays[f"latents{i}"] = x_0[i].float().cpu().numpy()
        arrays[f"texts{i}"] = texts
        arrays[f"given{i}"] = (levels[i] == 0).cpu().numpy()
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


def precompute(config, model, batches, out, captioner=None):
    """Writes the folder of latents. An interrupted call goes on with the first shard that is missing.

    captioner: None, or open_captioner's, which writes config.recaption_share of the captions. Raises BadInput
    where `out` holds latents of other knobs or of another VAE."""
    # The Trainer knows how videos become what the transformer is trained on. Imported here, since both files
    # import this one.
    import train
    from data import datasets

    # A few captions as text, to draw pictures for while training.
    captions = [caption for _, captions, _ in datasets.make_dataset(config)[0] for caption in captions]
    about = {
        "config": asdict(config),
        "batches": batches,
        "captions": captions,
        "vocab": model.vocab,
        "checkpoint": model.checkpoint_path,
        "checkpoint_hash": model.checkpoint_hash,
    }
    claim(out, about, ABOUT)

    trainer = train.Trainer(config, model.vocab, model.latent_scale.device)
    trainer.take_weights(model, vae_only=True)
    with progress_bar(total=batches, desc="batches", unit="batch") as bar:
        for shard in range(-(-batches // BATCHES_PER_SHARD)):
            path = out / f"{shard:06d}.tar"
            first = shard * BATCHES_PER_SHARD
            last = min(batches, first + BATCHES_PER_SHARD)
            if not path.exists():
                write_shard(path, trainer, range(first, last), captioner)
            bar.update(last - first)


def write_shard(path, trainer, numbers, captioner):
    """Writes the batches of these numbers into one shard."""
    import train

    unfinished = path.with_suffix(".part")
    stream = train.draw_batches(trainer, "dit", first=numbers[0])
    with tarfile.open(unfinished, "w") as tar:
        for number in numbers:
            groups = next(stream)
            if captioner:
                rng = np.random.default_rng((trainer.config.seed, number, 1))
                groups = recaption_batch(trainer, groups, captioner, trainer.config.recaption_share, rng)
            train.seed_batch(trainer.config, number)
            add_file(tar, f"{number:08d}.npz", encode_batch(trainer, groups))
    unfinished.replace(path)


def make_parser():
    parser = Flags(__doc__)
    add = parser.add_argument
    add("--start", required=True, metavar="FILE", help="a checkpoint with the trained VAE")
    add("--out", required=True, type=Path, metavar="FOLDER", help="where the latents go")
    add("--batches", type=int, default=1000, metavar="N", help="how many different batches to make")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add_config_flags(parser)
    return parser


def main():
    args = make_parser().parse_args()
    check_at_least(args, batches=1)
    model = load_model(args.start, pick_device(args.device))
    check_is_trained(model)
    config = config_from_flags(args)
    captioner = open_captioner(config, model) if config.captioner else None
    precompute(config, model, args.batches, args.out, captioner)
    words = f"--data {args.out} --vae-steps 0 --start {args.start}"
    print(f"{args.batches} batches in {args.out}; train with {words}")


if __name__ == "__main__":
    run(main)

"""Checkpoints: what train.py writes and everything else reads.

A checkpoint is one file that carries its own config: model.pt holds all that is needed to go on training,
slim.pt and assets/small.pt only what sampling needs. It is read with weights_only=True, so a file from a
stranger cannot run code. It is written beside the old one and then renamed, so a run that is killed while
saving still has its last checkpoint.
"""
from config import BadInput, Config, config_from_dict

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from dit import DiT
from vae import VAE

SHIPPED = Path(__file__).parents[1] / "assets/small.pt"
SAMPLING_KEYS = ("config", "vocab", "latent_scale", "vae", "ema")  # what sampling cannot do without


@dataclass
class Model:
    """A trained model, ready to sample."""

    config: Config
    vocab: list
    latent_scale: torch.Tensor  # times the VAE's latents: variance 1
    vae: VAE
    dit: DiT  # with the averaged weights
    checkpoint_hash: str = ""  # of the checkpoint's file
    train_seconds: float = 0.0


def read_checkpoint(path):
    """A checkpoint's file → its dict, and the first 12 digits of the file's SHA-256.

    Raises BadInput for anything but a checkpoint of train.py; never runs code from it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A broken file fails with almost any error: PyTorch unpickles it before it knows what it is.
        message = str(error) or "it is empty"
        why = message.splitlines()[0][:120]
        raise BadInput(
            f"checkpoint {path}: cannot be read ({why}); train.py writes out/NAME/model.pt"
        ) from error

    if not isinstance(saved, dict) or not saved.keys() >= set(SAMPLING_KEYS):
        raise BadInput(f"checkpoint {path}: not one of train.py, which writes out/NAME/model.pt")
    file_hash = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    return saved, file_hash


def load_model(path, device="cpu"):
    """A checkpoint's file → Model, ready to sample. Raises BadInput."""
    saved, file_hash = read_checkpoint(path)
    config = config_from_dict(saved["config"], path)
    vae = VAE(config)
    dit = DiT(config, len(saved["vocab"]))
    try:
        vae.load_state_dict(saved["vae"])
        dit.load_state_dict(saved["ema"])
    except RuntimeError as error:
        why = last_line(error)
        raise BadInput(f"checkpoint {path}: its weights do not fit its config ({why})") from error

    return Model(
        config,
        saved["vocab"],
        saved["latent_scale"].to(device),
        vae=vae.to(device).eval(),
        dit=dit.to(device).eval(),
        checkpoint_hash=file_hash,
        train_seconds=saved.get("train_seconds", 0.0),
    )


def last_line(error):
    """The end of a long PyTorch error, which is where it says what does not fit."""
    return str(error).splitlines()[-1].strip()[:120]


def newest_checkpoint():
    """The path of the checkpoint that was trained last, or else of the one that comes with the repository."""

    def saving_time(path):
        return path.stat().st_mtime

    return str(max(Path("out").glob("*/model.pt"), key=saving_time, default=SHIPPED))


def slim_checkpoint(state):
    """A checkpoint to give away: only what sampling needs, its weights in half precision."""
    slim = {name: state[name] for name in ("config", "vocab", "latent_scale", "train_seconds")}
    for network in ("vae", "ema"):
        slim[network] = {name: weights.half() for name, weights in state[network].items()}
    return slim


def save_checkpoint(path, state):
    """Writes beside the old file, then renames: a run that is killed while it writes leaves the old one."""
    unfinished = f"{path}.part"
    torch.save(state, unfinished)
    os.replace(unfinished, path)

"""Checkpoints."""
import hashlib
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from config import BadInput, Config, config_from_dict
from dit import DiT
from vae import VAE


SHIPPED = Path(__file__).parents[1] / "assets/small.pt"


@dataclass
class Model:
    config: Config
    vocab: list  # the vocabulary
    latent_scale: torch.Tensor  # what latents are multiplied with to have variance 1
    vae: VAE
    dit: DiT  # with the averaged weights
    checkpoint_hash: str = ""  # of the checkpoint's file
    train_seconds: float = 0.0  # of training


def read_checkpoint(path):
    """A checkpoint's file → (its dict, hash). Raises BadInput for anything but a checkpoint of train.py; never runs code from it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        why = (str(error) or "it is empty").splitlines()[0][:120]
        raise BadInput(f"checkpoint {path}: cannot be read ({why}); train.py writes out/NAME/model.pt")
    if not isinstance(saved, dict) or not {"config", "vocab", "latent_scale", "vae", "ema"} <= saved.keys():
        raise BadInput(f"checkpoint {path}: not one of train.py, which writes out/NAME/model.pt")
    return saved, hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def load_model(checkpoint, place="cpu"):
    """A checkpoint's path → Model, ready to sample. Raises BadInput."""
    saved, hash = read_checkpoint(checkpoint)
    config = config_from_dict(saved["config"], checkpoint)
    model = Model(config, saved["vocab"], saved["latent_scale"], VAE(config), DiT(config, len(saved["vocab"])), hash, saved.get("train_seconds", 0.0))
    try:
        model.vae.load_state_dict(saved["vae"])
        model.dit.load_state_dict(saved["ema"])
    except RuntimeError as error:
        raise BadInput(f"checkpoint {checkpoint}: its weights do not fit its config ({str(error).splitlines()[-1].strip()[:120]})")
    model.latent_scale = model.latent_scale.to(place)
    model.vae.to(place).eval(), model.dit.to(place).eval()
    return model


def newest_checkpoint():
    """The checkpoint that was trained last, or else the one that comes with the repository."""
    return str(max(Path("out").glob("*/model.pt"), key=lambda path: path.stat().st_mtime, default=SHIPPED))


def slim_checkpoint(state):
    """A checkpoint to give away: what sampling needs, in half precision."""
    half = lambda weights: {name: weight.half() for name, weight in weights.items()}
    return {name: state[name] for name in ("config", "vocab", "latent_scale", "train_seconds")} | {name: half(state[name]) for name in ("vae", "ema")}


def save_checkpoint(path, state):
    """Atomic: a run that is killed while it writes leaves the old file."""
    torch.save(state, f"{path}.part")
    os.replace(f"{path}.part", path)

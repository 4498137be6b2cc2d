"""Checkpoints: what train.py writes and everything else reads.

A checkpoint is one file that carries its own config: model.pt holds all that is needed to go on training,
slim.pt and assets/small.pt only what sampling needs. It is read with weights_only=True, so a file from a
stranger cannot run code. It is written beside the old one and then renamed, so a run that is killed while
saving still has its last checkpoint.
"""
from config import BadInput, Config, config_from_dict

import hashlib
import os
import shlex
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dit import DiT
from text import feature_width
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
    checkpoint_path: str = ""  # of the checkpoint's file
    checkpoint_hash: str = ""  # of the same file
    train_seconds: float = 0.0
    steps: dict = field(default_factory=dict)  # done so far, {"vae": 900, "dit": 123}; empty where not known


def read_file(path):
    """What save_checkpoint wrote. Raises BadInput for a file that cannot be read; never runs code from it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A broken file fails with almost any error: PyTorch unpickles it before it knows what it is.
        message = str(error) or "it is empty"
        why = message.splitlines()[0][:120]
        raise BadInput(
            f"checkpoint {path}: cannot be read ({why}); train.py writes out/NAME/model.pt"
        ) from error


def read_checkpoint(path):
    """A checkpoint's file → its dict, and the first 12 digits of the file's SHA-256.

    Raises BadInput for anything but a checkpoint of train.py."""
    saved = read_file(path)
    if not isinstance(saved, dict) or not saved.keys() >= set(SAMPLING_KEYS):
        raise BadInput(f"checkpoint {path}: not one of train.py, which writes out/NAME/model.pt")
    file_hash = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    return saved, file_hash


def load_model(path, device="cpu"):
    """A checkpoint's file → Model, ready to sample. Raises BadInput."""
    saved, file_hash = read_checkpoint(path)
    config = config_from_dict(saved["config"], path)
    vae = VAE(config)
    dit = DiT(config, len(saved["vocab"]), feature_width(config))
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
        checkpoint_path=shown_path(path),
        checkpoint_hash=file_hash,
        train_seconds=saved.get("train_seconds", 0.0),
        steps=saved.get("steps", {}),
    )


def shown_path(path):
    """A path as one would type it: relative where it leads into the current folder, with / on Windows too."""
    path = Path(path)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return path.as_posix()


def steps_done(steps, config):
    """{"vae": 900, "dit": 123} → "123 of 700 steps of the transformer", which is trained after the VAE."""
    if steps["dit"] > 0:
        return f"{steps['dit']} of {config.dit_steps} steps of the transformer"
    return f"{steps['vae']} of {config.vae_steps} steps of the VAE, none of the transformer"


def describe_model(model):
    """Which model this is and how far it was trained, for a command's first line.

    For example "out/tiny/model.pt, trained for 4.6 minutes", with "; UNFINISHED: 123 of 700 steps of the
    transformer" behind it if the run was stopped."""
    minutes = model.train_seconds / 60
    decimals = 1 if minutes < 10 else 0
    told = f"{model.checkpoint_path}, trained for {minutes:.{decimals}f} minutes"

    # A checkpoint without its steps, such as the shipped one, was given away when it was finished.
    if not model.steps:
        return told
    totals = {"vae": model.config.vae_steps, "dit": model.config.dit_steps}
    if any(model.steps[stage] < total for stage, total in totals.items()):
        told += f"; UNFINISHED: {steps_done(model.steps, model.config)}"
    return told


def check_is_trained(model):
    """Raises BadInput for a model whose run was stopped before the transformer's first step: its samples
    would be noise, and its latents have no scale yet."""
    if model.steps and model.steps["dit"] == 0 and model.config.dit_steps > 0:
        path = model.checkpoint_path
        raise BadInput(
            f"checkpoint {path}: not trained yet, {steps_done(model.steps, model.config)}; "
            f"go on with: python train.py --resume {shlex.quote(path)}"
        )


def last_line(error):
    """The end of a long PyTorch error, which is where it says what does not fit."""
    return str(error).splitlines()[-1].strip()[:120]


def slim_checkpoint(state):
    """A checkpoint to give away: only what sampling needs, its weights in half precision."""
    slim = {name: state[name] for name in ("config", "vocab", "latent_scale", "train_seconds", "steps")}
    for network in ("vae", "ema"):
        slim[network] = {name: weights.half() for name, weights in state[network].items()}
    return slim


def save_checkpoint(path, state):
    """Writes beside the old file, then renames: a run that is killed while it writes leaves the old one.

    Raises BadInput where it cannot be written, as on a full disk."""
    unfinished = Path(f"{path}.part")
    try:
        torch.save(state, unfinished)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        kept = "the one before it is as it was" if Path(path).exists() else "there was none before it"
        raise BadInput(f"checkpoint {path}: cannot be written ({last_line(error)}); {kept}") from error
    os.replace(unfinished, path)

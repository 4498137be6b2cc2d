"""What all tests share: a config so small that everything runs in moments, and a checkpoint of it."""
import gc
import os
import shutil
import sys

# tqdm reads this when it is imported: no progress bars between the dots of pytest.
os.environ["TQDM_DISABLE"] = "1"

# No bfloat16 inside float32 products, which CPUs with AMX would use: oracles want 1e-5.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"

from config import Config

import numpy as np
import pytest
import torch

import train
from data.datasets import WorldDataset
from data.video_io import write_clip
from safety import provenance
from utils.checkpoint import load_model
from utils.cli import pick_device, run

# Sets the precision of matrix products, as every command does.
pick_device("cpu")

# Tensors this small gain nothing from a second thread, and lose much when another job runs.
torch.set_num_threads(1)

SMALL = {
    "name": "small",
    "precision": "float32",
    "frames": 5,
    "height": 8,
    "width": 16,
    "vae_width": 8,
    "latent_channels": 3,
    "dit_width": 32,
    "dit_head_dim": 16,
    "dit_depth": 2,
    "vae_steps": 3,
    "dit_steps": 3,
    "vae_batch": 2,
    "dit_tokens": 48,
    "sample_steps": 2,
    "score_prompts": 2,
    "warmup_steps": 1,
}


def pytest_collection_finish():
    # What was imported and collected stays until the end. imageio runs the garbage collector for each file,
    # and it need not look at all that again and again.
    gc.freeze()


@pytest.fixture
def config():
    return Config(**SMALL)


@pytest.fixture(scope="session")
def whole_checkpoint(tmp_path_factory):
    """The path of a checkpoint that was trained for three steps and can be trained further."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(**SMALL)
    trainer = train.Trainer(config, WorldDataset(config).vocab(), "cpu")
    train.train(trainer, folder)
    return folder / "model.pt"


@pytest.fixture(scope="session")
def checkpoint(whole_checkpoint, tmp_path_factory):
    """The path of the same without what only training needs: it is read in a third of the time."""
    path = tmp_path_factory.mktemp("slim") / "model.pt"
    torch.save(train.slim_checkpoint(torch.load(whole_checkpoint, weights_only=True)), path)
    return path


@pytest.fixture
def copy_of_run(checkpoint):
    """copy_of_run(path, vae=3, dit=1) copies that checkpoint, as of a run that was stopped so early."""
    def copy(path, **steps):
        saved = torch.load(checkpoint, weights_only=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(saved | {"steps": steps or saved["steps"]}, path)
    return copy


@pytest.fixture(scope="session")
def model(checkpoint):
    """The same checkpoint's Model, with noise on the transformer's weights.

    After three steps its gates are almost the zeros they began with, and it would answer everything alike."""
    model = load_model(checkpoint)
    torch.manual_seed(0)
    for parameter in model.dit.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def written_folder(tmp_path_factory):
    """A folder of clips with captions, and of files that must be passed over.

    The clips brighten from frame to frame, so that a frame tells by its grey which one it was."""
    folder = tmp_path_factory.mktemp("clips")
    write_brightening_clip(folder, "a", fps=30, shape=(60, 18, 46))
    write_brightening_clip(folder, "b", fps=10, shape=(20, 40, 20))
    write_brightening_clip(folder, "short", fps=10, shape=(2, 16, 16))

    (folder / "broken.mp4").write_bytes(b"not a video")
    (folder / "broken.txt").write_text("broken, never read")
    write_clip(folder / "silent.mp4", np.zeros((9, 16, 16, 3), np.uint8), 10)
    return folder


@pytest.fixture
def folder(written_folder, tmp_path):
    """The same, for one test alone."""
    return shutil.copytree(written_folder, tmp_path, dirs_exist_ok=True)


def write_brightening_clip(folder, name, fps, shape):
    """Writes NAME.mp4 of `shape` (frames, height, width), from black to nearly white, and its NAME.txt."""
    frames = shape[0]
    greys = 255 // frames * np.arange(frames, dtype=np.uint8)
    clip = np.broadcast_to(greys[:, None, None, None], (*shape, 3))
    write_clip(folder / f"{name}.mp4", clip, fps)
    (folder / f"{name}.txt").write_text(f"clip {name}\n")


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """command(module, *words) runs module.main() as the shell would → (exit code, stdout, stderr).

    It runs inside the test's own folder, and signs with keys of the test's own."""
    def call(module, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(provenance, "KEYS", tmp_path / "keys")
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, words)])

        # What was printed before is not the command's.
        capfd.readouterr()
        try:
            run(module.main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err
    return call

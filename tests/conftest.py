"""What all tests share: a config so small that everything runs in moments, and a checkpoint trained for three steps."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # no bfloat16 inside float32 products, which CPUs with AMX would use: oracles want 1e-5
sys.path.insert(0, str(Path(__file__).parents[1]))

from data import video_io
from safety import provenance  # noqa: E402
from utils import checkpoint as checkpoint_io  # noqa: E402
from utils.cli import pick_device, run  # noqa: E402
import train  # noqa: E402
from config import Config  # noqa: E402

SMALL = dict(name="small", frames=5, height=8, width=16, vae_width=8, latent_channels=3, dit_width=32, dit_head_dim=16, dit_depth=2,
             vae_steps=3, dit_steps=3, vae_batch=2, dit_tokens=48, sample_steps=2, score_prompts=2, warmup_steps=1)


@pytest.fixture
def config():
    return Config(**SMALL)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = Config(**SMALL)
    trainer = train.Trainer(config, train.datasets.WorldDataset(config).vocab(), "cpu")
    train.train(trainer, folder)
    return folder / "model.pt"


@pytest.fixture(scope="session")
def model(checkpoint):
    model = checkpoint_io.load_model(checkpoint)
    torch.manual_seed(0)
    for p in model.dit.parameters():  # three steps of training teach nothing: make it say something
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture
def folder(tmp_path):
    """Clips that brighten from frame to frame: a picture says which frame it was."""
    for name, fps, frames, h, w in (("a", 30, 60, 18, 46), ("b", 10, 20, 40, 20), ("short", 10, 2, 16, 16)):
        grey = np.broadcast_to((255 // frames * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, h, w, 3))
        video_io.write_clip(tmp_path / f"{name}.mp4", grey, fps)
        (tmp_path / f"{name}.txt").write_text(f"clip {name}\n")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "broken.txt").write_text("broken, never read")
    video_io.write_clip(tmp_path / "silent.mp4", np.zeros((9, 16, 16, 3), np.uint8), 10)
    return tmp_path


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """command(module, *words) runs module.main() as the shell would → (exit code, stdout, stderr)."""
    def call(module, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(provenance, "KEYS", tmp_path / "keys")
        monkeypatch.setattr(sys, "argv", [f"{module.__name__.split('.')[-1]}.py", *map(str, words)])
        capfd.readouterr()
        try:
            run(module.main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()
    return call


pick_device("cpu")  # sets the matrix arithmetic, as every command does
torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and lose much when another job runs

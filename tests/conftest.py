"""What all tests share: a config so small that everything runs in moments, and a checkpoint trained for three steps."""
import os
import sys
from pathlib import Path

import pytest
import torch

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import sample  # noqa: E402
import train  # noqa: E402
from config import Config  # noqa: E402

SMALL = dict(name="small", frames=5, height=8, width=16, vae_width=8, latent_channels=3, dit_width=32, dit_head=16, dit_depth=2,
             vae_steps=3, dit_steps=3, vae_batch=2, dit_tokens=48, sample_steps=2, score_prompts=2, warmup=1)


@pytest.fixture
def config():
    return Config(**SMALL)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = Config(**SMALL)
    trainer = train.Trainer(config, train.data.World(config).words(), "cpu")
    train.train(trainer, folder)
    return folder / "model.pt"


@pytest.fixture(scope="session")
def model(checkpoint):
    model = sample.load(checkpoint)
    torch.manual_seed(0)
    for p in model.dit.parameters():  # three steps of training teach nothing: make it say something
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """command(module, *words) runs module.main() as the shell would → (exit code, stdout, stderr)."""
    def call(module, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        capfd.readouterr()
        try:
            train.run(module.main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()
    return call


train.device("cpu")  # sets the matrix arithmetic, as every command does
torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and lose much when another job runs

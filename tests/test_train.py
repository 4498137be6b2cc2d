import csv
from dataclasses import replace

import pytest
import torch

from data import video_io
from data import datasets
from utils import checkpoint as checkpoint_io
import train
from config import BadInput


def curve(folder, stage="dit"):
    return list(csv.reader(open(folder / f"{stage}-loss.csv")))


def start(config, folder):
    folder.mkdir()
    return train.Trainer(config, datasets.make_dataset(config).vocab(), "cpu")


def test_muon_and_adam_share_out_every_weight_once(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    for stage, network in (("vae", trainer.vae), ("dit", trainer.dit)):
        held = [p for o in trainer.optimizers[stage] for g in o.param_groups for p in g["params"]]
        assert len(held) == len(set(held)) and set(held) == set(network.parameters())


@pytest.mark.parametrize("killed_in, at", [("vae", 7), ("dit", 5)])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config, tmp_path, monkeypatch, command, killed_in, at):
    config = replace(config, vae_steps=12, dit_steps=26, save_minutes=0.0)  # saves after every step
    whole = start(config, tmp_path / "whole")
    train.train(whole, tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(self, groups, loss_of=getattr(train.Trainer, f"{killed_in}_loss")):
        if self.steps[killed_in] == at:
            raise Killed
        return loss_of(self, groups)

    broken = start(config, tmp_path / "broken")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.Trainer, f"{killed_in}_loss", kill)
        train.train(broken, tmp_path / "broken")
    torch.manual_seed(1234)  # whatever happened since
    code, out, err = command(train, "--resume", tmp_path / "broken/model.pt", "--device", "cpu")
    assert code == 0 and "sample.gif shows" in out, err
    for stage in ("vae", "dit"):
        assert curve(tmp_path / "broken", stage) == curve(tmp_path / "whole", stage)
    assert len(curve(tmp_path / "whole")) == 27
    a, b = (checkpoint_io.load_model(tmp_path / name / "model.pt") for name in ("whole", "broken"))
    assert all(torch.equal(x, y) for x, y in zip(a.dit.state_dict().values(), b.dit.state_dict().values()))


def test_a_run_begins_with_another_ones_weights(config, tmp_path, checkpoint):
    trainer, model = start(replace(config, vae_steps=0, dit_steps=0), tmp_path / "run"), checkpoint_io.load_model(checkpoint)
    trainer.start(model)
    train.train(trainer, tmp_path / "run")
    for a, b in ((trainer.vae, model.vae), (trainer.dit, model.dit), (trainer.ema, model.dit)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert trainer.latent_scale == model.latent_scale != 1
    with pytest.raises(BadInput, match="a vocabulary of 18 words, and not the 2"):
        train.Trainer(config, ["a", "dog"], "cpu").start(model)


def test_the_sampled_model_is_the_average_of_the_weights(config, tmp_path, monkeypatch):
    config = replace(config, vae_steps=1, dit_steps=8, ema_decay=0.7)
    trainer = start(config, tmp_path / "run")
    expected = trainer.dit.final_linear.weight.detach().clone()
    update = train.Trainer.update_ema

    def watch(self, step):
        keep = min(0.7, (1 + step) / (10 + step))
        expected.mul_(keep).add_(self.dit.final_linear.weight.detach(), alpha=1 - keep)
        update(self, step)

    monkeypatch.setattr(train.Trainer, "update_ema", watch)
    train.train(trainer, tmp_path / "run")
    saved = checkpoint_io.load_model(tmp_path / "run/model.pt").dit.final_linear.weight
    torch.testing.assert_close(saved, expected)
    assert not torch.equal(saved, trainer.dit.final_linear.weight) and trainer.model().dit is trainer.ema


def test_latents_have_variance_1_after_the_measured_scale(config, tmp_path):
    trainer = start(config, tmp_path / "run")
    train.train(trainer, tmp_path / "run")
    (video, *_), = datasets.WorldDataset(replace(config, dit_tokens=64 * 12))[123]
    video = video_io.to_float(video)
    assert (trainer.vae.encode(video)[0] * trainer.latent_scale).std().item() == pytest.approx(1, abs=0.1)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step_and_keeps_the_checkpoint(config, tmp_path, monkeypatch):
    trainer = start(replace(config, dit_steps=6, save_minutes=0.0), tmp_path / "run")
    good = train.Trainer.dit_loss
    monkeypatch.setattr(train.Trainer, "dit_loss", lambda self, groups: good(self, [(v * (float("nan") if self.steps["dit"] == 4 else 1), *rest) for v, *rest in groups]))
    with pytest.raises(BadInput, match="dit step 4: the loss is nan, its gradient's norm nan; most often a learning rate"):
        train.train(trainer, tmp_path / "run")
    assert checkpoint_io.read_checkpoint(tmp_path / "run/model.pt")[0]["steps"] == {"vae": 3, "dit": 4}


def test_a_checkpoint_to_give_away_is_the_same_in_half_precision(checkpoint, tmp_path):
    checkpoint_io.save_checkpoint(tmp_path / "slim.pt", checkpoint_io.slim_checkpoint(torch.load(checkpoint, weights_only=True)))
    whole, half = checkpoint_io.load_model(checkpoint), checkpoint_io.load_model(tmp_path / "slim.pt")
    for a, b in zip([*whole.vae.parameters(), *whole.dit.parameters()], [*half.vae.parameters(), *half.dit.parameters()], strict=True):
        assert b.dtype == torch.float32 and torch.equal(a.half().float(), b)
    assert (tmp_path / "slim.pt").stat().st_size < checkpoint.stat().st_size / 2 and (half.config, half.vocab, half.latent_scale) == (whole.config, whole.vocab, whole.latent_scale)


def test_a_new_run_keeps_the_last_ones_model(command, config, tmp_path):
    words = [w for k in ("vae_steps", "dit_steps", "frames", "height", "width", "vae_width", "dit_width", "dit_head_dim", "dit_depth", "dit_tokens", "score_prompts")
             for w in (f"--{k.replace('_', '-')}", getattr(config, k))]
    for _ in range(2):
        code, out, err = command(train, "--out", tmp_path / "run", "--device", "cpu", *words)
        assert code == 0 and "reader's ceiling" in out, err
    assert {"model.pt", "slim.pt", "model.before.pt", "sample.gif", "dit-loss.csv"} <= {p.name for p in (tmp_path / "run").iterdir()}

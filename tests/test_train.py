"""Training: the step, the loop, and what survives a kill."""
import csv
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import train
from config import BadInput
from data import datasets
from data.video_io import to_float
from utils.checkpoint import load_model, read_checkpoint

SHRUNK = (  # knobs that conftest's config sets to something small
    "vae_steps",
    "dit_steps",
    "frames",
    "height",
    "width",
    "vae_width",
    "dit_width",
    "dit_head_dim",
    "dit_depth",
    "dit_tokens",
    "score_prompts",
)


class Killed(Exception):
    pass


def read_curve(folder, stage="dit"):
    with open(folder / f"{stage}-loss.csv") as file:
        return list(csv.reader(file))


def make_trainer(config, folder):
    folder.mkdir()
    return train.Trainer(config, datasets.make_dataset(config).vocab(), "cpu")


def copy_weights(network):
    return [p.detach().clone() for p in network.parameters()]


def assert_same_weights(network, other):
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_muon_and_adam_share_out_every_weight_once(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    for stage, network in (("vae", trainer.vae), ("dit", trainer.dit)):
        trained = []
        for optimizer in trainer.optimizers[stage]:
            trained.extend(optimizer.param_groups[0]["params"])
        assert len(trained) == len(set(trained))
        assert set(trained) == set(network.parameters())


def test_muon_trains_matrices_and_of_the_transformer_only_those_of_its_blocks(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    for stage, hidden in (("vae", trainer.vae), ("dit", trainer.dit.blocks)):
        muon, _ = trainer.optimizers[stage]
        expected = {p for p in hidden.parameters() if p.ndim > 1}
        assert set(muon.param_groups[0]["params"]) == expected


@pytest.mark.parametrize(
    "total, warmup, decay", [(700, 20, 0.9), (50, 10, 0.2), (8, 20, 0.9), (9, 0, 0.0), (5, 1, 1.0)]
)
def test_the_learning_rate_is_the_lowest_of_warmup_full_and_decay(total, warmup, decay):
    for step in range(total):
        share = min((step + 1) / max(1, warmup), (total - step) / max(1e-9, decay * total), 1.0)
        found = train.learning_rate(step, 0.03, total_steps=total, warmup_steps=warmup, decay_share=decay)
        assert found == 0.03 * share


def test_the_learning_rate_rises_stays_and_falls_to_its_last_step():
    def rate(step):
        return train.learning_rate(step, 2.0, total_steps=100, warmup_steps=10, decay_share=0.5)

    assert rate(0) == 0.2
    assert rate(4) == 1.0
    assert rate(9) == rate(30) == rate(50) == 2.0
    assert rate(75) == 1.0
    assert rate(99) == 2.0 / 50


def one_step(config, loss_factor=1.0, step=0):
    """One optimizer step of the VAE on the sum of its weights → trainer, the norm of the clipped gradient."""
    config = replace(config, vae_steps=10, vae_lr=0.02, lr_decay=0.2)
    trainer = train.Trainer(config, ["a"], "cpu")
    trainer.steps["vae"] = step
    seen = {}

    def watch(optimizer, args, kwargs):
        norms = [p.grad.norm() for p in trainer.vae.parameters()]
        seen["norm"] = torch.stack(norms).norm().item()

    trainer.optimizers["vae"][0].register_step_pre_hook(watch)
    loss = loss_factor * sum(p.sum() for p in trainer.vae.parameters())
    train.optimizer_step(trainer, "vae", loss)
    return trainer, seen["norm"]


def test_a_large_gradient_is_clipped_to_grad_clip(config):
    _, norm = one_step(replace(config, grad_clip=0.5), loss_factor=100.0)
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_a_small_gradient_is_left_alone(config):
    _, norm = one_step(replace(config, grad_clip=1e9), loss_factor=1.0)
    trainer = train.Trainer(config, ["a"], "cpu")
    weights = sum(p.numel() for p in trainer.vae.parameters())
    assert norm == pytest.approx(weights**0.5, rel=1e-3)


def test_each_optimizer_steps_at_its_own_rate_and_forgets_the_gradient(config):
    trainer, _ = one_step(replace(config, warmup_steps=4, lr=0.008), step=1)
    muon, adam = trainer.optimizers["vae"]
    assert muon.param_groups[0]["lr"] == pytest.approx(0.02 * 2 / 4)
    assert adam.param_groups[0]["lr"] == pytest.approx(0.008 * 2 / 4)
    assert all(p.grad is None for p in trainer.vae.parameters())


def test_every_weight_moves_in_training(config, tmp_path):
    trainer = make_trainer(replace(config, vae_steps=3, dit_steps=6, dit_tokens=200), tmp_path / "run")
    networks = (trainer.vae, trainer.dit, trainer.ema)
    before = [copy_weights(network) for network in networks]
    train.train(trainer, tmp_path / "run")
    for network, old_weights in zip(networks, before, strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), old_weights, strict=True)]
        assert sum(moved) >= 0.9 * len(moved)


def test_training_the_transformer_leaves_the_vae_alone(config, tmp_path):
    trainer = make_trainer(config, tmp_path / "run")
    before = copy_weights(trainer.vae)
    train.train_dit(trainer, tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(trainer.vae.parameters(), before, strict=True))


@pytest.mark.parametrize("killed_in, killed_at", [("vae", 7), ("dit", 5)])
def test_a_resumed_run_equals_the_whole_one(config, tmp_path, monkeypatch, command, killed_in, killed_at):
    config = replace(config, vae_steps=12, dit_steps=26, save_minutes=0.0)  # saves after every step
    whole = make_trainer(config, tmp_path / "whole")
    train.train(whole, tmp_path / "whole")

    method = {"vae": "vae_loss", "dit": "dit_loss"}[killed_in]
    loss = {"vae": train.Trainer.vae_loss, "dit": train.Trainer.dit_loss}[killed_in]

    def loss_until_killed(self, groups):
        if self.steps[killed_in] == killed_at:
            raise Killed
        return loss(self, groups)

    broken = make_trainer(config, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, method, loss_until_killed)
        with pytest.raises(Killed):
            train.train(broken, tmp_path / "broken")
    torch.manual_seed(1234)  # whatever happened since
    code, out, err = command(train, "--resume", tmp_path / "broken/model.pt", "--device", "cpu")
    assert code == 0, err
    assert "sample.gif shows" in out

    # Equal bit for bit.
    for stage in ("vae", "dit"):
        assert read_curve(tmp_path / "broken", stage) == read_curve(tmp_path / "whole", stage)
    assert len(read_curve(tmp_path / "whole")) == 1 + 26
    a = load_model(tmp_path / "whole/model.pt")
    b = load_model(tmp_path / "broken/model.pt")
    assert_same_weights(a.dit, b.dit)
    assert_same_weights(a.vae, b.vae)


def test_a_run_begins_with_another_ones_weights(config, tmp_path, checkpoint):
    model = load_model(checkpoint)
    trainer = make_trainer(replace(config, vae_steps=0, dit_steps=0), tmp_path / "run")
    trainer.start(model)
    train.train(trainer, tmp_path / "run")
    assert_same_weights(trainer.vae, model.vae)
    assert_same_weights(trainer.dit, model.dit)
    assert_same_weights(trainer.ema, model.dit)
    assert trainer.latent_scale == model.latent_scale != 1
    assert trainer.train_seconds == model.train_seconds > 0


def test_a_run_with_another_vocabulary_cannot_take_over_weights(config, checkpoint):
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    with pytest.raises(BadInput, match="a vocabulary of 18 words, and not the 2"):
        trainer.start(load_model(checkpoint))


def test_the_sampled_model_is_the_average_of_the_weights(config, tmp_path, monkeypatch):
    config = replace(config, vae_steps=1, dit_steps=8, ema_decay=0.7)
    trainer = make_trainer(config, tmp_path / "run")
    expected = copy_weights(trainer.dit)
    step_of = train.optimizer_step

    def step_and_average(trainer, stage, loss):
        step = trainer.steps[stage]
        step_of(trainer, stage, loss)
        if stage == "dit":
            keep = min(0.7, (1 + step) / (10 + step))
            for average, weights in zip(expected, trainer.dit.parameters(), strict=True):
                average.mul_(keep).add_(weights.detach(), alpha=1 - keep)

    monkeypatch.setattr(train, "optimizer_step", step_and_average)
    train.train(trainer, tmp_path / "run")
    saved = copy_weights(load_model(tmp_path / "run/model.pt").dit)
    for a, b in zip(saved, expected, strict=True):
        torch.testing.assert_close(a, b)
    last = copy_weights(trainer.dit)
    assert not all(torch.equal(a, b) for a, b in zip(saved, last, strict=True))
    assert trainer.model().dit is trainer.ema


def test_latents_have_variance_1_after_the_measured_scale(config, tmp_path):
    trainer = make_trainer(config, tmp_path / "run")
    train.train(trainer, tmp_path / "run")
    video, _, _ = datasets.WorldDataset(replace(config, dit_tokens=64 * 12))[123][0]
    assert trainer.encode(to_float(video)).std().item() == pytest.approx(1, abs=0.1)


def test_given_frames_after_a_gap_do_not_know_what_the_gap_shows(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    trainer.latent_scale = torch.tensor(3.0)
    video = torch.rand(2, 3, 9, 8, 16) * 2 - 1
    other = video.clone()
    other[:, :, 1:5] = 0.3
    given = torch.tensor([[True, False, True], [True, False, True]])
    a = trainer.encode_given(video, given)
    b = trainer.encode_given(other, given)
    assert torch.equal(a[:, :, [0, 2]], b[:, :, [0, 2]])
    torch.testing.assert_close(a[:, :, 1], trainer.encode(video)[:, :, 1])
    assert not torch.equal(a[:, :, 1], b[:, :, 1])


def test_frames_given_at_the_beginning_are_encoded_as_they_are(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    video = torch.rand(2, 3, 9, 8, 16) * 2 - 1
    given = torch.tensor([[True, True, False], [False, False, False]])
    assert torch.equal(trainer.encode_given(video, given), trainer.encode(video))


@pytest.mark.parametrize("level, dropout", [(0.0, 0.5), (0.7, 0.2)])
def test_prompts_are_emptied_as_often_as_asked_and_half_the_time_beside_given_frames(config, level, dropout):
    trainer = train.Trainer(replace(config, prompt_dropout=0.2), ["a", "dog"], "cpu")
    levels = torch.full((2000, 3), 0.7)
    levels[:, 1] = level
    torch.manual_seed(0)
    prompt_ids = trainer.draw_prompt_ids(["a dog"] * 2000, levels)
    empty = (prompt_ids == 0).all(1).float().mean().item()
    assert empty == pytest.approx(dropout, abs=0.04)


def test_the_loss_by_level_is_the_mean_in_each_tenth():
    levels = torch.tensor([0.05, 0.95, 0.09, 1.0, 0.3])
    losses = torch.tensor([1.0, 5.0, 2.0, 7.0, 0.25])
    assert train.loss_by_level(levels, losses) == "1.500, -, -, 0.250, -, -, -, -, -, 6.000"


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(config, tmp_path, monkeypatch):
    trainer = make_trainer(replace(config, dit_steps=6, save_minutes=0.0), tmp_path / "run")
    good_loss = train.Trainer.dit_loss

    def loss_with_nan(self, groups):
        loss, levels, losses = good_loss(self, groups)
        if self.steps["dit"] == 4:
            loss = loss * float("nan")
        return loss, levels, losses

    monkeypatch.setattr(train.Trainer, "dit_loss", loss_with_nan)
    message = "dit step 4: the loss is nan, its gradient's norm nan; most often a learning rate"
    with pytest.raises(BadInput, match=message):
        train.train(trainer, tmp_path / "run")
    saved, _ = read_checkpoint(tmp_path / "run/model.pt")
    assert saved["steps"] == {"vae": 3, "dit": 4}


def test_a_checkpoint_is_saved_when_its_minutes_have_passed(config, tmp_path, monkeypatch):
    trainer = make_trainer(replace(config, vae_steps=100, save_minutes=2.0), tmp_path / "run")
    progress = train.Progress(trainer, "vae", tmp_path / "run")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 110)
    assert not progress.is_time_to_save()
    monkeypatch.setattr(time, "time", lambda: now + 130)
    assert progress.is_time_to_save()
    progress.save_time = time.time()
    assert not progress.is_time_to_save()


def test_the_time_of_both_stages_adds_up(config, tmp_path, monkeypatch):
    trainer = make_trainer(config, tmp_path / "run")
    trainer.train_seconds = 1000.0
    progress = train.Progress(trainer, "vae", tmp_path / "run")
    now = progress.begin_time
    monkeypatch.setattr(time, "time", lambda: now + 7)
    progress.finish_step(0.5, [(None, ["a", "b"], None)])
    progress.finish_step(0.25, [(None, ["a"], None)])
    assert trainer.train_seconds == pytest.approx(1007)
    assert trainer.steps == {"vae": 2, "dit": 0}
    assert read_curve(tmp_path / "run", "vae") == [["step", "loss"], ["0", "0.5"], ["1", "0.25"]]


def test_a_new_run_keeps_the_last_ones_model(command, config, tmp_path):
    words = []
    for field in fields(config):
        if field.name in SHRUNK:
            words += ["--" + field.name.replace("_", "-"), getattr(config, field.name)]
    for _ in range(2):
        code, out, err = command(train, "--out", tmp_path / "run", "--device", "cpu", *words)
        assert code == 0, err
        assert "reader's ceiling" in out
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.pt", "slim.pt", "model.before.pt", "sample.gif", "dit-loss.csv"} <= written


def test_training_loads_no_safety_code():
    code = "import sys, train; print([name for name in sys.modules if name.startswith('safety')])"
    root = Path(train.__file__).parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr

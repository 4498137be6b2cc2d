"""Training: the step, the loop, and what survives a kill."""
from config import BadInput

import contextlib
import csv
import re
import shlex
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import evaluate
import train
from data import datasets
from data.video_io import film_grid, film_strip, to_float, to_uint8
from dit import DiT
from sample import generate
from utils.checkpoint import load_model, read_checkpoint
from vae import latent_to_frame_mask, vae_loss
from world.scenes import DIRECTIONS, SEEN, SIMPLE_COLOURS, SIMPLE_SHAPES, SPEEDS


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


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
            for group in optimizer.param_groups:
                trained.extend(group["params"])
        assert len(trained) == len(set(trained))
        assert set(trained) == set(network.parameters())


def test_muon_trains_matrices_and_of_the_transformer_only_those_of_its_blocks(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    for stage, hidden in (("vae", trainer.vae), ("dit", trainer.dit.blocks)):
        muon, _ = trainer.optimizers[stage]
        expected = {p for p in hidden.parameters() if p.ndim > 1}
        assert {p for group in muon.param_groups for p in group["params"]} == expected


def test_queries_keys_and_values_are_three_matrices(config):
    muon, _ = train.Trainer(config, ["a"], "cpu").optimizers["dit"]
    for group in muon.param_groups:
        for p in group["params"]:
            rows, columns = p.shape
            assert group["parts"] == (3 if rows == 3 * columns else 1)


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
    step_on(trainer, "vae", loss)
    return trainer, seen["norm"]


def step_on(trainer, stage, loss):
    """The gradients of a loss, and one optimizer step."""
    loss.backward()
    train.optimizer_step(trainer, stage, loss.item())


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


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_each_stage_has_a_muon_rate_of_its_own(config, stage):
    config = replace(config, vae_lr=0.5, dit_lr=0.25, lr=0.125, warmup_steps=0, lr_decay=0.0)
    trainer = train.Trainer(config, ["a"], "cpu")
    network = {"vae": trainer.vae, "dit": trainer.dit}[stage]
    step_on(trainer, stage, sum(p.sum() for p in network.parameters()))
    muon, adam = trainer.optimizers[stage]
    assert {group["lr"] for group in muon.param_groups} == {{"vae": 0.5, "dit": 0.25}[stage]}
    assert adam.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize("stage, total", [("vae", 8), ("dit", 20)])
def test_the_rates_fall_over_the_stages_own_steps(config, stage, total):
    config = replace(config, vae_steps=8, dit_steps=20, lr=0.5, warmup_steps=0, lr_decay=1.0)
    trainer = train.Trainer(config, ["a"], "cpu")
    trainer.steps[stage] = 6
    network = {"vae": trainer.vae, "dit": trainer.dit}[stage]
    step_on(trainer, stage, sum(p.sum() for p in network.parameters()))
    _, adam = trainer.optimizers[stage]
    assert adam.param_groups[0]["lr"] == pytest.approx(0.5 * (total - 6) / total)


def test_a_weight_without_a_gradient_does_not_decay(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    before = copy_weights(trainer.dit)
    step_on(trainer, "dit", sum(0 * p.sum() for p in trainer.dit.parameters()))
    for p, old in zip(trainer.dit.parameters(), before, strict=True):
        assert torch.equal(p, old)


def test_adam_forgets_the_gradients_size_within_20_steps(config):
    for _, adam in train.Trainer(config, ["a"], "cpu").optimizers.values():
        assert adam.param_groups[0]["betas"] == (0.9, 1 - 1 / 20)


def test_nothing_moves_where_the_gradient_is_not_finite(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    before = copy_weights(trainer.vae)
    loss = sum(p.sqrt().sum() for p in trainer.vae.parameters())  # nan below 0
    with pytest.raises(BadInput, match="vae step 0: the loss is nan, .* vae_lr = 0.02, lr = 0.004"):
        step_on(trainer, "vae", loss)
    for p, old in zip(trainer.vae.parameters(), before, strict=True):
        assert torch.equal(p, old)


def test_nothing_moves_where_only_the_gradient_is_not_finite(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    before = copy_weights(trainer.vae)
    loss = sum((0 * p).sqrt().sum() for p in trainer.vae.parameters())  # 0, but its slope is not finite
    with pytest.raises(BadInput, match="vae step 0: the loss is 0.0, its gradient's norm nan"):
        step_on(trainer, "vae", loss)
    for p, old in zip(trainer.vae.parameters(), before, strict=True):
        assert torch.equal(p, old)


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_the_gradients_of_a_steps_batches_are_averaged(config, stage):
    config = replace(config, batches_per_step=3)
    trainer = train.Trainer(config, datasets.WorldDataset(config).vocab(), "cpu")
    network = {"vae": trainer.vae, "dit": trainer.dit}[stage]
    loss_of = {"vae": trainer.vae_loss, "dit": trainer.dit_loss}[stage]
    trainer.steps[stage] = 2

    # One by one, each with the randomness of its own number.
    losses = []
    for number, groups in zip((6, 7, 8), train.draw_batches(trainer, stage), strict=False):
        train.seed_batch(config, number)
        losses.append(loss_of(groups)[0])
    expected = torch.autograd.grad(sum(losses) / 3, list(network.parameters()), materialize_grads=True)

    results, loss = train.add_gradients(trainer, stage, train.draw_batches(trainer, stage), loss_of)
    assert len(results) == 3
    assert loss == pytest.approx(sum(losses).item() / 3)
    for p, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(torch.zeros_like(p) if p.grad is None else p.grad, gradient)


def test_a_process_adds_up_its_own_batches_and_shares_with_the_last(config, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(train.distributed, "wrap", lambda network, *_: network)
    monkeypatch.setattr(train.distributed, "mean", lambda number: number)
    numbers = []
    shared = []

    @contextlib.contextmanager
    def sharing_gradients(engine, now):
        shared.append(now)
        yield

    monkeypatch.setattr(train.distributed, "sharing_gradients", sharing_gradients)
    monkeypatch.setattr(train, "seed_batch", lambda config, number: numbers.append(number))
    trainer = train.Trainer(replace(config, batches_per_step=4), ["a"], "cpu")
    weight = next(trainer.vae.parameters())
    train.add_gradients(trainer, "vae", iter(range(9)), lambda groups: (weight.sum(),))
    assert numbers == [1, 3]
    assert shared == [False, True]
    # The mean over its own two; the other process has that of the other two.
    assert (weight.grad == 1).all()


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


@pytest.fixture(scope="module")
def resumable(checkpoint, tmp_path_factory):
    """A config that saves after every step, and the folder of its whole run."""
    config = replace(load_model(checkpoint).config, vae_steps=4, dit_steps=5, save_minutes=0.0)
    folder = tmp_path_factory.mktemp("resume") / "whole"
    trainer = make_trainer(config, folder)
    train.train(trainer, folder)
    return config, folder


def run_until_killed(config, folder, stage, step):
    """A run that dies in a step of one stage, after it has computed the loss."""
    loss = {"vae": train.Trainer.vae_loss, "dit": train.Trainer.dit_loss}[stage]

    def loss_until_killed(trainer, groups):
        if trainer.steps[stage] == step:
            raise Killed
        return loss(trainer, groups)

    trainer = make_trainer(config, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Trainer, f"{stage}_loss", loss_until_killed)
        with pytest.raises(Killed):
            train.train(trainer, folder)


@pytest.mark.parametrize("killed_in, killed_at", [("vae", 2), ("dit", 3)])
def test_a_resumed_run_equals_the_whole_one(resumable, tmp_path, command, killed_in, killed_at):
    config, whole = resumable
    broken = tmp_path / "broken"
    run_until_killed(config, broken, killed_in, killed_at)

    # Whatever was drawn since must not matter, nor that the curve had gone on beyond the checkpoint.
    torch.manual_seed(1234)
    with open(broken / f"{killed_in}-loss.csv", "a") as file:
        file.write(f"{killed_at},0.123\r\n")
    code, _, err = command(train, "--resume", broken / "model.pt", "--device", "cpu")
    assert code == 0, err
    assert_same_run(broken, whole)


def assert_same_run(folder, whole):
    """Two runs have left the same curves and weights."""
    for stage in ("vae", "dit"):
        assert read_curve(folder, stage) == read_curve(whole, stage)
    a = torch.load(whole / "model.pt", weights_only=True)
    b = torch.load(folder / "model.pt", weights_only=True)
    assert a["latent_scale"] == b["latent_scale"]
    for network in ("vae", "dit", "ema"):
        for name, weights in a[network].items():
            assert torch.equal(weights, b[network][name]), name


@pytest.fixture
def train_with_signals(command, config, tmp_path, monkeypatch):
    """Runs train.py; in a step of one stage, after its loss is known, the signals come → code, out, err.

    No checkpoint is saved before the end of a stage. Afterwards, signals mean what they meant before."""
    config = replace(config, vae_steps=4, dit_steps=5, save_minutes=1000.0)

    def call(stage, step, *signals):
        loss = {"vae": train.Trainer.vae_loss, "dit": train.Trainer.dit_loss}[stage]

        def loss_and_signals(trainer, groups):
            result = loss(trainer, groups)
            if trainer.steps[stage] == step:
                for number in signals:
                    signal.raise_signal(number)
            return result

        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with monkeypatch.context() as patch:
            patch.setattr(train.Trainer, f"{stage}_loss", loss_and_signals)
            answer = command(train, "--out", tmp_path / "my run", "--device", "cpu", *flags(config))
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        return answer
    return call


@pytest.mark.parametrize(
    "stage, step, number, expected_code, done",
    [
        ("vae", 1, signal.SIGTERM, 143, "2 of 4 steps of the VAE, none of the transformer"),
        ("dit", 2, signal.SIGINT, 130, "3 of 5 steps of the transformer"),
    ],
)
def test_a_run_that_a_signal_stops_goes_on_as_if_nothing_had_happened(
    train_with_signals, command, resumable, tmp_path, stage, step, number, expected_code, done
):
    code, out, err = train_with_signals(stage, step, number)
    folder = tmp_path / "my run"
    resume = f"python train.py --resume '{folder.as_posix()}/model.pt' --device cpu"
    assert code == expected_code, err
    assert out == f"stopped after {done}; go on with: {resume}\n"
    assert "Traceback" not in err
    assert read_checkpoint(folder / "model.pt")[0]["steps"][stage] == step + 1

    code, _, err = command(train, *shlex.split(resume)[2:])
    assert code == 0, err
    assert_same_run(folder, resumable[1])


def test_a_second_signal_stops_at_once(train_with_signals, tmp_path):
    code, out, err = train_with_signals("vae", 1, signal.SIGINT, signal.SIGINT)
    assert (code, out, err) == (130, "", "")
    assert not (tmp_path / "my run/model.pt").exists()


def test_a_signal_before_the_first_step_just_ends_the_program(command, config, tmp_path, monkeypatch):
    make_folder = train.make_folder

    def make_folder_and_signal(*args):
        make_folder(*args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train, "make_folder", make_folder_and_signal)
    answer = command(train, "--out", tmp_path / "run", "--device", "cpu", *flags(config))
    assert answer == (130, "", "")


@pytest.mark.parametrize("number, expected_code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_the_last_step_ends_the_run_and_says_how_to_use_its_model(
    config, tmp_path, monkeypatch, capsys, number, expected_code
):
    def score_and_signal(model, prompts):
        signal.raise_signal(number)

    monkeypatch.setattr(evaluate, "score", score_and_signal)
    trainer = make_trainer(config, tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        train.finish(trainer, tmp_path / "run")
    assert stop.value.code == expected_code
    path = (tmp_path / "run/model.pt").as_posix()
    assert capsys.readouterr().out == (
        "stopped; the model is trained and saved, use it with: "
        f'python sample.py --checkpoint {path} --prompt "..."; python evaluate.py --checkpoint {path}\n'
    )
    assert (tmp_path / "run/slim.pt").exists()


def test_a_curve_has_a_row_for_every_step(resumable):
    _, folder = resumable
    for stage, steps in (("vae", 4), ("dit", 5)):
        header, *rows = read_curve(folder, stage)
        assert header == ["step", "loss"]
        assert [int(row[0]) for row in rows] == list(range(steps))


def test_every_checkpoint_has_its_picture(resumable):
    _, folder = resumable
    names = [path.name for path in sorted(folder.glob("*.png"))]
    expected = [f"dit-{step:06d}.png" for step in range(1, 6)]
    expected += [f"vae-{step:06d}.png" for step in range(1, 5)]
    assert names == expected
    for name in names:
        assert iio.imread(folder / name).ndim == 3


@pytest.fixture
def shown(monkeypatch):
    """(videos, captions) of every strip that train.py draws."""
    strips = []

    def draw(videos, captions):
        strips.append((videos, captions))
        return film_strip(videos, captions)

    monkeypatch.setattr(train, "film_strip", draw)
    return strips


def test_a_picture_of_the_vae_shows_three_clips_each_above_its_reconstruction(config, tmp_path, shown):
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    video = torch.rand(4, 3, 5, 8, 16) * 2 - 1
    train.picture_vae(trainer, (video, ["a"] * 4, None), tmp_path / "vae.png")

    decoded = trainer.vae.decode(trainer.vae.encode(video)[0])
    videos, captions = shown[0]
    assert np.array_equal(videos[0::2], to_uint8(video)[:3])
    assert np.array_equal(videos[1::2], to_uint8(decoded)[:3])
    assert captions[0::2] == ["clip"] * 3
    for i, caption in enumerate(captions[1::2]):
        decibels = 10 * torch.log10(4 / ((decoded[i] - video[i]) ** 2).mean()).item()
        assert caption == f"through the VAE, {decibels:.1f} dB"


def test_a_picture_of_the_transformer_shows_its_samples_under_their_captions(config, tmp_path, shown):
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    captions = ["a dog", "", "a", "dog", "a a", "dog dog", "a seventh"]
    train.picture_dit(trainer, (None, captions, None), tmp_path / "dit.png")
    videos, its_captions = shown[0]
    assert np.array_equal(videos, generate(trainer.model(), captions[:6]))
    assert its_captions == captions[:6]


def test_no_two_steps_of_two_seeds_draw_the_same(config):
    seeds = set()
    for seed in range(3):
        for step in range(5):
            train.seed_batch(replace(config, seed=seed), step)
            seeds.add(torch.initial_seed())
    assert len(seeds) == 15


def test_a_runs_first_weights_follow_from_its_seed(config):
    torch.manual_seed(99)
    first = train.Trainer(config, ["a"], "cpu")
    again = train.Trainer(config, ["a"], "cpu")
    other = train.Trainer(replace(config, seed=1), ["a"], "cpu")
    assert_same_weights(first.dit, again.dit)
    assert_same_weights(first.dit, first.ema)
    assert not torch.equal(first.vae.encoder[0].weight, other.vae.encoder[0].weight)


def test_a_run_begins_with_another_ones_weights(config, tmp_path, checkpoint):
    model = load_model(checkpoint)
    trainer = make_trainer(replace(config, vae_steps=0, dit_steps=0), tmp_path / "run")
    trainer.take_weights(model)
    train.train(trainer, tmp_path / "run")
    assert_same_weights(trainer.vae, model.vae)
    assert_same_weights(trainer.dit, model.dit)
    assert_same_weights(trainer.ema, model.dit)
    assert trainer.latent_scale == model.latent_scale != 1
    assert trainer.train_seconds == model.train_seconds > 0


@pytest.mark.parametrize("encoder", ["vocabulary", "/encoder"])
def test_a_run_for_other_words_begins_with_all_weights_but_theirs(config, checkpoint, encoder):
    model = load_model(checkpoint)
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    if encoder != "vocabulary":
        trainer.dit = DiT(config, feature_width=7)
        trainer.ema = DiT(config, feature_width=7)
    before = {name: tensor.clone() for name, tensor in trainer.dit.state_dict().items()}
    trainer.take_weights(model, new_words=True)
    theirs = model.dit.state_dict()
    for network in (trainer.dit, trainer.ema):
        for name, tensor in network.state_dict().items():
            expected = before if name.startswith("word_embedding") else theirs
            assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("vae_steps, is_measured", [(0, False), (1, True)])
def test_the_scale_of_a_vae_taken_over_is_measured_again_if_it_is_trained_on(
    config, tmp_path, checkpoint, vae_steps, is_measured
):
    trainer = make_trainer(replace(config, vae_steps=vae_steps, dit_steps=0), tmp_path / "run")
    trainer.take_weights(load_model(checkpoint))
    trainer.latent_scale = torch.tensor(7.0)
    train.train(trainer, tmp_path / "run")
    assert (trainer.latent_scale != 7) == is_measured


def test_an_untrained_vae_gets_its_scale_too(config, tmp_path):
    trainer = make_trainer(replace(config, vae_steps=0, dit_steps=0), tmp_path / "run")
    train.train(trainer, tmp_path / "run")
    assert trainer.latent_scale != 1


def test_the_scale_stays_once_the_transformer_has_begun(config, tmp_path):
    trainer = make_trainer(config, tmp_path / "run")
    trainer.steps = {"vae": 3, "dit": 3}
    trainer.latent_scale = torch.tensor(7.0)
    train.train(trainer, tmp_path / "run")
    assert trainer.latent_scale == 7


def test_the_scale_is_measured_on_four_batches(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    latents = []
    for k in range(4):
        for video, _, _ in datasets.WorldDataset(config)[k]:
            latents.append(trainer.vae.encode(to_float(video))[0].flatten())
    torch.testing.assert_close(train.measure_scale(trainer), 1 / torch.cat(latents).std())


def test_weights_of_another_size_cannot_be_taken_over(config, checkpoint):
    model = load_model(checkpoint)
    trainer = train.Trainer(replace(config, vae_width=12), model.vocab, "cpu")
    with pytest.raises(BadInput, match="^checkpoint .*: its weights do not fit this config .size mismatch"):
        trainer.take_weights(model)


def test_the_model_to_sample_with_has_all_that_the_trainer_knows(config):
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    trainer.latent_scale = torch.tensor(3.0)
    trainer.train_seconds = 12.5
    model = trainer.model()
    assert model.vae is trainer.vae
    assert model.dit is trainer.ema
    assert (model.config, model.vocab) == (config, ["a", "dog"])
    assert (model.latent_scale, model.train_seconds) == (3.0, 12.5)


def test_a_run_with_another_vocabulary_cannot_take_over_weights(config, checkpoint):
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    with pytest.raises(BadInput, match="a vocabulary of 18 words, and not the 2"):
        trainer.take_weights(load_model(checkpoint))


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


def test_given_frames_after_a_gap_have_the_samplers_latents_of_variance_1(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    trainer.latent_scale = torch.tensor(3.0)
    video = torch.rand(2, 3, 9, 8, 16) * 2 - 1
    given = torch.tensor([[False, True, False], [False, False, True]])
    latents, _ = trainer.vae.encode_known(video, latent_to_frame_mask(given))
    found = trainer.encode_given(video, given)
    torch.testing.assert_close(found[0, :, 1], 3 * latents[0, :, 1])
    torch.testing.assert_close(found[1, :, 2], 3 * latents[1, :, 2])


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


@pytest.fixture
def seen_by_loss(monkeypatch):
    """What dit_loss hands to diffusion_loss, whose loss is here each clip's number."""
    seen = {}

    def diffusion_loss(network, x_0, prompt_ids, t, eps, schedule, target, slow_flow):
        seen.update(network=network, x_0=x_0, prompt_ids=prompt_ids, t=t, eps=eps)
        seen.update(schedule=schedule, target=target, slow_flow=slow_flow)
        return torch.arange(sum(len(levels) for levels in t)).float()

    monkeypatch.setattr(train, "diffusion_loss", diffusion_loss)
    return seen


def groups_of_clips(*shapes, first=0):
    groups = []
    for B, T, H, W in shapes:
        video = torch.rand(B, 3, T, H, W) * 2 - 1
        groups.append((video, ["a dog"] * B, torch.full((B,), first)))
    return groups


def test_the_transformer_learns_from_scaled_latents_with_noise_of_their_shape(config, seen_by_loss):
    trainer = train.Trainer(replace(config, given_prob=0.0), ["a", "dog"], "cpu")
    trainer.latent_scale = torch.tensor(3.0)
    groups = groups_of_clips((2, 5, 8, 16), (3, 1, 16, 12))
    trainer.dit_loss(groups)
    assert seen_by_loss["network"] is trainer.dit
    for (video, _, _), x_0, eps in zip(groups, seen_by_loss["x_0"], seen_by_loss["eps"], strict=True):
        torch.testing.assert_close(x_0, 3 * trainer.vae.encode(video)[0])
        assert eps.shape == x_0.shape
    assert seen_by_loss["eps"][0].std().item() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("schedule, target", [("flow", "velocity"), ("linear", "eps"), ("cosine", "v")])
def test_the_transformer_learns_the_configs_target_on_its_schedule(config, seen_by_loss, schedule, target):
    trainer = train.Trainer(replace(config, schedule=schedule, target=target), ["a"], "cpu")
    trainer.dit_loss(groups_of_clips((2, 5, 8, 16)))
    assert seen_by_loss["schedule"].kind == schedule
    assert seen_by_loss["target"] == target


def test_the_loss_is_the_mean_over_clips_each_reported_at_its_highest_level(config, seen_by_loss):
    trainer = train.Trainer(replace(config, given_prob=1.0), ["a"], "cpu")
    loss, levels, losses = trainer.dit_loss(groups_of_clips((2, 9, 8, 16), (3, 5, 16, 12)))
    assert loss == 2
    assert torch.equal(losses, torch.arange(5.0))
    highest = [group.max(1).values for group in seen_by_loss["t"]]
    assert torch.equal(levels, torch.cat(highest))


def test_as_many_clips_have_given_frames_as_given_prob_says(config, seen_by_loss):
    torch.manual_seed(0)
    for given_prob, least, most in ((0.0, 0.0, 0.0), (1.0, 0.7, 1.0)):
        trainer = train.Trainer(replace(config, given_prob=given_prob), ["a"], "cpu")
        trainer.dit_loss(groups_of_clips((60, 9, 4, 8)))
        share = (seen_by_loss["t"][0] == 0).any(1).float().mean()
        assert least <= share <= most


def test_frames_that_the_data_gives_are_given(config, seen_by_loss):
    trainer = train.Trainer(replace(config, given_prob=0.0), ["a"], "cpu")
    trainer.dit_loss(groups_of_clips((3, 13, 8, 16), first=2))
    given = seen_by_loss["t"][0] == 0
    assert torch.equal(given, torch.tensor([[True, True, False, False]] * 3))


def test_given_frames_are_trained_as_the_sampler_will_know_them(config, seen_by_loss, monkeypatch):
    levels = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    monkeypatch.setattr(train, "draw_noise_levels", lambda *args: levels)
    trainer = train.Trainer(config, ["a"], "cpu")
    groups = groups_of_clips((2, 9, 8, 16))
    trainer.dit_loss(groups)
    expected = trainer.encode_given(groups[0][0], levels == 0)
    assert torch.equal(seen_by_loss["x_0"][0], expected)
    assert not torch.equal(expected, trainer.encode(groups[0][0]))


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_transformer_reads_the_prompts_that_were_not_emptied(config, seen_by_loss, dropout):
    config = replace(config, given_prob=0.0, prompt_dropout=dropout)
    trainer = train.Trainer(config, ["a", "dog"], "cpu")
    trainer.dit_loss(groups_of_clips((2, 5, 8, 16)))
    expected = torch.zeros(2, config.max_words, dtype=torch.long)
    if dropout == 0:
        expected[:, 0] = 1
        expected[:, 1] = 2
    assert torch.equal(seen_by_loss["prompt_ids"][0], expected)


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_the_vae_learns_its_own_loss_with_the_configs_weight(config, kl_weight):
    trainer = train.Trainer(replace(config, vae_kl=kl_weight), ["a"], "cpu")
    groups = groups_of_clips((2, 5, 8, 16))
    torch.manual_seed(0)
    expected, expected_error = vae_loss(trainer.vae, groups[0][0], kl_weight)
    torch.manual_seed(0)
    loss, error = trainer.vae_loss(groups)
    assert loss == expected
    assert error == expected_error
    assert not error.requires_grad


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_a_stages_batches_begin_at_its_next_step(config, stage):
    trainer = train.Trainer(replace(config, vae_batch=3, batches_per_step=2), ["a"], "cpu")
    trainer.steps[stage] = 4
    batches = train.draw_batches(trainer, stage)
    dataset = datasets.WorldDataset(trainer.config, stage)
    for k in (8, 9):
        for group, expected in zip(next(batches), dataset[k], strict=True):
            assert torch.equal(group[0], to_float(expected[0]))
            assert group[1] == expected[1]
            assert torch.equal(group[2], expected[2])


def test_the_average_takes_over_most_of_the_first_steps_and_then_a_small_share(config):
    trainer = train.Trainer(replace(config, ema_decay=0.7), ["a"], "cpu")
    for average, weights in zip(trainer.ema.parameters(), trainer.dit.parameters(), strict=True):
        average.zero_()
        weights.data.fill_(1.0)
    trainer.update_ema(step=0)
    for average in trainer.ema.parameters():
        torch.testing.assert_close(average, torch.full_like(average, 0.9))
    trainer.update_ema(step=1000)
    for average in trainer.ema.parameters():
        torch.testing.assert_close(average, torch.full_like(average, 0.9 + 0.3 * 0.1))


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
    progress.last_save_time = time.time()
    assert not progress.is_time_to_save()


class Clock:
    """Stands in for the time module; moves on when told to."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_the_minutes_to_the_next_checkpoint_begin_when_one_is_saved(config, tmp_path, monkeypatch, stage):
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    update = train.optimizer_step

    def slow_step(trainer, stage, loss):
        clock.now += 70
        update(trainer, stage, loss)

    monkeypatch.setattr(train, "optimizer_step", slow_step)
    trainer = make_trainer(replace(config, vae_steps=7, dit_steps=7, save_minutes=2.0), tmp_path / "run")
    {"vae": train.train_vae, "dit": train.train_dit}[stage](trainer, tmp_path / "run")
    saved = [path.name for path in sorted((tmp_path / "run").glob("*.png"))]
    assert saved == [f"{stage}-{step:06d}.png" for step in (2, 4, 6, 7)]


@pytest.mark.parametrize("per_step", [1, 2])
def test_each_report_is_of_the_clips_since_the_last_one(config, tmp_path, monkeypatch, per_step):
    reported = []
    monkeypatch.setattr(train, "loss_by_level", lambda levels, losses: reported.append(len(levels)))
    config = replace(config, dit_steps=2, batches_per_step=per_step, save_minutes=0.0)
    train.train_dit(make_trainer(config, tmp_path / "run"), tmp_path / "run")
    clips = [0, 0]
    for k in range(2 * per_step):
        for _, captions, _ in datasets.WorldDataset(config)[k]:
            clips[k // per_step] += len(captions)
    assert reported == clips


def test_the_time_of_both_stages_adds_up(config, tmp_path, monkeypatch):
    trainer = make_trainer(config, tmp_path / "run")
    trainer.train_seconds = 1000.0
    progress = train.Progress(trainer, "vae", tmp_path / "run")
    now = progress.begin_time
    monkeypatch.setattr(time, "time", lambda: now + 7)
    progress.finish_step(0.5, [[(None, ["a", "b"], None)]])
    progress.finish_step(0.25, [[(None, ["a"], None)]])
    assert trainer.train_seconds == pytest.approx(1007)
    assert trainer.steps == {"vae": 2, "dit": 0}
    assert read_curve(tmp_path / "run", "vae") == [["step", "loss"], ["0", "0.5"], ["1", "0.25"]]


def test_a_step_counts_once_and_the_clips_of_all_its_batches_add_up(config, tmp_path, monkeypatch):
    trainer = make_trainer(replace(config, batches_per_step=2), tmp_path / "run")
    progress = train.Progress(trainer, "vae", tmp_path / "run")
    now = progress.begin_time
    monkeypatch.setattr(time, "time", lambda: now + 2)
    for _ in range(2):
        progress.finish_step(0.5, [[(None, ["a", "b"], None)], [(None, ["c"], None)]])
    assert trainer.steps["vae"] == 2
    # 6 clips in 2 seconds
    assert progress.bar.postfix.endswith(" 3 clips/s")


def test_the_bar_is_shown_in_a_log_too_and_by_the_first_process_alone(config, tmp_path, monkeypatch):
    shown = []

    def progress_bar(steps, **options):
        shown.append("disable" not in options)

    monkeypatch.setattr(train, "progress_bar", progress_bar)
    trainer = make_trainer(config, tmp_path / "run")
    train.Progress(trainer, "vae", tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    train.Progress(trainer, "vae", tmp_path / "run")
    assert shown == [True, False]


def flags(config):
    """The words of a command line that make this config."""
    words = []
    for name, value in asdict(config).items():
        flag = name.replace("_", "-")
        if type(value) is bool:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", value]
    return words


def test_a_command_trains_scores_and_leaves_everything_in_its_folder(command, config, tmp_path):
    code, out, err = command(train, "--out", tmp_path / "run", "--device", "cpu", *flags(config))
    assert code == 0, err
    assert "reader's ceiling" in out
    assert "sample.gif shows" in out
    path = (tmp_path / "run/model.pt").as_posix()
    sample_command = f'python sample.py --checkpoint {path} --prompt "..."'
    assert out.endswith(f"use it with:\n  {sample_command}\n  python evaluate.py --checkpoint {path}\n")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.pt", "slim.pt", "sample.gif", "vae-loss.csv", "dit-loss.csv"} <= written
    assert torch.load(tmp_path / "run/slim.pt", weights_only=True).keys().isdisjoint({"dit", "optimizers"})


def test_a_model_of_the_rich_world_is_scored_by_its_abilities(command, config, tmp_path):
    rich = replace(config, scenes="move", max_words=32, dit_tokens=400, score_prompts=1)
    code, out, err = command(train, "--out", tmp_path / "run", "--device", "cpu", *flags(rich))
    assert code == 0, err
    assert re.search(r"^two_things_held_out .* of 1, ceiling", out, re.MULTILINE)
    assert out.endswith(" --world\n")


def test_a_model_of_images_of_the_rich_world_is_scored_by_what_they_show(command, config, tmp_path):
    knobs = {"scenes": "move hide", "max_words": 32, "dit_tokens": 400, "score_prompts": 1}
    images = replace(config, frames=1, lengths="1", image_prob=1.0, **knobs)
    code, out, err = command(train, "--out", tmp_path / "run", "--device", "cpu", *flags(images))
    assert code == 0, err
    assert re.search(r"^full: all facts ", out, re.MULTILINE)
    assert out.endswith(" --captions\n")


def parse(*words):
    return train.make_parser().parse_args([str(word) for word in words])


def test_a_runs_folder_is_named_after_it_unless_another_is_asked_for(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(config, name="mine")
    assert train.make_folder(parse(), config) == Path("out/mine")
    assert train.make_folder(parse("--out", "here/there"), config) == Path("here/there")
    assert train.make_folder(parse("--resume", "a/model.pt"), config) == Path("a")
    assert train.make_folder(parse("--resume", "a/model.pt", "--out", "b"), config) == Path("b")
    assert (tmp_path / "here/there").is_dir()


def test_a_new_run_keeps_the_last_ones_model(config, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"the last run's")
    train.make_folder(parse("--out", tmp_path), config)
    assert (tmp_path / "model.before.pt").read_bytes() == b"the last run's"
    assert not (tmp_path / "model.pt").exists()
    assert "model.before.pt" in capsys.readouterr().out


def test_new_runs_keep_the_models_of_all_before_them(config, tmp_path, capsys):
    for run in (b"first", b"second", b"third"):
        (tmp_path / "model.pt").write_bytes(run)
        train.make_folder(parse("--out", tmp_path), config)
        assert len(capsys.readouterr().out.splitlines()) == 1
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    expected = {"model.before.pt": b"first", "model.before-2.pt": b"second", "model.before-3.pt": b"third"}
    assert kept == expected


def test_a_run_resumed_in_another_runs_folder_keeps_that_ones_model(config, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"the other run's")
    (tmp_path / "resumed.pt").write_bytes(b"to resume from")
    train.make_folder(parse("--out", tmp_path, "--resume", tmp_path / "resumed.pt"), config)
    assert (tmp_path / "model.before.pt").read_bytes() == b"the other run's"


def test_a_resumed_run_goes_on_in_its_own_checkpoint(config, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"its own")
    train.make_folder(parse("--resume", tmp_path / "model.pt"), config)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_run_that_torchrun_starts_again_goes_on_from_what_it_has_saved_itself(tmp_path, monkeypatch):
    parser = train.make_parser()
    args = parser.parse_args(["--out", str(tmp_path), "--device", "cpu"])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    (tmp_path / "model.pt").touch()
    assert train.args_after_restart(parser, args) is args  # another run's
    train.distributed.mark(tmp_path)
    resumed = train.args_after_restart(parser, args)
    assert (resumed.resume, resumed.device) == (str(tmp_path / "model.pt"), "cpu")


def test_a_resumed_run_needs_batches_for_all_processes(whole_checkpoint, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(train.distributed, "wrap", lambda network, *_: network)
    with pytest.raises(BadInput, match="batches_per_step = 1: expected a multiple of 2"):
        train.resumed_trainer(parse("--resume", whole_checkpoint), "cpu")


def test_a_resumed_run_takes_no_knob_and_no_preset(checkpoint):
    with pytest.raises(BadInput, match="leave out --config --dit-lr$"):
        train.resumed_trainer(parse("--resume", checkpoint, "--config", "x.toml", "--dit-lr", 1), "cpu")


def test_the_flag_start_takes_over_weights(checkpoint, config):
    trainer = train.new_trainer(parse("--start", checkpoint, *flags(config)), "cpu")
    model = load_model(checkpoint)
    assert_same_weights(trainer.vae, model.vae)
    assert_same_weights(trainer.dit, model.dit)


def test_a_new_transformer_can_begin_with_the_vae_of_another_run(checkpoint, config):
    larger = replace(config, dit_depth=config.dit_depth + 1, vae_steps=0)
    trainer = train.new_trainer(parse("--start-vae", checkpoint, *flags(larger)), "cpu")
    model = load_model(checkpoint)
    assert_same_weights(trainer.vae, model.vae)
    assert trainer.latent_scale == model.latent_scale
    assert trainer.train_seconds == 0
    with pytest.raises(BadInput, match="^checkpoint .*: its weights do not fit"):
        train.new_trainer(parse("--start-vae", checkpoint, *flags(replace(larger, vae_width=12))), "cpu")


def test_captions_that_are_too_long_stop_a_run_before_it_begins():
    with pytest.raises(BadInput, match="has 6 words; this model reads up to 5"):
        train.new_trainer(parse("--max-words", 5), "cpu")


def test_the_sample_prompts_show_every_word_of_the_world_in_trained_combinations():
    wanted = []
    for prompt in train.SAMPLE_PROMPTS:
        _, colour, shape, _, direction, speed = prompt.split()
        wanted.append((shape, colour, direction, speed))
    assert len(wanted) == 6
    assert set(wanted) <= set(SEEN)
    vocabulary = (SIMPLE_SHAPES, SIMPLE_COLOURS, DIRECTIONS, SPEEDS)
    for words, in_prompts in zip(vocabulary, zip(*wanted, strict=True), strict=True):
        assert set(in_prompts) == set(words)


def test_the_samples_are_a_grid_of_the_worlds_prompts(model, tmp_path, capsys):
    train.write_samples(model, tmp_path)
    frames = iio.imread(tmp_path / "sample.gif", index=None)
    grid = film_grid(generate(model, train.SAMPLE_PROMPTS), train.SAMPLE_PROMPTS, zoom=10)
    assert frames.shape == grid.shape
    assert np.abs(frames.astype(int) - grid).mean() < 5
    assert capsys.readouterr().out.splitlines()[1:] == [f"  {prompt}" for prompt in train.SAMPLE_PROMPTS]


def test_the_samples_of_a_folder_are_of_its_captions(config, folder, tmp_path, capsys):
    dataset = datasets.make_dataset(replace(config, data=str(folder)))
    trainer = train.Trainer(dataset.config, dataset.vocab(), "cpu")
    train.write_samples(trainer.model(), tmp_path)
    assert capsys.readouterr().out.splitlines()[1:] == [f"  {text}" for text in dataset.captions.values()][:6]


def test_a_model_of_a_folder_is_not_to_be_evaluated(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "write_samples", lambda model, folder: None)
    train.finish(train.Trainer(replace(config, data="a folder"), ["a"], "cpu"), tmp_path)
    sample_command = f'python sample.py --checkpoint {(tmp_path / "model.pt").as_posix()} --prompt "..."'
    assert capsys.readouterr().out == f"the model is trained, use it with:\n  {sample_command}\n"


@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_only_products_are_made_in_the_configs_precision(precision, dtype, config, tmp_path):
    config = replace(config, precision=precision)
    trainer = make_trainer(config, tmp_path / "run")
    made = {}

    def note(name):
        def hook(layer, args, output):
            made[name] = output.dtype
        return hook

    trainer.vae.encoder[-1].register_forward_hook(note("vae"))
    trainer.dit.blocks[0].mlp_in.register_forward_hook(note("dit"))
    train.train(trainer, tmp_path / "run")
    assert made == {"vae": dtype, "dit": dtype}

    # Weights, optimizer states and latents have all digits.
    state = trainer.state()
    kept = [*state["vae"].values(), *state["dit"].values(), *state["ema"].values(), state["latent_scale"]]
    for pair in trainer.optimizers.values():
        for optimizer in pair:
            for tensors in optimizer.state.values():
                kept += tensors.values()
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}


def test_under_autocast_networks_return_float32(config):
    trainer = train.Trainer(config, ["a"], "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = trainer.vae.encode(torch.zeros(2, 3, 5, 8, 16))
        decoded = trainer.vae.decode(mean)
        prediction = trainer.dit([mean], [torch.rand(2, 2)], [torch.zeros(2, 8, dtype=torch.long)])[0]
    dtypes = {tensor.dtype for tensor in (mean, log_variance, decoded, prediction)}
    assert dtypes == {torch.float32}

"""Batches as latents: the run from them is the run from video, step by step."""
from config import BadInput

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import recaption
import train
from data import precompute
from data.datasets import make_dataset
from data.precompute import PrecomputedDataset, is_precomputed
from utils.checkpoint import load_model


@pytest.fixture(scope="module")
def made_before():
    """The folders of latents that were made before in this module, by their knobs."""
    return {}


@pytest.fixture
def latents(checkpoint, config, tmp_path, tmp_path_factory, made_before):
    """latents(**knobs) → the config of four batches, that of a run from a copy of them, and the model."""
    def make(**knobs):
        shapes = {"lengths": "5 9", "sizes": "8x16 16x8", "dit_tokens": 120}
        # Of the checkpoint only the VAE is used: the transformer to be trained may have another size.
        depth = config.dit_depth + 1
        made = replace(config, vae_steps=0, given_prob=0.8, dit_depth=depth, **shapes, **knobs)
        model = load_model(checkpoint)
        model.vocab = make_dataset(made).vocab()
        key = str(knobs)
        if key not in made_before:
            made_before[key] = tmp_path_factory.mktemp("latents")
            precompute.precompute(made, model, batches=4, out=made_before[key])
        out = tmp_path / "latents"
        shutil.copytree(made_before[key], out)
        return made, replace(made, data=str(out)), model
    return make


def prepared(config, model, number):
    """What the transformer would be trained on in a step."""
    trainer = train.Trainer(config, model.vocab, "cpu")
    trainer.take_weights(model, vae_only=True)
    groups = next(train.draw_batches(trainer, "dit", first=number))
    train.seed_batch(config, number)
    parts = trainer.prepare(groups)
    train.seed_batch(config, number)
    loss, _, _ = trainer.dit_loss(groups)
    return *parts, loss


@pytest.mark.parametrize("data", ["world", "folder"])
def test_a_step_from_latents_is_the_step_from_video(latents, folder, data):
    made, from_latents, model = latents(data="world" if data == "world" else str(folder))
    # Noise and dropout come later, so they may be others than the knobs that the latents were made with.
    made = replace(made, logit_mean=0.3, prompt_dropout=0.5)
    from_latents = replace(from_latents, logit_mean=0.3, prompt_dropout=0.5)
    given = 0
    for number in range(4):
        x_0, t, prompt_ids, loss = prepared(made, model, number)
        other_x_0, other_t, other_ids, other_loss = prepared(from_latents, model, number)
        for a, b in zip([*x_0, *t, *prompt_ids], [*other_x_0, *other_t, *other_ids], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        torch.testing.assert_close(loss, other_loss, atol=1e-5, rtol=0)
        given += sum((levels == 0).any(1).sum().item() for levels in t)
    assert given > 0


def test_after_the_last_batch_comes_the_first_with_other_levels_and_the_same_given_frames(latents):
    _, config, model = latents()
    x_0, t, _, _ = prepared(config, model, 2)
    again, other_t, _, _ = prepared(config, model, 6)
    for a, b, levels, other_levels in zip(x_0, again, t, other_t, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(levels == 0, other_levels == 0)
        assert not torch.equal(levels, other_levels)


def test_an_interrupted_call_goes_on(latents, monkeypatch):
    monkeypatch.setattr(precompute, "BATCHES_PER_SHARD", 2)
    made, config, model = latents(seed=1)  # in two shards
    with pytest.raises(BadInput, match="holds shards made of something else"):
        precompute.precompute(made, model, batches=8, out=precompute.Path(config.data))
    folder = precompute.Path(config.data)
    whole = (folder / "000001.tar").read_bytes()
    (folder / "000001.tar").unlink()
    with pytest.raises(BadInput, match="holds 2, expected 4 batches; make them again with the same command"):
        PrecomputedDataset(config)
    precompute.precompute(made, model, batches=4, out=folder)
    assert (folder / "000001.tar").read_bytes() == whole
    assert len(PrecomputedDataset(config)[3]) > 0


def test_a_later_shard_has_the_runs_own_batches(latents, monkeypatch):
    monkeypatch.setattr(precompute, "BATCHES_PER_SHARD", 2)
    made, config, model = latents(seed=1)  # in two shards
    x_0, t, _, _ = prepared(made, model, 3)
    other_x_0, other_t, _, _ = prepared(config, model, 3)
    for a, b in zip([*x_0, *t], [*other_x_0, *other_t], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_no_shard_appears_before_it_is_whole(latents, monkeypatch, tmp_path):
    def encode_until_killed(trainer, groups):
        raise KeyboardInterrupt

    made, _, model = latents()
    monkeypatch.setattr(precompute, "encode_batch", encode_until_killed)
    with pytest.raises(KeyboardInterrupt):
        precompute.precompute(made, model, 2, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob("*.tar"))


def test_other_knobs_of_the_batches_are_refused_and_those_of_the_network_are_not(latents):
    _, config, _ = latents()
    PrecomputedDataset(replace(config, dit_depth=5, dit_steps=77, lr=0.5))
    with pytest.raises(BadInput, match=re.escape(f"seed = 5: {config.data} was made with 0")):
        PrecomputedDataset(replace(config, seed=5))
    with pytest.raises(BadInput, match="latents, and no video to train a VAE with; add --vae-steps 0"):
        PrecomputedDataset(replace(config, vae_steps=1))


def test_another_vae_is_refused(latents, model):
    _, config, made_with = latents()
    dataset = PrecomputedDataset(config)
    dataset.check_vae(made_with)
    for other in (None, replace(made_with, checkpoint_hash="0123456789ab")):
        with pytest.raises(BadInput, match="latents of the VAE in .*; add --start"):
            dataset.check_vae(other)


def test_a_run_from_latents_is_trained_to_its_end(latents, tmp_path):
    _, config, model = latents()
    trainer = train.Trainer(config, model.vocab, "cpu")
    trainer.take_weights(model, vae_only=True)
    (tmp_path / "run").mkdir()
    train.train(trainer, tmp_path / "run")
    train.finish(trainer, tmp_path / "run")
    assert (tmp_path / "run/sample.gif").exists()


def test_a_folder_of_latents_says_what_it_was_made_of(latents):
    made, config, model = latents()
    assert is_precomputed(config.data)
    assert not is_precomputed("world")
    about = json.loads((precompute.Path(config.data) / "precomputed.json").read_text())
    assert about["config"]["dit_tokens"] == made.dit_tokens
    assert about["checkpoint_hash"] == model.checkpoint_hash


def test_every_knob_that_is_free_is_one():
    knobs = set(train.Config.__dataclass_fields__)
    assert set(precompute.FREE) <= knobs
    of_the_batches = knobs - set(precompute.FREE)
    assert {"seed", "dit_tokens", "text_encoder", "max_words", "given_prob", "sizes"} <= of_the_batches
    assert {"image_prob", "lengths", "fps", "captioner", "recaption_share", "vae_width"} <= of_the_batches


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_captioner_writes_its_share_of_the_captions(latents, monkeypatch, share):
    monkeypatch.setattr(recaption, "recaption", lambda captioner, latents, captions: ["new"] * len(captions))
    made, _, model = latents(recaption_share=share)
    trainer = train.Trainer(made, model.vocab, "cpu")
    video = torch.zeros(400, 3, 5, 8, 16)
    rng = np.random.default_rng(0)
    [(_, captions, _)] = precompute.recaption_batch(trainer, [(video, 400 * ["old"], None)], None, share, rng)
    assert captions.count("new") / 400 == pytest.approx(share, abs=0.08)
    assert set(captions) <= {"new", "old"}


def test_the_captioner_sees_latents(latents, monkeypatch):
    seen = []

    def write(captioner, latents, captions):
        seen.append(latents)
        return captions

    monkeypatch.setattr(recaption, "recaption", write)
    made, _, model = latents()
    trainer = train.Trainer(made, model.vocab, "cpu")
    video = torch.zeros(2, 3, 5, 8, 16)
    precompute.recaption_batch(trainer, [(video, ["a", "b"], None)], None, 1, np.random.default_rng(0))
    assert torch.equal(seen[0], trainer.encode(video))


def test_each_batch_has_new_captions_at_other_places(latents, monkeypatch, tmp_path):
    def write(captioner, latents, captions):
        return ["new"] * len(captions)

    monkeypatch.setattr(recaption, "recaption", write)
    made, _, model = latents(recaption_share=0.5)
    out = tmp_path / "recaptioned"
    precompute.precompute(made, model, 4, out, captioner="any")
    dataset = PrecomputedDataset(replace(made, data=str(out)))
    places = []
    for number in range(4):
        captions = [caption for _, captions, _ in dataset[number] for caption in captions]
        places.append([caption == "new" for caption in captions])
    # Batches differ in size; what tells them apart is where all of them have a caption.
    shared = min(len(is_new) for is_new in places)
    assert len({tuple(is_new[:shared]) for is_new in places}) > 1

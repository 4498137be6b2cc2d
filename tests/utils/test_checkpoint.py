"""Checkpoints: reading, saving, giving away."""
from config import BadInput

import hashlib
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from utils import checkpoint as checkpoint_io
from utils.checkpoint import (
    check_is_trained,
    describe_model,
    load_model,
    read_checkpoint,
    save_checkpoint,
    slim_checkpoint,
)

ROOT = Path(__file__).parents[2]


def networks_parameters(model):
    return [*model.vae.parameters(), *model.dit.parameters()]


def refusal(function, path):
    """The message with which a function refuses a checkpoint."""
    with pytest.raises(BadInput) as caught:
        function(path)
    return str(caught.value)


def test_a_model_holds_what_the_checkpoint_says(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    model = load_model(checkpoint)
    assert model.vocab == saved["vocab"]
    assert model.latent_scale == saved["latent_scale"]
    assert model.train_seconds == saved["train_seconds"] > 0
    assert vars(model.config) == saved["config"]


def test_a_model_samples_with_the_average_and_not_with_the_last_weights(whole_checkpoint):
    saved = torch.load(whole_checkpoint, weights_only=True)
    model = load_model(whole_checkpoint)
    differs = False
    for name, weights in model.dit.state_dict().items():
        assert torch.equal(weights, saved["ema"][name])
        differs |= not torch.equal(weights, saved["dit"][name])
    assert differs
    for name, weights in model.vae.state_dict().items():
        assert torch.equal(weights, saved["vae"][name])


def test_a_model_is_ready_to_sample(checkpoint):
    model = load_model(checkpoint)
    assert not model.vae.training
    assert not model.dit.training


def test_the_hash_is_the_beginning_of_the_files_sha256(checkpoint):
    digits = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    _, file_hash = read_checkpoint(checkpoint)
    assert file_hash == digits[:12]
    assert load_model(checkpoint).checkpoint_hash == digits[:12]


@pytest.mark.parametrize("key", ["config", "vocab", "latent_scale", "vae", "ema"])
def test_a_checkpoint_without_something_is_refused(checkpoint, tmp_path, key):
    saved = torch.load(checkpoint, weights_only=True)
    del saved[key]
    torch.save(saved, tmp_path / "part.pt")
    with pytest.raises(BadInput, match="part.pt: not one of train.py"):
        load_model(tmp_path / "part.pt")


def test_anything_but_a_dict_is_refused(tmp_path):
    torch.save(["config", "vocab"], tmp_path / "list.pt")
    assert "list.pt: not one of train.py" in refusal(read_checkpoint, tmp_path / "list.pt")


def test_what_sampling_needs_is_enough(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    least = {key: saved[key] for key in ("config", "vocab", "latent_scale", "vae", "ema")}
    torch.save(least, tmp_path / "least.pt")
    assert load_model(tmp_path / "least.pt").train_seconds == 0


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    message = refusal(read_checkpoint, tmp_path / "empty.pt")
    assert "empty.pt: cannot be read (" in message
    assert "cannot be read ()" not in message


@pytest.mark.parametrize(
    "content", [b"not a checkpoint\n", b"PK\x03\x04 half a zip", b"\x80\x02.", pickle.dumps({}, protocol=4)]
)
def test_a_file_of_another_kind_is_refused_in_one_short_line_without_a_warning(tmp_path, content):
    (tmp_path / "other.pt").write_bytes(content)
    with warnings.catch_warnings(record=True, action="always") as warned:
        message = refusal(read_checkpoint, tmp_path / "other.pt")
    assert warned == []
    assert "other.pt: cannot be read" in message
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 220


def test_a_file_that_is_not_there_is_refused_with_the_reason(tmp_path):
    assert "No such file" in refusal(read_checkpoint, tmp_path / "absent.pt")
    assert "Is a directory" in refusal(read_checkpoint, tmp_path)


def test_a_tensor_of_a_gpu_is_read_without_one(checkpoint, monkeypatch):
    load = torch.load
    places = []

    def watch(path, **options):
        places.append(options.get("map_location"))
        return load(path, **options)

    monkeypatch.setattr(torch, "load", watch)
    read_checkpoint(checkpoint)
    assert places == ["cpu"]


def test_a_knob_that_nobody_knows_is_refused_and_the_file_named(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["config"]["dit_widht"] = 32
    torch.save(saved, tmp_path / "typo.pt")
    assert "typo.pt: no knob is called 'dit_widht'" in refusal(load_model, tmp_path / "typo.pt")


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_strangers_checkpoint_runs_no_code(tmp_path):
    torch.save({"config": Attack(tmp_path / "owned")}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="evil.pt: cannot be read"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_size_are_refused(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["config"]["dit_width"] = 64
    torch.save(saved, tmp_path / "misfit.pt")
    message = refusal(load_model, tmp_path / "misfit.pt")
    assert "misfit.pt: its weights do not fit its config (" in message
    assert "size mismatch" in message
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 200


def test_a_model_goes_to_the_device_asked_for(checkpoint):
    model = load_model(checkpoint, "meta")
    assert {p.device.type for p in networks_parameters(model)} == {"meta"}
    assert model.latent_scale.device.type == "meta"


def test_a_run_killed_while_saving_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    save_checkpoint(path, {"step": 1})

    def write_half(state, file):
        Path(file).write_bytes(b"half a checkpo")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", write_half)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_saving_replaces_the_last_checkpoint_and_leaves_nothing_else(tmp_path):
    save_checkpoint(tmp_path / "model.pt", {"step": 1})
    save_checkpoint(tmp_path / "model.pt", {"step": 2})
    assert torch.load(tmp_path / "model.pt", weights_only=True) == {"step": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_checkpoint_to_give_away_is_the_same_in_half_precision(whole_checkpoint, tmp_path):
    save_checkpoint(tmp_path / "slim.pt", slim_checkpoint(torch.load(whole_checkpoint, weights_only=True)))
    whole = load_model(whole_checkpoint)
    half = load_model(tmp_path / "slim.pt")
    for a, b in zip(networks_parameters(whole), networks_parameters(half), strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a.half().float(), b)
    assert (half.config, half.vocab) == (whole.config, whole.vocab)
    assert (half.latent_scale, half.train_seconds) == (whole.latent_scale, whole.train_seconds)
    assert half.steps == whole.steps == {"vae": 3, "dit": 3}
    assert (tmp_path / "slim.pt").stat().st_size < whole_checkpoint.stat().st_size / 2


def test_a_checkpoint_to_give_away_holds_halves_of_the_sampled_networks_alone(checkpoint):
    slim = slim_checkpoint(torch.load(checkpoint, weights_only=True))
    assert set(slim) == {"config", "vocab", "latent_scale", "train_seconds", "steps", "vae", "ema"}
    for network in ("vae", "ema"):
        assert {weights.dtype for weights in slim[network].values()} == {torch.float16}


def test_a_saved_checkpoint_keeps_full_precision(whole_checkpoint):
    saved = torch.load(whole_checkpoint, weights_only=True)
    for network in ("vae", "dit", "ema"):
        assert {weights.dtype for weights in saved[network].values()} == {torch.float32}


# Which model it is, and how far it was trained


def trained_model(checkpoint, minutes, **steps):
    """The checkpoint's model, as if it had been trained so far, of 3 steps of each network."""
    model = load_model(checkpoint)
    model.checkpoint_path = "out/tiny/model.pt"
    model.train_seconds = 60 * minutes
    model.steps = steps
    return model


@pytest.mark.parametrize(
    "minutes, steps, expected",
    [
        (4.56, {"vae": 3, "dit": 3}, "trained for 4.6 minutes"),
        (138.7, {}, "trained for 139 minutes"),
        (0.26, {"vae": 3, "dit": 2}, "trained for 0.3 minutes; UNFINISHED: 2 of 3 steps of the transformer"),
        (0, {"vae": 2, "dit": 0}, "trained for 0.0 minutes; UNFINISHED: 2 of 3 steps of the VAE, none of the "
         "transformer"),
    ],
)
def test_a_model_says_how_far_it_was_trained(checkpoint, minutes, steps, expected):
    model = trained_model(checkpoint, minutes, **steps)
    assert describe_model(model) == f"out/tiny/model.pt, {expected}"


def test_the_shipped_model_is_named_as_one_would_type_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert describe_model(load_model(checkpoint_io.SHIPPED)).startswith("assets/small.pt, trained for ")
    monkeypatch.chdir(ROOT / "tests")
    assert load_model(checkpoint_io.SHIPPED).checkpoint_path == (ROOT / "assets/small.pt").as_posix()
    assert load_model("../assets/small.pt").checkpoint_path == "../assets/small.pt"


@pytest.mark.parametrize("steps", [{}, {"vae": 3, "dit": 1}, {"vae": 3, "dit": 3}])
def test_a_model_whose_transformer_has_begun_may_be_sampled(checkpoint, steps):
    check_is_trained(trained_model(checkpoint, 1, **steps))


def test_a_model_whose_run_was_to_train_no_transformer_may_be_sampled(checkpoint):
    model = trained_model(checkpoint, 1, vae=3, dit=0)
    model.config.dit_steps = 0
    check_is_trained(model)


def test_a_model_without_one_step_of_the_transformer_is_refused_with_the_way_on(checkpoint):
    with pytest.raises(BadInput) as caught:
        check_is_trained(trained_model(checkpoint, 1, vae=2, dit=0))
    assert str(caught.value) == (
        "checkpoint out/tiny/model.pt: not trained yet, 2 of 3 steps of the VAE, none of the transformer; "
        "go on with: python train.py --resume out/tiny/model.pt"
    )

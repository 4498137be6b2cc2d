"""A classifier gets its own weights, ready to judge, or one clear line says why not."""
from config import BadInput

import os

import pytest
import torch
import torch.nn as nn

from safety import detector, frames, prompts, weights
from safety.weights import load_classifier


@pytest.fixture
def weights_path(tmp_path, monkeypatch):
    path = tmp_path / "safety.pt"
    monkeypatch.setattr(weights, "WEIGHTS", path)
    return path


def test_a_classifier_gets_the_weights_of_its_name(weights_path):
    one = nn.Linear(2, 3)
    other = nn.Linear(2, 3)
    torch.save({"frames": one.state_dict(), "prompts": other.state_dict()}, weights_path)
    loaded = load_classifier(nn.Linear(2, 3), "prompts")
    assert torch.equal(loaded.weight, other.weight)
    assert torch.equal(loaded.bias, other.bias)


def test_a_classifier_is_ready_to_judge(weights_path):
    network = nn.Dropout(0.5)
    torch.save({"prompts": network.state_dict()}, weights_path)
    assert not load_classifier(network.train(), "prompts").training


@pytest.mark.parametrize("module", [prompts, frames, detector])
def test_every_classifier_is_read_once_and_ready_to_judge(module):
    assert not module.classifier().training
    assert module.classifier() is module.classifier()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no weights",
        b"PK\x03\x04",
        b"0",
        b"\x80\x02a.",
        b"\x80\x02X\x05",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        {"frames": {}},
        {"prompts": {"other": torch.zeros(1)}},
        [1, 2],
        3,
    ],
)
def test_weights_that_cannot_be_read_are_one_line(weights_path, content):
    if isinstance(content, bytes):
        weights_path.write_bytes(content)
    elif content is not None:
        torch.save(content, weights_path)
    with pytest.raises(BadInput) as caught:
        load_classifier(nn.Linear(2, 3), "prompts")
    message = str(caught.value)
    assert message.startswith(f"{weights_path}: cannot be read (")
    assert message.endswith("); `python -m safety.train` makes it")
    assert "()" not in message
    assert len(message.splitlines()) == 1


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(weights_path, tmp_path):
    network = nn.Linear(2, 3)
    torch.save({"prompts": network.state_dict(), "more": Trap(tmp_path / "sprung")}, weights_path)
    with pytest.raises(BadInput, match="cannot be read"):
        load_classifier(network, "prompts")
    assert not (tmp_path / "sprung").exists()


def test_a_long_reason_is_cut(weights_path, monkeypatch):
    def refuse(*rest, **more):
        raise RuntimeError("x" * 300 + "\nmore")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(BadInput) as caught:
        load_classifier(nn.Linear(2, 3), "prompts")
    assert f"({'x' * 100})" in str(caught.value)


@pytest.mark.parametrize("module", [prompts, frames, detector])
def test_no_classifier_judges_without_its_weights(weights_path, fresh_classifiers, module):
    with pytest.raises(BadInput, match="cannot be read"):
        module.classifier()

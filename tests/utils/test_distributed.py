"""Alone, a process notices nothing of utils/distributed.py; what several do is in tests/faults."""
from config import BadInput, Config

import contextlib
from types import SimpleNamespace

import pytest
import torch

from dit import DiT
from utils import distributed


@pytest.fixture
def dit():
    return DiT(Config(dit_width=32, dit_head_dim=16, dit_depth=1))


@pytest.fixture
def torchrun(monkeypatch):
    """torchrun(...) sets what torchrun would tell its processes."""
    def tell(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
    return tell


def test_alone_a_network_is_its_own_engine(dit):
    for parallel in ("ddp", "fsdp"):
        assert distributed.wrap(dit, parallel, dit.blocks) is dit


def test_alone_everything_is_whole_and_everybody_agrees():
    tensor = torch.randn(3, 2)
    assert distributed.whole(tensor) is tensor
    assert distributed.part_like(tensor, torch.zeros(3, 2)) is tensor
    assert distributed.whole_state({"a": [tensor, 3]}) == {"a": [tensor, 3]}
    assert distributed.mean(2.5) == 2.5
    assert list(distributed.any_of(True, False)) == [True, False]
    assert distributed.of_the_first("mine") == "mine"


def test_all_have_what_the_first_process_has(torchrun, monkeypatch):
    def broadcast(values):
        values[0] = "the first's"

    monkeypatch.setattr(distributed.dist, "broadcast_object_list", broadcast)
    torchrun(WORLD_SIZE=2, RANK=1)
    assert distributed.of_the_first("mine") == "the first's"


@pytest.mark.parametrize("now", [True, False])
def test_an_engine_waits_with_sharing_until_it_is_told_to(now):
    waited = []

    @contextlib.contextmanager
    def no_sync():
        waited.append(True)
        yield

    with distributed.sharing_gradients(SimpleNamespace(no_sync=no_sync), now):
        assert bool(waited) != now


def test_a_process_without_a_gpu_says_so(torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    torchrun(WORLD_SIZE=3, LOCAL_RANK=2)
    with pytest.raises(BadInput, match="process 3 of this machine finds no GPU: this machine has 2"):
        distributed.connect(torch.device("cuda"))


def test_weights_that_do_not_fit_are_load_state_dicts_to_refuse(dit):
    weights = dit.state_dict()
    distributed.load_weights(dit, weights)
    name = next(iter(weights))
    with pytest.raises(RuntimeError, match="size mismatch"):
        distributed.load_weights(dit, weights | {name: torch.zeros(1, 1)})
    del weights[name]
    with pytest.raises(RuntimeError, match="Missing key"):
        distributed.load_weights(dit, weights)


def test_batches_have_to_be_shared_out_evenly(torchrun):
    distributed.check_batches(3)
    torchrun(WORLD_SIZE=2)
    distributed.check_batches(4)
    with pytest.raises(BadInput, match="batches_per_step = 3: expected a multiple of 2, since 2 processes"):
        distributed.check_batches(3)


def test_a_folder_is_marked_by_the_run_that_writes_there(torchrun, tmp_path):
    distributed.mark(tmp_path)
    assert not list(tmp_path.iterdir())  # without torchrun there is nothing to tell apart
    torchrun(TORCHELASTIC_RUN_ID="one")
    assert not distributed.is_marked(tmp_path)
    distributed.mark(tmp_path)
    assert distributed.is_marked(tmp_path)
    torchrun(TORCHELASTIC_RUN_ID="another")
    assert not distributed.is_marked(tmp_path)


@pytest.mark.parametrize("variables, words", [
    ({}, ["python"]),
    ({"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4}, ["torchrun", "--standalone", "--nproc_per_node", "4"]),
    ({"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4}, ["torchrun", "..."]),
])
def test_the_words_that_started_as_many_processes(torchrun, variables, words):
    torchrun(**variables)
    assert distributed.launcher() == words


def test_only_the_first_process_speaks_at_once(torchrun, monkeypatch):
    slept = []
    monkeypatch.setattr(distributed.time, "sleep", slept.append)
    distributed.let_the_first_speak()
    assert not slept
    torchrun(RANK=1)
    distributed.let_the_first_speak()
    assert slept

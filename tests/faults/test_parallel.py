"""Several processes train as one: the same curves, the same checkpoints, however many they are.

    python -m pytest tests/faults        minutes: whole runs, started and killed as a user would

Processes on CPUs, connected by gloo, do what processes on GPUs do.
"""
import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TRAIN = ["train.py", "--config", "configs/smoke.toml", "--precision", "float32", "--device", "cpu"]
STEPS = ["--vae-steps", "50", "--dit-steps", "50"]


def launch(processes, *words, **options):
    """Starts train.py in so many processes → the Popen."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        python += options.pop("torchrun", [])
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "0"}
    return subprocess.Popen(
        [*python, *map(str, words)],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )


def train(processes, *words):
    """Runs train.py to its end → what it printed."""
    run = launch(processes, *words)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    return out


def curves(folder):
    """{"vae": [(step, loss), ...], "dit": ...}"""
    found = {}
    for stage in ("vae", "dit"):
        rows = list(csv.reader((folder / f"{stage}-loss.csv").read_text().splitlines()))[1:]
        found[stage] = [(int(step), float(loss)) for step, loss in rows]
    return found


def assert_same_curves(folder, other):
    for stage, rows in curves(folder).items():
        expected = curves(other)[stage]
        assert [step for step, _ in rows] == [step for step, _ in expected]
        for (_, loss), (_, expected_loss) in zip(rows, expected, strict=True):
            assert loss == pytest.approx(expected_loss, abs=1e-4)


def wait_for_step(run, folder, stage, step):
    """Returns when a run has come to a step of a stage."""
    while run.poll() is None:
        path = folder / f"{stage}-loss.csv"
        if path.exists() and len(path.read_text().splitlines()) > step:
            return
        time.sleep(0.02)
    raise AssertionError(run.stdout.read())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    train(1, *TRAIN, *STEPS, "--out", folder)
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_make_the_run_of_one(alone, tmp_path, parallel):
    out = train(2, *TRAIN, *STEPS, "--parallel", parallel, "--out", tmp_path / "two")
    assert_same_curves(tmp_path / "two", alone)
    assert out.count("sample.gif shows") == 1

    a = torch.load(alone / "model.pt", weights_only=True)
    b = torch.load(tmp_path / "two/model.pt", weights_only=True)
    for network in ("vae", "dit", "ema"):
        for name, weights in a[network].items():
            torch.testing.assert_close(b[network][name], weights, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path, parallel):
    folder = tmp_path / "run"
    stops = [("vae", 20, 2), ("dit", 15, 1), ("dit", 30, 2)]
    words = [*TRAIN, *STEPS, "--parallel", parallel, "--out", folder]
    for stage, step, processes in stops:
        run = launch(processes, *words)
        wait_for_step(run, folder, stage, step)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=100)
        assert "stopped after" in out, out
        words = ["train.py", "--resume", folder / "model.pt", "--device", "cpu"]
    train(1, *words)
    assert_same_curves(folder, alone)


def test_processes_that_cannot_share_a_steps_batches_are_told_so(tmp_path):
    run = launch(2, *TRAIN, "--batches-per-step", 3, "--out", tmp_path / "run")
    out, _ = run.communicate(timeout=100)
    assert run.returncode != 0
    assert "train.py: batches_per_step = 3: expected a multiple of 2" in out
    assert not (tmp_path / "run").exists()


def processes_of(run):
    """The training processes that torchrun has started."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [int(child) for child in children]


def kill_one(run, folder):
    """In the transformer's stage, one process of a run dies."""
    wait_for_step(run, folder, "dit", 10)
    os.kill(processes_of(run)[-1], signal.SIGKILL)


def test_a_process_that_dies_ends_the_run_and_the_reason_is_told(tmp_path):
    folder = tmp_path / "run"
    run = launch(2, *TRAIN, *STEPS, "--out", folder)
    kill_one(run, folder)
    out, _ = run.communicate(timeout=100)
    assert run.returncode != 0
    assert re.search(r"Signal 9 \(SIGKILL\)", out), out


def test_torchrun_goes_on_from_the_last_checkpoint(alone, tmp_path):
    folder = tmp_path / "run"
    words = [*TRAIN, *STEPS, "--save-minutes", 0, "--out", folder]
    run = launch(2, *words, torchrun=["--max-restarts", "1"])
    kill_one(run, folder)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    assert_same_curves(folder, alone)
    assert not (folder / "model.before.pt").exists()

"""What goes wrong in long runs: kills, full disks, broken files, a loss that is nan, old checkpoints."""
from config import Config

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import train
from data import datasets
from data.video_io import write_clip
from utils.checkpoint import load_model
from utils.cli import run

KILLS = 100
CONFIG = Config(
    name="faults", precision="float32", frames=5, height=8, width=16, vae_width=8, latent_channels=3,
    dit_width=32, dit_head_dim=16, dit_depth=2, vae_batch=2, dit_tokens=48, sample_steps=2, score_prompts=2,
    vae_steps=600, dit_steps=900, save_minutes=0.0,
)


def begin(config, folder):
    """A run from its beginning."""
    folder.mkdir(exist_ok=True)
    train.train(train.Trainer(config, datasets.make_dataset(config).vocab(), "cpu"), folder)


def go_on(folder):
    """A run from its last checkpoint, or from the beginning if it had come to none."""
    if not (folder / "model.pt").exists():
        return begin(CONFIG, folder)
    words = ["--resume", str(folder / "model.pt"), "--device", "cpu"]
    train.train(train.resumed_trainer(train.make_parser().parse_args(words), "cpu"), folder)


def in_a_process(work):
    """Starts a process that does the work; its exit code tells whether it came to the end."""
    process = os.fork()
    if process == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return process


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """A picture takes as long as a hundred steps and is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "picture_vae", lambda *args: None)
        patch.setattr(train, "picture_dit", lambda *args: None)
        yield


def test_a_run_that_is_killed_a_hundred_times_is_the_run_that_is_not(tmp_path):
    rng = random.Random(0)
    while_writing = 0
    for _ in range(KILLS):
        process = in_a_process(lambda: go_on(tmp_path / "killed"))
        time.sleep(rng.uniform(0.1, 1.5))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        while_writing += (tmp_path / "killed/model.pt.part").exists()

        # Whatever moment it was: there is a whole checkpoint, or none yet.
        if (tmp_path / "killed/model.pt").exists():
            load_model(tmp_path / "killed/model.pt")
    print(f"{KILLS} kills, {while_writing} of them while a checkpoint was written")
    assert while_writing > 0

    go_on(tmp_path / "killed")
    begin(CONFIG, tmp_path / "whole")
    for stage in ("vae", "dit"):
        curves = [(tmp_path / name / f"{stage}-loss.csv").read_text() for name in ("killed", "whole")]
        assert curves[0] == curves[1]
    a, b = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("killed", "whole")]
    for network in ("vae", "dit", "ema"):
        for name, weights in a[network].items():
            assert torch.equal(weights, b[network][name])


def test_a_full_disk_ends_the_run_in_one_line_and_the_last_checkpoint_stays(tmp_path, capfd):
    folder = tmp_path / "run"
    begin(replace(CONFIG, vae_steps=3, dit_steps=3), folder)
    saved = torch.load(folder / "model.pt", weights_only=True)
    saved["config"]["dit_steps"] = 6
    torch.save(saved, folder / "model.pt")
    before = (folder / "model.pt").read_bytes()

    # No file may grow beyond half a checkpoint, which is what a disk does that is nearly full.
    def write_a_checkpoint():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))
        sys.argv = ["train.py", "--resume", str(folder / "model.pt"), "--device", "cpu", "--out", str(folder)]
        try:
            run(train.main)
        except SystemExit as stop:
            os._exit(stop.code)

    capfd.readouterr()
    _, status = os.waitpid(in_a_process(write_a_checkpoint), 0)
    err = capfd.readouterr().err
    assert os.waitstatus_to_exitcode(status) == 2, err
    assert "cannot be written" in err
    assert "Traceback" not in err
    assert (folder / "model.pt").read_bytes() == before
    assert not list(folder.glob("*.part"))


def test_broken_clips_are_named_once_and_the_run_comes_to_its_end(tmp_path, capfd):
    rng = np.random.default_rng(0)
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(60):
        write_clip(clips / f"{i:02d}.mp4", rng.integers(0, 255, (12, 8, 16, 3), dtype=np.uint8), 12)
        (clips / f"{i:02d}.txt").write_text("noise")

    # One in twenty: cut off, overwritten, empty.
    whole = (clips / "07.mp4").read_bytes()
    (clips / "07.mp4").write_bytes(whole[: len(whole) // 2])
    (clips / "23.mp4").write_bytes(whole[:40] + bytes(len(whole) - 40))
    (clips / "41.mp4").write_bytes(b"")

    capfd.readouterr()
    begin(replace(CONFIG, data=str(clips), vae_steps=60, dit_steps=60, save_minutes=100.0), tmp_path / "run")
    warnings = capfd.readouterr().err.splitlines()
    skipped = [line for line in warnings if line.startswith("warning: ")]
    named = [line.removeprefix(f"warning: skipped {clips}/").split(":")[0] for line in skipped]
    assert sorted(named) == ["07.mp4", "23.mp4", "41.mp4"]
    assert torch.load(tmp_path / "run/model.pt", weights_only=True)["steps"] == {"vae": 60, "dit": 60}


def test_a_loss_that_is_no_number_ends_the_run_before_a_weight_moves(tmp_path, monkeypatch):
    draw = train.draw_batches

    def draw_with_nan(trainer, stage):
        for number, groups in enumerate(draw(trainer, stage)):
            if stage == "dit" and number == 5:
                groups[0][0][0, 0, 0, 0, 0] = float("nan")
            yield groups

    monkeypatch.setattr(train, "draw_batches", draw_with_nan)
    with pytest.raises(train.BadInput, match="dit step 5: the loss is nan"):
        begin(replace(CONFIG, vae_steps=3), tmp_path / "run")
    saved = torch.load(tmp_path / "run/model.pt", weights_only=True)
    assert saved["steps"] == {"vae": 3, "dit": 5}
    assert all(torch.isfinite(weights).all() for weights in saved["dit"].values())


def test_checkpoints_of_an_older_config_go_on_with_todays_defaults(tmp_path):
    folder = tmp_path / "run"
    begin(replace(CONFIG, vae_steps=3, dit_steps=6), folder)
    shutil.copytree(folder, tmp_path / "old")
    saved = torch.load(tmp_path / "old/model.pt", weights_only=True)
    saved["steps"] = {"vae": 3, "dit": 6}
    for knob in ("parallel", "batches_per_step", "recompute", "compile", "text_encoder"):
        del saved["config"][knob]
    torch.save(saved, tmp_path / "old/model.pt")
    assert load_model(tmp_path / "old/model.pt").config == load_model(folder / "model.pt").config
    go_on(tmp_path / "old")


def test_checkpoints_of_a_newer_config_are_refused_in_one_line(tmp_path):
    folder = tmp_path / "run"
    begin(replace(CONFIG, vae_steps=1, dit_steps=1), folder)
    saved = torch.load(folder / "model.pt", weights_only=True)
    saved["config"]["teleport"] = 3
    torch.save(saved, folder / "model.pt")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "--resume", str(folder / "model.pt"), "--device", "cpu"])
        with pytest.raises(SystemExit) as stop:
            run(train.main)
    assert stop.value.code == 2
    assert err.getvalue() == f"train.py: {folder / 'model.pt'}: no knob is called 'teleport'\n"

import os

import imageio.v3 as iio
import numpy as np
import pytest

import sample
from config import BadInput
from utils import checkpoint as checkpoint_io
from utils import cli

PROMPTS = ["a red circle moving left slowly", "a blue square moving up quickly", "a red triangle moving left slowly"]


def test_a_prompts_video_depends_on_its_seed_and_not_on_its_neighbours(model):
    videos = sample.generate(model, PROMPTS, seed=5)
    assert videos.shape == (3, 5, 8, 16, 3) and videos.dtype == np.uint8
    assert abs(sample.generate(model, PROMPTS[1:2], seed=6)[0].astype(int) - videos[1]).max() <= 1
    assert (sample.generate(model, PROMPTS[:1], seed=6)[0] != videos[0]).any()


def test_other_lengths_and_sizes(model):
    assert sample.generate(model, PROMPTS[:1], frames=13, height=24, width=8).shape == (1, 13, 24, 8, 3)
    assert sample.generate(model, PROMPTS[:1], frames=1).shape == (1, 1, 8, 16, 3)
    with pytest.raises(BadInput, match="nearest that can: 5 frames of 8x16"):
        sample.generate(model, PROMPTS[:1], frames=6)


def test_guidance_0_ignores_the_prompt_and_ddpm_differs_from_ddim(model):
    same = [sample.generate(model, [p], guidance=0) for p in PROMPTS[:2]]
    assert (same[0] == same[1]).all() and (same[0] != sample.generate(model, PROMPTS[:1], guidance=3)).any()
    assert (sample.generate(model, PROMPTS[:1], eta=1.0) != sample.generate(model, PROMPTS[:1], eta=0.0)).any()


def test_the_command(command, checkpoint, tmp_path):
    code, out, err = command(sample, "--prompt", *PROMPTS[:2], "--checkpoint", checkpoint, "--out", "a/b.mp4", "--size", "16x8", "--frames", 9)
    assert code == 0 and len(out.splitlines()) == 2, err
    assert iio.imread(tmp_path / "a/b-1.mp4", plugin="pyav").shape == (9, 64, 32, 3)
    with iio.imopen(tmp_path / "a/b-1.mp4", "r", plugin="pyav") as file:
        note = file.container_metadata["comment"]
    assert note == f"{PROMPTS[1]} | seed 1 | checkpoint {checkpoint_io.load_model(checkpoint).checkpoint_hash}"
    code, out, err = command(sample, "--prompt", "a read circle", "--checkpoint", checkpoint, "--out", "c.png")
    assert code == 0 and "did you mean red?" in err


def test_the_checkpoint_that_comes_with_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_io.newest_checkpoint() == str(checkpoint_io.SHIPPED) and checkpoint_io.SHIPPED.stat().st_size <= 12e6
    parser = cli.Flags("")
    cli.add_config_flags(parser)
    last_stage = (checkpoint_io.SHIPPED.parents[1] / "docs/training-small.md").read_text().split("--start out/small-2/model.pt ")[1].split("\n")[0].split()
    given = parser.parse_args(["--config", str(checkpoint_io.SHIPPED.parents[1] / "configs/small.toml"), *last_stage])
    assert checkpoint_io.load_model(checkpoint_io.newest_checkpoint()).config == cli.config_from_flags(given)
    for name in ("old", "new"):  # what was trained here comes first, the latest of it
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "model.pt").touch()
    os.utime(tmp_path / "out/old/model.pt", (0, 0))
    assert checkpoint_io.newest_checkpoint() == "out/new/model.pt"

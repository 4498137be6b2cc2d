"""Whatever is wrong with what we are given: one line that names it, exit code 2, nothing overwritten."""
import pickle
import shutil

import numpy as np
import pytest
import torch

import evaluate
import sample
import train
from data.video_io import write_clip

PROMPT = ("--prompt", "a red circle")

# (the words of a command line, a part of the line it is answered with). The files are those of `bad_files`.
TRAIN = [
    # Checkpoints that cannot be resumed or started from
    (["--resume", "missing.pt"], "checkpoint missing.pt: cannot be read"),
    (["--resume", "good.pt", "--lr", "1"], "--resume takes every knob from the checkpoint; leave out --lr"),
    (["--resume", "slim.pt"], "--resume slim.pt: holds no optimizer states"),
    (["--resume", "misfit.pt"], "--resume misfit.pt: does not fit its own config"),
    (["--start", "missing.pt"], "checkpoint missing.pt: cannot be read"),
    (["--start", "good.pt"], "checkpoint good.pt: its weights do not fit this config"),
    (["--start", "good.pt", "--resume", "good.pt"], "--resume good.pt --start good.pt: expected one of them"),
    (["--new-words"], "--new-words: expected --start FILE beside it"),
    (["--start", "good.pt", "--start-vae", "a.pt"], "--start good.pt --start-vae a.pt: expected one of them"),
    (["--resume", "good.pt", "--config", "typo.toml"], "leave out --config"),
    # Presets that cannot be read
    (["--config", "missing.toml"], "--config missing.toml: not a readable TOML file"),
    (["--config", "syntax.toml"], "--config syntax.toml: not a readable TOML file"),
    (["--config", "bytes"], "--config bytes: not a readable TOML file"),
    (["--config", "typo.toml"], "no knob is called 'frmaes' (did you mean frames?)"),
    (["--config", "type.toml"], "dit_lr = 'fast': expected float"),
    # Folders and names
    (["--name", "../elsewhere"], "name = '../elsewhere': expected letters"),
    (["--data", "nowhere"], "data = 'nowhere': expected 'world', a folder"),
    (["--data", "clips"], "clips/long.mp4: its caption has 9 words; max_words = 8"),
    (["--data", "broken"], "data = 'broken': not one clip.mp4"),
    (["--out", "a-file/run"], "--out a-file/run: cannot be made a folder"),
    (["--name", ".."], "name = '..'"),
    # Words that are no flags, and values that are no choices
    (["--dit-stepz", "3"], "did you mean --dit-steps?"),
    (["--schedule", "quadratic"], "choose from"),
    (["--device", "tpu"], "choose from"),
    (["surplus"], "unrecognized arguments: surplus"),
    # Sizes of clips
    (["--frames", "16"], "the nearest that can: 17 frames of 32x32"),
    (["--height", "30"], "17 frames of 32x32"),
    (["--lengths", "5 x"], "lengths = '5 x': 'x' does not fit in; expected for example '9 17'"),
    (["--lengths", "8"], "the nearest that can: 9 frames of 32x32"),
    (["--sizes", "32x32 32"], "sizes = '32x32 32': '32' does not fit in"),
    (["--sizes", "32x30"], "the nearest that can: 17 frames of 32x32"),
    (["--dit-tokens", "80"], "dit_tokens = 80: one clip of 17 frames of 32x32 has 88"),
    # Numbers
    (["--dit-steps", "many"], "invalid int value: 'many'"),
    (["--dit-steps=-1"], "dit_steps = -1: expected a number of 0 or more"),
    (["--dit-depth", "0"], "dit_depth = 0: expected a number above 0"),
    (["--dit-width", "100"], "dit_head_dim = 64: expected a multiple of 16 that divides dit_width = 100"),
    (["--lr", "nan"], "lr = nan"),
    (["--prompt-dropout", "1.5"], "prompt_dropout = 1.5: expected a share between 0 and 1"),
    (["--max-words", "5"], "has 6 words; this model reads up to 5"),
    (["--score-prompts", "0"], "score_prompts = 0: expected a number above 0"),
]

SAMPLE = [
    # Checkpoints
    ([*PROMPT, "--checkpoint", "missing.pt"], "checkpoint missing.pt: cannot be read"),
    ([*PROMPT, "--checkpoint", "truncated.pt"], "checkpoint truncated.pt: cannot be read"),
    ([*PROMPT, "--checkpoint", "empty.pt"], "checkpoint empty.pt: cannot be read"),
    ([*PROMPT, "--checkpoint", "bytes"], "checkpoint bytes: cannot be read"),
    ([*PROMPT, "--checkpoint", "code.pt"], "checkpoint code.pt: cannot be read"),
    ([*PROMPT, "--checkpoint", "foreign.pt"], "checkpoint foreign.pt: not one of train.py"),
    ([*PROMPT, "--checkpoint", "misfit.pt"], "checkpoint misfit.pt: its weights do not fit its config"),
    ([*PROMPT, "--checkpoint", "future.pt"], "future.pt: no knob is called 'warp'"),
    # Files to write
    ([*PROMPT, "--out", "clip.avi"], "--out clip.avi: expected a file that ends in .mp4, .gif, .webp, .png"),
    ([*PROMPT, "--out", "folder.gif"], "--out folder.gif: is a folder"),
    ([*PROMPT, "--out", "a-file/x.gif"], "--out a-file/x.gif: cannot be written"),
    # Given frames: --extend
    (["--video", "bytes", "--extend", "forward", "1"], "bytes: not a picture or clip that can be read"),
    (
        ["--video", "clip.mp4", "--extend", "forward", "1", "--fill", "1-4"],
        "--video FILE comes with --extend or with --fill",
    ),
    (["--video", "clip.mp4", "--extend", "sideways", "1"], "--extend sideways: expected forward or backward"),
    (["--video", "clip.mp4", "--extend", "forward", "soon"], "--extend soon: expected seconds"),
    (["--video", "clip.mp4", "--extend", "forward", "inf"], "--extend inf: expected seconds"),
    (
        ["--video", "three.mp4", "--extend", "backward", "1"],
        "3 frames: to extend it backward a clip needs at least the 4",
    ),
    # Given frames: --fill
    (["--video", "clip.mp4", "--fill", "5"], "--fill 5: expected FIRST-LAST"),
    (["--video", "clip.mp4", "--fill", "8-12"], "frames 8 to 12 of a clip of 9: 8 frames would be invented"),
    (
        ["--video", "clip.mp4", "--fill", "0-3"],
        "frames 0 to 3: expected a gap with at least a frame before it",
    ),
    (
        ["--video", "clip.mp4", "--fill", "1-4"],
        "frames 1 to 4 are 4; this model invents up to 0 between others",
    ),
    (
        ["--video", "clip.mp4", "--fill", "1-4", "--then", "red"],
        "--then red: expected with a prompt alone, --image or --extend",
    ),
    # Given frames: --connect
    (["--connect", "clip.mp4", "clip.mp4", "0"], "--connect 0: expected seconds"),
    (
        ["--connect", "clip.mp4", "three.mp4", "0.3"],
        "a clip of 3 frames: to be connected to, it needs at least the 4",
    ),
    # A video to change: --edit
    (["--image", "a.png", "--edit", "clip.mp4"], "--image --edit: expected one of them"),
    (["--edit", "clip.mp4"], "--edit clip.mp4: expected a --prompt"),
    (
        ["--edit", "clip.mp4", "--prompt", "a red circle", "--strength", "1.5"],
        "--strength 1.5: expected a number above 0, up to 1",
    ),
    ([*PROMPT, "--strength", "0.5"], "--strength 0.5: expected a number above 0, up to 1, and --edit FILE"),
    (
        ["--edit", "clip.mp4", "--prompt", "a red circle", "--frames", "5"],
        "not with --edit, which knows its length",
    ),
    (["--edit", "clip.mp4", *PROMPT], "--edit clip.mp4: 9 frames; this model edits up to 5"),
    # Videos and pictures to read
    (["--image", "a-file"], "a-file: not a picture or clip that can be read"),
    (["--video", "clip.mp4"], "--video FILE comes with --extend or with --fill"),
    (["--image", "a.png", "--size", "9x9"], "the nearest that can: 5 frames of 8x8"),
    # Prompts
    (["--prompt", "a b c d e f g h i"], "has 9 words; this model reads up to 8"),
    (["--prompt", "@missing.txt"], "missing.txt"),
    (["--prompt", "@bytes"], "bytes: expected a text file, a prompt a line"),
    # Sizes and lengths
    ([*PROMPT, "--size", "32"], "--size 32: expected HEIGHTxWIDTH"),
    ([*PROMPT, "--size", "30x40"], "the nearest that can: 5 frames of 32x40"),
    ([*PROMPT, "--frames", "6"], "the nearest that can: 5 frames of 8x16"),
    ([*PROMPT, "--frames", "5", "--seconds", "1"], "--frames 5 --seconds 1.0: expected one of them"),
    ([*PROMPT, "--seconds", "nan"], "--seconds nan: expected seconds"),
    # Numbers and choices
    ([*PROMPT, "--steps", "0"], "--steps 0: expected 1 or more"),
    ([*PROMPT, "--guidance=-1"], "--guidance -1.0: expected 0 or more"),
    ([*PROMPT, "--guidance", "nan"], "--guidance nan: expected 0 or more"),
    ([*PROMPT, "--zoom", "0"], "--zoom 0: expected 1 or more"),
    ([*PROMPT, "--seed=-1"], "--seed -1: expected 0 or more"),
    ([*PROMPT, "--sampler", "euler"], "choose from"),
]

EVALUATE = [
    (["--prompts", "0"], "--prompts 0: expected 1 or more"),
    (["--checkpoint", "real.pt"], "real.pt: trained on 'clips'"),
    (["--checkpoint", "truncated.pt"], "checkpoint truncated.pt: cannot be read"),
]

CASES = [
    *((train, words, answer) for words, answer in TRAIN),
    *((sample, words, answer) for words, answer in SAMPLE),
    *((evaluate, words, answer) for words, answer in EVALUATE),
]


class Code:
    """Unpickled without care, it would run open("pwned", "w")."""

    def __reduce__(self):
        return open, ("pwned", "w")


@pytest.fixture(scope="module")
def all_bad_files(tmp_path_factory, checkpoint, whole_checkpoint):
    """A folder of everything that can be wrong, of one good checkpoint, and of good clips."""
    folder = tmp_path_factory.mktemp("bad")
    write_checkpoints(folder, checkpoint, whole_checkpoint)
    write_presets(folder)
    write_datasets(folder)

    (folder / "a-file").write_text("kept")
    (folder / "bytes").write_bytes(np.random.default_rng(0).bytes(999))
    (folder / "folder.gif").mkdir()
    for frames, name in ((9, "clip.mp4"), (3, "three.mp4"), (1, "a.png")):
        write_clip(folder / name, np.zeros((frames, 8, 16, 3), np.uint8), 12.0)
    return folder


@pytest.fixture
def bad_files(tmp_path, all_bad_files):
    """A copy of them for one test, which may not change it."""
    shutil.copytree(all_bad_files, tmp_path, dirs_exist_ok=True)
    return tmp_path


def write_checkpoints(folder, checkpoint, whole_checkpoint):
    """A good checkpoint, and one of each way in which a checkpoint can be bad."""
    content = checkpoint.read_bytes()
    (folder / "good.pt").write_bytes(content)
    (folder / "truncated.pt").write_bytes(content[: len(content) // 2])
    (folder / "empty.pt").touch()
    (folder / "code.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")

    state = torch.load(checkpoint, weights_only=True)
    slim = {key: value for key, value in state.items() if key != "optimizers"}
    torch.save(slim, folder / "slim.pt")

    for name, knobs in (("future", {"warp": 1}), ("real", {"data": "clips"})):
        changed = state | {"config": state["config"] | knobs}
        torch.save(changed, folder / f"{name}.pt")

    # This one is resumed too, so it has optimizers.
    whole = torch.load(whole_checkpoint, weights_only=True)
    torch.save(whole | {"config": whole["config"] | {"dit_depth": 3}}, folder / "misfit.pt")


def write_presets(folder):
    (folder / "syntax.toml").write_text("frames = = 3")
    (folder / "typo.toml").write_text("frmaes = 17")
    (folder / "type.toml").write_text('dit_lr = "fast"')


def write_datasets(folder):
    """A clip whose caption is too long, and one that is no video."""
    for name in ("clips", "broken"):
        (folder / name).mkdir()
    (folder / "clips/long.mp4").write_bytes(b"")
    (folder / "clips/long.txt").write_text("one two three four five six seven eight nine")
    (folder / "broken/x.mp4").write_bytes(b"")
    (folder / "broken/x.txt").write_text("x")


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("module, words, answer", CASES)
def test_bad_input_is_answered_in_one_line(command, bad_files, module, words, answer):
    before = modification_times(bad_files)
    if module is not train and "--checkpoint" not in words:
        words = [*words, "--checkpoint", "good.pt"]

    code, out, err = command(module, *words)
    *warnings, last = err.strip().splitlines()

    # One line, behind warnings at most, and the exit code of wrong input.
    assert code == 2
    assert last.startswith(f"{module.__name__}.py: ")
    assert answer in last
    assert all(line.startswith("warning: ") for line in warnings)

    # Nothing that was there is touched, and no code of a checkpoint has run.
    after = modification_times(bad_files)
    assert before.items() <= after.items()
    assert not (bad_files / "pwned").exists()

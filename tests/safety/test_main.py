"""`python -m safety`: what its three questions print, and what they refuse."""
import json

import numpy as np
import pytest

from data.video_io import write_clip
from safety import __main__ as safety_main
from safety import provenance
from world.scenes import draw_scene, render


@pytest.fixture
def clip_path(tmp_path):
    path = tmp_path / "clip.gif"
    write_clip(path, render(draw_scene(np.random.default_rng(0)), 9), 12.0, 4)
    return path


def test_each_prompt_has_a_line_with_its_verdict(command, ask, forbidden):
    code, out, _ = command(safety_main, "prompt", forbidden, ask)
    bad, good = out.splitlines()
    assert code == 0
    assert bad.startswith(f"{forbidden!r}: extreme violence (")
    assert bad.endswith(f"% sure, for {forbidden!r})")
    assert good.startswith(f"{ask!r}: allowed (")
    assert good.endswith("% sure)")


@pytest.mark.parametrize("words", [(), ("prompt",)])
def test_without_a_prompt_it_judges_examples(command, words):
    _, out, _ = command(safety_main, *words)
    assert len(out.splitlines()) == len(safety_main.EXAMPLES)
    assert "sings': celebrity likeness (" in out
    assert "a red cross moving left': allowed (" in out


def test_detect_prints_a_probability_for_all_frames(command, clip_path, monkeypatch):
    seen = []

    def made_by_us(detector, frames):
        seen.append(len(frames))
        return 0.123

    monkeypatch.setattr(safety_main, "made_by_us", made_by_us)
    code, out, _ = command(safety_main, "detect", clip_path)
    assert code == 0
    assert out == f"{clip_path}: made by our model with probability 12.3%\n"
    assert seen == [9]


def test_the_worlds_clip_is_not_our_models(command, clip_path):
    _, out, _ = command(safety_main, "detect", clip_path)
    assert float(out.split()[-1].rstrip("%")) < 50


@pytest.fixture
def signed_path(clip_path, tmp_path):
    pytest.importorskip("c2pa")
    provenance.sign(clip_path, provenance.signer(tmp_path / "keys"), "0123abcd", "a prompt")
    return clip_path


def test_an_unsigned_file_says_nothing_of_itself(command, clip_path):
    pytest.importorskip("c2pa")
    code, out, _ = command(safety_main, "verify", clip_path)
    assert code == 1
    assert out.startswith(f"{clip_path}: missing: no C2PA metadata")
    assert len(out.splitlines()) == 1


def test_a_signed_file_says_who_made_it_and_from_what(command, signed_path):
    code, out, _ = command(safety_main, "verify", signed_path)
    line, said = out.split("\n", 1)
    assert code == 0
    unchanged = "valid: not changed since it was signed by Sora, small, development signer"
    assert line.startswith(f"{signed_path}: {unchanged}")
    assert json.loads(said)["parameters"]["prompt"] == "a prompt"


def test_what_a_changed_file_says_is_not_repeated(command, signed_path):
    data = bytearray(signed_path.read_bytes())
    data[-40] ^= 1
    signed_path.write_bytes(data)
    code, out, _ = command(safety_main, "verify", signed_path)
    assert code == 1
    assert out.startswith(f"{signed_path}: changed: not what was signed by Sora, small, development signer")
    assert len(out.splitlines()) == 1


def test_a_trusted_file_says_what_it_is(command, monkeypatch):
    monkeypatch.setattr(safety_main, "verify", lambda path: ("trusted", "A, B", {"action": "c2pa.created"}))
    code, out, _ = command(safety_main, "verify", "x.gif")
    assert code == 0
    assert out.startswith("x.gif: trusted: not changed since it was signed by A, B\n")
    assert '"action": "c2pa.created"' in out


@pytest.mark.parametrize("what", ["detect", "verify"])
@pytest.mark.parametrize("name", ["broken.mp4", "nowhere.mp4"])
def test_a_file_that_cannot_be_read_is_one_line_and_code_2(command, tmp_path, what, name):
    if what == "verify":
        pytest.importorskip("c2pa")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    code, _, err = command(safety_main, what, name)
    assert code == 2
    assert name in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("files", [(), ("a.gif", "b.gif")])
@pytest.mark.parametrize("what", ["detect", "verify"])
def test_detect_and_verify_take_one_file(command, what, files):
    code, _, err = command(safety_main, what, *files)
    assert code == 2
    assert "expected one file" in err

import inspect

import numpy as np
import pytest
import torch

from data import video_io
from safety import detector, frames, minilm, prompts, provenance, weights
from safety import train as safety_train
from utils import checkpoint as checkpoint_io
from world import scenes


def test_labels_are_varied_and_folds_hold_whole_templates():
    rows = safety_train.labelled()
    assert len(rows) >= 1500 and {label for label, *_ in rows} == set(prompts.POLICIES) and len({p for *_, p in rows}) == len(rows) and len({t for _, t, _ in rows}) > 200


def test_the_emblem_is_seen_anywhere_and_nothing_else_is_taken_for_it():
    rng, classifier = np.random.default_rng(5), frames.classifier()
    with torch.no_grad():
        seen = {emblem: torch.cat([classifier(safety_train.frames_with(rng, emblem, 25)) for _ in range(12)]) > 0 for emblem in (True, False)}
    assert seen[True].float().mean() >= 0.98 and seen[False].float().mean() <= 0.02


def test_an_emblem_is_in_view_or_there_is_none():
    for emblem in (True, False):
        seen = []
        real, drawn = scenes.coverage, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(safety_train, "coverage", lambda shape, *rest: drawn.append(shape) or real(shape, *rest))
            for i in range(20):
                frame = safety_train.frame_with(np.random.default_rng(i), emblem, 24, 40)
                seen.append("emblem" in drawn)
                drawn.clear()
                assert frame.shape == (24, 40, 3) and frame.dtype == np.uint8
        assert set(seen) == {emblem}


@pytest.mark.parametrize("ending", video_io.ENDINGS)
def test_what_is_passed_on_is_resized_and_cut_alike_in_every_format(tmp_path, ending):
    video = scenes.render(scenes.draw_scene(np.random.default_rng(0)), 5)
    once, again = (safety_train.passed_on(video, tmp_path, ending, 0.75, 0.1, again) for again in (False, True))
    assert once.shape[1] == (128 if ending != ".png" else 130) and len(once) == len(again) == (5 if ending != ".png" else 1)
    for before, after in zip(once.shape[1:3], again.shape[1:3]):
        assert after == pytest.approx(0.75 * 0.9 * before, abs=4)


def test_f1_by_hand():
    each, together = safety_train.f1(["ip", "ip", "hate", "allowed"], ["ip", "hate", "hate", "ip"])
    assert each["ip"] == pytest.approx(1 / 2) and each["hate"] == pytest.approx(2 / 3) and each["sexual"] == 0 and together == pytest.approx(4 / 7)


def test_the_command_trains_and_scores(command, tmp_path, monkeypatch):
    """Everything so small that nothing is learned: that it runs, and that what it writes can be read."""
    rows = [(label, i, f"{word} {other}") for i, other in enumerate(("here", "there", "now", "then", "again", "never")) for label, word in zip(prompts.POLICIES, ("a house", "blood", "nude", "nazi", "Batman", "Pikachu"))]
    two = [scenes.render(scenes.draw_scene(np.random.default_rng(i)), 5, 16, 16) for i in range(2)]
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "safety.pt")
    monkeypatch.setattr(safety_train, "labelled", lambda: rows)
    monkeypatch.setattr(safety_train, "samples", lambda model, n, seed, ours=True: two)
    monkeypatch.setattr(minilm, "load_minilm", lambda: True)
    monkeypatch.setattr(minilm, "sentence_vectors", lambda texts: torch.zeros(len(texts), 384))
    for name, defaults in (("learn_prompts", (2,)), ("learn_frames", (2, 4)), ("learn_detector", (1, 2)), ("score_prompts", (2,)), ("score_frames", (50,)), ("score_signatures", (1,))):
        monkeypatch.setattr(inspect.unwrap(getattr(safety_train, name)), "__defaults__", defaults)
    for module in (detector, frames, prompts):
        module.classifier.cache_clear()
    code, out, err = command(safety_train, "--checkpoint", checkpoint_io.SHIPPED)
    assert code == 0 and "safety.pt: " in out and detector.classifier() and frames.classifier() and prompts.classifier(), err
    monkeypatch.setattr(provenance, "sign", lambda *rest: None)  # the extras may be missing; test_safety.py has the signatures
    monkeypatch.setattr(provenance, "signer", lambda *rest: None)
    monkeypatch.setattr(provenance, "verify", lambda *rest: ("missing",))
    code, out, err = command(safety_train, "--checkpoint", checkpoint_io.SHIPPED, "--score", "--other", checkpoint_io.SHIPPED)
    assert code == 0 and out.count("AUC") == 16 and out.count("F1") == 14 and "recall" in out and out.count("saved again: 1 missing") == 4, err
    for module in (detector, frames, prompts):
        module.classifier.cache_clear()

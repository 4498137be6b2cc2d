"""The modes as functions: what is given stays, all of it is used, and long videos are made in windows.

Most tests put something simple in the place of the network, so that each frame tells where it comes from."""
from config import BadInput, latent_length

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import diffusion
import sample
from data.video_io import to_float, to_uint8
from text import encode_prompts

PROMPTS = [
    "a red circle moving left slowly",
    "a blue square moving up quickly",
    "a red triangle moving left slowly",
]


def make_clip(T, H=8, W=16):
    """Two clips (2, T, H, W, 3) in which no two frames are alike: their greys are 1, 2 ... and 51, 52 ..."""
    greys = np.stack([np.arange(1, T + 1), np.arange(51, T + 51)]).astype(np.uint8)
    return greys[:, :, None, None, None] + np.zeros((1, 1, H, W, 3), np.uint8)


def draw(known):
    """[True, False, False] → "#..", for tests that one can see."""
    return "".join("#" if frame else "." for frame in known)


@dataclass
class Window:
    """One call of `complete`, and what it returned."""

    prompts: list
    video: np.ndarray
    known: np.ndarray
    strength: float | None
    seed: int
    progress: bool
    sampling: dict
    completed: np.ndarray


@pytest.fixture
def windows(monkeypatch):
    """`complete` without a network → the list of its calls.

    What is known comes back; invented frames get the greys 101, 102 ... 250, 101 ..., through all windows."""
    calls = []
    invented = 0

    def complete(model, prompts, video, known, strength=None, seed=0, progress=False, **sampling):
        nonlocal invented
        completed = video.copy()
        for frame in np.flatnonzero(~known):
            completed[:, frame] = 101 + invented % 150
            invented += 1
        calls.append(Window(prompts, video, known, strength, seed, progress, sampling, completed))
        return completed

    monkeypatch.setattr(sample, "complete", complete)
    return calls


@pytest.fixture
def sampler(monkeypatch):
    """A sampler that returns its first noise → the list of its calls, each a dict of arguments by name."""
    calls = []
    signature = inspect.signature(diffusion.sample_latents)

    def sample_latents(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs).arguments
        arguments["noise"] = [arguments["noise"](), arguments["noise"]()]
        calls.append(arguments)
        return arguments["noise"][0]

    monkeypatch.setattr(diffusion, "sample_latents", sample_latents)
    return calls


# --- complete: one sequence -------------------------------------------------------------------------------


def test_known_frames_come_back_as_they_were_and_the_others_do_not(model):
    video = make_clip(9)
    completed = sample.complete(model, ["", ""], video, np.arange(9) < 5)
    assert completed.dtype == np.uint8
    assert (completed[:, :5] == video[:, :5]).all()
    assert (completed[:, 5:] != video[:, 5:]).any()


def test_what_is_invented_depends_on_what_is_known(model):
    video = make_clip(9)
    known = np.arange(9) < 5
    completed = sample.complete(model, ["", ""], video, known)
    inverted = sample.complete(model, ["", ""], 255 - video, known)
    assert (completed[:, 5:] != inverted[:, 5:]).any()


def test_what_stands_in_unknown_frames_plays_no_part(model):
    video = make_clip(9)
    known = np.arange(9) < 5
    overwritten = video.copy()
    overwritten[:, 5:] = 77
    completed = sample.complete(model, ["", ""], video, known)
    assert (sample.complete(model, ["", ""], overwritten, known) == completed).all()


def test_a_latent_frame_of_which_one_frame_is_unknown_is_invented(model):
    video = make_clip(9)
    known = np.array([True] + [True] * 3 + [False] + [True] * 4)
    completed = sample.complete(model, ["", ""], video, known)
    kept = (completed == video).all(axis=(0, 2, 3, 4))
    assert draw(kept) == "#....####"


def test_given_frames_are_at_the_scale_that_the_network_was_trained_on(model, sampler):
    video = make_clip(5)
    sample.complete(model, ["", ""], video, np.arange(5) < 1)
    latents, given = sampler[0]["kept"]
    first_frames = model.vae.encode(to_float(video[:, :1]))[0] * model.latent_scale
    torch.testing.assert_close(latents[:, :, :1], first_frames)
    assert given.tolist() == [[True, False]] * 2


def test_what_is_decoded_of_a_given_frame_is_the_vaes_own_picture_of_it(model, monkeypatch):
    def keep_nothing(given):
        return torch.zeros(2, 5, dtype=torch.bool)

    monkeypatch.setattr(sample, "latent_to_frame_mask", keep_nothing)
    still = make_clip(1)
    decoded = sample.complete(model, ["", ""], still.repeat(5, 1), np.arange(5) < 1)

    picture = to_uint8(model.vae.decode(model.vae.encode(to_float(still))[0]))
    assert abs(decoded[:, :1].astype(int) - picture).max() <= 1


def test_everything_the_sampler_is_told_is_passed_on(model, sampler):
    nothing = np.zeros((2, 5, 8, 16, 3), np.uint8)
    sample.complete(
        model, PROMPTS[:2], nothing, np.zeros(5, bool), steps=7, guidance=2.5, eta=0.75, progress=True
    )
    told = sampler[0]
    assert told["network"] is model.dit
    assert told["steps"] == 7
    assert told["guidance"] == 2.5
    assert told["eta"] == 0.75
    assert told["progress"] is True
    assert told["target"] == model.config.target
    assert told["start"] == 1.0


def test_what_is_not_told_is_the_configs(model, sampler, monkeypatch):
    monkeypatch.setattr(model.config, "sample_steps", 9)
    monkeypatch.setattr(model.config, "guidance", 3.5)
    nothing = np.zeros((2, 5, 8, 16, 3), np.uint8)
    sample.complete(model, PROMPTS[:2], nothing, np.zeros(5, bool))
    assert sampler[0]["steps"] == 9
    assert sampler[0]["guidance"] == 3.5
    assert sampler[0]["eta"] == 1
    assert sampler[0]["progress"] is False


@pytest.mark.parametrize("kind", ["flow", "cosine", "linear"])
def test_the_noise_schedule_is_the_one_trained_on(model, sampler, monkeypatch, kind):
    monkeypatch.setattr(model.config, "schedule", kind)
    nothing = np.zeros((1, 5, 8, 16, 3), np.uint8)
    sample.complete(model, PROMPTS[:1], nothing, np.zeros(5, bool))
    expected = diffusion.Schedule(kind)
    assert float(sampler[0]["schedule"].alpha(0.3)) == float(expected.alpha(0.3))


def test_a_guidance_of_0_is_not_mistaken_for_none(model, sampler):
    nothing = np.zeros((1, 5, 8, 16, 3), np.uint8)
    sample.complete(model, PROMPTS[:1], nothing, np.zeros(5, bool), guidance=0)
    assert sampler[0]["guidance"] == 0


def test_guidance_0_ignores_the_prompt(model):
    circle = sample.generate(model, PROMPTS[:1], guidance=0)
    square = sample.generate(model, PROMPTS[1:2], guidance=0)
    assert (circle == square).all()
    assert (circle != sample.generate(model, PROMPTS[:1], guidance=3)).any()


def test_ddpm_differs_from_ddim(model):
    ddpm = sample.generate(model, PROMPTS[:1], eta=1.0)
    ddim = sample.generate(model, PROMPTS[:1], eta=0.0)
    assert (ddpm != ddim).any()


def test_a_size_that_cannot_be_cut_into_patches_is_refused(model):
    with pytest.raises(BadInput, match="nearest that can: 5 frames of 8x16"):
        sample.complete(model, ["", ""], make_clip(6), np.ones(6, bool))


# --- seeds ------------------------------------------------------------------------------------------------


def test_a_clip_depends_on_its_seed_and_not_on_its_neighbours(model):
    together = sample.generate(model, PROMPTS, seed=5)
    alone = sample.generate(model, PROMPTS[1:2], seed=6)
    assert together.shape == (3, 5, 8, 16, 3)
    assert abs(alone[0].astype(int) - together[1]).max() <= 1


def test_another_seed_is_another_clip(model):
    assert (sample.generate(model, PROMPTS[:1], seed=5) != sample.generate(model, PROMPTS[:1], seed=6)).any()


def test_the_seed_is_0_unless_told(model):
    told = sample.generate(model, PROMPTS[:1], seed=0)
    assert (sample.generate(model, PROMPTS[:1]) == told).all()

    video = make_clip(5)
    known = np.arange(5) < 1
    told = sample.complete(model, ["", ""], video, known, seed=0)
    assert (sample.complete(model, ["", ""], video, known) == told).all()


def test_behind_the_last_seed_comes_the_first(model):
    last = 2**63 - 1
    together = sample.generate(model, PROMPTS[:2], 13, seed=last)
    assert (together[1, :5] == sample.generate(model, PROMPTS[1:2], seed=0)[0]).all()
    assert together.shape[1] == 13


def test_no_two_clips_begin_with_the_same_noise(model, sampler):
    sample.generate(model, PROMPTS, seed=5)
    first, second, third = sampler[0]["noise"][0]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_ddpm_draws_new_noise_at_every_step(model, sampler):
    sample.generate(model, PROMPTS)
    first_draw, second_draw = sampler[0]["noise"]
    assert not torch.equal(first_draw, second_draw)


def test_clips_in_groups_are_those_of_one_group(model, monkeypatch):
    video = np.concatenate([make_clip(9), 255 - make_clip(9)])[:3]
    known = np.arange(9) < 5
    together = sample.complete(model, PROMPTS, video, known, seed=5, guidance=3)
    monkeypatch.setattr(sample, "CLIPS_AT_ONCE", 2)
    in_groups = sample.complete(model, PROMPTS, video, known, seed=5, guidance=3)
    assert in_groups.shape == together.shape
    assert abs(in_groups.astype(int) - together).max() <= 1


def test_a_group_holds_its_own_prompts_and_no_more_than_are_worked_off_at_once(model, sampler, monkeypatch):
    monkeypatch.setattr(sample, "CLIPS_AT_ONCE", 2)
    sample.generate(model, PROMPTS)
    first, second = [call["prompt_ids"].tolist() for call in sampler]
    assert first + second == encode_prompts(PROMPTS, model.vocab, model.config.max_words).tolist()
    assert len(first) == 2


# --- plan_window: how a long video is cut -----------------------------------------------------------------


def every_case():
    """(available, missing, longest, backward): clips up to 29 frames, windows up to 7 latent frames."""
    for longest in range(2, 8):
        for missing in range(1, 30):
            for available in range(30):
                yield available, missing, longest, False
            for available in range(4, 30):
                yield available, missing, longest, True


def search_window(available, missing, longest, backward):
    """The best window, found by looking at all of them. An oracle for plan_window.

    Forward, given frames are the first one of a sequence and whole latent frames behind it; backward, whole
    latent frames behind invented ones."""
    frames = 1 + 4 * (longest - 1)
    half = (longest + 1) // 2
    if backward:
        possible = range(4, available + 1, 4)
        half_in_frames = 4 * half
    elif available == 0:
        possible = [0]
        half_in_frames = 0
    else:
        possible = range(1, available + 1, 4)
        half_in_frames = 4 * half - 3

    best = None
    for given in possible:
        # Half of a window is given if that much is there.
        if given < min(half_in_frames, possible[-1]):
            continue
        for window in range(1, frames + 1, 4):
            invented = window - given
            if invented <= 0:
                continue
            # As much as possible of what is missing; then no frame too many; then all there is to see.
            quality = (min(invented, missing), -invented, given)
            if best is None or quality > best[0]:
                best = (quality, given, invented)
    return best[1:]


def test_the_example_of_the_docstring():
    assert sample.plan_window(13, 16, 4) == (5, 8)


def test_a_window_is_the_best_of_all_possible_ones():
    for available, missing, longest, backward in every_case():
        planned = sample.plan_window(available, missing, longest, backward)
        assert planned == search_window(available, missing, longest, backward)


def test_a_window_is_one_frame_and_whole_latent_frames_and_fits_into_a_sequence():
    for available, missing, longest, backward in every_case():
        given, invented = sample.plan_window(available, missing, longest, backward)
        assert (given + invented) % 4 == 1
        assert latent_length(given + invented) <= longest
        assert given <= available


def test_a_window_invents_something_and_at_most_three_frames_too_many():
    for available, missing, longest, backward in every_case():
        _, invented = sample.plan_window(available, missing, longest, backward)
        assert 1 <= invented <= missing + 3


# --- extend: windows, one after the other -----------------------------------------------------------------


@pytest.mark.parametrize(
    "T, more, backward, expected",
    [
        # One window, no longer than it has to be, with all that fits.
        (0, 5, False, ["....."]),
        (1, 4, False, ["#...."]),
        (3, 3, False, ["#...."]),
        (5, 4, False, ["#####...."]),
        (20, 2, False, ["#########...."]),
        (8, 4, True, [".....########"]),
        # Several, of which half is given.
        (0, 29, False, [".............", "#####........", "#####........"]),
        (30, 9, True, [".....########", ".....########"]),
    ],
)
def test_windows_are_as_long_as_they_need_to_be_and_overlap(
    model, windows, monkeypatch, T, more, backward, expected
):
    monkeypatch.setattr(model.config, "frames", 13)
    sample.extend(model, PROMPTS[:2], make_clip(T), more, backward)
    assert [draw(window.known) for window in windows] == expected


@pytest.mark.parametrize("T, more, frames", [(0, 30, 13), (1, 29, 9), (6, 22, 13), (21, 7, 17), (2, 3, 5)])
def test_forward_every_window_lies_where_the_one_before_it_ends(model, windows, monkeypatch, T, more, frames):
    monkeypatch.setattr(model.config, "frames", frames)
    video = make_clip(T)
    extended = sample.extend(model, PROMPTS[:2], video, more)

    assert extended.shape == (2, T + more, 8, 16, 3)
    assert (extended[:, :T] == video).all()
    end = T
    for window in windows:
        begin = end - window.known.sum()
        piece = extended[:, begin : begin + len(window.known)]
        assert (piece == window.completed[:, : piece.shape[1]]).all()
        end = begin + piece.shape[1]
    assert end == T + more


@pytest.mark.parametrize("T, more, frames", [(4, 29, 9), (7, 22, 13), (21, 7, 17), (5, 3, 5)])
def test_backward_every_window_lies_where_the_one_before_it_begins(
    model, windows, monkeypatch, T, more, frames
):
    monkeypatch.setattr(model.config, "frames", frames)
    video = make_clip(T)
    extended = sample.extend(model, PROMPTS[:2], video, more, backward=True)

    assert extended.shape == (2, more + T, 8, 16, 3)
    assert (extended[:, more:] == video).all()
    begin = more
    for window in windows:
        end = begin + window.known.sum()
        piece = extended[:, max(0, end - len(window.known)) : end]
        assert (piece == window.completed[:, -piece.shape[1] :]).all()
        begin = end - piece.shape[1]
    assert begin == 0


def test_a_real_model_extends_in_both_directions(model, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 9)
    video = make_clip(5)
    forward = sample.extend(model, PROMPTS[:2], video, 11)
    backward = sample.extend(model, PROMPTS[:2], video, 11, backward=True)
    assert forward.shape == backward.shape == (2, 16, 8, 16, 3)
    assert (forward[:, :5] == video).all()
    assert (backward[:, 11:] == video).all()


def test_three_frames_are_too_few_to_be_extended_backward_and_four_are_not(model, windows):
    with pytest.raises(BadInput, match="3 frames: to extend it backward"):
        sample.extend(model, PROMPTS[:2], make_clip(3), 1, backward=True)
    assert sample.extend(model, PROMPTS[:2], make_clip(4), 1, backward=True).shape[1] == 5


@pytest.mark.parametrize("backward", [False, True])
def test_the_prompts_are_for_the_first_window_and_then_for_the_others(model, windows, backward):
    then = ["a circle", "a square"]
    sample.extend(model, PROMPTS[:2], make_clip(5), 12, backward, then=then)
    assert windows[0].prompts == PROMPTS[:2]
    assert len(windows) > 2
    assert all(window.prompts == then for window in windows[1:])


def test_without_then_later_windows_have_empty_prompts(model, windows):
    sample.extend(model, PROMPTS[:2], make_clip(5), 12)
    assert all(window.prompts == ["", ""] for window in windows[1:])


@pytest.mark.parametrize("backward", [False, True])
def test_no_clip_of_no_window_begins_with_the_noise_of_another(model, windows, backward):
    sample.extend(model, PROMPTS[:2], make_clip(5), 24, backward, seed=7)
    seeds = [window.seed + i for window in windows for i in range(2)]
    assert seeds[:2] == [7, 8]
    assert len(windows) > 4
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("backward", [False, True])
def test_every_window_is_sampled_as_told(model, windows, backward):
    sampling = {"steps": 7, "guidance": 2.5, "eta": 0.75}
    sample.extend(model, PROMPTS[:2], make_clip(5), 12, backward, **sampling)
    assert all(window.sampling == sampling for window in windows)
    assert all(window.strength is None for window in windows)


def test_a_later_window_begins_with_the_videos_first_frame(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    monkeypatch.setattr(model.config, "window_prob", 0.5)
    video = make_clip(14)
    extended = sample.extend(model, ["", ""], video, 16)

    # The second frame and those after it are the video's last four, of which the second window's are new.
    for window, end in zip(windows, (14, 22), strict=True):
        assert (window.video[:, 0] == video[:, 0]).all()
        assert (window.video[:, 1:5] == extended[:, end - 4 : end]).all()


def test_three_frames_are_continued_from_their_last_one(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "window_prob", 0.5)
    video = make_clip(3)
    sample.extend(model, ["", ""], video, 4)
    assert draw(windows[0].known) == "#...."
    assert (windows[0].video[:, 0] == video[:, 2]).all()


def test_a_model_without_a_memory_gets_the_frame_that_was_there(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    monkeypatch.setattr(model.config, "window_prob", 0.0)
    video = make_clip(14)
    sample.extend(model, ["", ""], video, 4)
    assert (windows[0].video[:, :9] == video[:, 5:]).all()


def test_backward_there_is_no_memory(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    monkeypatch.setattr(model.config, "window_prob", 0.5)
    video = make_clip(14)
    sample.extend(model, ["", ""], video, 4, backward=True)
    assert (windows[0].video[:, 5:] == video[:, :8]).all()


def test_a_model_with_a_memory_begins_a_video_without_one(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "window_prob", 0.5)
    generated = sample.generate(model, PROMPTS[:2], frames=9)
    assert draw(windows[0].known) == "....."
    assert generated.shape == (2, 9, 8, 16, 3)


# --- generate ---------------------------------------------------------------------------------------------


def test_a_video_has_the_configs_length_and_size_unless_told(model, windows):
    assert sample.generate(model, PROMPTS).shape == (3, 5, 8, 16, 3)
    assert sample.generate(model, PROMPTS, frames=1).shape == (3, 1, 8, 16, 3)
    assert sample.generate(model, PROMPTS, height=24).shape == (3, 5, 24, 16, 3)
    assert sample.generate(model, PROMPTS, width=24).shape == (3, 5, 8, 24, 3)


def test_a_real_model_makes_other_lengths_and_sizes(model):
    assert sample.generate(model, PROMPTS[:1], frames=13, height=24, width=8).shape == (1, 13, 24, 8, 3)


def test_text_to_video_knows_no_frame_and_is_made_as_told(model, windows):
    sample.generate(model, PROMPTS, seed=3, steps=7, progress=True)
    assert len(windows) == 1
    assert draw(windows[0].known) == "....."
    assert windows[0].prompts == PROMPTS
    assert windows[0].seed == 3
    assert windows[0].sampling == {"steps": 7}


def test_a_long_size_that_does_not_fit_is_refused_before_anything_is_made(model, windows):
    with pytest.raises(BadInput, match="nearest that can: 13 frames of 8x16"):
        sample.generate(model, PROMPTS, frames=14)
    assert windows == []


# --- fill and connect: a gap ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "T, gap, expected, new",
    [
        (13, (1, 4), "#....########", (1, 4)),
        (13, (5, 6), "#####....####", (5, 8)),
        (14, (6, 9), "#####....####", (6, 9)),
        (40, (17, 20), "#####....####", (17, 20)),
        (40, (3, 3), "#....########", (3, 6)),
    ],
)
def test_a_gap_is_filled_in_whole_latent_frames_with_all_that_fits_around_it(
    model, windows, monkeypatch, T, gap, expected, new
):
    monkeypatch.setattr(model.config, "frames", 13)
    video = make_clip(T)
    filled, last = sample.fill(model, ["", ""], video, *gap)

    first_new, last_new = new
    invented = slice(first_new, last_new + 1)
    kept = np.delete(np.arange(T), np.arange(T)[invented])
    assert [draw(window.known) for window in windows] == [expected]
    assert last == last_new
    assert (filled[:, kept] == video[:, kept]).all()
    assert (filled[0, invented, 0, 0, 0] > 100).all()


@pytest.mark.parametrize("frames", [9, 13, 17, 25])
@pytest.mark.parametrize("T, first", [(30, 1), (30, 6), (30, 13), (30, 22), (10, 2), (41, 20)])
def test_what_is_around_a_gap_is_balanced_and_all_that_fits(model, windows, monkeypatch, frames, T, first):
    monkeypatch.setattr(model.config, "frames", frames)
    sample.fill(model, ["", ""], make_clip(T), first, first + 2)
    known = windows[0].known
    before = int(known.argmin())
    behind = int(known[::-1].argmin())

    # A sequence is full unless nothing is left to give.
    more_before = first - before >= 4
    more_behind = T - (first + 4) - behind >= 4
    assert len(known) == frames or not (more_before or more_behind)

    # One side is given more whole latent frames than the other only where that one has no more; an odd one
    # stands behind.
    difference = behind - (before - 1)
    assert difference <= 4 or not more_before
    assert difference >= 0 or not more_behind


def search_gap(first, last, T, longest):
    """Whether a gap can be filled: a frame before it, whole latent frames, one latent frame behind it."""
    gap = last - first + 1
    invented = gap + (-gap) % 4
    is_gap = first <= last and first >= 1
    return is_gap and first + invented + 4 <= T and 1 + invented + 4 <= longest


@pytest.mark.parametrize("longest", [5, 9, 13, 17])
def test_a_gap_is_filled_or_refused(model, windows, monkeypatch, longest):
    monkeypatch.setattr(model.config, "frames", longest)
    for T in (9, 10, 13, 18):
        video = make_clip(T)
        for first in range(T):
            for last in (first - 1, first, first + 3, first + 4, first + 8):
                if search_gap(first, last, T, longest):
                    filled, _ = sample.fill(model, ["", ""], video, first, last)
                    assert filled.shape == video.shape
                else:
                    with pytest.raises(BadInput):
                        sample.fill(model, ["", ""], video, first, last)


def test_what_a_refusal_of_a_long_gap_says_is_true(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 17)
    with pytest.raises(BadInput, match="frames 3 to 15 are 13; this model invents up to 12 between others"):
        sample.fill(model, ["", ""], make_clip(40), 3, 15)
    sample.fill(model, ["", ""], make_clip(40), 3, 14)
    assert draw(windows[0].known) == "#............####"


def test_what_a_refusal_of_a_gap_too_near_the_end_says_is_true(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 17)
    with pytest.raises(BadInput, match="clip of 12: 4 frames would be invented .*, to frame 12"):
        sample.fill(model, ["", ""], make_clip(12), 5, 6)
    sample.fill(model, ["", ""], make_clip(13), 5, 6)


@pytest.mark.parametrize(
    "first, last, instead",
    [(7, 11, "behind the clip: --extend forward 0.42"), (0, 2, "before the clip: --extend backward 0.25")],
)
def test_a_gap_at_an_end_is_sent_to_extend_with_its_seconds(model, first, last, instead):
    with pytest.raises(BadInput, match=instead) as refusal:
        sample.fill(model, ["", ""], make_clip(12), first, last)
    seconds = str(refusal.value).split()[-1]
    assert sample.count_frames(seconds, model.config.fps, "--extend") == last - first + 1


def test_a_gap_whose_last_frame_comes_first_is_refused(model):
    with pytest.raises(BadInput, match="frames 8 to 5: expected the first and the last one"):
        sample.fill(model, ["", ""], make_clip(12), 8, 5)


def test_two_clips_are_connected_by_frames_in_fours(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 17)
    for frames, in_fours in ((1, 4), (4, 4), (5, 8)):
        a = make_clip(6)
        b = make_clip(9)[:, ::-1]
        connected, last = sample.connect(model, ["", ""], a, b, frames)
        assert connected.shape[1] == 6 + in_fours + 9
        assert last == 6 + in_fours - 1
        assert (connected[:, :6] == a).all()
        assert (connected[:, 6 + in_fours :] == b).all()
        assert (connected[0, 6 : 6 + in_fours, 0, 0, 0] > 100).all()


def test_three_frames_are_too_few_to_be_connected_to_and_four_are_not(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 17)
    with pytest.raises(BadInput, match="a clip of 3 frames: to be connected to"):
        sample.connect(model, ["", ""], make_clip(9), make_clip(3), 4)
    assert sample.connect(model, ["", ""], make_clip(9), make_clip(4), 4)[0].shape[1] == 17


def test_a_real_model_keeps_both_sides_of_a_gap(model, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    video = make_clip(18)
    filled, _ = sample.fill(model, PROMPTS[:2], video, 6, 9)
    kept = (filled == video).all(axis=(0, 2, 3, 4))
    assert draw(kept) == "######....########"


def test_a_gap_is_filled_as_told(model, windows, monkeypatch):
    monkeypatch.setattr(model.config, "frames", 13)
    sampling = {"steps": 7, "guidance": 2.5, "eta": 0.75}
    sample.fill(model, PROMPTS[:2], make_clip(13), 5, 8, seed=3, **sampling)
    sample.connect(model, PROMPTS[:2], make_clip(5), make_clip(4), 4, seed=3, **sampling)
    assert len(windows) == 2
    for window in windows:
        assert window.prompts == PROMPTS[:2]
        assert window.seed == 3
        assert window.sampling == sampling


# --- edit -------------------------------------------------------------------------------------------------


def test_an_edit_of_little_strength_changes_little(model):
    video = make_clip(5)
    plain = to_uint8(model.vae.decode(model.vae.encode(to_float(video))[0])).astype(int)
    little = abs(sample.edit(model, ["", ""], video, 0.02) - plain).mean()
    much = abs(sample.edit(model, ["", ""], video, 0.9) - plain).mean()
    assert little < 0.2 * much


def test_an_edit_begins_at_its_strength_and_keeps_no_frame(model, sampler):
    sample.edit(model, ["", ""], make_clip(5), 0.3)
    _, given = sampler[0]["kept"]
    assert sampler[0]["start"] == 0.3
    assert not given.any()


@pytest.mark.parametrize("T, whole", [(1, 1), (4, 1), (5, 5), (8, 5), (9, 9)])
def test_an_edit_is_of_the_first_frames_that_are_whole_latent_frames(model, windows, T, whole):
    video = make_clip(T)
    sample.edit(model, PROMPTS[:2], video, 0.3, seed=3, steps=7)
    assert (windows[0].video == video[:, :whole]).all()
    assert draw(windows[0].known) == "#" * whole
    assert windows[0].prompts == PROMPTS[:2]
    assert windows[0].strength == 0.3
    assert windows[0].seed == 3
    assert windows[0].sampling == {"steps": 7}


# --- progress ---------------------------------------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch):
    """The bars that `extend` opens: dicts of what they were told, and how far they came."""
    opened = []

    class Bar:
        def __init__(self, **told):
            self.told = told
            self.frames = 0
            opened.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, frames):
            self.frames += frames

    monkeypatch.setattr(sample, "progress_bar", Bar)
    return opened


def test_one_window_has_the_samplers_bar_alone(model, windows, bars):
    sample.generate(model, PROMPTS, progress=True)
    assert bars[0].told["disable"]
    assert windows[0].progress


def test_several_windows_have_one_bar_that_counts_frames(model, windows, bars):
    sample.generate(model, PROMPTS, frames=29, progress=True)
    assert not bars[0].told["disable"]
    assert bars[0].frames == bars[0].told["total"] == 29
    assert not any(window.progress for window in windows)


def test_there_is_no_bar_unless_asked_for(model, windows, bars):
    sample.generate(model, PROMPTS, frames=29)
    sample.generate(model, PROMPTS)
    assert all(bar.told["disable"] for bar in bars)
    assert not any(window.progress for window in windows)

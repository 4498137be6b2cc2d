"""The captioner: what each word may look at, what it is trained on, and what its commands answer."""
from config import BadInput, Config

import collections
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bench
import recaption
import sample
import train
from data import precompute
from dit import DiT, timestep_embedding, token_positions
from patches import grid_positions, rope
from recaption import (
    LEFT_RIGHT,
    UP_DOWN,
    Captioner,
    Example,
    KeyValueCache,
    caption_loss,
    count_facts,
    draw_scenes,
    write_captions,
)
from utils.checkpoint import load_model, save_checkpoint
from vae import VAE
from world import scenes
from world.captions import MAX_BRIEF_WORDS, describe_fully, facts, facts_of_image, rich_vocab
from world.scenes import COLOURS, SIZES, Scene, Thing, render

CONFIG = Config(
    scenes="move", frames=9, height=16, width=24, lengths="5 9", vae_width=8, latent_channels=3, dit_width=32,
    dit_head_dim=16, max_words=32, dit_tokens=200, precision="float32", sample_steps=2,
)
WORDS = rich_vocab()


@pytest.fixture
def captioner():
    """As if trained a little: gates open, outputs not zero."""
    torch.manual_seed(0)
    captioner = Captioner(CONFIG, WORDS)
    for p in captioner.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return captioner


def inputs():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 3, 4, 6, generator=generator)
    brief = torch.randint(0, len(WORDS), (2, 5), generator=generator)
    said = torch.randint(1, len(WORDS), (2, 7), generator=generator)
    return latents, brief, said


def test_every_block_starts_as_the_identity_and_all_words_are_equally_likely():
    captioner = Captioner(CONFIG, WORDS)
    assert not captioner(*inputs()).any()
    for block in captioner.blocks:
        assert not block.modulation_offset.any()


@pytest.mark.parametrize("place", [0, 3])
def test_a_word_depends_on_all_before_it_and_on_none_behind(captioner, place):
    latents, brief, said = inputs()
    before = captioner(latents, brief, said)
    changed = said.clone()
    changed[:, place] = 1 + changed[:, place] % len(WORDS)
    after = captioner(latents, brief, changed)
    same = (before == after).all(-1).all(0)
    assert same.tolist() == (place + 1) * [True] + (7 - place) * [False]


@pytest.mark.parametrize("part", [0, 1])
def test_every_word_sees_the_clip_and_the_brief_caption(captioner, part):
    given = list(inputs())
    before = captioner(*given)
    given[part] = given[part].clone()
    given[part][:, -1] += 1
    assert (captioner(*given) != before).any(-1).all()


@pytest.mark.parametrize("has_clip", [True, False])
def test_with_caches_only_new_tokens_are_computed_and_no_logit_changes(captioner, has_clip):
    latents, brief, said = inputs()
    if not has_clip:
        latents = None
    computed = []
    captioner.blocks[-1].register_forward_pre_hook(lambda block, args: computed.append(len(args[0]) // 2))
    expected = captioner(latents, brief, said)
    caches = [KeyValueCache() for _ in captioner.blocks]
    parts = [captioner(latents, brief, said[:, :known], caches) for known in (0, 1, 4, 7)]
    assert [part.shape[1] for part in parts] == [1, 1, 3, 3]
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    prefix = 18 + 5 if has_clip else 5
    assert computed == [prefix + 8, prefix + 1, 1, 3, 3]


def test_patches_stand_in_their_grid_and_words_behind_any_clip(captioner, monkeypatch):
    turned_by = []

    def spy(positions, head_dim):
        turned_by.append(positions)
        return rope(positions, head_dim)

    monkeypatch.setattr(recaption, "rope", spy)
    latents, brief, said = inputs()
    captioner(latents, brief, said)
    captioner(None, brief, said)
    words = grid_positions((13, 1, 1)) + torch.tensor([recaption.WORDS_START, 0, 0])
    embedded, with_clip, without = turned_by
    assert torch.equal(embedded, token_positions((3, 2, 3), 0))
    assert torch.equal(with_clip, torch.cat([grid_positions((3, 2, 3)), words]))
    assert torch.equal(without, words)


def test_a_patch_carries_where_it_is(captioner):
    latents = torch.ones(1, 3, 3, 4, 6)
    [tokens] = captioner.embed_clip(latents, (3, 2, 3))
    assert len(tokens.unique(dim=0)) == 18


def test_three_clips_in_ten_have_no_brief_caption_and_all_have_noise(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "BATCH", 1000)
    monkeypatch.setattr(recaption, "describe_briefly", lambda scene, rng, choose: "blue")
    monkeypatch.setattr(recaption, "draw_swaps", lambda scene, rng: {})
    clips = {}
    for frames in (1, 5):
        clips[frames] = ([Example(0, None, facts, WORDS[frames], {})], torch.zeros(1, 2))
    rng = np.random.default_rng(0)
    latents, brief, caption = recaption.draw_batch(captioner, clips, [1], rng)
    assert brief.any(1).float().mean() == pytest.approx(0.7, abs=0.05)
    assert (caption[:, 0] == WORDS.index(WORDS[1]) + 1).all()
    assert latents.std() == pytest.approx(recaption.NOISE, abs=0.05)
    latents, brief, caption = recaption.draw_batch(captioner, clips, [5], rng, with_clip=False)
    assert latents is None
    assert brief.any(1).all()
    assert (caption[:, 0] == WORDS.index(WORDS[5]) + 1).all()


def test_each_caption_comes_with_the_latents_of_its_clip(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "NOISE", 0)
    examples = [Example(clip, None, facts, WORDS[word], {}) for word, clip in enumerate([2, 0, 1, 1])]
    clips = {5: (examples, torch.arange(3.0))}
    rng = np.random.default_rng(0)
    latents, _, caption = recaption.draw_batch(captioner, clips, [5], rng, with_hint=False)
    drawn = set(zip((caption[:, 0] - 1).tolist(), latents.tolist(), strict=True))
    assert drawn == {(0, 2), (1, 0), (2, 1), (3, 1)}


def test_captions_are_as_their_clips_mirror_says_and_without_a_clip_in_any_colours(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "BATCH", 200)
    monkeypatch.setattr(recaption, "NO_BRIEF", 0)
    scene = Scene([Thing("star", "red", 0.11, (0.2, 0.3), "left", "slowly")])
    caption = "a small red star moving left slowly on stripes"
    monkeypatch.setattr(recaption, "describe_briefly", lambda scene, rng, choose: "a red star going left")
    clips = {5: ([Example(0, scene, facts, caption, LEFT_RIGHT)], torch.zeros(1))}

    def draw(**options):
        _, brief, full = recaption.draw_batch(captioner, clips, [5], np.random.default_rng(0), **options)
        return [{" ".join(WORDS[i - 1] for i in row if i) for row in ids.tolist()} for ids in (brief, full)]

    assert draw() == [{"a red star going right"}, {"a small red star moving right slowly on stripes"}]

    # Every direction that a mirror gives and every colour, the same in the prompt and in its expansion.
    brief, full = draw(with_clip=False)
    told = {(words.split()[2], words.split()[5]) for words in full}
    assert {colour for colour, _ in told} == set(COLOURS)
    assert {direction for _, direction in told} == {"left", "right"}
    article = {colour: "an" if colour == "orange" else "a" for colour in COLOURS}
    assert brief == {f"{article[colour]} {colour} star going {direction}" for colour, direction in told}


def test_a_batch_has_room_for_its_longest_caption_and_its_end(captioner):
    clips = {1: ([Example(0, None, facts_of_image, "a red star", {})], torch.zeros(1))}
    _, _, caption = recaption.draw_batch(captioner, clips, [1], np.random.default_rng(0), with_hint=False)
    assert caption.shape == (recaption.BATCH, 4)
    assert caption.any(0).tolist() == [True, True, True, False]


def test_nothing_falls_up_and_what_is_held_out_is_no_mirror_image(monkeypatch):
    falling = Scene([Thing("star", "red", 0.11, (0.2, 0.3), "down", "", event="falls")])
    assert recaption.may_be_shown(falling, LEFT_RIGHT)
    assert not recaption.may_be_shown(falling, UP_DOWN)

    # What is held out moves left; its mirror image may be trained on, but not in that mirror.
    held_out = ("cross", "blue", "large", ("left", "quickly"))
    monkeypatch.setattr(scenes, "RICH_HELD_OUT", [held_out])
    moving = Scene([Thing("cross", "blue", SIZES["large"], (0.2, 0.3), "right", "quickly")])
    assert recaption.may_be_shown(moving, {})
    assert recaption.may_be_shown(moving, UP_DOWN)
    assert not recaption.may_be_shown(moving, LEFT_RIGHT)
    assert not recaption.may_be_shown(moving, LEFT_RIGHT | UP_DOWN)


def test_clips_in_mirrors_are_encoded_with_their_captions():
    torch.manual_seed(0)
    vae = VAE(CONFIG)
    scale = torch.tensor(1.0)
    scenes = draw_scenes(CONFIG, 2, (0, 1), [5])
    args = (vae, scale, CONFIG, scenes, (0, 1), describe_fully, 3, recaption.VIEWS)
    [(examples, latents)] = recaption.caption_scenes(*args).values()
    assert [example.clip for example in examples] == [i for i in range(len(latents)) for _ in range(3)]
    axes_of = {str(swaps): axes for axes, swaps in recaption.VIEWS}
    assert {str(example.swaps) for example in examples} == set(axes_of)
    for example in examples:
        clip = np.flip(render(example.scene, 5, 16, 24, CONFIG.fps), axes_of[str(example.swaps)])
        expected = recaption.encode_clips(vae, scale, clip[None].copy())[0]
        torch.testing.assert_close(latents[example.clip], expected)


def test_clips_that_show_more_are_described_and_so_are_first_frames(monkeypatch):
    # A brief caption that counts: the more things, the longer.
    monkeypatch.setattr(recaption, "describe_briefly", lambda scene, *rest: "thing " * len(scene.things))
    seed = (0, recaption.DESCRIBED)
    candidates = draw_scenes(CONFIG, 4 * recaption.CANDIDATES, seed, [1, 9])
    chosen = recaption.choose_scenes(CONFIG, 4, seed, [1, 9])
    for frames in (1, 9):
        for i in range(2):
            [scene, facts_of] = chosen[frames][i]
            few = candidates[frames][i * recaption.CANDIDATES : (i + 1) * recaption.CANDIDATES]
            assert (scene, facts_of) in few
            assert len(scene.things) == max(len(other.things) for other, _ in few)

    videos = [scene for scene, _ in chosen[9]]
    assert chosen[1][2:] == [(scene, facts_of_image) for scene in videos]
    assert len(chosen[9]) == 2


def test_people_begin_with_different_things_but_who_meets_whom_stays():
    rng = np.random.default_rng(0)
    colours = ("red", "green", "blue")
    things = [Thing("star", colour, 0.11, (0.2, 0.3), "left", "slowly") for colour in colours]
    for meeting, count in [("", 6), ("collides", 1)]:
        scene = Scene(things, meeting=meeting)
        orders = {tuple(t.colour for t in recaption.in_any_order(scene, rng).things) for _ in range(100)}
        assert len(orders) == count
    assert orders == {colours}

    # A caption tells its things in its example's order.
    scenes = draw_scenes(CONFIG, 20, (0, 1), [5])
    args = (VAE(CONFIG), torch.tensor(1.0), CONFIG, scenes, (0, 1), describe_fully, 5)
    [(examples, _)] = recaption.caption_scenes(*args).values()
    for example in examples:
        told = [word for word in example.caption.split() if word in COLOURS]
        assert told[: len(example.scene.things)] == [thing.colour for thing in example.scene.things]


@pytest.mark.parametrize("caption, swaps, expected", [
    ("the red star is left of the box", LEFT_RIGHT, "the red star is right of the box"),
    ("a red ball above an orange box", {"red": "orange", "orange": "red"}, "an orange ball above a red box"),
])
def test_words_change_places(caption, swaps, expected):
    assert recaption.swap_words(caption, swaps) == expected


def test_it_learns_brief_captions_of_new_clips_then_full_ones_of_the_described(world_model, monkeypatch):
    monkeypatch.setattr(recaption, "DESCRIBED_CLIPS", 3)
    monkeypatch.setattr(recaption, "BRIEF_CLIPS", 3)
    monkeypatch.setattr(recaption, "BRIEF_CLIPS_STEPS", 1)
    monkeypatch.setattr(recaption, "EXPAND_EVERY", 2)
    monkeypatch.setattr(recaption, "BATCH", 2)
    monkeypatch.setattr(recaption, "describe_fully", lambda scene, rng, choose: "star")
    monkeypatch.setattr(recaption, "describe_briefly", lambda scene, rng, choose: "cross")
    seen = []
    has_gradients = []
    rates = []

    def spy(captioner, latents, brief, caption):
        seen.append((latents, brief, [WORDS[i - 1] for i in caption[:, 0].tolist()]))
        has_gradients.append(any(p.grad is not None for p in captioner.parameters()))
        return caption_loss(captioner, latents, brief, caption)

    def rate(step, peak, total_steps, **options):
        rates.append((step, total_steps))
        return 0.01

    monkeypatch.setattr(recaption, "caption_loss", spy)
    monkeypatch.setattr(train, "learning_rate", rate)
    model = load_model(world_model)
    captioner = recaption.new_captioner(model)
    recaption.train_captioner(captioner, model.vae, model.latent_scale, 2, 3, 0)

    # Two steps on brief captions, which are not given: they are to be written. Each has clips of its own.
    (first, no_brief, brief_captions), (second, _, _), with_clip, without, *later = seen
    assert not no_brief.any()
    assert brief_captions == 2 * ["cross"]
    assert first.shape[2] == 1  # at first, images
    assert first.shape != second.shape or (first != second).any()

    # A step on full captions, once with a clip and once without; then one with a clip alone.
    assert without[0] is None
    assert [latents is not None for latents, _, _ in later] == [True, True, False]
    assert with_clip[2] + without[2] == 4 * ["star"]
    assert (without[1][:, 0] == WORDS.index("cross") + 1).all()

    # A step begins without gradients; those of the last one's two batches are added. One schedule for all.
    assert has_gradients == [False, False, False, True, False, False, True]
    assert set(rates) == {(step, 5) for step in range(5)}


def test_at_last_the_mean_of_the_weights_of_many_steps_is_kept(world_model, monkeypatch):
    monkeypatch.setattr(recaption, "DESCRIBED_CLIPS", 3)
    monkeypatch.setattr(recaption, "BATCH", 2)
    model = load_model(world_model)
    captioner = recaption.new_captioner(model)
    rates = []

    class AddOne:
        """An optimizer whose every step adds one to the same weights."""

        def __init__(self):
            self.param_groups = [{"lr": None}]

        def step(self):
            rates.append(self.param_groups[0]["lr"])
            captioner.word_linear.bias.data += 1

        def zero_grad(self):
            captioner.zero_grad()

    class Nothing(AddOne):
        def step(self):
            pass

    monkeypatch.setattr(train, "make_optimizers", lambda *args, **options: [AddOne(), Nothing()])
    before = captioner.word_linear.bias.detach().clone()
    recaption.train_captioner(captioner, model.vae, model.latent_scale, 0, 4, 3)
    # After the four steps it was 4 more, and then 5, 6 and 7.
    torch.testing.assert_close(captioner.word_linear.bias.detach(), before + 6)
    # The last of the four is small; then all are half as large as they are at most before.
    assert rates[3] < rates[4]
    assert rates[4:] == 3 * [recaption.MUON_LR / 2]


def test_the_longest_clips_come_twice_as_often():
    assert recaption.training_lengths(CONFIG) == [1, 5, 9, 9]


def test_the_stem_sees_what_is_within_a_patch_and_in_the_frames_beside_it(captioner):
    latents = torch.randn(1, 3, 5, 8, 8)
    changed = latents.clone()
    changed[0, :, 2, 3, 3] += 1  # in latent frame 2, at a corner of the second patch of the second row

    def tokens(latents):
        return captioner.embed_clip(latents, (5, 4, 4)).unflatten(1, (5, 4, 4))

    differs = (tokens(latents) - tokens(changed)).abs().amax(-1)[0] > 1e-5
    # Two convolutions of 3 reach two latent positions to each side, and so many frames.
    expected = torch.zeros(5, 4, 4, dtype=torch.bool)
    expected[:, :3, :3] = True
    assert (differs == expected).all()


def test_the_loss_is_over_the_words_and_one_end_and_words_of_motion_count_more(captioner):
    latents, brief, _ = inputs()
    told = ("left", "red", "star", "over", "bites")
    left, red, star, over, bites = (WORDS.index(word) + 1 for word in told)
    full = torch.tensor([[left, red, star, 0, 0, 0], [over, 0, 0, 0, 0, 0]])
    log_p = captioner(latents, brief, full[:, :-1]).log_softmax(-1)
    # After "left", "red" says that no more comes of the motion, so it counts more as well.
    of_first = [5 * log_p[0, 0, left], 5 * log_p[0, 1, red], log_p[0, 2, star], log_p[0, 3, 0]]
    of_second = [log_p[1, 0, over], log_p[1, 1, 0]]
    expected = -torch.stack(of_first + of_second).sum() / (5 + 5 + 1 + 1 + 1 + 1)
    torch.testing.assert_close(caption_loss(captioner, latents, brief, full), expected)

    # In a meeting every word counts more, since their order says who meets whom.
    full[1, :2] = torch.tensor([star, bites])
    log_p = captioner(latents, brief, full[:, :-1]).log_softmax(-1)
    of_second = [5 * log_p[1, 0, star], 5 * log_p[1, 1, bites], 5 * log_p[1, 2, 0]]
    expected = -torch.stack(of_first + of_second).sum() / (5 + 5 + 1 + 1 + 5 + 5 + 5)
    torch.testing.assert_close(caption_loss(captioner, latents, brief, full), expected)


def test_greedy_captions_take_the_likeliest_word_each_time(captioner):
    latents, brief, _ = inputs()
    captions = write_captions(captioner, latents, brief)
    for row, caption in enumerate(captions):
        words = [WORDS.index(word) + 1 for word in caption.split()]
        said = torch.tensor([words])
        logits = captioner(latents[row : row + 1], brief[row : row + 1], said)[0]
        assert logits.argmax(-1)[: len(words)].tolist() == words
        assert len(words) == recaption.MAX_WORDS or logits[-1].argmax() == 0


def test_each_caption_of_a_batch_ends_at_its_own_end(captioner):
    script = torch.tensor([[3, 0, 5, 0], [3, 4, 5, 0]])

    def say(latents, brief, said, caches):
        return F.one_hot(script[:, said.shape[1], None], len(WORDS) + 1)

    captioner.forward = say
    expected = [WORDS[2], " ".join([WORDS[2], WORDS[3], WORDS[4]])]
    assert write_captions(captioner, None, torch.zeros(2, 5, dtype=torch.long)) == expected


def test_drawn_captions_follow_their_generator(captioner):
    latents, brief, _ = inputs()

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return write_captions(captioner, latents, brief, temperature=1.0, generator=generator)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_caption_of_few_words_is_learned_by_heart():
    torch.manual_seed(0)
    captioner = Captioner(CONFIG, WORDS)
    latents, brief, _ = inputs()
    full = torch.zeros(2, 5, dtype=torch.long)
    full[0, :3] = torch.tensor([5, 8, 3])
    full[1, :2] = torch.tensor([9, 4])
    optimizer = torch.optim.Adam(captioner.parameters(), 1e-2)
    for _ in range(50):
        loss = caption_loss(captioner, latents, brief, full)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = [" ".join(WORDS[i - 1] for i in row if i > 0) for row in full.tolist()]
    assert write_captions(captioner, latents, brief) == expected


def test_scenes_have_the_lengths_of_the_config_and_images_tell_no_motion():
    drawn = draw_scenes(CONFIG, 6, 0, [1, *recaption.video_lengths(CONFIG)])
    assert {frames: len(of_length) for frames, of_length in drawn.items()} == {1: 2, 5: 2, 9: 2}
    assert {choose for _, choose in drawn[1]} == {facts_of_image}
    assert {choose for _, choose in drawn[5] + drawn[9]} == {facts}


def test_scenes_last_as_long_as_their_clips(monkeypatch):
    lasting = set()

    def draw(rng, kind, extent, seconds, **options):
        lasting.add(seconds)

    monkeypatch.setattr(recaption, "draw_rich_scene", draw)
    draw_scenes(CONFIG, 6, 0, [1, 5, 9])
    assert lasting == {0, 4 / CONFIG.fps, 8 / CONFIG.fps}


def test_captions_are_scored_against_their_own_scenes(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "BATCH", 1)
    rng = np.random.default_rng(0)
    captions = []
    for drawn in draw_scenes(CONFIG, 6, (0, recaption.SCORED), [1, 5, 9]).values():
        captions += [describe_fully(scene, rng, choose) for scene, choose in drawn]
    monkeypatch.setattr(recaption, "write_captions", lambda *args: [captions.pop(0)])
    counts = recaption.score(captioner, VAE(CONFIG), torch.tensor(1.0), 6)
    assert all(right == asked for right, asked in counts.values())


def test_facts_are_counted_as_right_wrong_and_true():
    true = {("red", "shape", "circle"), ("red", "moves", "left"), ("red", "above", "blue")}
    true.add(("camera", "is", "still"))
    told = {("red", "shape", "square"), ("red", "moves", "left"), ("camera", "is", "still")}
    counts = collections.defaultdict(lambda: [0, 0])
    count_facts(counts, true, told)
    # A place need not be told.
    assert counts == {"shape": [0, 1], "moves": [1, 1], "camera": [1, 1], "all": [0, 1]}
    count_facts(counts, true, true - {("red", "above", "blue")} | {("blue", "above", "red")})
    assert counts == {"shape": [1, 2], "moves": [2, 2], "camera": [2, 2], "above": [0, 1], "all": [0, 2]}
    count_facts(counts, true, true)
    assert counts["all"] == [1, 3]


def test_an_image_shows_no_camera_and_one_that_pans_is_wrong():
    true = {("red", "shape", "circle")}
    counts = collections.defaultdict(lambda: [0, 0])
    count_facts(counts, true, true | {("camera", "is", "still")})
    assert counts["all"] == [1, 1]
    count_facts(counts, true, true | {("camera", "is", "pans left")})
    assert counts["all"] == [1, 2]


@pytest.fixture
def world_model(tmp_path):
    """The checkpoint of a model of the rich world, untrained."""
    torch.manual_seed(0)
    path = tmp_path / "world.pt"
    dit = DiT(CONFIG, len(WORDS))
    save_checkpoint(path, {
        "config": vars(CONFIG), "vocab": WORDS, "latent_scale": torch.tensor(2.0), "train_seconds": 0.0,
        "steps": {}, "vae": VAE(CONFIG).state_dict(), "ema": dit.state_dict(),
    })
    return path


@pytest.fixture
def trained(world_model, command, tmp_path, monkeypatch):
    """The file of a captioner that was trained for a step."""
    monkeypatch.setattr(recaption, "DESCRIBED_CLIPS", 3)
    monkeypatch.setattr(recaption, "BRIEF_CLIPS", 3)
    monkeypatch.setattr(recaption, "BATCH", 2)
    path = tmp_path / "captioner.pt"
    words = ["train", "--checkpoint", world_model, "--captioner", path, "--brief-steps", 1, "--full-steps", 1]
    words += ["--mean-steps", 0, "--device", "cpu"]
    code, out, err = command(recaption, *words)
    assert code == 0, err
    assert out == f"{path} is trained; next: python recaption.py score --captioner {path}\n"

    # What comes now is nonsense: a few words of it will do.
    monkeypatch.setattr(recaption, "MAX_WORDS", 4)
    monkeypatch.setattr(recaption, "DRAWS", 2)
    monkeypatch.setattr(recaption, "EXPANSIONS", 2)
    return path


@pytest.fixture
def training_words(world_model, tmp_path, monkeypatch):
    """The words of a training of 4, 2 and 2 steps that saves after every second."""
    monkeypatch.setattr(recaption, "DESCRIBED_CLIPS", 3)
    monkeypatch.setattr(recaption, "BRIEF_CLIPS", 3)
    monkeypatch.setattr(recaption, "BATCH", 2)
    for name in ("SAVE_STEPS", "BRIEF_CLIPS_STEPS", "EXPAND_EVERY"):
        monkeypatch.setattr(recaption, name, 2)
    words = ["train", "--checkpoint", world_model, "--captioner", tmp_path / "captioner.pt"]
    return [*words, "--brief-steps", 4, "--full-steps", 2, "--mean-steps", 2, "--device", "cpu"]


@pytest.mark.parametrize("batches", [3, 6, 9])  # so many whole ones: into each of three
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    training_words, command, tmp_path, monkeypatch, batches
):
    code, _, err = command(recaption, *training_words)
    assert code == 0, err
    whole = torch.load(tmp_path / "captioner.pt", weights_only=True)
    (tmp_path / "captioner.pt").unlink()

    seen = []

    def interrupt(captioner, *batch):
        seen.append(batch)
        if len(seen) > batches:
            raise KeyboardInterrupt
        return caption_loss(captioner, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(recaption, "caption_loss", interrupt)
        code, out, _ = command(recaption, *training_words)
    assert code == 130
    unfinished = tmp_path / "captioner.unfinished.pt"
    assert out == f"stopped; go on from the last save, {unfinished}, with the same flags and --resume\n"
    assert not (tmp_path / "captioner.pt").exists()

    # It begins anew only if that is what is meant, and goes on only as it began.
    code, _, err = command(recaption, *training_words)
    assert code == 2
    assert "of an interrupted training; expected --resume, or delete it first" in err
    code, _, err = command(recaption, *training_words, "--resume", "--seed", 1)
    assert code == 2
    assert "was begun with --brief-steps 4 --full-steps 2 --mean-steps 2 --seed 0; expected the same" in err

    code, _, err = command(recaption, *training_words, "--resume")
    assert code == 0, err
    resumed = torch.load(tmp_path / "captioner.pt", weights_only=True)
    for name, weights in whole["captioner"].items():
        assert torch.equal(weights, resumed["captioner"][name]), name
    assert not unfinished.exists()


def test_where_it_is_saved_all_clips_are_drawn_anew():
    assert recaption.SAVE_STEPS % recaption.BRIEF_CLIPS_STEPS == 0


def test_a_training_that_is_stopped_at_once_has_saved_nothing(training_words, command, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(recaption, "caption_loss", interrupt)
    code, out, _ = command(recaption, *training_words)
    assert code == 130
    assert out == "stopped before the first save, at step 2; nothing is kept\n"


def test_a_training_that_has_ended_is_not_resumed(trained, command):
    trained.rename(trained.with_name("captioner.unfinished.pt"))
    code, _, err = command(recaption, "train", "--resume", "--captioner", trained)
    assert code == 2
    assert "captioner.unfinished.pt is a finished captioner" in err


def test_the_last_captioner_is_kept(trained, world_model, command):
    before = trained.read_bytes()
    words = ["train", "--checkpoint", world_model, "--captioner", trained, "--brief-steps", 0]
    code, out, err = command(recaption, *words, "--full-steps", 1, "--mean-steps", 0, "--device", "cpu")
    assert code == 0, err
    kept = trained.with_name("captioner.before.pt")
    assert f"the last captioner is now {kept}\n" in out
    assert kept.read_bytes() == before


def test_it_begins_as_the_video_model_at_noise_level_0(world_model):
    model = load_model(world_model)
    for p in model.dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    captioner = Captioner(CONFIG, WORDS)
    recaption.begin_as_video_model(captioner, model)
    assert (captioner.brief_embedding.weight == model.dit.word_embedding.weight).all()
    assert (captioner.patch_embedding.weight == model.dit.patch_embedding.weight).all()

    # The same tokens through both, in the captioner without a modulation from outside.
    x = torch.randn(6, CONFIG.dit_width)
    cos, sin = rope(torch.zeros(6, 3), CONFIG.dit_head_dim)
    level_0 = model.dit.modulation(model.dit.timestep_mlp(timestep_embedding(torch.zeros(1))))
    given = (lambda numbers: numbers, cos[:, None], sin[:, None], [(1, 6)])
    for mine, theirs in zip(captioner.blocks, model.dit.blocks, strict=True):
        torch.testing.assert_close(mine(x, torch.zeros_like(level_0), *given), theirs(x, level_0, *given))


def test_all_commands_answer(trained, command, folder):
    code, out, err = command(recaption, "score", "--captioner", trained, "--clips", 3)
    assert code == 0, err
    assert "held-out things" in out
    code, out, err = command(recaption, "describe", folder / "b.mp4", "--captioner", trained)
    assert code == 0, err
    assert out.strip()
    code, out, err = command(recaption, "expand", "a ball and a square", "--captioner", trained)
    assert code == 0, err
    assert set(out.split()) <= set(WORDS)


def test_a_folder_is_described_once_and_what_is_no_clip_is_named(trained, command, folder):
    code, out, err = command(recaption, "folder", folder, "--captioner", trained)
    assert code == 0, err
    assert f"left out {folder / 'broken.mp4'}: " in out
    assert out.endswith("4 captions written\n")
    texts = {path.name for path in folder.glob("*.recaption.txt")}
    assert texts == {"a.recaption.txt", "b.recaption.txt", "short.recaption.txt", "silent.recaption.txt"}

    (folder / "b.recaption.txt").unlink()
    code, out, err = command(recaption, "folder", folder, "--captioner", trained)
    assert out.endswith("1 captions written\n")


def test_the_captions_that_a_folder_has_are_read(folder, monkeypatch):
    read = {}

    def look_at(captioner, vae, latent_scale, path, brief):
        read[path.name] = brief
        return None, None, "x"

    monkeypatch.setattr(recaption, "look_at", look_at)
    recaption.describe_folder(None, None, None, folder)
    assert read["a.mp4"].split() == ["clip", "a"]
    assert read["silent.mp4"] == ""


def test_how_sure_it_is_of_a_fact_is_the_share_of_draws_that_tell_it(captioner, monkeypatch):
    caption = "a small red circle at rest over stripes"
    other = "a small red square at rest over stripes"

    def draw(captioner, latents, brief, temperature, generator):
        assert temperature == 1
        return 6 * [caption] + 2 * [other]

    monkeypatch.setattr(recaption, "write_captions", draw)
    sure = recaption.how_sure(captioner, None, torch.zeros(1, 14, dtype=torch.long), caption)
    assert sure["red", "shape", "circle"] == pytest.approx(0.75)
    assert sure["red", "size", "small"] == 1

    # One frame does not show whether the camera moves.
    of_frames = {}
    for frames in (1, 2):
        latents = torch.zeros(1, 3, frames, 4, 6)
        no_brief = torch.zeros(1, 14, dtype=torch.long)
        of_frames[frames] = recaption.how_sure(captioner, latents, no_brief, caption)
    assert of_frames[2].keys() - of_frames[1].keys() == {("camera", "is", "still")}


def test_of_the_drawn_captions_the_one_that_keeps_the_prompt_is_taken(captioner, monkeypatch):
    kept = "a large blue circle falls and bounces over stripes"
    drawn = ["a small red square at rest over stripes", kept, "a large blue star at rest over stripes"]
    monkeypatch.setattr(recaption, "write_captions", lambda *args, **options: drawn)
    assert recaption.expand(captioner, "a big blue ball") == kept


def test_an_expansion_is_judged_by_what_it_keeps_then_by_its_meaning():
    keeps = "a small red circle teleporting"
    means = "a small blue square at rest"
    assert recaption.quality("a red ball", keeps) > recaption.quality("a red ball", means)


def test_expansions_follow_the_seed(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "MAX_WORDS", 4)
    first = recaption.expand(captioner, "a ball", seed=1)
    assert recaption.expand(captioner, "a ball", seed=1) == first
    assert recaption.expand(captioner, "a ball", seed=2) != first


def test_the_expander_is_scored_on_prompts_of_videos(captioner, monkeypatch):
    told = []

    def describe(scene, rng, choose):
        told.append(choose)
        return "a ball"

    monkeypatch.setattr(recaption, "describe_briefly", describe)
    monkeypatch.setattr(recaption, "expand", lambda captioner, prompt, seed: "a small red circle at rest")
    kept, asked, meaningful = recaption.score_expander(captioner, 6)
    assert kept == asked
    assert meaningful == 6
    assert told == 6 * [facts]


def test_captions_too_long_to_be_brief_are_not_read(captioner, monkeypatch):
    monkeypatch.setattr(recaption, "write_captions", lambda captioner, latents, brief: brief.any(1).tolist())
    captions = [" ".join(count * ["red"]) for count in (MAX_BRIEF_WORDS, MAX_BRIEF_WORDS + 1)]
    assert recaption.recaption(captioner, None, captions) == [True, False]


def test_a_long_prompt_is_left_as_it_is(captioner):
    prompt = "a large blue star moving left slowly and a small red circle at rest on a dotted ground"
    assert recaption.expand(captioner, prompt) == prompt


def test_samples_of_a_model_trained_on_recaptions_are_of_expanded_prompts(
    world_model, trained, command, tmp_path, monkeypatch
):
    full = "a small red circle at rest over stripes"
    monkeypatch.setattr(recaption, "expand", lambda captioner, prompt, seed: full)
    saved = torch.load(world_model, weights_only=True)
    saved["config"] = saved["config"] | {"captioner": str(trained), "sample_steps": 1}
    save_checkpoint(world_model, saved)
    words = ["--checkpoint", world_model, "--prompt", "a ball", "--unsafe-skip-checks"]

    code, out, err = command(sample, *words, "--out", tmp_path / "long.gif")
    assert code == 0, err
    assert f"'a ball' is expanded to '{full}'" in out
    assert f"a ball, expanded to: {full} | seed 0" in str(iio.immeta(tmp_path / "long.gif"))

    code, out, err = command(sample, *words, "--no-expand", "--out", tmp_path / "short.gif")
    assert code == 0, err
    assert "expanded" not in out + str(iio.immeta(tmp_path / "short.gif"))


def test_the_world_is_recaptioned_in_advance_and_with_its_own_vae(world_model, trained, command, tmp_path):
    rich = ["--scenes", "move", "--max-words", 32, "--captioner", trained]
    code, _, err = command(train, *rich, "--out", tmp_path / "run")
    assert code == 2
    assert "expected --data with latents: the world's captions are written by data.precompute" in err

    shapes = ["--frames", 9, "--height", 16, "--width", 24, "--lengths", "5 9", "--vae-width", 8]
    sizes = ["--latent-channels", 3, "--dit-width", 32, "--dit-head-dim", 16, "--dit-tokens", 200]
    words = [*rich, *shapes, *sizes, "--precision", "float32", "--batches", 1, "--brief-share", 1]
    code, out, err = command(precompute, *words, "--start", world_model, "--out", tmp_path / "latents")
    assert code == 0, err
    assert "1 batches in" in out

    saved = torch.load(world_model, weights_only=True)
    saved["vae"]["encoder.0.weight"] += 1
    save_checkpoint(world_model, saved)
    code, _, err = command(precompute, *words, "--start", world_model, "--out", tmp_path / "other")
    assert code == 2
    assert "expected one that was trained with the VAE of" in err


def test_a_captioner_of_another_shape_is_refused(trained, command):
    saved = torch.load(trained, weights_only=True)
    saved["captioner"]["word_linear.bias"] = torch.zeros(3)
    save_checkpoint(trained, saved)
    code, _, err = command(recaption, "score", "--captioner", trained)
    assert code == 2
    assert "its weights do not fit" in err


def test_a_model_of_images_alone_cannot_begin_a_captioner(world_model, command):
    saved = torch.load(world_model, weights_only=True)
    saved["config"] = saved["config"] | {"frames": 1, "lengths": "1"}
    save_checkpoint(world_model, saved)
    code, _, err = command(recaption, "train", "--checkpoint", world_model)
    assert code == 2
    assert "expected a model of the rich world's videos" in err


@pytest.mark.parametrize("words, answer", [
    (["describe"], "describe: expected more, for example describe clip.mp4"),
    (["score", "--captioner", "nowhere.pt"], "checkpoint nowhere.pt: cannot be read"),
    (["train", "--resume"], "--resume: there is no out/recaption/captioner.unfinished.pt; expected"),
    (["train", "--captioner", "."], "--captioner .: is a folder; expected a file"),
    (["train", "--checkpoint", "{simple}"], "expected a model of the rich world's videos"),
    (["score", "--captioner", "{simple}"], "expected a file that `python recaption.py train` has written"),
])
def test_bad_input_is_answered_in_one_line(command, checkpoint, words, answer):
    words = [str(checkpoint) if word == "{simple}" else word for word in words]
    code, _, err = command(recaption, *words)
    assert code == 2
    assert answer in err
    assert len(err.splitlines()) == 1


def test_the_captioners_clips_are_encoded_to_variance_one_as_the_video_models_are():
    vae = VAE(CONFIG)
    clips = np.random.default_rng(0).integers(0, 255, (2, 5, 16, 24, 3), dtype=np.uint8)
    latents = recaption.encode_clips(vae, torch.tensor(3.0), clips)
    mean, _ = vae.encode(torch.from_numpy(clips).permute(0, 4, 1, 2, 3) / 127.5 - 1)
    torch.testing.assert_close(latents, 3 * mean, atol=1e-5, rtol=0)


def test_a_network_that_was_never_saved_is_no_captioner(tmp_path):
    with pytest.raises(BadInput, match="captioner.pt: cannot be read"):
        recaption.load_captioner(tmp_path / "captioner.pt")


def test_what_captions_teach_is_tabled_and_drawn(world_model, trained, command, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(bench, "CAPTIONED_IMAGES", 8)
    monkeypatch.setattr(bench, "RECAPTION_SHARES", (0.0, 1.0))
    words = ["captions", "--checkpoint", world_model, "--captioner", trained, "--steps", 1, "--batch", 2]
    code, out, err = command(bench, *words, "--prompts", 2, "--device", "cpu")
    assert code == 0, err
    table = [line.strip("| ").split(" | ") for line in out.splitlines() if line[:2] == "| "]
    names = [row[0] for row in table]
    assert names[1:] == ["0% recaptions", "100% recaptions", "full captions", "95% recaptions, no ground"]
    is_expanded = [row[2] != "-" for row in table[1:]]
    assert is_expanded == [False, True, False, True]
    assert (tmp_path / "out/captions.png").stat().st_size > 0


def test_a_share_of_recaptions_leaves_the_other_captions_as_they_are():
    chosen = np.array([True, False, True])
    assert bench.mix(["a", "b", "c"], ["A", "B", "C"], chosen) == ["A", "b", "C"]


def test_each_way_of_captioning_trains_on_the_same_images_and_forgets_all_words(world_model, monkeypatch):
    model = load_model(world_model)
    config = replace(model.config, **bench.IMAGES_ALONE, dit_steps=2)
    latents = torch.arange(4.0).reshape(4, 1, 1, 1, 1).expand(-1, 3, 1, 4, 6)
    seen = []
    starts = []

    def dit_loss(trainer, groups):
        [(x_0, texts, given)] = groups
        assert trainer.is_precomputed and not given.any()
        seen.append([(int(clip[0, 0, 0, 0]), words) for clip, words in zip(x_0, texts, strict=True)])
        starts.append(trainer.dit.word_embedding.weight.clone())
        return [sum(p.sum() for p in trainer.dit.parameters())]

    monkeypatch.setattr(train.Trainer, "dit_loss", dit_loss)
    for words in ("lower", "upper"):
        texts = [getattr(letter, words)() for letter in "abcd"]
        bench.train_on_captions(model, config, latents, texts, batch=3)
    assert seen[0] + seen[1] == [(image, words.lower()) for image, words in seen[2] + seen[3]]
    assert {(image, words) for image, words in sum(seen[:2], [])} <= set(enumerate("abcd"))
    assert seen[0] != seen[1]
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], model.dit.word_embedding.weight)

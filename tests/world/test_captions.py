import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from text import split_words
from world import captions
from world.captions import (
    MAX_BRIEF_WORDS,
    MAX_WORDS,
    describe,
    describe_briefly,
    describe_fully,
    facts,
    facts_at_any_time,
    facts_of_image,
    rich_telling_words,
    rich_vocab,
    vocab,
)
from world.scenes import (
    CAMERAS,
    COLOURS,
    COMBINATIONS,
    DIRECTIONS,
    GAP,
    GROUND,
    GROUNDS,
    KINDS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw_rich_scene,
    render,
)

CIRCLE = Thing("circle", "red", 0.2, (0.5, 0.5), "left", "slowly")
SQUARE = Thing("square", "blue", 0.2, (0.5, 0.5), "up", "quickly")

# The rich world. Meetings are slow to draw, so there are fewer of them.
SMALL_CROSS = Thing("cross", "white", SIZES["small"], (0.2, 0.3), "left", "slowly")
LARGE_STAR = Thing("star", "green", SIZES["large"], (0.7, 0.3), "still", "")
SCENES_OF = {"collide": 20, "bite": 40}
MOST_SCENES = 60
RELATIONS = ("left of", "above")


@pytest.fixture(scope="module")
def scenes():
    """Random scenes that training may show, of all kinds."""
    rng = np.random.default_rng(0)
    return [draw_rich_scene(rng, kind) for kind in KINDS for _ in range(SCENES_OF.get(kind, MOST_SCENES))]


def captions_of(scene, describe_rich, number):
    rng = np.random.default_rng(0)
    return [describe_rich(scene, rng) for _ in range(number)]


def without_relations(told):
    return {fact for fact in told if fact[1] not in RELATIONS}


# The oracle: a reader of full captions that knows English, and nothing of how they were put together.


def read_caption(caption):
    """A full caption → the set of its facts."""
    caption, relations = read_relations(caption)
    first, _, second = re.sub(r"\b(then )?cut to\b", "|", caption).partition("|")
    told = relations | read_ground_and_camera(first, ("ground", "is"), ("camera", "is"))
    if second:
        told |= read_ground_and_camera(second, ("cut to", "ground"), ("cut to", "camera"))
    return told | read_things(re.split(r" (?:over|on) ", first)[0])


def read_relations(caption):
    """→ (the caption without its sentences about relations, what they say)"""
    relation = "right of|left of|above|below"
    sentence = rf" the (\w+) \w+ is ({relation})(?: and ({relation}))? the (\w+) \w+"
    told = set()
    for one, relation, second_relation, other in re.findall(sentence, caption):
        for said in filter(None, (relation, second_relation)):
            mirrored = {"right of": "left of", "below": "above"}.get(said)
            told.add((other, mirrored, one) if mirrored else (one, said, other))
    return re.sub(sentence, "", caption), told


def read_ground_and_camera(shot, ground, camera):
    word = re.search(r"plain|striped|stripes|dotted|dots", shot)[0]
    moves = re.search(r"(?:camera|view) (pans \w+|zooms \w+)", shot)
    ground_seen = {"stripes": "striped", "dots": "dotted"}.get(word, word)
    return {(*ground, ground_seen), (*camera, moves[1] if moves else "still")}


def read_things(text):
    told = set()
    things = list(re.finditer(r"\ba (small|large) (\w+) (\w+)(.*?)(?=\ba (?:small|large)|$)", text))
    met_by = None
    for size, colour, shape, does in (thing.groups() for thing in things):
        told |= {(colour, "shape", shape), (colour, "size", size)}
        if met_by:
            told |= {(*met_by, colour), (colour, "moves", "still")}
            met_by = None
            continue
        told |= read_motion(colour, does)
        meeting = re.search(r"\b(hits|bumps|bites|bite)\b", does)
        if meeting:
            met_by = (colour, "collides" if meeting[1] in ("hits", "bumps") else "bites")
    return told | {("things", "count", str(len(things)))}


def read_motion(colour, does):
    if "bounc" in does:
        return {(colour, "falls", "")}
    if "standing still" in does or "at rest" in does:
        return {(colour, "moves", "still")}
    told = {(colour, "moves", re.search(r"(?:moving|going) (\w+)", does)[1])}
    told.add((colour, "speed", re.search(r"slowly|quickly", does)[0]))
    told |= {(colour, "turns", turn) for turn in re.findall(r"then (?:turning )?(\w+)", does)}
    if "behind a pillar" in does:
        told.add((colour, "hides", ""))
    if "the frame" in does:
        told.add((colour, "leaves", ""))
    return told


# The simple world


@pytest.mark.parametrize("motion, caption", [
    (("direction", "speed"), "a red circle moving left slowly"),
    (("direction",), "a red circle moving left"),
    (("speed",), "a red circle moving slowly"),
    ((), "a red circle"),
])
def test_a_caption_tells_as_much_of_the_motion_as_it_is_asked_to(motion, caption):
    assert describe(Scene([CIRCLE]), motion) == caption


def test_a_caption_tells_all_of_the_motion_if_not_asked():
    assert describe(Scene([SQUARE])) == "a blue square moving up quickly"


def test_several_things_are_joined_in_order():
    assert describe(Scene([CIRCLE, SQUARE]), ()) == "a red circle and a blue square"


def test_the_vocabulary_is_exactly_what_captions_can_say():
    said = set()
    for shape, colour, direction, speed in COMBINATIONS:
        thing = Thing(shape, colour, 0.2, (0.5, 0.5), direction, speed)
        said.update(describe(Scene([thing, thing])).split())
    assert vocab() == sorted(said)


# Facts


@pytest.mark.parametrize("thing, does", [
    (SMALL_CROSS, {("white", "moves", "left"), ("white", "speed", "slowly")}),
    (replace(SMALL_CROSS, then="up"),
     {("white", "moves", "left"), ("white", "speed", "slowly"), ("white", "turns", "up")}),
    (replace(SMALL_CROSS, event="hides"),
     {("white", "moves", "left"), ("white", "speed", "slowly"), ("white", "hides", "")}),
    (replace(SMALL_CROSS, event="leaves"),
     {("white", "moves", "left"), ("white", "speed", "slowly"), ("white", "leaves", "")}),
    (replace(SMALL_CROSS, direction="still", speed="", event="falls"), {("white", "falls", "")}),
    (replace(SMALL_CROSS, direction="still", speed=""), {("white", "moves", "still")}),
])
def test_facts_tell_what_a_thing_is_and_does(thing, does):
    of_thing = [fact for fact in facts(Scene([thing])) if fact[0] == "white"]
    assert sorted(of_thing) == sorted({("white", "shape", "cross"), ("white", "size", "small"), *does})


@pytest.mark.parametrize("meeting", ["collides", "bites"])
def test_a_meeting_is_what_the_first_thing_does_to_the_second(meeting):
    told = facts(Scene([SMALL_CROSS, LARGE_STAR, CIRCLE], meeting=meeting))
    assert [fact for fact in told if fact[1] in ("collides", "bites")] == [("white", meeting, "green")]


def test_facts_count_the_things():
    told = facts(Scene([SMALL_CROSS, LARGE_STAR, CIRCLE]))
    assert ("things", "count", "3") in told


def test_facts_tell_ground_and_camera_of_both_shots():
    next_shot = Scene([SMALL_CROSS], ground="striped", camera="zooms in")
    told = facts(Scene([SMALL_CROSS], ground="dotted", camera="pans up", next_shot=next_shot))
    assert [fact for fact in told if fact[0] in ("ground", "camera", "cut to")] == [
        ("ground", "is", "dotted"), ("camera", "is", "pans up"),
        ("cut to", "ground", "striped"), ("cut to", "camera", "zooms in"),
    ]


def test_a_scene_without_a_cut_has_no_facts_about_one():
    assert all(fact[0] != "cut to" for fact in facts(Scene([SMALL_CROSS])))


def test_no_fact_is_told_twice(scenes):
    assert all(len(set(facts(scene))) == len(facts(scene)) for scene in scenes)


def test_relations_are_what_the_pixels_of_the_first_frame_show(scenes):
    side = 200
    for scene in scenes[::11]:
        # The oracle: each thing drawn alone, and between which rows and columns its pixels lie.
        boxes = {}
        for thing in scene.things:
            picture = render(Scene([thing]), times=np.zeros(1), height=side, width=side)[0]
            rows, columns = (picture != GROUND).any(-1).nonzero()
            boxes[thing.colour] = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]]) / side
        for one, other in permutations(boxes, 2):
            between = boxes[other][0] - boxes[one][1]
            for axis, relation in enumerate(RELATIONS):
                is_told = (one, relation, other) in facts(scene)
                if abs(between[axis] - GAP) > 2 / side:
                    assert is_told == (between[axis] > GAP)


# Full captions


def test_a_full_caption_tells_every_fact_but_relations_and_no_other(scenes):
    rng = np.random.default_rng(1)
    for scene in scenes:
        caption = describe_fully(scene, rng)
        assert without_relations(read_caption(caption)) == without_relations(facts(scene)), caption


def test_the_relations_that_a_full_caption_tells_are_true(scenes):
    rng = np.random.default_rng(1)
    for scene in scenes:
        caption = describe_fully(scene, rng)
        assert read_caption(caption) <= set(facts(scene)), caption


def test_a_full_caption_leaves_out_relations_only_where_there_is_no_room(scenes):
    sentence = "the red circle is left of the blue square"
    rng = np.random.default_rng(1)
    for scene in scenes:
        caption = describe_fully(scene, rng)
        if read_caption(caption) != set(facts(scene)):
            assert len(caption.split()) + len(sentence.split()) > MAX_WORDS, caption


def test_relations_come_before_the_cut():
    shot = Scene([SMALL_CROSS, LARGE_STAR])
    captions = captions_of(replace(shot, next_shot=shot), describe_fully, 20)
    with_relations = [caption for caption in captions if " of the " in caption]
    assert with_relations
    for caption in with_relations:
        assert caption.index(" of the ") < caption.index(" cut to ")


def test_a_full_caption_has_at_most_as_many_words_as_a_model_reads(scenes):
    rng = np.random.default_rng(1)
    longest = max(len(describe_fully(scene, rng).split()) for scene in scenes)
    assert longest <= MAX_WORDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("hide", "cut")])
def test_three_things_fit_into_a_full_caption_whatever_happens(kind):
    scene = draw_rich_scene(np.random.default_rng(2), kind, count=3)
    for caption in captions_of(scene, describe_fully, 10):
        assert len(caption.split()) <= MAX_WORDS
        assert without_relations(read_caption(caption)) == without_relations(facts(scene))


def test_what_does_not_fit_into_a_full_caption_is_refused(monkeypatch):
    monkeypatch.setattr(captions, "MAX_TRIES", 50)
    things = [replace(SMALL_CROSS, colour=colour) for colour in ("red", "green", "blue")]
    shot = Scene(things, ground="dotted", camera="zooms in")
    with pytest.raises(ValueError, match="more than 32 words"):
        describe_fully(replace(shot, next_shot=shot), np.random.default_rng(0))


def test_scenes_of_different_facts_never_share_a_full_caption(scenes):
    rng = np.random.default_rng(2)
    facts_told = {}
    for scene in scenes:
        told = without_relations(facts(scene))
        for _ in range(2):
            assert facts_told.setdefault(describe_fully(scene, rng), told) == told


@pytest.mark.parametrize("scene, two_ways", [
    (Scene([SMALL_CROSS]), ("moving left slowly", "going left slowly")),
    (Scene([LARGE_STAR]), ("standing still", "at rest")),
    (Scene([replace(SMALL_CROSS, then="up")]), ("then up", "then turning up")),
    (Scene([replace(SMALL_CROSS, event="falls")]), ("falls and bounces", "falling and bouncing")),
    (
        Scene([replace(SMALL_CROSS, event="hides")]),
        ("behind a pillar and out again", "passes behind a pillar"),
    ),
    (Scene([replace(SMALL_CROSS, event="leaves")]), ("leaves the frame", "goes out of the frame")),
    (Scene([SMALL_CROSS, LARGE_STAR], meeting="collides"), ("hits a", "bumps into a")),
    (Scene([SMALL_CROSS, LARGE_STAR], meeting="bites"), ("bites a", "takes a bite out of a")),
    (Scene([SMALL_CROSS], ground="striped"), ("over a striped ground", "on stripes")),
    (Scene([SMALL_CROSS], camera="pans up"), ("the camera pans up", "the view pans up")),
    (
        Scene([SMALL_CROSS, LARGE_STAR]),
        ("cross is left of the green star", "star is right of the white cross"),
    ),
    (
        Scene([SMALL_CROSS, replace(LARGE_STAR, start=(0.2, 0.8))]),
        ("cross is above the", "star is below the"),
    ),
])
def test_a_full_caption_puts_a_fact_in_more_than_one_way(scene, two_ways):
    captions = captions_of(scene, describe_fully, 60)
    assert all(any(way in caption for caption in captions) for way in two_ways)


# Brief captions


def test_a_brief_caption_is_short(scenes):
    rng = np.random.default_rng(3)
    assert max(len(describe_briefly(scene, rng).split()) for scene in scenes) <= MAX_BRIEF_WORDS


def test_a_brief_caption_always_names_every_thing_in_order(scenes):
    rng = np.random.default_rng(3)
    shape_of = {shape: shape for shape in SHAPES} | {"ball": "circle", "box": "square"}
    for scene in scenes:
        caption = describe_briefly(scene, rng)
        named = [shape_of[word] for word in caption.split() if word in shape_of]
        assert named == [thing.shape for thing in scene.things], caption


def test_a_brief_caption_says_nothing_false(scenes):
    """Every telling word of it stands in a caption of all the facts, in its everyday form or in this one."""
    rng = np.random.default_rng(3)
    plain_word = {
        "little": "small", "big": "large", "fast": "quickly", "stripes": "striped", "dots": "dotted",
    }
    telling = {*COLOURS, *SIZES, *GROUNDS, "left", "right", "up", "slowly", "quickly", "pans", "zooms"}
    for scene in scenes:
        caption = describe_briefly(scene, rng)
        said = {plain_word.get(word, word) for word in caption.split()}
        true = {word for fact in facts(scene) for part in fact for word in part.split()}
        if any(relation == "left of" for _, relation, _ in facts(scene)):
            true.add("right")
        assert said & telling <= true, caption


@pytest.mark.parametrize("scene, part", [
    (Scene([SMALL_CROSS]), "white"), (Scene([SMALL_CROSS]), "small"), (Scene([SMALL_CROSS]), "left"),
    (Scene([SMALL_CROSS]), "slowly"), (Scene([SMALL_CROSS], ground="dotted"), "dots"),
    (Scene([SMALL_CROSS], camera="pans up"), "pans"), (Scene([replace(SMALL_CROSS, then="up")]), "up"),
    (Scene([replace(SMALL_CROSS, event="hides")]), "pillar"),
    (Scene([SMALL_CROSS, LARGE_STAR], meeting="bites"), "bites"),
    (Scene([SMALL_CROSS], next_shot=Scene([SMALL_CROSS], ground="striped")), "stripes"),
])
def test_a_brief_caption_sometimes_tells_a_fact_and_sometimes_does_not(scene, part):
    tells = {part in caption.split() for caption in captions_of(scene, describe_briefly, 80)}
    assert tells == {True, False}


def test_an_orange_thing_has_the_article_that_english_gives_it():
    captions = captions_of(Scene([replace(SMALL_CROSS, colour="orange")]), describe_briefly, 40)
    assert any("an orange cross" in caption for caption in captions)
    assert not any("a orange" in caption for caption in captions)


# Both


@pytest.mark.parametrize("describe_rich", [describe_fully, describe_briefly])
def test_the_same_seed_gives_the_same_caption(describe_rich, scenes):
    for scene in scenes[::40]:
        assert captions_of(scene, describe_rich, 3) == captions_of(scene, describe_rich, 3)


@pytest.mark.parametrize("describe_rich", [describe_fully, describe_briefly])
def test_a_rich_caption_is_the_words_that_the_model_will_read(describe_rich, scenes):
    rng = np.random.default_rng(4)
    for scene in scenes:
        caption = describe_rich(scene, rng)
        assert " ".join(split_words(caption)) == caption


def test_the_rich_vocabulary_is_exactly_what_captions_of_scenes_to_train_on_say(scenes):
    rng = np.random.default_rng(5)
    said = set()
    for scene in scenes:
        said.update(describe_fully(scene, rng).split(), describe_briefly(scene, rng).split())
    assert rich_vocab() == sorted(said)


def test_every_camera_can_be_told():
    for camera in CAMERAS:
        told = ("stands still" if camera == "still" else camera)
        captions = captions_of(Scene([SMALL_CROSS], camera=camera), describe_fully, 20)
        assert any(told in caption for caption in captions)


@pytest.mark.parametrize("describe_rich", [describe_fully, describe_briefly])
def test_of_an_image_no_motion_is_told(scenes, describe_rich):
    rng = np.random.default_rng(0)
    in_motion = {"moving", "going", "standing", "rest", "falls", "falling", "leaves", "then", "camera"}
    for scene in scenes:
        if not scene.meeting:
            assert not in_motion & set(describe_rich(scene, rng, facts_of_image).split())


@pytest.mark.parametrize("describe_rich", [describe_fully, describe_briefly])
def test_at_any_time_neither_a_direction_nor_a_place_is_true(describe_rich):
    scene = Scene([SMALL_CROSS, replace(LARGE_STAR, start=(0.7, 0.7))])
    passing = {"left", "right", "above", "below", "going", *DIRECTIONS}
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert not passing & set(describe_rich(scene, rng, facts_at_any_time).split())
    assert "moving slowly" in describe_fully(scene, rng, facts_at_any_time)


def test_a_brief_caption_sometimes_tells_where_a_thing_is_and_then_it_is_true():
    scene = Scene([SMALL_CROSS, replace(LARGE_STAR, start=(0.7, 0.7))])
    captions = captions_of(scene, describe_briefly, 200)
    assert any("cross left of a" in caption for caption in captions)
    assert any("cross above a" in caption for caption in captions)
    assert not any("cross right of" in caption or "cross below" in caption for caption in captions)


def test_words_that_tell_something_are_in_the_vocabulary_and_grammar_is_not_among_them():
    assert set(rich_telling_words()) <= set(rich_vocab())
    assert not {"a", "the", "and", "on", "is"} & set(rich_telling_words())

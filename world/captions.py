"""Captions: what a scene shows, in a fixed grammar of few words.

`describe` puts the simple world into words. The rich world has two kinds of captions, and both are drawn from
one list, `facts`, which a reader of videos can be checked against. `describe_fully` tells every fact, so that
the model learns what each word means. `describe_briefly` leaves out a random part and takes everyday words,
as people do when they write a prompt. Wordings are drawn at random, so that no meaning hangs on one word.

Some captions of the rich world are never trained on, so that we can ask whether a model understands sentences
or remembers them. scenes.py says which, and draw_rich_scene does not draw them unless asked:
    RICH_HELD_OUT     one in eleven of the things: a shape, colour, size and motion together
    is_held_out_pair  one in eleven of the pairs: two shapes, in their colours, in one scene
    HELD_OUT_EVENTS   two events together: a thing turns while the camera pans
Every single word is trained; only these combinations are not.

Papers
    Betker et al., "Improving Image Generation with Better Captions" (DALL·E 3, 2023), sec. 3,
    https://cdn.openai.com/papers/dall-e-3.pdf: descriptive captions teach a model more than short ones, and
    a few short ones among them keep it used to how people write. Sora is trained so, too.

Where we differ
    Since we know the scene, its caption is exact, where Sora's captions come from a model that looks at the
    video.
"""

from itertools import permutations

from world.scenes import (
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    GAP,
    MAX_TRIES,
    SHAPES,
    SIMPLE_COLOURS,
    SIMPLE_SHAPES,
    SIZES,
    SPEEDS,
    combination_of,
    pick,
)

MAX_WORDS = 32  # of a full caption: each word is a token, which costs the model time
MAX_BRIEF_WORDS = 14
MEETINGS = ("collides", "bites")
RELATIONS = {"left of": "right of", "above": "below"}  # each with its reverse

# How a full caption may put each fact. The words in braces are the values of facts.
FULL = {
    "still": ("standing still", "at rest"),
    "moves": ("moving {moves} {speed}", "going {moves} {speed}", "{speed} moving {moves}"),
    "turns": ("then {turns}", "then turning {turns}"),
    "falls": ("falls and bounces", "falling and bouncing"),
    "hides": ("behind a pillar and out again", "passes behind a pillar"),
    "leaves": ("leaves the frame and comes back", "goes out of the frame and returns"),
    "collides": ("hits", "bumps into"),
    "bites": ("bites", "takes a bite out of"),
    "ground": ("over {ground}", "on {ground}"),
    "camera": ("the camera {camera}", "the view {camera}"),
    "cut": ("cut to {ground}", "then cut to {ground}"),
}

# How a brief one may put it: of a motion, a turn or a bite it tells more or less.
BRIEF = {
    "still": ("standing still", "not moving"),
    "moves": ("moving {moves} {speed}", "moving {moves}", "going {moves}", "moving {speed}", "moving"),
    "turns": ("turning {turns}", "turning", "going {moves} then {turns}"),
    "falls": ("falls", "falling", "bouncing", "falling down"),
    "hides": ("behind a pillar", "hiding", "going behind a pillar"),
    "leaves": ("leaves", "leaving", "leaves and comes back"),
    "collides": ("hits", "bumps into"),
    "bites": ("bites", "bites into"),
    "ground": ("on {ground}", "over {ground}"),
    "camera": ("the camera {camera}", "camera {camera}"),
    "cut": ("cut to {ground}", "then {ground}"),
}

GROUND_NAMES = {
    "plain": ("a plain ground", "plain ground"),
    "striped": ("a striped ground", "stripes"),
    "dotted": ("a dotted ground", "dots"),
}

CAMERA_WORDS = {"stands still" if camera == "still" else camera: camera for camera in CAMERAS}

# What people also say, which only brief captions do.
EVERYDAY = {
    "circle": ("circle", "ball"),
    "square": ("square", "box"),
    "small": ("small", "little"),
    "large": ("large", "big"),
    "quickly": ("quickly", "fast"),
}


def describe(scene, motion=("direction", "speed")):
    """A scene of the simple world in words: 'a red circle moving left slowly'. The direction is the one at
    time 0.

    motion  which of "direction" and "speed" to tell; () tells neither: 'a red circle'
    """
    phrases = []
    for thing in scene.things:
        words = ["a", thing.colour, thing.shape]
        if motion:
            words.append("moving")
        if "direction" in motion:
            words.append(thing.direction)
        if "speed" in motion:
            words.append(thing.speed)
        phrases.append(" ".join(words))
    return " and ".join(phrases)


def vocab():
    """Every word that `describe` can say, sorted. "and" is needed only by scenes of several things."""
    return sorted({"a", "and", "moving", *telling_words()})


def telling_words():
    """The words that say what a scene of the simple world shows, which "a", "and" and "moving" do not."""
    return [*SIMPLE_SHAPES, *SIMPLE_COLOURS, *DIRECTIONS, *SPEEDS]


def facts(scene, gap=GAP):
    """All that is true of a scene of the rich world, as a list of (subject, relation, value).

    A thing is named by its colour, since no two have the same:
        (colour, "shape", one of SHAPES)    (colour, "size", "small" or "large")
        (colour, "moves", a direction or "still")   at time 0; not of what falls
        (colour, "speed", one of SPEEDS)            only of what moves
        (colour, "turns", the second direction)
        (colour, "falls", "")    (colour, "hides", "")    (colour, "leaves", "")
        (colour, "collides" or "bites", the other colour)
        (colour, "left of" or "above", the other colour)    at time 0, `gap` or more between their boxes

    And of the scene:
        ("things", "count", "1", "2" or "3")
        ("ground", "is", one of GROUNDS)        ("camera", "is", one of CAMERAS)
        ("cut to", "ground", one of GROUNDS)    ("cut to", "camera", one of CAMERAS)

    After a cut the things are the same and move as before, so nothing is said of them again.
    """
    told = [("things", "count", str(len(scene.things)))]
    for thing in scene.things:
        told += facts_of_thing(thing)
    if scene.meeting:
        one, other = scene.things[:2]
        told.append((one.colour, scene.meeting, other.colour))

    # Where things are, as "left of" and "above" alone: "right of" would say the same again.
    for one, other in permutations(scene.things, 2):
        for axis, relation in enumerate(RELATIONS):
            between = (other.start[axis] - other.size) - (one.start[axis] + one.size)
            if between >= gap:
                told.append((one.colour, relation, other.colour))

    told += [("ground", "is", scene.ground), ("camera", "is", scene.camera)]
    if scene.next_shot:
        told += [("cut to", "ground", scene.next_shot.ground), ("cut to", "camera", scene.next_shot.camera)]
    return told


def facts_of_image(scene):
    """The facts that a single frame shows, that of time 0."""
    in_a_frame = ("count", "shape", "size", *RELATIONS)
    return [fact for fact in facts(scene) if fact[1] in in_a_frame or fact[0] == "ground"]


def facts_at_any_time(scene):
    """The facts that stay true while things move and bounce: no direction, and no place."""
    passing = ("moves", *RELATIONS)
    return [fact for fact in facts(scene) if fact[1] not in passing or fact[2] == "still"]


def facts_of_thing(thing):
    """What is true of one thing by itself."""
    shape, colour, size, (direction, speed) = combination_of(thing)
    told = [(colour, "shape", shape), (colour, "size", size)]
    if thing.event != "falls":
        told.append((colour, "moves", direction))
    if speed:
        told.append((colour, "speed", speed))
    if thing.then:
        told.append((colour, "turns", thing.then))
    if thing.event:
        told.append((colour, thing.event, ""))
    return told


def describe_fully(scene, rng, choose=facts):
    """Every fact of a scene, in wordings that are drawn at random: 'a small red circle moving left slowly and
    a large blue square at rest over stripes the camera pans right'.

    rng     numpy Generator
    choose  what is told: `facts`, facts_of_image (of a single frame) or facts_at_any_time

    At most MAX_WORDS words: where no room is left for "left of" and "above", those are left out, and nothing
    else is. A camera of which nothing is said stands still. Raises ValueError where even the other facts do
    not fit, as with three things and a cut between moving cameras.
    """
    told = choose(scene)
    for _ in range(MAX_TRIES):
        opening, ending = tell_all_but_relations(told, rng)
        room = MAX_WORDS - len(opening.split()) - len(ending.split())
        if room >= 0:
            # They are those of time 0, so they come before the cut.
            relations = tell_relations(told, rng, room)
            return " ".join(part for part in (opening, *relations, ending) if part)
    raise ValueError(f"a scene needs more than {MAX_WORDS} words: {told}")


def tell_all_but_relations(told, rng):
    """The two parts of a full caption: up to the cut, and from the cut on ('' where there is none)."""
    phrases = []
    for colour in colours_of(told):
        thing = about(told, colour)
        name = f"a {thing['size']} {colour} {thing['shape']}"
        meeting = meeting_with(told, colour)
        if phrases:
            phrases.append(pick(rng, FULL[meeting]) if meeting else "and")

        # What is hit or bitten stands still, and need not be said to.
        motion = "" if meeting else tell_motion(thing, rng)
        phrases.append(f"{name} {motion}".strip())

    ground = about(told, "ground")["is"]
    camera = about(told, "camera").get("is", "still")
    cut = about(told, "cut to")
    is_calm = camera == "still" and cut.get("camera", "still") == "still"
    tells_camera = not is_calm or (("camera", "is", "still") in told and rng.random() < 0.5)

    opening = [*phrases, tell_ground(FULL["ground"], ground, rng)]
    ending = []
    if cut:
        ending.append(tell_ground(FULL["cut"], cut["ground"], rng))
    if tells_camera:
        opening.append(tell_camera(FULL["camera"], camera, rng))
    if tells_camera and cut:
        ending.append(tell_camera(FULL["camera"], cut["camera"], rng))
    return " ".join(opening), " ".join(ending)


def colours_of(told):
    """The things that a list of facts is about, in the order of the scene."""
    return [subject for subject, relation, _ in told if relation == "shape"]


def about(told, subject):
    """The facts of one subject: relation → value."""
    return {relation: value for who, relation, value in told if who == subject}


def meeting_with(told, colour):
    """What is done to this thing: one of MEETINGS, or "" """
    for _, relation, value in told:
        if relation in MEETINGS and value == colour:
            return relation
    return ""


def tell_motion(thing, rng):
    """What one thing does by itself, in full; `thing` as `about` gives it. '' in an image."""
    if "falls" in thing:
        return pick(rng, FULL["falls"])
    if "moves" not in thing:
        # At any time a thing that moves has its speed, and in an image it has none.
        return f"moving {thing['speed']}" if "speed" in thing else ""
    if thing["moves"] == "still":
        return pick(rng, FULL["still"])

    # First how it moves, then what comes of it.
    wording = pick(rng, FULL["moves"])
    for event in ("turns", "hides", "leaves"):
        if event in thing:
            wording += " " + pick(rng, FULL[event])
    return wording.format_map(thing)


def tell_ground(wordings, ground, rng):
    return pick(rng, wordings).format(ground=pick(rng, GROUND_NAMES[ground]))


def tell_camera(wordings, camera, rng):
    return pick(rng, wordings).format(camera="stands still" if camera == "still" else camera)


def tell_relations(told, rng, room):
    """Sentences that say where things are at time 0, in random order, as many as fit into `room` words."""
    pairs = {}
    for subject, relation, value in told:
        if relation in RELATIONS:
            pairs.setdefault(frozenset((subject, value)), []).append((subject, relation, value))

    sentences = []
    for pair in rng.permutation(len(pairs)):
        true = list(pairs.values())[pair]
        # Both relations in one sentence, or else one of the two.
        for choice in (true, [pick(rng, true)]):
            sentence = tell_pair(told, choice, rng)
            if len(sentence.split()) <= room:
                sentences.append(sentence)
                room -= len(sentence.split())
                break
    return sentences


def tell_pair(told, relations, rng):
    """'the red circle is left of and above the blue square', or from the square's side."""
    first, second = relations[0][0], relations[0][2]
    if rng.random() < 0.5:
        first, second = second, first
    words = [relation if subject == first else RELATIONS[relation] for subject, relation, _ in relations]
    names = [f"the {colour} {about(told, colour)['shape']}" for colour in (first, second)]
    return f"{names[0]} is {' and '.join(words)} {names[1]}"


def describe_briefly(scene, rng, choose=facts):
    """A random part of the facts, as people write: 'a ball and a big square'. The things themselves are
    always told, the rest sometimes. At most MAX_BRIEF_WORDS words.

    rng     numpy Generator
    choose  what may be told: `facts`, facts_of_image (of a single frame) or facts_at_any_time
    """
    told = choose(scene)
    while True:
        caption = tell_some(told, rng)
        if len(caption.split()) <= MAX_BRIEF_WORDS:
            return caption


def tell_some(told, rng):
    """A brief caption, of any length."""
    phrases = []
    before = ""  # the thing that the last phrase names, "" if that tells more
    for colour in colours_of(told):
        meeting = meeting_with(told, colour)
        if phrases:
            phrases.append(join_briefly(told, before, colour, rng))
        phrases.append(name_briefly(about(told, colour), colour, rng))
        before = colour

        # What is hit or bitten stands still only until then.
        thing = about(told, colour)
        tells_motion = ("moves" in thing or "falls" in thing) and not meeting
        if tells_motion and rng.random() < 0.5:
            phrases.append(tell_motion_briefly(about(told, colour), rng))
            before = ""

    if rng.random() < 0.3:
        phrases.append(tell_ground(BRIEF["ground"], about(told, "ground")["is"], rng))
    camera = about(told, "camera").get("is", "still")
    if camera != "still" and rng.random() < 0.6:
        phrases.append(tell_camera(BRIEF["camera"], camera, rng))
    cut = about(told, "cut to")
    if cut and rng.random() < 0.6:
        phrases.append(tell_ground(BRIEF["cut"], cut["ground"], rng))
    return " ".join(phrases)


def join_briefly(told, before, colour, rng):
    """What stands between two things: what one does to the other, where it is, or "and"."""
    meeting = meeting_with(told, colour)
    if meeting and rng.random() < 0.7:
        return pick(rng, BRIEF[meeting])

    # "a ball left of a box": only right behind the ball, so that it cannot be read as the way it moves.
    true = [relation for one, relation, other in told if (one, other) == (before, colour)]
    reverse = [relation for one, relation, other in told if (one, other) == (colour, before)]
    relations = [relation for relation in true if relation in RELATIONS]
    relations += [RELATIONS[relation] for relation in reverse if relation in RELATIONS]
    if relations and rng.random() < 0.5:
        return pick(rng, relations)
    return "and"


def name_briefly(thing, colour, rng):
    """'a ball', 'a big ball', 'an orange ball'."""
    words = [everyday(thing["shape"], rng)]
    if rng.random() < 0.6:
        words.insert(0, colour)
    if rng.random() < 0.3:
        words.insert(0, everyday(thing["size"], rng))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def everyday(word, rng):
    """The word, or another for the same."""
    return pick(rng, EVERYDAY.get(word, (word,)))


def tell_motion_briefly(thing, rng):
    """The most notable thing that one thing does."""
    for event in ("turns", "falls", "hides", "leaves"):
        if event in thing:
            return pick(rng, BRIEF[event]).format_map(thing)
    if thing["moves"] == "still":
        return pick(rng, BRIEF["still"])
    return pick(rng, BRIEF["moves"]).format(moves=thing["moves"], speed=everyday(thing["speed"], rng))


def rich_vocab():
    """Every word that `describe_fully` and `describe_briefly` can say, sorted."""
    lists = [*FULL.values(), *BRIEF.values(), *GROUND_NAMES.values(), *EVERYDAY.values()]
    lists += [SHAPES, COLOURS, SIZES, DIRECTIONS, SPEEDS, CAMERAS, RELATIONS, RELATIONS.values()]
    said = {word for wordings in lists for wording in wordings for word in wording.split() if word[0] != "{"}
    return sorted({"a", "an", "and", "the", "is", "stands", *said})


def rich_telling_words():
    """The words that say what a scene of the rich world shows, which those of grammar do not."""
    everyday_words = [word for words in EVERYDAY.values() for word in words]
    grounds = ("striped", "stripes", "dotted", "dots")
    return [*SHAPES, *COLOURS, *SIZES, *DIRECTIONS, *SPEEDS, *everyday_words, *grounds]


if __name__ == "__main__":
    import numpy as np

    from world.scenes import KINDS, draw_rich_scene, draw_scene

    rng = np.random.default_rng(0)
    print("the simple world")
    for _ in range(4):
        scene = draw_scene(rng)
        print(f"  {describe(scene):42} without its motion: {describe(scene, ())}")
    print(f"  {len(vocab())} words: {' '.join(vocab())}")

    for kind in KINDS:
        print(f"\nthe rich world: {kind}")
        for _ in range(3):
            scene = draw_rich_scene(rng, kind)
            print(f"  {describe_fully(scene, rng)}\n    {describe_briefly(scene, rng)}")
    print(f"\n{len(rich_vocab())} words: {' '.join(rich_vocab())}")

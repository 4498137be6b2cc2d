"""A full caption back to the facts that it tells: the inverse of captions.describe_fully.

With it, a network that writes captions can be scored fact by fact. It understands the grammar of FULL in
captions.py, each wording of it, and nothing else.
"""

import re

from world.captions import CAMERA_WORDS, FULL, GROUND_NAMES, RELATIONS
from world.scenes import COLOURS, DIRECTIONS, SHAPES, SIZES, SPEEDS


def one_of(words):
    """A regular expression for one of some phrases, the longest first."""
    return "(" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + ")"


DIRECTION = one_of(DIRECTIONS)
THING = re.compile(rf"\ba {one_of(SIZES)} {one_of(COLOURS)} {one_of(SHAPES)}\b")
NAME = rf"the {one_of(COLOURS)} {one_of(SHAPES)}"
GROUNDS = {name: ground for ground, names in GROUND_NAMES.items() for name in names}
GROUND = re.compile(rf"\b(?:over|on) {one_of(GROUNDS)}(?= |$)")
CAMERA = re.compile(rf"\bthe (?:camera|view) {one_of(CAMERA_WORDS)}(?= |$)")
CUT = re.compile(rf"\b(?:then )?cut to {one_of(GROUNDS)}(?= |$)")
REVERSE = {reverse: relation for relation, reverse in RELATIONS.items()}
RELATION = one_of([*RELATIONS, *REVERSE])
PLACE = re.compile(rf"\b{NAME} is {RELATION}(?: and {RELATION})? {NAME}(?= |$)")
SPEED = one_of(SPEEDS)
MOVES = re.compile(rf"\b(?:(?:moving|going) {DIRECTION} {SPEED}|{SPEED} moving {DIRECTION})")
TURNS = re.compile(rf"\bthen (?:turning )?{DIRECTION}\b")


def facts_told(caption):
    """A full caption → the set of facts that it tells, as captions.facts gives them.

    A camera of which it says nothing stands still, as describe_fully means it. Words that fit into no fact
    are passed over; `words_without_meaning` names them."""
    return read_caption(caption)[0]


def words_without_meaning(caption):
    """What of a caption tells no fact, as a string; '' for every caption of describe_fully."""
    return read_caption(caption)[1]


def read_caption(caption):
    """→ the set of facts, and what is left of the caption when they are taken out of it."""
    told = set()
    rest = " ".join(caption.split())

    # From the end to the beginning: the second shot, then where things are, then the camera and the ground.
    shots = CUT.split(rest)
    before = shots[0]
    if len(shots) == 3:
        told.add(("cut to", "ground", GROUNDS[shots[1]]))
        camera, left = take(CAMERA, shots[2])
        told.add(("cut to", "camera", CAMERA_WORDS[camera[0]] if camera else "still"))
    else:
        left = " ".join(shots[1:])

    for colour, _, relation, another, other, _ in PLACE.findall(before):
        for word in filter(None, (relation, another)):
            if word in RELATIONS:
                told.add((colour, word, other))
            else:
                told.add((other, REVERSE[word], colour))
    before = PLACE.sub("", before)

    camera, before = take(CAMERA, before)
    told.add(("camera", "is", CAMERA_WORDS[camera[0]] if camera else "still"))
    ground, before = take(GROUND, before)
    if ground:
        told.add(("ground", "is", GROUNDS[ground[0]]))

    of_things, left_of_things = read_things(before)
    return told | of_things, " ".join(f"{left_of_things} {left}".split())


def take(pattern, text):
    """The groups of the first match, or None, and the text without it."""
    match = pattern.search(text)
    if not match:
        return None, text
    return match.groups(), text[: match.start()] + text[match.end() :]


def read_things(text):
    """'a small red circle at rest and a ...' → the facts of its things, and what is left of the text."""
    things = list(THING.finditer(text))
    told = {("things", "count", str(len(things)))}
    left = text[: things[0].start()] if things else text
    met_by = None
    for i, match in enumerate(things):
        size, colour, shape = match.groups()
        told |= {(colour, "shape", shape), (colour, "size", size)}
        if met_by:
            told |= {(*met_by, colour), (colour, "moves", "still")}

        end = things[i + 1].start() if i + 1 < len(things) else len(text)
        motion, meeting, rest = read_motion(text[match.end() : end].strip(), is_last=i + 1 == len(things))
        told |= {(colour, *fact) for fact in motion}
        met_by = (colour, meeting) if meeting else None
        left += f" {rest}"
    return told, left


def read_motion(text, is_last):
    """What stands behind a thing → its facts without the thing, the meeting that ends it or "", the rest."""
    told = set()
    meeting = ""
    if not is_last:
        for name in ("collides", "bites"):
            for wording in FULL[name]:
                if text == wording or text.endswith(" " + wording):
                    meeting = name
                    text = text.removesuffix(wording).strip()
        if not meeting and (text == "and" or text.endswith(" and")):
            text = text.removesuffix("and").strip()

    moves, text = take(MOVES, text)
    if moves:
        told |= {("moves", moves[0] or moves[3]), ("speed", moves[1] or moves[2])}
    turns, text = take(TURNS, text)
    if turns:
        told.add(("turns", turns[0]))
    for name in ("still", "falls", "hides", "leaves"):
        for wording in FULL[name]:
            if wording in text:
                told.add(("moves", "still") if name == "still" else (name, ""))
                text = text.replace(wording, "")
    return told, meeting, text.strip()


if __name__ == "__main__":
    import numpy as np

    from world.captions import describe_fully
    from world.scenes import KINDS, draw_rich_scene

    rng = np.random.default_rng(0)
    for kind in KINDS:
        caption = describe_fully(draw_rich_scene(rng, kind), rng)
        print(caption)
        for fact in sorted(facts_told(caption)):
            print("   ", *fact)

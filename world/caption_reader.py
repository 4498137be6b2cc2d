"""A full caption back to the facts that it tells: the inverse of captions.describe_fully.

With it, a network that writes captions can be scored fact by fact. It understands the grammar of FULL in
captions.py, each wording of it, and nothing else.
"""

import re
from itertools import permutations

from world.captions import BRIEF, CAMERA_WORDS, EVERYDAY, FULL, GROUND_NAMES, RELATIONS
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


# Brief captions, which leave most out: what a prompt asks for, thing by thing.
PLAIN = {word: plain for plain, words in EVERYDAY.items() for word in words}
BRIEF_THING = re.compile(
    rf"\ban? (?:{one_of([word for word in PLAIN if PLAIN[word] in SIZES])} )?(?:{one_of(COLOURS)} )?"
    rf"{one_of([*SHAPES, *EVERYDAY['circle'], *EVERYDAY['square']])}\b"
)
BRIEF_SPEED = one_of([*SPEEDS, *(word for word in PLAIN if PLAIN[word] in SPEEDS)])
BRIEF_MOVES = re.compile(rf"\b(?:moving|going)(?: {DIRECTION})?(?: {BRIEF_SPEED})?(?= |$)")
BRIEF_TURNS = re.compile(rf"\b(?:turning {DIRECTION}|then {DIRECTION})(?= |$)")
BRIEF_CAMERA = re.compile(rf"\b(?:the )?camera {one_of(CAMERA_WORDS)}(?= |$)")
BRIEF_CUT = re.compile(rf"\b(?:cut to|then) {one_of(GROUNDS)}(?= |$)")


def facts_asked(prompt):
    """What a brief caption asks for → [(number of the thing or a subject of facts, relation, value)].

    Things are counted from 0, since a brief caption need not name colours. A value of None asks for any:
    "moving" for any direction, "turning" for any turn."""
    asked = []
    rest = " ".join(prompt.split())
    cut, rest = take(BRIEF_CUT, rest)
    if cut:
        asked.append(("cut to", "ground", GROUNDS[cut[0]]))
    camera, rest = take(BRIEF_CAMERA, rest)
    if camera:
        asked.append(("camera", "is", CAMERA_WORDS[camera[0]]))
    ground, rest = take(GROUND, rest)
    if ground:
        asked.append(("ground", "is", GROUNDS[ground[0]]))

    things = list(BRIEF_THING.finditer(rest))
    asked.append(("things", "count", str(len(things))))
    for i, match in enumerate(things):
        size, colour, shape = match.groups()
        asked.append((i, "shape", PLAIN.get(shape, shape)))
        if size:
            asked.append((i, "size", PLAIN[size]))
        if colour:
            asked.append((i, "colour", colour))
        end = things[i + 1].start() if i + 1 < len(things) else len(rest)
        asked += asked_of_thing(i, rest[match.end() : end].strip())
    return asked


def asked_of_thing(i, text):
    """What stands behind the i-th thing of a brief caption → what it asks for."""
    asked = []
    for relation, reverse in RELATIONS.items():
        if text.endswith(relation):
            asked.append((i, relation, i + 1))
        if text.endswith(reverse):
            asked.append((i + 1, relation, i))
    for meeting in ("collides", "bites"):
        if text.endswith(BRIEF[meeting]):
            asked.append((i, meeting, i + 1))

    if "standing still" in text or "not moving" in text:
        return [*asked, (i, "moves", "still")]
    moves, _ = take(BRIEF_MOVES, text)
    if moves:
        direction, speed = moves
        asked.append((i, "moves", direction))
        if speed:
            asked.append((i, "speed", PLAIN.get(speed, speed)))
    turns, _ = take(BRIEF_TURNS, text)
    if turns or "turning" in text:
        asked.append((i, "turns", (turns[0] or turns[1]) if turns else None))
    for event, words in EVENT_WORDS.items():
        if any(word in text.split() for word in words):
            asked.append((i, event, ""))
    return asked


EVENT_WORDS = {
    "falls": ("falls", "falling", "bouncing"),
    "hides": ("pillar", "hiding"),
    "leaves": ("leaves", "leaving"),
}


def count_kept(prompt, caption):
    """How many of the facts that a brief caption asks for a full one tells → (kept, asked)."""
    colours = [match.group(2) for match in THING.finditer(caption)]
    kept = facts_kept(facts_asked(prompt), facts_told(caption), colours)
    return sum(kept), len(kept)


def facts_shown(asked, found):
    """Which of the facts that a brief caption asks for (facts_asked) a video shows → a list of booleans.

    found: the facts that a reader of videos finds in it. A brief caption need not name colours, so its things
    may be any of the video's: those that show most of what is asked."""
    scene = {"things", "ground", "camera", "cut to"}
    colours = sorted({subject for subject, _, _ in found} - scene)
    orders = [facts_kept(asked, found, order) for order in permutations(colours)]
    return max(orders, key=sum)


def facts_kept(asked, told, colours):
    """Which of the facts asked are among those told, where the i-th thing is the one of the i-th colour."""
    def is_kept(subject, relation, value):
        if isinstance(subject, int):
            if subject >= len(colours):
                return False
            subject = colours[subject]
        if relation == "colour":
            return subject == value
        if isinstance(value, int):
            value = colours[value] if value < len(colours) else ""
        if value is None:
            return any(fact[:2] == (subject, relation) and fact[2] != "still" for fact in told)
        return (subject, relation, value) in told

    return [is_kept(*fact) for fact in asked]


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

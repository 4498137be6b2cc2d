import pytest

import text
from world import captions, scenes
from config import BadInput

WORDS = ["a", "circle", "red"]


def test_ids_are_places_in_the_vocabulary_and_zero_is_no_word():
    assert text.build_vocab(["a RED circle", "red!"]) == WORDS
    assert text.encode_prompts(["A red, circle", "circle", ""], WORDS, 5).tolist() == [[1, 3, 2, 0, 0], [2, 0, 0, 0, 0], [0] * 5]


def test_the_worlds_captions_use_its_words():
    ids = text.encode_prompts([captions.describe(scenes.Scene([scenes.Thing(*c[:2], 0.2, (0, 0), *c[2:])])) for c in scenes.COMBINATIONS], captions.vocab(), 8)
    assert (ids[:, :6] > 0).all() and (ids[:, 6:] == 0).all() and len(set(map(tuple, ids.tolist()))) == len(scenes.COMBINATIONS)


def test_an_unknown_word_is_named_with_the_nearest(capsys):
    assert text.encode_prompts(["a rad circle"], WORDS, 4, warn=True).tolist() == [[1, 2, 0, 0]]
    assert "'rad' (did you mean red?)" in capsys.readouterr().err


def test_a_prompt_that_is_too_long_is_refused():
    with pytest.raises(BadInput, match="3 words; this model reads up to 2"):
        text.encode_prompts(["a red circle"], WORDS, 2)

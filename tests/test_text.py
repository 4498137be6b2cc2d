from config import BadInput

import pytest
import torch

from text import build_vocab, encode_prompts, split_words
from world import captions, scenes

VOCAB = ["a", "circle", "red"]


def test_words_are_small_letters_without_punctuation():
    assert split_words("A red, circle!\n(moving)") == ["a", "red", "circle", "moving"]


def test_an_apostrophe_belongs_to_its_word_and_quotes_do_not():
    assert split_words("don't 'stop' it's2") == ["don't", "stop", "it's2"]


def test_the_vocabulary_is_every_word_once_sorted():
    assert build_vocab(["a RED circle", "red!"]) == VOCAB


def test_ids_are_positions_in_the_vocabulary_and_zero_is_no_word():
    prompt_ids = encode_prompts(["A red, circle", "circle", ""], VOCAB, 5)
    assert prompt_ids.tolist() == [[1, 3, 2, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_ids_are_whole_numbers_that_an_embedding_can_look_up():
    assert encode_prompts(["a"], VOCAB, 2).dtype == torch.int64


def test_no_prompts_have_no_ids():
    assert encode_prompts([], VOCAB, 4).shape == (0, 4)


def test_the_world_s_captions_use_its_words():
    for combination in scenes.COMBINATIONS:
        prompt_ids = encode_prompts([caption_of(combination)], captions.vocab(), 8)
        assert (prompt_ids[:, :6] > 0).all()
        assert (prompt_ids[:, 6:] == 0).all()


def test_no_two_captions_of_the_world_have_the_same_ids():
    prompts = [caption_of(combination) for combination in scenes.COMBINATIONS]
    rows = encode_prompts(prompts, captions.vocab(), 8).tolist()
    assert len({tuple(row) for row in rows}) == len(scenes.COMBINATIONS)


def caption_of(combination):
    shape, colour, direction, speed = combination
    thing = scenes.Thing(shape, colour, 0.2, (0, 0), direction, speed)
    return captions.describe(scenes.Scene([thing]))


def test_an_unknown_word_is_left_out_without_a_gap():
    assert encode_prompts(["a rad circle"], VOCAB, 4).tolist() == [[1, 2, 0, 0]]


def test_an_unknown_word_is_named_with_the_nearest(capsys):
    encode_prompts(["a rad circle"], VOCAB, 4, warn=True)
    assert capsys.readouterr().err == "warning: the model never saw the word 'rad' (did you mean red?)\n"


def test_an_unknown_word_that_is_near_to_none_is_named_with_all_that_are_known(capsys):
    encode_prompts(["a zebu"], VOCAB, 4, warn=True)
    expected = "warning: the model never saw the word 'zebu', it knows: a circle red\n"
    assert capsys.readouterr().err == expected


def test_every_unknown_word_of_a_prompt_is_named_once(capsys):
    encode_prompts(["zebu rad zebu", "a circle"], VOCAB, 4, warn=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("'")[1] for line in lines] == ["rad", "zebu"]


def test_nothing_is_said_unless_asked(capsys):
    encode_prompts(["a rad circle"], VOCAB, 4)
    assert capsys.readouterr().err == ""


def test_a_prompt_may_be_as_long_as_the_model_reads():
    assert encode_prompts(["a red circle"], VOCAB, 3).tolist() == [[1, 3, 2]]


def test_a_prompt_that_is_too_long_is_refused():
    with pytest.raises(BadInput, match="prompt 'a red circle' has 3 words; this model reads up to 2"):
        encode_prompts(["a", "a red circle"], VOCAB, 2)


def test_unknown_words_count_too():
    with pytest.raises(BadInput, match="3 words"):
        encode_prompts(["a rad circle"], VOCAB, 2)

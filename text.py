"""Prompts → what dit.py makes tokens of, which enter the transformer beside the patches.

There are two ways, and the knob `text_encoder` says which. With a vocabulary of its own, a prompt becomes a
few integers, and dit.py learns a vector for each. With the folder of a pretrained text encoder, each of the
prompt's tokens becomes that network's vector for it, a *feature*, which dit.py learns to project: then words
mean something before training begins, and words that no caption of ours has ever used mean something too.

The vocabulary is every word of the training captions, sorted, and travels in the checkpoint. Id 0 is the
empty word: it fills up short prompts and is a token like any other. A prompt of nothing but empty words is
the null prompt: the model learns what videos look like without a description, so that sampling can push
away from that, towards the description (classifier-free guidance, diffusion.py).

Papers
    Classifier-free guidance, Ho & Salimans 2022, sec. 3.2, https://arxiv.org/abs/2207.12598
    Features of a frozen language model: Imagen, Saharia et al. 2022, sec. 2.1,
        https://arxiv.org/abs/2205.11487

Where we differ: a model of the real world always has a pretrained text encoder. The toy world's words are so
few that a vocabulary is enough, and nothing has to be downloaded.

Letters
    B   prompts in a batch
    L   words in a prompt, or tokens of the pretrained encoder
    E   numbers in a feature
"""
from config import BadInput, suggest

import functools
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


def encode_text(prompts, vocab, config):
    """A list of B strings → ids (B, L) or features (B, L, E), as config.text_encoder says; L = max_words.

    Both are 0 where there is no word, and everywhere for ''. Raises BadInput for too long a prompt."""
    if config.text_encoder == "vocabulary":
        return encode_prompts(prompts, vocab, config.max_words)

    tokenizer, network = load_encoder(config.text_encoder)
    features = torch.zeros(len(prompts), config.max_words, feature_width(config))          # (B, L, E)
    told = [row for row, prompt in enumerate(prompts) if prompt.strip()]
    if not told:
        return features
    for row in told:
        count, unit = count_words(prompts[row], config)
        if count > config.max_words:
            raise BadInput(
                f"prompt {prompts[row]!r} has {count} {unit}; this model reads up to {config.max_words}"
            )

    # The attention mask keeps the tokens that fill up short prompts from being heard by the others.
    tokens = tokenizer([prompts[row] for row in told], padding=True, return_tensors="pt")
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        encoded = network(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    length = encoded.shape[1]
    features[told, :length] = encoded * tokens.attention_mask[..., None]
    return features


@functools.cache
def load_encoder(folder):
    """A folder that Hugging Face's save_pretrained wrote (T5, CLIP's text model, MiniLM ...) → its tokenizer
    and its text encoder. Raises BadInput."""
    try:
        import transformers
    except ImportError as error:
        install = "pip install -r requirements-extra.txt"
        raise BadInput(f"text_encoder = {folder!r}: needs the package transformers; {install}") from error

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = transformers.AutoModelForTextEncoding.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
    except (OSError, ValueError, ImportError) as error:
        why = str(error).splitlines()[0][:120]
        expected = "expected 'vocabulary' or the folder of a Hugging Face text encoder with its tokenizer"
        raise BadInput(f"text_encoder = {folder!r}: {expected} ({why})") from error
    return tokenizer, network.eval().requires_grad_(False)


def feature_width(config):
    """How many numbers a feature has; 0 with a vocabulary, which has no features."""
    if config.text_encoder == "vocabulary":
        return 0
    _, network = load_encoder(config.text_encoder)
    return network.config.hidden_size


def count_words(prompt, config):
    """How long a prompt is → (7, "words"), or (9, "tokens") of the pretrained encoder."""
    if config.text_encoder == "vocabulary":
        return len(split_words(prompt)), "words"
    tokenizer, _ = load_encoder(config.text_encoder)
    return len(tokenizer(prompt).input_ids), "tokens"


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

"""Words → tokens: a prompt becomes a few integers, and each integer a vector that enters the transformer beside the patches.

The vocabulary is simply every word of the training captions, sorted, and travels in the checkpoint. Id 0 is the empty word:
it fills short prompts up to L, and a prompt of nothing but empty words is the null prompt that classifier-free guidance
compares with (Ho & Salimans 2022). Sora uses a large pretrained language model's understanding instead (DALL·E 3: T5); here
the vectors are learned with the transformer, since a world of 18 words needs no more.

For safety.py, whose prompts may say anything, `vectors` asks a small pretrained language model, if the extras are installed: MiniLM (Wang et al. 2020;
sentence-transformers/all-MiniLM-L6-v2, whose own library takes three seconds to import).

Letters: B prompts  L words in a prompt  D model width
"""
import re
import sys

import torch

from config import BadInput, suggest


def split_words(prompt):
    """'A red circle!' → ['a', 'red', 'circle']"""
    return re.findall(r"\w+(?:'\w+)?", prompt.lower())


def build_vocab(captions):
    """Every word of the captions, sorted; a word's id is its place in the list + 1."""
    return sorted({word for caption in captions for word in split_words(caption)})


def encode_prompts(prompts, words, length, warn=False):
    """prompts, a list of B strings → ids (B, length), 0 where there is no word. '' is the null prompt.

    A word that is not in the vocabulary `words` is left out; with `warn` it is named on stderr with the nearest known ones.
    Raises BadInput for a prompt of more than `length` words."""
    known, ids = {word: i for i, word in enumerate(words, 1)}, torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in zip(ids, prompts):
        found = split_words(prompt)
        if len(found) > length:
            raise BadInput(f"prompt {prompt!r} has {len(found)} words; this model reads up to {length}")
        for word in sorted(set(found) - set(known)) if warn else ():
            print(f"warning: the model never saw the word {word!r}{suggest(word, words) or ', it knows: ' + ' '.join(words)}", file=sys.stderr)
        kept = [known[word] for word in found if word in known]
        row[: len(kept)] = torch.tensor(kept, dtype=torch.long)
    return ids


if __name__ == "__main__":
    from world import captions

    words = captions.vocab()
    print(len(words), "words:", *words)
    for prompt in ("a red circle moving left slowly", "Red, circle!", "a rad circle", ""):
        print(f"{prompt!r:36}", encode_prompts([prompt], words, 8, warn=True)[0].tolist())

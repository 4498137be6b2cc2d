"""Prompts are judged before anything is made: a classifier refuses what five policies forbid.

Two linear classifiers are averaged. One counts runs of letters, hashed into buckets, after disguises ("k1ll",
"k i l l", cyrillic letters) are taken off; it needs nothing but PyTorch. The other reads sentence vectors of
MiniLM (safety/minilm.py), where they are installed, and understands words it never saw. Sora's announcement
names "our text classifier", and five things whose prompts it blocks: extreme violence, sexual content,
hateful images, celebrity likenesses and someone else's intellectual property. These are our five policies.

Hashed n-grams of words in a linear classifier: Joulin et al. 2016 (fastText), sec. 2.2,
https://arxiv.org/abs/1607.01759; of letters: Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606. How
it is trained and measured: safety/train.py.

Letters
    N   texts
    D   numbers in a sentence vector, 384
"""
from config import BadInput

import functools
import math
import re
import unicodedata
import zlib

import torch
import torch.nn as nn
import torch.nn.functional as F

from safety import minilm
from safety.weights import load_classifier

POLICIES = {
    "allowed": "allowed",
    "violence": "extreme violence",
    "sexual": "sexual content",
    "hate": "hateful imagery",
    "celebrity": "celebrity likeness",
    "ip": "others' intellectual property",
}
NAMES = list(POLICIES)

# Cyrillic, Greek and phonetic letters, digits and signs → the latin letters they look like.
HOMOGLYPHS = str.maketrans(
    "абвгеіјкмнопрстухԁѕαβεικνορτυχωɑɡı01345789@$€+",
    "abbreijkmhonpctyxdsabeiknoptuxwagioieastbgaset",
)
BUCKETS = 2**16
GRAM_LENGTHS = (3, 4, 5, 6)
SHARPER = 8  # sentence vectors have length 1, so a linear layer's scores of them are small


def plain(prompt):
    """A prompt without its disguises, in small latin letters and spaces."""
    # Full-width and accented letters lose their form and their accents: "ÇAT" → "cat".
    decomposed = unicodedata.normalize("NFKD", prompt).casefold()
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))

    # Look-alikes become the letters they stand for, ! and | only inside a word: "k!11" → "kiii".
    letters = re.sub(r"(?<=\w)[!|](?=\w)", "i", letters)
    letters = letters.translate(HOMOGLYPHS)

    # Signs between whole words part them ("red,blue" → "red blue"); others vanish ("k.i-l.l" → "kill").
    letters = re.sub(r"(?<=[a-z]{2})[^a-z]+(?=[a-z]{2})|[,.;:?!]\s", " ", letters + " ")
    letters = re.sub(r"[^a-z\s]", "", letters)

    # Three or more single letters in a row are a word spelled out: "k i l l" → "kill".
    letters = re.sub(r"\b(?:[a-z]\s){2,}[a-z]\b", without_spaces, letters)
    return " ".join(letters.split())


def without_spaces(match):
    return re.sub(r"\s", "", match[0])


def stretches(text, length=48, stride=16):
    """A text, and if it is long its overlapping stretches: nothing hides among harmless words."""
    if len(text) <= length:
        return [text]
    starts = range(0, len(text) - length + stride, stride)
    return [text] + [text[start : start + length] for start in starts]


def ngrams(texts):
    """The buckets of the texts' runs of 3 to 6 letters, one text after the other, and how many each text has.

    Spaces and repeated letters do not count, and l is i ("k1ll"), so that none of them can hide a word."""
    buckets = []
    counts = []
    for text in texts:
        letters = text.replace(" ", "").replace("l", "i")
        letters = re.sub(r"(.)\1+", r"\1", letters).encode()
        before = len(buckets)
        for length in GRAM_LENGTHS:
            for start in range(len(letters) - length + 1):
                # crc32 and not hash(): Python's own differs from process to process.
                buckets.append(zlib.crc32(letters[start : start + length]) % BUCKETS)
        counts.append(len(buckets) - before)
    return torch.tensor(buckets, dtype=torch.long), torch.tensor(counts)


class PromptClassifier(nn.Module):
    """`ngrams` of N plain texts → log probabilities (N, 6), one for each of POLICIES.

    Where there are sentence vectors (N, D), the probabilities are the mean of both linear layers'."""

    def __init__(self):
        super().__init__()
        self.grams = nn.EmbeddingBag(BUCKETS, len(POLICIES), mode="sum")
        self.bias = nn.Parameter(torch.zeros(len(POLICIES)))
        self.sentence = nn.Linear(384, len(POLICIES))
        nn.init.zeros_(self.grams.weight)  # a run of letters that was never seen says nothing

    def forward(self, grams, vectors=None):
        buckets, counts = grams

        # Four of five runs are dropped in training, so that no single one decides.
        kept = F.dropout(torch.ones(len(buckets)), 0.8, self.training)

        # A text's runs begin where those of the texts before it end. Divided by the root of their number: a
        # text is not surer for being long.
        starts = counts.cumsum(0) - counts
        scores = self.grams(buckets, starts, kept)                                    # (N, 6)
        scores = scores / counts[:, None].clamp(min=1) ** 0.5 + self.bias
        by_letters = scores.log_softmax(1)
        if vectors is None:
            return by_letters

        # The mean of both probabilities, as a logarithm.
        by_meaning = (SHARPER * self.sentence(vectors)).log_softmax(1)
        return torch.stack([by_letters, by_meaning]).logsumexp(0) - math.log(2)


@torch.no_grad()
def judge(network, prompts, sentences=True):
    """Prompts → for each (policy, how sure, the stretch that decides).

    A prompt is as bad as its worst stretch. How sure: the probability of "allowed", or that of all five
    policies together. `sentences`: use sentence vectors, if they are installed."""
    parts = [stretches(plain(prompt)) for prompt in prompts]
    lengths = [len(part) for part in parts]
    texts = [text for part in parts for text in part]

    # A sentence vector understands words as they are written; of a disguised prompt only letters decide.
    written = []
    for prompt, part in zip(prompts, parts, strict=True):
        written += len(part) * [part[0] == without_punctuation(prompt)]

    grams = ngrams(texts)
    vectors = minilm.sentence_vectors(texts) if sentences else None
    log_probs = torch.where(torch.tensor(written)[:, None], network(grams, vectors), network(grams))
    return [verdict(part, probs) for part, probs in zip(parts, log_probs.exp().split(lengths), strict=True)]


def without_punctuation(prompt):
    return " ".join(re.sub(r"[,.;:?!]", " ", prompt.casefold()).split())


def verdict(texts, probs):
    """The stretches of one prompt and their probabilities (N, 6) → (policy, how sure, stretch), see judge."""
    worst = int(probs[:, 0].argmin())  # the stretch that is least likely to be allowed
    allowed_prob = float(probs[worst, 0])
    if allowed_prob >= 0.5:
        return "allowed", allowed_prob, texts[worst]
    policy = NAMES[1 + int(probs[worst, 1:].argmax())]
    return policy, 1 - allowed_prob, texts[worst]


@functools.cache
def classifier():
    """The trained PromptClassifier. Raises BadInput where its weights cannot be read."""
    return load_classifier(PromptClassifier(), "prompts")


def check_prompts(prompts):
    """Raises BadInput for a prompt that a policy forbids, or of whose signs less than half can be read."""
    verdicts = judge(classifier(), prompts)
    for prompt, (policy, prob, text) in zip(prompts, verdicts, strict=True):
        signs = len("".join(prompt.split()))
        letters = len(plain(prompt).replace(" ", ""))
        if signs > 2 * letters:
            raise BadInput(f"prompt {prompt!r}: cannot be judged; expected English words")
        if policy != "allowed":
            raise BadInput(
                f"prompt {prompt!r}: refused, {POLICIES[policy]} "
                f"({prob:.0%} sure, for {text!r}); nothing was made"
            )


if __name__ == "__main__":
    asked = ["a red cross moving left", "T a y l o r  S w 1 f t sings", "a man beheading a woman"]
    for prompt, (policy, prob, _) in zip(asked, judge(classifier(), asked), strict=True):
        print(f"{prompt!r} reads {plain(prompt)!r}: {POLICIES[policy]} ({prob:.0%} sure)")

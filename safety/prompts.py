"""Prompts."""
import functools
import re
import unicodedata
import zlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput
from safety.minilm import sentence_vectors
from safety import weights


POLICIES = {"allowed": "allowed", "violence": "extreme violence", "sexual": "sexual content", "hate": "hateful imagery", "celebrity": "celebrity likeness", "ip": "others' intellectual property"}
# prompts
HOMOGLYPHS = str.maketrans("абвгеіјкмнопрстухԁѕαβεικνορτυχωɑɡı01345789@$€+", "abbreijkmhonpctyxdsabeiknoptuxwagioieastbgaset")
BUCKETS, GRAMS = 2**16, (3, 4, 5, 6)
SHARPER = 8  # sentence vectors have length 1, so a linear layer's scores of them are small


def plain(prompt):
    """A prompt without its disguises, in small latin letters and spaces."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", prompt).casefold() if not unicodedata.combining(c))  # "ÇAT" → "cat"
    letters = re.sub(r"(?<=\w)[!|](?=\w)", "i", letters).translate(HOMOGLYPHS)                                          # "k!11" → "kiii"
    letters = re.sub(r"(?<=[a-z]{2})[^a-z]+(?=[a-z]{2})|[,.;:?!]\s", " ", letters + " ")                                # "red, a_blue" → "red a blue"
    letters = re.sub(r"[^a-z\s]", "", letters)                                                                         # "k.i-l.l" → "kill"
    letters = re.sub(r"\b(?:[a-z]\s){2,}[a-z]\b", lambda spelled: re.sub(r"\s", "", spelled[0]), letters)             # "k i l l" → "kill"
    return " ".join(letters.split())


def stretches(text, length=48, stride=16):
    """A text, and if it is long every stretch of 48 letters, so that nothing hides among harmless words."""
    return [text] + [text[i : i + length] for i in range(0, len(text) - length + stride, stride) if len(text) > length]


def ngrams(texts):
    """The buckets that texts' runs of 3 to 6 letters fall into, one text after the other, and how many each has.

    Spaces and repeated letters do not count, and l is i ("k1ll"), so that none of them can hide a word."""
    letters = [re.sub(r"(.)\1+", r"\1", text.replace(" ", "").replace("l", "i")).encode() for text in texts]
    buckets = [[zlib.crc32(s[i : i + n]) % BUCKETS for n in GRAMS for i in range(len(s) - n + 1)] for s in letters]
    return torch.tensor([b for some in buckets for b in some], dtype=torch.long), torch.tensor([len(some) for some in buckets])


class PromptClassifier(nn.Module):
    """`ngrams` of plain texts → log probabilities (N, 6), from a linear layer; averaged with those from another one on sentence vectors (N, D), if there are any."""

    def __init__(self):
        super().__init__()
        self.grams, self.bias, self.sentence = nn.EmbeddingBag(BUCKETS, len(POLICIES), mode="sum"), nn.Parameter(torch.zeros(len(POLICIES))), nn.Linear(384, len(POLICIES))
        nn.init.zeros_(self.grams.weight)                                            # a run of letters that was never seen says nothing

    def forward(self, grams, vectors=None):
        buckets, counts = grams
        kept = F.dropout(torch.ones(len(buckets)), 0.8, self.training)               # so that no single run of letters decides
        scores = self.grams(buckets, counts.cumsum(0) - counts, kept) / counts[:, None].clamp(min=1) ** 0.5 + self.bias  # a text is not surer for being long
        by_letters = scores.log_softmax(1)
        if vectors is None:
            return by_letters
        by_meaning = (SHARPER * self.sentence(vectors)).log_softmax(1)
        return torch.stack([by_letters, by_meaning]).logsumexp(0) - np.log(2)         # the mean of both probabilities, as a logarithm


@torch.no_grad()
def judge(network, prompts, sentences=True):
    """Prompts → a (policy, how sure, the stretch that decides) for each. A prompt is as bad as its worst stretch.

    A sentence vector understands words as they are written, so of a prompt in disguise only the letters decide."""
    parts = [stretches(plain(p)) for p in prompts]
    flat, grams = [part for some in parts for part in some], ngrams([part for some in parts for part in some])
    written = torch.tensor([some[0] == " ".join(re.sub(r"[,.;:?!]", " ", p.casefold()).split()) for p, some in zip(prompts, parts) for _ in some])
    about = sentence_vectors(flat) if sentences else None
    probabilities = torch.where(written[:, None], network(grams, about), network(grams)).exp().split([len(some) for some in parts])
    verdicts = []
    for some, p in zip(parts, probabilities):
        stretch = int(p[:, 0].argmin())                                              # the one that is least likely to be allowed
        allowed = float(p[stretch, 0])
        policy = "allowed" if allowed >= 0.5 else list(POLICIES)[int(p[stretch, 1:].argmax()) + 1]
        verdicts.append((policy, allowed if policy == "allowed" else 1 - allowed, some[stretch]))
    return verdicts


@functools.cache
def classifier():
    """The trained PromptClassifier."""
    return weights.load_classifier(PromptClassifier(), "prompts")


def check_prompts(prompts):
    """Raises BadInput for a prompt that a policy forbids, or of whose signs less than half can be read."""
    for prompt, (policy, sure, part) in zip(prompts, judge(classifier(), prompts)):
        if len("".join(prompt.split())) > 2 * len(plain(prompt).replace(" ", "")):
            raise BadInput(f"prompt {prompt!r}: cannot be judged; expected English words")
        if policy != "allowed":
            raise BadInput(f"prompt {prompt!r}: refused, {POLICIES[policy]} ({sure:.0%} sure, for {part!r}); nothing was made")



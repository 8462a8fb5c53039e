"""Asks transformers and sentence-transformers for the embeddings of tiny encoders, for tests/data/embeddings/goldens.json.

The models are those that `compute/tests/tiny_encoders.rs` writes; the tests build the same again and compare. transformers
runs the encoder in f32 on the CPU, one text at a time; what the folder's modules.json lists behind it is loaded from there
by sentence-transformers.

    mkdir /tmp/tiny && ROADBED_WRITE_ENCODERS=/tmp/tiny cargo test -p roadbed-compute --locked --test main can_be_written
    python embeddings_goldens.py /tmp/tiny tests/data/embeddings/goldens.json

Needs torch, transformers and sentence-transformers (three gigabytes), which are no part of the peers' environment.
With --check the file is compared instead of written.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys

import numpy
import torch
import transformers
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

PACKAGES = ["torch", "transformers", "sentence-transformers"]
# f32 sums in another order.
TOLERANCE = 2e-6


def embeddings(folder, texts):
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    assert model.dtype == torch.float32
    listed = folder / "modules.json"
    modules = [module["type"].rsplit(".", 1)[-1] for module in json.loads(listed.read_text())] if listed.exists() else []
    # What sentence-transformers makes of a folder without modules.
    pooling = Pooling.load(str(folder / "1_Pooling")) if modules else Pooling(model.config.hidden_size, "mean")
    for ids in texts:
        ids = torch.tensor([ids])
        with torch.no_grad():
            features = {"token_embeddings": model(ids).last_hidden_state, "attention_mask": torch.ones_like(ids)}
            features = pooling(features)
            if "Normalize" in modules:
                features = Normalize()(features)
        yield features["sentence_embedding"][0].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("goldens", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {}
    for folder in sorted(arguments.models.iterdir()):
        texts = json.loads((folder / "texts.json").read_text())
        found = list(embeddings(folder, texts))
        models[folder.name] = {"texts": texts, "embeddings": [[float(f"{v:.9g}") for v in row] for row in found]}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    if not arguments.check:
        lines = [f'"{name}": {json.dumps(model)}' for name, model in models.items()]
        text = f'{{"versions": {json.dumps(versions)}, "models": {{\n' + ",\n".join(lines) + "\n}}\n"
        arguments.goldens.write_text(text)
        return
    known = json.loads(arguments.goldens.read_text())["models"]
    assert known.keys() == models.keys(), "other models"
    worst = 0.0
    for name, model in models.items():
        assert known[name]["texts"] == model["texts"], f"{name}: other texts"
        for ours, theirs in zip(known[name]["embeddings"], model["embeddings"], strict=True):
            scale = max(1.0, numpy.abs(theirs).max())
            worst = max(worst, numpy.abs(numpy.subtract(ours, theirs)).max() / scale)
    print(f"{len(models)} encoders, {worst:.1e} off at most")
    if worst > TOLERANCE:
        sys.exit("the goldens are not what these versions give")


if __name__ == "__main__":
    main()

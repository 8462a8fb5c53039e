"""Asks llama.cpp what tiny models say, for tests/data/llama_cpp/logprobs.json.

The models are those that `compute/tests/tiny_families.rs` writes; the tests build the same bytes again and compare their
own logprobs with these. Every model exists twice, as it is and with its weights dequantised to f32: llama.cpp rounds
activations to 8 bits before it multiplies quantised weights, so only the second shows whether we compute the same.

    mkdir /tmp/tiny && ROADBED_WRITE_TINY=/tmp/tiny cargo test -p roadbed-compute --locked --test main can_be_written
    tests/peers/python tests/peers/llama_cpp_goldens.py /tmp/tiny tests/data/llama_cpp/logprobs.json

With --check the file is compared instead of written.
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import sys

import gguf
import xllamacpp

VOCABULARY = 64
PROMPT = [(i * 29 + i * i * 5 + 11) % VOCABULARY for i in range(33)]
# Logprobs after these many ids of the prompt: before and far beyond the windows of six positions.
LENGTHS = [4, 33]


class Model:
    def __init__(self, path):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.n_gpu_layers, params.n_ctx, params.n_parallel, params.warmup = 0, 128, 1, False
        # f32 throughout, as the engine computes.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # llama.cpp reads these keys in some families only; elsewhere they are options.
        fields = gguf.GGUFReader(path).fields
        for name in ["ext_factor", "beta_fast", "beta_slow"]:
            field = fields.get(f"llama.rope.scaling.yarn_{name}")
            if field is not None:
                setattr(params, f"yarn_{name}", float(field.contents()))
        self.server = xllamacpp.Server(params)

    def logprobs(self, ids):
        body = {
            "prompt": ids, "n_predict": 1, "n_probs": VOCABULARY, "post_sampling_probs": False,
            "temperature": 0, "cache_prompt": False,
        }
        answer = self.server.handle_completions(body)
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        by_id = {entry["id"]: entry["logprob"] for entry in top}
        assert sorted(by_id) == list(range(VOCABULARY)), "a logprob for every token"
        return [round(by_id[i], 6) for i in range(VOCABULARY)]


def ask(folder):
    models = {}
    for path in sorted(folder.glob("*.gguf")):
        if path.name.endswith(".dequantised.gguf"):
            continue
        f32 = path.with_name(f"{path.stem}.dequantised.gguf")
        plain = Model(f32)
        models[path.stem] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "dequantised": [plain.logprobs(PROMPT[:n]) for n in LENGTHS],
        }
        if path.read_bytes() != f32.read_bytes():
            models[path.stem]["quantised"] = Model(path).logprobs(PROMPT[:LENGTHS[-1]])
    return models


def write(out, models):
    version = importlib.metadata.version("xllamacpp")
    head = f'"xllamacpp": "{version}",\n"prompt": {PROMPT},\n"lengths": {LENGTHS},\n"models": {{\n'
    lines = [f"{json.dumps(name)}: {json.dumps(model, separators=(',', ':'))}" for name, model in models.items()]
    out.write_text("{\n" + head + ",\n".join(lines) + "\n}\n}\n")


def check(out, models):
    known = json.loads(out.read_text())["models"]
    if known.keys() != models.keys():
        sys.exit(f"other models: {sorted(known.keys() ^ models.keys())}")
    farthest = 0.0
    for name, model in models.items():
        if model["sha256"] != known[name]["sha256"]:
            sys.exit(f"{name} is another file than the one recorded")
        rows = zip(model["dequantised"], known[name]["dequantised"])
        far = max(abs(a - b) for row, other in rows for a, b in zip(row, other))
        farthest = max(farthest, far)
        # Another processor adds up in another order; Gemma's f16 table makes steps of such differences.
        if far > (1e-2 if name.startswith("gemma") else 1e-4):
            sys.exit(f"{name}: llama.cpp is {far} from what was recorded")
    print(f"llama.cpp says the same of {len(models)} models, within {farthest:.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("file", type=pathlib.Path)
    arguments = parser.parse_args()
    models = ask(arguments.folder)
    (check if arguments.check else write)(arguments.file, models)


main()

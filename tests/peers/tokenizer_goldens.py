#!/usr/bin/env python3
"""Golden token ids by Hugging Face `tokenizers`, for compute/tests/tokenizer_goldens.rs.

    tokenizer_goldens.py train             small vocabularies (bases.json)
    tokenizer_goldens.py goldens OUT GGUF  goldens.json, with the real vocabulary of SmolLM2's file
    tokenizer_goldens.py strings           the strings, one JSON text a line
    tokenizer_goldens.py check JSON PROGRAM...
        compares a real tokenizer.json with PROGRAM..., which reads the strings and writes ids

Needs tokenizers 0.23, sentencepiece 0.2 (train), gguf 0.19 (GGUF). The 10 000 strings come from
fragments.json and a splitmix64 generator, which the Rust test implements too: only hashes are stored.
"""

import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

DATA = Path(__file__).resolve().parents[1] / "data" / "tokenizer"
SEED = 20261123
STRINGS = 10_000
CHUNK = 100
MASK = (1 << 64) - 1


class Random:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed & MASK

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 33) % bound


def fragment(random, kinds):
    draw = random.below(sum(kind["weight"] for kind in kinds))
    for kind in kinds:
        if draw < kind["weight"]:
            break
        draw -= kind["weight"]
    low, high = kind["repeat"]
    text = ""
    if "same" in kind:
        return kind["same"][random.below(len(kind["same"]))] * (low + random.below(high - low + 1))
    for _ in range(low + random.below(high - low + 1)):
        if "items" in kind:
            text += kind["items"][random.below(len(kind["items"]))]
        else:
            first, last = kind["ranges"][random.below(len(kind["ranges"]))]
            text += chr(first + random.below(last - first + 1))
    return text


def string(kinds, seed, index):
    random = Random(seed + index * 0x2545F4914F6CDD1D)
    text = ""
    for _ in range(random.below(13)):
        text += fragment(random, kinds)
        if random.below(2) == 0:
            text += " "
    return text


def strings(seed=SEED, count=STRINGS):
    kinds = json.loads((DATA / "fragments.json").read_text())["kinds"]
    return [string(kinds, seed, index) for index in range(count)]


def hashes(ids_of_strings):
    found = []
    for start in range(0, len(ids_of_strings), CHUNK):
        digest = hashlib.sha256()
        for ids in ids_of_strings[start : start + CHUNK]:
            digest.update(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
        found.append(digest.hexdigest()[:16])
    return found


def golden(tokenizer):
    texts = strings()
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    prompt = "Hello, farm! 42"
    return {
        "hashes": hashes(ids),
        "prompt": {"text": prompt, "ids": tokenizer.encode(prompt).ids},
        "examples": [{"text": text, "ids": own} for text, own in list(zip(texts, ids))[:6]],
    }


# --- small vocabularies -------------------------------------------------------------------------


def corpus():
    """Without the names of added tokens, which are not made of words."""
    added = re.compile(r"<\|[^>]*\|>|</?[a-z_]+>|\[/?[A-Z]+\]|<｜[^｜]*｜>|cat_token|Ünorm")
    lines = [added.sub("", line) for line in strings(seed=1, count=6000)]
    root = Path(__file__).resolve().parents[2]
    for name in ["README.md", "ARCHITECTURE.md"]:
        lines += (root / name).read_text().splitlines()
    return lines


def train_byte_level():
    """Merges that reach over words, so that a wrong cut shows in the ids."""
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=24,
    )
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    lines = corpus()
    words = [piece for line in lines for piece, _ in pieces.pre_tokenize_str(line)]
    back = {c: b for b, c in byte_alphabet().items()}
    words = [bytes(back[c] for c in word).decode("utf8", "replace") for word in words]
    tokenizer.train_from_iterator(lines + words * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # Words that no merge makes: only a tokenizer that takes whole words finds them.
    for word in ["Ġunmergeable", "Ġquixotic", "xylophone", "Ġ<|", "é!"]:
        word = word.replace("é", "Ã©")
        model["vocab"].setdefault(word, len(model["vocab"]))
    return {
        "tokens": sorted(model["vocab"], key=model["vocab"].get),
        "merges": [" ".join(merge) for merge in model["merges"]],
    }


def byte_alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def train_sentence_piece():
    import sentencepiece

    # Rare characters must stay out of a small vocabulary: they become bytes.
    lines = [line for line in corpus() if "\0" not in line]
    counts = Counter("".join(lines))
    lines = ["".join(c for c in line if counts[c] >= 20) for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=f"{folder}/m",
            model_type="bpe",
            vocab_size=2500,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/m.model")
    count = model.get_piece_size()
    tokens = [model.id_to_piece(i) for i in range(count)]
    scores = [model.get_score(i) for i in range(count)]
    kinds = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in range(count)
    ]
    # As transformers' SentencePieceExtractor makes merges: every way to write a piece as two, by
    # the score of the whole and then by the ids of the halves.
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    for i, token in enumerate(tokens):
        ways = [(token[:k], token[k:]) for k in range(1, len(token))]
        ways = [(left, right) for left, right in ways if left in ids and right in ids]
        ways.sort(key=lambda way: (ids[way[0]], ids[way[1]]))
        merges += [(left, right, scores[i]) for left, right in ways]
    merges.sort(key=lambda merge: merge[2], reverse=True)
    return {
        "tokens": tokens,
        "scores": scores,
        "kinds": kinds,
        "merges": [f"{left} {right}" for left, right, _ in merges],
    }


def train_word_piece():
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=2500, special_tokens=special, show_progress=False, limit_alphabet=900
    )
    # In GGUF the mark stands for the beginning of a word.
    tokenizer.train_from_iterator((line.replace("▁", "") for line in corpus()), trainer)
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    return {"tokens": sorted(vocab, key=vocab.get)}


def train():
    bases = {
        "byte_level": train_byte_level(),
        "sentence_piece": train_sentence_piece(),
        "word_piece": train_word_piece(),
    }
    text = json.dumps(bases, ensure_ascii=False, separators=(",", ":"))
    (DATA / "bases.json").write_text(text + "\n")


# --- goldens ------------------------------------------------------------------------------------


def assemble(pipeline, bases):
    """A whole tokenizer.json: a pipeline of pipelines.json and its base's vocabulary."""
    document = dict(pipeline["tokenizer"])
    base = bases[pipeline["base"]]
    document["model"] = dict(document["model"])
    document["model"]["vocab"] = {token: i for i, token in enumerate(base["tokens"])}
    if "merges" in base:
        merges = base["merges"]
        pairs = pipeline.get("merges_as_pairs", False)
        document["model"]["merges"] = [merge.split(" ") for merge in merges] if pairs else merges
    return document


def from_gguf(path):
    """The tokenizer of a GGUF file, built anew from its vocabulary with SmolLM's pipeline."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    texts = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    tokens = texts("tokenizer.ggml.tokens")
    kinds = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    pipelines = json.loads((DATA / "pipelines.json").read_text())
    document = dict(pipelines["smollm"]["tokenizer"])
    document["added_tokens"] = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": kind == 3}
        for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind in (2, 3, 4)
    ]
    document["model"] = dict(document["model"])
    document["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    document["model"]["merges"] = texts("tokenizer.ggml.merges")
    return Tokenizer.from_str(json.dumps(document))


def goldens(out, gguf):
    bases = json.loads((DATA / "bases.json").read_text())
    found = {"tokenizers": tokenizers.__version__, "seed": SEED, "strings": STRINGS, "chunk": CHUNK}
    digest = hashlib.sha256("\0".join(strings()).encode()).hexdigest()[:16]
    found |= {"strings_sha256": digest, "cases": {}}
    for name, pipeline in json.loads((DATA / "pipelines.json").read_text()).items():
        tokenizer = Tokenizer.from_str(json.dumps(assemble(pipeline, bases)))
        found["cases"][name] = golden(tokenizer)
    found["cases"]["smollm2-135m"] = golden(from_gguf(gguf))
    text = json.dumps(found, ensure_ascii=True, indent=1)
    Path(out).write_text(text + "\n")


def check(path, program):
    tokenizer = Tokenizer.from_file(path)
    texts = strings()
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    run = subprocess.run([*program, path], input=lines, capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in run.stdout.splitlines()]
    wrong = 0
    for text, ids in zip(texts, theirs, strict=True):
        own = tokenizer.encode(text, add_special_tokens=False).ids
        if own != ids:
            wrong += 1
            if wrong <= 3:
                at = next((i for i, (a, b) in enumerate(zip(own, ids)) if a != b), 0)
                print(repr(text), own[at : at + 8], ids[at : at + 8], file=sys.stderr)
                print([tokenizer.id_to_token(i) for i in own[at : at + 8]], file=sys.stderr)
                print([tokenizer.id_to_token(i) for i in ids[at : at + 8]], file=sys.stderr)
    print(f"{path}: {len(texts) - wrong} of {len(texts)} equal")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["train"]:
            train()
        case ["goldens", out, gguf]:
            goldens(out, gguf)
        case ["strings"]:
            for text in strings():
                print(json.dumps(text))
        case ["check", path, *program]:
            check(path, program)
        case _:
            sys.exit(__doc__)

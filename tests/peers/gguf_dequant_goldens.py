"""Writes tests/data/gguf/<TYPE>.{blocks,f32}: random blocks of every tensor type and their weights by the gguf package.

Usage: python tests/peers/gguf_dequant_goldens.py [FOLDER]     (needs gguf 0.19 and numpy)
Random bytes everywhere; the f16 scales of the first blocks are edges (zeros, the smallest, subnormal, large and negative
numbers), the others are random but finite. Exponents of MXFP4 cover all 256 values. Deterministic.
"""
import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

BLOCKS = {T.F16: 512, T.BF16: 512, T.Q4_0: 32, T.Q4_1: 32, T.Q5_0: 32, T.Q5_1: 32, T.Q8_0: 32,
          T.Q4_K: 16, T.Q5_K: 16, T.Q6_K: 16, T.MXFP4: 256}
# Byte offsets of the f16 fields in a block.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
EDGES = np.array([0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 3e-5, 65504.0, -65504.0, 1.0, -1.0], dtype=np.float16)


def blocks_of(kind, random):
    count, (_, size) = BLOCKS[kind], quants.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    if kind in (T.F16, T.BF16):
        # Every sign and exponent but those of infinities and NaN.
        words = random.integers(0, 1 << 16, count, dtype=np.uint16)
        exponent = 0x7C00 if kind == T.F16 else 0x7F80
        words[(words & exponent) == exponent] &= 0x83FF
        return words.view(np.uint8).reshape(count, 2)
    for field in HALVES.get(kind, []):
        halves = (random.standard_normal(count) * 0.1).astype(np.float16)
        halves[:len(EDGES)] = np.roll(EDGES, field)
        blocks[:, field:field + 2] = halves.view(np.uint8).reshape(count, 2)
    if kind == T.MXFP4:
        blocks[:, 0] = np.arange(256)
    return blocks


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/gguf")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in BLOCKS:
        blocks = blocks_of(kind, np.random.default_rng(int(kind)))
        with np.errstate(over="ignore"):
            weights = quants.dequantize(blocks, kind).astype("<f4")
        (folder / f"{kind.name}.blocks").write_bytes(blocks.tobytes())
        (folder / f"{kind.name}.f32").write_bytes(weights.tobytes())


main()

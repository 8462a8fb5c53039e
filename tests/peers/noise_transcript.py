"""Writes tests/data/stratum2: a connection of Stratum V2 as a second implementation (`sv2/`) makes it, byte by byte.

Usage: noise_transcript.py HELLO FOLDER. HELLO is the client's first 64 bytes in hex, made from the secret below; its
encoding is the client's own choice, all else follows from the specification and the fixed secrets here.
"""

import json
import os
import struct
import sys

from sv2 import curve, noise
from sv2 import messages as m

hello, folder = bytes.fromhex(sys.argv[1]), sys.argv[2]
CLIENT_SECRET, NOW = bytes([0x11]) * 32, 1_700_000_000


def fixed(seed):
    """Entropy that is none: bytes counted up from `seed`."""
    state = [seed]

    def draw(count):
        state[0] += 1
        return curve.tagged("transcript", bytes(state))[:count]

    return draw


authority = noise.Authority(bytes([0x22]) * 32)
ephemeral, static = noise.Key(fixed(0x33)), noise.Key(fixed(0x66))
reply, (ours, theirs) = noise.answer(hello, authority, NOW, ephemeral, static)

# The client's side of it, from the secret alone: the hello is that secret's key, and both sides have the same keys.
client = noise.Key(fixed(0x99))
client.secret, client.x, client.encoded = CLIENT_SECRET, curve.x_only(CLIENT_SECRET), hello
assert curve.decode(hello) == int.from_bytes(client.x, "big"), "the hello is not of the secret"
assert noise.finish(client, reply, noise.base58(authority.text())[2:], NOW) == (theirs, ours)

user, target = b"farm.rig", b"\xff" * 32
open_channel = struct.pack("<I", 1) + bytes([len(user)]) + user + struct.pack("<f", 5e6) + target + struct.pack("<H", 4)
update = struct.pack("<If", 7, 12_345_678.0) + target
from_client = noise.Seals(theirs)
sent = [from_client.frame(m.OPEN_EXTENDED, open_channel), from_client.frame(m.UPDATE_CHANNEL, update, 0x8000)]

block = struct.pack("<II", 7, 1) + bytes(range(32)) + struct.pack("<II", 1_700_000_123, 0x1D00FFFF)
# Longer than one seal holds, so that the payload comes in two pieces.
head = bytes(index % 251 for index in range(65_535))
job = struct.pack("<IIBI", 7, 2, 0, 0x20000000) + b"\1\1" + bytes([0xAB]) * 32 + struct.pack("<H", len(head)) + head + struct.pack("<H", 3) + b"end"
from_server = noise.Seals(ours)
short, long = from_server.frame(m.SET_NEW_PREV_HASH, block, 0x8000), from_server.frame(m.NEW_EXTENDED_JOB, job, 0x8000)

os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "noise_transcript.json"), "w") as file:
    text = {
        "client_secret": CLIENT_SECRET.hex(), "authority_key": authority.text(), "unix_seconds": NOW, "hello": hello.hex(),
        "reply": reply.hex(), "client_frames": [frame.hex() for frame in sent], "server_block": short.hex(),
    }
    json.dump(text, file, indent=1)
    file.write("\n")
with open(os.path.join(folder, "long_job.bin"), "wb") as file:
    file.write(long)

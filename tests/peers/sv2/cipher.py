"""ChaCha20-Poly1305 as RFC 8439 defines it, in plain Python: slow, and not OpenSSL nor the crates of the client."""

import hmac
import struct

MASK = 0xFFFFFFFF
# The words that each quarter round mixes: four columns, then four diagonals.
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def block(key, counter, nonce):
    """64 bytes of key stream."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    state = start[:]
    for _ in range(10):
        for a, b, c, d in QUARTERS:
            for left, right, other, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[left] = (state[left] + state[right]) & MASK
                mixed = state[other] ^ state[left]
                state[other] = (mixed << bits | mixed >> 32 - bits) & MASK
    return struct.pack("<16I", *((a + b) & MASK for a, b in zip(state, start)))


def stream(key, nonce, data):
    """`data` under the key stream, from its second block on; twice gives `data` again."""
    count = (len(data) + 63) // 64
    noise = b"".join(block(key, 1 + index, nonce) for index in range(count))
    return bytes(a ^ b for a, b in zip(data, noise))


def tag(key, nonce, extra, sealed):
    """The 16 bytes that prove `extra` and `sealed`."""
    once = block(key, 0, nonce)[:32]
    r = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for part in (extra, sealed):
        for at in range(0, len(part), 16):
            total = (total + int.from_bytes(part[at : at + 16].ljust(16, b"\0") + b"\1", "little")) * r % (2**130 - 5)
    total = (total + int.from_bytes(struct.pack("<QQ", len(extra), len(sealed)) + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(once[16:], "little")) % 2**128).to_bytes(16, "little")


def seal(key, count, extra, plain):
    """`plain` sealed as message number `count` of `key`."""
    nonce = struct.pack("<IQ", 0, count)
    sealed = stream(key, nonce, plain)
    return sealed + tag(key, nonce, extra, sealed)


def unseal(key, count, extra, sealed):
    """What was sealed.

    Raises ValueError when a bit of it, of `extra` or of the key is another.
    """
    nonce = struct.pack("<IQ", 0, count)
    body, proof = sealed[:-16], sealed[-16:]
    if not hmac.compare_digest(tag(key, nonce, extra, body), proof):
        raise ValueError("the seal does not fit")
    return stream(key, nonce, body)

"""The encrypted connection of Stratum V2, both sides: the handshake Noise_NX and frames under its two keys.

Written from chapters 3 and 4 of the specification, without the crates of the client: a fault that those share with the
reference pool shows here.
"""

import hashlib
import hmac
import secrets
import struct
import time

import sv2.cipher as cipher
import sv2.curve as curve

NAME = b"Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256"
KEY_BYTES, TAG_BYTES, PAPER_BYTES, HEADER_BYTES = 64, 16, 74, 6
REPLY_BYTES = KEY_BYTES + KEY_BYTES + TAG_BYTES + PAPER_BYTES + TAG_BYTES
# Plain bytes under one seal: a Noise message is at most 65535 bytes.
PIECE_BYTES = 65_535 - TAG_BYTES
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(text):
    """The bytes of base58check, without the checksum; ValueError when that is wrong."""
    number = 0
    for digit in text:
        number = number * 58 + BASE58.index(digit)
    leading = len(text) - len(text.lstrip("1"))
    data = bytes(leading) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    body, check = data[:-4], data[-4:]
    if hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4] != check:
        raise ValueError(f"{text}: the checksum is wrong")
    return body


def key_text(public):
    """An authority's x-only key as it stands in addresses."""
    body = b"\1\0" + public
    number = int.from_bytes(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4], "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return digits


class Key:
    """A key pair of one handshake; `draw` gives its entropy."""

    def __init__(self, draw=secrets.token_bytes):
        self.secret = (int.from_bytes(draw(32), "big") % (curve.N - 1) + 1).to_bytes(32, "big")
        self.x = curve.x_only(self.secret)
        self.encoded = curve.encode(int.from_bytes(self.x, "big"), draw)


def hkdf(chain, material):
    first = hmac.digest(chain, material, "sha256")
    one = hmac.digest(first, b"\1", "sha256")
    return one, hmac.digest(first, one + b"\2", "sha256")


class Handshake:
    """What both sides hash and mix while they greet each other."""

    def __init__(self):
        self.chain = hashlib.sha256(NAME).digest()
        self.hash = hashlib.sha256(self.chain).digest()
        self.key, self.count = None, 0

    def mix_hash(self, data):
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, material):
        self.chain, self.key = hkdf(self.chain, material)
        self.count = 0

    def seal(self, plain):
        sealed = cipher.seal(self.key, self.count, self.hash, plain)
        self.count += 1
        self.mix_hash(sealed)
        return sealed

    def unseal(self, sealed):
        plain = cipher.unseal(self.key, self.count, self.hash, sealed)
        self.count += 1
        self.mix_hash(sealed)
        return plain

    def ends(self, began):
        """The two directions: what this side seals with, and what it opens with."""
        ours, theirs = hkdf(self.chain, b"")
        return (ours, theirs) if began else (theirs, ours)


class Authority:
    """Who signs certificates, for so long before and after now."""

    def __init__(self, secret, from_seconds=-3_600, until_seconds=3_600):
        self.secret, self.validity = secret, (from_seconds, until_seconds)

    def text(self):
        return key_text(curve.x_only(self.secret))

    def paper(self, key, now):
        """The certificate of the static key `key`."""
        head = struct.pack("<HII", 0, *(now + seconds for seconds in self.validity))
        return head + curve.sign(self.secret, hashlib.sha256(head + key.x).digest())


def answer(hello, authority, now, ephemeral, static):
    """The answering side: the reply to 64 bytes, and the keys of both directions, ours first."""
    shake = Handshake()
    shake.mix_hash(hello)
    shake.mix_hash(b"")
    shake.mix_hash(ephemeral.encoded)
    shake.mix_key(curve.shared(ephemeral.secret, ephemeral.encoded, hello, False))
    reply = ephemeral.encoded + shake.seal(static.encoded)
    shake.mix_key(curve.shared(static.secret, static.encoded, hello, False))
    reply += shake.seal(authority.paper(static, now))
    return reply, shake.ends(False)


def finish(ephemeral, reply, authority_key, now):
    """The beginning side: the keys of both directions, ours first. `authority_key` is x-only.

    Raises ValueError when the certificate is not that authority's, or not of now.
    """
    shake = Handshake()
    shake.mix_hash(ephemeral.encoded)
    shake.mix_hash(b"")
    theirs, sealed_static, sealed_paper = reply[:64], reply[64:144], reply[144:]
    shake.mix_hash(theirs)
    shake.mix_key(curve.shared(ephemeral.secret, ephemeral.encoded, theirs, True))
    static = shake.unseal(sealed_static)
    shake.mix_key(curve.shared(ephemeral.secret, ephemeral.encoded, static, True))
    paper = shake.unseal(sealed_paper)
    _, since, until = struct.unpack("<HII", paper[:10])
    signed = hashlib.sha256(paper[:10] + curve.decode(static).to_bytes(32, "big")).digest()
    if not curve.is_signed(authority_key, signed, paper[10:]):
        raise ValueError("the certificate is not the authority's")
    if not since <= now <= until:
        raise ValueError(f"the certificate is of {since} to {until}")
    return shake.ends(True)


class Seals:
    """One direction of an open connection."""

    def __init__(self, key):
        self.key, self.count = key, 0

    def seal(self, plain):
        self.count += 1
        return cipher.seal(self.key, self.count - 1, b"", plain)

    def unseal(self, sealed):
        self.count += 1
        return cipher.unseal(self.key, self.count - 1, b"", sealed)

    def frame(self, kind, payload, extension=0):
        """A sealed frame: the header under a seal of its own, then the payload in pieces."""
        header = struct.pack("<HB", extension, kind) + len(payload).to_bytes(3, "little")
        pieces = (payload[at : at + PIECE_BYTES] for at in range(0, len(payload), PIECE_BYTES))
        return self.seal(header) + b"".join(self.seal(piece) for piece in pieces)


class Connection:
    """An open connection over a blocking socket; made by [`accept`] or [`connect`]."""

    def __init__(self, socket, ends):
        self.socket = socket
        self.ours, self.theirs = (Seals(key) for key in ends)

    def send(self, kind, payload, extension=0):
        self.socket.sendall(self.ours.frame(kind, payload, extension))

    def receive(self):
        """Extension, kind and payload of the next frame; EOFError when there is none."""
        header = self.theirs.unseal(exactly(self.socket, HEADER_BYTES + TAG_BYTES))
        extension, kind = struct.unpack("<HB", header[:3])
        left, payload = int.from_bytes(header[3:], "little"), b""
        while left:
            piece = min(left, PIECE_BYTES)
            payload += self.theirs.unseal(exactly(self.socket, piece + TAG_BYTES))
            left -= piece
        return extension, kind, payload


def exactly(socket, count):
    data = b""
    while len(data) < count:
        more = socket.recv(count - len(data))
        if not more:
            raise EOFError("the other side has hung up")
        data += more
    return data


def accept(socket, authority):
    """Answers the handshake of whoever connected."""
    hello = exactly(socket, KEY_BYTES)
    reply, ends = answer(hello, authority, int(time.time()), Key(), Key())
    socket.sendall(reply)
    return Connection(socket, ends)


def connect(socket, authority_text):
    """Greets a server that must prove to be the one whose key stands in addresses as `authority_text`."""
    ephemeral = Key()
    socket.sendall(ephemeral.encoded)
    ends = finish(ephemeral, exactly(socket, REPLY_BYTES), base58(authority_text)[2:], int(time.time()))
    return Connection(socket, ends)

"""secp256k1 as Stratum V2 uses it: ElligatorSwift keys, shared secrets and Schnorr certificates, from the definitions.

Written from BIP 340 and BIP 324 for the checks of this folder: slow, and not safe against anyone who can time it. The point
is that it is not libsecp256k1, on which both the client and the reference pool stand.
"""

import hashlib
import secrets

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def root(square):
    """A square root modulo P, if there is one."""
    found = pow(square, (P + 1) // 4, P)
    return found if found * found % P == square % P else None


ROOT_OF_MINUS_3 = root(P - 3)


def lift(x):
    """The point of this X whose Y is even, if there is one."""
    y = root(pow(x, 3, P) + 7)
    if x >= P or y is None:
        return None
    return (x, y if y % 2 == 0 else P - y)


def add(a, b):
    """Sum of two points; None is the point at infinity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    if a == b:
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return (x, (slope * (a[0] - x) - a[1]) % P)


def times(factor, point):
    """`factor` times `point`, bit by bit."""
    total = None
    while factor:
        if factor & 1:
            total = add(total, point)
        point = add(point, point)
        factor >>= 1
    return total


def tagged(tag, *parts):
    head = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(head + head + b"".join(parts)).digest()


# --- Schnorr (BIP 340)


def x_only(secret):
    """The public key of a secret, 32 bytes."""
    return times(int.from_bytes(secret, "big"), G)[0].to_bytes(32, "big")


def sign(secret, message, entropy=bytes(32)):
    """64 bytes that only the holder of `secret` can make for `message`."""
    number = int.from_bytes(secret, "big")
    x, y = times(number, G)
    number = number if y % 2 == 0 else N - number
    public = x.to_bytes(32, "big")
    masked = number ^ int.from_bytes(tagged("BIP0340/aux", entropy), "big")
    once = int.from_bytes(tagged("BIP0340/nonce", masked.to_bytes(32, "big"), public, message), "big") % N
    point = times(once, G)
    once = once if point[1] % 2 == 0 else N - once
    head = point[0].to_bytes(32, "big")
    question = int.from_bytes(tagged("BIP0340/challenge", head, public, message), "big") % N
    return head + ((once + question * number) % N).to_bytes(32, "big")


def is_signed(public, message, signature):
    """Whether the holder of the x-only key `public` signed `message`."""
    point = lift(int.from_bytes(public, "big"))
    head, answer = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if point is None or head >= P or answer >= N:
        return False
    question = int.from_bytes(tagged("BIP0340/challenge", signature[:32], public, message), "big") % N
    found = add(times(answer, G), times(N - question, point))
    return found is not None and found[1] % 2 == 0 and found[0] == head


# --- ElligatorSwift (BIP 324)


def decode(encoded):
    """The X that 64 bytes stand for; every 64 bytes stand for one."""
    u, t = int.from_bytes(encoded[:32], "big") % P or 1, int.from_bytes(encoded[32:], "big") % P or 1
    if (pow(u, 3, P) + t * t + 7) % P == 0:
        t = 2 * t % P
    a = (pow(u, 3, P) + 7 - t * t) * pow(2 * t, -1, P) % P
    b = (a + t) * pow(ROOT_OF_MINUS_3 * u, -1, P) % P
    quotient, half = a * pow(b, -1, P) % P, pow(2, -1, P)
    for x in ((u + 4 * b * b) % P, (-quotient - u) * half % P, (quotient - u) * half % P):
        if root(pow(x, 3, P) + 7) is not None:
            return x
    raise AssertionError("one of the three is always on the curve")


def t_of(x, u, case):
    """A `t` with which `u` stands for `x`, of up to eight; None where there is none of this kind."""
    half = pow(2, -1, P)
    if case & 2 == 0:
        if root(pow(-x - u, 3, P) + 7) is not None:
            return None
        v = x
        square = -(pow(u, 3, P) + 7) * pow(u * u + u * v + v * v, -1, P) % P
    else:
        square = (x - u) % P
        if square == 0:
            return None
        r = root(-square * (4 * (pow(u, 3, P) + 7) + 3 * square * u * u) % P)
        if r is None or (case & 1 and r == 0):
            return None
        v = (-u + r * pow(square, -1, P)) * half % P
    w = root(square)
    if w is None:
        return None
    c = ROOT_OF_MINUS_3
    return {
        0: -w * (u * (1 - c) * half + v),
        1: w * (u * (1 + c) * half + v),
        4: w * (u * (1 - c) * half + v),
        5: -w * (u * (1 + c) * half + v),
    }[case & 5] % P


def encode(x, draw=secrets.token_bytes):
    """64 bytes that stand for `x` and look like noise; `draw` gives the noise."""
    while True:
        u = int.from_bytes(draw(32), "big") % P
        t = t_of(x, u, draw(1)[0] % 8) if u else None
        if t is not None:
            return u.to_bytes(32, "big") + t.to_bytes(32, "big")


def shared(secret, ours, theirs, began):
    """32 bytes known to both sides of two encoded keys; `began` says whether ours is the side that began."""
    point = times(int.from_bytes(secret, "big"), lift(decode(theirs)))
    first, second = (ours, theirs) if began else (theirs, ours)
    return tagged("bip324_ellswift_xonly_ecdh", first, second, point[0].to_bytes(32, "big"))

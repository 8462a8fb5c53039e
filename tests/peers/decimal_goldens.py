"""Writes tests/data/infval/{decimal.txt,sampling.json}: what Python's decimal module makes of the contract's arithmetic.

Usage: python tests/peers/decimal_goldens.py [FOLDER]     (needs nothing beyond Python)
The network computes with this module. Operands are random, of the sizes that logprobs, temperatures and shares have, and
beyond. The draws are the deterministic sampling contract 1.0.0, written down here from its text once more. Deterministic.
"""
import hashlib
import json
import pathlib
import random
import struct
import sys
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

TEN_DIGITS = Context(prec=10, rounding=ROUND_HALF_EVEN)
DRAW = random.Random(20261123)


def operand(digits, low, high):
    """A random number of so many digits at most, its last one at an exponent within the bounds."""
    count = DRAW.randint(1, digits)
    number = DRAW.choice([DRAW.randrange(10 ** count), 10 ** count - 1, 10 ** (count - 1), 5 * 10 ** (count - 1)])
    return Decimal(DRAW.choice([number, -number])).scaleb(DRAW.randint(low, high), Context(prec=40))


def near(number):
    """A number close to another, so that their difference has few digits."""
    return number + operand(4, -12, -6)


def ties():
    """Operands whose exact result lies half way between two results."""
    for _ in range(60):
        first = DRAW.randrange(10 ** 9, 10 ** 10)
        yield "add", Decimal(first), Decimal(5).scaleb(-DRAW.randint(1, 2))
        yield "sub", Decimal(first), Decimal(5).scaleb(-DRAW.randint(1, 2))
        yield "mul", Decimal(first), Decimal(DRAW.choice([15, 25, 105, 115, 125]))
        yield "div", Decimal(first * 2 + 1), Decimal(2)


def operations():
    yield from ties()
    for name in ("add", "sub", "mul", "div", "cmp"):
        for _ in range(300):
            yield name, operand(10, -14, 2), operand(10, -14, 2)
            yield name, operand(17, -24, 4), operand(17, -24, 4)
        for _ in range(60):
            yield name, operand(19, -60, 30), operand(19, -60, 30)
            first = operand(10, -10, -8)
            yield name, first, near(first)
    for _ in range(600):
        yield "exp", -abs(operand(10, -12, -7)), None
        yield "exp", -abs(operand(10, -9, -9)), None
    for _ in range(300):
        yield "exp", -abs(operand(10, -40, 3)), None
        # Where results leave the range of numbers: 10^-1000008 is the smallest.
        yield "exp", -(Decimal(2302560) + abs(operand(10, -8, -8))), None
    for text in ("0", "-0", "-1", "-2302606", "-2302610", "-2400000", "-2400001", "-1e300", "-1e-300", "-5e-11", "-4.9e-11"):
        yield "exp", Decimal(text), None
    for _ in range(300):
        yield "int", abs(operand(10, -12, 1)), None
        yield "int", Decimal(DRAW.randrange(65536)) + Decimal("0.5"), None


def result(name, a, b):
    with localcontext(TEN_DIGITS):
        if name == "add":
            return a + b
        if name == "sub":
            return a - b
        if name == "mul":
            return a * b
        if name == "div":
            return a / b if b else None
        if name == "cmp":
            return (a > b) - (a < b)
        if name == "exp":
            return a.exp()
        return int(a.to_integral_value())


def texts():
    """Doubles with the shortest texts that Python gives them."""
    for _ in range(200):
        widened = struct.unpack("f", struct.pack("f", -DRAW.expovariate(0.3)))[0]
        yield widened
        yield DRAW.uniform(-1, 1) * 10 ** DRAW.randint(-320, 300)
    yield from (0.0, -0.0, 1e-4, 9.999e-5, 1e16, 9999999999999998.0, 5e-324, -1.0, 123456789.0, 1.7976931348623157e308)


def weights(listed, temperature, top_p, top_k, min_p):
    ids = sorted(listed)
    with localcontext(TEN_DIGITS):
        scaled = {i: Decimal(listed[i]) / Decimal(temperature) for i in ids}
        most = max(scaled.values())
        powers = {i: (scaled[i] - most).exp() for i in ids}
        whole = sum(powers[i] for i in ids)
        shares = {i: powers[i] / whole for i in ids}
        if top_k is not None and top_k < len(shares):
            kept = sorted(ids, key=lambda i: shares[i], reverse=True)[:top_k]
            shares = {i: shares[i] for i in sorted(kept)}
        if top_p is not None:
            reached, kept = Decimal(0), []
            for i in sorted(shares, key=lambda i: shares[i], reverse=True):
                kept.append(i)
                reached += shares[i]
                if reached >= Decimal(top_p):
                    break
            shares = {i: shares[i] for i in sorted(kept)}
        if min_p is not None:
            least = max(shares.values()) * Decimal(min_p)
            shares = {i: share for i, share in shares.items() if share >= least}
        whole = sum(shares.values())
        found = {i: int((share / whole * 65536).to_integral_value()) for i, share in shares.items()}
    heaviest = max(found, key=lambda i: (found[i], i))
    found[heaviest] += 65536 - sum(found.values())
    return found


def drawn(found, seed):
    counter = 0
    while True:
        number = int.from_bytes(hashlib.sha256(seed.encode() + counter.to_bytes(8, "big")).digest()[:8], "big")
        counter += 1
        if number < 2 ** 64 - 2 ** 64 % 65536:
            break
    point = number % 65536
    for i in sorted(found):
        point -= found[i]
        if point < 0:
            return i


def draws():
    for case in range(120):
        count = DRAW.choice([1, 2, 5, 5, 20, 64])
        spread = DRAW.choice([0.001, 1.0, 8.0, 400.0])
        ids = [str(i) for i in DRAW.sample(range(150000), count)]
        logprobs = [struct.unpack("f", struct.pack("f", -DRAW.random() * spread))[0] for _ in ids]
        if count > 2 and case % 5 == 0:
            logprobs[1] = logprobs[2] = logprobs[0]
        if case % 7 == 0:
            logprobs[0] = -9999.0
        listed = dict(zip(ids, map(repr, logprobs)))
        wishes = {
            "temperature": DRAW.choice([0.7, 1.0, 0.001, 1e-5, 2.0, 1.3, 0.6180339887498949]),
            "top_p": DRAW.choice([None, None, 0.9, 0.95, 0.123456789012345, 0.0]),
            "top_k": DRAW.choice([None, None, 1, 3, 20, 40]),
            "min_p": DRAW.choice([None, None, 0.05, 0.1, 1.0, 1e-7]),
        }
        seed = f"{hashlib.sha256(str(case).encode()).hexdigest()}|{case}"
        asked = {name: None if wish is None else str(wish) for name, wish in wishes.items()}
        asked["top_k"] = wishes["top_k"]
        found = weights(listed, **asked)
        yield {"logprobs": listed, **wishes, "seed": seed, "weights": found, "token": drawn(found, seed)}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/infval")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, a, b in operations():
        found = result(name, a, b)
        lines.append(" ".join(str(x) for x in (name, a, b, found) if x is not None))
    lines += [f"text {struct.pack('>d', value).hex()} {value!r}" for value in texts()]
    (folder / "decimal.txt").write_text("\n".join(lines) + "\n")
    cases = ",\n".join(json.dumps(case) for case in draws())
    (folder / "sampling.json").write_text('{"cases": [\n' + cases + "\n]}\n")


main()

"""Lets the built agent mine for the real `pool_sv2` through a front that meddles: refusals by code, rates, targets, clocks.

Usage: pool_sv2_meddled.py AGENT STANDINS POOL. The front (`sv2/front.py`) speaks Noise to both by an implementation of its
own, so everything here also holds our client's Noise against one that shares nothing with it. Each line of output is one
claim; the exit code is 0 only if all held.
"""

import os
import subprocess
import sys

import sv2.peers as peers
from claims import claim, finish, until
from sv2.front import Front
from sv2.peers import HARD, KEY, Miner, booked

agent, standins, program = sys.argv[1:4]
# In which column of our books each code of the pool belongs.
COLUMNS = {"accepted": "accepted", "stale-share": "stale", "invalid-job-id": "stale", "duplicate-share": "duplicate", "difficulty-too-low": "low_difficulty"}
DIFFICULTY_1 = 0xFFFF << 208


def verdicts(front):
    """What the pool said, in the columns of our books."""
    said = {"accepted": 0, "stale": 0, "duplicate": 0, "low_difficulty": 0, "other": 0}
    for code, count in front.verdicts.items():
        said[COLUMNS.get(code, "other")] += count
    return said


def agree(front, miner, what):
    """Both counts run on, so they are equal only between two shares; once is enough."""

    def equal():
        with front.lock:
            return front.submitted == miner.shares("submitted") and verdicts(front) == miner.books()

    held = until(equal)
    claim(f"{what}: our books are what the pool said, code by code", held, f"({dict(front.verdicts)}, miner {miner.books()})")


def altered(field, change):
    return lambda share: share | {field: change(share[field])}


ALTERATIONS = (
    ("invalid-non-rollable-version-bit", "a version bit outside the mask", altered("version", lambda bits: bits ^ 1)),
    ("invalid-share", "a time more than two hours ahead", altered("time", lambda time: time + 8_000)),
    ("invalid-job-id", "a job that never was", altered("job", lambda job: job + 60_000)),
    ("bad-extranonce-size", "an extranonce that is too short", altered("extranonce", lambda rolled: rolled[1:])),
    ("difficulty-too-low", "a hash above the target", altered("nonce", lambda nonce: nonce ^ 0x8000)),
)


def refusals(channel):
    """Every way in which the pool refuses a share, and where we book it."""
    templates = peers.Templates(standins, HARD, 10)
    pool = peers.Pool(program, templates.source(), shares_per_minute=120)
    front = Front(pool.port, KEY)
    miner = Miner(agent, front.url(channel), "--threads", "2")
    held = until(lambda: front.verdicts["accepted"] >= 10)
    claim(f"{channel}: our Noise and a second implementation's understand each other", held, f"({dict(front.verdicts)})")
    held = until(lambda: len(front.rolled) >= 2)
    claim(f"{channel}: the pool takes rolled versions", held, f"({ {f'{bits:08x}': count for bits, count in front.rolled.items()} })")
    want = "group" if channel != "standard" else "channel"
    held = until(lambda: front.addressed[want] >= 3)
    claim(f"{channel}: later jobs name the {want}", held, f"({dict(front.addressed)})")
    claim(f"{channel}: no share was above its target", front.too_high == 0, f"({front.submitted} shares rehashed)")
    claim(f"{channel}: none was refused but for its age", not set(front.verdicts) - {"accepted", "stale-share"}, f"({dict(front.verdicts)})")

    front.copy_shares = 3
    claim(f"{channel}: a share sent twice is a duplicate-share", until(lambda: front.verdicts["duplicate-share"] >= 3))
    for code, what, alter in ALTERATIONS:
        if code == "bad-extranonce-size" and channel != "extended":
            continue
        before = front.verdicts[code]
        front.alter_shares = [alter] * 3
        claim(f"{channel}: {what} is {code}", until(lambda: front.verdicts[code] >= before + 3), f"({dict(front.verdicts)})")
    front.hide_jobs = True
    held = until(lambda: front.verdicts["stale-share"] >= 3)
    front.hide_jobs = False
    claim(f"{channel}: a job of the block before is a stale-share", held, f"({dict(front.verdicts)})")
    agree(front, miner, channel)

    if channel == "extended":
        gone(front, miner)
    booked(f"{channel} refusals", miner, only_late=False)
    pool.end()
    templates.end()


def gone(front, miner):
    """What makes us hang up, and come back after a minute."""
    connections = front.connections
    front.alter_shares = [altered("channel", lambda channel: channel + 1_000)]
    held = until(lambda: front.connections > connections)
    claim("a pool that no longer knows our channel is connected to anew", held, f"({dict(front.verdicts)})")
    accepted = front.verdicts["accepted"]
    claim("after which it goes on", until(lambda: front.verdicts["accepted"] >= accepted + 5))
    front.alter_shares = [altered("nonce", lambda nonce: nonce ^ 0x8000)] * 20
    held = until(lambda: "it refused 20 shares in a row" in miner.pool("trouble"))
    claim("a pool that refuses twenty shares in a row is left", held and not front.alter_shares, f"({miner.pool('trouble')})")


def rates():
    """The pool's own vardiff, and what it does when we tell another rate."""
    templates = peers.Templates(standins, HARD, 10)
    pool = peers.Pool(program, templates.source(), shares_per_minute=60)
    front = Front(pool.port, KEY)
    # The pool thinks us four times slower than we say, and hears nothing better.
    front.scale_rates, front.drop_rates = 0.25, True
    miner = Miner(agent, front.url())
    until(lambda: front.targets)
    held = until(lambda: len(front.targets) >= 2 and front.targets[-1] < front.targets[0] / 1.5)
    claim("shares that come too often make the pool's vardiff lower its target", held, f"({[DIFFICULTY_1 / target for target in front.targets]})")

    def follows():
        target = front.targets[-1]
        return abs(miner.pool("difficulty") * target / DIFFICULTY_1 - 1) < 1e-3

    claim("which is followed", until(follows), f"({miner.pool('difficulty')})")
    seen = front.verdicts["accepted"]
    until(lambda: front.verdicts["accepted"] >= seen + 10)
    claim("no share was too easy for it", not miner.shares("low_difficulty") and front.too_high == 0, f"({front.submitted} shares)")

    front.scale_rates, front.drop_rates = 1.0, False
    pool.end()
    pool.start()
    held = until(lambda: front.connections >= 2 and miner.rate() and miner.rate() / 2 < front.rates[-1] < miner.rate() * 2)
    told, target = front.rates[-1], front.targets[-1]
    claim("the rate told is the rate hashed", held, f"({told} for {miner.rate()})")
    held = miner.slow_to(0.25, while_=lambda: front.rates[-1] > told / 1.5)
    claim("a miner that gets slower tells it", held, f"({front.rates[-1]} after {told})")
    held = until(lambda: front.targets[-1] > target * 1.4)
    claim("and the pool eases the target", held, f"({DIFFICULTY_1 / front.targets[-1]} after {DIFFICULTY_1 / target})")
    booked("vardiff", miner)
    pool.end()
    templates.end()


def clocks():
    """A certificate that is not of now is refused, and told from a wrong key: the cure is our own clock."""
    shift = os.path.join(peers.folder, "clock.so")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sv2", "clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shift, source, "-ldl"], check=True)
    templates = peers.Templates(standins, HARD, 10)
    pool = peers.Pool(program, templates.source())
    for name, ahead in (("ahead", 7_200), ("behind", -7_200)):
        miner = Miner(agent, pool.url(), LD_PRELOAD=shift, CLOCK_AHEAD_SECONDS=str(ahead))
        held = until(lambda: miner.status and "this machine's clock says" in miner.pool("trouble"))
        claim(f"with our clock two hours {name} the certificate is out of date", held, f"({miner.status and miner.pool('trouble')})")
        claim("and nothing is told", not miner.pool("mining") and not miner.shares("submitted"))
        miner.end()
    pool.end()
    templates.end()


try:
    for kind in ("extended", "standard", "grouped"):
        refusals(kind)
    rates()
    clocks()
finally:
    peers.end_all()
finish()

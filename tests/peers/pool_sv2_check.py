"""Lets the built agent mine for a real Stratum V2 pool, `pool_sv2` 0.7.0, over Noise.

Usage: pool_sv2_check.py AGENT STANDINS POOL. The pool's templates come from a stand-in of ours (`templates:` of
roadbed-standins), which rebuilds the header of every solution. Each line of output is one claim; the exit code is 0 only
if all held.
"""

import sys

import sv2.peers as peers
from claims import claim, finish, until
from sv2.peers import EASY, HARD, OTHER_KEY, Miner, booked

agent, standins, program = sys.argv[1:4]
SHARES_PER_MINUTE = 60


def blocks(channel):
    """Every second share is a block: jobs come in bursts, addressed to the group."""
    templates = peers.Templates(standins, EASY, 3600)
    pool = peers.Pool(program, templates.source(), shares_per_minute=300)
    miner = Miner(agent, pool.url(channel=channel))
    held = until(lambda: templates.status()["blocks"] >= 10 and miner.shares() >= 20)
    seen = templates.status()
    claim(f"{channel} channel: our shares become blocks", held, f"({seen}, {miner.shares()} shares)")
    claim(f"{channel} channel: jobs are followed from block to block", miner.pool("jobs") >= 10, f"({miner.pool('jobs')} jobs)")
    booked(f"{channel} channel", miner)
    pool.end()
    templates.end()


def shares():
    """No share is a block, somebody else finds one every 10 s: difficulty, batches, keys, death and return."""
    templates = peers.Templates(standins, HARD, 10)
    pool = peers.Pool(program, templates.source(), SHARES_PER_MINUTE, batch=10)
    miner = Miner(agent, pool.url())
    claim("shares are taken in batches", until(lambda: miner.shares() >= 20), f"({miner.shares()})")
    held = miner.shares() % 10 == 0
    claim("and acknowledged ten at a time", held, f"({miner.shares()} of {miner.shares('submitted')})")

    def wanted():
        return miner.rate() * 60 / SHARES_PER_MINUTE / 2**32

    held = until(lambda: miner.rate() and wanted() / 3 < miner.pool("difficulty") < wanted() * 3)
    claim("the difficulty follows our rate", held, f"({miner.pool('difficulty')} for {wanted()})")

    stranger = Miner(agent, pool.url(OTHER_KEY))
    held = until(lambda: stranger.status and "not signed by the authority key" in stranger.pool("trouble"))
    claim("a pool with another key is refused", held, f"({stranger.status and stranger.pool('trouble')})")
    claim("and told nothing", not stranger.pool("mining") and not stranger.shares("submitted"))
    stranger.end()

    pool.end()
    claim("a dead pool is noticed", until(lambda: not miner.pool("connected")), f"({miner.pool('trouble')})")
    pool.start()
    seen = miner.shares()
    held = until(lambda: miner.shares() >= seen + 10)
    claim("and mined for again when it is back", held, f"({miner.pool('connections')} connections)")

    templates.end()
    claim("a pool that loses its templates ends", until(lambda: not pool.is_alive()))
    claim("which is noticed too", until(lambda: not miner.pool("connected")), f"({miner.pool('trouble')})")
    templates.start()
    pool.start()
    seen = miner.shares()
    held = until(lambda: miner.shares() >= seen + 10)
    claim("and both are mined for again when they are back", held, f"({miner.pool('connections')} connections)")
    booked("batches", miner)
    pool.end()
    templates.end()


def failover():
    """Two pools in one list: the second is hashed for while the first is dead, and left when it is back."""
    templates = peers.Templates(standins, HARD, 10)
    first, second = (peers.Pool(program, templates.source(), 120, server=number) for number in (1, 2))
    miner = Miner(agent, [first.url(), second.url()])

    def taken(which):
        return miner.status["pools"][which]["shares"]["accepted"] if miner.status else 0

    claim("the first pool of a list is hashed for", until(lambda: taken(0) >= 3))
    first.end()
    claim("the second one when the first is dead", until(lambda: taken(1) >= 3), f"({miner.pool('trouble')})")
    seen = taken(0)
    first.start()
    held = until(lambda: taken(0) >= seen + 3)
    claim("and the first again once it is back", held, f"({taken(0)} and {taken(1)} shares)")
    booked("two pools", miner)
    first.end()
    second.end()
    templates.end()


try:
    for kind in ("extended", "standard", "grouped"):
        blocks(kind)
    shares()
    failover()
finally:
    peers.end_all()
finish()

"""Lets the built agent mine blocks of a real Bitcoin node, through the reference pool and the reference translator.

Usage: chain_check.py AGENT POOL NODE TRANSLATOR: `pool_sv2` 0.7.0, Bitcoin Core's `bitcoin-node` (regtest, IPC) and
`translator_sv2` 0.6.0. Each line of output is one claim; the exit code is 0 only if all held.
"""

import socket
import sys
import time

import stratum_front
import sv2.peers as peers
from chain.core import MATURITY, OPEN_ADDRESS, Node, there
from chain.translator import Translator
from claims import claim, finish, until
from sv2.front import Front
from sv2.peers import KEY, OTHER_KEY, Miner, booked

agent, pool_program, node_program, translator_program = sys.argv[1:5]
READY = "Required template data received, ready to accept connections"
# What a client of Stratum V1 may call without having been told that the pool knows it.
EXPECTED = {"mining.configure", "mining.subscribe", "mining.authorize", "mining.extranonce.subscribe", "mining.submit"}
began = time.monotonic()


def stage(text):
    print(f"== {time.monotonic() - began:.0f} s: {text}", flush=True)


def ready(pool, times=1):
    return until(lambda: pool.said(READY) >= times)


def connected(name, node, before, hashes, want):
    """Blocks beyond `before` that Core connected, each a share of ours, hash by hash."""
    held = until(lambda: node.height() >= before + want)
    blocks = node.blocks_since(before)
    claim(f"{name}: the node's chain grows", held, f"(by {len(blocks)} blocks)")
    ours = [block for block in blocks if block["hash"] in hashes]
    claim(f"{name}: each new block is a share of ours, hash by hash", blocks and len(ours) == len(blocks), f"({len(ours)} of {len(blocks)})")
    tips = sum(node.said(f"UpdateTip: new best={block['hash']}") for block in ours)
    claim(f"{name}: the node made each its tip", tips == len(ours), f"({tips} tips)")
    return ours


def no_template(node, pool):
    """A node without a block gives no template: the pool is mute until there is one."""
    stage("a pool without templates")
    miner = Miner(agent, pool.url())
    held = until(lambda: miner.status and "does not answer the handshake" in miner.pool("trouble"))
    claim("a pool that has no template is mute, and left after a while", held, f"({miner.status and miner.pool('trouble')})")
    node.mine(MATURITY + 3, OPEN_ADDRESS)
    claim("with the first block it is there", ready(pool))
    claim("and mined for", until(lambda: miner.shares() >= 1), f"({miner.pool('connections')} connections)")
    miner.end()


def wrong_key(pool):
    stage("another authority")
    stranger = Miner(agent, pool.url(OTHER_KEY))
    held = until(lambda: stranger.status and "not signed by the authority key" in stranger.pool("trouble"))
    claim("a pool with another key is refused", held, f"({stranger.status and stranger.pool('trouble')})")
    claim("and told nothing", not stranger.pool("mining") and not stranger.shares("submitted"))
    stranger.end()


def rebuilt(node, before, front):
    """Blocks from group jobs. The pool accepts the right header and gives the node another one.

    channels_sv2 8.0.0 makes a standard channel's job from its group's with `ExtendedJob::into_standard_job`, which adds the
    template's outputs to a list that holds them: the coinbase of the solution commits to its witnesses twice, and its hash is
    not the one that was mined. The node connects the half of these that chance lets through, as regtest's target does.
    """
    held = until(lambda: node.height() >= before + 5)
    blocks = node.blocks_since(before)
    claim("grouped channel: the node's chain grows", held, f"(by {len(blocks)} blocks)")
    ours = [block for block in blocks if (block["version"], block["time"], block["nonce"]) in front.fields]
    claim("grouped channel: each new block has version, time and nonce of a share of ours", blocks and len(ours) == len(blocks), f"({len(ours)} of {len(blocks)})")
    exact = [block for block in ours if block["hash"] in front.hashes]
    claim("grouped channel: there is a share of ours that is the new block, hash by hash", exact, f"({len(exact)} of {len(ours)})")
    others = [block for block in ours if block["hash"] not in front.hashes]
    twice = [block for block in others if node.commitments(block["hash"]) == 2]
    claim("grouped channel: in the others the pool put the template's outputs twice", len(twice) == len(others), f"({len(twice)} of {len(others)})")


def channel(node, pool, kind):
    stage(f"{kind} channel")
    front = Front(pool.port, KEY)
    before = node.height()
    miner = Miner(agent, front.url(kind))
    until(lambda: miner.shares() >= 5)
    if kind == "grouped":
        rebuilt(node, before, front)
    else:
        connected(f"{kind} channel", node, before, front.hashes, 5)
    claim(f"{kind} channel: no share was above its target", front.too_high == 0, f"({front.submitted} shares)")
    booked(f"{kind} channel", miner)


def transactions(node, pool):
    """Three transactions and the coinbase: a merkle path of two."""
    stage("a block with transactions")
    sent = {node.spend(height) for height in (1, 2, 3)}
    claim("the node takes three transactions", len(sent) == 3 and sent <= set(node.call("getrawmempool")))
    front = Front(pool.port, KEY)
    before = node.height()
    miner = Miner(agent, front.url())

    def found():
        return [block for block in node.blocks_since(before) if sent <= set(block["tx"])]

    held = until(found)
    full = found()[0] if held else {"nTx": 0, "hash": ""}
    claim("a block of ours holds them", full["nTx"] == 4 and full["hash"] in front.hashes, f"({full['nTx']} transactions)")
    claim("over a merkle path of two", front.hashes.get(full["hash"]) == 2)
    booked("transactions", miner)


def translated(node, pool):
    """Our Stratum V1 client behind the translator."""
    stage("Stratum V1 through the translator")
    translator = Translator(translator_program, pool.port)
    claim("the translator is there", translator.there(), f"(port {translator.port})")
    with socket.create_connection(("127.0.0.1", translator.port), timeout=30) as stranger:
        stranger.sendall(b'{"id": 1, "method": "mining.get_transactions", "params": []}\n')
        try:
            answer = stranger.recv(1)
        except ConnectionResetError:
            answer = b""
    claim("it hangs up on a method it does not know", answer == b"")
    front = stratum_front.Front(translator.port)
    before = node.height()
    miner = Miner(agent, f"stratum+tcp://127.0.0.1:{front.port}")
    until(lambda: miner.shares() >= 5)
    connected("translator", node, before, front.hashes, 3)
    claim("its extranonce is longer than that of other pools", len(front.extranonce1) >= 8, f"({len(front.extranonce1)} bytes)")
    first = front.difficulties[0]
    claim("its first difficulty is far below one", 0 < first < 1e-3, f"({first!r})")
    held = until(lambda: len(set(front.difficulties)) >= 2 and front.difficulties[-1] > first)
    claim("its vardiff raises the difficulty", held, f"({front.difficulties[:4]})")
    held = until(lambda: miner.pool("difficulty") == front.difficulties[-1])
    claim("which is followed", held, f"({miner.pool('difficulty')})")
    claim("no share was refused but for its age", not set(front.verdicts) - {"accepted", 20, 21}, f"({dict(front.verdicts)})")

    # Without shares there are no blocks, and the translator keeps its miner busy with jobs of its own naming.
    held = miner.slow_to(0.0, while_=lambda: not any("#" in job for job in front.jobs))
    names = [job for job in front.jobs if "#" in job]
    claim("to a miner that stands still it sends jobs whose ids are no numbers", held, f"({names})")
    held = until(lambda: any("#" in job for job in front.judged))
    claim("and takes their shares", held, f"({[job for job in front.judged if '#' in job]})")
    claim("our client never calls what it was not told of", set(front.methods) <= EXPECTED, f"({dict(front.methods)})")
    claim("and was never hung up on", front.connections == 1 and miner.pool("connections") == 1)
    booked("translator", miner)
    translator.end()


def deaths(node, pool):
    """A list of a V2 pool and a V1 translator in front of another pool; then the node dies and takes all of them along."""
    stage("the pool's death: from Stratum V2 to V1 and back")
    other = peers.Pool(pool_program, node.source(), server=2)
    ready(other)
    translator = Translator(translator_program, other.port)
    translator.there()
    miner = Miner(agent, [pool.url(), f"stratum+tcp://127.0.0.1:{translator.port}"])

    def taken(which):
        return miner.status["pools"][which]["shares"]["accepted"] if miner.status else 0

    claim("the V2 pool is first", until(lambda: taken(0) >= 3))
    pool.end()
    claim("the V1 pool when that is dead", until(lambda: taken(1) >= 3), f"({miner.pool('trouble')})")
    seen = taken(0)
    pool.start()
    claim("the V2 pool again once it is back", until(lambda: taken(0) >= seen + 3), f"({taken(0)} and {taken(1)} shares)")

    stage("the node's death")
    node.end()
    claim("a node that dies takes its pools along", until(lambda: not pool.is_alive() and not other.is_alive()))
    claim("and these the translator", until(lambda: not translator.is_alive()))
    gone = until(lambda: not miner.pool("connected", 0) and not miner.pool("connected", 1))
    claim("the miner sees that nothing is left", gone, f"({miner.pool('trouble')})")
    node.start()
    claim("the node is back", there(node), f"(at block {node.height()})")
    # What it had not saved is gone, perhaps all of it, and without a recent block it gives no templates.
    node.mine(1)
    before, seen, times = node.height(), taken(0), pool.said(READY)
    pool.start()
    claim("the pool is back", ready(pool, times + 1))
    held = until(lambda: taken(0) >= seen + 3 and node.height() >= before + 3)
    claim("and mined for: its chain grows", held, f"(by {node.height() - before} blocks, {miner.pool('connections')} connections)")
    booked("deaths", miner)


def main():
    stage("the node and the pool")
    node = Node(node_program)
    claim("the node is there", there(node))
    pool = peers.Pool(pool_program, node.source())
    no_template(node, pool)
    wrong_key(pool)
    for kind in ("extended", "standard", "grouped"):
        channel(node, pool, kind)
    transactions(node, pool)
    translated(node, pool)
    deaths(node, pool)
    stage("done")


try:
    main()
finally:
    peers.end_all()
finish()

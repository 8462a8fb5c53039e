"""Lets the built agent mine for a real pool (foundation-stratum) on a real node (bcoin, regtest).

Usage: bcoin_check.py AGENT FOLDER. Each line of output is one claim; the exit code is 0 only if all held.
"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

import claims
import stratum_front
from claims import claim, free_port, until

agent, folder = sys.argv[1:3]
rpc, stratum, steering = free_port(), free_port(), free_port()
peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bcoin", "node_and_pool.js")


def steer(what, **values):
    query = "&".join(f"{name}={value}" for name, value in values.items())
    with urllib.request.urlopen(f"http://127.0.0.1:{steering}/{what}?{query}", timeout=60) as answer:
        return json.load(answer)


def peer_is_there():
    try:
        return steer("status")["height"] >= 2
    except OSError:
        return False


class Miner:
    """`roadbed-agent mine` and the last status it told."""

    started = []

    def __init__(self, port, *arguments):
        pool = f"stratum+tcp://127.0.0.1:{port}"
        command = [agent, "mine", "--pool", pool, "--user", "farm.rig", "--every", "1", "--json", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.started.append(self.process)
        self.status = {"shares": {"accepted": 0, "submitted": 0}, "hashes_per_second": 0, "hashing_for": None, "pools": [{"jobs": 0, "connections": 0}]}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.status = json.loads(line)

    def accepted(self):
        return self.status["shares"]["accepted"]

    def end(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.reader.join()
        return code


def height():
    return steer("status")["height"]


def mines(name, *arguments):
    """Blocks of ours, from the one backend alone."""
    front = stratum_front.Front(stratum)
    before = height()
    began = time.monotonic()
    miner = Miner(front.port, *arguments)
    held = until(lambda: height() >= before + 2 and miner.accepted() >= 20)
    seconds = time.monotonic() - began
    rate = miner.status["hashes_per_second"]
    claim(f"{name}: the node's chain grows", held, f"(by {height() - before} blocks in {seconds:.0f} s at {rate / 1e6:.2f} MH/s)")
    # Blocks are connected a moment after their share was sent.
    node = [block for block in steer("status")["blocks"] if block["height"] > before]
    ours = [block for block in node if block["hash"] in front.hashes]
    claim(f"{name}: each new block is a share of ours, hash by hash", node and len(ours) == len(node), f"({len(ours)} of {len(node)})")
    # A backend rolls through 2^32 nonces before the version; a second one begins with another version.
    variants = int("--threads 2" in " ".join(arguments)) + 1
    same = all(front.hashes[block["hash"]] == block["version"] for block in ours)
    rolled = {block["version"] for block in ours}
    claim(f"{name}: versions stand in the chain as they were rolled", same and len(front.versions) >= variants, f"({len(front.versions)} variants, {len(rolled)} in blocks)")
    return front, miner


def closed(shares):
    refused = sum(shares[reason] for reason in ("stale", "duplicate", "low_difficulty", "other"))
    return shares["accepted"] + refused + shares["unanswered"]


def agree(front, miner):
    """Whether the miner's books are what the pool said, once every share is answered."""
    steer("difficulty", difficulty=1e6)
    answered = until(lambda: miner.status["pools"][0]["difficulty"] == 1e6 and front.submitted == sum(front.verdicts.values()))
    until(lambda: miner.status["shares"]["submitted"] == front.submitted == closed(miner.status["shares"]))
    shares, said = miner.status["shares"], front.verdicts
    ours = {"accepted": shares["accepted"], 21: shares["stale"], 22: shares["duplicate"], 23: shares["low_difficulty"]}
    other = sum(count for code, count in said.items() if code not in ours)
    equal = all(said[code] == count for code, count in ours.items()) and shares["other"] == other
    held = answered and equal and shares["submitted"] == front.submitted == closed(shares)
    claim("every share is booked once, as the pool judged it", held, f"(pool {dict(said)}, sent {front.submitted}, miner {shares})")


def ends(miner):
    code = miner.end()
    shares = miner.status["shares"]
    claim("the miner ends when told to, with its books closed", code == 0 and shares["submitted"] == closed(shares), f"({shares})")


def main():
    node = subprocess.Popen(
        ["node", peer, folder, str(rpc), str(stratum), str(steering)],
        env=dict(os.environ, NODE_BACKEND="js", forkId="0"),
        stdout=subprocess.DEVNULL,
    )
    try:
        claim("node and pool are there", until(peer_is_there))
        front, miner = mines("CPU", "--threads", "2")
        check_pool(front, miner)
        agree(front, miner)
        check_restart(front, miner)
        ends(miner)
        front, miner = mines("WGSL", "--threads", "0", "--gpu", os.environ.get("ADAPTER", "auto"))
        agree(front, miner)
        ends(miner)
    finally:
        for process in [node, *Miner.started]:
            process.kill()
    claims.finish()


def check_pool(front, miner):
    held = until(lambda: len(set(front.difficulties)) >= 2)
    follows = until(lambda: miner.status["pools"][0]["difficulty"] == front.difficulties[-1])
    claim("vardiff raises the difficulty, and it is followed", held and follows, f"({front.difficulties[:4]})")
    claim("no share was refused so far but for its age", not set(front.verdicts) - {"accepted", 21}, f"({dict(front.verdicts)})")

    for difficulty in (2e-6, 5e-5, 4e-6, 1e-5):
        steer("difficulty", difficulty=difficulty)
        claim(f"difficulty {difficulty} is followed", until(lambda: miner.status["pools"][0]["difficulty"] == difficulty))
    claim("none was too easy for its job", not front.verdicts[23], f"({dict(front.verdicts)})")

    jobs = miner.status["pools"][0]["jobs"]
    steer("flood", jobs=3000)
    held = until(lambda: miner.status["pools"][0]["jobs"] >= jobs + 3000)
    seen = miner.accepted()
    claim("a flood of 3000 jobs is taken", held and until(lambda: miner.accepted() > seen + 5), f"({miner.status['pools'][0]['jobs']} jobs)")

    front.repeat_shares = 5
    claim("shares sent twice are duplicates", until(lambda: front.verdicts[22] >= 5))
    stale = front.verdicts[21]
    front.hide_jobs = True
    claim("shares of a job that is over are stale", until(lambda: front.verdicts[21] >= stale + 3))
    front.hide_jobs = False
    # Twice, because the pool also takes what meets the difficulty before.
    front.ease_difficulty = 4
    for difficulty in (4e-5, 8e-5):
        steer("difficulty", difficulty=difficulty)
    claim("shares below the pool's difficulty are refused as that", until(lambda: front.verdicts[23] >= 3))
    front.ease_difficulty = 1


def check_restart(front, miner):
    connections, seen = front.connections, miner.accepted()
    steer("restart")
    held = until(lambda: front.connections > connections and miner.accepted() > seen + 10)
    claim("a restarted pool is mined for again", held, f"({miner.status['pools'][0]['connections']} connections)")


main()

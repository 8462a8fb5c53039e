"""Lets `para miner` 0.6.0 mine for the stand-in pool of the tests, to keep the stand-in honest.

Usage: para_check.py STANDINS PARA. A front between the two hashes every share again and compares the pool's verdict with
its own. Each line of output is one claim; the exit code is 0 only if all held.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import stratum_front
from claims import claim, finish, free_port, until
from stratum_front import sha256d

standins, para = sys.argv[1:3]
folder = tempfile.TemporaryDirectory()
# It takes none but an address; this is the example of BIP 173.
USER = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4.rig"
DIFFICULTY = 1e-6
BLOCK_DIFFICULTY = 1e-4
SECONDS_PER_SHARE = 0.25
# A miner that hashes on for a void job longer than this has not obeyed; the machine may be busy.
OBEYS_WITHIN = 5


class Pool:
    """The stand-in, in a process of its own; it comes back on the same port."""

    def __init__(self):
        self.port = free_port()
        self.status_address = f"127.0.0.1:{free_port()}"
        self.path = os.path.join(folder.name, "pool.yaml")
        with open(self.path, "w") as config:
            config.write(f"""
status_listen: "{self.status_address}"
pool: {{listen: "127.0.0.1:{self.port}", difficulty: {DIFFICULTY:.9f}, block_difficulty: {BLOCK_DIFFICULTY:.9f},
  job_wall_seconds: 2, jobs_per_block: 4, seconds_per_share: {SECONDS_PER_SHARE}}}
""")
        self.start()

    def start(self):
        command = [standins, "--detached", "--config", self.path]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        claim("the stand-in pool is there", until(self.is_there))

    def is_there(self):
        try:
            return self.status() is not None
        except OSError:
            return False

    def status(self):
        with urllib.request.urlopen(f"http://{self.status_address}/status", timeout=10) as answer:
            return json.load(answer)["pool"]

    def end(self):
        self.process.kill()
        self.process.wait(20)


class Miner:
    started = []

    def __init__(self, port, *arguments):
        command = [para, "miner", f"127.0.0.1:{port}", "--username", USER, "--password", "x",
                   "--cpu-cores", "1", *arguments]
        self.log = open(os.path.join(folder.name, f"para-{len(self.started)}.log"), "w+")
        # With its log on, it does not draw on a terminal that is not there.
        environment = dict(os.environ, RUST_LOG="info")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        self.started.append(self.process)

    def end(self):
        self.process.terminate()
        self.process.wait(20)


def target_of_bits(bits):
    size, mantissa = bits >> 24, bits & 0x7FFFFF
    return mantissa << 8 * (size - 3)


def is_valid(block):
    """Whether a block holds by what a node checks of a header: its work, and that it commits to its coinbase."""
    header = bytes.fromhex(block["header_hex"])
    root = sha256d(bytes.fromhex(block["coinbase_hex"]))
    for branch in block["branches_hex"]:
        root = sha256d(root + bytes.fromhex(branch))
    bits = int.from_bytes(header[72:76], "little")
    found = int.from_bytes(sha256d(header), "little")
    return len(header) == 80 and header[36:68] == root and found <= target_of_bits(bits)


def previous_hash(notify):
    words = bytes.fromhex(notify[1])
    return b"".join(words[at : at + 4][::-1] for at in range(0, 32, 4))


def mines(pool, front):
    miner = Miner(front.port)
    held = until(lambda: pool.status()["accepted"] >= 20)
    status = pool.status()
    claim("it logs in and its shares are taken", held and status["workers"] == [USER], f"({status['accepted']} accepted)")
    claim("versions are rolled within the mask", len(front.versions) >= 3, f"({len(front.versions)} variants)")

    held = until(lambda: len(set(front.difficulties)) >= 4 and max(front.difficulties) >= 8 * DIFFICULTY)
    claim("vardiff raises the difficulty, and it is followed", held, f"({[f'{one:.1e}' for one in front.difficulties[:6]]})")
    held = until(lambda: any(front.judged[job] and front.judged[job] >= 8 * DIFFICULTY for job in list(front.judged)))
    claim("shares of the raised difficulty are taken", held)

    held = until(lambda: pool.status()["blocks"] >= 3)
    blocks = pool.status()["found"]
    claim("it finds blocks that are valid", held and blocks and all(map(is_valid, blocks)), f"({len(blocks)} blocks)")
    hashes = {sha256d(bytes.fromhex(block["header_hex"])) for block in blocks}
    held = until(lambda: hashes <= {previous_hash(job) for job in list(front.jobs.values())})
    claim("the next job builds on each of them", held)

    claim("no share is sent for a job that is void", front.longest_void < OBEYS_WITHIN, f"(none later than {front.longest_void:.1f} s)")
    claim("the pool judges every share as its own hash says", not front.misjudged, f"({front.misjudged[:3]} of {front.submitted})")
    refused = set(front.verdicts) - {"accepted", 21, 23}
    claim("none was refused but for its age or its difficulty", not refused, f"({dict(front.verdicts)})")
    # It takes a new difficulty at once, also for the job it has; the pool's holds from the next job on.
    claim("too easy were those alone that took an easier difficulty at once", not front.too_easy, f"({front.verdicts[23]} of them)")
    return miner


def check_restart(pool, front):
    pool.end()
    # The pool forgets all it knew.
    connections, accepted = front.connections, front.verdicts["accepted"]
    pool.start()
    held = until(lambda: front.connections > connections and front.verdicts["accepted"] > accepted + 5)
    claim("a restarted pool is mined for again", held, f"({front.connections} connections)")
    claim("and judges rightly", not front.misjudged, f"({front.misjudged[:3]})")


def check_one_share(pool):
    front = stratum_front.Front(pool.port)
    before = pool.status()["accepted"]
    miner = Miner(front.port, "--mode", "share-found", "--disable-version-rolling")
    try:
        code = miner.process.wait(120)
    except subprocess.TimeoutExpired:
        code = None
    ours = until(lambda: front.verdicts["accepted"] == 1)
    claim("without version rolling it finds one share and ends", code == 0 and ours, f"(code {code}, {dict(front.verdicts)})")
    claim("which the pool counts", pool.status()["accepted"] > before and not front.misjudged)


def main():
    pool = Pool()
    try:
        front = stratum_front.Front(pool.port)
        miner = mines(pool, front)
        check_restart(pool, front)
        miner.end()
        check_one_share(pool)
    finally:
        pool.end()
        for process in Miner.started:
            process.kill()
    finish()


main()

"""Lets the built agent mine for a real Stratum V2 pool, `pool_sv2` 0.7.0, over Noise.

Usage: pool_sv2_check.py AGENT STANDINS POOL. The pool's templates come from a stand-in of ours (`templates:` of
roadbed-standins), which rebuilds the header of every solution. Each line of output is one claim; the exit code is 0 only
if all held.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request

from claims import claim, finish, free_port, until

agent, standins, pool = sys.argv[1:4]
folder = tempfile.TemporaryDirectory()

# The example pair of the pool's own documentation, and a key that is somebody else's (from the specification, 4.7.1).
KEY = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72"
SECRET = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n"
OTHER_KEY = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh"
# Network targets: one that every second hash meets, and one that nothing here will.
EASY, HARD = 0x207FFFFF, 0x1B00FFFF
SHARES_PER_MINUTE = 60


def document(address):
    with urllib.request.urlopen(f"http://{address}/status", timeout=10) as answer:
        return json.load(answer)


class Templates:
    """Our template provider, in a process of its own."""

    def __init__(self, bits, block_seconds):
        self.port, status = free_port(), free_port()
        self.address = f"127.0.0.1:{status}"
        path = os.path.join(folder.name, f"templates-{self.port}.yaml")
        with open(path, "w") as config:
            config.write(f'status_listen: "{self.address}"\ntemplates: {{listen: "127.0.0.1:{self.port}", '
                         f"network_bits: {bits}, block_wall_seconds: {block_seconds}}}\n")
        self.process = subprocess.Popen([standins, "--detached", "--config", path], stderr=subprocess.DEVNULL)
        until(self.is_there)

    def is_there(self):
        try:
            return self.status() is not None
        except OSError:
            return False

    def status(self):
        return document(self.address)["templates"]

    def end(self):
        self.process.terminate()
        self.process.wait(20)


class Pool:
    """The real pool; it ends by itself when it loses its templates, and is started again on the same port."""

    def __init__(self, templates, shares_per_minute=SHARES_PER_MINUTE, batch=1):
        self.port = free_port()
        self.config = os.path.join(folder.name, f"pool-{self.port}.toml")
        with open(self.config, "w") as config:
            config.write(f"""
authority_public_key = "{KEY}"
authority_secret_key = "{SECRET}"
cert_validity_sec = 3600
listen_address = "127.0.0.1:{self.port}"
coinbase_reward_script = "addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)"
server_id = 1
pool_signature = "roadbed test pool"
shares_per_minute = {shares_per_minute}.0
share_batch_size = {batch}
supported_extensions = []
required_extensions = []

[template_provider_type.Sv2Tp]
address = "127.0.0.1:{templates.port}"
""")
        self.log = os.path.join(folder.name, f"pool-{self.port}.log")
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([pool, "-c", self.config], stdout=log, stderr=log)

    def url(self, key=KEY, channel="extended"):
        return f"stratum2+tcp://127.0.0.1:{self.port}/{key}?channel={channel}"

    def end(self):
        self.process.terminate()
        self.process.wait(20)


class Miner:
    """`roadbed-agent mine` and the last status it told."""

    def __init__(self, url, *arguments):
        command = [agent, "mine", "--pool", url, "--user", "farm.rig", "--threads", "1", "--every", "1", "--json"]
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        self.status = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.status = json.loads(line)

    def shares(self, column="accepted"):
        return self.status["shares"][column] if self.status else 0

    def pool(self, field):
        return self.status["pools"][0][field] if self.status else None

    def end(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.reader.join()
        return code


def booked(name, miner):
    """Every share is in exactly one column once the miner has ended."""
    code, shares = miner.end(), miner.status["shares"]
    refused = sum(shares[column] for column in ("stale", "duplicate", "low_difficulty", "other"))
    held = shares["submitted"] == shares["accepted"] + refused + shares["unanswered"]
    claim(f"{name}: every share is booked once", code == 0 and held, f"({shares})")
    right = not shares["duplicate"] and not shares["low_difficulty"] and not shares["other"]
    claim(f"{name}: no share was refused but for its age", right)
    claim(f"{name}: the pool says nothing that we do not understand", miner.pool("garbage") == 0)


def blocks(channel):
    """Every second share is a block: jobs come in bursts, addressed to the group."""
    templates = Templates(EASY, 3600)
    real = Pool(templates, shares_per_minute=300)
    miner = Miner(real.url(channel=channel))
    held = until(lambda: templates.status()["blocks"] >= 10 and miner.shares() >= 20)
    seen = templates.status()
    claim(f"{channel} channel: our shares become blocks", held, f"({seen}, {miner.shares()} shares)")
    claim(f"{channel} channel: jobs are followed from block to block", miner.pool("jobs") >= 10, f"({miner.pool('jobs')} jobs)")
    booked(f"{channel} channel", miner)
    real.end()
    templates.end()


def shares():
    """No share is a block, somebody else finds one every 10 s: difficulty, batches, keys, death and return."""
    templates = Templates(HARD, 10)
    real = Pool(templates, batch=10)
    miner = Miner(real.url())
    claim("shares are taken in batches", until(lambda: miner.shares() >= 20), f"({miner.shares()})")
    held = miner.shares() % 10 == 0
    claim("and acknowledged ten at a time", held, f"({miner.shares()} of {miner.shares('submitted')})")

    def wanted():
        return miner.status["hashes_per_second"] * 60 / SHARES_PER_MINUTE / 2**32

    held = until(lambda: miner.status["hashes_per_second"] and wanted() / 3 < miner.pool("difficulty") < wanted() * 3)
    claim("the difficulty follows our rate", held, f"({miner.pool('difficulty')} for {wanted()})")

    stranger = Miner(real.url(OTHER_KEY))
    held = until(lambda: stranger.status and "not signed by the authority key" in stranger.pool("trouble"))
    claim("a pool with another key is refused", held, f"({stranger.status and stranger.pool('trouble')})")
    claim("and told nothing", not stranger.pool("mining") and not stranger.shares("submitted"))
    stranger.end()

    real.end()
    claim("a dead pool is noticed", until(lambda: not miner.pool("connected")), f"({miner.pool('trouble')})")
    real.start()
    seen = miner.shares()
    held = until(lambda: miner.shares() >= seen + 10)
    claim("and mined for again when it is back", held, f"({miner.pool('connections')} connections)")

    templates.end()
    claim("a pool that loses its templates ends", until(lambda: real.process.poll() is not None))
    booked("batches", miner)


for kind in ("extended", "standard", "grouped"):
    blocks(kind)
shares()
finish()

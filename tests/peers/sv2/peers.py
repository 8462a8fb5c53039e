"""What the checks of Stratum V2 run: the agent, the real pool, and the stand-in that gives the pool its templates."""

import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.request

from claims import claim, free_port, until

# The example pair of the pool's own documentation, and a key that is somebody else's (from the specification, 4.7.1).
KEY = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72"
SECRET = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n"
OTHER_KEY = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh"
# Network targets: one that every second hash meets, and one that nothing here will.
EASY, HARD = 0x207FFFFF, 0x1B00FFFF
# A regtest address nobody here has the key of (the example of BIP 173).
ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

_folder = tempfile.TemporaryDirectory()
folder = _folder.name
_started = []


def started(process):
    """Remembers a process, so that none outlives the check."""
    _started.append(process)
    return process


def end_all():
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.wait()


class Templates:
    """Our template provider, in a process of its own."""

    def __init__(self, standins, bits, block_seconds):
        self.port, status = free_port(), free_port()
        self.standins, self.address = standins, f"127.0.0.1:{status}"
        self.config = os.path.join(folder, f"templates-{self.port}.yaml")
        with open(self.config, "w") as config:
            config.write(f'status_listen: "{self.address}"\ntemplates: {{listen: "127.0.0.1:{self.port}", '
                         f"network_bits: {bits}, block_wall_seconds: {block_seconds}}}\n")
        self.start()

    def start(self):
        command = [self.standins, "--detached", "--config", self.config]
        self.process = started(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        until(self.is_there)

    def source(self):
        return f'[template_provider_type.Sv2Tp]\naddress = "127.0.0.1:{self.port}"\n'

    def is_there(self):
        try:
            return self.status() is not None
        except OSError:
            return False

    def status(self):
        with urllib.request.urlopen(f"http://{self.address}/status", timeout=10) as answer:
            return json.load(answer)["templates"]

    def end(self):
        self.process.terminate()
        self.process.wait(20)


class Pool:
    """The real pool; it ends by itself when it loses its templates, and is started again on the same port.

    `source` is the part of its configuration that says where templates come from.
    """

    def __init__(self, program, source, shares_per_minute=60, batch=1, server=1):
        self.program, self.port = program, free_port()
        self.config = os.path.join(folder, f"pool-{self.port}.toml")
        with open(self.config, "w") as config:
            config.write(f"""
authority_public_key = "{KEY}"
authority_secret_key = "{SECRET}"
cert_validity_sec = 3600
listen_address = "127.0.0.1:{self.port}"
coinbase_reward_script = "addr({ADDRESS})"
server_id = {server}
pool_signature = "roadbed test pool"
shares_per_minute = {shares_per_minute}.0
share_batch_size = {batch}
supported_extensions = []
required_extensions = []

{source}""")
        self.log = os.path.join(folder, f"pool-{self.port}.log")
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = started(subprocess.Popen([self.program, "-c", self.config], stdout=log, stderr=log))

    def said(self, text):
        """How many lines of its log hold `text`."""
        with open(self.log, errors="replace") as log:
            return sum(text in line for line in log)

    def is_alive(self):
        return self.process.poll() is None

    def url(self, key=KEY, channel="extended"):
        return f"stratum2+tcp://127.0.0.1:{self.port}/{key}?channel={channel}"

    def end(self):
        self.process.terminate()
        self.process.wait(20)


class Miner:
    """`roadbed-agent mine` and the last status it told."""

    def __init__(self, agent, urls, *arguments, **environment):
        urls = [urls] if isinstance(urls, str) else urls
        pools = [word for url in urls for word in ("--pool", url)]
        command = [agent, "mine", *pools, "--user", "farm.rig", "--every", "1", "--json", *(arguments or ("--threads", "1"))]
        environment = {**os.environ, **environment}
        self.process = started(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        self.status = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.status = json.loads(line)

    def rate(self):
        return self.status["hashes_per_second"] if self.status else 0

    def shares(self, column="accepted"):
        return self.status["shares"][column] if self.status else 0

    def pool(self, field, which=0):
        return self.status["pools"][which][field] if self.status else None

    def books(self):
        """The columns of its books by which a pool's verdicts are told."""
        return {column: self.shares(column) for column in ("accepted", "stale", "duplicate", "low_difficulty", "other")}

    def slow_to(self, share, while_):
        """Lets it run only `share` of the time as long as `while_` holds; true when that ended before patience did."""
        ended = []

        def patience():
            ended.append(until(lambda: not while_()))

        waiter = threading.Thread(target=patience)
        waiter.start()
        while not ended:
            self.process.send_signal(19)
            time.sleep(0.2 * (1 - share))
            self.process.send_signal(18)
            time.sleep(0.2 * share)
        return ended[0]

    def end(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.reader.join()
        return code


def booked(name, miner, only_late=True):
    """Every share is in exactly one column once the miner has ended."""
    code, shares = miner.end(), miner.status["shares"]
    answered = sum(miner.books().values())
    held = shares["submitted"] == answered + shares["unanswered"]
    claim(f"{name}: every share is booked once", code == 0 and held, f"({shares})")
    if only_late:
        right = not shares["duplicate"] and not shares["low_difficulty"] and not shares["other"]
        claim(f"{name}: no share was refused but for its age", right)
    claim(f"{name}: the pool says nothing that we do not understand", miner.pool("garbage") == 0)

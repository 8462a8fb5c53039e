"""Bitcoin Core on regtest as a node for the pool, and transactions without a wallet."""

import base64
import hashlib
import json
import os
import subprocess
import tempfile
import urllib.error
import urllib.request

from claims import free_port, until
from sv2.peers import ADDRESS, folder, started

# P2WSH of the script OP_TRUE: anybody can spend what was mined to it.
OPEN_ADDRESS = "bcrt1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqseac85"
OP_TRUE = b"\x51"
COIN = 100_000_000
# Blocks until a coinbase may be spent.
MATURITY = 100


class Node:
    """A node in a folder of its own; it may be killed and started again on what it has."""

    def __init__(self, program):
        # Short, because the path of its socket may have about a hundred bytes.
        self.program, self.port = program, free_port()
        self.folder = tempfile.mkdtemp(prefix="node-", dir=folder)
        self.start()

    def start(self):
        command = [self.program, "-regtest", f"-datadir={self.folder}", "-ipcbind=unix", "-server=1", "-listen=0", "-dnsseed=0",
                   "-fixedseeds=0", f"-rpcport={self.port}"]
        self.process = started(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def is_there(self):
        try:
            return self.height() >= 0 and os.path.exists(os.path.join(self.folder, "regtest", "node.sock"))
        except (OSError, RuntimeError):
            # No cookie yet, nobody listens yet, or it is loading what it has.
            return False

    def call(self, method, *params):
        """The result of a remote call; RuntimeError with what the node says when it refuses."""
        with open(os.path.join(self.folder, "regtest", ".cookie")) as cookie:
            secret = base64.b64encode(cookie.read().encode()).decode()
        body = json.dumps({"id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", body, {"Authorization": f"Basic {secret}"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code != 500:
                raise OSError(text) from error
            raise RuntimeError(text) from error

    def height(self):
        return self.call("getblockcount")

    def mine(self, count, address=ADDRESS):
        return self.call("generatetoaddress", count, address)

    def block(self, height):
        return self.call("getblock", self.call("getblockhash", height))

    def blocks_since(self, height):
        return [self.block(number) for number in range(height + 1, self.height() + 1)]

    def commitments(self, block):
        """How many outputs of its coinbase commit to the witnesses (BIP 141 has one)."""
        coinbase = self.call("getblock", block, 2)["tx"][0]
        return sum(output["scriptPubKey"]["hex"].startswith("6a24aa21a9ed") for output in coinbase["vout"])

    def said(self, text):
        """How many lines of its log hold `text`."""
        with open(os.path.join(self.folder, "regtest", "debug.log"), errors="replace") as log:
            return sum(text in line for line in log)

    def spend(self, height):
        """Sends the coinbase of a block that was mined to `OPEN_ADDRESS` to the same place again; its id."""
        spent = bytes.fromhex(self.block(height)["tx"][0])[::-1]
        script = b"\x00\x20" + hashlib.sha256(OP_TRUE).digest()
        fee = 10_000
        transaction = b"".join((
            (2).to_bytes(4, "little"), b"\x00\x01",
            b"\x01", spent, bytes(4), b"\x00", b"\xff" * 4,
            b"\x01", (50 * COIN - fee).to_bytes(8, "little"), bytes([len(script)]), script,
            b"\x01", bytes([len(OP_TRUE)]), OP_TRUE,
            bytes(4),
        ))
        return self.call("sendrawtransaction", transaction.hex(), 0)

    def source(self):
        """The part of the pool's configuration that says where templates come from."""
        return f"""[template_provider_type.BitcoinCoreIpc]
version = 31
network = "regtest"
data_dir = "{self.folder}"
fee_threshold = 100
min_interval = 5
"""

    def end(self):
        """Kills it, as a power cut would."""
        self.process.kill()
        self.process.wait(60)


def there(node):
    return until(node.is_there)

"""A front between a miner and a Stratum V1 pool: passes lines on, remembers what the pool said, and meddles when told to.

It judges nothing itself: every answer the miner gets comes from the foreign pool. It also builds the header of each share
again, from the job as sent and the share as submitted, by its own reading of Stratum.
"""

import collections
import hashlib
import json
import socket
import threading


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


class Front:
    """Listens on a port of its own; `port` is where the pool listens."""

    def __init__(self, port):
        self.pool_port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.verdicts = collections.Counter()
        self.submitted = 0
        self.connections = 0
        self.difficulties = []
        self.jobs = {}
        self.hashes = {}
        self.versions = set()
        # How the next lines are meddled with.
        self.repeat_shares = 0
        self.hide_jobs = False
        self.ease_difficulty = 1
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            miner, _ = self.listener.accept()
            try:
                pool = socket.create_connection(("127.0.0.1", self.pool_port))
            except OSError:
                miner.close()
                continue
            self.connections += 1
            Connection(self, miner, pool)


class Connection:
    def __init__(self, front, miner, pool):
        self.front, self.miner, self.pool = front, miner, pool
        self.extranonce1 = b""
        self.subscribe = None
        self.shares = {}
        for source, sink, change in ((miner, pool, self.from_miner), (pool, miner, self.from_pool)):
            threading.Thread(target=self._pump, args=(source, sink, change), daemon=True).start()

    def _pump(self, source, sink, change):
        try:
            for line in source.makefile("rb"):
                with self.front.lock:
                    lines = change(json.loads(line))
                for line in lines:
                    sink.sendall(json.dumps(line).encode() + b"\n")
        except (OSError, ValueError):
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def from_miner(self, line):
        front = self.front
        if line.get("method") == "mining.subscribe":
            self.subscribe = line["id"]
        if line.get("method") != "mining.submit":
            return [line]
        front.submitted += 1
        self.shares[line["id"]] = line["params"]
        self._weigh(line["params"])
        if front.repeat_shares:
            # The first one's answer stays here; the second one's is the miner's.
            front.repeat_shares -= 1
            return [dict(line, id=f"first-{line['id']}"), line]
        return [line]

    def from_pool(self, line):
        front = self.front
        if line.get("method") == "mining.set_difficulty":
            line["params"][0] /= front.ease_difficulty
            front.difficulties.append(line["params"][0])
        elif line.get("method") == "mining.notify":
            front.jobs[line["params"][0]] = line["params"]
            if front.hide_jobs:
                return []
        elif str(line.get("id")).startswith("first-"):
            return []
        elif line.get("id") == self.subscribe:
            self.extranonce1 = bytes.fromhex(line["result"][1])
        elif line.get("id") in self.shares:
            del self.shares[line["id"]]
            front.verdicts["accepted" if line["result"] is True else line["error"][0]] += 1
        return [line]

    def _weigh(self, share):
        _, job, extranonce2, ntime, nonce, bits = share
        _, previous, head, tail, branches, version, nbits, _, _ = self.front.jobs[job]
        root = sha256d(bytes.fromhex(head) + self.extranonce1 + bytes.fromhex(extranonce2) + bytes.fromhex(tail))
        for branch in branches:
            root = sha256d(root + bytes.fromhex(branch))
        version = int(version, 16) & ~0x1FFFE000 | int(bits, 16)
        previous = b"".join(bytes.fromhex(previous)[at : at + 4][::-1] for at in range(0, 32, 4))
        words = (int(word, 16).to_bytes(4, "little") for word in (ntime, nbits, nonce))
        header = version.to_bytes(4, "little") + previous + root + b"".join(words)
        found = int.from_bytes(sha256d(header), "little")
        self.front.hashes[f"{found:064x}"] = version
        self.front.versions.add(int(bits, 16))

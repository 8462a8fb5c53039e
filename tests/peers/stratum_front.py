"""A front between a miner and a Stratum V1 pool: passes lines on, remembers what the pool said, and meddles when told to.

Every answer the miner gets comes from the pool. The front builds the header of each share again, from the job as sent and
the share as submitted, by its own reading of Stratum, and remembers where the pool's verdict on its work was another.
"""

import collections
import hashlib
import json
import socket
import threading
import time

DIFFICULTY_ONE = 0xFFFF << 208


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
        # Methods the miner called.
        self.methods = collections.Counter()
        self.extranonce1 = b""
        self.submitted = 0
        self.connections = 0
        self.difficulties = []
        self.jobs = {}
        self.hashes = {}
        self.versions = set()
        # Difficulty in force when a job was sent, and of the last share taken of it.
        self.terms = {}
        self.judged = collections.defaultdict(float)
        self.misjudged = []
        # Shares refused as too easy that meet no difficulty the pool had told by then.
        self.too_easy = 0
        # Jobs that a clean one made void, and since when; the longest that shares of one were sent after that.
        self.void_since = {}
        self.longest_void = 0.0
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
        self.difficulty = 1.0
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
        if line.get("method"):
            front.methods[line["method"]] += 1
        if line.get("method") == "mining.subscribe":
            self.subscribe = line["id"]
        if line.get("method") != "mining.submit":
            return [line]
        front.submitted += 1
        job = line["params"][1]
        if job in front.void_since:
            front.longest_void = max(front.longest_void, time.monotonic() - front.void_since[job])
        self.shares[line["id"]] = (job, self._weigh(line["params"]))
        if front.repeat_shares:
            # The first one's answer stays here; the second one's is the miner's.
            front.repeat_shares -= 1
            return [dict(line, id=f"first-{line['id']}"), line]
        return [line]

    def from_pool(self, line):
        front = self.front
        if line.get("method") == "mining.set_difficulty":
            self.difficulty = line["params"][0]
            line["params"][0] /= front.ease_difficulty
            front.difficulties.append(line["params"][0])
        elif line.get("method") == "mining.notify":
            job, clean = line["params"][0], line["params"][8]
            if clean:
                front.void_since |= {old: time.monotonic() for old in front.jobs if old not in front.void_since}
            front.void_since.pop(job, None)
            front.jobs[job] = line["params"]
            front.terms[job] = self.difficulty
            if front.hide_jobs:
                return []
        elif str(line.get("id")).startswith("first-"):
            return []
        elif line.get("id") == self.subscribe:
            self.extranonce1 = front.extranonce1 = bytes.fromhex(line["result"][1])
        elif line.get("id") in self.shares:
            job, found = self.shares.pop(line["id"])
            verdict = "accepted" if line["result"] is True else line["error"][0]
            front.verdicts[verdict] += 1
            difficulty = front.terms.get(job, 1.0)
            is_work = found * difficulty <= DIFFICULTY_ONE
            if verdict in ("accepted", 23) and is_work != (verdict == "accepted"):
                front.misjudged.append((job, verdict, difficulty, DIFFICULTY_ONE / found))
            if verdict == 23 and found * self.difficulty > DIFFICULTY_ONE:
                front.too_easy += 1
            if verdict == "accepted":
                front.judged[job] = difficulty
        return [line]

    def _weigh(self, share):
        _, job, extranonce2, ntime, nonce, *rolled = share
        bits = rolled[0] if rolled else None
        _, previous, head, tail, branches, version, nbits, _, _ = self.front.jobs[job]
        root = sha256d(bytes.fromhex(head) + self.extranonce1 + bytes.fromhex(extranonce2) + bytes.fromhex(tail))
        for branch in branches:
            root = sha256d(root + bytes.fromhex(branch))
        version = int(version, 16)
        if bits is not None:
            version = version & ~0x1FFFE000 | int(bits, 16)
            self.front.versions.add(int(bits, 16))
        previous = b"".join(bytes.fromhex(previous)[at : at + 4][::-1] for at in range(0, 32, 4))
        words = (int(word, 16).to_bytes(4, "little") for word in (ntime, nbits, nonce))
        header = version.to_bytes(4, "little") + previous + root + b"".join(words)
        found = int.from_bytes(sha256d(header), "little")
        self.front.hashes[f"{found:064x}"] = version
        return found

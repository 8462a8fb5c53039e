"""A front between a miner and a Stratum V2 pool: opens the seals of both, passes messages on, and meddles when told to.

It judges nothing itself: every answer the miner gets comes from the foreign pool, and is counted here as the pool said it.
It also builds the header of each share again, from what was sent, by its own reading of the specification.
"""

import collections
import socket
import struct
import threading

import sv2.messages as m
import sv2.noise as noise

ROLLED_BITS = 0x1FFFE000
# Marks the sequence number of a copy of ours, whose answer stays here.
COPY = 0x8000_0000
SECRET = bytes([7]) * 32


class Front:
    """Listens on a port of its own, as an authority of its own."""

    def __init__(self, port, key):
        self.pool_port, self.pool_key = port, key
        self.authority = noise.Authority(SECRET)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.RLock()
        self.connections = 0
        # What went through, by kind.
        self.kinds = collections.Counter()
        # What the pool said to shares the miner sent, by code; `accepted` is one.
        self.verdicts = collections.Counter()
        self.submitted = 0
        # The rates the miner told, and the targets the pool set.
        self.rates, self.targets = [], []
        # Version bits of shares that the pool took, and hashes that are above the target they were sent for.
        self.rolled = collections.Counter()
        self.too_high = 0
        # Hashes of what the miner sent, with the branches of the merkle path they were built with.
        self.hashes = {}
        # Version, time and nonce of each.
        self.fields = set()
        self.addressed = collections.Counter()
        # How the next messages are meddled with.
        self.copy_shares = 0
        self.alter_shares = []
        self.hide_jobs = False
        self.scale_rates = 1.0
        self.drop_rates = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, channel="extended"):
        return f"stratum2+tcp://127.0.0.1:{self.port}/{self.authority.text()}?channel={channel}"

    def _accept(self):
        while True:
            miner, _ = self.listener.accept()
            threading.Thread(target=self._greet, args=(miner,), daemon=True).start()

    def _greet(self, miner):
        try:
            with socket.create_connection(("127.0.0.1", self.pool_port)) as pool, miner:
                ends = noise.accept(miner, self.authority), noise.connect(pool, self.pool_key)
                self.connections += 1
                Meddler(self, *ends).run()
        except (OSError, EOFError, ValueError):
            miner.close()


class Meddler:
    """One connection through the front."""

    def __init__(self, front, miner, pool):
        self.front, self.miner, self.pool = front, miner, pool
        self.channel, self.jobs, self.block, self.hiding = None, {}, None, False
        self.target, self.targets = None, {}
        self.sent = {}

    def run(self):
        back = threading.Thread(target=self._pump, args=(self.pool, self.miner, self.from_pool), daemon=True)
        back.start()
        self._pump(self.miner, self.pool, self.from_miner)
        back.join()

    def _pump(self, source, sink, change):
        try:
            while True:
                extension, kind, payload = source.receive()
                with self.front.lock:
                    self.front.kinds[kind] += 1
                    changed = change(kind, payload)
                for payload in changed:
                    sink.send(kind, payload, extension)
        except (OSError, EOFError, ValueError):
            pass
        for end in (source, sink):
            try:
                end.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # --- from the miner

    def from_miner(self, kind, payload):
        front = self.front
        if kind in (m.OPEN_STANDARD, m.OPEN_EXTENDED):
            at = 5 + payload[4]
            return [self._rate(payload, at)]
        if kind == m.UPDATE_CHANNEL:
            changed = self._rate(payload, 4)
            return [] if front.drop_rates else [changed]
        if kind in (m.SUBMIT_STANDARD, m.SUBMIT_EXTENDED):
            return self._share(m.share(kind, payload))
        return [payload]

    def _rate(self, payload, at):
        rate = struct.unpack("<f", payload[at : at + 4])[0]
        self.front.rates.append(rate)
        return payload[:at] + struct.pack("<f", rate * self.front.scale_rates) + payload[at + 4 :]

    def _share(self, share):
        front = self.front
        front.submitted += 1
        self.sent[share["sequence"]] = share
        front.fields.add((share["version"], share["time"], share["nonce"]))
        known = self.jobs.get(share["job"])
        if known and self.block and not self.hiding:
            found = m.share_hash(share, known, self.block, self.channel["prefix"])
            front.too_high += found > self.targets[share["job"]]
            front.hashes[f"{found:064x}"] = len(known.get("path", ()))
        if front.alter_shares:
            share = front.alter_shares.pop(0)(dict(share))
        if front.copy_shares:
            front.copy_shares -= 1
            return [m.packed(share | {"sequence": share["sequence"] | COPY}), m.packed(share)]
        return [m.packed(share)]

    # --- from the pool

    def from_pool(self, kind, payload):
        if kind in (m.OPEN_STANDARD_SUCCESS, m.OPEN_EXTENDED_SUCCESS):
            self.channel = m.opened(kind, payload)
            return self._target(payload, 8)
        if kind == m.SET_TARGET:
            return self._target(payload, 4)
        if kind in (m.NEW_JOB, m.NEW_EXTENDED_JOB):
            return self._job(m.job(kind, payload), payload)
        if kind == m.SET_NEW_PREV_HASH:
            self.block = m.block(payload)
            self.jobs = {number: job for number, job in self.jobs.items() if number == self.block["job"]}
            return [] if self.hiding else [payload]
        if kind == m.SUBMIT_SUCCESS:
            return self._taken(payload)
        if kind == m.SUBMIT_ERROR:
            return self._refused(payload)
        return [payload]

    def _target(self, payload, at):
        target = int.from_bytes(payload[at : at + 32], "little")
        self.front.targets.append(target)
        self.target = target
        # Jobs that wait for a block take the newest target as well; those that are mined keep theirs.
        waiting = (number for number, job in self.jobs.items() if job["time"] is None)
        self.targets |= {number: target for number in waiting if not self.block or number != self.block["job"]}
        return [payload]

    def _job(self, job, payload):
        if job["time"] is None:
            # Between two blocks only: a block whose job was hidden would leave the miner with nothing.
            self.hiding = self.front.hide_jobs
        self.front.addressed["channel" if job["channel"] == self.channel["channel"] else "group"] += 1
        self.jobs[job["job"]] = job
        self.targets[job["job"]] = self.target
        return [] if self.hiding else [payload]

    def _taken(self, payload):
        channel, last, count = m.accepted(payload)
        if last & COPY:
            return []
        share = self.sent.get(last)
        self.front.verdicts["accepted"] += count
        if share:
            self.front.rolled[share["version"] & ROLLED_BITS] += count
        return [payload]

    def _refused(self, payload):
        _, sequence, code = m.refused(payload)
        if sequence & COPY:
            return []
        self.front.verdicts[code] += 1
        # It may name a channel that a share was altered to.
        return [struct.pack("<I", self.channel["channel"]) + payload[4:]]

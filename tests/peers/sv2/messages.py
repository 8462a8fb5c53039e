"""The messages of Stratum V2 that the front looks into, read by the tables of the specification (chapters 3, 5 and 8)."""

import hashlib
import struct

OPEN_STANDARD, OPEN_STANDARD_SUCCESS, OPEN_EXTENDED, OPEN_EXTENDED_SUCCESS = 0x10, 0x11, 0x13, 0x14
NEW_JOB, UPDATE_CHANNEL, CLOSE_CHANNEL = 0x15, 0x16, 0x18
SUBMIT_STANDARD, SUBMIT_EXTENDED, SUBMIT_SUCCESS, SUBMIT_ERROR = 0x1A, 0x1B, 0x1C, 0x1D
NEW_EXTENDED_JOB, SET_NEW_PREV_HASH, SET_TARGET = 0x1F, 0x20, 0x21


class Reader:
    """Takes a payload apart from the front."""

    def __init__(self, payload):
        self.left = payload

    def take(self, count):
        if count > len(self.left):
            raise ValueError("the payload ends too early")
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return struct.unpack("<H", self.take(2))[0]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def f32(self):
        return struct.unpack("<f", self.take(4))[0]

    def u256(self):
        return int.from_bytes(self.take(32), "little")

    def short(self):
        """Bytes after a length of one byte: B032, B0255 and STR0255 alike."""
        return self.take(self.u8())

    def long(self):
        return self.take(self.u16())

    def end(self, what):
        if self.left:
            raise ValueError(f"{len(self.left)} bytes too many")
        return what


def opened(kind, payload):
    """The channel a pool opens."""
    read = Reader(payload)
    found = {"request": read.u32(), "channel": read.u32(), "target": read.u256(), "extended": kind == OPEN_EXTENDED_SUCCESS}
    found["rolled_bytes"] = read.u16() if found["extended"] else 0
    found |= {"prefix": read.short(), "group": read.u32()}
    return read.end(found)


def job(kind, payload):
    """A job; `time` is absent in one for a block to come."""
    read = Reader(payload)
    found = {"channel": read.u32(), "job": read.u32(), "time": read.u32() if read.u8() else None, "version": read.u32()}
    if kind == NEW_JOB:
        return read.end(found | {"root": read.take(32)})
    found |= {"rolling": read.u8() != 0, "path": [read.take(32) for _ in range(read.u8())]}
    return read.end(found | {"head": read.long(), "tail": read.long()})


def block(payload):
    """A new block to build on."""
    read = Reader(payload)
    return read.end({"channel": read.u32(), "job": read.u32(), "previous": read.take(32), "time": read.u32(), "bits": read.u32()})


def share(kind, payload):
    """A share, with the places of its fields as [`packed`] wants them."""
    read = Reader(payload)
    names = ("channel", "sequence", "job", "nonce", "time", "version")
    found = {name: read.u32() for name in names}
    return read.end(found | {"extranonce": read.short() if kind == SUBMIT_EXTENDED else None})


def packed(share):
    """The payload of a share."""
    names = ("channel", "sequence", "job", "nonce", "time", "version")
    head = struct.pack("<6I", *(share[name] for name in names))
    rolled = share["extranonce"]
    return head if rolled is None else head + bytes([len(rolled)]) + rolled


def accepted(payload):
    """Channel, last sequence number and count of the shares that were taken."""
    read = Reader(payload)
    found = (read.u32(), read.u32(), read.u32())
    read.take(8)
    return read.end(found)


def refused(payload):
    """Channel, sequence number and code of a share that was not."""
    read = Reader(payload)
    return read.end((read.u32(), read.u32(), read.short().decode()))


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def share_hash(share, job, block, prefix):
    """The number that a share's header hashes to: merkle root and header built from what was sent."""
    root = job.get("root")
    if root is None:
        root = sha256d(job["head"] + prefix + (share["extranonce"] or b"") + job["tail"])
        for branch in job["path"]:
            root = sha256d(root + branch)
    header = struct.pack("<I", share["version"]) + block["previous"] + root
    header += struct.pack("<III", share["time"], block["bits"], share["nonce"])
    return int.from_bytes(sha256d(header), "little")

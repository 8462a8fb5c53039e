"""Fetches PoC callbacks over gRPC with grpcio, which is no relative of ours. Usage: pocstream_check.py http://HOST:PORT HOST:PORT

The first address is the MLNode, the second its callback stream. Messages are written and read by hand below: a string is
field 1, and so on, as the network's own stubs have it. Each line of output is one claim; the exit code is 0 only if all held.
"""

import base64
import json
import sys
import time
import urllib.request

import grpc

from claims import PATIENCE_SECONDS, claim, finish

BASE, STREAM = sys.argv[1:3]
SERVICE = "/mlnode.poc.v1.PoCCallbackStream/"
PATH = "/v2/poc-batches/HuggingFaceTB%252FSmolLM2-135M-Instruct"


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def strings(values):
    """Field 1, once for each value."""
    return b"".join(b"\x0a" + varint(len(value)) + value for value in (v.encode() for v in values))


def fields(message):
    """Length-delimited fields by number."""
    found, at = {}, 0
    while at < len(message):
        number, at = message[at] >> 3, at + 1
        length = shift = 0
        while True:
            byte, at = message[at], at + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found[number], at = message[at : at + length], at + length
    return found


def post(path, body):
    request = urllib.request.Request(BASE + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def model():
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(BASE + "/v1/models", timeout=5) as answer:
                return json.load(answer)["data"][0]["id"]
        except OSError:
            time.sleep(0.2)
    sys.exit("the agent does not come up")


channel = grpc.insecure_channel(STREAM)
stream = channel.unary_stream(SERVICE + "StreamCallbacks", lambda after: strings([after] if after else []), fields)
acknowledge = channel.unary_unary(SERVICE + "AckCallbacks", strings, fields)
unknown = channel.unary_unary(SERVICE + "Nothing", strings, fields)

name = model()
order = {
    "block_hash": "A1", "block_height": 7, "public_key": "02ab", "node_id": 0, "node_count": 1, "batch_size": 2,
    "params": {"model": name, "seq_len": 16}, "url": "http://nobody.invalid:9100" + PATH,
}
post("/api/v1/inference/pow/init/generate", order)
feed = stream("", timeout=PATIENCE_SECONDS)
first = next(feed)
body = json.loads(first[3])
claim("the path is the one that would be posted to, byte for byte", first[2].decode() == PATH + "/generated", first[2])
claim("the body is a delivery", body["block_hash"] == "A1" and body["artifacts"][0]["nonce"] == 0)
claim("a vector is 24 bytes", all(len(base64.b64decode(a["vector_b64"])) == 24 for a in body["artifacts"]))
again = stream("", timeout=PATIENCE_SECONDS)
claim("what is not acknowledged comes again", next(again) == first)
claim("the older stream ends", next(feed, None) is None)
claim("an acknowledgement is answered", acknowledge([first[1].decode()], timeout=60) == {})
claim("an empty one too", acknowledge([], timeout=60) == {})
second = next(again)
nonces = [a["nonce"] for a in body["artifacts"] + json.loads(second[3])["artifacts"]]
claim("no nonce is left out or repeated", nonces == list(range(len(nonces))), nonces)
again.cancel()
third = next(stream(second[1].decode(), timeout=PATIENCE_SECONDS))
claim("a stream goes on after the id it names", json.loads(third[3])["artifacts"][0]["nonce"] == len(nonces))
try:
    unknown([], timeout=60)
    claim("an unknown method is refused", False)
except grpc.RpcError as error:
    claim("an unknown method is refused", error.code() == grpc.StatusCode.UNIMPLEMENTED, error.code())
post("/api/v1/inference/pow/stop", {})
finish()

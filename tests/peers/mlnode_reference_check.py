"""Holds us against Gonka's own MLNode code. Usage: mlnode_reference_check.py ROADBED_AGENT SOURCE

SOURCE is a checkout of gonka-ai/gonka, which is no part of this project: its `mlnode/packages/api/src` is imported as it is
(`api.proxy`, `api.inference.pow_v2_routes`) and put in front of two of our engines. The fan-out numbers the groups, asks the
engines' own routes under `/api/v1/pow`, and passes chats on; whatever it makes of our answers is what a Network Node would
see. Then its acceptance script for hosts (`poc_validation/validate.py`) judges one of them by recorded artifacts.

Each line of output is one claim; the exit code is 0 only if all held.
"""

import base64
import http.server
import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import types
import urllib.error
import urllib.request

from claims import PATIENCE_SECONDS, claim, finish, free_port, until

AGENT, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
PACKAGES = SOURCE / "mlnode" / "packages"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEQ_LEN = 64
# Artifacts of another implementation (PyTorch), with their source in tests/data/poc.
RECORDED = pathlib.Path(__file__).parents[1] / "data" / "poc" / "e2e_smollm2.json"
# Encoded twice, as the Network Node does it.
CALLBACK_PATH = "/v2/poc-batches/HuggingFaceTB%252FSmolLM2-135M-Instruct"


def call(base, method, path, body=None):
    """Status and body; JSON where it is JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(base + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    except OSError as error:
        return 0, str(error)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode(errors="replace")


class Callback(http.server.BaseHTTPRequestHandler):
    """Where artifacts and verdicts arrive; refuses the first delivery, as outside of a phase."""

    generated, validated, refused = [], [], []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == f"{CALLBACK_PATH}/generated" and not self.refused:
            self.refused.append(body)
            status = 503
        elif self.path == f"{CALLBACK_PATH}/generated":
            self.generated.append(body)
            status = 200
        elif self.path == f"{CALLBACK_PATH}/validated":
            self.validated.append(json.loads(body))
            status = 200
        else:
            status = 404
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


def artifacts():
    return [artifact for body in Callback.generated for artifact in json.loads(body)["artifacts"]]


def start_fan_out(ports):
    """The reference's application with these engines behind it, in a thread of its own."""
    import asyncio

    import fastapi
    import uvicorn

    sys.path.insert(0, str(PACKAGES / "api" / "src"))
    common = PACKAGES / "common" / "src"
    if common.is_dir():
        sys.path.insert(0, str(common))
    if importlib.util.find_spec("common") is None:
        # The reference's logger, whose package is not in this checkout.
        import logging

        logger = types.ModuleType("common.logger")
        logger.create_logger = logging.getLogger
        sys.modules |= {"common": types.ModuleType("common"), "common.logger": logger}
    from api import proxy
    from api.inference import pow_v2_routes

    port = free_port()

    async def run():
        application = fastapi.FastAPI()
        application.include_router(pow_v2_routes.router, prefix="/api/v1")
        application.add_middleware(proxy.ProxyMiddleware)
        proxy.setup_vllm_proxy(ports)
        await proxy.start_vllm_proxy()
        settings = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning")
        await uvicorn.Server(settings).serve()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    return f"http://127.0.0.1:{port}"


def identity(url):
    return {
        "block_hash": "REFERENCE", "block_height": 100, "public_key": "02ab", "node_id": 1, "node_count": 3,
        "params": {"model": MODEL, "seq_len": SEQ_LEN}, "url": url,
    }


def spoiled(vector):
    values = struct.unpack("<12e", base64.b64decode(vector))
    return base64.b64encode(struct.pack("<12e", *[-value for value in values])).decode()


def generation(base, callback):
    status, answer = call(base, "POST", "/api/v1/inference/pow/init/generate", identity(callback))
    groups = status == 200 and answer["backends"] == 2 and answer["n_groups"] == 2 and answer["errors"] is None
    claim("both engines take their group", groups, f"({status} {answer})")
    status, answer = call(base, "GET", "/api/v1/inference/pow/status")
    backends = {backend["port"]: backend for backend in answer.get("backends", [])}
    claim("the fan-out sees them generate", answer.get("status") == "GENERATING", f"({answer.get('status')})")
    configs = [backend.get("config") or {} for _port, backend in sorted(backends.items())]
    claim("each names its own group", [c.get("group_id") for c in configs] == [0, 1], f"({configs})")
    claim("of two", all(c.get("n_groups") == 2 for c in configs))
    status, answer = call(base, "POST", "/api/v1/inference/pow/init/generate", identity(callback))
    claim("a second start is refused", status == 502 and "Already generating" in json.dumps(answer), f"({status})")

    claim("artifacts arrive", until(lambda: len(artifacts()) >= 12), f"({len(artifacts())})")
    status, answer = call(base, "POST", "/api/v1/inference/pow/stop", {})
    claim("both stop", status == 200 and len(answer["results"]) == 2 and answer["errors"] is None, f"({answer})")
    status, answer = call(base, "GET", "/api/v1/inference/pow/status")
    claim("and are idle", answer.get("status") == "IDLE", f"({answer.get('status')})")
    claim("what was refused came again, byte for byte", Callback.refused[0] in Callback.generated)
    nonces = [artifact["nonce"] for artifact in artifacts()]
    claim("no nonce came twice", len(nonces) == len(set(nonces)), f"({len(nonces)})")
    # Node 1 of 3 with 2 groups: 1 + 3g + 6x.
    residues = {nonce % 6 for nonce in nonces}
    claim("their residues are those of the two groups", residues == {1, 4}, f"({residues})")


def validation(base, callback):
    honest = {a["nonce"]: a["vector_b64"] for a in artifacts()[:6]}
    pairs = [{"nonce": nonce, "vector_b64": vector} for nonce, vector in honest.items()]
    wrong = [{"nonce": nonce, "vector_b64": spoiled(vector)} for nonce, vector in honest.items()]
    job = identity(None) | {"nonces": list(honest)}
    job |= {"stat_test": {"dist_threshold": 0.4, "p_mismatch": 0.1, "p_value_threshold": 0.05}}
    for name, theirs, fraud in [("honest artifacts pass", pairs, False), ("spoiled ones do not", wrong, True)]:
        # With two engines in turn, what the one proved is judged by the other as often as not.
        body = job | {"wait": True, "validation": {"artifacts": theirs}}
        status, answer = call(base, "POST", "/api/v1/inference/pow/generate", body)
        seen = status == 200 and answer["n_total"] == 6 and answer["fraud_detected"] == fraud
        claim(name, seen, f"({status} {answer})")
    other = [{"nonce": 999_999, "vector_b64": pairs[0]["vector_b64"]}]
    status, answer = call(base, "POST", "/api/v1/inference/pow/generate", job | {"validation": {"artifacts": other}})
    claim("other nonces than asked are refused", status == 400, f"({status} {answer})")

    body = job | {"url": callback, "validation": {"artifacts": pairs}}
    status, answer = call(base, "POST", "/api/v1/inference/pow/generate", body)
    queued = status == 200 and answer["status"] == "queued" and answer["queued_count"] >= 1
    claim("a job that nobody waits for is queued", queued, f"({status} {answer})")
    polled = {}

    def completed():
        polled.update(call(base, "GET", f"/api/v1/inference/pow/generate/{answer['request_id']}")[1])
        return polled.get("status") == "completed"

    claim("and can be asked for until it is done", until(completed), f"({polled})")
    claim("its id stays the fan-out's", polled.get("request_id") == answer["request_id"])
    claim("its verdict is called back", until(lambda: Callback.validated), f"({Callback.validated[:1]})")
    port = answer["request_id"].split(":")[0]
    status, _ = call(base, "GET", f"/api/v1/inference/pow/generate/{port}:00000000-0000-0000-0000-000000000000")
    claim("an unknown job is not found", status == 404, f"({status})")
    status, answer = call(base, "POST", "/api/v1/inference/pow/generate", job | {"wait": True, "stat_test": None})
    vectors = {a["nonce"]: a["vector_b64"] for a in answer.get("artifacts", [])}
    claim("without a validation the artifacts come back, the same", vectors == honest, f"({status})")


def chats(base):
    status, answer = call(base, "GET", "/v1/models")
    claim("the fan-out lists our model", status == 200 and answer["data"][0]["id"] == MODEL, f"({status})")
    request = {"model": MODEL, "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}
    status, answer = call(base, "POST", "/v1/chat/completions", request)
    claim("a chat passes through it", status == 200 and answer["choices"], f"({status})")


def validator(base):
    """The network's acceptance script with artifacts recorded by another implementation: exit code 0 passes, 2 is fraud."""
    script = PACKAGES / "benchmarks" / "scripts" / "poc_validation" / "validate.py"
    if not script.is_file():
        print("SKIPPED: no poc_validation/validate.py in this checkout")
        return
    recorded = json.loads(RECORDED.read_text())
    run = recorded["runs"][0]
    golden = {
        "model": MODEL, "seq_len": run["seq_len"], "k_dim": run["k_dim"], "public_key": recorded["public_key"],
        "node_id": 0, "node_count": 1, "dist_threshold": 0.2,
        "artifacts": [{"nonce": a["nonce"], "vector_b64": a["vector_b64"]} for a in run["artifacts"]],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, block_hash, code in [
            ("accepts this node", recorded["block_hash"], 0), ("calls artifacts of another block fraud", "OTHER", 2),
        ]:
            file = pathlib.Path(folder) / "golden.json"
            file.write_text(json.dumps(golden | {"block_hash": block_hash}))
            arguments = ["--mlnode-url", base, "--model", MODEL, "--reference", file, "--exp-dir", folder]
            pace = ["--warmup-seconds", "1", "--measure-seconds", "6", "--sample-interval", "3"]
            ended = subprocess.run([sys.executable, script, *arguments, *pace], capture_output=True, text=True)
            claim(f"the network's validator {name}", ended.returncode == code, f"(exit {ended.returncode})")
            if ended.returncode != code:
                print(ended.stdout[-2000:] + ended.stderr[-2000:])


def main():
    model = json.loads(subprocess.run([AGENT, "models", "list", "--json"], check=True, capture_output=True).stdout)
    [path] = [m["path"] for m in model["models"] if m["name"] == "smollm2-135m" and m["here"]]
    ports = [free_port(), free_port()]
    engines = [
        subprocess.Popen([AGENT, "serve", "--listen", f"127.0.0.1:{port}", "--model", path, "--served-as", MODEL,
                          "--context", "512", "--accuse-with-own-weights"])
        for port in ports
    ]
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    callback = f"http://127.0.0.1:{receiver.server_port}{CALLBACK_PATH}"
    try:
        # A node without a model is healthy too; the fan-out would take it for an engine that is up.
        def loaded(port):
            status, answer = call(f"http://127.0.0.1:{port}", "GET", "/api/v1/inference/up/status")
            return status == 200 and answer["is_running"]

        claim("both engines have their model", until(lambda: all(loaded(port) for port in ports)))
        base = start_fan_out(ports)
        status = lambda: call(base, "GET", "/api/v1/inference/pow/status")[1]
        both = lambda: isinstance(status(), dict) and len(status().get("backends", [])) == 2
        claim("the fan-out finds both engines healthy", until(both))
        claim("and idle", status()["status"] == "IDLE", f"({status()})")
        generation(base, callback)
        validation(base, callback)
        chats(base)
        validator(f"http://127.0.0.1:{ports[0]}")
    finally:
        for engine in engines:
            engine.terminate()
        for engine in engines:
            engine.wait(PATIENCE_SECONDS)
    finish()


if __name__ == "__main__":
    main()

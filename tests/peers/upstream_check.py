"""Holds the openai-upstream engine against llama.cpp's server. Usage: upstream_check.py ROADBED_AGENT

Each line of output is one claim; the exit code is 0 only if all held.
"""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai

from claims import PATIENCE_SECONDS, claim, finish, free_port, until

AGENT = sys.argv[1]
NAME = "org/SmolLM2"

# llama.cpp's own HTTP server, as this package brings it, until it is ended from outside.
SERVER = """
import signal, sys, xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.n_ctx = 2048
params.n_parallel = 2
params.n_gpu_layers = 0
params.endpoint_slots = True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
"""


def page(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


def metric(base, name):
    for line in (page(f"{base}/metrics") or "").splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


def ask(text):
    return [{"role": "user", "content": text}]


def model_file():
    listed = subprocess.run([AGENT, "models", "list", "--json"], check=True, capture_output=True).stdout
    [path] = [m["path"] for m in json.loads(listed)["models"] if m["name"] == "smollm2-135m" and m["here"]]
    return path


def pids_of(port):
    """Processes with this port among their arguments."""
    found = []
    for process in pathlib.Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(port).encode() in words:
            found.append(int(process.name))
    return found


def serve(*arguments):
    port = free_port()
    process = subprocess.Popen([AGENT, "serve", "--listen", f"127.0.0.1:{port}", *arguments])
    return process, f"http://127.0.0.1:{port}"


REQUEST = dict(messages=ask("What is the capital of France?"), temperature=0, max_tokens=8)


def client_of(base):
    return openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=PATIENCE_SECONDS)


def said_by(server):
    """What the server says when it is asked without us."""
    answer = client_of(server).chat.completions.create(**REQUEST, model="any")
    return answer.choices[0].message.content


def answers(client, server):
    request = dict(REQUEST, model=NAME)
    [listed] = client.models.list().data
    claim("the model has our name", listed.id == NAME)
    answer = client.chat.completions.create(**request)
    said = answer.choices[0].message.content
    claim("a chat is answered as the server answers it", said and said == said_by(server), f"({said!r})")
    claim("under our name", answer.model == NAME)
    for asked in [False, True]:
        more = {"stream_options": {"include_usage": True}} if asked else {}
        with client.chat.completions.create(**request, stream=True, **more) as stream:
            chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        claim("a streamed chat is the same", text == said, f"({len(chunks)} chunks)")
        counted = bool(chunks[-1].usage)
        claim(f"its tokens are {'counted' if asked else 'not counted unasked'}", counted == asked)
        claim("its chunks have our name", all(chunk.model == NAME for chunk in chunks))
    scored = client.chat.completions.create(**request, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    claim("log probabilities come through", all(len(token.top_logprobs) == 3 for token in scored), f"({len(scored)})")
    plain = client.completions.create(model=NAME, prompt="One, two,", max_tokens=4, temperature=0).choices[0]
    claim("a text is continued", "three" in plain.text, f"({plain.text!r})")
    schema = {"type": "object", "properties": {"big": {"type": "boolean"}}, "required": ["big"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    read = client.chat.completions.create(**(request | {"max_tokens": 40}), response_format=form).choices[0]
    claim("the server's own forms come through", "big" in json.loads(read.message.content), f"({read.message.content!r})")
    extra = client.chat.completions.create(**request, extra_body={"n_probs": 2, "timings_per_token": True})
    claim("fields only the server knows come through", hasattr(extra, "timings"))
    for name, kind, wrong in [
        ("another model", openai.NotFoundError, {"model": "gpt-4"}),
        ("what the server refuses", openai.BadRequestError, {"messages": "hi"}),
    ]:
        try:
            client.chat.completions.create(**(request | wrong))
            claim(f"{name} is refused", False)
        except openai.APIStatusError as error:
            claim(f"{name} is a {kind.__name__}", type(error) is kind, f"({error.message[:70]})")


def hangs_up(client, base, server):
    def busy_slots():
        slots = json.loads(page(f"{server}/slots") or "[]")
        return sum(slot["is_processing"] for slot in slots)

    stream = client.chat.completions.create(
        model=NAME, messages=ask("Tell a very long story."), stream=True, max_tokens=900,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    claim("a slot is busy while it streams", busy_slots() == 1 and metric(base, "roadbed_open_jobs") == 1)
    stream.close()
    began = time.monotonic()
    claim("hanging up frees the slot", until(lambda: busy_slots() == 0), f"({time.monotonic() - began:.2f} s)")
    claim("and the rig", until(lambda: metric(base, "roadbed_open_jobs") == 0))
    claim("it counts as cancelled", metric(base, "roadbed_jobs_cancelled_total") == 1)


def dies(client, base, port):
    stream = client.chat.completions.create(
        model=NAME, messages=ask("Tell a very long story."), stream=True, max_tokens=900,
        extra_body={"ignore_eos": True},
    )
    stream = iter(stream)
    next(stream)
    for pid in pids_of(port):
        os.kill(pid, signal.SIGKILL)
    try:
        for _ in stream:
            pass
        claim("a stream whose server was killed ends with an error", False)
    except openai.APIError as error:
        claim("a stream whose server was killed ends with an error", True, f"({error.message[:70]})")
    try:
        client.chat.completions.create(model=NAME, messages=ask("a"), max_tokens=1)
        claim("the next chat is refused", False)
    except openai.APIStatusError as error:
        claim("the next chat is refused", error.status_code in (502, 503), f"({error.status_code})")
    began = time.monotonic()
    up = until(lambda: page(f"{base}/v1/models") is not None)
    claim("the server is started again", up, f"({time.monotonic() - began:.1f} s)")
    answer = client.chat.completions.create(model=NAME, messages=ask("a"), max_tokens=1)
    claim("and answers", answer.usage.completion_tokens == 1)
    claim("which is counted", metric(base, "roadbed_upstream_restarts_total") == 1)


def supervised(file):
    port = free_port()
    command = shlex.join([sys.executable, "-c", SERVER, file, str(port)])
    began = time.monotonic()
    process, base = serve(
        "--upstream", f"http://127.0.0.1:{port}/v1", "--upstream-command", f"exec {command}", "--served-as", NAME)
    up = until(lambda: page(f"{base}/v1/models") is not None)
    claim("llama.cpp is started and answers", up, f"({time.monotonic() - began:.1f} s)")
    if not up:
        process.kill()
        return
    client = client_of(base)
    server = f"http://127.0.0.1:{port}"
    answers(client, server)
    hangs_up(client, base, server)
    dies(client, base, port)
    up = urllib.request.Request(f"{base}/api/v1/stop", b"{}")
    urllib.request.urlopen(up, timeout=60).read()
    claim("a stop ends the server before it is answered", not pids_of(port))
    up = urllib.request.Request(
        f"{base}/api/v1/inference/up", json.dumps({"model": NAME, "dtype": "auto"}).encode())
    urllib.request.urlopen(up, timeout=PATIENCE_SECONDS).read()
    claim("up starts it again", page(f"{base}/v1/models") is not None and len(pids_of(port)) >= 1)
    process.kill()
    process.wait()
    claim("it does not outlive a killed agent", until(lambda: not pids_of(port)))


def attached(file):
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, file, str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = server.stdout.readline().strip()
    claim("llama.cpp serves", address.endswith(str(port)), f"({address})")
    process, base = serve("--upstream", address)
    claim("it is attached to", until(lambda: page(f"{base}/v1/models") is not None))
    client = client_of(base)
    [listed] = client.models.list().data
    answer = client.chat.completions.create(**REQUEST, model=listed.id)
    said = answer.choices[0].message.content
    held = said == said_by(address) and answer.model == listed.id
    claim("it answers under its own name", held, f"({listed.id}: {said!r})")
    process.terminate()
    claim("the agent ends", process.wait(60) == 0)
    claim("and leaves the server alone", page(f"{address}/v1/models") is not None)
    server.kill()
    server.wait()


def main():
    print(f"openai {openai.__version__}")
    file = model_file()
    supervised(file)
    attached(file)
    finish()


main()

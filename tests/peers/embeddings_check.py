"""Holds served embeddings of all-MiniLM-L6-v2 against candle's. Usage: embeddings_check.py http://HOST:PORT FOLDER AGENT_PID

Each line of output is one claim; the exit code is 0 only if all held. candding loads from the Hub's cache folder only, so one
is made out of links to FOLDER; nothing is fetched.
"""

import os
import pathlib
import sys
import tempfile
import time
import urllib.request

from claims import PATIENCE_SECONDS, claim, finish

BASE, FOLDER, AGENT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), int(sys.argv[3])
REPO = "sentence-transformers/all-MiniLM-L6-v2"
HUB = tempfile.TemporaryDirectory()
# Read when candding is imported.
os.environ["HF_HOME"], os.environ["HF_HUB_OFFLINE"] = HUB.name, "1"

import candding  # noqa: E402
import numpy  # noqa: E402
import openai  # noqa: E402
import tokenizers  # noqa: E402


COSINE_MIN = 0.9999
TOKENS_MAX = 256
SPEED_TEXTS = 64
SPEED_ROUNDS = 3

TEXTS = [
    "",
    "hello world",
    "Hello, World!",
    "The quick brown fox jumps over the lazy dog.",
    "A mining farm that turns its graphics cards into inference servers saves the purchase of new ones.",
    "Der Strompreis fällt nachts; dann wird gerechnet.",
    "El precio de la electricidad baja por la noche.",
    "電気料金は夜に下がります。",
    "Цена на электричество падает ночью.",
    "naïve café – “quoted” — résumé",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "🙂🚀 emoji and ☃ symbols ∑∫√",
    "tab\tnewline\nand   many    spaces  ",
    "unaffable antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "1234567890 3.14159 -42 0xdeadbeef 10^9",
    "[CLS] inside [SEP] the text [MASK]",
    "x" * 150,
    "What does a rig cost per day at eleven cents a kilowatt-hour? " * 6,
    "Every rig reports what it draws; the controller believes none of them. " * 40,
]


def wait_for_server():
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{BASE}/v1/models", timeout=10) as page:
                return page.status == 200
        except OSError:
            time.sleep(0.2)
    return False


def peer():
    repo = pathlib.Path(HUB.name) / "hub" / ("models--" + REPO.replace("/", "--"))
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("local")
    for file in FOLDER.rglob("*"):
        if file.is_file():
            link = repo / "snapshots" / "local" / file.relative_to(FOLDER)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    return candding.TextEmbedding(REPO, device="cpu", dtype="f32")


def cosines(a, b):
    a, b = numpy.asarray(a, dtype=numpy.float64), numpy.asarray(b, dtype=numpy.float64)
    return (a * b).sum(axis=1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refused(kind, call):
    try:
        call()
    except kind as error:
        return True, error.message
    except openai.APIError as error:
        return False, repr(error)
    return False, "it was answered"


def main():
    claim("the server comes up", wait_for_server())
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=PATIENCE_SECONDS)
    model = client.models.list().data[0].id
    cut = {"truncate_prompt_tokens": -1}

    def ours(texts, **more):
        answer = client.embeddings.create(model=model, input=texts, extra_body=cut, **more)
        assert [row.index for row in answer.data] == list(range(len(answer.data)))
        return [row.embedding for row in answer.data], answer.usage

    theirs = peer()
    claim("candle's embedder reads the same length of text", theirs.max_length == TOKENS_MAX)
    found, usage = ours(TEXTS)
    wanted = theirs.embed(TEXTS)
    likeness = cosines(found, wanted)
    worst = numpy.abs(numpy.asarray(found) - wanted).max()
    claim(f"{len(TEXTS)} embeddings are candle's", likeness.min() >= COSINE_MIN,
          f"cosine {likeness.min():.9f} or more, {worst:.1e} off at most")
    claim("they have unit length", numpy.allclose(numpy.linalg.norm(found, axis=1), 1, atol=1e-6))
    claim("as many tokens are counted", usage.prompt_tokens == sum(theirs.token_count(TEXTS)), usage.prompt_tokens)

    alone = [ours(text)[0][0] for text in TEXTS]
    claim("each text alone gives the same, bit for bit", alone == found)
    claim("and backwards", ours(TEXTS[::-1])[0][::-1] == found)
    # Floats are written as decimals, in as few digits as tell an f32 apart.
    decimals = numpy.asarray(ours(TEXTS, encoding_format="float")[0], dtype=numpy.float32)
    claim("base64 and floats are the same", numpy.array_equal(decimals, numpy.asarray(found, dtype=numpy.float32)))
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    # An empty list of lists of ids would be another request; every text has at least its two frame tokens.
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    claim("ids by the tokenizers package give the same", ours(ids)[0] == found)
    claim("the model's own size may be asked for", ours("a", dimensions=384)[0] == ours("a")[0])

    create = client.embeddings.create
    claim("a text that is too long is refused", *refused(
        openai.BadRequestError, lambda: create(model=model, input=TEXTS[-1])))
    claim("another size is refused", *refused(
        openai.BadRequestError, lambda: create(model=model, input="a", dimensions=128)))
    claim("another model is refused", *refused(
        openai.NotFoundError, lambda: create(model="nobody", input="a")))
    claim("2049 texts are refused", *refused(
        openai.BadRequestError, lambda: create(model=model, input=["a"] * 2049)))
    claim("chats are refused", *refused(
        openai.NotFoundError, lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "a"}])))

    # The same work for both: texts of about 40 tokens.
    texts = [f"{number}: " + TEXTS[4] + " " + TEXTS[3] for number in range(SPEED_TEXTS)]
    tokens = sum(theirs.token_count(texts)) / len(texts)
    rates = {"ours, over HTTP": [], "candle": []}
    for _ in range(SPEED_ROUNDS):
        before = cpu_seconds(AGENT)
        ours(texts)
        rates["ours, over HTTP"].append(SPEED_TEXTS / (cpu_seconds(AGENT) - before) * 2)
        before = time.process_time()
        theirs.embed(texts)
        rates["candle"].append(SPEED_TEXTS / (time.process_time() - before) * 2)
    for name, values in rates.items():
        print(f"       {name}: {numpy.median(values):.1f} texts of {tokens:.0f} tokens per second, CPU-normalised to two cores")
    finish()


if __name__ == "__main__":
    main()

"""Drives a served model with OpenAI's own Python client. Usage: openai_check.py http://HOST:PORT [GATEWAY]

GATEWAY is the address of a farm's gateway in front of the same model; keys as in run_openai.

Each line of output is one claim; the exit code is 0 only if all held.
"""

import json
import sys
import urllib.request

import openai

from claims import PATIENCE_SECONDS, claim, finish, until

BASE = sys.argv[1]
GATEWAY = sys.argv[2] if len(sys.argv) > 2 else None


def metric(name):
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"{BASE}/metrics", timeout=60) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return None


def is_up():
    try:
        with urllib.request.urlopen(f"{BASE}/v1/models", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(text):
    return [{"role": "user", "content": text}]


def models(client):
    listed = client.models.list().data
    claim("models are listed", len(listed) == 1, f"({listed[0].id})")
    model = listed[0].id
    claim("a model is retrieved by its name", client.models.retrieve(model).id == model)
    return model


def chats(client, model):
    question = ask("What is the capital of France?")
    answer = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=8)
    choice = answer.choices[0]
    claim("a chat is answered", "Paris" in choice.message.content, f"({choice.message.content!r})")
    claim("it ends by itself", choice.finish_reason == "stop")
    claim("its tokens are counted", answer.usage.completion_tokens == 8, f"({answer.usage.total_tokens})")

    with client.chat.completions.create(
        model=model, messages=question, temperature=0, max_tokens=8, stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    claim("a streamed chat is the same", text == choice.message.content, f"({len(chunks)} chunks)")
    claim("the last chunk counts", chunks[-1].usage.total_tokens == answer.usage.total_tokens)

    stopped = client.chat.completions.create(
        model=model, messages=question, temperature=0, max_tokens=8, stop=[" France", "unheard of"]
    ).choices[0]
    claim("a stop text ends it", stopped.message.content == "The capital of", f"({stopped.finish_reason})")

    scored = client.chat.completions.create(
        model=model, messages=question, temperature=0, max_completion_tokens=2, logprobs=True, top_logprobs=3
    ).choices[0].logprobs.content
    likeliest = [max(t.top_logprobs, key=lambda top: top.logprob).token == t.token for t in scored]
    claim("log probabilities name the likeliest", len(scored) == 2 and all(likeliest))
    claim("three alternatives each", all(len(t.top_logprobs) == 3 for t in scored))


def sampling(client, model):
    def draw(seed, **more):
        answer = client.chat.completions.create(
            model=model, messages=ask("Name a colour."), temperature=1.5, seed=seed, max_tokens=6, **more
        )
        return [choice.message.content for choice in answer.choices]

    claim("a seed repeats", draw(7) == draw(7))
    several = draw(7, n=3)
    claim("n answers differ", len(several) == 3 and len(set(several)) > 1, f"({several})")
    claim("the first of them is the seed's", several[0] == draw(7)[0])
    biased = client.completions.create(
        model=model, prompt="The sky is", temperature=0, max_tokens=3, logit_bias={"2535": 100},
        frequency_penalty=2.0, presence_penalty=2.0,
    )
    plain = client.completions.create(model=model, prompt="The sky is", temperature=0, max_tokens=3)
    claim("a bias changes the answer", biased.choices[0].text != plain.choices[0].text, f"({biased.choices[0].text!r})")
    streamed = client.chat.completions.create(
        model=model, messages=ask("Hi"), n=2, max_tokens=2, temperature=0, stream=True
    )
    seen = {choice.index for chunk in streamed for choice in chunk.choices}
    claim("n answers are streamed", seen == {0, 1})


def completions(client, model):
    answer = client.completions.create(
        model=model, prompt=["One, two,", "The capital of France is"], max_tokens=2, temperature=0
    )
    claim("two prompts get two answers", [c.index for c in answer.choices] == [0, 1], f"({answer.choices[1].text!r})")
    echo = client.completions.create(
        model=model, prompt="One, two,", max_tokens=1, temperature=0, echo=True, logprobs=1
    ).choices[0]
    claim("an echo begins with the prompt", echo.text.startswith("One, two,"), f"({echo.text!r})")
    claim("its first token follows nothing", echo.logprobs.token_logprobs[0] is None)
    claim("its others are scored", all(p < 0 for p in echo.logprobs.token_logprobs[1:]))


def forms(client, model):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model, messages=ask("The capital of France, as JSON"), temperature=0, max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    ).choices[0]
    read = json.loads(answer.message.content)
    claim("a json_schema is kept to", set(read) == {"city", "big"} and answer.finish_reason == "stop", f"({read})")
    answer = client.chat.completions.create(
        model=model, messages=ask("Any JSON object"), temperature=0, max_tokens=24,
        response_format={"type": "json_object"},
    ).choices[0]
    begins = answer.message.content.lstrip().startswith("{")
    claim("json_object begins an object", begins, f"({answer.message.content[:40]!r})")


def tools(client, model):
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Graz", "Linz"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    messages = ask("How is the weather in Graz?")
    for choice in ["required", {"type": "function", "function": {"name": "get_weather"}}]:
        answer = client.chat.completions.create(
            model=model, messages=messages, tools=[tool], tool_choice=choice, temperature=0, max_tokens=60,
            parallel_tool_calls=False,
        ).choices[0]
        call = (answer.message.tool_calls or [None])[0]
        arguments = json.loads(call.function.arguments) if call else None
        held = call is not None and call.function.name == "get_weather" and arguments["city"] in ("Graz", "Linz")
        claim(f"a tool is called ({'named' if choice != 'required' else choice})", held, f"({arguments})")
    messages = messages + [answer.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[tool], temperature=0, max_tokens=4
    ).choices[0]
    claim("its result may be sent back", answer.message.content is not None, f"({answer.message.content!r})")


def validation(client, model):
    """As the network's validators ask: numeric ids, enforced tokens, both modes of log probabilities."""
    def ask_for(kind, **more):
        extra = {"return_token_ids": True, "skip_special_tokens": False, "min_tokens": 12, **more.pop("extra", {})}
        if kind == "chat":
            return client.chat.completions.create(
                model=model, messages=ask("What is the capital of France?"), logprobs=True, top_logprobs=5, seed=7,
                max_tokens=16, max_completion_tokens=16, extra_body=extra, **more)
        return client.completions.create(
            model=model, prompt="The capital of France", logprobs=5, seed=7, max_tokens=16, extra_body=extra, **more)

    def lists(kind, answer):
        """Per position the token and the likeliest in its place."""
        logprobs = answer.choices[0].logprobs
        if kind == "chat":
            return [(t.token, {top.token: top.logprob for top in t.top_logprobs}) for t in logprobs.content]
        return list(zip(logprobs.tokens, logprobs.top_logprobs))

    def distance(ours, theirs):
        return max(abs(p - b.get(i, 99)) for (_, a), (_, b) in zip(ours, theirs) for i, p in a.items())

    for kind in ["chat", "text"]:
        for mode in ["raw", "processed"]:
            wishes = {"temperature": 0.8, "extra": {"logprobs_mode": mode, "top_k": 3}}
            said = lists(kind, ask_for(kind, **wishes))
            what = f"{kind}, {mode}"
            claim(f"tokens are numbers ({what})", all(t.isdigit() and all(map(str.isdigit, top)) for t, top in said))
            claim(f"no end before min_tokens ({what})", len(said) >= 12, f"({len(said)})")
            out = [sum(p == -9999 for p in top.values()) for _, top in said]
            claim(f"filtered tokens show where asked ({what})", set(out) == ({2} if mode == "processed" else {0}))
            enforced = {"tokens": [{"token": t, "top_tokens": list(top)} for t, top in said]}
            wishes["extra"]["enforced_tokens"] = enforced
            replay = lists(kind, ask_for(kind, **wishes))
            same = [t for t, _ in replay][:len(said)] == [t for t, _ in said]
            claim(f"enforced tokens come back ({what})", same and len(said) <= len(replay) <= 16)
            far = distance(said, replay)
            claim(f"their lists are the same ({what})", far < 1e-3, f"({far:.1e})")
    greedy = {"temperature": 0, "extra": {"min_tokens": 0}}
    said = ask_for("chat", **greedy)
    greedy["extra"]["enforced_str"] = said.choices[0].message.content
    replay = ask_for("chat", **greedy)
    same = [t for t, _ in lists("chat", said)] == [t for t, _ in lists("chat", replay)]
    claim("enforced text is scored to its end", same and replay.choices[0].finish_reason == "stop")
    short = ask_for("chat", temperature=0, extra={"min_tokens": 12, "enforced_tokens": {"tokens": [{"token": "504"}]}})
    ids = [t for t, _ in lists("chat", short)]
    claim("past its end the last id repeats", len(ids) == 12 and len(set(ids[1:])) == 1 and ids[0] == "504", f"({ids})")

    terms = {"contract_version": "1.0.0", "inference_id": "chain-abc"}
    drawn = [ask_for("chat", temperature=0.9, extra={"top_k": 20, "deterministic_sampling": terms}) for _ in range(2)]
    ids = [lists("chat", answer) for answer in drawn]
    claim("a draw by contract repeats", ids[0] == ids[1])
    listed = drawn[0].choices[0].logprobs.content[0].drawn_from
    claim("it tells what it drew from", len(listed) == 20 and all(isinstance(p, str) for p in listed.values()))
    with client.chat.completions.create(
        model=model, messages=ask("Hi"), logprobs=True, top_logprobs=5, seed=7, max_tokens=4, stream=True,
        stream_options={"include_usage": True}, temperature=0.9,
        extra_body={"top_k": 5, "return_token_ids": True, "deterministic_sampling": terms},
    ) as stream:
        chunks = list(stream)
    told = [t for c in chunks if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    claim("a stream tells the same", len(told) == 4 and all(len(t.drawn_from) == 5 for t in told))


def errors(client, model):
    cases = [
        ("another model", openai.NotFoundError, dict(model="gpt-4", messages=ask("a"))),
        ("a bad temperature", openai.BadRequestError, dict(model=model, messages=ask("a"), temperature=3)),
        ("no messages", openai.BadRequestError, dict(model=model, messages=[])),
        ("a foreign schema", openai.BadRequestError, dict(model=model, messages=ask("a"), response_format={
            "type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "http://elsewhere"}}})),
        ("too long a prompt", openai.BadRequestError, dict(model=model, messages=ask("word " * 9000))),
    ]
    for name, kind, request in cases:
        try:
            client.chat.completions.create(**request)
            claim(f"{name} is refused", False)
        except openai.APIStatusError as error:
            claim(f"{name} is a {kind.__name__}", type(error) is kind, f"({error.message[:60]})")
    try:
        client.embeddings.create(model=model, input="a")
        claim("embeddings are refused", False)
    except openai.BadRequestError as error:
        claim("embeddings are refused", True, f"({error.message[:60]})")


def disconnects(client, model):
    before = metric("roadbed_jobs_cancelled_total")
    stream = client.chat.completions.create(
        model=model, messages=ask("Tell a very long story."), stream=True, max_tokens=1000
    )
    next(iter(stream))
    claim("a job is open while it streams", metric("roadbed_open_jobs") == 1)
    stream.close()
    claim("a customer who goes away frees the engine", until(lambda: metric("roadbed_open_jobs") == 0))
    claim("his job counts as cancelled", metric("roadbed_jobs_cancelled_total") == before + 1)


def gateway(model):
    """The same model behind the controller: a customer's answer is judged at the rig's own address, as validators do."""
    def of(path, key):
        return openai.OpenAI(base_url=f"{GATEWAY}{path}", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS)

    def ask_for(client, **more):
        extra = {"return_token_ids": True, "skip_special_tokens": False, "logprobs_mode": "processed", "top_k": 3,
                 **more.pop("extra", {})}
        return client.chat.completions.create(
            model=model, messages=ask("What is the capital of France?"), logprobs=True, top_logprobs=5, seed=7,
            temperature=0.8, max_tokens=6, extra_body=extra, **more)

    def lists(tokens):
        return [(t.token, {top.token: top.logprob for top in t.top_logprobs}) for t in tokens]

    farm, rig = of("/v1", "customer-key"), of("/rigs/gpu-1/v1", "node-secret")

    def answers():
        try:
            return [m.id for m in farm.models.list().data] == [model]
        except openai.OpenAIError:
            return False

    claim("the gateway lists the farm's model", until(answers))
    claim("the rig behind it lists the same", [m.id for m in rig.models.list().data] == [model])
    for client, name in [(of("/v1", "another"), "customer"), (of("/rigs/gpu-1/v1", "customer-key"), "Network Node")]:
        try:
            ask_for(client)
            claim(f"a {name} without the key is turned away", False)
        except openai.AuthenticationError as error:
            claim(f"a {name} without the key is turned away", True, f"({error.message[:40]})")
    said = ask_for(farm)
    executed = lists(said.choices[0].logprobs.content)
    numeric = all(t.isdigit() and all(map(str.isdigit, top)) for t, top in executed)
    claim("a customer's tokens are numbers", numeric and len(executed) > 0, f"({len(executed)})")
    filtered = {sum(p == -9999 for p in top.values()) for _, top in executed}
    claim("filtered tokens show", filtered == {2}, f"({filtered})")
    enforced = {"tokens": [{"token": t, "top_tokens": list(top)} for t, top in executed]}
    replay = lists(ask_for(rig, extra={"enforced_tokens": enforced}).choices[0].logprobs.content)
    far = max(abs(p - b.get(i, 99)) for (_, a), (_, b) in zip(executed, replay) for i, p in a.items())
    same = [t for t, _ in replay][:len(executed)] == [t for t, _ in executed]
    claim("enforced tokens come back with the same lists", same and far < 1e-3, f"({far:.1e})")
    text = ask_for(rig, extra={"enforced_str": said.choices[0].message.content})
    retold = [t for t, _ in lists(text.choices[0].logprobs.content)]
    claim("so does enforced text", retold[:3] == [t for t, _ in executed][:3], f"({retold})")
    with ask_for(farm, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    told = lists(t for c in chunks if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content)
    claim("a stream through the gateway tells the same", told == executed and chunks[-1].usage is not None)
    try:
        farm.chat.completions.create(model="gpt-4", messages=ask("a"))
        claim("a model nobody serves is refused", False)
    except openai.NotFoundError as error:
        claim("a model nobody serves is refused", True, f"({error.message[:60]})")


def main():
    print(f"openai {openai.__version__}")
    claim("the server is up", until(is_up))
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=PATIENCE_SECONDS)
    model = models(client)
    for check in [chats, completions, sampling, forms, tools, validation, errors, disconnects]:
        check(client, model)
    if GATEWAY:
        gateway(model)
    finish()


main()

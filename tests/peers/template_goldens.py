#!/usr/bin/env python3
"""Prompts by Python's jinja2, set up as `transformers` sets it up, for compute/tests/template_goldens.rs.

    template_goldens.py OUT                         the goldens of tests/data/templates
    template_goldens.py OUT TOKENIZER_CONFIG...     of the templates in these files
"""

import json
import sys
from pathlib import Path

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = Path(__file__).resolve().parents[1] / "data" / "templates"


def environment():
    """As transformers' `_compile_jinja_template`; the date is fixed."""

    def raise_exception(message):
        raise ValueError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    jinja.filters["tojson"] = tojson
    jinja.globals["raise_exception"] = raise_exception
    return jinja


def render(template, conversation):
    try:
        return environment().from_string(template["source"]).render(
            messages=conversation["messages"],
            tools=conversation["tools"] or None,
            add_generation_prompt=True,
            bos_token=template["bos"],
            eos_token=template["eos"],
            **conversation["variables"],
        )
    except Exception:
        return None


def templates(paths):
    if not paths:
        for path in sorted(DATA.glob("*.jinja")):
            tokens = json.loads((DATA / "tokens.json").read_text())[path.stem]
            yield {"name": path.stem, "source": path.read_text(), **tokens}
    for path in paths:
        config = json.loads(Path(path).read_text())
        name = lambda token: (token or {}).get("content", "") if not isinstance(token, str) else token
        bos, eos = name(config.get("bos_token")), name(config.get("eos_token"))
        yield {"name": path, "source": config["chat_template"], "bos": bos, "eos": eos}


def main():
    conversations = json.loads((DATA / "conversations.json").read_text())
    cases = []
    for template in templates(sys.argv[2:]):
        prompts = [render(template, conversation) for conversation in conversations]
        cases.append({"template": template, "prompts": prompts})
        print(template["name"], sum(prompt is not None for prompt in prompts), "of", len(prompts))
    if not sys.argv[2:]:
        for case in cases:
            case["template"] = case["template"]["name"]
    Path(sys.argv[1]).write_text(json.dumps(cases, indent=1) + "\n")


main()

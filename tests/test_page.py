"""The server's web page: what it is made of, and what it does in a browser (Playwright and a Chromium on the PATH)."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest

from browsing import started
from hornbook.serving.app import PAGE
from hornbook.serving.keys import Keys, hashed
from serving_site import LABELS, Running, classifier, rung, running, slowed, until

TEXT = PAGE.read_text(encoding="utf-8")
KEY = "a-key-that-is-long-enough"


# What it is made of


def test_it_names_no_other_host_and_is_small() -> None:
    hosts = set(re.findall(r"[a-z]+://[^\s\"'`<)]*", TEXT)) - {"http://www.w3.org/2000/svg"}
    assert not hosts
    assert not re.search(r"""["'`(=]\s*//[a-z]""", TEXT)
    assert len(TEXT.encode()) < 60_000


def test_text_never_becomes_markup_or_code() -> None:
    wrong = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|Fragment"
    assert not re.search(wrong, TEXT)
    assert not re.search(r"\son[a-z]+=\"", TEXT)


class Outline(HTMLParser):
    """The ids of a page, its labels and controls, and the ids that its attributes refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.controls: list[str] = []
        self.referred: set[str] = set()
        self.in_label = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("id") or ""
        self.ids += [name] if name else []
        self.referred |= {given[key] or "" for key in ("for", "aria-controls", "aria-describedby") if key in given}
        self.referred |= {given["aria-labelledby"] or ""} if "aria-labelledby" in given else set()
        if tag == "label":
            self.in_label = True
            self.labelled.add(given.get("for") or "")
        if tag in ("input", "select", "textarea"):
            self.controls.append(name)
            self.labelled |= {name} if self.in_label else set()

    def handle_endtag(self, tag: str) -> None:
        self.in_label = self.in_label and tag != "label"


def test_every_control_has_a_label_and_every_reference_a_goal() -> None:
    outline = Outline(TEXT)
    assert len(outline.controls) > 15
    assert set(outline.controls) <= outline.labelled
    assert len(set(outline.ids)) == len(outline.ids)
    assert outline.referred | set(re.findall(r"\bat\(\"([\w-]+)\"\)", TEXT)) <= set(outline.ids)


def colours(theme: int) -> dict[str, list[float]]:
    """The colours of the light (0) or dark (1) theme by name, red, green and blue from 0 to 1."""
    pairs = re.findall(r"--(\w+): light-dark\(#(\w{6}), #(\w{6})\)", TEXT)
    return {name: [int(pair[theme][i : i + 2], 16) / 255 for i in (0, 2, 4)] for name, *pair in pairs}


def luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: list[float], two: list[float]) -> float:
    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_everything_can_be_read_in_both_themes(theme: int) -> None:
    """4.5 to 1 for text, 3 to 1 for edges of controls: WCAG 2, level AA."""
    found = colours(theme)
    grounds = [found[name] for name in ("paper", "card")]
    for ground in grounds:
        assert min(contrast(found[name], ground) for name in ("ink", "soft", "alarm", "blue")) >= 4.5
        assert contrast(found["edge"], ground) >= 3
    assert contrast(found["ink"], found["grid"]) >= 4.5
    for share in map(int, re.findall(r"--share: (\d+)%", TEXT)):
        mixed = [(share * w + (100 - share) * c) / 100 for w, c in zip(found["warm"], found["card"], strict=True)]
        assert contrast(found["ink"], mixed) >= 4.5


# What it does in a browser


@dataclass
class Visit:
    """A browser's page, what it complained about, and what it asked for."""

    page: Any
    server: Running
    complaints: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self.requested)

    def requested(self, request: Any) -> None:
        self.urls.append(request.url)
        self.bodies += [json.loads(request.post_data)] if request.method == "POST" else []

    def see(self, selector: str, text: str) -> None:
        """Wait until one of the elements shows a text."""
        self.page.locator(selector, has_text=text).first.wait_for(timeout=20_000)

    def set(self, **dials: str) -> None:
        """Move dials; sliders go by an event, as a hand would cause it."""
        for name, value in dials.items():
            dial = self.page.locator(f"#{name}")
            dial.evaluate("(dial, value) => { dial.value = value; }", value)
            for event in ("input", "change"):
                dial.dispatch_event(event, {"bubbles": True})

    def generate(self, prompt: str, *models: str, **dials: str) -> None:
        """With the likeliest tokens, unless told otherwise."""
        for select, model in zip(("first", "second"), models, strict=False):
            self.page.select_option(f"#{select}", model)
        self.set(**{"temperature": "0", "max_tokens": "30"} | dials)
        self.page.fill("#prompt", prompt)
        self.page.click("#generate")

    def done(self, button: str = "generate") -> None:
        """Wait until nothing is being written."""
        self.page.locator(f"#{button}:not(:text('Stop'))").wait_for(timeout=20_000)

    def wanted(self, model: str, prompt: str, **more: Any) -> dict[str, Any]:
        """What the server answers to the same question."""
        asked = {"model": model, "prompt": prompt, "max_tokens": 30, "temperature": 0, "logprobs": 5, **more}
        return self.server.http.post("/v1/completions", json=asked).json()["choices"][0]

    def written(self) -> list[str]:
        return self.page.locator("[role=listbox]").evaluate_all("all => all.map(e => e.textContent)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    models = {
        "llama": rung("llama"),
        "bigram": rung("ngram", chat=False, order=2),
        "5gram": rung("ngram"),
        "slow": slowed(rung("rnn", chat=False), 0.05),
    }
    with running(models) as found:
        yield found


@contextlib.contextmanager
def visiting(browser: Any, server: Running, **more: Any) -> Iterator[Visit]:
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | more)
    visit = Visit(context.new_page(), server)
    visit.page.goto(server.url)
    yield visit
    assert all(url.startswith((server.url + "/", "blob:" + server.url)) for url in visit.urls)
    context.close()


@pytest.fixture
def visit(browser: Any, server: Running) -> Iterator[Visit]:
    """A visit of the page, with nothing to complain about."""
    with visiting(browser, server) as found:
        found.see("#serving", "4 models")
        yield found
        assert not found.complaints


def test_a_prompt_is_continued_and_measured(visit: Visit) -> None:
    visit.generate("The statement", "5gram")
    visit.see("article .note", "Cut off")
    wanted = visit.wanted("5gram", "The statement")
    assert visit.written() == [wanted["text"]]
    names, values = (visit.page.locator(tag).all_inner_texts() for tag in ("dt", "dd"))
    figures = dict(zip(names, values, strict=True))
    nats = -sum(wanted["logprobs"]["token_logprobs"])
    assert figures["tokens"] == str(len(wanted["logprobs"]["tokens"])) == "30"
    assert float(figures["bits/token"]) == pytest.approx(nats / 30 / math.log(2), abs=0.006)
    assert float(figures["perplexity"]) == pytest.approx(math.exp(nats / 30), rel=0.006)
    assert float(figures["bits/byte"]) == pytest.approx(nats / math.log(2) / len(wanted["text"].encode()), abs=0.006)
    assert int(figures["prompt"]) >= 13
    assert visit.page.locator("#spoken").text_content().startswith(f"5gram, 30 tokens: {wanted['text']}")


def test_two_models_continue_one_prompt_side_by_side(visit: Visit) -> None:
    visit.generate("The ", "bigram", "llama")
    until(lambda: visit.page.locator("article .note", has_text="Cut off").count() == 2)
    assert visit.page.locator("article h2").all_inner_texts() == ["bigram", "llama"]
    assert visit.written()[0] == visit.wanted("bigram", "The ")["text"]
    left, right = (box.bounding_box() for box in visit.page.locator("#columns article").all())
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_frees_the_server_and_keeps_what_has_come(visit: Visit, how: str) -> None:
    visit.generate("The ", "slow", temperature="1", max_tokens="200", seed="0")  # else it may end at once
    visit.page.locator(".token").nth(2).wait_for()
    assert visit.page.inner_text("#generate") == "Stop"
    if how == "key":
        visit.page.keyboard.press("Escape")
    else:
        visit.page.click("#generate")
    visit.see("article .note", "Stopped.")
    assert visit.page.inner_text("#generate") == "Generate"
    until(visit.server.idle)
    assert 3 <= visit.page.locator(".token").count() < 200


def test_a_token_tells_its_probability_and_what_else_there_was(visit: Visit) -> None:
    visit.generate("The ", "5gram")
    visit.see("article .note", "Cut off")
    told = visit.wanted("5gram", "The ")["logprobs"]
    visit.page.locator(".token").nth(3).hover()
    rows = visit.page.locator("#about li")
    table = sorted(told["top_logprobs"][3].items(), key=lambda pair: -pair[1])
    names = [name.replace(" ", "·").replace("\n", "↵") for name, _ in table]
    assert rows.locator(".name").all_inner_texts() == names
    share = 100 * math.exp(told["token_logprobs"][3])
    assert float(visit.page.inner_text("#about li.here span:last-child").split()[0]) == pytest.approx(share, rel=0.006)
    bits = -told["token_logprobs"][3] / math.log(2)
    assert f"{bits:.2f} bits" in visit.page.inner_text("#about > p")
    assert f"{bits:.2f} bits" in visit.page.locator(".token").nth(3).get_attribute("aria-label")


def test_tokens_are_walked_with_the_keyboard_and_one_is_in_the_order_of_tab(visit: Visit) -> None:
    visit.page.fill("#prompt", "The ")
    visit.set(max_tokens="30", temperature="0")
    visit.page.select_option("#first", "5gram")
    visit.page.keyboard.press("Control+Enter")
    visit.see("article .note", "Cut off")
    assert visit.page.locator(".token[tabindex='0']").count() == 1
    visit.page.locator("article .quiet").focus()
    here = "[...document.querySelectorAll('.token')].indexOf(document.activeElement)"
    for key, place in (("Tab", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 29), ("Home", 0)):
        visit.page.keyboard.press(key)
        assert visit.page.evaluate(here) == place, key
        assert visit.page.locator(".token[tabindex='0']").count() == 1
        assert visit.page.locator("#about li").count() >= 5
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("#about li").count() == 0


def piece(tokens: list[str], finish: str | None = None) -> str:
    """A server-sent event as the server writes it, each token with a probability of a half."""
    told = {"tokens": tokens, "token_logprobs": [math.log(0.5)] * len(tokens), "text_offset": [0] * len(tokens)}
    told["top_logprobs"] = [{token: math.log(0.5), "12": math.log(0.3), "7": math.log(0.2)} for token in tokens]
    choice = {"index": 0, "text": "".join(tokens), "logprobs": told, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def answering(visit: Visit, body: str) -> None:
    """From now on completions are answered by this text."""
    visit.page.route("**/v1/completions", lambda way: way.fulfill(body=body, content_type="text/event-stream"))


def test_markup_bytes_and_white_space_are_shown_as_what_they_are(visit: Visit) -> None:
    tokens = ["<b>bold</b>", " ", "caf", r"\xc3", r"\xa9", "\n\n", r"\xf0\x9f", r"\x98\x80", r"\xff", "a\x00", " b"]
    answering(visit, piece(tokens[:4]) + piece(tokens[4:], "stop") + "data: [DONE]\n\n")
    visit.generate("x", "llama")
    visit.see("article .note", "Ended")
    shown = visit.page.locator(".token").all_text_contents()
    assert shown == ["<b>bold</b>", " ", "caf", "", "é", "\n\n", "", "😀", "", "a", " b"]
    marks = "all => all.map(e => [...e.querySelectorAll('i')].map(i => i.dataset.mark).join(''))"
    found = visit.page.locator(".token").evaluate_all(marks)
    assert found == ["", "·", "", r"\xc3", "", "↵↵", r"\xf0\x9f", "", r"\xff", "␀", ""]
    assert visit.page.locator(".text b").count() == 0
    labels = [token.get_attribute("aria-label").split(":")[0] for token in visit.page.locator(".token").all()]
    assert (labels[1], labels[5]) == ("space", "line end, line end")
    visit.page.locator(".token").nth(0).hover()
    assert visit.page.locator("#about li .name").all_inner_texts() == ["<b>bold</b>", "12", "7"]


def test_what_goes_wrong_is_told_in_words_and_the_page_goes_on(visit: Visit) -> None:
    visit.generate("The ", "llama", max_tokens="9999")
    visit.see("article .trouble", "The server refuses this: 9999 new tokens: this server gives at most 256")
    broken = {"error": {"message": "the model could not go on", "type": "server_error", "param": None, "code": None}}
    answering(visit, piece(["a"]) + f"data: {json.dumps(broken)}\n\ndata: [DONE]\n\n")
    visit.generate("The ", "llama")
    visit.see("article .trouble", "The server could not answer: the model could not go on")
    assert visit.written() == ["a"]
    answering(visit, piece(["a"]))
    visit.generate("The ", "llama")
    visit.see("article .trouble", "broke off")
    visit.page.unroute_all()
    visit.generate("The ", "llama")
    visit.see("article .note", "Cut off")
    visit.page.fill("#top_k", "-3")
    visit.page.click("#generate")
    assert visit.page.evaluate("document.activeElement.id") == "top_k"
    visit.complaints = [text for text in visit.complaints if "400" not in text]  # the browser's own line on a refusal


def test_dials_reach_the_server_and_can_be_reset(visit: Visit) -> None:
    dials = {"temperature": 0.5, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2, "top_k": 7, "seed": 3}
    given = {name: str(value) for name, value in dials.items()}
    visit.generate("The ", "5gram", **given, stop="never there\n\\n\\n")
    visit.done()
    assert {name: visit.bodies[-1][name] for name in dials} == dials
    assert visit.bodies[-1]["stop"] == ["never there", "\n\n"]
    visit.page.click("#dials [type=reset]")
    visit.generate("The ", "5gram", temperature="1")
    visit.done()
    plain = visit.bodies[-1]
    assert (plain["top_p"], plain["top_k"], "seed" in plain, "stop" in plain) == (1, 0, False, False)


def test_settings_are_remembered_and_prompts_only_where_ticked(visit: Visit) -> None:
    visit.page.fill("#prompt", "a secret thing")
    visit.set(temperature="0.3", seed="5")
    visit.page.select_option("#theme", "dark")
    for ticked, kept in ((False, ""), (True, "a secret thing")):
        visit.page.set_checked("#keep-prompts", ticked)
        visit.page.fill("#prompt", "a secret thing")
        visit.page.locator("#prompt").blur()
        assert ("a secret thing" in visit.page.evaluate("localStorage.hornbook")) == ticked
        visit.page.reload()
        assert (visit.page.input_value("#temperature"), visit.page.input_value("#seed")) == ("0.3", "5")
        assert visit.page.input_value("#prompt") == kept
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 26)"


# Chat


def say(visit: Visit, text: str) -> None:
    visit.page.fill("#message", text)
    visit.page.keyboard.press("Control+Enter")
    visit.done("send")


def test_a_conversation_goes_on_is_taken_back_and_saved(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-chat")
    assert page.locator("#talker option").all_inner_texts() == ["llama", "5gram"]
    page.select_option("#talker", "5gram")
    visit.set(temperature="0", max_tokens="12")
    page.fill("#system", "Be brief.")
    say(visit, "The statement")
    first = visit.written()[0]
    say(visit, "And then?")
    assert visit.bodies[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The statement"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    page.locator("#log [role=listbox]").first.dispatch_event("pointerover")  # between two tokens
    page.locator("#log .token").first.hover()
    assert page.locator("#about li").count() >= 5
    before = len(visit.bodies)
    page.click("#again")
    visit.done("send")
    assert visit.bodies[before]["messages"] == visit.bodies[before - 1]["messages"]
    page.click("#undo")
    assert page.input_value("#message") == "And then?"
    assert page.locator("#log article").count() == 2
    with page.expect_download() as saving:
        page.click("#save")
    saved = json.loads(saving.value.path().read_text())
    assert (saved["model"], saved["messages"][-1]) == ("5gram", {"role": "assistant", "content": first})
    page.click("#anew")
    assert page.locator("#log article").count() == 0
    page.click("#undo")
    assert page.locator("#log article").count() == 2


def test_tokens_that_add_nothing_to_an_answer_are_told_from_text(visit: Visit) -> None:
    rows = [{"token": "Hi", "bytes": [72, 105]}, {"token": "<|x|>", "bytes": None}, {"token": r"\xff", "bytes": [255]}]
    content = [{**row, "logprob": -1.0, "top_logprobs": []} for row in rows]
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": content}, "finish_reason": "stop"}
    body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    stream = {"body": body, "content_type": "text/event-stream"}
    visit.page.route("**/v1/chat/completions", lambda way: way.fulfill(**stream))
    visit.page.locator("#tab-playground").press("ArrowRight")
    say(visit, "Hello")
    assert visit.page.locator(".token").all_text_contents() == ["Hi", "", ""]
    marks = "all => all.map(e => e.dataset.mark)"
    assert visit.page.locator(".token i.piece").evaluate_all(marks) == ["<|x|>", r"\xff"]


def test_what_a_model_wrote_can_be_copied(browser: Any, server: Running) -> None:
    with visiting(browser, server, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.generate("The ", "5gram")
        visit.see("article .note", "Cut off")
        visit.page.click("article .quiet")
        visit.see("article .quiet", "Copied")
        assert visit.page.evaluate("navigator.clipboard.readText()") == visit.wanted("5gram", "The ")["text"]


def test_the_template_is_shown_as_the_model_reads_it(visit: Visit) -> None:
    visit.page.click("#tab-chat")
    visit.page.fill("#system", "Be brief.")
    visit.page.fill("#message", "Hello")
    visit.page.click("#template summary")
    visit.see("#rendering", "<|im_start|>user")
    wanted = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert visit.page.locator("#rendering").text_content() == wanted


def test_without_a_chat_template_there_is_no_chat(browser: Any) -> None:
    with running({"plain": rung("rnn", chat=False)}) as server, visiting(browser, server) as visit:
        visit.page.click("#tab-chat")
        visit.see("#no-chat", "None of these models has a chat template")
        assert not visit.page.is_visible("#message")


# Inside the model


def look(visit: Visit, model: str = "llama") -> dict[str, Any]:
    """Look inside, and what the server says to the same question."""
    visit.page.select_option("#looked", model)
    visit.page.click("#look")
    visit.done("look")
    visit.see("#looked-at", f"{model} reads")
    return visit.server.http.post("/v1/inspect", json=visit.bodies[-1]).json()


def shown(visit: Visit, table: str) -> list[list[str]]:
    """The cells of a table, row by row."""
    rows = f"#{table} tbody tr"
    return visit.page.locator(rows).evaluate_all("all => all.map(r => [...r.cells].map(c => c.textContent))")


def seen(name: str) -> str:
    """As the page writes a token's name, what cannot be seen made visible."""
    signs = {code: chr(0x2400 + code) for code in range(32)} | {9: "⇥", 10: "↵", 32: "·", 127: "U+007f"}
    return name.translate(signs)


def test_the_last_text_is_seen_layer_by_layer(visit: Visit) -> None:
    visit.generate("The st", "llama", max_tokens="8")
    visit.see("article .note", "Cut off")
    found = look(visit)
    assert visit.bodies[-1]["text"] == "The st" + visit.wanted("llama", "The st", max_tokens=8)["text"]
    head, *layers = visit.page.locator("#lens thead th").all_text_contents()
    assert (head, layers) == ("token", found["lens"]["layers"]) == ("token", ["embedding", "block 0", "block 1"])
    names = [found["names"][str(token)] for token in found["ids"]]
    best = [
        [seen(found["names"][str(layer[place][0][0])]) for layer in found["lens"]["top"]] for place in range(len(names))
    ]
    assert shown(visit, "lens") == [[seen(name), *row] for name, row in zip(names, best, strict=True)]
    came = visit.page.locator("#lens td.came").count()
    ids, top = found["ids"], found["lens"]["top"]
    assert came == sum(layer[n][0][0] == ids[n + 1] for layer in top for n in range(len(ids) - 1))
    cell = visit.page.locator("#lens tbody tr").nth(3).locator("td").nth(1)
    cell.hover()
    assert visit.page.locator("#about li").count() == 5
    share = 100 * top[1][3][0][1]
    assert float(visit.page.inner_text("#about li.here span:last-child").split()[0]) == pytest.approx(share, rel=0.006)
    assert cell.get_attribute("aria-label").startswith("block 0, after ")


def test_a_head_of_attention_is_chosen_and_drawn(visit: Visit) -> None:
    visit.page.fill("#prompt", "The statement")
    found = look(visit)
    assert visit.bodies[-1]["text"] == "The statement"
    assert visit.page.locator("#layer option").all_inner_texts() == ["0", "1"]
    assert visit.page.locator("#head option").all_inner_texts() == ["0", "1", "2", "3"]
    before = "all => all.map(c => c.style.getPropertyValue('--w'))"
    for place in ((0, 0), (1, 0), (1, 3)):
        if place != (0, 0):
            with visit.page.expect_response("**/v1/inspect"):
                select, number = ("#head", place[1]) if place[1] else ("#layer", place[0])
                visit.page.select_option(select, str(number))
            visit.see("#spoken", f"Layer {place[0]}, head {place[1]}.")
        body = {"model": "llama", "text": "The statement", "lens": False, "layer": place[0], "head": place[1]}
        weights = visit.server.http.post("/v1/inspect", json=body).json()["attention"]["weights"]
        wanted = [f"{round(100 * math.sqrt(weight))}%" for row in weights for weight in row]
        assert visit.page.locator("#weights td").evaluate_all(before) == wanted
    assert len(weights) == len(found["ids"])
    cell = visit.page.locator("#weights tbody tr").nth(5).locator("td").nth(2)
    cell.hover()
    assert "from “" in visit.page.inner_text("#about")
    assert float(visit.page.inner_text("#about > p").split("\n")[1].split()[0]) == pytest.approx(
        100 * weights[5][2], rel=0.01
    )
    assert visit.page.locator("#about li").count() == 6
    assert not visit.page.is_visible("#scale")


def test_the_tables_are_walked_with_the_keyboard(visit: Visit) -> None:
    visit.page.fill("#prompt", "The state")
    look(visit)
    rows = visit.page.locator("#lens tbody tr").count()
    where = "(e => [e.closest('table')?.id, e.parentNode.rowIndex - 1, e.cellIndex - 1])(document.activeElement)"
    visit.page.locator("#look").focus()
    keys = [("Tab", ["lens", 0, 0]), ("ArrowRight", ["lens", 0, 1]), ("ArrowDown", ["lens", 1, 1])]
    keys += [
        ("ArrowUp", ["lens", 0, 1]),
        ("ArrowUp", ["lens", 0, 1]),
        ("End", ["lens", 0, 2]),
        ("Home", ["lens", 0, 0]),
    ]
    for key, place in keys:
        visit.page.keyboard.press(key)
        assert visit.page.evaluate(where) == place, key
        assert visit.page.locator("#about li").count() == 5
    for _ in range(3):
        visit.page.keyboard.press("Tab")
    keys = [("ArrowRight", ["weights", 0, 0]), ("ArrowDown", ["weights", 1, 0]), ("ArrowRight", ["weights", 1, 1])]
    for key, place in [*keys, ("ArrowUp", ["weights", 1, 1]), ("ArrowDown", ["weights", 2, 1])]:
        visit.page.keyboard.press(key)
        assert visit.page.evaluate(where) == place, key
    assert visit.page.locator("[role=grid] [tabindex='0']").count() == 2
    assert visit.page.locator("#lens tbody tr").count() == rows
    assert visit.page.evaluate(NAMELESS) == []


def test_a_conversation_is_looked_at_in_its_template(visit: Visit) -> None:
    visit.page.click("#tab-chat")
    visit.page.select_option("#talker", "llama")
    visit.page.click("#look")
    visit.see("#looked-at", "no conversation yet")
    visit.set(max_tokens="5", temperature="0")
    say(visit, "Hello")
    found = look(visit)
    hello = {"model": "llama", "messages": [{"role": "user", "content": "Hello"}]}
    answer = visit.server.http.post("/v1/chat/completions", json={**hello, "max_tokens": 5, "temperature": 0}).json()
    said = [*hello["messages"], {"role": "assistant", "content": answer["choices"][0]["message"]["content"]}]
    body = {"model": "llama", "messages": said, "add_generation_prompt": False}
    assert found["ids"] == visit.server.http.post("/v1/chat/render", json=body).json()["ids"]
    say(visit, "And then?")
    assert not visit.page.is_visible("#views")


def test_of_a_long_text_the_end_is_seen_and_a_model_without_attention_has_none(visit: Visit) -> None:
    assert visit.page.locator("#looked option").all_inner_texts() == ["llama", "slow"]
    visit.page.fill("#prompt", "long " * 60)
    found = look(visit, "slow")
    visit.see("#looked-at", f"128 tokens; the {found['left_out']} before were left out")
    assert visit.page.locator("#lens tbody tr").count() == 128
    assert not visit.page.is_visible("#weights-view")
    look(visit, "llama")
    assert visit.page.locator("#weights td").count() == 128 * 129 // 2


def test_without_layers_there_is_nothing_to_look_into(browser: Any) -> None:
    with running({"5gram": rung("ngram")}) as server, visiting(browser, server) as visit:
        visit.see("#serving", "1 model")
        assert not visit.page.is_visible("#inside")


def test_what_cannot_be_looked_at_is_told_in_words(visit: Visit) -> None:
    error = {"message": "no such thing", "type": "invalid_request_error", "param": None, "code": None}
    visit.page.route("**/v1/inspect", lambda way: way.fulfill(status=400, json={"error": error}))
    visit.page.fill("#prompt", "x")
    visit.page.click("#look")
    visit.see("#looked-at.trouble", "The server refuses this: no such thing.")
    assert visit.page.inner_text("#look") == "Look inside"
    visit.page.unroute_all()
    look(visit)
    visit.complaints = [text for text in visit.complaints if "400" not in text]


# Classes


def test_a_classifier_s_classes_are_shown_the_likeliest_first(browser: Any) -> None:
    models = {"apart": classifier("llama"), "encoder": classifier("bert"), "rnn": rung("rnn")}
    with running(models) as server, visiting(browser, server) as visit:
        visit.see("#serving", "3 models")
        visit.see("#facts", "tells 3 classes apart")
        assert visit.page.inner_text("#generate") == "Classify"
        assert visit.page.inner_text("label[for=prompt]") == "A text to be classified"
        assert not visit.page.is_visible("#dials")
        assert "nothing to sample" in visit.page.inner_text("#settings")
        visit.page.click("#tab-chat")
        assert visit.page.is_visible("#dials"), "a conversation is sampled, whatever the playground's model"
        visit.page.click("#tab-playground")
        visit.generate("a lovely film", "apart", "encoder")
        until(lambda: visit.page.locator("#columns li").count() == 6)
        visit.done()
        for name, shown in zip(("apart", "encoder"), visit.page.locator("ol.classes").all(), strict=True):
            wanted = server.http.post("/v1/classify", json={"model": name, "input": "a lovely film"}).json()["data"][0]
            assert shown.locator(".name").all_inner_texts() == list(wanted["classes"])
            assert shown.locator("li.here .name").inner_text() == wanted["label"]
            widths = shown.locator("b").evaluate_all("all => all.map(bar => parseFloat(bar.style.width))")
            assert widths == pytest.approx([100 * share for share in wanted["classes"].values()], abs=0.01)
        assert not visit.page.is_visible("#detail")
        assert visit.page.locator("#spoken").text_content().startswith("apart: ")
        visit.generate("x", "rnn", "apart")
        visit.see("article .note", "Cut off")
        visit.done()
        assert visit.page.inner_text("#generate") == "Generate"
        assert visit.page.is_visible("#dials")
        assert visit.page.locator("ol.classes li").count() == len(LABELS)
        visit.generate("", "apart", "encoder")
        visit.see("article .trouble", "there is no token in the text")
        visit.complaints = [text for text in visit.complaints if "400" not in text]
        assert not visit.complaints


# Keys, and a server that goes


def test_a_key_is_asked_for_and_not_kept_unless_ticked(browser: Any) -> None:
    with running({"rnn": rung("rnn")}, Keys({hashed(KEY)})) as server, visiting(browser, server) as visit:
        page = visit.page
        visit.see("#key-told", "asks for an API key")
        for typed, told in (("not the one at all", "ASCII"), ("clé", "ASCII"), ("wrong-key", "does not accept")):
            page.fill("#key", typed)
            page.click("#entry button")
            visit.see("#key-told", told)
        for ticked in (False, True):
            page.set_checked("#keep-key", ticked)
            page.fill("#key", KEY)
            page.click("#entry button")
            visit.see("#serving", "1 model")
            assert not page.is_visible("#entry")
            assert (KEY in page.evaluate("localStorage.hornbook")) == ticked
            page.reload()
            visit.see(*(("#serving", "1 model") if ticked else ("#key-told", "asks for an API key")))
        visit.generate("a", "rnn", max_tokens="3")
        visit.done()
        assert not page.locator("article .trouble").count()
        assert all("401" in text for text in visit.complaints)


def test_a_server_that_goes_away_is_told_and_found_again(browser: Any) -> None:
    models = {"slow": slowed(rung("rnn"), 0.05)}
    with contextlib.ExitStack() as stack:
        with running(models) as server:
            visit = stack.enter_context(visiting(browser, server))
            visit.generate("a", "slow", temperature="1", max_tokens="200", seed="0")  # which does not end by itself
            visit.page.locator(".token").nth(1).wait_for()
        visit.see("article .trouble", "shutting down")
        visit.page.click("#generate")
        visit.see("article .trouble", "The server does not answer")
        assert all("ERR_" in text or "Failed to load" in text for text in visit.complaints)


# For everybody


@pytest.mark.parametrize(("width", "height"), [(360, 640), (640, 400)], ids=["phone", "desk at 200 %"])
def test_nothing_hangs_over_on_a_narrow_screen(browser: Any, server: Running, width: int, height: int) -> None:
    with visiting(browser, server, viewport={"width": width, "height": height}, has_touch=True) as visit:
        visit.page.click("#settings summary")
        visit.generate("The averylongwordwithoutanyend" * 4, "5gram", "llama")
        until(lambda: visit.page.locator("article .note", has_text="Cut off").count() == 2)
        visit.page.locator(".token").nth(1).tap()
        assert visit.page.locator("#about li").count() >= 5
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert visit.page.evaluate(over) <= 0
        look(visit)
        visit.page.locator("#lens td").nth(1).tap()
        assert visit.page.locator("#about li").count() == 5
        assert visit.page.evaluate(over) <= 0
        visit.page.click("#tab-chat")
        say(visit, "Hello")
        assert visit.page.evaluate(over) <= 0


NAMELESS = """[...document.querySelectorAll('input, select, textarea, button, [role]')].filter(node =>
    !(node.labels?.length || node.ariaLabel || node.getAttribute('aria-labelledby') || node.textContent.trim())
    && !['alert', 'status'].includes(node.role)).map(node => node.outerHTML)"""


def test_everything_one_can_use_has_a_name(visit: Visit) -> None:
    visit.generate("The ", "5gram", "llama")
    until(lambda: visit.page.locator("article .note", has_text="Cut off").count() == 2)
    assert visit.page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("wanted", ["reduce", "no-preference"])
def test_nothing_moves_where_that_is_asked_for(browser: Any, server: Running, wanted: str) -> None:
    with visiting(browser, server, reduced_motion=wanted) as visit:
        visit.generate("The ", "slow", max_tokens="200", temperature="1", seed="0")
        caret = visit.page.locator("[aria-busy=true]").first
        found = caret.evaluate("writing => getComputedStyle(writing, '::after').animationName")
        assert found == ("none" if wanted == "reduce" else "blink")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_can_be_switched(
    browser: Any, server: Running, scheme: str, themes: Callable[[Any], str]
) -> None:
    with visiting(browser, server, color_scheme=scheme) as visit:
        assert themes(visit.page) == scheme
        for chosen in ("dark", "light"):
            visit.page.select_option("#theme", chosen)
            assert themes(visit.page) == chosen


@pytest.fixture
def themes() -> Callable[[Any], str]:
    grounds = {"rgb(253, 252, 249)": "light", "rgb(22, 23, 26)": "dark"}
    return lambda page: grounds[page.evaluate("getComputedStyle(document.body).backgroundColor")]

"""`hornbook chat`: what is said, remembered, forgotten and saved."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import tiny_model
from hornbook import talk
from hornbook.config import Chat
from hornbook.errors import UserError, visible
from hornbook.generation.answers import Piece
from hornbook.generation.conversation import Conversation
from hornbook.generation.engine import Engine
from hornbook.layers.model import LanguageModel
from hornbook.text.chat import chat_ids
from hornbook.text.tokenizer_training import train_tokenizer

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'][0] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.fixture
def model() -> LanguageModel:
    tokenizer = train_tokenizer("bytes", [])
    tokenizer.config["chat_template"] = TEMPLATE
    made = tiny_model("llama", vocab=tokenizer.vocab, bos=tokenizer.bos, eos=None, pad=tokenizer.pad, context=96)
    made.tokenizer = tokenizer
    return made


def ask(conversation: Conversation, text: str) -> str:
    return "".join(conversation.ask(text))


def test_a_conversation_remembers_both_sides_and_reads_only_what_is_new(model: LanguageModel) -> None:
    conversation = Conversation(model, Chat("x", tokens=6, system="Be brief"))
    first = ask(conversation, "Hello")
    second = ask(conversation, "Why?")
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert [conversation.messages[i]["content"] for i in (2, 4)] == [first, second]
    longest = max(len(text.tokens) for text, _ in conversation.engine.prefixes.kept)
    assert longest >= len(chat_ids(model.tokenizer, conversation.messages[:4]))


def test_an_answer_that_is_broken_off_stays_as_far_as_it_came(model: LanguageModel) -> None:
    conversation = Conversation(model, Chat("x", tokens=40))
    pieces: Any = conversation.ask("Hello")
    begun = next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": begun}
    assert len(ask(conversation, "Go on")) > 0


def test_an_answer_that_is_interrupted_amid_a_step_stays_and_the_next_one_is_the_same_as_ever(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt between the cache's new row and the list of who runs: what is half done is not built upon."""
    settings = Chat("x", tokens=4, temperature=0)
    conversation, undisturbed = Conversation(model, settings), Conversation(model, settings)
    ask(conversation, "Hello")
    cache = type(conversation.engine.cache)
    join = cache.join

    def interrupted(self: Any, other: Any) -> None:
        join(self, other)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(conversation, "Why?")
    monkeypatch.undo()
    assert conversation.messages[-2:] == [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": ""}]
    undisturbed.messages = list(conversation.messages)
    assert ask(conversation, "Go on") == ask(undisturbed, "Go on")
    assert conversation.engine.prefixes.kept


def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that conversations make from now on."""
    prompts: list[str] = []

    def noted(tokenizer: Any, messages: Any) -> list[int]:
        ids = chat_ids(tokenizer, messages)
        prompts.append("".join(tokenizer.decode(ids)))
        return ids

    monkeypatch.setattr("hornbook.generation.conversation.chat_ids", noted)
    return prompts


def test_the_model_answers_without_the_oldest_exchanges_and_the_conversation_keeps_them(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(model, Chat("x", tokens=8, system="S"))
    prompts = seen(monkeypatch)
    for number in range(6):
        ask(conversation, f"question number {number}")
    prompt = prompts[-1]
    assert prompt.startswith("[s]S\n[u]question")
    assert prompt.endswith("[u]question number 5\n[a]")
    assert len(model.tokenizer.encode(prompt)) <= 96 - 8
    assert prompt.count("[u]") == 6 - conversation.left_out < 6
    assert [m["content"] for m in conversation.messages[1::2]] == [f"question number {n}" for n in range(6)]


def test_no_more_exchanges_are_left_out_than_must_be_and_they_come_back(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(model, Chat("x", tokens=8))
    conversation.messages = [{"role": role, "content": "w" * 6} for role in ("user", "assistant") * 4]
    prompts = seen(monkeypatch)
    ask(conversation, "v" * 24)
    assert conversation.left_out == 2
    assert prompts[-1].count("w" * 6) == 4
    conversation.undo()
    ask(conversation, "v" * 4)
    assert conversation.left_out == 1
    conversation.undo()
    ask(conversation, "v")
    assert conversation.left_out == 0
    conversation.clear()
    assert (conversation.left_out, conversation.messages) == (0, [])


def test_a_message_too_long_by_itself_is_refused_and_changes_nothing(model: LanguageModel) -> None:
    conversation = Conversation(model, Chat("x", tokens=50))
    for text in ("Hello", "How are you?"):
        ask(conversation, text)
    before = list(conversation.messages)
    with pytest.raises(UserError, match=r"of the context of 96 72 are for what is said"):
        ask(conversation, "x" * 90)
    assert conversation.messages == before
    assert len(before) == 4


def test_ctrl_c_while_the_prompt_is_made_takes_the_message_back(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(model, Chat("x", tokens=4))
    ask(conversation, "Hello")

    def interrupted(*_: Any) -> list[int]:
        raise KeyboardInterrupt

    monkeypatch.setattr("hornbook.generation.conversation.chat_ids", interrupted)
    talk.answer(conversation, "lost")
    talk.command(conversation, "again", "")
    assert [(m["role"], m["content"]) for m in conversation.messages[::2]] == [("user", "Hello")]
    monkeypatch.undo()
    ask(conversation, "Bye")
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"] * 2


def test_a_model_without_a_template_is_refused_at_once(model: LanguageModel) -> None:
    del model.tokenizer.config["chat_template"]
    with pytest.raises(UserError, match="no chat template"):
        Conversation(model, Chat("x"))


@pytest.fixture
def session(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Type lines into a chat; what it printed and complained of."""

    def run(*lines: str) -> tuple[str, str]:
        waiting = iter(lines)

        def typed(_: str) -> str:
            try:
                return next(waiting)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", typed)
        monkeypatch.setattr(talk, "opened", lambda settings: model)
        talk.chat(Chat("x", tokens=5, temperature=0))
        return capsys.readouterr()

    return run


def test_commands_do_what_help_says(session: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    out, err = session("Hello", "/undo", "/system Be kind", "Bye", "/again", f"/save {file}", "/help", "/exit", "never")
    assert "forgotten: Hello" in out
    assert "/system TEXT" in out
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(m["role"], m["content"]) for m in saved[:2]] == [("system", "Be kind"), ("user", "Bye")]
    assert len(saved) == 3
    assert err == ""


def test_ctrl_c_during_an_answer_keeps_what_was_printed_and_the_chat_goes_on(
    session: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "talk.jsonl"
    session("Hello", f"/save {tmp_path / 'whole'}")
    choose, chosen = Engine.choose, 0

    def interrupted(self: Engine, *rest: Any) -> list[int]:
        nonlocal chosen
        chosen += 1
        if chosen == 4:
            raise KeyboardInterrupt
        return choose(self, *rest)

    monkeypatch.setattr(Engine, "choose", interrupted)
    out, err = session("Hello", "Bye", f"/save {file}")
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    whole = json.loads((tmp_path / "whole").read_text().splitlines()[1])["content"]
    assert [m["role"] for m in saved] == ["user", "assistant"] * 2
    assert 0 < len(saved[1]["content"]) < len(whole)
    assert whole.startswith(saved[1]["content"])
    assert out.startswith("\n".join(map(visible, saved[1]["content"].split("\n"))) + "\n")
    assert saved[3]["content"]
    assert err == ""


def test_a_line_tells_whenever_the_model_answers_without_more_or_fewer_turns_and_save_writes_them_all(
    session: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Engine, "stream", lambda self, request: iter([Piece("ok")]))
    file, long = tmp_path / "talk.jsonl", "x" * 30
    _, err = session("b", "b", long, long, "b", f"/save {file}", "/undo", "/again", "/again", "/undo", "b")
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [m["content"] for m in saved[::2]] == ["b", "b", long, long, "b"]
    full = "hornbook: the context is full: the model answers without the oldest"
    assert err.splitlines() == [
        f"{full} exchange",
        f"{full} 2 exchanges",
        f"{full} exchange",
        "hornbook: the whole conversation fits into the context again",
    ]


def test_mistakes_are_told_in_a_line_and_the_conversation_goes_on(
    session: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("mine")
    out, err = session(
        "/undo", "/sytem x", "/save", f"/save {tmp_path / 'there'}", f"/save {tmp_path}/no/such\0", "", "\udcff", "Hi"
    )
    _, more = session("/save ~nobody-of-that-name/x", f"/save {tmp_path / ('x' * 300)}", "Hi")
    assert [line.split(":")[1].strip()[:12] for line in more.splitlines()[:2]] == ["cannot write"] * 2
    told = err.splitlines()
    assert "there is no question yet" in told[0]
    assert "Did you mean '/system'?" in told[1]
    assert "needs the name of a file" in told[2]
    assert "exists" in told[3]
    assert (tmp_path / "there").read_text() == "mine"
    assert "not UTF-8" in told[5]
    assert len(out.strip()) > 0


def test_ctrl_c_at_the_prompt_does_not_leave(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = iter([KeyboardInterrupt, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), EOFError])

    def typed(_: str) -> str:
        raise next(events)

    monkeypatch.setattr("builtins.input", typed)
    assert talk.typed() is None
    told = capsys.readouterr().err
    assert "leaves" in told
    assert "not UTF-8" in told
    assert sys.stdin is not None

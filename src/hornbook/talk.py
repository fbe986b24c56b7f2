"""`hornbook chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from hornbook.atomic import write_text
from hornbook.config import Chat
from hornbook.errors import UserError, unknown, visible
from hornbook.generation.conversation import Conversation
from hornbook.generation.swift import opened

HELP = """/again         answer the last question once more
/undo          forget the last question and its answer
/system TEXT   say how the model is to behave; without TEXT, take that back
/clear         forget everything but that
/save FILE     write the conversation, a JSON message a line
/help          this
/exit          leave, as Ctrl-D does; Ctrl-C ends an answer and keeps what has come of it
When the context is full the model no longer sees the oldest exchanges; /save writes them all the same."""
COMMANDS = ("again", "undo", "system", "clear", "save", "help", "exit")


def chat(settings: Chat) -> None:
    """Talk until the input ends. Without a terminal every line of standard input is a message."""
    conversation = Conversation(opened(settings), settings)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() then edits and remembers lines
        print(f"{settings.run}: type a message; /help tells more", file=sys.stderr)
    while (line := typed()) is not None:
        try:
            if line.startswith("/"):
                if not command(conversation, *line[1:].partition(" ")[::2]):
                    return
            elif line.strip():
                answer(conversation, line)
        except UserError as error:
            print(f"hornbook: {error}", file=sys.stderr)


def typed() -> str | None:
    """The next line; None when there are no more."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                print()
            return None
        except UnicodeDecodeError:
            print("hornbook: the line has bytes that are not UTF-8: it is left out", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n/exit or Ctrl-D leaves", file=sys.stderr)


def answer(conversation: Conversation, text: str) -> None:
    """Print the answer as it comes; Ctrl-C ends it, and the conversation goes on."""
    before = conversation.left_out
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(conversation.ask(text)) as pieces:
        if conversation.left_out != before:
            print(f"hornbook: {memory(conversation.left_out)}", file=sys.stderr)
        for piece in pieces:
            print("\n".join(map(visible, piece.split("\n"))), end="", flush=True)
    print()


def memory(left_out: int) -> str:
    """A line that says how much of the conversation the model sees."""
    if not left_out:
        return "the whole conversation fits into the context again"
    which = "the oldest exchange" if left_out == 1 else f"the oldest {left_out} exchanges"
    return f"the context is full: the model answers without {which}"


def command(conversation: Conversation, name: str, rest: str) -> bool:
    """Do what a line that begins with / asks for; False to leave."""
    rest = rest.strip()
    if name in ("exit", "quit"):
        return False
    if name == "help":
        print(HELP)
    elif name == "system":
        conversation.instruct(rest)
    elif name == "clear":
        conversation.clear()
    elif name == "again":
        again(conversation)
    elif name == "undo":
        print(f"forgotten: {visible(forgotten(conversation))}")
    elif name == "save":
        save(conversation, rest)
    else:
        raise unknown("command", f"/{name}", [f"/{known}" for known in COMMANDS])
    return True


def again(conversation: Conversation) -> None:
    """Answer the last question once more. What was said stays where that cannot begin."""
    before = list(conversation.messages)
    question = forgotten(conversation)
    try:
        answer(conversation, question)
    finally:
        if len(conversation.messages) < len(before):
            conversation.messages = before


def forgotten(conversation: Conversation) -> str:
    """The last question, which the conversation no longer has; UserError where there is none."""
    if not (question := conversation.undo()):
        raise UserError("there is no question yet")
    return question


def save(conversation: Conversation, file: str) -> None:
    """Write the messages; UserError where there is no name, or the file exists or cannot be written."""
    if not file:
        raise UserError("/save needs the name of a file")
    try:
        path = Path(file).expanduser()
        if path.exists():
            raise UserError(f"{path} exists: choose another name")
        write_text(path, "".join(json.dumps(message) + "\n" for message in conversation.messages))
    except (OSError, ValueError, RuntimeError) as error:  # the last for ~somebody who is nobody
        raise UserError(f"cannot write {file}: {getattr(error, 'strerror', None) or error}") from None
    print(path)

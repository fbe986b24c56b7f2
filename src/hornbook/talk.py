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
/exit          leave, as Ctrl-D does; Ctrl-C ends an answer"""
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
    pieces = conversation.ask(text)
    try:
        for piece in pieces:
            print("\n".join(map(visible, piece.split("\n"))), end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
    print()


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
        conversation.messages = [m for m in conversation.messages if m["role"] == "system"]
    elif name in ("undo", "again"):
        if not (question := conversation.undo()):
            raise UserError("there is no question yet")
        if name == "again":
            answer(conversation, question)
        else:
            print(f"forgotten: {visible(question)}")
    elif name == "save":
        save(conversation, rest)
    else:
        raise unknown("command", f"/{name}", [f"/{known}" for known in COMMANDS])
    return True


def save(conversation: Conversation, file: str) -> None:
    """Write the messages; UserError where there is no name, or the file exists or cannot be written."""
    if not file:
        raise UserError("/save needs the name of a file")
    path = Path(file).expanduser()
    if path.exists():
        raise UserError(f"{path} exists: choose another name")
    try:
        write_text(path, "".join(json.dumps(message) + "\n" for message in conversation.messages))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    print(path)

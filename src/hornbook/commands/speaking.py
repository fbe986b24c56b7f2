"""`hornbook generate` and `serve`."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from hornbook.config import Generate, Serve

if TYPE_CHECKING:
    from hornbook.layers.model import LanguageModel


def generate(settings: Generate) -> None:
    """`hornbook generate`."""
    from hornbook.generation.stream import continuations, prompt_ids
    from hornbook.generation.swift import opened as swift

    if settings.file:
        from hornbook.generation.prompt_file import check_files

        check_files(settings)
    model = swift(settings)
    if settings.file:
        return generate_file(model, settings)
    prompt = typed_in() if settings.prompt == "-" else settings.prompt
    if not settings.chat and (note := unfamiliar(model, prompt_ids(model, prompt))):
        print(f"hornbook: {note}", file=sys.stderr)
    for number, pieces in enumerate(continuations(model, prompt, settings), start=1):
        begun = list(itertools.islice(pieces, 1))  # a model that cannot go on says so before anything is printed
        if settings.samples > 1:
            print(f"--- sample {number} of {settings.samples}")
        print("" if settings.chat or model.reads_source else prompt, end="")
        try:
            for piece in itertools.chain(begun, pieces):
                print(piece, end="", flush=True)
        finally:
            print()


def generate_file(model: LanguageModel, settings: Generate) -> None:
    """`hornbook generate --file`."""
    from hornbook.generation.prompt_file import answer_file

    try:
        count, refused = answer_file(model, settings)
    except KeyboardInterrupt:
        print(f"\nhornbook: stopped; what is in {settings.out} stays, and the same command carries on", file=sys.stderr)
        sys.exit(130)
    if refused:
        print(f"hornbook: {refused} of {count} prompts could not be answered: see their 'error'", file=sys.stderr)
    print(settings.out)


def typed_in() -> str:
    """A prompt from a pipe, without the line's end that `echo` adds."""
    from hornbook.text.files import decode, standard_input

    return decode(standard_input(), "standard input").removesuffix("\n")


def unfamiliar(model: LanguageModel, ids: list[int]) -> str:
    """What the model does not know of a prompt: words outside its vocabulary, or a context it never counted."""
    tokenizer = model.tokenizer
    if tokenizer.unk is not None and tokenizer.unk in ids:
        return f"the model's vocabulary lacks {ids.count(tokenizer.unk)} of the prompt's words"
    if not hasattr(model, "backoff_path"):
        return ""
    unseen = [step for step in model.backoff_path(ids, model.config.eos or 0) if not step.seen]  # type: ignore[operator]
    if not unseen:
        return ""
    words = "".join(tokenizer.piece(i) for i in unseen[0].context if i < tokenizer.vocab)
    return f"nothing was ever counted after {words!r}: going on from {len(unseen[-1].context) - 1} of its tokens"


def serve(settings: Serve) -> None:
    """`hornbook serve`."""
    from hornbook.errors import missing_extra

    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra(error.name or "fastapi", "serve", "hornbook serve") from None
    from hornbook.serving.run import serve as run

    run(settings)

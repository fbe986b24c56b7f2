"""Every check in its order, and the certificate that they make."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from hornbook import checkpoint
from hornbook.adapt.lora import merge
from hornbook.adapt.quantization import weights_only
from hornbook.config import Doctor
from hornbook.doctor import learning, loss, parts, procedure, reading, rounding, storing, tokens
from hornbook.doctor.finding import FAIL, PASS, SKIP, WARN, Finding, NotApplicable
from hornbook.doctor.foreign import open_foreign
from hornbook.doctor.subject import Subject
from hornbook.errors import UserError
from hornbook.progress import say
from hornbook.run import CHECKPOINTS

SHORTEST = 8
"""Tokens of context that the checks need."""

ANY, CAUSAL, NEURAL = "any", "causal", "neural"

CHECKS: dict[str, tuple[Callable[[Subject], Finding], str]] = {
    "weights": (rounding.weights, ANY),
    "future leak": (reading.future_leak, CAUSAL),
    "attention weights": (reading.attention_weights, NEURAL),
    "heads": (parts.heads, NEURAL),
    "cache": (reading.cache, CAUSAL),
    "padding left": (reading.padding_left, ANY),
    "padding right": (reading.padding_right, ANY),
    "batch": (reading.batch, ANY),
    "packed documents": (reading.packed, ANY),
    "too long": (parts.too_long, ANY),
    "class place": (parts.class_place, NEURAL),
    "finite activations": (reading.finite_activations, NEURAL),
    "targets": (loss.targets, ANY),
    "loss": (loss.objective, ANY),
    "padding in the loss": (loss.padding_in_loss, ANY),
    "end of text in loss": (loss.end_of_text_in_loss, CAUSAL),
    "next token": (loss.next_token, CAUSAL),
    "resuming": (procedure.resuming, ANY),
    "schedule": (procedure.schedule, ANY),
    "mean loss": (procedure.mean_loss, ANY),
    "measuring": (procedure.measuring, ANY),
    "training mode": (parts.training_mode, NEURAL),
    "first loss": (learning.first_loss, NEURAL),
    "accumulation": (learning.accumulation, NEURAL),
    "learns a row": (learning.overfitting, NEURAL),
    "parameters": (parts.parameters, NEURAL),
    "save and load": (storing.save_and_load, ANY),
    "hugging face": (storing.hugging_face, ANY),
    "bfloat16": (rounding.bfloat16, NEURAL),
    "compiled": (rounding.compiled, NEURAL),
    "tokeniser round trip": (tokens.round_trip, ANY),
    "special text": (tokens.special_text, ANY),
    "special tokens": (tokens.special_tokens, ANY),
    "vocabulary": (tokens.vocabulary, ANY),
    "stored ids": (procedure.stored_ids, ANY),
}
"""Name -> the check, and which models it is for."""


def examine(settings: Doctor) -> Iterator[Finding]:
    """The findings on a run, or whatever else can be loaded, one after the other as they are made.

    Raises UserError for what cannot be loaded. Every check that breaks off with an error is a FAIL that says so.
    """
    with tempfile.TemporaryDirectory(prefix="hornbook-doctor-") as scratch:
        if settings.foreign:
            subject: Subject = open_foreign(Path(settings.run), settings.device or "cpu", Path(scratch))
        else:
            model = merge(checkpoint.load(settings.run, settings.device or "cpu"))
            model.require_tokens()
            if model.quantization is not None and model.quantization.outliers:
                say("LLM.int8() rounds activations by what they are read with: examined with activations in full")
                weights_only(model)
            subject = Subject(model, getattr(model, "tokenizer", None), trained_here(Path(settings.run)), Path(scratch))
        yield from findings(subject, settings.compile)


def findings(subject: Subject, compile: bool = False) -> Iterator[Finding]:
    """All checks of a subject in order; that of the compiled model only if asked for."""
    if subject.config.context < SHORTEST:
        raise UserError(
            f"a context of {subject.config.context} is too short to be examined: at least {SHORTEST} tokens"
        )
    if not getattr(subject.config, "masked_head", True):
        raise UserError("this encoder came without a masked-token head: there are no logits to examine")
    for name, (look, models) in CHECKS.items():
        if look is rounding.compiled and not compile:
            found = Finding(SKIP, "only with --compile: it takes half a minute or more")
        elif models == CAUSAL and not subject.model.causal:
            found = Finding(SKIP, "an encoder sees both sides, and predicts hidden tokens only")
        elif models == NEURAL and subject.model.counted:
            found = Finding(SKIP, "a counted model has no layers and no gradients")
        else:
            found = attempt(look, subject)
        yield dataclasses.replace(found, name=name)


def attempt(look: Callable[[Subject], Finding], subject: Subject) -> Finding:
    """What a check finds; a FAIL where it, that is the model in its hands, breaks off with an error."""
    try:
        with torch.no_grad():
            return look(subject)
    except NotApplicable as reason:
        return Finding(SKIP, str(reason))
    except UserError as error:
        return Finding(FAIL, str(error))
    except Exception as error:  # a certificate says what is broken; it does not break itself
        first = (str(error).strip().splitlines() or [""])[0]
        return Finding(FAIL, f"broke off with {type(error).__name__}: {first}")


def trained_here(path: Path) -> bool:
    """Whether a path is a run of ours, or a checkpoint in one."""
    folder = path.resolve()
    run = folder.parent.parent if folder.parent.name == CHECKPOINTS else folder
    return (run / "train.json").is_file()


def closing(found: Sequence[Finding], seconds: float) -> str:
    """The last line: how many of each, and what that means."""
    count = {verdict: sum(f.verdict == verdict for f in found) for verdict in (PASS, FAIL, WARN, SKIP)}
    failed = ", ".join(f.name for f in found if f.verdict == FAIL)
    end = f"wrong: {failed}" if failed else "nothing is wrong with it"
    return (
        f"{count[PASS]} passed, {count[FAIL]} failed, {count[WARN]} warned, {count[SKIP]} skipped "
        f"in {seconds:.0f} s: {end}"
    )

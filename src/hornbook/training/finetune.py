"""`hornbook finetune`: a model that is there, or a fresh one, from a task's examples to a run folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hornbook import machine, models
from hornbook.config import Finetune, Train
from hornbook.data.batches import Batch
from hornbook.data.packing import Packed, row_width
from hornbook.errors import UserError
from hornbook.evaluation.wanted import examples_hash, wanted_task
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons, frame
from hornbook.progress import say
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, Preference, Task, require_packages
from hornbook.tasks.classify import class_names
from hornbook.text.corpus import Corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.training.batch_size import MOST
from hornbook.training.callbacks import Callback
from hornbook.training.conduct import conduct
from hornbook.training.find_rate import find_rate
from hornbook.training.origin import begun, origin, settle, short_name
from hornbook.training.prepare import by_recipe, resolve_config
from hornbook.training.pretrain import check_alone, with_length
from hornbook.training.task_work import TaskWork
from hornbook.training.teaching import teach_pad, teach_words
from hornbook.training.together import choose_together, run_of, several

EPOCHS = 3.0


def finetune(settings: Finetune, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Teach, or go on teaching, a model a task; returns the run's summary. Raises UserError and Interrupted."""
    settings = resolve(settings)
    assert settings.out is not None
    check_alone(settings)
    machine.keep_freed_memory()
    with several(settings) as processes, run_of(settings, processes) as run:
        run.claim()
        with processes.main_first():
            task = wanted_task(settings)
            require_use(settings, task)
            require_whole(settings, task)
            if not settings.find_lr:
                require_packages(task)
            examples = list(islice(task.examples("train"), settings.examples or None))
            if not examples:
                raise UserError(f"there is no example to learn from in the train split of {task.name}")
            model, facts = prepare(settings, task, examples)
        lessons = Lessons(model, task, settings.context or model.config.context, settings.cut or "")
        pieces = lessons.pieces(examples)
        if note := lessons.counts.told(lessons.cut, lessons.context):
            say(note)
        width = row_width(pieces, lessons.context)
        tokens = sum(map(len, pieces))
        settings = dataclasses.replace(settings, context=width)

        def lesson(trial: Finetune) -> tuple[nn.Module, Callable[[int], Batch]]:
            work = TaskWork(trial, model, task, lessons.context, examples, pieces[: 2 * MOST])
            return work.objective, lambda rows: Packed(work.packed.pieces, rows, width, trial.seed).get(0)

        settings = choose_together(settings, model, tokens, run, processes, lesson)
        work = TaskWork(settings, model, task, lessons.context, examples, pieces)
        settings = shorter_warmup(settings, work.per_epoch)
        say(f"{len(pieces):,} examples of {task.name}, {tokens:,} tokens, in rows of {width}: {work.told()}")
        facts |= {"context_of_examples": lessons.context, "examples_hash": examples_hash(examples)}
        facts |= {"tokenizer_hash": model.tokenizer.hash, "task_name": task.name}
        about = {"model": settings.model, "data": settings.data, "task": task.name}
        if settings.find_lr:
            return find_rate(settings, model, work, run, about)
        return conduct(settings, model, run, work, facts, about, callbacks, processes=processes)


def resolve(settings: Finetune) -> Finetune:
    """Fill in what the machine is not asked for, as `pretrain.resolve` does."""
    settings = with_length(settings, EPOCHS)
    device = machine.check_device(settings.device or str(machine.pick_device()))
    kind = "-lora" if settings.lora else ""
    data = Path(settings.data).name.split(".")[0]
    out = settings.out or f"runs/{short_name(settings.model)}-{data}{kind}"
    settings = dataclasses.replace(settings, device=device, out=out)
    if (place := origin(settings.model)) is not None:
        return settle(settings, place)
    if settings.lora:
        raise UserError(f"--lora adapts a model that has learnt something, and {settings.model} names a fresh one")
    return by_recipe(settings)


def require_use(settings: Finetune, task: Task) -> None:
    """UserError for a setting that does nothing for examples of the task's kind."""
    uses: dict[str, tuple[Any, tuple[type, ...], str]] = {
        "template": ("own", (Dialogue, Preference), "conversations and preferences"),
        "class_weights": ("none", (Labelled,), "classes"),
        "score_generated": (False, (Asked,), "written answers"),
        "beta": (Finetune.beta, (Preference,), "preferences"),
    }
    for name, (usual, kinds, told) in uses.items():
        if getattr(settings, name) != usual and task.kind not in kinds:
            raise UserError(f"--{name.replace('_', '-')} is for {told}, and {task.name} has none: leave it out")


def require_whole(settings: Finetune, task: Task) -> None:
    """UserError for examples on which a model whose matrices are split could not be measured."""
    if settings.tensor > 1 and task.kind in (Asked, Choice):
        raise UserError(f"--tensor splits matrices, and {task.name} is measured on whole ones: take --parallel shard")


def prepare(settings: Finetune, task: Task, examples: Sequence[Any]) -> tuple[LanguageModel, dict[str, Any]]:
    """A model that can learn the task, and what is known of where it came from."""
    labels = class_names(examples) if task.kind is Labelled else ()
    if len(labels) == 1:
        raise UserError(
            f"all {len(examples):,} labels to learn from in {settings.data} are '{labels[0]}': two classes at least "
            "are needed"
        )
    place = origin(settings.model)
    facts: dict[str, Any] = {}
    if place is None:
        model = fresh(settings, examples)
    else:
        model, facts = begun(settings, place)
    if task.kind is not Labelled and not model.causal:
        raise UserError(
            f"a model of the family {model.config.family} fills in gaps: it learns to classify, not to write"
        )
    torch.manual_seed(settings.seed)
    teach_pad(model, settings, task.kind is Labelled)
    if task.kind is Labelled:
        if model.config.labels != labels:
            give_class_head(model, labels)
        if model.class_head is not None:
            model.class_head.requires_grad_(True)
        model.tokenizer = model.tokenizer.framing(*frame(model))
    elif model.config.labels:
        raise UserError(f"{settings.model} tells classes apart, and writes nothing: take the run that it came from")
    elif task.kind in (Dialogue, Preference):
        teach_words(model, settings)
    return model, facts


def fresh(settings: Finetune, examples: Sequence[Any]) -> LanguageModel:
    """A model of a named size, whose tokeniser is trained on the examples' texts."""
    found = [text for example in examples for text in texts(example)]
    corpus = Corpus(Path(settings.data).name, "", settings.data, lambda split: found)
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, settings.vocab)
    config = resolve_config(Train(settings.model, dropout=settings.dropout, context=settings.context), tokenizer)
    torch.manual_seed(settings.seed)
    model = models.build(config)
    if model.counted:
        raise UserError(f"{settings.model} is counted: it learns no task")
    model.tokenizer = tokenizer
    return model


def texts(value: Any) -> list[str]:
    """All texts in an example, whatever it is made of."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, tuple | list):
        return [text for part in value for text in texts(part)]
    return [text for part in vars(value).values() for text in texts(part)] if dataclasses.is_dataclass(value) else []


def shorter_warmup(settings: Finetune, per_epoch: float) -> Finetune:
    """At most a tenth of a run whose steps are known is warm-up."""
    steps = settings.steps or math.ceil((settings.epochs or 0) * per_epoch / settings.accumulate)
    return dataclasses.replace(settings, warmup=min(settings.warmup, math.ceil(steps / 10))) if steps else settings

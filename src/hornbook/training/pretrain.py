"""`hornbook train`: a fresh model of any rung, or one that is there, from text to a run folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from hornbook import machine, models
from hornbook.config import Learning, ModelConfig, Train
from hornbook.data.mixing import Mixed, batches
from hornbook.data.shards import Shard
from hornbook.data.sources import Data, data_name, open_data
from hornbook.errors import UserError
from hornbook.evaluation.score import score
from hornbook.evaluation.watched import require_tasks, watched
from hornbook.generation.stream import prompt_ids
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar, say
from hornbook.run import Run
from hornbook.training.callbacks import Callback, Moment, tell
from hornbook.training.conduct import conduct
from hornbook.training.engine import enough_memory
from hornbook.training.find_rate import find_rate
from hornbook.training.like import LENGTHS, replay
from hornbook.training.like import told as repeated
from hornbook.training.origin import begun, origin, settle, short_name
from hornbook.training.prepare import by_recipe, changed, resolve_config, row_length
from hornbook.training.sample import speak
from hornbook.training.together import choose_together, require_possible, run_of, several
from hornbook.training.tracking import require_tracker
from hornbook.training.work import TextWork

Settings = TypeVar("Settings", bound=Learning)


def train(settings: Train, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train, or carry on, the run that `settings` describe; returns its summary. Raises UserError and Interrupted."""
    settings = resolve(settings)
    assert settings.out is not None
    check_alone(settings)
    for name in settings.tasks:
        watched(name)
    if origin(settings.model) is None:
        changed(settings)
    machine.keep_freed_memory()
    with several(settings) as processes, run_of(settings, processes) as run:
        run.claim()
        with processes.main_first():
            data, shards, model, facts = prepare(settings)
        if settings.find_lr and model.counted:
            raise UserError(f"{settings.model} is counted, without a learning rate: leave out --find-lr")
        if model.counted and processes.size > 1:
            require_possible(settings, model)
        if not model.counted:
            settings = choose_together(settings, model, shards["train"].length, run, processes)
        facts |= {"text": data.fingerprint(), "tokenizer_hash": model.tokenizer.hash, "process_count": processes.size}
        if settings.like:
            say(repeated(settings, facts))
        about = {"model": settings.model, "data": data.name}
        if model.counted:
            fitting = partial(count, settings, model, shards, run)
            return conduct(settings, model, run, fitting, facts, about, callbacks)
        work = TextWork(settings, model, shards, processes)
        if settings.find_lr:
            return find_rate(settings, model, work, run, about)
        return conduct(settings, model, run, work, facts, about, callbacks, replay(settings), processes)


def train_alone(settings: Train, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """`train`, where a process trains one run after the other: peak memory is this run's own, and None where the system
    does not know it."""
    own = machine.forget_peak(torch.device(settings.device or machine.pick_device()))
    found = train(settings, callbacks)
    return found if own else found | {"peak_memory": None}


def prepare(settings: Train) -> tuple[Data, dict[str, Shard] | dict[str, Mixed], LanguageModel, dict[str, Any]]:
    """The text, its shards, a model with its tokeniser, and what is known of where that came from. UserErrors for what
    does not go together."""
    data, place = open_data(settings.data, settings.column), origin(settings.model)
    facts: dict[str, Any] = {}
    if place is not None:
        model, facts = begun(settings, place)
        shards = data.shards(model.tokenizer)
        check_length(settings, shards["train"], model.config)
    else:
        if len(data.sources) > 1:
            require_rows(settings)
        tokenizer = data.tokenizer(settings.tokenizer, settings.vocab)
        shards, config = data.shards(tokenizer), resolve_config(settings, tokenizer)
        check_length(settings, shards["train"], config)  # before a model for rows of that length is built
        torch.manual_seed(settings.seed)
        with enough_memory("the model was built"):
            model = models.build(config)
        model.tokenizer = tokenizer
    check_prompt(model, settings.prompt)
    require_tasks(settings.tasks)
    return data, shards, model, facts


def check_length(settings: Train, text: Shard | Mixed, config: ModelConfig) -> None:
    """UserError for a text that is too short for a row; what is counted reads none."""
    if not models.family(config.family).Model.counted:
        batches(text, 1, row_length(settings, config), settings.seed)


def require_rows(settings: Train) -> None:
    """UserError for a model that does not read rows, of which each corpus has a share."""
    if models.family(models.find_size(settings.model).family).Model.counted:
        raise UserError(f"{settings.model} counts one corpus: put the files of --data {settings.data} into one folder")


def resolve(settings: Train) -> Train:
    """Fill in what the machine is not asked for: the folder, the optimiser and its rate, the length, the device."""
    settings = with_length(settings, 1.0)
    data = data_name(settings.data)
    settings = dataclasses.replace(settings, device=machine.check_device(settings.device or str(machine.pick_device())))
    if (place := origin(settings.model)) is not None:
        kind = "-lora" if settings.lora else ""
        out = settings.out or f"runs/{short_name(settings.model)}-{data}{kind}"
        return settle(dataclasses.replace(settings, out=out), place)
    if settings.lora:
        raise UserError(
            f"--lora adapts a model that has learnt something, and {settings.model} names a fresh one: train it first, "
            "or import one, and name that run"
        )
    return by_recipe(dataclasses.replace(settings, out=settings.out or f"runs/{settings.model}-{data}"))


def with_length(settings: Settings, epochs: float) -> Settings:
    """With a length: so many epochs where none is given. UserError where several are, as only the repetition of a run
    by the clock may hold them."""
    given = [name for name in LENGTHS if getattr(settings, name) is not None]
    if len(given) > 1 and not getattr(settings, "like", None):
        raise UserError(f"--{' and --'.join(given)} are lengths of the same run: give one")
    return settings if given else dataclasses.replace(settings, epochs=epochs)


def check_alone(settings: Learning) -> None:
    """UserErrors for what can be seen before any text and model: parts that a batch cannot be cut into, trackers that
    are not there."""
    for name in settings.track:
        require_tracker(name)
    if settings.rows and settings.batch != "auto" and settings.batch % settings.rows:
        good = ", ".join(str(n) for n in range(1, settings.batch + 1) if settings.batch % n == 0)
        raise UserError(f"--batch {settings.batch} cannot be divided into parts of --rows {settings.rows}: {good} can")


def check_prompt(model: LanguageModel, prompt: str) -> None:
    """A UserError, before any work, for samples that could not be drawn."""
    if model.causal and len(prompt_ids(model, prompt)) > model.config.context:
        raise UserError(f"--prompt {prompt!r} does not fit into a context of {model.config.context} tokens")


def count(
    settings: Train,
    model: LanguageModel,
    shards: dict[str, Any],
    run: Run,
    bar: Bar,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    """Fit a counted model: one pass over the text."""
    run.cut_log(lambda line: False)  # of an attempt that did not come to its end
    began = time.monotonic()
    model.fit(shards["train"].tokens)
    seconds = time.monotonic() - began
    scores = score(model, shards["validation"], progress=lambda done, total: bar.show(done, total, "evaluating"))
    sample = speak(model, settings)
    line = {"step": 0, "seconds": seconds, "sample": sample, "validation_bits_per_byte": scores.bits_per_byte}
    run.log(**line)
    tell(callbacks, Moment("evaluation", 0, line, model, run.folder))
    run.save(0, model, model.tokenizer, {}, {}, best=True)
    tokens = len(shards["train"].tokens) - 1
    return {"seconds": seconds, "tokens": tokens, "sample": sample, "validation": scores.summary()}

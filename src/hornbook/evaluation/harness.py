"""Tasks of EleutherAI's lm-evaluation-harness, on any causal model of ours: published figures compare with these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hornbook import machine
from hornbook.checkpoint import load
from hornbook.errors import UserError, missing_extra, unknown
from hornbook.layers.model import LanguageModel

RESAMPLES = 1000
"""For the standard errors of figures that are no means."""


@dataclass(frozen=True)
class HarnessScores:
    """What the harness found."""

    figures: dict[str, dict[str, float]]
    """Task, or group of tasks -> figures by the harness's names, a standard error as acc_stderr."""
    table: str
    """The same as the harness prints it, in Markdown."""
    samples: dict[str, list[dict[str, Any]]]
    """Task -> what it asked and what came, item by item, where that was wanted."""


def harness(
    run: str | LanguageModel,
    tasks: Sequence[str | dict[str, Any]],
    limit: int = 0,
    fewshot: int | None = None,
    chat: bool = False,
    batch: int = 32,
    device: str | None = None,
    include: str | Path | None = None,
    samples: bool = False,
    seed: int = 1234,
) -> HarnessScores:
    """Score a run, or a model with its tokeniser, on tasks of the harness.

    `tasks` are names (with * for several; commas between names do as well), or a task's settings themselves; `include`
    is a folder of YAML files with more of them. `limit` counts items of each task (0: all), `fewshot` the examples
    before each, where the task's own number is not wanted. With `chat` the questions go through the model's chat
    template. `seed` draws the examples. The model is left in the mode it came in. Raises UserError for a task that is
    unknown or whose data cannot be had, an encoder, and where the harness is missing.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.utils import make_table

        from hornbook.evaluation.harness_model import HarnessModel
    except ImportError:
        raise missing_extra("lm-eval", "eval", "lm-evaluation-harness") from None
    tasks, manager = separated(tasks), task_manager(include)
    known(tasks, manager)
    model = load(run, device or machine.pick_device(), text=True) if isinstance(run, str) else run
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed)
    was_training = model.training
    try:
        found = simple_evaluate(
            HarnessModel(model, batch),
            tasks=tasks,
            num_fewshot=fewshot,
            limit=limit or None,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat and bool(fewshot),
            bootstrap_iters=RESAMPLES,
            log_samples=samples,
            task_manager=manager,
            **seeds,
        )
    except OSError as error:
        raise UserError(f"a task's data cannot be had: {first_line(error)}") from None
    finally:
        model.train(was_training)
    assert found is not None
    figures = {task: named(row) for task, row in found["results"].items()}
    tables = [make_table(found)] + ([make_table(found, "groups")] if found.get("groups") else [])
    return HarnessScores(figures, "\n".join(tables), dict(found.get("samples", {})))


def task_manager(include: str | Path | None) -> Any:
    """The harness's own tasks, and those of a folder. Reading what there is takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(include) if include else None)


def separated(tasks: Sequence[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    """The tasks one by one, also where a name is several with commas or spaces between. UserError for none."""
    found: list[str | dict[str, Any]] = []
    for task in tasks:
        found += task.replace(",", " ").split() if isinstance(task, str) else [task]
    if not found:
        raise UserError("no task of lm-evaluation-harness is named: hellaswag, arc_easy, ...")
    return found


def known(tasks: Sequence[str | dict[str, Any]], manager: Any) -> None:
    """UserError for a name that the harness does not know."""
    for task in tasks:
        if isinstance(task, str) and not manager.match_tasks([task]):
            raise unknown("task of lm-evaluation-harness", task, manager.all_tasks)


def named(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a task, without the filter's name where it is `none`: acc, acc_stderr, exact_match,strict."""
    return {name.removesuffix(",none"): float(x) for name, x in row.items() if isinstance(x, int | float)}


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

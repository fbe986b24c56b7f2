"""The command line: word -> settings class, function, help line. Only the chosen command is imported and built."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple


class Command(NamedTuple):
    settings: str
    """Class in hornbook.config."""
    function: str
    """module:function; called with the settings."""
    help: str


COMMANDS = {
    "ladder": Command(
        "Ladder", "hornbook.commands:ladder", "climb every rung on one text: train, measure, sample, report"
    ),
    "tokenize": Command("Tokenize", "hornbook.commands:tokenize", "train a tokeniser, or show how a text is cut"),
    "prepare": Command(
        "Prepare", "hornbook.commands:prepare", "text to tokens on disk or in object storage, by many processes"
    ),
    "train": Command("Train", "hornbook.commands:train", "pretrain any rung, or train a model further"),
    "finetune": Command(
        "Finetune", "hornbook.commands:finetune", "teach a model a task: classify, summarise, translate, answer, chat"
    ),
    "evaluate": Command(
        "Evaluate", "hornbook.commands:evaluate", "bits per byte, perplexities, the surprise of a sentence"
    ),
    "generate": Command("Generate", "hornbook.commands:generate", "let a model continue a text"),
    "chat": Command("Chat", "hornbook.talk:chat", "talk with a model that was taught to converse"),
    "serve": Command("Serve", "hornbook.commands:serve", "models behind OpenAI's HTTP interface"),
    "import": Command(
        "Import", "hornbook.commands:import_model", "bring a model in: from the Hub, a folder or a GGUF file"
    ),
    "export": Command("Export", "hornbook.commands:export", "write a model as a Hugging Face folder, GGUF or ARPA"),
    "quantize": Command("Quantize", "hornbook.commands:quantize", "matrices in 8 or 4 bits, and what that costs"),
    "report": Command("Report", "hornbook.commands:report", "runs as a page: curves, samples, settings, side by side"),
    "compare": Command("Compare", "hornbook.commands:compare", "runs side by side in the terminal: scores, settings"),
    "inspect": Command("Inspect", "hornbook.commands:inspect", "what a model is made of, and each step it takes"),
    "morph": Command("Morph", "hornbook.commands:morph", "from GPT-2 to Llama 3 part by part: what is each worth?"),
    "sweep": Command("Sweep", "hornbook.commands:sweep", "which settings are best? many runs, the worse ended early"),
    "mistakes": Command("Mistakes", "hornbook.commands:mistakes", "what tutorials get wrong, planted and measured"),
    "doctor": Command("Doctor", "hornbook.commands:doctor", "does a model do what a language model must?"),
    "plan": Command("Plan", "hornbook.commands:plan", "will it fit, how long, what will it cost, how good will it be?"),
    "bench": Command("Bench", "hornbook.commands:bench", "how fast this machine multiplies, trains and generates"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(top_help())
        return
    if arguments[0] in ("-V", "--version"):
        from hornbook import __version__

        print(f"hornbook {__version__}")
        return
    try:
        run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def run(word: str, rest: list[str]) -> None:
    """Parse the settings of one command and call its function; a UserError becomes one line."""
    from hornbook.errors import UserError, unknown

    try:
        if word not in COMMANDS:
            raise unknown("command", word, COMMANDS)
        from hornbook.parsing import parse

        command = COMMANDS[word]
        settings_class: Any = getattr(importlib.import_module("hornbook.config"), command.settings)
        settings = parse(settings_class, word, rest)
        if getattr(settings, "like", None):  # what is not given is as that run had it
            from hornbook.training.like import settings_of, settled

            earlier = settings_of(settings.like)
            settings = settled(parse(settings_class, word, rest, earlier))
        module, function = command.function.split(":")
        getattr(importlib.import_module(module), function)(settings)
    except UserError as error:
        fail(str(error), error.code)
    except (RuntimeError, MemoryError) as error:
        if "home directory" in str(error):  # of ~somebody who is nobody
            fail(f"{error} What begins with ~ and a name is somebody's home: write the whole path", 2)
        from hornbook.machine import out_of_memory

        if not out_of_memory(error):
            raise
        fail(f"memory ran out ({str(error).split('. ')[0]}): take a smaller model, or less text at once", 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def fail(line: str, code: int) -> None:
    """One line, then out."""
    from hornbook.errors import visible

    print(f"hornbook: {visible(line)}", file=sys.stderr)
    sys.exit(code)


def top_help() -> str:
    """What `hornbook --help` prints."""
    rows = "\n".join(f"  {word:<10} {command.help}" for word, command in COMMANDS.items())
    return (
        "Hornbook: every classic language model, from counting word pairs to Llama 3.\n\n"
        "  hornbook ladder                       the main job, on text that every Python carries\n"
        "  hornbook train llama-tiny --minutes 5 one rung\n\n"
        f"Commands (hornbook COMMAND --help for each):\n{rows}"
    )

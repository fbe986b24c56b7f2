"""Parallel text of the user's: two files, a sentence a line, or rows with a source and a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hornbook.errors import UserError
from hornbook.scoring.baselines import copy_source
from hornbook.scoring.translation import SACREBLEU, translation_figures, translation_marks, translation_signatures
from hornbook.tasks import Asked, Source, Task, own_file, require
from hornbook.text.divided import Divided
from hornbook.text.files import TABLES, Row, form_of, read_text, text_cell
from hornbook.text.rows import column_of, columns_of, read_rows, text_of

LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}


def task(source: Source) -> Task:
    """Translations of the user's own; the options `from` and `to` name the languages, by code or name."""
    require(source, "translate", ("source", "target"), ("from", "to"))
    path = own_file(
        source, "translate", "text in one language, and --target FILE with the other side, or rows with both"
    )

    if source.target and form_of(path) in TABLES:
        raise UserError(f"--target goes with a text file, but {path} has rows: its own columns have both sides")
    if not source.target and form_of(path) not in TABLES and not Path(path).expanduser().is_dir():
        raise UserError(f"{path} has one side only: name the file with the other, a line each: --target FILE")

    def read_one(file: str) -> list[Asked | None]:
        return read_lines(file, source.target) if source.target else read(file, source.columns, source.options)

    found = Divided(path, read_one, original, source.seed, lacking="both sides")
    return translations("translate", found, source.options.get("from", ""), source.options.get("to", ""))


def translations(name: str, examples: Callable[[str], Iterator[Asked]], from_: str, to: str) -> Task:
    """A task of translation from one language into another, by codes or names; "" where it is not said which."""
    ours, theirs = (escaped(LANGUAGES.get(language, language)) for language in (from_, to))
    between = f" from {ours}" * bool(ours) + f" to {theirs}" * bool(theirs)
    return Task(
        name,
        Asked,
        examples,
        score=lambda example, output: translation_marks(output, example.references),
        headline="bleu",
        figures=lambda examples, outputs: translation_figures(outputs, [e.references for e in examples], to),
        signatures=lambda examples, outputs: translation_signatures(outputs, [e.references for e in examples], to),
        baselines={"copy of the source": lambda train, examples: copy_source(train, examples, "source")},
        needs=(SACREBLEU,),
        plain=f"{ours or 'Source'}: {{source}}\n{theirs or 'Translation'}:",
        chat=f"Translate{between}: {{source}}",
        long="source",
        cut="head",
        tokens=128,
    )


def escaped(text: str) -> str:
    """With braces that mean themselves in a form."""
    return text.replace("{", "{{").replace("}", "}}")


def original(example: Asked) -> str:
    return example.fields["source"]


def pair(source: str, target: str) -> Asked | None:
    """An example; None where a side is empty."""
    source, target = source.strip(), target.strip()
    return Asked({"source": source}, target) if source and target else None


def read_lines(source: str, target: str) -> list[Asked | None]:
    """The pairs of two files, line by line. UserError for files of different length."""
    ours, theirs = lines(source), lines(target)
    if len(ours) != len(theirs):
        raise UserError(
            f"{source} has {len(ours):,} lines, {target} {len(theirs):,}: a line of one must be the other's translation"
        )
    return [pair(*both) for both in zip(ours, theirs, strict=True)]


def lines(path: str) -> list[str]:
    """A text's lines, which line feeds end and nothing else."""
    path = str(Path(path).expanduser())
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder: with --target, name a file with a sentence a line")
    text = read_text(path)
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n")


def read(path: str, given: Mapping[str, str], options: Mapping[str, str]) -> list[Asked | None]:
    """The pairs of a table: of two columns, or of one column `translation` with a text by each language's code."""
    rows = read_rows(path)
    columns = columns_of(rows)
    if "translation" in columns and not given:
        return [nested(row, options) for row in rows]
    codes = {role: options[side] for role, side in (("source", "from"), ("target", "to")) if side in options}
    ours, theirs = (
        column_of(role, given, [role, codes.get(role, role)], columns, path) for role in ("source", "target")
    )
    return [pair(text_of(row, ours), text_of(row, theirs)) for row in rows]


def nested(row: Row, options: Mapping[str, str]) -> Asked | None:
    """A row as data sets of the Hub have it: {"translation": {"de": ..., "en": ...}}."""
    cell = row.get("translation")
    sides: Sequence[str] = [options.get(side, "") for side in ("from", "to")]
    if not isinstance(cell, dict) or not set(sides) <= set(cell):
        there = ", ".join(cell) if isinstance(cell, dict) else type(cell).__name__
        raise UserError(
            f"the translation of {row.where} has {there}: name two, as in --options from=de --options to=en"
        )
    return pair(*(text_cell(cell[side], f"translation.{side}", row.where) for side in sides))

"""Keeps the book true: its code blocks are the package's own code, its outputs what its commands print.

    python docs/refresh.py               code blocks, from the source
    python docs/refresh.py --run 2 3     and the outputs of chapters 2 and 3, by running them as a reader would

A block of Python after `<!-- code: layers/norms.py::RMSNorm.forward -->` is that object's source. A block of `text`
after one of `sh` or `python` is what that printed. tests/test_book.py runs all of it too, on tiny budgets.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
BOOK = DOCS / "book"
SOURCE = DOCS.parent / "src" / "hornbook"
CODE = re.compile(r"(<!-- code: (?P<file>[\w/.]+)::(?P<name>[\w.]+) -->\n+```python\n)(?P<text>.*?)(```\n)", re.DOTALL)
BLOCK = re.compile(
    r"(?P<mark><!-- [^>]* -->\n+)?```(?P<kind>sh|python)\n(?P<text>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)
BUDGETS = {
    r"--minutes [\d.]+": "--minutes 0.02",
    r"--epochs [\d.]+": "--epochs 0.02",
    r"--steps \d+": "--steps 2",
    r"minutes=[\d.]+": "minutes=0.02",
    r"steps=\d+": "steps=2",
    r"--find-lr": "--find-lr --batch 2 --context 32",
    r"python-code": "python-docs",
}
"""What a test makes of a reader's budgets."""
LONGEST = 40
"""Lines of output that a page shows."""


class Block(NamedTuple):
    """Something to run."""

    kind: str
    """sh or python."""
    text: str
    output: str | None
    """As the page has it; None where it shows none."""


def chapters() -> list[Path]:
    """The book's pages, in order."""
    return sorted(BOOK.glob("[0-9][0-9]-*.md"))


def source_of(file: str, name: str) -> str:
    """The source of a function, class, method or constant as it stands in the package; KeyError where there is none."""
    text = (SOURCE / file).read_text(encoding="utf-8")
    nodes: list[ast.stmt] = ast.parse(text).body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((node for node in nodes if part in names_of(node)), None)
        if found is None:
            raise KeyError(f"{file} has no {name}")
        nodes = getattr(found, "body", [])
    assert found is not None
    first = min([found.lineno, *(node.lineno for node in getattr(found, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : found.end_lineno])) + "\n"


def names_of(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def with_source(page: str) -> str:
    """A page whose code blocks are as the package has them now."""
    return CODE.sub(lambda found: found[1] + source_of(found["file"], found["name"]) + found[5], page)


def blocks(page: str) -> list[Block]:
    """What a page lets its reader run, in order; the package's own code is shown, not run."""
    found = BLOCK.finditer(page)
    return [Block(b["kind"], b["text"], b["output"]) for b in found if not (b["mark"] or "").startswith("<!-- code:")]


def smaller(text: str) -> str:
    """The same with tiny budgets."""
    for long, short in BUDGETS.items():
        text = re.sub(long, short, text)
    return text


SNIPPETS = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    said, wrong = io.StringIO(), ""
    with contextlib.redirect_stdout(said):
        try:
            exec(compile(json.loads(line), "snippet", "exec"), names)
        except BaseException:
            wrong = traceback.format_exc()
    print(json.dumps([said.getvalue(), wrong]), flush=True)
"""
"""A program that runs a page's Python, block by block, as one."""


class Page:
    """Runs a page's blocks in a folder. `seconds` is how long a command may take."""

    def __init__(self, folder: Path, seconds: float | None = None) -> None:
        self.folder, self.seconds = folder, seconds
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"COLUMNS": "110", "NO_COLOR": "1", "PATH": path}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SNIPPETS]
        self.python = subprocess.Popen(
            command, cwd=folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, block: Block) -> str:
        """What a block prints. RuntimeError where it fails."""
        output, wrong = self.command(block.text) if block.kind == "sh" else self.snippet(block.text)
        if wrong:
            raise RuntimeError(f"{block.text}\n{wrong[-3000:]}")
        return output

    def command(self, text: str) -> tuple[str, str]:
        done = subprocess.run(
            ["sh", "-e", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=self.seconds,
        )
        return done.stdout, f"ended with {done.returncode}: {done.stderr}" if done.returncode else ""

    def snippet(self, text: str) -> tuple[str, str]:
        assert self.python.stdin is not None
        assert self.python.stdout is not None
        self.python.stdin.write(json.dumps(text) + "\n")
        self.python.stdin.flush()
        output, wrong = json.loads(self.python.stdout.readline())
        return output, wrong

    def close(self) -> None:
        self.python.kill()
        self.python.communicate()


def run_page(
    page: str, folder: Path, change: Callable[[str], str] = lambda text: text, seconds: float | None = None
) -> list[str]:
    """What each of a page's blocks prints."""
    runner = Page(folder, seconds)
    try:
        return [runner.run(block._replace(text=change(block.text))) for block in blocks(page)]
    finally:
        runner.close()


def with_outputs(page: str, outputs: list[str]) -> str:
    """A page that shows what its blocks printed, where it shows something."""
    following = iter(outputs)

    def renew(found: re.Match[str]) -> str:
        if (found["mark"] or "").startswith("<!-- code:"):
            return found[0]
        output = next(following)
        if found["output"] is None:
            return found[0]
        return found[0].replace(f"```text\n{found['output']}```", f"```text\n{shown(output)}```")

    return BLOCK.sub(renew, page)


def shown(output: str) -> str:
    """An output as a page has it: no trailing white space, and the middle of a long one left out."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > LONGEST:
        lines = [*lines[: LONGEST // 2], "...", *lines[-LONGEST // 2 :]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, nargs="*", help="chapters to run anew, by number; all where none is given")
    parser.add_argument("--folder", type=Path, default=Path("runs/book"), help="where they run")
    given = parser.parse_args()
    for path in chapters():
        page = with_source(path.read_text(encoding="utf-8"))
        if given.run is not None and (not given.run or int(path.name[:2]) in given.run):
            print(f"running {path.name}", flush=True)
            given.folder.mkdir(parents=True, exist_ok=True)
            page = with_outputs(page, run_page(page, given.folder))
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

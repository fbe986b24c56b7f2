"""What a user names as a model -> the folder or the GGUF file on this machine that holds it."""

from __future__ import annotations

import re
from pathlib import Path

from hornbook import models
from hornbook.errors import UserError, choice, guess, nearest

HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?", re.ASCII)


def published() -> dict[str, str]:
    """Named sizes whose weights are on the Hub -> where."""
    return {name: repo for f in models.families() for name, repo in getattr(models.family(f), "HUB", {}).items()}


def locate(source: str | Path) -> Path:
    """A model folder or a .gguf file: an existing path, a published name such as `gpt2`, or `hf:owner/name[@revision]`.

    The last two are downloaded into the Hub's cache. Raises UserError for anything else.
    """
    name, path = str(source), Path(source).expanduser()
    if path.is_dir() or (path.is_file() and is_gguf(path)):
        return path
    if path.is_file():
        raise UserError(f"{source} is no model: possible are a run, a Hugging Face folder or a .gguf file")
    if name.startswith("hf:"):
        return from_hub(name)
    if name in published():
        return from_hub(f"hf:{published()[name]}")
    if name in models.sizes():
        raise UserError(f"there are no published weights of {name}: train it with `hornbook train {name}`")
    raise UserError(missing(name))


def is_gguf(path: Path) -> bool:
    """By its name or its first bytes."""
    if path.suffix == ".gguf":
        return True
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF"


def from_hub(name: str) -> Path:
    """The folder of hf:owner/name[@revision] in the Hub's cache."""
    found = HUB_NAME.fullmatch(name)
    if found is None:
        raise UserError(f"'{name}' is no model of the Hub: write hf:owner/name or hf:owner/name@revision")
    from hornbook.formats.hub import download_model

    return download_model(found["repo"], found["revision"])


def beside(name: str) -> str | None:
    """The model in the same folder whose name is the likest."""
    parent = Path(name).expanduser().parent
    try:
        there = [path.parent.name for path in parent.glob("*/config.json")]
    except OSError:
        return None
    near = nearest(Path(name).name, there, 1)
    return str(Path(name).parent / near[0]) if near else None


def missing(name: str) -> str:
    """What to say of a name that is nothing here."""
    if name.endswith(".gguf"):
        return f"there is no file '{name}'"
    text = f"there is no run or model folder '{name}'"
    if near := beside(name):
        return f"{text}. Did you mean '{near}'?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("runs/"):
        return f"{text}: train one with `hornbook train`, or write hf:{name} for a model of the Hub"
    if "/" in name or name.startswith((".", "~")):
        return f"{text}: train one with `hornbook train`"
    names = published()
    return (
        f"{text}, and no published model.{guess(name, names)} Published: {choice(name, names)}; "
        "all others are written hf:owner/name"
    )

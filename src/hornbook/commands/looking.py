"""`hornbook inspect` and `mistakes`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from hornbook.commands.printing import console, print_blocks
from hornbook.config import Inspect, Mistakes
from hornbook.errors import UserError


def inspect(settings: Inspect) -> None:
    """`hornbook inspect`."""
    if settings.pictures is not None:
        return inspect_pictures(settings)
    from hornbook.inspection.anatomy import dissect
    from hornbook.inspection.page import as_json, shown

    if settings.text is not None:
        return inspect_text(settings)
    found, layers = dissect(settings), settings.layers or not settings.names
    drawn: dict[str, str] = {}
    if settings.diagram is not None:
        from hornbook.report.diagram import write_diagram

        drawn["diagram"] = str(write_diagram(found, settings.diagram))
    if settings.json:
        print(json.dumps(as_json(found, layers, settings.names) | drawn))
    elif drawn and not (settings.layers or settings.names):
        print(drawn["diagram"])
    else:
        print_blocks(shown(found, layers, settings.names))


def inspect_text(settings: Inspect) -> None:
    """`hornbook inspect RUN "text"`."""
    if settings.compare_word is not None:
        return inspect_word(settings)
    from hornbook.inspection.walk import walk_through
    from hornbook.inspection.walk_page import as_json, shown

    found = walk_through(settings)
    if settings.json:
        print(json.dumps(as_json(found, settings.layer), allow_nan=False))
    else:
        wide = not console.is_terminal or console.width >= 160
        print_blocks(shown(found, settings.all, settings.layer, wide))


def inspect_word(settings: Inspect) -> None:
    """`hornbook inspect RUN "text" --compare-word WORD --beside "text"`."""
    from hornbook.inspection.words import as_json, compared, shown

    found = compared(settings)
    if settings.json:
        print(json.dumps(as_json(found), allow_nan=False))
    else:
        print_blocks(shown(found))


def inspect_pictures(settings: Inspect) -> None:
    """`hornbook inspect RUN ["text"] --pictures FOLDER`: each file as soon as it is there."""
    from hornbook.pictures.album import draw
    from hornbook.progress import say

    files, left_out = [], {}
    for name, found in draw(settings):
        if isinstance(found, str):
            left_out[name] = found
            say(f"no {name}: {found}")
        else:
            files.append(str(found))
            if not settings.json:
                print(found, flush=True)
    if settings.json:
        print(json.dumps({"files": files, "left_out": left_out}))


def mistakes(settings: Mistakes) -> None:
    """`hornbook mistakes`: the list, one of them, or all and a page of them."""
    from hornbook.mistakes import MUSEUM, find
    from hornbook.mistakes.telling import facts, lines, told
    from hornbook.report.museum_page import write_museum

    if not settings.name and not settings.all:
        for piece in MUSEUM.values():
            if settings.json:
                print(json.dumps({"name": piece.name, "title": piece.title}))
            else:
                console.print(f"{piece.name:<20} {piece.title}")
        return
    if settings.out and (path := Path(settings.out)).is_dir():
        raise UserError(f"{path} is a folder: name a file for the page, such as {path / 'museum.html'}")
    found, began = [], time.monotonic()
    for piece in MUSEUM.values() if settings.all else [find(settings.name)]:
        found.append(told(piece, settings.steps))
        print(json.dumps(found[-1]) if settings.json else "\n".join(["", *lines(found[-1])][not settings.all :]))
    if settings.out:
        page = write_museum(found, facts(settings.steps, time.monotonic() - began), settings.out)
        print(page, file=sys.stderr if settings.json else None)

"""Where sentences end: English ones at a stop before white space, unless the word before it or after it says otherwise;
those of scripts with stops of their own at these."""

from __future__ import annotations

import re

SURE = "。｡！？।॥؟۔።။"
"""Stops that mean nothing else: Chinese and Japanese ones, which nothing parts from what follows, a danda, ..."""
CLOSERS = "\"'”’»)]」』）】》"
STOP = re.compile(rf"[.!?…]+[{re.escape(CLOSERS)}]*(?=\s)|[{SURE}][{SURE}.!?…]*[{re.escape(CLOSERS)}]*")
QUOTING = ("と", "って")
"""Behind a quotation, Japanese goes on with these."""
OPENERS = "\"'“‘«([-–— "
WORD = re.compile(r"[^\W_]+(?:[.'’&-][^\W_]+)*$")
"""The word that a stop follows, dots inside it too: U.S, a.m, Ph.D."""
FIRST = re.compile(r"[^\W\d_]+")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BEFORE_NAMES = words(
    "mr mrs ms messrs mme mlle dr prof rev hon pres gov sen sens rep reps gen adm brig cmdr col cpl det insp lt maj "
    "pfc pvt sgt spc supt capt atty mt ft st sts fr vs v cf e.g i.e viz approx ca"
)
"""Something always follows them."""
BEFORE_NUMBERS = words(
    "no nos fig figs vol vols ch sec sect art p pp pt eq jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""A number follows them, or they are words."""
EITHER = words("inc corp co cos ltd plc bros jr sr esq etc al dept univ assn ave blvd rd est")
"""They stand inside of sentences as well as at their ends; so do U.S and its like."""
STARTERS = words(
    "a after all also although an and another as at because before both but by during each even every few first for "
    "from he her here his how however i if in instead it its last later many meanwhile more most mr mrs ms my neither "
    "no nobody none nor not nothing now of on once one only or other others our out over perhaps several she since so "
    "some soon still such that the their then there these they this those though through thus to today two under "
    "unlike until we what whatever when where whether which while who whoever whose why with without yet you your"
)
"""Words by which a capital tells of a beginning, not of a name."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, without white space around them. A line's end always ends one."""
    return [sentence for line in text.splitlines() for sentence in of_line(line.strip()) if sentence]


def first_sentences(text: str, n: int = 3) -> str:
    """The first n sentences, a space between them."""
    return " ".join(sentences(text)[:n])


def of_line(line: str) -> list[str]:
    """The sentences of a line."""
    found, begin = [], 0
    for stop in STOP.finditer(line):
        if is_end(line[begin : stop.start()], stop[0], line[stop.end() :].lstrip()):
            found.append(line[begin : stop.end()].strip())
            begin = stop.end()
    return [*found, line[begin:].strip()]


def is_end(before: str, stop: str, after: str) -> bool:
    """Whether a sentence ends at `stop`, which stands between these parts of a line; `before` begins with it."""
    if stop[0] in SURE:
        return any(map(str.isalnum, before)) and not (stop[-1] in CLOSERS and after.startswith(QUOTING))
    following = after.lstrip(OPENERS)
    if following[:1].islower() or not any(map(str.isalnum, before)):
        return False
    if stop.rstrip(CLOSERS) != ".":
        return True
    match = WORD.search(before)
    word = match[0] if match else ""
    if word == before.strip() and word.isdigit():  # the number of an item
        return False
    return not goes_on(word, following)


def goes_on(word: str, following: str) -> bool:
    """Whether the dot behind `word` belongs to it, so that what follows is the same sentence."""
    small, first = word.lower(), FIRST.match(following)
    if small in BEFORE_NAMES:
        return True
    if small in BEFORE_NUMBERS:
        return following[:1].isdigit()
    if len(word) == 1 and word.isupper() and word != "I":  # an initial
        return True
    if small in EITHER or is_dotted(word):
        return first is None or first[0].lower() not in STARTERS
    return False


def is_dotted(word: str) -> bool:
    """U.S, a.m, Ph.D: parts of one or two letters with dots between them."""
    parts = word.split(".")
    return len(parts) > 1 and all(part.isalpha() and len(part) < 3 for part in parts)

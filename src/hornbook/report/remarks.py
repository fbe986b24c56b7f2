"""What the figures say, in plain words: a sentence is there only where the figures say it."""

from __future__ import annotations

from typing import Any

from hornbook.report import wording
from hornbook.report.differences import compare, spelled
from hornbook.report.rung import Remark, Rung, ranked
from hornbook.report.surprise import about_surprise


def remarks(rungs: list[Rung], facts: dict[str, Any]) -> list[Remark]:
    """What the page says, most important first."""
    order = ranked(rungs)
    plain = [*about_best(order), *about_attention(order), *about_bigram(order)]
    once = [about_one_run(facts)] if len(order) > 1 else []
    return [*map(Remark, plain), *about_surprise(order, facts), *map(Remark, once)]


def about_one_run(facts: dict[str, Any]) -> str:
    seed = f", with seed {facts['seed']}" if "seed" in facts else ""
    return (
        f"Each rung was trained once{seed}: the intervals say how much the choice of documents matters, not how much "
        "another seed would."
    )


def about_best(order: list[Rung]) -> list[str]:
    if len(order) < 2:
        return []
    best, second = order[:2]
    found = compare(second, best)
    lead = (second.bits or 0) - (best.bits or 0)
    if found is None:
        return [
            f"{best.name} has the fewest bits per byte, {lead:.3f} fewer than {second.name}; whether that is more than "
            "luck cannot be said, since the two do not share several documents on which both were scored."
        ]
    interval = f"document by document the 95 % interval of the difference is {spelled(found)}, which"
    if found[1] > 0:
        return [f"{best.name} is best: it leads {second.name} by {lead:.3f} bits per byte, and {interval} excludes 0."]
    tied = [best.name, *(r.name for r in order[1:] if (d := compare(r, best)) is not None and d[1] <= 0)]
    others = "" if len(tied) == 2 else f" The same holds for {wording.listing(tied[2:])}."
    return [
        f"{best.name} and {second.name} are tied at the top: they are {lead:.3f} bits per byte apart, but {interval} "
        f"includes 0.{others}"
    ]


def about_attention(order: list[Rung]) -> list[str]:
    plain = {r.name.removeprefix("rnn"): r for r in order if r.is_recurrent and "attention" not in r.family}
    pairs = [
        (r, plain[size])
        for r in order
        if r.is_recurrent and "attention" in r.family
        if (size := r.name.removeprefix("rnn-attention")) in plain
    ]
    return [sentence for a, b in pairs if (sentence := attention_sentence(a, b))]


def attention_sentence(with_it: Rung, without: Rung) -> str:
    found = compare(with_it, without)
    if found is None:
        return ""
    apart = f"{with_it.name} needs {abs(found[0]):.3f} bits per byte {'more' if found[0] > 0 else 'fewer'}"
    what = f"{apart} than {without.name}, 95 % interval of the difference {spelled(found)}"
    if found[2] < 0:
        return f"Attention helped the RNN: {what}."
    if found[1] <= 0:
        return f"Whether attention helped the RNN cannot be told from this run: {what}, which includes 0."
    return f"Attention did not help the RNN here, it cost it: {what}.{fewer_tokens(with_it, without)}"


def fewer_tokens(slow: Rung, quick: Rung) -> str:
    seen, others = slow.figure("tokens"), quick.figure("tokens")
    if seen is None or others is None or seen >= 0.95 * others:
        return ""
    saw, other = wording.count(seen), wording.count(others)
    return f" In its time {slow.name} got through {saw} tokens, {quick.name} through {other}."


def about_bigram(order: list[Rung]) -> list[str]:
    """Whether the trained rungs beat the bigram; those that cannot be compared with it are not spoken of."""
    bigram = next((r for r in order if r.name == "bigram"), None)
    neural = [r for r in order if not r.is_counted]
    if bigram is None:
        return []
    found = {r.name: d for r in neural if (d := compare(r, bigram)) is not None}
    ahead = [name for name, (_, _, high) in found.items() if high < 0]
    behind = [name for name, (_, low, _) in found.items() if low > 0]
    tied = [name for name in found if name not in ahead + behind]
    if len(ahead) == len(neural) > 1:
        last = ahead[-1]
        return [
            f"Every neural rung beats the bigram; the last of them, {last}, by {-found[last][0]:.3f} bits per byte."
        ]
    told = []
    if ahead:
        told.append(f"{wording.listing(ahead)} {'beats' if len(ahead) == 1 else 'beat'} the bigram")
    if behind:
        told.append(f"the bigram beats {wording.listing(behind)}")
    if tied:
        told.append(f"{wording.listing(tied)} cannot be told from the bigram")
    sentence = "; ".join(told)
    return [f"T{sentence[1:]}." if sentence.startswith("the ") else f"{sentence}."] if sentence else []

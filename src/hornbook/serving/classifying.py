"""/v1/classify: which class a text is of, by a model that was taught to tell classes apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from starlette.responses import Response

from hornbook.errors import listing
from hornbook.evaluation.sentences import Classified, classify_text
from hornbook.serving.prompts import elsewhere, known, too_long
from hornbook.serving.refusals import invalid, json_response
from hornbook.serving.requests import ClassifyRequest
from hornbook.serving.site import Case, Served, Site


async def classify(site: Site, case: Case, asked: ClassifyRequest) -> Response:
    """Refusal for a model that writes, and a text without a token."""
    served = site.find(asked.model)
    order = site.order(case, served, 1)
    if not served.model.config.labels:
        apart = [other.name for other in site.served.values() if other.model.config.labels]
        others = f"; {listing(apart)} can" if apart else ""
        raise invalid(f"{served.name} writes texts, and tells no classes apart{others}", "model", "no_classes")
    tokenizer, most = served.model.tokenizer, site.settings.max_prompt
    counts = await elsewhere(site, lambda: [len(known(served.model, tokenizer.encode(text))) for text in asked.texts])
    if not all(counts):
        raise invalid("there is no token in the text", "input")
    if most is not None and max(counts) > most:
        raise too_long(f"the text has {max(counts)} tokens; this server takes {most}", "input")
    read = served.taught.get("context_of_examples") or served.context
    case.notes["prompt_tokens"] = used = sum(min(count, read) for count in counts)
    if site.settings.log_prompts:
        case.notes["prompts"] = asked.texts
    found = await order.read(classified(served, asked.texts))
    usage = {"prompt_tokens": used, "total_tokens": used}
    data = [
        {"index": number, "label": next(iter(one.classes)), "classes": one.classes, "note": one.note or None}
        for number, one in enumerate(found)
    ]
    return json_response({"object": "list", "model": served.name, "data": data, "usage": usage})


def classified(served: Served, texts: Sequence[str]) -> Iterator[list[Classified] | None]:
    """None after each text, so that others can be served between two; in the end what all of them are.

    ValueError where the model does not give numbers.
    """
    found = []
    for text in texts:
        one = classify_text(
            served.model, text, served.taught.get("context_of_examples"), served.taught.get("cut") or ""
        )
        if any(share != share for share in one.classes.values()):
            raise ValueError("the model's figures are not numbers")
        found.append(one)
        yield None
    yield found

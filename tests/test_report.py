"""The report: one file, true to its figures, with nothing in it that acts instead of being read."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from hornbook.report import curves, page, svg, wording
from hornbook.report.page import Rung, render, write_report
from ladder_figures import FACTS, counted, encoder, neural, validation, whole_ladder


class Reader(HTMLParser):
    """What a browser would make of the page: its elements, its links, its text, and whether all is closed."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["title"], ["desc"]):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def changed(rung: Rung, **summary) -> Rung:
    return dataclasses.replace(rung, summary=rung.summary | summary)


def without(rung: Rung, *keys: str) -> Rung:
    kept = {key: value for key, value in rung.summary.items() if key not in keys}
    return dataclasses.replace(rung, summary=kept, log=[])


# --- the file


def test_the_page_refers_to_nothing_outside_of_itself():
    html = render(FACTS, whole_ladder())
    reader = Reader(html)
    assert "://" not in html
    assert "@import" not in html
    for _, attributes in reader.elements:
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
    assert not {"script", "iframe", "img", "object"} & {tag for tag, _ in reader.elements}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_every_name_within_the_page_is_given_once_and_every_reference_is_answered():
    reader = Reader(render(FACTS, whole_ladder()))
    names = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(names) == len(set(names))
    wanted = {name for _, a in reader.elements for name in (a.get("aria-labelledby") or "").split()}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", render(FACTS, whole_ladder())))
    assert wanted <= set(names)


def test_every_drawing_has_a_title_and_a_description_and_every_heading_of_the_table_a_scope():
    html = render(FACTS, whole_ladder())
    reader = Reader(html)
    assert len(reader.all("svg")) == 6
    assert all(a["role"] == "img" and len(a["aria-labelledby"].split()) == 2 for a in reader.all("svg"))
    assert "rnn 2.034 (1.944 to 2.114)" in html
    assert all(a["scope"] in ("col", "row") for a in reader.all("th"))
    assert len(reader.all("caption")) == 1


def test_the_same_figures_give_the_same_page():
    assert render(FACTS, whole_ladder()) == render(dict(FACTS), whole_ladder())


def test_the_report_is_written_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    write_report(path, FACTS, whole_ladder())
    first = path.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("hornbook.atomic.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, FACTS, [])
    assert path.read_text(encoding="utf-8") == first


def test_the_report_needs_neither_torch_nor_matplotlib():
    code = "import sys, hornbook.report.page as page; page.render({}, []); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "jinja2" in loaded
    assert not {"torch", "matplotlib"} & set(loaded)


# --- foreign text


def test_a_sample_with_html_in_it_is_shown_as_text():
    evil = "The </p><script>alert('x')</script><b onclick=\"x\">&amp;"
    html = render(FACTS, [changed(neural("rnn", 2.0), sample=evil)])
    assert "<script" not in html
    assert evil in Reader(html).text


@pytest.mark.parametrize("key", ["title", "command", "machine", "corpus", "prompt", "date"])
def test_a_fact_with_html_in_it_is_shown_as_text(key):
    html = render(FACTS | {key: "<img src=x onerror=alert(1)>"}, whole_ladder())
    assert not Reader(html).all("img")
    assert "&lt;img" in html


def test_a_rung_with_html_in_its_name_cannot_break_out_of_the_drawings():
    html = render(FACTS, [neural('<b>"&', 2.0), counted("<i>", 2.1)])
    assert not {"b", "i"} & {tag for tag, _ in Reader(html).elements}


def test_control_characters_in_a_sample_are_shown_as_signs():
    html = render(FACTS, [changed(neural("rnn", 2.0), sample="The \x00\x1b[31m\u202e\ud800\x85 end\n\tnext")])
    assert "␀␛[31m⟨U+202E⟩⟨U+D800⟩⟨U+0085⟩ end\n\tnext" in Reader(html).text
    html.encode("utf-8")


def test_the_prompt_is_set_apart_from_what_the_model_wrote():
    html = render(FACTS, [changed(neural("rnn", 2.0), sample="The cat")])
    assert '<span class="prompt">The </span>cat</p>' in html


# --- figures


def test_the_headline_says_the_main_result():
    text = Reader(render(FACTS, whole_ladder())).text
    assert "5gram needs 1.981 bits (95\u00a0% interval 1.891 to 2.061) for each byte" in text
    assert "fewest of 7 rungs" in text


def test_the_table_is_ranked_by_bits_per_byte():
    html = render(FACTS, whole_ladder())
    rows = re.findall(r'<th scope="row">(.*?)</th>', html)
    assert rows == ["5gram", "rnn", "rnn-attention", "llama-tiny", "gpt2-tiny", "opt-tiny", "bigram"]


def test_the_encoder_is_never_ranked():
    html = render(FACTS, [counted("bigram", 2.4), changed(encoder(), validation=validation(0.1))])
    assert re.findall(r'<th scope="row">(.*?)</th>', html) == ["bigram"]
    text = Reader(html).text
    assert "bert-tiny has a pseudo-perplexity of 215" in text
    assert "It is not ranked" in text
    assert all(">bert-tiny<" not in drawing for drawing in re.findall(r"<svg.*?</svg>", html, re.S))


def test_a_tokeniser_that_cannot_restore_the_text_is_shown_but_not_ranked():
    lossy = changed(neural("rnn", 2.0), validation=validation(2.0) | {"bits_per_byte": None})
    text = Reader(render(FACTS, [lossy])).text
    assert "rnn: not ranked" in text
    assert "No rung has been measured in bits per byte" in text


@pytest.mark.parametrize(
    "key", ["parameters", "tokens", "seconds", "tokens_per_second", "flops", "validation", "sample"]
)
def test_a_missing_figure_leaves_a_dash_not_a_crash(key):
    html = render(
        FACTS, [without(neural("rnn", 2.0), key), without(neural("gpt2-tiny", 2.1), key), counted("bigram", 2.4)]
    )
    row = re.search(r'<th scope="row">rnn</th>.*?</tr>', html, re.S)
    assert row is not None
    assert (wording.DASH in row[0]) == (key != "sample")


def test_a_missing_fact_is_not_shown():
    text = Reader(render({"seed": 0}, whole_ladder())).text
    assert "Seed" in text
    assert not any(word in text for word in ("Machine", "Tokeniser", "Versions", "None"))


def test_a_page_without_rungs_is_still_a_page():
    assert "No rung has been measured" in Reader(render({}, [])).text


def test_endless_and_undefined_figures_are_shown_harmlessly():
    rung = changed(neural("rnn", 2.0), validation=validation(2.0) | {"word_perplexity": math.inf}, flops=math.nan)
    rung.log.append({"step": 999, "loss": math.nan, "seconds": 50.0})
    html = render(FACTS, [rung])
    assert "over 10³⁰⁰" in html
    assert not re.search(r"\bnan\b", html, re.I)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (8400, "8,400"),
        (12_345, "12.3 k"),
        (999_999, "1.00 M"),
        (3_400_000, "3.40 M"),
        (1.5e10, "15.0 B"),
        (None, "–"),
    ],
)
def test_counts_are_shown_with_three_figures(value, shown):
    assert wording.count(value) == shown


# --- drawings


def test_a_curve_is_thinned_to_what_can_be_seen_and_keeps_its_ends():
    points = [(float(i), 1.0) for i in range(5000)]
    kept = curves.thin(points)
    assert len(kept) == curves.MOST_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_smoothing_is_the_mean_of_the_steps_before_and_never_of_those_after():
    points = [(float(i), float(i % 7)) for i in range(120)]
    smoothed = curves.smooth(points)
    assert smoothed[50][1] == pytest.approx(sum(i % 7 for i in (48, 49, 50)) / 3)
    changed_later = points[:100] + [(x, 99.0) for x, _ in points[100:]]
    assert curves.smooth(changed_later)[:100] == smoothed[:100]


def test_labels_keep_apart_in_order_and_within_the_panel():
    moved = svg.keep_apart([100, 101, 50, 102, 199], 16, 0, 200)
    ranks = sorted(moved)
    assert all(b - a >= 16 - 1e-9 for a, b in pairwise(ranks))
    assert [moved.index(m) for m in ranks] == [2, 0, 1, 3, 4]
    assert 0 <= ranks[0] <= ranks[-1] <= 200


@pytest.mark.parametrize(("low", "high"), [(1.9, 2.5), (0, 48.2), (2.0001, 2.0002), (0, 36000)])
def test_ticks_are_round_and_lie_on_the_scale(low, high):
    ticks = svg.Scale(low, high, 0, 100).ticks(5)
    assert 3 <= len(ticks) <= 10
    assert all(low - 1e-9 <= value <= high + 1e-9 and float(text) == pytest.approx(value) for value, text in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_one_rung_or_equal_rungs_can_be_drawn():
    Reader(render(FACTS, [counted("bigram", 2.4)]))
    Reader(render(FACTS, [without(neural("rnn", 2.0)), without(neural("gpt2-tiny", 2.0))]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_colour_can_be_read_on_its_background(scheme):
    """WCAG 2.2, AA: a contrast of 4.5 to 1."""
    style = (Path(page.__file__).parent / "page.css").read_text()
    blocks = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    colours = blocks[scheme]
    for name in ("ink", "soft", *(f"c{i}" for i in range(page.COLOURS))):
        for background in ("paper", "card"):
            pair = sorted((luminance(colours[name]), luminance(colours[background])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, background)

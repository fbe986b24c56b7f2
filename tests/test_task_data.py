"""The data of tasks: a user's files read right or refused in one line, published sets found or fetched, splits that
leak nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.tasks import (
    SPLITS,
    Asked,
    Choice,
    Dialogue,
    Labelled,
    LastWord,
    Preference,
    Source,
    Task,
    lambada,
    multi30k,
    open_task,
    task_of_file,
    xquad,
)
from hornbook.tasks.classify import class_names
from hornbook.text import hub
from hornbook.text import imdb as imdb_text

DATA = os.environ.get("HORNBOOK_DATA")


def write(path: Path, rows: list[Any]) -> str:
    """Rows as .json or .jsonl, by the name; the path."""
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def own(name: str, path: str, other: str | None = None, options: dict[str, str] | None = None, **columns: str) -> Task:
    """A task on a file of the user's."""
    return open_task(name, Source(path, columns, other, options=options or {}))


def read(name: str, path: str, **columns: str) -> list[Any]:
    return list(own(name, path, **columns).examples("all"))


def parts(task: Task) -> dict[str, list[Any]]:
    return {split: list(task.examples(split)) for split in task.splits}


def keys_are_apart(found: dict[str, list[Any]], key: Any) -> bool:
    keys = [{key(example) for example in part} for part in found.values()]
    return all(part for part in keys) and not any(a & b for a, b in combinations(keys, 2))


# --- classify

REVIEWS = [{"text": f"review {number}", "label": ("bad", "good")[number % 2]} for number in range(40)]


def test_a_csv_with_other_names_of_columns_becomes_labelled_texts(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text('stars,review\n5,"so ""good"",\nreally"\n1,bad\n3,fine\n')
    task = own("classify", str(tmp_path / "reviews.csv"), text="review", label="stars")
    assert next(iter(task.examples("all"))) == Labelled('so "good",\nreally', "5")
    assert sorted(example.label for part in parts(task).values() for example in part) == ["1", "3", "5"]
    assert task.cut == "head+tail"


@pytest.mark.parametrize("columns", [{}, {"text": "review"}, {"label": "class"}])
def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, columns: dict[str, str]) -> None:
    (tmp_path / "reviews.csv").write_text("stars,body\n5,good\n1,bad\n")
    with pytest.raises(
        UserError, match=r"Its columns: stars, body\. Name the one for the text: --text COLUMN"
    ) as error:
        read("classify", str(tmp_path / "reviews.csv"), **columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"text": f"t {n}", "label": n} for n in range(1001)], "1,001 different labels, more than 1,000"),
        ([{"text": "", "label": "a"}, {"text": "  ", "label": "b"}], "no example in .* has text"),
        ([{"text": "one", "label": "a"}, {"text": "two", "label": "b"}], "2 different examples"),
        ([{"text": "one", "label": "a"}], "1 different example:"),
        ([{"text": "one", "label": "a"}, {"text": "two"}], "line 2 of .* has no label"),
        ([{"text": 3, "label": "a"}], "holds int, not text"),
        ([{"text": "\ud800", "label": "a"}], "half a surrogate"),
    ],
)
def test_rows_that_make_no_classes_are_refused_in_one_line(tmp_path: Path, rows: list[Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        parts(own("classify", write(tmp_path / "rows.jsonl", rows)))
    assert "\n" not in str(error.value)
    assert "rows.jsonl" in str(error.value)


def test_three_hundred_classes_of_any_type_and_a_text_of_a_million_characters_are_read(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": f"text {n}", "label": n} for n in range(300)]
    rows += [{"text": "a b " * 250_000, "label": True}, {"text": "whole", "label": 7.0}]
    found = read("classify", write(tmp_path / "rows.jsonl", rows))
    assert len(found) == 302
    assert class_names(found) == (*map(str, range(300)), "true")
    assert max(len(example.text) for example in found) == 1_000_000


def test_empty_texts_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", [*REVIEWS, {"text": None, "label": "bad"}, {"text": "\n", "label": "bad"}])
    assert len(read("classify", path)) == 40
    assert "2 of 42 examples left out, without text" in capsys.readouterr().err


def test_a_text_that_comes_twice_is_in_one_split_only_and_splits_do_not_change(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*REVIEWS, *REVIEWS[:30], *REVIEWS[:10]])
    found = parts(own("classify", path))
    assert keys_are_apart(found, lambda example: example.text)
    assert sum(map(len, found.values())) == 80
    assert parts(own("classify", path)) == found
    assert parts(open_task("classify", Source(path, seed=1))) != found


def test_a_class_that_a_model_does_not_know_is_a_mistake_and_no_error() -> None:
    task = open_task("imdb")
    marks = task.score(Labelled("x", "neutral"), {"negative": 0.7, "positive": 0.3})
    assert marks["accuracy"] == 0.0
    assert marks["log_loss"] > 30
    examples = [Labelled("a", "positive"), Labelled("b", "neutral")]
    assert task.figures is not None
    assert task.figures(examples, [{"negative": 0.2, "positive": 0.8}] * 2)["macro_f1"].value < 1
    pytest.importorskip("sklearn")
    train = [Labelled(f"{word} film", label) for word, label in (("good", "positive"), ("bad", "negative")) * 5]
    for baseline in task.baselines.values():
        outputs = baseline(train, [Labelled("good", "positive"), Labelled("bad", "neutral")])
        assert [set(output) for output in outputs] == [{"negative", "positive"}] * 2
        assert sum(outputs[0].values()) == pytest.approx(1)


# --- texts from texts


def test_articles_and_summaries_go_by_any_of_their_names(tmp_path: Path) -> None:
    for article, summary in (("article", "highlights"), ("document", "summary"), ("text", "summary")):
        path = write(tmp_path / "rows.jsonl", [{article: "Long.", summary: "L."}, {article: "No summary", summary: ""}])
        assert read("summarise", path) == [Asked({"article": "Long."}, "L.")]
        assert task_of_file(path) == "summarise"
    path = write(tmp_path / "rows.jsonl", [{"body": "Long.", "short": "L."}])
    assert read("summarise", path, article="body", summary="short")[0].answer == "L."
    with pytest.raises(UserError, match=r"Its columns: body, short.*--columns article=COLUMN"):
        read("summarise", path)


def test_two_files_of_lines_are_parallel_text(tmp_path: Path) -> None:
    lines = [f"Satz {number}\u2028hier." for number in range(10)]
    (tmp_path / "a.de").write_bytes("\r\n".join([*lines, ""]).encode())
    (tmp_path / "a.en").write_text("\n".join([*(f"Sentence {number}." for number in range(9)), "", ""]))
    task = own("translate", str(tmp_path / "a.de"), str(tmp_path / "a.en"), {"from": "de", "to": "Klingon {x}"})
    found = list(task.examples("all"))
    assert len(found) == 9
    assert found[0] == Asked({"source": "Satz 0\u2028hier."}, "Sentence 0.")
    assert task.plain.format(**found[0].fields) == "German: Satz 0\u2028hier.\nKlingon {x}:"
    assert task.chat.format(source="{a}") == "Translate from German to Klingon {x}: {a}"
    assert task_of_file(str(tmp_path / "a.de"), target="a.en") == "translate"


def test_parallel_texts_of_different_length_or_of_one_side_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    (tmp_path / "a.en").write_text("one\n")
    with pytest.raises(UserError, match=r"a.de has 2 lines, .*a.en 1: a line of one"):
        list(own("translate", str(tmp_path / "a.de"), str(tmp_path / "a.en")).examples("all"))
    with pytest.raises(UserError, match=r"one side only.*--target FILE"):
        own("translate", str(tmp_path / "a.de"))
    path = write(tmp_path / "rows.jsonl", [{"source": "a", "target": "b"}])
    with pytest.raises(UserError, match="has rows: its own columns"):
        own("translate", path, str(tmp_path / "a.en"))
    (tmp_path / "bad.en").write_bytes(b"one\ntw\xff\n")
    with pytest.raises(UserError, match=r"bad.en is not UTF-8: byte 0xff at offset 6"):
        list(own("translate", str(tmp_path / "a.de"), str(tmp_path / "bad.en")).examples("all"))


def test_parallel_rows_are_read_by_column_language_or_as_the_hub_nests_them(tmp_path: Path) -> None:
    expected = [Asked({"source": "eins"}, "one")]
    languages = {"from": "de", "to": "en"}
    assert read("translate", write(tmp_path / "a.jsonl", [{"source": "eins", "target": "one"}])) == expected
    path = write(tmp_path / "b.jsonl", [{"de": "eins", "en": "one"}])
    assert list(own("translate", path, options=languages).examples("all")) == expected
    assert read("translate", path, source="de", target="en") == expected
    path = write(tmp_path / "c.jsonl", [{"translation": {"de": "eins", "en": "one"}}])
    assert task_of_file(path) == "translate"
    assert list(own("translate", path, options=languages).examples("all")) == expected
    with pytest.raises(UserError, match="has de, en: name two"):
        read("translate", path)


SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": f"Article {a}",
            "paragraphs": [
                {
                    "context": f"In text {a}.{p} it is 7, or seven.",
                    "qas": [
                        {
                            "id": f"{a}{p}{q}",
                            "question": f"What {a}.{p}.{q}?",
                            "answers": [{"text": t, "answer_start": 0} for t in ("7", "seven")],
                        }
                        for q in range(2)
                    ]
                    + [{"question": "Unanswerable?", "answers": [], "is_impossible": True}],
                }
                for p in range(3)
            ],
        }
        for a in range(12)
    ],
}


def test_questions_of_squads_form_keep_all_their_answers_and_an_article_in_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SQUAD))
    found = parts(own("answer", str(path)))
    assert "36 of 108 examples left out, without a context, a question and an answer" in capsys.readouterr().err
    assert sum(map(len, found.values())) == 72
    assert found["train"][0].references == ("7", "seven")
    assert keys_are_apart(found, lambda example: example.fields["context"].split(".")[0])
    assert task_of_file(str(path)) == "answer"


@pytest.mark.parametrize("answers", ["7", ["7"], {"text": ["7"], "answer_start": [1]}, [{"text": "7"}]])
def test_answers_in_rows_have_any_usual_form(tmp_path: Path, answers: Any) -> None:
    path = write(tmp_path / "rows.jsonl", [{"context": "c", "question": "q", "answers": answers}] * 2)
    assert read("answer", path)[1] == Asked({"context": "c", "question": "q"}, "7", ("7",))
    assert task_of_file(path) == "answer"


def test_questions_on_the_same_text_are_in_the_same_split_where_no_article_is_named(tmp_path: Path) -> None:
    rows = [{"context": f"c {n % 12}", "question": f"q {n}", "answer": "a"} for n in range(60)]
    found = parts(own("answer", write(tmp_path / "rows.jsonl", rows)))
    assert keys_are_apart(found, lambda example: example.fields["context"])


@pytest.mark.parametrize("data", [{"data": [{"title": "x"}]}, {"data": 3}, {"data": [{"paragraphs": [{}]}]}])
def test_json_that_is_not_of_squads_form_is_refused(tmp_path: Path, data: Any) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"mine.json is not of SQuAD's form"):
        list(own("answer", str(tmp_path / "mine.json")).examples("all"))


# --- conversations


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


HELLO = said(("user", "Hello"), ("assistant", "Hi."))


def test_messages_and_sharegpt_conversations_become_dialogues(tmp_path: Path) -> None:
    theirs = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]
    for row in ({"messages": HELLO}, {"conversations": theirs}):
        path = write(tmp_path / "rows.jsonl", [row])
        assert read("chat", path) == [Dialogue(tuple(HELLO))]
        assert task_of_file(path) == "chat"
    path = write(tmp_path / "rows.jsonl", [{"messages": HELLO, "system": "Be kind."}])
    assert read("chat", path)[0].messages[0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (said(("user", "a"), ("robot", "b")), r"unknown role in message 2 of line 1 .* 'robot'.*assistant"),
        (said(("user", "a")), "line 1 of .* has no message of the assistant"),
        ([], "no message of the assistant"),
        ("hello", "must have role and content, or from and value, in 'messages', but has str"),
        ([{"role": "user"}], "but has the keys role"),
        (said(("user", "a"), ("assistant", "\ud800")), "half a surrogate"),
        ([{"role": "user", "content": ["a"]}], "holds list, not text"),
        (None, "but has NoneType"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_place(tmp_path: Path, messages: Any, told: str) -> None:
    path = write(tmp_path / "rows.jsonl", [{"messages": messages}, {"messages": HELLO}])
    with pytest.raises(UserError, match=told) as error:
        read("chat", path)
    assert "line 1" in str(error.value)


def test_a_dialogue_whose_answers_are_all_empty_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"messages": HELLO}, {"messages": said(("user", "a"), ("assistant", " "))}]
    assert len(read("chat", write(tmp_path / "rows.jsonl", rows))) == 1
    assert "1 of 2 examples left out, without an answer" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_instructions_become_what_the_user_and_the_assistant_say(tmp_path: Path, name: str) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Sing.", "input": "", "output": "La", "system": "You sing."},
        {"instruction": "Nothing.", "input": "", "output": ""},
    ]
    path = write(tmp_path / name, rows)
    assert task_of_file(path) == "instruct"
    assert read("instruct", path) == [
        Dialogue(tuple(said(("user", "Add.\n\n1 and 2"), ("assistant", "3")))),
        Dialogue(tuple(said(("system", "You sing."), ("user", "Sing."), ("assistant", "La")))),
    ]


def test_perplexity_of_dialogues_is_over_all_tokens() -> None:
    task = own("chat", "none.jsonl")
    assert task.figures is not None
    found = task.figures([Dialogue(())] * 2, [(-2.0, 1), (-2.0, 3)])["perplexity"]
    assert found.value == pytest.approx(2.718281828)
    assert task.score(Dialogue(()), (-2.0, 4)) == {"log_prob": -0.5}


FORMS_OF_PREFERENCE: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Hello", "chosen": "Hi.", "rejected": "No."},
    "messages": {
        "messages": HELLO[:1],
        "chosen": HELLO[1],
        "rejected": {"role": "assistant", "content": "No."},
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hello"}],
        "chosen": {"from": "gpt", "value": "Hi."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    "whole": {"chosen": HELLO, "rejected": [HELLO[0], {"role": "assistant", "content": "No."}]},
    "both": {"prompt": "Hello", "chosen": HELLO, "rejected": [HELLO[0], {"role": "assistant", "content": "No."}]},
    "instruction": {"instruction": "Hello", "input": "", "chosen": "Hi.", "rejected": "No."},
}


@pytest.mark.parametrize("form", FORMS_OF_PREFERENCE)
def test_preferences_of_every_usual_form_are_the_same(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "rows.jsonl", [FORMS_OF_PREFERENCE[form]])
    assert task_of_file(path) == "prefer"
    assert read("prefer", path) == [Preference((HELLO[0],), "Hi.", "No.")]


def test_preferences_that_say_nothing_are_left_out_and_broken_ones_refused(tmp_path: Path) -> None:
    texts = FORMS_OF_PREFERENCE["texts"]
    assert len(read("prefer", write(tmp_path / "a.jsonl", [texts, texts | {"rejected": "Hi."}]))) == 1
    with pytest.raises(UserError, match=r"no column 'rejected'.*Its columns: prompt, chosen"):
        read("prefer", write(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b"}]))
    with pytest.raises(UserError, match=r"'chosen' in line 1 .* must be one answer of the assistant"):
        read("prefer", write(tmp_path / "c.jsonl", [texts | {"chosen": said(("user", "x"))}]))


def test_marks_of_preferences_and_the_longer_answer_as_a_baseline(tmp_path: Path) -> None:
    task = own("prefer", "none.jsonl")
    example = Preference((HELLO[0],), "short", "much longer")
    assert task.score(example, (-1.0, -3.0)) == {"accuracy": 1.0, "margin": 2.0}
    (output,) = task.baselines["longer answer"]([], [example])
    assert task.score(example, output)["accuracy"] == 0.0


# --- choices


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"endings": ["a", "b", "c"], "label": 2}, 2),
        ({"choices": ["a", "b", "c"], "answer": "1"}, 1),
        ({"choices": ["x", "y", "z"], "answer": "B"}, 1),
        ({"choices": ["1", "2", "3"], "answer": "2"}, 1),
        ({"choices": ["1", "2", "3"], "answer": 2}, 2),
        ({"options": ["x", "y", "z"], "answer": "z"}, 2),
        ({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"A": "x", "B": "y", "C": "", "answer": "B"}, 1),
    ],
)
def test_the_right_ending_is_named_by_text_letter_or_place(tmp_path: Path, row: dict[str, Any], answer: int) -> None:
    (found,) = read("multiple-choice", write(tmp_path / "rows.jsonl", [{"question": "Which?", **row}]))
    assert found.answer == answer
    assert found.prompt == "Question: Which?\nAnswer:"
    assert "" not in found.endings


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"endings": ["a", "b"], "label": 2}, "answer '2' in line 1 .* is none of its 2 endings"),
        ({"endings": ["a", "b"], "label": "E"}, "its letter \\(A, B\\)"),
        ({"endings": ["a"], "label": 0}, "two endings at least"),
        ({"endings": ["a", ""], "label": 0}, "none of them empty"),
        ({"endings": "ab", "label": 0}, "holds str, not a list"),
        ({"endings": ["a", "b"], "label": None}, "has no label"),
        ({"label": 0}, r"no column 'endings'.*--columns endings=COLUMN"),
    ],
)
def test_choices_that_are_none_are_refused(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read("multiple-choice", write(tmp_path / "rows.jsonl", [{"prompt": "p", **row}]))


# --- which task a file is for


def test_a_file_whose_columns_say_nothing_is_answered_with_columns_and_tasks(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"a": 1, "b": 2}])
    with pytest.raises(UserError, match=r"columns of .*rows.jsonl \(a, b\) do not say.*prefer, chat, .*classify"):
        task_of_file(path)
    assert task_of_file(path, {"label": "a"}) == "classify"
    assert task_of_file(write(tmp_path / "b.jsonl", [{"text": "a", "label": 2}])) == "classify"
    assert task_of_file(write(tmp_path / "c.json", [{"question": "a", "choices": []}])) == "multiple-choice"
    assert task_of_file(path, {"article": "a", "summary": "b"}) == "summarise"
    assert task_of_file(write(tmp_path / "d.jsonl", [{"prompt": "a", "completion": "b"}])) == "instruct"
    (tmp_path / "e.json").write_text(json.dumps({"data": REVIEWS}))
    with pytest.raises(UserError, match="one JSON object with the keys data, no array of objects"):
        task_of_file(str(tmp_path / "e.json"))


def test_what_a_task_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", REVIEWS)
    with pytest.raises(UserError, match=r"unknown column of classify 'lable'. Did you mean 'label'"):
        own("classify", path, lable="x")
    with pytest.raises(UserError, match="classify takes no options, but year=2017 is given"):
        own("classify", path, options={"year": "2017"})
    for name in ("imdb", "cnn-dailymail", "multi30k", "squad", "xquad", "hellaswag", "lambada"):
        with pytest.raises(UserError, match="is a published set, which takes no file"):
            own(name, path)
        with pytest.raises(UserError, match=f"{name} has no tset split"):
            list(open_task(name).examples("tset"))
    with pytest.raises(UserError, match="unknown language of multi30k 'gr'"):
        open_task("multi30k", Source(options={"to": "gr"}))
    with pytest.raises(UserError, match="from and to are both en"):
        open_task("multi30k", Source(options={"from": "en"}))
    with pytest.raises(UserError, match="unknown year"):
        open_task("multi30k", Source(options={"year": "2015"}))
    with pytest.raises(UserError, match=r"multi30k has no test_2017_flickr.cs"):
        list(open_task("multi30k", Source(options={"from": "cs", "year": "2017"})).examples("test"))


# --- published sets, from a fake of the Hub


class FakeHub:
    """Serves files by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        files = self.files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, dataset: str, folder: str, split: str, rows: list[dict[str, Any]]) -> None:
        """A split as parquet."""
        pyarrow = pytest.importorskip("pyarrow")
        buffer = io.BytesIO()
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), buffer)
        tree = f"/api/datasets/{dataset}/tree/main/{folder}"
        entries = json.loads(self.files.get(tree, b"[]"))
        name = f"{folder}/{split}-00000-of-00001.parquet"
        self.files[f"/datasets/{dataset}/resolve/main/{name}"] = data = buffer.getvalue()
        entries.append({"type": "file", "path": name, "lfs": {"oid": hashlib.sha256(data).hexdigest()}})
        self.files[tree] = json.dumps(entries).encode()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub()
    monkeypatch.setattr(hub, "MIRRORS", (fake.address,))
    for module in (multi30k, xquad, lambada):
        monkeypatch.setattr(module, "ADDRESSES", (fake.address,))
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    for name in ("HF_ENDPOINT", "HORNBOOK_DATA", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def test_imdb_comes_from_the_hub_and_no_review_is_in_two_splits(fake: FakeHub) -> None:
    train = [{"text": f"film {n % 190}", "label": int(n >= 100)} for n in range(200)]
    test = [{"text": f"film {n + 185}", "label": n % 2} for n in range(50)]
    fake.add(imdb_text.DATASET, "plain_text", "train", train)
    fake.add(imdb_text.DATASET, "plain_text", "test", test)
    found = parts(open_task("imdb"))
    assert keys_are_apart(found, lambda example: example.text)
    assert len(found["test"]) == 50
    kept = Counter(row["text"] for row in train if row["text"] not in {other["text"] for other in test})
    assert Counter(example.text for split in ("train", "validation") for example in found[split]) == kept
    assert 5 <= len(found["validation"]) <= 40
    assert {example.label for example in found["train"][:20]} == {"negative", "positive"}


def test_cnn_dailymail_comes_from_the_hub(fake: FakeHub) -> None:
    for split in SPLITS:
        rows = [{"article": f"{split} {n}", "highlights": f"One {n} .\nTwo .", "id": str(n)} for n in range(20)]
        fake.add("abisee/cnn_dailymail", "3.0.0", split, rows)
    found = parts(open_task("cnn-dailymail"))
    assert [len(part) for part in found.values()] == [20, 20, 20]
    assert Asked({"article": "test 3"}, "One 3 .\nTwo .") in found["test"]
    assert found["test"][0].fields["article"] != "test 0"


def test_squad_comes_from_the_hub_with_its_nested_answers_and_articles_apart(fake: FakeHub) -> None:
    for split in ("train", "validation"):
        rows = [
            {
                "id": str(n),
                "title": f"{split} {n % 20}",
                "context": f"{split} {n % 20}: text {n}",
                "question": f"q {n}?",
                "answers": {"text": ["text", "a text"], "answer_start": [3, 2]},
            }
            for n in range(100)
        ]
        fake.add("rajpurkar/squad", "plain_text", split, rows)
    found = parts(open_task("squad"))
    assert [len(part) for part in found.values()] == [90, 10, 100]
    assert keys_are_apart(found, lambda example: example.fields["context"].split(":")[0])
    assert found["test"][0].answers == ("text", "a text")


def test_multi30k_xquad_and_lambada_are_downloaded_with_their_hashes(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: dict[str, bytes] = {
        "/val.de.gz": gzip.compress(b"ein Hund\neine Katze\n"),
        "/val.en.gz": gzip.compress(b"a dog\na cat\n"),
        "/xquad.en.json": json.dumps(SQUAD).encode(),
        "/lambada_test.jsonl": b'{"text": "one two\\n\\nthree four"}\n',
    }
    fake.files |= sets
    for module, known in ((multi30k, multi30k.SHA256), (xquad, xquad.SHA256)):
        right = {name.strip("/").removesuffix(".gz"): hashlib.sha256(data).hexdigest() for name, data in sets.items()}
        monkeypatch.setattr(module, "SHA256", known | right | {"en": right["xquad.en.json"]})
    monkeypatch.setattr(lambada, "SHA256", hashlib.sha256(sets["/lambada_test.jsonl"]).hexdigest())
    pairs = list(open_task("multi30k", Source(options={"from": "en", "to": "de"})).examples("validation"))
    assert pairs == [Asked({"source": "a dog"}, "ein Hund"), Asked({"source": "a cat"}, "eine Katze")]
    assert keys_are_apart(parts(open_task("xquad")), lambda example: example.fields["context"].split(".")[0])
    assert list(open_task("lambada").examples("test")) == [LastWord("one two\n\nthree", "four")]
    fake.files["/val.de.gz"] += b"?"
    fake.files["/train.de.gz"] = b"?"
    with pytest.raises(UserError, match=r"sha256 is .*name a folder with multi30k/train.de.gz in HORNBOOK_DATA"):
        list(open_task("multi30k").examples("train"))


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("imdb", "train", "imdb/test.jsonl.gz"),
        ("cnn-dailymail", "test", "cnn-dailymail/test.jsonl"),
        ("squad", "test", "squad/dev-v1.1.json"),
        ("multi30k", "test", "multi30k/test_2016_flickr.de.gz"),
        ("xquad", "test", "xquad/xquad.en.json"),
        ("lambada", "test", "lambada/lambada_test.jsonl"),
    ],
)
def test_without_a_network_one_line_names_both_ways(fake: FakeHub, name: str, split: str, file: str) -> None:
    with pytest.raises(UserError, match=rf"cannot .*name a folder with {file} in HORNBOOK_DATA") as error:
        list(open_task(name).examples(split))
    assert "\n" not in str(error.value)


# --- published sets, from a folder


@needs_data("imdb")
def test_imdb_at_hand_has_its_halves_and_leaks_nothing() -> None:
    found = parts(open_task("imdb"))
    assert len(found["test"]) == 25_000
    assert Counter(example.label for example in found["test"]) == {"negative": 12_500, "positive": 12_500}
    assert keys_are_apart(found, lambda example: example.text)
    assert 24_860 <= len(found["train"]) + len(found["validation"]) <= 24_900
    assert 2_300 <= len(found["validation"]) <= 2_700
    for part in found.values():
        assert 0.4 < sum(example.label == "positive" for example in part[:500]) / 500 < 0.6


@needs_data("cnn-dailymail")
def test_the_sample_of_cnn_dailymail_is_divided_by_article() -> None:
    found = parts(open_task("cnn-dailymail"))
    assert [len(part) for part in found.values()] == [900, 100, 100]
    assert keys_are_apart(found, lambda example: example.fields["article"])
    assert parts(open_task("cnn-dailymail", Source(seed=5))) == found


@needs_data("multi30k")
@pytest.mark.parametrize(("year", "count"), [("2016", 1000), ("2017", 1000), ("2018", 1071)])
def test_multi30k_at_hand_has_its_published_splits(year: str, count: int) -> None:
    found = parts(open_task("multi30k", Source(options={"year": year})))
    assert [len(part) for part in found.values()] == [29_000, 1014, count]
    if year == "2016":
        assert found["train"][0].answer == "Two young, White males are outside near many bushes."


@needs_data("xquad")
def test_xquad_at_hand_has_the_same_articles_in_a_split_of_every_language() -> None:
    english = parts(open_task("xquad"))
    assert sum(map(len, english.values())) == 1190
    assert keys_are_apart(english, lambda example: example.fields["context"])
    german = parts(open_task("xquad", Source(options={"language": "de"})))
    assert {split: len(part) for split, part in german.items()} == {s: len(part) for s, part in english.items()}


@needs_data("lambada")
def test_lambada_at_hand_has_every_passage_whole() -> None:
    found = list(open_task("lambada").examples("test"))
    assert len(found) == 5153
    assert found[0].word == "signs"
    with open(Path(str(DATA)) / "lambada" / "lambada_test.jsonl", encoding="utf-8") as file:
        assert [json.loads(line)["text"] for line in file] == [f"{passage.prompt} {passage.word}" for passage in found]


@needs_data("instruct")
@pytest.mark.parametrize(
    ("file", "task", "count"),
    [
        ("alpaca_en_demo.json", "instruct", 999),
        ("instruction-data-1100.json", "instruct", 1100),
        ("dpo_en_demo.json", "prefer", 300),
    ],
)
def test_instructions_and_preferences_at_hand_are_read(file: str, task: str, count: int) -> None:
    path = str(Path(str(DATA)) / "instruct" / file)
    assert task_of_file(path) == task
    found = parts(own(task, path))
    assert sum(map(len, found.values())) == count
    kind = {"instruct": Dialogue, "prefer": Preference}[task]
    assert all(isinstance(example, kind) for part in found.values() for example in part)


def test_a_choice_is_judged_by_its_endings() -> None:
    task = own("multiple-choice", "none.jsonl")
    example = Choice("p", ("aa", "bbbbbbbb"), 1)
    assert task.score(example, [(-2.0, 1), (-6.0, 2)])["accuracy_per_character"] == 1.0
    (output,) = task.baselines["random choice"]([], [example])
    assert len(output) == 2

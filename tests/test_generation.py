"""The engine: whatever runs beside a request, and however it is computed, its text is the plain loop's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import EOS, VOCAB, tiny_config, tiny_model
from hornbook import kernels, models
from hornbook.commands import generate
from hornbook.config import Generate, Sampling, TransformerConfig
from hornbook.errors import UserError
from hornbook.generation import prompt_file
from hornbook.generation.answers import Answer, Piece, Request
from hornbook.generation.drafts import Lookup, ModelDrafter
from hornbook.generation.engine import Engine, compacted
from hornbook.generation.prefixes import Prefixes, Text, common
from hornbook.generation.prompt_file import answer_file, hold
from hornbook.generation.stream import prompt_ids, stream_tokens
from hornbook.generation.swift import quicken
from hornbook.generation.text_stream import TextStream, begun
from hornbook.layers.model import LanguageModel
from hornbook.log import Log
from hornbook.text.tokenizer_training import train_tokenizer

FAMILIES = [name for name in models.families() if tiny_model(name).causal]
PROMPTS = [[3 + i, 5, 9, 4][: 1 + i % 4] for i in range(7)] + [list(range(3, 30))]
WAYS: dict[str, Any] = {
    "batched": {},
    "in chunks": {"chunk": 3},
    "three rows, prefixes kept": {"rows": 3, "kept": 10**6},
    "looked up": {"drafter": "lookup"},
    "drafted by a bigram": {"drafter": "ngram"},
}


def engine_of(model: LanguageModel, way: dict[str, Any]) -> Engine:
    drafters = {"lookup": Lookup, "ngram": lambda: ModelDrafter(tiny_model("ngram"), model)}
    return Engine(model, **{k: drafters[v]() if k == "drafter" else v for k, v in way.items()})


def finished(engine: Engine, answers: list[Answer]) -> list[list[int]]:
    while engine.busy:
        engine.step()
    assert all(answer.finish for answer in answers)
    return [answer.new for answer in answers]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0, "logit_bias": {EOS: -30.0}}, {"seed": 3, "top_p": 0.9, "repetition_penalty": 1.2}],
    ids=str,
)
def test_every_way_of_computing_gives_the_plain_loops_tokens(family: str, settings: dict[str, Any]) -> None:
    model, sampling = tiny_model(family), Sampling(**settings)
    wanted = [list(stream_tokens(model, p, 60, cached=False, **settings)) for p in PROMPTS]
    assert [list(stream_tokens(model, p, 60, **settings)) for p in PROMPTS] == wanted
    assert sum(map(len, wanted)) > 40, "texts so short that they prove little"
    for way in WAYS.values():
        engine = engine_of(model, way)
        answers = [engine.submit(Request(p, 60, sampling, slide=True)) for p in PROMPTS]
        assert finished(engine, answers) == wanted, way


@pytest.mark.parametrize("family", FAMILIES)
def test_the_compiled_kernels_give_the_plain_loops_tokens(family: str) -> None:
    wide: dict[str, Any] = {}
    if isinstance(tiny_config(family), TransformerConfig):
        wide = {"dim": 64, "mlp": 96, "heads": 4, "head_dim": 16}  # as kernels need
    wanted = [list(stream_tokens(tiny_model(family, **wide), p, 60, seed=4)) for p in PROMPTS]
    model = tiny_model(family, **wide)
    quicken(model)
    assert not wide or kernels.library() is None or model.reads_source or model.step is not None
    for way in WAYS.values():
        engine = engine_of(model, way)
        answers = [engine.submit(Request(p, 60, Sampling(seed=4), slide=True)) for p in PROMPTS]
        assert finished(engine, answers) == wanted, way


def test_requests_that_come_later_join_and_change_nothing() -> None:
    model, sampling = tiny_model("llama"), Sampling(seed=1)
    wanted = [list(stream_tokens(model, p, 20, seed=1)) for p in PROMPTS]
    engine, answers = Engine(model, rows=5), []
    for prompt in PROMPTS:
        answers.append(engine.submit(Request(prompt, 20, sampling)))
        engine.step()
        engine.step()
    assert finished(engine, answers) == wanted


def test_samples_of_one_prompt_differ_and_read_it_once() -> None:
    model, prompt = tiny_model("llama"), list(range(3, 30))
    engine, sampling = Engine(model), Sampling(seed=1)
    answers = [engine.submit(Request(prompt, 15, sampling, sample)) for sample in range(4)]
    texts = finished(engine, answers)
    assert len({tuple(text) for text in texts}) == 4
    assert [answer.reused for answer in answers] == [0, 26, 26, 26]


def test_a_conversation_goes_on_from_what_was_read_before() -> None:
    model = tiny_model("llama", eos=None)
    engine = Engine(model, kept=10**6)
    first = engine.submit(Request(list(range(3, 20)), 8, Sampling(temperature=0)))
    finished(engine, [first])
    prompt = [*range(3, 20), *first.new, 7, 8]
    second = engine.submit(Request(prompt, 8, Sampling(temperature=0)))
    assert finished(engine, [second]) == [list(stream_tokens(model, prompt, 8, temperature=0))]
    assert second.reused == 17 + 8 - 1


def test_kept_prefixes_stay_within_their_bytes_and_the_latest_survive() -> None:
    model = tiny_model("llama")
    cache = model.make_cache(1, 20)
    model.hidden(torch.arange(3, 23)[None], cache)
    one = cache.copy(0).bytes
    prefixes = Prefixes(2 * one)
    for start in range(4):
        prefixes.keep(Text(range(start, start + 20)), cache, 0)
    assert [text.tokens[0] for text, _ in prefixes.kept] == [2, 3]
    assert common([1, 2, 3], [1, 2]) == 2


def test_a_cancelled_request_gives_its_row_to_the_next() -> None:
    engine = Engine(tiny_model("llama", eos=None), rows=1)
    first, second = (engine.submit(Request([5], 40)) for _ in range(2))
    for _ in range(5):
        engine.step()
    first.cancelled = True
    finished(engine, [first, second])
    assert (first.finish, second.finish) == ("cancelled", "length")
    assert 0 < len(first.new) < 40 == len(second.new)


def test_waiting_and_reading_requests_can_be_cancelled_too() -> None:
    engine = Engine(tiny_model("llama"), rows=1, chunk=2)
    answers = [engine.submit(Request(list(range(3, 23)), 5)) for _ in range(2)]
    engine.step()
    for answer in answers:
        answer.cancelled = True
    finished(engine, answers)
    assert [answer.finish for answer in answers] == ["cancelled"] * 2


def test_memory_for_caches_is_never_exceeded() -> None:
    model = tiny_model("llama", eos=None, context=192)
    most = Engine(model).bytes(4, 128)
    engine, seen = Engine(model, memory=most), []
    answers = [engine.submit(Request([5, 6], 100)) for _ in range(10)]
    while engine.busy:
        engine.step()
        seen.append((len(engine.running), engine.cache.bytes if engine.cache else 0))
    assert max(rows for rows, _ in seen) == 4
    spare = 4 * (engine.token_bytes + engine.row_bytes)
    assert max(size for _, size in seen) <= most + spare
    assert all(len(answer.new) == 100 for answer in answers)


@pytest.mark.parametrize("long_first", [False, True])
@pytest.mark.parametrize("family", ["llama", "transformer"])
def test_many_short_texts_and_a_long_one_are_never_paid_for_together(family: str, long_first: bool) -> None:
    model = tiny_model(family, eos=None, context=448)
    source = {"source": 1} if model.reads_source else {}
    short, long = [Request([5, 6], 20, **source) for _ in range(8)], Request([5, 6], 400, **source)
    engine = Engine(model)
    most = engine.memory = max(engine.bytes(8, 64), engine.bytes(1, engine.length(long)))
    alone = [Engine(model) for _ in range(2)]
    seen, found = [], {}
    for group in ([long], short) if long_first else (short, [long]):
        answers = [engine.submit(request) for request in group]
        while engine.busy:
            engine.step()
            seen.append(engine.cache.bytes if engine.cache else 0)
        found[len(group)] = [answer.new for answer in answers]
    assert max(seen) <= most + 8 * (engine.token_bytes + engine.row_bytes)  # a spare slot a row
    for other, (request, given) in zip(alone, ((short[0], found[8][0]), (long, found[1][0])), strict=True):
        answer = other.submit(request)
        while other.busy:
            other.step()
        assert answer.new == given


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request([], 5), "empty"),
        (Request([3] * 49, 5, slide=True), "49 tokens and the context 48"),
        (Request([3] * 40, 9), "40 tokens of prompt and 9 new ones do not fit into the context of 48"),
        (Request([VOCAB], 5), "the vocabulary has 0 to 39"),
        (Request([3], 5, Sampling(logit_bias={-1: 2.0})), "token id -1"),
    ],
)
def test_what_can_never_be_answered_is_refused_before_it_waits(request_: Request, told: str) -> None:
    engine = Engine(tiny_model("gpt2"))
    with pytest.raises(UserError, match=told):
        engine.submit(request_)
    assert not engine.busy


def test_a_prompt_too_long_for_the_memory_is_refused_with_both_figures() -> None:
    with pytest.raises(UserError, match=r"takes \d+ MB, and 0 are set aside"):
        Engine(tiny_model("gpt2"), memory=1000).submit(Request([3], 5))


def test_an_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="fills in gaps"):
        Engine(tiny_model("bert"))


def test_a_model_without_numbers_ends_its_answers_and_not_the_engine() -> None:
    model = tiny_model("llama")
    engine = Engine(model)
    with torch.no_grad():
        model.get_parameter("embedding.weight").fill_(float("nan"))
    answer = engine.submit(Request([3], 5))
    finished(engine, [answer])
    assert answer.finish == "error"
    with pytest.raises(UserError, match="not numbers"):
        list(stream_tokens(model, [3], 5))


def test_log_probabilities_are_the_models_own_and_come_with_the_likeliest() -> None:
    model = tiny_model("llama", eos=None)
    engine = Engine(model)
    answer = engine.submit(Request([3, 4], 12, Sampling(temperature=0.5, top_k=3), logprobs=2))
    finished(engine, [answer])
    text = torch.tensor([[3, 4, *answer.new]])
    wanted = model(text[:, :-1]).log_softmax(-1)[0, 1:].detach()
    for nats, chosen in zip(wanted, answer.chosen, strict=True):
        assert chosen.logprob == pytest.approx(float(nats[chosen.token]), abs=1e-4)
        assert [token for token, _ in chosen.alternatives] == nats.topk(2).indices.tolist()
        assert [value for _, value in chosen.alternatives] == pytest.approx(nats.topk(2).values.tolist(), abs=1e-4)


def test_guesses_that_come_true_save_passes() -> None:
    model = tiny_model("ngram")
    passes = []
    for drafter in (None, ModelDrafter(model, model)):
        engine = Engine(model, drafter=drafter)
        answer = engine.submit(Request([3, 4], 24, Sampling(seed=5)))
        count = 0
        while engine.busy:
            engine.step()
            count += 1
        passes.append((count, answer.new))
    assert passes[0][1] == passes[1][1]
    assert passes[1][0] <= passes[0][0] / 3, "a drafter that is the model itself is always right"


def test_a_drafter_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="the same vocabulary"):
        ModelDrafter(tiny_model("llama", vocab=39), tiny_model("llama"))


def test_rows_that_stay_keep_their_places_where_they_can() -> None:
    assert compacted([0, 1, 2]) == [0, 1, 2]
    assert compacted([1, 2, 4]) == [4, 1, 2]
    assert compacted([3, 4]) == [3, 4]
    assert compacted([]) == []


def spoken(model: LanguageModel, stops: tuple[str, ...] = (), **fields: Any) -> tuple[Answer, list[Piece]]:
    engine, pieces = Engine(model), []
    answer = engine.submit(Request([3], 30, Sampling(**fields), stops=stops), lambda _, piece: pieces.append(piece))
    finished(engine, [answer])
    return answer, pieces


def test_pieces_add_up_to_the_text_and_to_the_tokens() -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("llama", vocab=tokenizer.vocab, bos=tokenizer.bos, eos=None, pad=tokenizer.pad)
    model.tokenizer = tokenizer
    answer, pieces = spoken(model, seed=2)
    assert "".join(piece.text for piece in pieces) == answer.text == tokenizer.decode(answer.new)
    assert [chosen.token for piece in pieces for chosen in piece.chosen] == answer.new
    assert [piece.finish for piece in pieces if piece.finish] == ["length"]
    half = answer.text[len(answer.text) // 2 :][:3]
    stopped, pieces = spoken(model, (half,), seed=2)
    assert stopped.text == answer.text[: answer.text.index(half)]
    assert "".join(piece.text for piece in pieces) == stopped.text
    assert (stopped.finish, pieces[-1].finish) == ("stop", "stop")


def test_streamed_text_never_ends_inside_a_character_or_a_stop_string() -> None:
    tokenizer = train_tokenizer("bytes", [])
    text = "naïve 😀 co-operation, stop here and no further"
    stream, shown = TextStream(tokenizer, ("stop now", " her")), []
    for token in tokenizer.encode(text):
        shown.append(stream.push(token))
        assert "\ufffd" not in shown[-1]
        claimed = max(begun(stream.shown + stream.held, stop) for stop in stream.stops)
        if stream.stopped:
            break
        assert len(stream.held) == claimed
    assert "".join(shown) + stream.close() == "naïve 😀 co-operation, stop"
    assert stream.stopped


def test_text_that_was_held_back_comes_at_the_end() -> None:
    tokenizer = train_tokenizer("bytes", [])
    stream = TextStream(tokenizer, ("never",))
    shown = "".join(stream.push(token) for token in tokenizer.encode("an end that is ne"))
    assert (shown, stream.close()) == ("an end that is ", "ne")
    cut = TextStream(tokenizer)
    for token in tokenizer.encode("é")[:1]:
        assert cut.push(token) == ""
    assert cut.close() == "\ufffd"


@pytest.mark.parametrize("family", FAMILIES)
def test_caches_join_part_and_grow(family: str) -> None:
    model = tiny_model(family)
    text = torch.tensor([[5, 7, 9, 11, 13, 6, 8], [4, 6, 8, 10, 12, 5, 3], [9, 9, 3, 4, 5, 6, 7]])
    wanted = model(text)
    cache = model.make_cache(1, 4)
    cache.select(torch.zeros(0, dtype=torch.int64))
    for row, read in enumerate((4, 2, 3)):
        one = model.make_cache(1, read)
        model.hidden(text[row : row + 1, :read], one)
        cache.join(one)
    cache.reserve(8)
    assert cache.lengths.tolist() == [4, 2, 3]
    rest = torch.zeros(3, 5, dtype=torch.int64)
    marks = torch.zeros(3, 5, dtype=torch.int64)
    for row, read in enumerate((4, 2, 3)):
        rest[row, : 7 - read], marks[row, : 7 - read] = text[row, read:], 1
    found = model(rest, cache, marks)
    for row, read in enumerate((4, 2, 3)):
        assert torch.allclose(found[row, : 7 - read], wanted[row, read:], atol=1e-5)
    alone = cache.copy(1)
    alone.rewind(torch.tensor([3]))
    cache.rewind(torch.tensor([1, 1, 1]))
    alone.reserve(9)
    assert torch.allclose(model(text[1:2, 3:], alone), wanted[1:2, 3:], atol=1e-5)


def test_a_recurrent_model_reads_a_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = tiny_model("rnn"), []
    run = type(model).run
    monkeypatch.setattr(model, "run", lambda tokens, *rest: read.append(tokens.shape[1]) or run(model, tokens, *rest))
    engine = Engine(model)
    answer = engine.submit(Request([3, 4, 5, 6, 7], 4, Sampling(temperature=0.0, logit_bias={EOS: -30.0})))
    assert len(finished(engine, [answer])[0]) == 4
    assert sum(read) == 5 + 3


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_cache_that_refuses_tokens_is_as_it_was(family: str) -> None:
    model, text = tiny_model(family), torch.tensor([[5, 7, 9, 11, 13, 6]])
    cache = model.make_cache(1, 4)
    model.hidden(text[:, :3], cache)
    with pytest.raises(UserError, match="the cache holds 4 tokens"):
        model.hidden(text[:, 3:], cache)
    assert cache.lengths.tolist() == [3]
    cache.reserve(6)
    assert torch.allclose(model(text[:, 3:], cache), model(text)[:, 3:], atol=1e-5)


@pytest.fixture
def speaking() -> LanguageModel:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("llama", vocab=tokenizer.vocab, bos=tokenizer.bos, eos=None, pad=tokenizer.pad)
    model.tokenizer = tokenizer
    return model


def answers_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_prompt_in_a_file_ends_where_its_line_does(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("one\f and\u2028 so on\r\n\ntwo".encode())
    wanted = prompt_file.wanted(Generate("m", file=str(tmp_path / "in.txt"), out="o"))
    assert [line.prompt for line in wanted] == ["one\f and\u2028 so on", "two"]


@pytest.mark.parametrize(
    ("given", "named"), [({"temperature": 0.7}, "temperature"), ({"seed": 3}, "seed"), ({"top_k": 5}, "top-k")]
)
def test_what_draws_is_refused_beside_beams_that_are_not_drawn(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"--{named} is about drawing.*--beam-sampling"):
        Generate("m", beams=4, **given)
    assert Generate("m", beams=4, beam_sampling=True, **given).beams == 4
    assert Generate("m", beams=4, temperature=0.0, repetition_penalty=1.2).beams == 4


def test_a_file_of_prompts_is_answered_in_order_as_each_would_be_alone(speaking: LanguageModel, tmp_path: Path) -> None:
    prompts = ["One", "Another one", "x" * 60, "Three"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    out = tmp_path / "new" / "out.jsonl"
    settings = Generate("", file=str(tmp_path / "in.jsonl"), out=str(out), tokens=9, samples=2, rows=3)
    assert answer_file(speaking, settings) == (8, 2)
    lines = answers_in(out)
    assert [(line["number"], line["sample"]) for line in lines] == [(i, s) for i in range(4) for s in range(2)]
    for line in lines:
        if line["number"] == 2:
            assert "60 tokens and the context 48" in line["error"]
        else:
            alone = stream_tokens(speaking, prompt_ids(speaking, line["prompt"]), 9, line["sample"])
            assert line["text"] == speaking.tokenizer.decode(list(alone))
            assert (line["tokens"], line["finish"]) == (9, "length")
    assert lines[0]["text"] != lines[1]["text"]


def test_a_stopped_file_of_answers_is_carried_on_and_others_are_left_alone(
    speaking: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("One\n\nTwo\nThree\nFour\n")
    out = tmp_path / "out.jsonl"
    settings = Generate("", file=str(tmp_path / "in.txt"), out=str(out), tokens=5)
    answer_file(speaking, settings)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    torn = (lines[0][:40], b"".join(lines[:2]) + lines[2][:20], b"".join(lines[:3])[:-1], whole[:-1])
    for kept in (b"", b"".join(lines[:2]), whole, *torn):
        out.write_bytes(kept)
        answer_file(speaking, settings)
        assert out.read_bytes() == whole
    for other in (b"My thesis\n", b"My thesis", b'{"a": 1}\n', lines[1]):
        out.write_bytes(other)
        with pytest.raises(UserError, match="something else"):
            answer_file(speaking, settings)
        assert out.read_bytes() == other
    out.write_bytes(whole)
    with pytest.raises(UserError, match="other settings"):
        answer_file(speaking, dataclasses.replace(settings, temperature=0.5))


def test_no_more_prompts_are_under_way_than_twice_the_rows(speaking: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"Prompt {n}\n" for n in range(12)))
    waiting: list[int] = []

    class Watched(Engine):
        def step(self) -> None:
            waiting.append(len(self.waiting) + len(self.active))
            super().step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_file, "Engine", Watched)
        settings = Generate("", file=str(tmp_path / "in.txt"), out=str(tmp_path / "out.jsonl"), tokens=5, rows=2)
        answer_file(speaking, settings)
    assert max(waiting) == 4


def test_a_file_of_answers_that_another_process_writes_is_left_alone(speaking: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("One\nTwo\n")
    settings = Generate("", file=str(tmp_path / "in.txt"), out=str(tmp_path / "out.jsonl"), tokens=5)
    other = Log(tmp_path, "out.jsonl")
    hold(other)
    with pytest.raises(UserError, match="in use by another process"):
        answer_file(speaking, settings)
    other.close()
    assert answer_file(speaking, settings) == (2, 0)


def test_mistakes_in_files_are_found_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("One\n")
    (tmp_path / "out.jsonl").write_text("My thesis\n")
    for file, told in (("none.txt", "none.txt"), ("in.txt", "something else")):
        with pytest.raises(UserError, match=told):
            generate(Generate("no/model", file=str(tmp_path / file), out=str(tmp_path / "out.jsonl")))
    with pytest.raises(UserError, match="not both"):
        Generate("x", prompt="The ", file="in.txt", out="out.jsonl")
    with pytest.raises(UserError, match="1,000 at most"):
        Generate("x", beams=100_000)


def test_bytes_that_are_no_text_are_refused_in_a_line(speaking: LanguageModel) -> None:
    with pytest.raises(UserError, match="not UTF-8"):
        prompt_ids(speaking, "x\udcff")


def passes(prompts: Sequence[Sequence[int]], chunk: int = 64) -> tuple[list[tuple[int, ...]], list[Answer]]:
    """The (rows, tokens) of the passes that an engine makes for three tokens of each, and its answers."""
    model = tiny_model("llama")
    engine, hidden = Engine(model, chunk=chunk), model.hidden
    seen: list[tuple[int, ...]] = []

    def noting(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(tuple(tokens.shape))
        return hidden(tokens, *rest)

    model.hidden = noting  # type: ignore[method-assign]
    sampling = Sampling(temperature=0, logit_bias={EOS: -30.0})
    answers = [engine.submit(Request(list(prompt), 3, sampling)) for prompt in prompts]
    assert all(len(new) == 3 for new in finished(engine, answers))
    return seen, answers


def test_short_prompts_are_read_in_one_pass() -> None:
    prompts = [[3, 4, 5], [6], [7, 8, 9, 10]]
    assert passes(prompts)[0] == [(3, 4), (3, 1), (3, 1)]
    assert passes(prompts, chunk=8)[0][:3] == [(2, 3), (2, 1), (1, 4)]


def test_a_prompt_that_begins_as_another_one_waits_until_that_is_read() -> None:
    long = list(range(3, 27))
    seen, answers = passes([long, [*long, 30]])
    assert seen[0] == (1, 24)
    assert answers[1].reused == 24

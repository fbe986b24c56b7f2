"""The remarks: computed from the figures, silent where the figures are, and never surer than they are."""

from __future__ import annotations

import dataclasses

import numpy as np

from hornbook.report.remarks import remarks
from hornbook.report.rung import Rung
from hornbook.report.surprise import longer_command
from ladder_figures import BYTES, DOCUMENTS, FACTS, counted, encoder, neural, whole_ladder


def text(rungs: list[Rung], facts=FACTS) -> str:
    return "\n".join(sentence for r in remarks(rungs, facts) for sentence in (r.says, *r.because))


def measured(rung: Rung, **changes) -> Rung:
    return dataclasses.replace(rung, summary=rung.summary | {"validation": rung.validation | changes})


def test_a_lead_that_the_documents_bear_out_is_called_a_lead():
    told = text([neural("llama-tiny", 1.9), neural("gpt2-tiny", 2.0)])
    assert "llama-tiny is best: it leads gpt2-tiny by 0.100 bits per byte" in told
    assert "which excludes 0" in told


def test_a_tie_is_called_a_tie():
    told = text([neural("llama-tiny", 2.000, noise=0.2), neural("gpt2-tiny", 2.004, noise=0.2)])
    assert "llama-tiny and gpt2-tiny are tied at the top: they are 0.004 bits per byte apart" in told
    assert "includes 0" in told
    assert "is best" not in told


def test_all_that_tie_with_the_best_are_named():
    rungs = [neural(name, 2.0 + i / 1000, noise=0.2) for i, name in enumerate(("llama-tiny", "gpt2-tiny", "opt-tiny"))]
    assert "The same holds for opt-tiny." in text(rungs)


def test_rungs_measured_on_other_documents_are_not_compared():
    other = measured(neural("gpt2-tiny", 2.0), document_bytes=[1] * DOCUMENTS)
    told = text([neural("llama-tiny", 1.9), other, counted("bigram", 2.4)])
    assert "whether that is more than luck cannot be said" in told


def test_the_bigram_is_not_spoken_of_beside_a_rung_that_cannot_be_compared():
    other = measured(neural("gpt2-tiny", 2.0), document_bytes=[1] * DOCUMENTS)
    told = text([neural("llama-tiny", 1.9), other, counted("bigram", 2.4)])
    assert "llama-tiny beats the bigram." in told
    assert "Every" not in told


def test_one_document_is_not_enough_to_tell_luck_from_skill():
    one = {"document_bytes": [int(BYTES.sum())], "document_nats": [1000.0]}
    assert "cannot be said" in text(
        [measured(neural("llama-tiny", 1.9), **one), measured(neural("gpt2-tiny", 2), **one)]
    )


def test_attention_is_said_to_help_only_where_it_does():
    rnn = neural("rnn", 2.0, 14000)
    assert "Attention helped the RNN: rnn-attention needs 0.050 bits per byte fewer" in text(
        [rnn, neural("rnn-attention", 1.95)]
    )
    assert "Attention did not help the RNN here, it cost it" in text([rnn, neural("rnn-attention", 2.05, 9000)])
    noisy = [neural("rnn", 2.0, noise=0.3), neural("rnn-attention", 2.001, noise=0.3)]
    assert "cannot be told from this run" in text(noisy)
    assert "the RNN" not in text([neural("rnn-attention", 1.95), neural("llama-tiny", 1.9)])


def test_attention_is_compared_with_the_rnn_of_its_size():
    rungs = [neural("rnn", 1.9), neural("rnn-tiny", 2.1), neural("rnn-attention-tiny", 2.0)]
    assert "rnn-attention-tiny needs 0.100 bits per byte fewer than rnn-tiny" in text(rungs)


def test_the_bigram_is_said_to_be_beaten_by_all_only_where_it_is():
    bigram = counted("bigram", 2.1)
    assert "Every neural rung beats the bigram" in text([bigram, neural("rnn", 1.9), neural("opt-tiny", 2.0)])
    told = text([bigram, neural("rnn", 1.9), neural("opt-tiny", 2.3)])
    assert "rnn beats the bigram; the bigram beats opt-tiny." in told
    assert "The bigram beats rnn and opt-tiny." in text([bigram, neural("rnn", 2.2), neural("opt-tiny", 2.3)])
    assert "rnn cannot be told from the bigram." in text([bigram, neural("rnn", 2.101, noise=0.3)])
    assert "bigram" not in text([neural("rnn", 1.9), neural("opt-tiny", 2.3)])


def test_a_recurrent_rung_ahead_of_the_transformers_is_explained_by_the_figures():
    told = text(whole_ladder())
    assert "rnn, which is recurrent, beats every Transformer rung here: llama-tiny needs 0.070 more" in told
    assert (
        "llama-tiny saw 403 k tokens, 0.630 times the training text, rnn 672 k (8,400 a second against 14.0 k)" in told
    )
    assert "llama-tiny was still falling at its end" in told
    assert "5gram, which is only counted, beats every Transformer rung" in told


def test_tokens_are_not_blamed_where_the_transformer_saw_as_many():
    told = text([neural("rnn", 1.9, 9000), neural("llama-tiny", 2.0, 9000)])
    assert "It is not for want of tokens" in told
    assert "One budget" not in told


def test_a_curve_that_has_levelled_off_is_said_to_have():
    told = text([neural("rnn", 1.9), neural("llama-tiny", 2.0, tail=0.0)])
    assert "llama-tiny had levelled off" in told


def test_a_change_of_order_is_a_hypothesis_with_the_command_that_tests_it():
    told = text(whole_ladder())
    assert (
        "is a hypothesis, not a result of this run; to test it: hornbook ladder python-docs --minutes 10 --out" in told
    )


def test_nothing_is_explained_where_the_transformers_lead():
    told = text([neural("llama-tiny", 1.8), neural("rnn", 1.9), counted("5gram", 2.0), counted("bigram", 2.4)])
    assert "hypothesis" not in told
    assert "Transformer" not in told


def test_a_lead_within_the_noise_is_no_surprise():
    told = text([neural("rnn", 2.0, noise=0.3), neural("llama-tiny", 2.002, noise=0.3)])
    assert "hypothesis" not in told


def test_the_longer_command_keeps_every_other_option():
    facts = {"command": "hornbook ladder 'my text.txt' --minutes=2 --vocab 8192 --out 'runs/a b'", "minutes": 2}
    wanted = "hornbook ladder 'my text.txt' --vocab 8192 --minutes 20 --out runs/ladder-20-minutes"
    assert longer_command(facts) == wanted
    assert longer_command({"command": "hornbook ladder"}) == ""


def test_nothing_is_remarked_about_one_rung_or_about_the_encoder():
    assert remarks([counted("bigram", 2.4)], FACTS) == []
    assert remarks([encoder()], FACTS) == []


def test_the_fixture_adds_up():
    """The builder's documents must come to the bits per byte that it states, or these tests test nothing."""
    rung = neural("rnn", 2.0)
    nats = np.sum(rung.validation["document_nats"])
    assert abs(nats / BYTES.sum() / np.log(2) - 2.0) < 1e-9

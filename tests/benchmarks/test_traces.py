"""The benchmarks of traces: what they compare, how they add it up, and what they measure a run by."""

import dspy
import pytest

from benchmarks import ablation, sentiment, tau
from benchmarks.ablation import draw
from benchmarks.ablation import summarize as steps_summary
from benchmarks.rating import Graded, gain_line, labels
from benchmarks.tasks import Domain
from benchmarks.traces_gain import METHODS, Cell, bars, run_cell, settings, summarize
from dspy_diffusion_infill import CompactAdapter, Trace
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.training.schemes import Scheme
from tests.doubles import ScriptedInfiller, rule_lm, show


def reviewed(count=8):
    return [dspy.Example(review=f"r{n}", rating=f"y{n}").with_inputs("review") for n in range(count)]


def test_the_control_gets_the_same_scores_and_each_others_feedback():
    shots = reviewed()
    true, false = (labels(shots, shuffled=flag, seed=0) for flag in (False, True))
    assert true == {f"r{n}": f"y{n}" for n in range(8)}
    assert sorted(false.values()) == sorted(true.values())
    assert false != true
    right = dspy.Prediction(rating="y1 ")
    said = [Metric(Graded(one))(shots[1], right, where="") for one in (true, false, None)]
    assert [one.score for one in said] == [1.0, 1.0, 1.0]
    assert [one.feedback for one in said] == ["It should be y1.", f"It should be {false['r1']}.", None]


def test_the_four_methods_differ_in_what_canvases_show_alone():
    found = settings(reviewed(), seed=0)
    assert {name: (one.condition_on, one.said is not None) for name, one in found.items()} == {
        "examples": ("examples", False),
        "scores": ("traces", False),
        "feedback": ("traces", True),
        "shuffled": ("traces", True),
    }
    assert len({one.masking for one in found.values()}) == 1


def cell(domain, scheme, vague, feedback, shuffled):
    scores = {"vague": vague, "examples": 0.5, "scores": 0.1, "feedback": feedback, "shuffled": shuffled}
    return Cell(domain, scheme, 0, scores, {}, {}, 1.0)


def test_gains_are_means_over_cells_with_an_interval():
    cells = [
        cell("written", "5..1", 0.0, 0.25, 0.0),
        cell("written", "a..e", 0.5, 0.75, 0.75),
        cell("sst", "a..e", 0, 1, 0),
    ]
    rows = {(row["domain"], row["method"]): row for row in summarize(cells)}
    found = rows["written", "feedback"]
    assert (found["gain"], found["low"], found["high"], found["score"], found["cells"]) == (
        0.25,
        0.25,
        0.25,
        0.5,
        2,
    )
    control = rows["written", "feedback over shuffled"]
    assert (control["gain"], control["low"], control["high"]) == (0.125, 0.0, 0.25)
    assert bars(summarize(cells)) == {
        "feedback_gain": 0.25,
        "shuffled_gain": 0.125,
        "feedback_gain_sst": 1.0,
        "shuffled_gain_sst": 0.0,
    }
    assert gain_line(found) == f"{'written feedback':<28}   0.500   +0.250  [+0.250, +0.250]"


SCHEME = Scheme(("1", "2", "3"))
REVIEWS = [(f"Sentence {n}.", n % 5) for n in range(30)]


def fond(system, user):
    """Rates as best whatever it is shown, if it is told to be warm."""
    return "3" if "warm" in system else "no"


def test_a_cell_compiles_by_every_method_within_the_same_calls_and_scores_on_other_sentences():
    infiller = ScriptedInfiller("Be warm")
    with dspy.context(lm=rule_lm(fond), adapter=CompactAdapter()):
        found = run_cell(Domain("written", REVIEWS), SCHEME, 0, infiller, calls=40)
    assert found.instructions == {"vague": "Rate the text."} | dict.fromkeys(METHODS, "Be warm")
    assert all(0 < found.metric_calls[method] <= 40 for method in METHODS)
    assert found.scores["vague"] == 0
    assert len({found.scores[method] for method in METHODS}) == 1
    assert 0 < found.scores["feedback"] < 1
    said = ["".join(show(turn) for turn in canvas.context) for canvas in infiller.canvases]
    assert "The answer" not in said[0]
    assert any("The answer was wrong.\nChange" in text for text in said)
    assert any("The answer was wrong: It should be 3.\nChange" in text for text in said)


def test_each_number_of_steps_gets_a_row():
    infillers = {1: ScriptedInfiller("Be warm"), 16: ScriptedInfiller("Be cold")}
    with dspy.context(lm=rule_lm(fond), adapter=CompactAdapter()):
        rows = ablation.run_cell(REVIEWS, SCHEME, 0, infillers.__getitem__, [1, 16], "traces", 40)
    assert [(row["steps"], row["vague"]) for row in rows] == [(1, 0.0), (16, 0.0)]
    assert rows[0]["instructions"] == "Be warm"
    assert rows[0]["score"] > rows[1]["score"] == 0


def test_the_figure_of_steps_is_the_same_each_time_it_is_drawn(tmp_path):
    rows = [
        {"scheme": scheme, "steps": steps, "vague": 0.0, "score": score}
        for scheme, steps, score in (("a", 1, 0.1), ("a", 4, 0.3), ("b", 1, 0.3), ("b", 4, 0.5))
    ]
    summary = steps_summary(rows, [1, 4])
    assert [(row["steps"], round(row["gain"], 9)) for row in summary] == [(1, 0.2), (4, 0.4)]
    for name in ("a.svg", "b.svg"):
        draw(summary, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "denoising steps a window" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(("label", "score"), [(" Positive.", 1.0), ("negative", 0.0), ("very positive", 0.0)])
def test_a_label_is_right_in_any_case_and_the_feedback_names_the_wanted_one(label, score):
    example = dspy.Example(sentence="x", label="positive")
    found = Metric(sentiment.labelled)(example, dspy.Prediction(label=label), where="")
    assert (found.score, found.feedback) == (score, "The label is positive.")


def test_accuracy_is_of_the_sentences_that_ran():
    shown = [dspy.Example(sentence=str(n), label="positive").with_inputs("sentence") for n in range(4)]
    answers = {"0": "positive", "1": "negative", "2": "Positive.", "3": ""}
    lm = rule_lm(lambda system, user: answers[user])
    with dspy.context(lm=lm, adapter=CompactAdapter()):
        found = sentiment.measure(dspy.Predict("sentence -> label"), shown, "test", 1, None)
    assert found == {"n": 4, "unscored": 1, "accuracy": pytest.approx(2 / 3)}


def test_real_sentences_have_the_names_of_their_labels(shared_data):
    found = sentiment.examples(shared_data, "sst5", "dev")
    assert len(found) == 1101
    assert {example.label for example in found} >= {"very negative", "neutral"}


def test_each_dialogue_is_infilled_or_its_refusal_explained():
    traces = [Trace({"conversation": "user: " + "x " * size}, {"reply": "Done."}, 1.0) for size in (2, 900)]
    program = tau.agent(None, policy=False)
    with dspy.context(adapter=CompactAdapter()):
        rows = tau.condition(program, traces, ScriptedInfiller("warm", context_length=100))
        assert [(row["cut"], row["filling"]) for row in rows] == [(False, "warm"), (True, "warm")]
        assert rows[1]["tokens"] <= 100
        (none,) = tau.condition(program, traces[1:], ScriptedInfiller("warm", context_length=20))
        (short,) = tau.condition(program, traces[:1], ScriptedInfiller("warm", context_length=5))
    assert none == {"refused": "Not even its ends fit beside the prompt."}
    assert "at most 5 tokens" in short["refused"]


def test_dialogues_of_one_domain_are_told_apart(shared_data):
    counts = {domain: len(tau.dialogues(shared_data, domain)[0]) for domain in ("airline", "retail", None)}
    assert counts == {"airline": 219, "retail": 69, None: 288}

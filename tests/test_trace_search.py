"""Conditioning on traces in `compile` and in GEPA, and windows in the order of how unsure the model is."""

import dspy
import pytest

from dspy_diffusion_infill import (
    Budget,
    CompactAdapter,
    Denoising,
    DiffusionInfill,
    Guard,
    Selection,
    SlidingWindow,
    Trace,
    infill_proposer,
)
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.trace_formats import from_dspy, from_history
from dspy_diffusion_infill.traces import Log, hide_secrets
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm, show, system_text

CHANGE = "\nChange the instructions so that it comes out right."
KEEP = "\nKeep what the instructions say about this."


@pytest.fixture(autouse=True)
def lm():
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


def telling(example, prediction, trace=None, pred_name=None, pred_trace=None):
    """A metric of GEPA's shape that says what was wanted."""
    right = example.rating == prediction.rating
    return dspy.Prediction(score=float(right), feedback=f"It is {example.rating}.")


def run(infiller, metric=telling, text="Rate the text.", trainset=None, compiled=None, **settings):
    defaults = {
        "denoising": Denoising(num_candidates=1),
        "selection": Selection(shots=16),
        "budget": Budget(metric_calls=100),
        "condition_on": "traces",
    }
    student = dspy.Predict(dspy.Signature("review -> rating", text)) if isinstance(text, str) else text
    optimizer = DiffusionInfill(metric, infiller=infiller, **(defaults | settings))
    return optimizer.compile(student, trainset=trainset or reviews(), **(compiled or {}))


def turns(canvas):
    """The turns beside a prompt, in threes."""
    shown = [show(turn) for turn in canvas.context]
    return {tuple(shown[n : n + 3]) for n in range(0, len(shown), 3)}


def test_the_metrics_feedback_conditions_with_no_log_at_all():
    infiller = ScriptedInfiller("Be warm")
    tuned = run(infiller)
    assert instructions_of(tuned) == {"self": "Be warm"}
    wrong = {(str(n), "no", f"The answer was wrong: It is y{n}.{CHANGE}") for n in range(16)}
    assert turns(infiller.canvases[0]) == wrong


def test_after_an_accepted_window_the_traces_are_those_of_the_new_instructions():
    infiller = ScriptedInfiller("Be warm")
    run(infiller)
    right = {(str(n), f"y{n}", f"The answer was right: It is y{n}.{KEEP}") for n in range(5)}
    wrong = {(str(n), "no", f"The answer was wrong: It is y{n}.{CHANGE}") for n in range(5, 16)}
    assert turns(infiller.canvases[1]) == right | wrong
    first_four = [show(turn)[:20] for turn in infiller.canvases[1].context[2:12:3]]
    assert first_four == ["The answer was wrong", "The answer was right"] * 2


def test_a_metric_without_feedback_conditions_by_its_scores():
    infiller = ScriptedInfiller("Be warm")
    run(infiller, metric=exact)
    assert turns(infiller.canvases[0]) == {
        (str(n), "no", f"The answer was wrong.{CHANGE}") for n in range(16)
    }


def test_what_a_set_metric_makes_of_a_value_is_unknown_and_no_verdict_is_shown():
    infiller = ScriptedInfiller("Be warm")
    selection = Selection(shots=2, set_metric=lambda examples, scores: sum(scores))
    run(infiller, selection=selection)
    assert all(feedback.startswith("It is y") for _, _, feedback in turns(infiller.canvases[0]))


def test_examples_that_only_select_are_never_shown_and_the_runs_that_are_count_as_spent():
    infiller = ScriptedInfiller("Be warm")
    valset = [dspy.Example(review=f"1{n}", rating=f"y1{n}").with_inputs("review") for n in range(4)]
    settings = {"selection": Selection(shots=2), "masking": SlidingWindow(passes=1)}
    tuned = run(infiller, trainset=reviews(9), compiled={"valset": valset}, **settings)
    assert {review for review, _, _ in turns(infiller.canvases[0])} <= {"0", "1", "2", "3"}
    assert infiller.canvases[0].context
    # the start on the valset, then on twice as many of the trainset as are shown; the one candidate
    assert tuned.detailed_results["metric_calls"] == 4 + 4 + 4


def test_a_log_is_shown_beside_the_fresh_traces():
    infiller = ScriptedInfiller("Be warm")
    logged = [Trace({"review": "40"}, {"rating": "eh"}, feedback="Rude."), Trace({"x": "a"}, {"y": "b"}, 1)]
    run(infiller, compiled={"traces": logged}, selection=Selection(shots=18))
    found = turns(infiller.canvases[0])
    assert {("40", "eh", "Rude."), ("a", "b", f"The answer was right.{KEEP}")} < found
    assert len(found) == 18


def test_both_shows_labelled_examples_as_well():
    infiller = ScriptedInfiller("Be warm")
    run(infiller, condition_on="both", selection=Selection(shots=4))
    answers = [show(turn) for turn in infiller.canvases[0].context if turn.role == "assistant"]
    assert [answer[0] for answer in answers] == ["n", "y", "n", "y"]


def test_examples_alone_are_the_default_and_show_no_trace():
    infiller = ScriptedInfiller("Be warm")
    run(infiller, condition_on="examples")
    assert len(infiller.canvases[0].context) == 2 * 16
    assert {show(turn)[0] for turn in infiller.canvases[0].context[1::2]} == {"y"}


@pytest.mark.skipif(
    [int(part) for part in dspy.__version__.split(".")[:2]] < [3, 4],
    reason="this DSPy takes an empty completion for an answer",
)
def test_an_answer_that_cannot_be_read_is_a_trace_that_asks_for_one():
    infiller = ScriptedInfiller("Be warm")
    mute = rule_lm(lambda system, user: "" if user == "3" else obey(system, user))
    with dspy.context(lm=mute):
        run(infiller)
    shown = [show(turn) for turn in infiller.canvases[0].context]
    (said,) = [text for text in shown if text.startswith("There was no answer that could be read.")]
    assert "AdapterParseError" in said
    assert "3" not in shown


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.note = dspy.Predict(dspy.Signature("review -> note", "Note it."))
        self.rate = dspy.Predict(dspy.Signature("note -> rating", "Rate it."))

    def forward(self, review):
        return self.rate(note=self.note(review=review).note)


def test_each_predictor_of_a_pipeline_is_shown_its_own_calls():
    infiller = ScriptedInfiller("Be warm")
    noting = rule_lm(lambda system, user: "no" if user.startswith("n") else f"n{user}")
    with dspy.context(lm=noting):
        run(infiller, text=Pipeline(), selection=Selection(shots=3))
    notes, rates = map(turns, infiller.canvases[:2])
    assert all(answer == f"n{review}" for review, answer, _ in notes)
    assert all((note[0], answer) == ("n", "no") for note, answer, _ in rates)
    assert all(said.startswith("The answer was wrong: It is y") for _, _, said in notes | rates)


def test_a_programs_own_trace_and_its_history_are_read():
    lm = rule_lm(lambda system, user: "no" if user.startswith("n") else f"n{user}")
    program = Pipeline()
    with dspy.context(lm=lm, trace=[]):
        program(review="3")
        traces = from_dspy(dspy.settings.trace, program, score=0, feedback="It is y3.")
    note = Trace({"review": "3"}, {"note": "n3"}, 0.0, "It is y3.", "note")
    assert traces == [note, Trace({"note": "n3"}, {"rating": "no"}, 0.0, "It is y3.", "rate")]
    assert from_history(lm.history) == Log(
        [Trace({"prompt": "3"}, {"response": "n3"}), Trace({"prompt": "n3"}, {"response": "no"})], []
    )
    infiller = ScriptedInfiller("Be warm")
    with dspy.context(lm=lm):
        run(infiller, text=Pipeline(), compiled={"traces": traces}, selection=Selection(shots=17))
    assert ("3", "n3", f"The answer was wrong: It is y3.{CHANGE}") in turns(infiller.canvases[0])


def test_words_of_a_trace_are_not_let_in():
    logged = [Trace({"review": "the plot was thin"}, {"rating": "no"})]
    copying = ScriptedInfiller("warm the plot was thin")
    tuned = run(copying, compiled={"traces": logged}, guard=Guard(copied_words=4))
    assert instructions_of(tuned) == {"self": "Rate the text."}
    fresh = ScriptedInfiller("warm it is always y7")
    told = rule_lm(lambda system, user: "so it is always y7" if user == "7" else obey(system, user))
    with dspy.context(lm=told):
        assert instructions_of(run(fresh, guard=Guard(copied_words=4))) == {"self": "Rate the text."}


def test_the_users_hook_hides_secrets_from_the_infiller():
    infiller = ScriptedInfiller("Be warm")
    logged = [Trace({"review": "password=hunter22"}, {"rating": "no"}, feedback="token: abcd1234")]
    run(infiller, compiled={"traces": logged}, selection=Selection(shots=17), redact=hide_secrets)
    assert ("password[hidden]", "no", "token[hidden]") in turns(infiller.canvases[0])


@pytest.mark.parametrize(
    ("settings", "traces", "message"),
    [
        ({"condition_on": "logs"}, None, "condition_on must be 'examples', 'traces' or 'both'; got 'logs'"),
        ({"redact": "secrets"}, None, "redact must be a function of a text, or None; got 'secrets'"),
        ({"condition_on": "examples"}, [Trace({"x": 1}, {"y": 2})], "traces must be left out"),
        ({}, [{"inputs": "x"}], "traces must hold Trace objects"),
        ({}, Log([], []), "traces must be a list of Trace objects .* got a Log"),
        ({}, [Trace({"x": 1}, {"y": 2}, predictor="ask")], r"predictors, \['self'\].*trace 0 is of 'ask'"),
        ({"masking": SlidingWindow(order="least_sure")}, None, "with scripted:1, which is no Scorer"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_spent(settings, traces, message, lm):
    with pytest.raises(SettingsError, match=message):
        run(ScriptedInfiller("x"), compiled={"traces": traces}, **settings)
    assert lm.engine.num_calls == 0


def test_a_run_goes_on_with_its_traces_and_with_no_others(tmp_path, lm):
    logged = [Trace({"review": "40"}, {"rating": "eh"}, 0, "Rude.")]

    def again(traces=logged, **settings):
        infiller = ScriptedInfiller("Be warm", "Judge")
        return infiller, run(infiller, log_dir=tmp_path, compiled={"traces": traces}, **settings)

    (first, before), calls = again(), lm.engine.num_calls
    second, after = again()
    assert lm.engine.num_calls == calls > 0
    assert second.canvases == first.canvases
    assert instructions_of(after) == instructions_of(before)
    others = [Trace({"review": "40"}, {"rating": "eh"}, 0, "Polite.")]
    with pytest.raises(SettingsError, match="of a run with another traces"):
        again(others)
    with pytest.raises(SettingsError, match=r"of a run with another condition_on\."):
        again(condition_on="both")


class Doubting(ScriptedInfiller):
    """Finds each text as unlikely as its words' places in a list say."""

    def __init__(self, *script, doubts):
        super().__init__(*script)
        self.doubts, self.asked = doubts, []

    def nll_per_token(self, canvases, texts):
        self.asked.append(
            [(system_text(canvas), *text) for canvas, text in zip(canvases, texts, strict=True)]
        )
        return [sum(self.doubts.get(word, 0.0) for word in text.split()) for (text,) in texts]


LEAST_SURE = SlidingWindow(window=1, stride=1, mask=1, order="least_sure", passes=1)


def test_the_windows_that_the_model_is_least_sure_of_come_first():
    infiller = Doubting("x", doubts={"b": 1.0, "c": 2.0})
    run(infiller, text="a b c d", masking=LEAST_SURE, metric=exact)
    assert infiller.asked == [[("_ b c d", "a"), ("a _ c d", "b"), ("a b _ d", "c"), ("a b c _", "d")]]
    assert [system_text(canvas) for canvas in infiller.canvases] == [
        "a b _ d",
        "a _ c d",
        "_ b c d",
        "a b c _",
    ]


def test_windows_are_ranked_in_sight_of_the_traces_that_the_next_filling_is_shown():
    infiller = Doubting("x", doubts={})
    seen = []
    infiller.nll_per_token = lambda canvases, texts: (seen.extend(canvases), [0.0] * len(texts))[1]
    run(infiller, text="a b", masking=LEAST_SURE)
    assert seen[0] == infiller.canvases[0]


def test_after_an_accepted_window_all_are_ranked_anew_and_a_pass_ends_after_as_many_as_there_were():
    infiller = Doubting("warm", "five", doubts={"b": 1.0})
    denoising = Denoising(num_candidates=2)
    tuned = run(infiller, text="a b c", masking=LEAST_SURE, denoising=denoising, budget="heavy", metric=exact)
    assert sorted(instructions_of(tuned)["self"].split()) == ["c", "five", "warm"]
    assert len(infiller.canvases) == 3
    assert len(infiller.asked) == 3
    assert tuned.detailed_results["stop_reason"] == "passes: 1"


def test_one_window_needs_no_ranking():
    infiller = Doubting("x", doubts={})
    run(infiller, text="a", masking=LEAST_SURE, metric=exact)
    assert (infiller.asked, len(infiller.canvases)) == ([], 1)


def propose(proposer, text, *records):
    found = proposer(
        candidate={"self": text}, reflective_dataset={"self": records}, components_to_update=["self"]
    )
    return found["self"]


def test_gepas_proposer_shows_the_same_hides_the_same_and_ranks_the_same():
    infiller = Doubting("x", doubts={"c": 1.0})
    program = dspy.Predict(dspy.Signature("review -> rating", "a b c"))
    settings = {"masking": LEAST_SURE, "denoising": Denoising(num_candidates=1), "redact": hide_secrets}
    proposer = infill_proposer(program, infiller, **settings)
    record = {
        "Inputs": {"review": "3"},
        "Generated Outputs": {"rating": "no"},
        "Feedback": "secret: abcd1234",
    }
    silent = {"Inputs": {"review": "3"}, "Generated Outputs": "?", "Feedback": ""}
    assert propose(proposer, "a b c", record, silent) == "a b x"
    assert [show(turn) for turn in infiller.canvases[0].context] == ["3", "no", "secret[hidden]"]
    with pytest.raises(SettingsError, match="order must be 'successive' or 'independent' with scripted:1"):
        infill_proposer(program, ScriptedInfiller("x"), masking=LEAST_SURE)


def test_a_long_run_of_gepa_is_shown_with_its_middle_left_out():
    infiller = ScriptedInfiller("x", context_length=100)
    program = dspy.Predict(dspy.Signature("review -> rating", "a"))
    record = {"Inputs": {"review": "w " * 999}, "Generated Outputs": {"rating": "no"}, "Feedback": "Bad."}
    propose(infill_proposer(program, infiller, denoising=Denoising(num_candidates=1)), "a", record)
    assert "[...]" in show(infiller.canvases[0].context[0])

"""The base runs first, inside the budget, and what it paid for is kept."""

import inspect
import sys
import threading

import dspy
import pytest
from dspy.teleprompt import COPRO, GEPA, BetterTogether, BootstrapFewShot, LabeledFewShot, Teleprompter

from dspy_diffusion_infill import DiffusionInfill
from dspy_diffusion_infill.errors import MetricError, SettingsError, Unscored
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.base import run_base
from dspy_diffusion_infill.search.budget import Budget, Meter
from dspy_diffusion_infill.search.counting import Stop, uses_only
from dspy_diffusion_infill.search.harvest import is_rewrite
from dspy_diffusion_infill.search.task import make_task
from dspy_diffusion_infill.search.usage import COUNTS_USAGE, track
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm

PROPOSED = "Be warm."


def propose_or_obey(system, user):
    """COPRO and GEPA ask for an instruction, everyone else for a rating."""
    if "proposed_instruction" in system:
        prefix = "[[ ## proposed_prefix_for_output_field ## ]]\nR:\n\n[[ ## completed ## ]]"
        return f"[[ ## proposed_instruction ## ]]\n{PROPOSED}\n\n{prefix}"
    if "new_instruction" in system + user:
        return f'{{"new_instruction": "{PROPOSED}"}}'
    if "```" in user:
        return f"```{PROPOSED}```"
    return f"[[ ## rating ## ]]\n{obey(system, user)}\n\n[[ ## completed ## ]]"


@pytest.fixture
def lm():
    lm = rule_lm(propose_or_obey)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        yield lm


@pytest.fixture
def calls():
    return []


@pytest.fixture
def metric(calls):
    def counted(example, prediction, trace=None, pred_name=None, pred_trace=None):
        calls.append(example)
        return exact(example, prediction)

    return counted


def run(base, budget=1000, student=None, share=1.0, **required):
    task = make_task(student or dspy.Predict(dspy.Signature("review -> rating", "Rate it.")), reviews(), None)
    meter = Meter(Budget(metric_calls=budget, base_share=share))
    optional = {"eval_kwargs": {"num_threads": 2}, "num_threads": 2, "teacher": None}
    return run_base(base, task, optional=optional, required=required, meter=meter), meter, task


def harvested(found):
    scores = {}
    found.hand_over(
        found.program,
        lambda candidate, example, score: scores.setdefault((candidate["self"], example), score),
    )
    return scores


@pytest.mark.filterwarnings("ignore")  # COPRO sets a deprecated prefix
def test_every_score_of_copro_is_counted_and_kept(lm, metric, calls, capfd):
    found, meter, _ = run(COPRO(metric=metric, breadth=3, depth=1))
    scores = harvested(found)
    assert instructions_of(found.program) == {"self": PROPOSED}
    assert meter.spent == len(calls) == 3 * 16
    assert {text for text, _ in scores} == {"Rate it.", PROPOSED}
    assert sum(score for (text, _), score in scores.items() if text == PROPOSED) == 5
    assert len(scores) == 2 * 16
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore")
def test_a_base_is_stopped_at_its_share_with_its_best_kept(lm, metric, calls):
    found, meter, _ = run(COPRO(metric=metric, breadth=3, depth=2), budget=100, share=0.4)
    assert found.stopped
    assert meter.spent == len(calls) == 40
    assert instructions_of(found.program) == {"self": PROPOSED}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cap", [60, 1000])
def test_gepa_runs_and_is_stopped(cap, lm, metric, calls):
    base = GEPA(metric=metric, max_metric_calls=80, reflection_lm=lm, num_threads=2)
    found, meter, _ = run(base, budget=cap)
    assert found.stopped == (cap == 60)
    assert meter.spent == len(calls) <= cap
    assert harvested(found)
    if not found.stopped:
        assert instructions_of(found.program) == {"self": PROPOSED}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", [BootstrapFewShot, lambda metric: LabeledFewShot(k=2)])
def test_demos_are_kept_and_so_are_the_students_lms(base, lm, metric):
    student = dspy.Predict(dspy.Signature("review -> rating", PROPOSED))
    student.lm = rule_lm(propose_or_obey)
    found, _, _ = run(base(metric=metric), student=student)
    assert found.program.demos
    assert found.program.lm is student.lm
    assert student.demos == []


class Probe(Teleprompter):
    """A base that does one thing with the student and its metric."""

    def __init__(self, metric, action):
        super().__init__()
        self.metric, self.action = metric, action

    def compile(self, student, *, trainset, depth=1):
        self.action(self, student, trainset)
        return student


def test_a_metric_that_raises_stops_the_run_even_if_the_base_would_go_on(metric):
    def swallow(base, student, trainset):
        try:
            base.metric(trainset[0], dspy.Prediction())
        except Exception:  # noqa: BLE001  (as MIPROv2 and GEPA do)
            student.demos = ["went on"]

    def broken(example, prediction):
        raise ZeroDivisionError("oops")

    with pytest.raises(MetricError, match=r"metric raised ZeroDivisionError on Example.*oops"):
        run(Probe(broken, swallow))


@pytest.mark.parametrize("value", [float("nan"), None, "good"])
def test_a_metric_that_gives_no_number_stops_the_base_and_names_the_example(value, lm):
    def evaluate(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)

    def no_number(example, prediction, trace=None):
        return value if example.review == "3" else exact(example, prediction)

    with pytest.raises(MetricError, match=f"must return a finite number.*got {value!r} on Example.*'3'"):
        run(Probe(no_number, evaluate))


def test_an_example_that_is_there_twice_has_both_its_scores(metric, lm):
    def evaluate(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)

    student = dspy.Predict(dspy.Signature("review -> rating", "Rate it."))
    task = make_task(student, reviews(4) * 2, None)
    meter = Meter(Budget(metric_calls=100))
    found = run_base(Probe(metric, evaluate), task, optional={}, required={}, meter=meter)
    assert len(harvested(found)) == meter.spent == 8


@pytest.mark.skipif(not COUNTS_USAGE, reason="this DSPy cannot count usage")
def test_a_base_that_only_proposes_is_stopped_at_a_cap_on_tokens(lm, metric, calls):
    asked = []

    def propose(base, student, trainset):
        for n in range(10):
            asked.append(dspy.settings.lm(f"Propose {n}."))

    meter = Meter(Budget(tokens=10, base_share=0.5))
    task = make_task(dspy.Predict("review -> rating"), reviews(), None)
    with dspy.context(usage_tracker=track(meter)):
        found = run_base(Probe(metric, propose), task, optional={}, required={}, meter=meter)
    assert found.stopped
    assert (len(asked), meter.tokens) == (3, 6)


def test_threads_that_outlive_the_base_call_the_metric_no_more(metric, calls):
    left = []
    run(Probe(metric, lambda base, student, trainset: left.append(base.metric)))
    with pytest.raises(Stop):
        left[0](None, None)
    assert calls == []


def test_a_base_that_fails_leaves_the_student_and_the_scores_it_paid_for(lm, metric):
    def fail(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)
        student.signature = student.signature.with_instructions("Half done.")
        raise RuntimeError("no proposals")

    found, meter, _ = run(Probe(metric, fail))
    assert found.error == "RuntimeError: no proposals"
    assert instructions_of(found.program) == {"self": "Rate it."}
    assert (meter.spent, len(harvested(found))) == (16, 16)


def test_a_base_that_is_refused_stops_the_run(metric):
    def refuse(base, student, trainset):
        raise type("LMAuthError", (Exception,), {})("wrong key")

    with pytest.raises(Exception, match="wrong key"):
        run(Probe(metric, refuse))


@pytest.mark.parametrize("error", [Unscored("no verdict"), TimeoutError("the judge is slow")])
def test_an_example_that_cannot_be_judged_now_is_no_bug_of_the_metric(error):
    def ask(base, student, trainset):
        base.metric(trainset[0], dspy.Prediction())

    def judge(example, prediction):
        raise error

    found, _, _ = run(Probe(judge, ask))
    assert found.error == f"{type(error).__name__}: {error}"


def test_what_the_base_prints_is_dropped(metric, capfd):
    run(Probe(metric, lambda base, *_: print("one of 31 prompt dumps")))  # noqa: T201
    assert capfd.readouterr().out == ""


def test_what_metric_and_other_threads_print_meanwhile_is_not_dropped(capfd):
    def evaluate(base, student, trainset):
        thread = threading.Thread(target=print, args=("elsewhere",))
        thread.start()
        thread.join()
        print("dump", base.metric(trainset[0], dspy.Prediction(rating="no")))  # noqa: T201

    def printing(example, prediction, trace=None):
        print("asked")  # noqa: T201
        return 0.0

    run(Probe(printing, evaluate))
    assert capfd.readouterr().out == "elsewhere\nasked\n"


def test_runs_side_by_side_leave_stdout_as_it_was(metric):
    stdout, both = sys.stdout, threading.Barrier(2)
    threads = [threading.Thread(target=run, args=(Probe(metric, lambda *_: both.wait(5)),)) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is stdout


def test_a_failure_that_dspy_scored_is_not_kept():
    def evaluate(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)

    def fragile(system, user):
        return propose_or_obey(system, user) if "7" not in user else "unreadable"

    with dspy.context(lm=rule_lm(fragile), adapter=dspy.ChatAdapter(), max_errors=100):
        found, _, _ = run(Probe(exact, evaluate))
    assert len(harvested(found)) == 15


def test_nothing_that_was_passed_in_is_modified(metric):
    def meddle(base, student, trainset):
        student.signature = student.signature.with_instructions("Changed.")
        trainset.clear()

    base = Probe(metric, meddle)
    found, _, task = run(base)
    assert instructions_of(found.program) == {"self": "Changed."}
    assert instructions_of(task.student) == {"self": "Rate it."}
    assert len(task.trainset) == 16
    assert base.metric is metric


def test_scores_under_other_demos_are_not_handed_over(lm, metric):
    def add_demos(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)
        student.demos = trainset[:1]

    found, _, _ = run(Probe(metric, add_demos))
    assert len(found.evaluated) == 1
    assert harvested(found) == {}


def test_scores_under_another_lm_or_adapter_are_not_handed_over(lm, metric):
    def evaluate(base, student, trainset):
        for other in ({"lm": rule_lm(propose_or_obey)}, {"adapter": dspy.JSONAdapter()}):
            with dspy.context(**other):
                dspy.Evaluate(devset=trainset, metric=base.metric)(student)

    found, _, _ = run(Probe(metric, evaluate))
    assert (len(found.evaluated), harvested(found)) == (2, {})


def test_a_program_that_failed_once_can_be_the_best_of_a_base_that_is_stopped(metric):
    def evaluate(base, student, trainset):
        warm = student.deepcopy()
        warm.signature = student.signature.with_instructions("Be warm.")
        for program in (student, warm, student):
            dspy.Evaluate(devset=trainset, metric=base.metric)(program)

    def fragile(system, user):
        return propose_or_obey(system, user) if "15" not in user else "unreadable"

    with dspy.context(lm=rule_lm(fragile), adapter=dspy.ChatAdapter(), max_errors=100):
        found, _, _ = run(Probe(metric, evaluate), budget=40)
    assert found.stopped
    assert instructions_of(found.program) == {"self": "Be warm."}


def loose(example, prediction, trace=None):
    return 1.0


@pytest.mark.parametrize("together", [False, True])
def test_the_metrics_of_optimizers_within_optimizers_are_found(together):
    if together and "optimizers" not in inspect.signature(BetterTogether.__init__).parameters:
        pytest.skip("this DSPy's BetterTogether has two parts alone")
    inner = Probe(loose, None)
    base = (
        BetterTogether(metric=exact, p=inner)
        if together
        else DiffusionInfill(exact, base=inner, infiller=ScriptedInfiller("a"))
    )
    assert not uses_only(base, exact)
    assert not uses_only(base, loose)
    assert uses_only(Probe(exact, None), exact)
    assert uses_only(None, exact)


@pytest.mark.parametrize("name", ["config", "fields"])
def test_scores_of_a_program_that_differs_in_more_than_its_text_are_not_handed_over(lm, metric, name):
    """As ReAnchor's do, which moves the borders of a predictor's answers."""

    def evaluate(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)
        setattr(student, name, {"rating": 0.3})

    found, _, task = run(Probe(metric, evaluate))
    assert (len(found.evaluated), harvested(found)) == (1, {})
    assert not is_rewrite(task.student, found.program)


def test_demos_that_hold_arrays_are_compared(lm, metric):
    numpy = pytest.importorskip("numpy")
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate it."))
    student.demos = [dspy.Example(review="1", rating=numpy.zeros(3))]

    def evaluate(base, student, trainset):
        dspy.Evaluate(devset=trainset, metric=base.metric)(student)

    found, _, _ = run(Probe(metric, evaluate), student=student)
    assert len(harvested(found)) == 16


def test_arguments_reach_the_base_if_it_takes_them(metric):
    run(Probe(metric, lambda *_: None), depth=2)
    with pytest.raises(SettingsError, match=r"arguments of Probe.compile, \[.*\]; got \['breadth'\]"):
        run(Probe(metric, lambda *_: None), breadth=2)

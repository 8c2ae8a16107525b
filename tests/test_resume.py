"""A run that was cut short goes on where it was: same winner, and no score paid for twice."""

import random

import dspy
import pydantic
import pytest
from dspy.teleprompt import COPRO, Teleprompter

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, SlidingWindow
from dspy_diffusion_infill.errors import MetricError, SettingsError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search import usage
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.journal import open_journal
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.usage import COUNTS_USAGE
from tests.doubles import ScriptedInfiller, obey, reviews, rule_lm
from tests.test_base import propose_or_obey
from tests.test_optimizer import Pipeline

needs_usage = pytest.mark.skipif(not COUNTS_USAGE, reason="this DSPy cannot count usage")

CALLS = []


@pytest.fixture(autouse=True)
def lm():
    CALLS.clear()
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


def counting(example, prediction, trace=None):
    CALLS.append(example.review)
    return float(example.rating == prediction.rating)


def student(text="Rate the text."):
    return dspy.Predict(dspy.Signature("review -> rating", text))


def optimizer(folder, **settings):
    defaults = {
        "infiller": ScriptedInfiller("Be warm", "Judge", "Be warm and five"),
        "denoising": Denoising(num_candidates=3),
        "budget": Budget(metric_calls=20),
    }
    metric = settings.pop("metric", counting)
    return DiffusionInfill(metric, log_dir=folder, **{**defaults, **settings})


def compile_in(folder, program=None, **settings):
    CALLS.clear()
    return optimizer(folder, **settings).compile(program or student(), trainset=reviews(6))


def outcome(tuned):
    results = dict(tuned.detailed_results)
    for name in (
        "seconds",
        "resumed_calls",
        "settings",
        "tokens",
    ):  # a lost run's tokens were used all the same
        del results[name]
    return instructions_of(tuned), results, tuned.trial_logs, tuned.candidate_programs


def test_a_run_cut_anywhere_goes_on_to_the_same_end_and_pays_for_no_score_twice(tmp_path):
    whole = outcome(compile_in(tmp_path))
    total = len(CALLS)
    file = tmp_path / "journal.jsonl"
    text = file.read_bytes()
    lines = text.splitlines(keepends=True)
    assert len(lines) == 1 + total == 1 + 20
    cuts = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    cuts += random.Random(0).sample(range(len(text)), 6)
    for cut in cuts:
        file.write_bytes(text[:cut])
        kept = max(0, text[:cut].count(b"\n") - 1)
        again = compile_in(tmp_path)
        assert outcome(again) == whole
        assert (again.detailed_results["resumed_calls"], len(CALLS)) == (kept, total - kept)


def test_scores_before_a_bug_of_the_metric_are_kept(tmp_path):
    left = [15]

    def breaking(example, prediction):
        left[0] -= 1
        return {True: counting(example, prediction)}[left[0] >= 0]

    with pytest.raises(MetricError):
        compile_in(tmp_path, metric=breaking, num_threads=1)
    left[0] = 1000
    CALLS.clear()
    tuned = optimizer(tmp_path, metric=breaking).compile(student(), trainset=reviews(6))
    assert (tuned.detailed_results["resumed_calls"], len(CALLS)) == (15, 5)


def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path):
    compile_in(tmp_path)
    more = compile_in(tmp_path, budget=Budget(metric_calls=40), num_threads=1)
    assert more.detailed_results["resumed_calls"] == 20
    assert len(CALLS) == more.detailed_results["metric_calls"] - 20 > 0


@needs_usage
def test_tokens_of_the_earlier_process_count(tmp_path):
    first = compile_in(tmp_path, budget=Budget(tokens=30), num_threads=1)
    again = compile_in(tmp_path, budget=Budget(tokens=30), num_threads=1)
    assert CALLS == []
    assert first.detailed_results["stop_reason"] == "budget spent (tokens: 30)"
    assert outcome(again) == outcome(first)
    assert again.detailed_results["tokens"] == first.detailed_results["tokens"] == 30


def test_a_pipeline_goes_on_with_the_calls_it_was_conditioned_on(tmp_path):
    lm = rule_lm(lambda system, user: obey(system, user) if user.startswith("n") else f"n{user}")
    with dspy.context(lm=lm):
        first = compile_in(tmp_path, Pipeline(), infiller=ScriptedInfiller("five", "note it"))
        infiller = ScriptedInfiller("five", "note it")
        again = compile_in(tmp_path, Pipeline(), infiller=infiller)
    assert CALLS == []
    assert outcome(again) == outcome(first)
    assert infiller.canvases[0].context[1].parts[0].startswith("n")


class Stars(pydantic.BaseModel):
    number: int


class Typed(dspy.Signature):
    """Rate the text."""

    review: str = dspy.InputField()
    rating: Stars = dspy.OutputField()


@pytest.mark.parametrize(
    ("module", "condition_on"), [(dspy.ChainOfThought, "examples"), (dspy.Predict, "traces")]
)
def test_a_program_with_pydantic_fields_pays_for_no_score_twice(module, condition_on, tmp_path):
    def answer(system, user):
        number = user.strip().split()[0] if obey(system, user) != "no" else "99"
        rating = f'[[ ## rating ## ]]\n{{"number": {number}}}\n\n[[ ## completed ## ]]'
        return f"[[ ## reasoning ## ]]\nr\n\n{rating}"

    def compile_typed():
        CALLS.clear()
        infiller = ScriptedInfiller("Be warm", "Judge", "Be warm and five")
        settings = {"infiller": infiller, "condition_on": condition_on}
        examples = [
            dspy.Example(review=str(n), rating=Stars(number=n)).with_inputs("review") for n in range(6)
        ]
        with dspy.context(lm=rule_lm(answer), adapter=dspy.ChatAdapter()):
            return optimizer(tmp_path, **settings).compile(module(Typed), trainset=examples), infiller

    (first, filled), paid = compile_typed(), len(CALLS)
    (again, refilled), paid_again = compile_typed(), len(CALLS)
    assert paid > paid_again == 0
    assert outcome(again) == outcome(first)
    assert refilled.canvases == filled.canvases


@pytest.mark.parametrize(
    ("kind", "value", "lost"),
    [
        (dspy.Image, dspy.Image("https://example.org/1.png"), False),
        (str, Stars(number=1), True),
        (str, ("a", "b"), True),
        (float, float("nan"), True),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydantic's, of a value of another type
def test_runs_whose_traces_json_cannot_hold_are_paid_for_once(kind, value, lost, tmp_path, caplog):
    signature = Typed.append("x", dspy.InputField(), type_=kind).with_updated_fields("rating", type_=str)
    examples = [
        dspy.Example(review=str(n), rating=f"y{n}", x=value).with_inputs("review", "x") for n in range(6)
    ]
    plain = rule_lm(lambda system, user: "[[ ## rating ## ]]\nno\n\n[[ ## completed ## ]]")
    with dspy.context(lm=plain, adapter=dspy.ChatAdapter()):
        for calls in (20, 0):
            CALLS.clear()
            tuning = optimizer(tmp_path, condition_on="traces", infiller=ScriptedInfiller("a", "b", "c"))
            tuned = tuning.compile(dspy.Predict(signature), trainset=examples)
            assert (len(CALLS), tuned.detailed_results["metric_calls"]) == (calls, 20)
    assert caplog.text.count("Traces of valset examples hold values that JSON cannot") == lost


@pytest.mark.filterwarnings("ignore")  # COPRO sets a deprecated prefix
def test_a_base_that_has_finished_is_not_run_again(tmp_path):
    settings = {"metric": None, "budget": Budget(metric_calls=60)}
    better = rule_lm(propose_or_obey)
    with dspy.context(lm=better, adapter=dspy.ChatAdapter()):
        first = compile_in(tmp_path, base=COPRO(metric=counting, breadth=3, depth=1), **settings)
        calls = better.engine.num_calls
        again = compile_in(tmp_path, base=COPRO(metric=counting, breadth=3, depth=1), **settings)
    assert (CALLS, better.engine.num_calls) == ([], calls)
    assert outcome(again) == outcome(first)
    assert "arm" in again.detailed_results["instructions_before"]["self"]


class Killed(BaseException):
    """As if the process had ended."""


@pytest.mark.filterwarnings("ignore")
def test_a_base_that_was_killed_pays_for_no_score_twice_and_keeps_the_cap(tmp_path):
    def compile_base(at=None):
        ends = [at]  # a list: what a metric counts in makes it no other metric

        def killed(example, prediction, trace=None, pred_name=None, pred_trace=None):
            if len(CALLS) in ends:
                raise Killed
            score = counting(example, prediction)
            return dspy.Prediction(score=score, feedback="warm") if example.review == "2" else score == 1

        base = COPRO(metric=killed, breadth=3, depth=2)
        settings = {"metric": killed, "budget": Budget(metric_calls=60), "num_threads": 1}
        with dspy.context(lm=rule_lm(propose_or_obey), adapter=dspy.ChatAdapter(), num_threads=1):
            return compile_in(tmp_path, base=base, **settings)

    whole = outcome(compile_base())
    file = tmp_path / "journal.jsonl"
    for at in (1, 7, 20, 29):
        file.unlink()
        with pytest.raises(Killed):
            compile_base(at)
        assert (len(CALLS), len(file.read_bytes().splitlines())) == (at, 1 + at)
        again = compile_base()
        assert outcome(again) == whole
        assert len(CALLS) == again.detailed_results["metric_calls"] - at <= 60 - at


class Recasting(Teleprompter):
    """Gives back a program of another type, whose instructions and demos do not tell it whole."""

    def __init__(self, metric):
        super().__init__()
        self.metric, self.runs = metric, []

    def compile(self, student, *, trainset):
        self.runs.append(1)
        return Recast(student.signature)


class Recast(dspy.Predict):
    pass


def test_a_base_whose_result_json_cannot_hold_runs_again(tmp_path):
    base = Recasting(counting)
    for _ in range(2):
        assert type(compile_in(tmp_path, base=base)) is Recast
    assert len(base.runs) == 2


def board(journal, demos=()):
    program = student()
    program.demos = list(demos)
    meter = Meter(Budget(metric_calls=100))
    return Evaluator(
        program,
        metric=Metric(counting),
        examples=reviews(2),
        role="valset",
        meter=meter,
        num_threads=1,
        max_unscored=0.2,
        journal=journal,
    )


def test_a_score_is_of_one_set_of_demos_and_a_run_without_a_trace_does_not_stand_in_for_one(tmp_path):
    pairs = [({"self": "Be warm"}, 0), ({"self": "Be warm"}, 1)]
    with open_journal(tmp_path, {}, resume=True) as journal:
        board(journal).run(pairs)
    resumed = []
    for demos, keep_traces in (((), False), (reviews(1), False), ((), True)):
        with open_journal(tmp_path, {}, resume=True) as journal:
            again = board(journal, demos)
            again.run(pairs, keep_traces=keep_traces)
        resumed.append(again.num_resumed)
    assert resumed == [2, 0, 0]


def other_metric(example, prediction, trace=None):
    return 0.0


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"program": student("Judge it.")}, "program"),
        ({"metric": other_metric}, "metric"),
        ({"infiller": ScriptedInfiller("a", "b")}, "infiller"),
        ({"seed": 1}, "seed"),
        ({"lock": ["text"]}, "lock"),
        ({"masking": SlidingWindow(window=4)}, "masking.window"),
    ],
)
def test_another_run_is_refused_before_any_call(changes, aspect, tmp_path, lm):
    compile_in(tmp_path)
    calls = lm.engine.num_calls
    with pytest.raises(SettingsError, match=rf"of a run with another {aspect}\."):
        compile_in(tmp_path, **changes)
    assert lm.engine.num_calls == calls


def test_other_data_and_another_adapter_are_refused(tmp_path):
    compile_in(tmp_path)
    with pytest.raises(SettingsError, match="another trainset, valset"):
        optimizer(tmp_path).compile(student(), trainset=reviews(7))
    with dspy.context(adapter=dspy.JSONAdapter()), pytest.raises(SettingsError, match="another adapter"):
        compile_in(tmp_path)


def test_another_base_and_another_teacher_are_refused(tmp_path):
    first, wider = (COPRO(metric=counting, breadth=breadth, depth=1) for breadth in (2, 3))
    with dspy.context(lm=rule_lm(propose_or_obey)):
        compile_in(tmp_path, base=first)
        with pytest.raises(SettingsError, match=r"with another base\."):
            compile_in(tmp_path, base=wider)
        with pytest.raises(SettingsError, match=r"with another teacher\."):
            optimizer(tmp_path, base=first).compile(student(), trainset=reviews(6), teacher=student("Other."))


def test_an_lm_is_another_by_its_name_and_parameters_but_not_by_its_key():
    from dspy_diffusion_infill.search.fingerprint import open_parameters

    lm = rule_lm(obey)
    lm.kwargs = {"temperature": 1, "max_tokens": 9, "api_key": "secret", "extra_headers": {}}
    assert open_parameters(lm) == {"temperature": 1, "max_tokens": 9}
    assert usage.lms_of(student())[0].model == "rule/test"

"""DiffusionInfill from end to end: what compile promises to a DSPy user."""

import copy
import json
import logging
import re

import dspy
import pytest
from dspy.teleprompt import COPRO, GEPA, BetterTogether, Teleprompter
from dspy.utils.callback import BaseCallback
from dspy.utils.usage_tracker import UsageTracker

from dspy_diffusion_infill import (
    Budget,
    CompactAdapter,
    Denoising,
    DiffusionInfill,
    Guard,
    Selection,
    SlidingWindow,
)
from dspy_diffusion_infill.errors import (
    CanvasError,
    EvaluationError,
    InfillerUnavailableError,
    MetricError,
    SettingsError,
    Unscored,
)
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search import failures, usage
from dspy_diffusion_infill.search.usage import COUNTS_USAGE, warn_if_noisy
from dspy_diffusion_infill.traces import Trace
from tests.doubles import (
    HAS_ENGINES,
    RuleEngine,
    ScriptedInfiller,
    exact,
    obey,
    reviews,
    rule_lm,
    system_text,
)
from tests.test_base import propose_or_obey

needs_usage = pytest.mark.skipif(not COUNTS_USAGE, reason="this DSPy cannot count usage")

VAGUE = "Rate the text."
FEW = Denoising(num_candidates=3)


@pytest.fixture(autouse=True)
def lm():
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


@pytest.fixture
def student():
    return dspy.Predict(dspy.Signature("review -> rating", VAGUE))


def helpful():
    return ScriptedInfiller("Be warm", "Judge", "Be warm and five", "Grade")


def optimizer(infiller=None, metric=exact, **settings):
    settings = {"denoising": FEW, "budget": "medium", **settings}
    return DiffusionInfill(metric, infiller=infiller or helpful(), **settings)


def test_a_vague_instruction_becomes_a_better_one(student):
    tuned = optimizer().compile(student, trainset=reviews())
    results = tuned.detailed_results
    assert instructions_of(tuned) == {"self": "Be warm and five"}
    assert (results["score_before"], results["score_after"]) == (0.0, 10 / 16)
    assert results["changes"] == {"self": {"start": 0, "before": VAGUE, "after": "Be warm and five"}}
    assert results["stop_reason"] == "no window helped in 2 passes"


def test_the_result_is_a_program_of_the_students_type_and_the_student_is_untouched(student, lm):
    class Rater(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rate = student

        def forward(self, review):
            return self.rate(review=review)

    program, examples = Rater(), reviews()
    program.rate.lm = lm
    program.rate.demos = [dspy.Example(review="99", rating="y99")]
    program._compiled = True
    before = (instructions_of(program), list(program.rate.demos), copy.deepcopy(examples))
    tuned = optimizer().compile(program, trainset=examples)
    assert type(tuned) is Rater
    assert tuned.rate.lm is lm
    assert tuned.rate.demos == program.rate.demos
    assert not tuned._compiled
    assert (instructions_of(program), program.rate.demos, examples) == before
    assert program._compiled
    assert "candidate_programs" not in vars(program)
    assert instructions_of(tuned) != instructions_of(program)


def test_text_outside_accepted_windows_is_untouched(student):
    text = "One two three four. Keep this, {source}!"
    student.signature = student.signature.with_instructions(text)
    masking = SlidingWindow(window=2, stride=2, mask=4, passes=1)
    tuned = optimizer(ScriptedInfiller("be warm"), masking=masking).compile(student, trainset=reviews())
    first, *others = tuned.trial_logs
    assert instructions_of(tuned) == {"self": "be warm three four. Keep this, {source}!"}
    assert (first["before"], first["after"], first["gain"]) == ("One two", "be warm", 5 / 16)
    assert [trial["before"] for trial in others if not trial["accepted"]] == ["three four.", "Keep this,"]
    assert tuned.detailed_results["stop_reason"] == "passes: 1"


def test_later_windows_see_what_was_accepted(student):
    student.signature = student.signature.with_instructions("a b c d")
    infiller = ScriptedInfiller("warm")
    masking = SlidingWindow(window=2, stride=2, mask=3, passes=1)
    optimizer(infiller, masking=masking).compile(student, trainset=reviews())
    assert [system_text(canvas) for canvas in infiller.canvases] == ["___ c d", "warm c ___"]


def test_a_canvas_shows_the_prompt_and_examples_with_their_reference_outputs(student):
    infiller = helpful()
    optimizer(infiller, selection=Selection(shots=3)).compile(student, trainset=reviews())
    first, second = infiller.canvases[:2]
    assert system_text(first) == "________"
    assert [turn.role for turn in first.context] == ["user", "assistant"] * 3
    assert all(
        f"y{user.parts[0]}" == said.parts[0]
        for user, said in zip(first.context[::2], first.context[1::2], strict=True)
    )
    assert first.context != second.context
    assert infiller.seeds[0] != infiller.seeds[1]


def test_the_metric_is_called_as_often_as_it_says_and_never_beyond_the_cap(student, lm):
    calls = []
    metric = lambda e, p, trace=None: calls.append(1) or exact(e, p)  # noqa: E731
    for cap in (16, 17, 40):
        calls.clear()
        budget = Budget(metric_calls=cap)
        tuned = optimizer(metric=metric, budget=budget, num_threads=4).compile(student, trainset=reviews())
        assert len(calls) == tuned.detailed_results["metric_calls"] <= cap
        assert tuned.detailed_results["stop_reason"] == f"budget spent (metric_calls: {cap})"


def test_the_same_seed_gives_the_same_run_with_one_and_eight_threads(student):
    def outcome(seed, num_threads):
        infiller = helpful()
        settings = {"seed": seed, "num_threads": num_threads, "budget": Budget(metric_calls=50)}
        tuned = optimizer(infiller, **settings).compile(student, trainset=reviews())
        return tuned.trial_logs, tuned.candidate_programs, infiller.canvases, infiller.seeds

    single = outcome(0, 1)
    assert outcome(0, 8) == single
    *_, canvases, seeds = outcome(1, 1)
    assert canvases[0] != single[2][0]
    assert seeds[0] != single[3][0]


def test_a_perfect_start_costs_one_evaluation_and_no_infilling(student):
    student.signature = student.signature.with_instructions("Be warm: five is best.")
    infiller = helpful()
    examples = reviews(15)
    tuned = optimizer(infiller).compile(student, trainset=examples)
    assert (tuned.detailed_results["metric_calls"], infiller.canvases) == (15, [])
    assert tuned.detailed_results["stop_reason"] == "perfect score"
    assert instructions_of(tuned) == instructions_of(student)


def test_without_a_gain_the_start_is_returned(student):
    tuned = optimizer(ScriptedInfiller("Judge", "Grade")).compile(student, trainset=reviews())
    assert instructions_of(tuned) == instructions_of(student)
    assert tuned.detailed_results["changes"] == {}


def test_the_valset_selects_and_the_trainset_conditions(student, lm):
    infiller = helpful()
    scored = []
    metric = lambda e, p, trace=None: scored.append(e.review) or exact(e, p)  # noqa: E731
    optimizer(infiller, metric).compile(student, trainset=reviews(4), valset=reviews(8)[4:])
    assert set(scored) == {"4", "5", "6", "7"}
    assert {turn.parts[0] for turn in infiller.canvases[0].context[::2]} == {"0", "1", "2", "3"}


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.note = dspy.Predict(dspy.Signature("review -> note", "Take a note."))
        self.rate = dspy.Predict(dspy.Signature("note -> rating", "Be warm."))

    def forward(self, review):
        return self.rate(note=self.note(review=review).note)


@pytest.fixture
def noting():
    """A task LM for the pipeline: notes start with n."""
    lm = rule_lm(lambda system, user: obey(system, user) if user.startswith("n") else f"n{user}")
    with dspy.context(lm=lm):
        yield lm


def test_every_predictor_is_rewritten_on_calls_that_went_well(noting):
    infiller = ScriptedInfiller("five", "note it")
    tuned = optimizer(infiller, num_threads=1).compile(Pipeline(), trainset=reviews())
    # both windows mask the whole instruction: the context tells the predictors apart
    contexts = [[turn.parts[0] for turn in canvas.context] for canvas in infiller.canvases[:2]]
    assert {said for said in contexts[0][1::2]} == {"n0", "n1", "n2", "n3", "n4"}
    assert {said for said in contexts[1][1::2]} == {"y0", "y1", "y2", "y3", "y4"}
    assert set(tuned.detailed_results["instructions_after"]) == {"note", "rate"}


def test_the_calls_that_condition_a_pipeline_are_those_of_the_start(noting):
    infiller = ScriptedInfiller("")
    tuned = optimizer(infiller).compile(Pipeline(), trainset=reviews())
    assert tuned.detailed_results["metric_calls"] == 16


def test_a_pipeline_that_selects_elsewhere_runs_on_the_trainset_for_its_calls(noting):
    infiller = ScriptedInfiller("")
    settings = {"selection": Selection(shots=2)}
    tuned = optimizer(infiller, **settings).compile(Pipeline(), trainset=reviews(), valset=reviews(8)[5:])
    assert {turn.parts[0] for turn in infiller.canvases[0].context[::2]} <= {"0", "1", "2", "3"}
    assert len(infiller.canvases[0].context) == 4
    assert tuned.detailed_results["metric_calls"] == 3 + 2 * 2


def test_a_pass_in_which_any_window_helped_is_followed_by_two_more(student):
    student.signature = student.signature.with_instructions("a b")
    masking = SlidingWindow(window=1, stride=1, mask=1)
    tuned = optimizer(ScriptedInfiller("warm"), masking=masking).compile(student, trainset=reviews())
    trials = [(trial["pass_number"], trial["before"], trial["accepted"]) for trial in tuned.trial_logs]
    assert trials == [
        (1, "a", True),
        (1, "b", False),
        (2, "warm", False),
        (2, "b", False),
        (3, "warm", False),
        (3, "b", False),
    ]


def test_candidates_meet_the_examples_that_the_start_failed_first(student):
    student.signature = student.signature.with_instructions("Be warm")
    scored = []
    metric = lambda e, p, trace=None: scored.append(e.review) or exact(e, p)  # noqa: E731
    optimizer(ScriptedInfiller("best"), metric, num_threads=1).compile(student, trainset=reviews())
    assert scored[16:20] == ["5", "6", "7", "8"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "base",
    [
        lambda lm: COPRO(metric=exact, breadth=3, depth=1),
        lambda lm: GEPA(metric=exact, max_metric_calls=60, reflection_lm=lm),
        lambda lm: optimizer(ScriptedInfiller("Be warm"), budget="light"),
    ],
    ids=["COPRO", "GEPA", "DiffusionInfill"],
)
def test_the_result_is_never_worse_than_the_bases(base, student):
    better = rule_lm(propose_or_obey)
    infiller = ScriptedInfiller("warm five", "Judge")
    with dspy.context(lm=better, adapter=dspy.ChatAdapter()):
        student.lm = better
        nested = base(better)
        if isinstance(nested, DiffusionInfill):
            student.signature = student.signature.with_instructions("x")
        tuned = optimizer(infiller, metric=None, base=nested).compile(student, trainset=reviews())
    results = tuned.detailed_results
    assert "arm" in results["instructions_before"]["self"]
    assert results["score_before"] == 5 / 16
    assert results["score_after"] == 10 / 16
    assert tuned.lm is better
    assert instructions_of(student) in ({"self": VAGUE}, {"self": "x"})


@pytest.mark.filterwarnings("ignore")
def test_copros_scores_are_not_paid_for_twice(student):
    calls = []
    metric = lambda e, p, trace=None: calls.append(1) or exact(e, p)  # noqa: E731
    base = COPRO(metric=metric, breadth=3, depth=1)
    with dspy.context(lm=rule_lm(propose_or_obey), adapter=dspy.ChatAdapter()):
        tuned = optimizer(ScriptedInfiller("Be warm."), metric=None, base=base).compile(
            student, trainset=reviews()
        )
    assert tuned.detailed_results["metric_calls"] == len(calls) == 3 * 16


class Wasteful(Teleprompter):
    """Evaluates one instruction on everything, then spends the rest."""

    def __init__(self, metric, instructions):
        super().__init__()
        self.metric, self.instructions = metric, instructions

    def compile(self, student, *, trainset):
        student.signature = student.signature.with_instructions(self.instructions)
        evaluate = dspy.Evaluate(devset=trainset, metric=self.metric)
        while True:
            evaluate(student)


@pytest.mark.parametrize(
    ("found", "kept"),
    [("Judge.", "Be warm."), ("Be warm: five.", "Be warm: five."), ("Be five.", "Be five.")],
)
def test_a_stopped_base_whose_best_is_worse_than_the_student_is_ignored(found, kept, student):
    student.signature = student.signature.with_instructions("Be warm.")
    base = Wasteful(exact, found)
    tuned = optimizer(ScriptedInfiller(""), metric=None, base=base).compile(student, trainset=reviews())
    assert tuned.detailed_results["base_stopped"]
    assert instructions_of(tuned) == {"self": kept}


class Failing(Wasteful):
    def compile(self, student, *, trainset):
        raise RuntimeError("no proposals")


def test_a_base_that_fails_is_told_and_the_search_goes_on(student, caplog):
    tuned = optimizer(base=Failing(exact, "")).compile(student, trainset=reviews())
    assert tuned.detailed_results["base_error"] == "RuntimeError: no proposals"
    assert tuned.detailed_results["instructions_before"] == {"self": VAGUE}
    assert instructions_of(tuned) == {"self": "Be warm and five"}
    assert "Failing failed; the search starts from the student. RuntimeError: no proposals" in caplog.text


def test_a_base_that_spends_everything_still_gives_its_result(student):
    budget = Budget(metric_calls=16, base_share=1.0)
    base = optimizer(ScriptedInfiller("Be warm"), budget="light")
    tuned = optimizer(base=base, budget=budget).compile(student, trainset=reviews())
    assert tuned.detailed_results["metric_calls"] == 16
    assert tuned.detailed_results["base_stopped"]
    assert instructions_of(tuned) == instructions_of(student)


@pytest.mark.skipif(dspy.__version__ < "3.2", reason="BetterTogether took no optimizers by name yet")
def test_it_works_inside_better_together(student, lm):
    student.lm = lm
    together = BetterTogether(metric=exact, infill=optimizer(), again=optimizer(ScriptedInfiller("best")))
    tuned = together.compile(student, trainset=reviews(), valset=reviews(), strategy="infill -> again")
    assert not tuned.flag_compilation_error_occurred
    assert "warm and five" in instructions_of(tuned)["self"]


def test_a_tuned_program_is_saved_loaded_and_copied(student, tmp_path):
    tuned = optimizer().compile(student, trainset=reviews())
    tuned.save(tmp_path / "tuned.json")
    fresh = dspy.Predict("review -> rating")
    fresh.load(tmp_path / "tuned.json")
    assert instructions_of(fresh) == instructions_of(copy.deepcopy(tuned)) == instructions_of(tuned)
    json.dumps([tuned.candidate_programs, tuned.trial_logs, tuned.detailed_results])
    assert list(dict(tuned.named_predictors())) == ["self"]


def test_a_tuned_program_can_be_tuned_again(student):
    once = optimizer().compile(student, trainset=reviews())
    infiller = ScriptedInfiller("warm five best")
    twice = optimizer(infiller).compile(once, trainset=reviews())
    assert twice.detailed_results["score_before"] == 10 / 16
    assert twice.detailed_results["score_after"] == 15 / 16
    assert once.detailed_results["score_after"] == 10 / 16


def test_candidates_are_listed_best_first(student):
    tuned = optimizer().compile(student, trainset=reviews())
    scores = [found["score"] for found in tuned.candidate_programs]
    assert scores == sorted(scores, reverse=True)
    assert tuned.candidate_programs[0]["instructions"] == instructions_of(tuned)
    assert {"score": 0.0, "instructions": {"self": VAGUE}} in tuned.candidate_programs


def test_ctrl_c_returns_the_best_so_far(student):
    class Interrupted(ScriptedInfiller):
        def infill(self, canvases, *, num_candidates, seed):
            if self.canvases:
                raise KeyboardInterrupt
            return super().infill(canvases, num_candidates=num_candidates, seed=seed)

    tuned = optimizer(Interrupted("Be warm")).compile(student, trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_a_metric_that_raises_names_the_example(student):
    with pytest.raises(MetricError, match="metric raised KeyError on valset example 3"):
        optimizer(metric=lambda e, p: {"0": 0, "1": 0, "2": 0}[e.review]).compile(student, trainset=reviews())


def answer_until(count, error):
    """A task LM that obeys for a number of calls, then raises."""
    answered = []

    def answer(system, user):
        answered.append(user)
        if len(answered) > count:
            raise error
        return obey(system, user)

    return rule_lm(answer)


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0,))


@pytest.mark.parametrize("error", [ConnectionError("the server is gone"), ValueError("a bug")])
def test_a_task_lm_that_fails_at_the_start_is_raised(error, student, no_pauses):
    with (
        dspy.context(lm=answer_until(0, error)),
        pytest.raises(EvaluationError, match="failed on valset example"),
    ):
        optimizer().compile(student, trainset=reviews())


def test_an_outage_in_the_middle_returns_the_best_so_far(student, no_pauses, caplog):
    # 16 calls for the start, 16 for the first window's "Be warm", which wins
    with dspy.context(lm=answer_until(40, ConnectionError("gone"))):
        tuned = optimizer(ScriptedInfiller("Be warm", "Be warm and five")).compile(
            student, trainset=reviews()
        )
    results = tuned.detailed_results
    assert results["stop_reason"].startswith("outage: The program failed on valset example")
    assert "gone" in results["stop_reason"]
    assert results["metric_calls"] <= 40
    assert instructions_of(tuned) == results["instructions_after"]
    assert results["score_after"] > 0
    assert "The best so far is returned." in caplog.text


@pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy has no LM to double with a cache")
def test_an_outage_is_seen_behind_the_cache(student, no_pauses, lm, monkeypatch):
    """What ran well before would be answered from there, however long the service is gone."""
    monkeypatch.setattr(dspy.cache, "memory_cache", {})
    monkeypatch.setattr(dspy.cache, "enable_disk_cache", False)
    numbers = iter(range(1000))

    def answer(system, user):
        if next(numbers) >= 40:
            raise ConnectionError("gone")
        return obey(system, user)

    cached = dspy.LM("rule/test", engine=RuleEngine(answer), cache=True, num_retries=0)
    with dspy.context(lm=cached):
        tuned = optimizer(ScriptedInfiller("Be warm", "Be warm and five")).compile(
            student, trainset=reviews()
        )
    assert tuned.detailed_results["stop_reason"].startswith("outage: The program failed on valset example")
    assert tuned.detailed_results["num_failures"] == 0


def test_an_outage_of_the_metric_is_no_candidates_failure(student, no_pauses):
    numbers = iter(range(1000))

    def metric(example, prediction, trace=None):
        if next(numbers) >= 40:
            raise ConnectionError("the judge is gone")
        return exact(example, prediction)

    tuned = optimizer(ScriptedInfiller("Be warm", "Be warm and five"), metric).compile(
        student, trainset=reviews()
    )
    assert tuned.detailed_results["stop_reason"].startswith("outage: metric raised ConnectionError")
    assert tuned.detailed_results["num_failures"] == 0


def test_a_bug_in_the_middle_is_raised_with_the_best_so_far_in_its_notes(student):
    class Turning(ScriptedInfiller):
        def infill(self, canvases, *, num_candidates, seed):
            self.script = ("Judge",) if self.canvases else ("Be warm",)
            return super().infill(canvases, num_candidates=num_candidates, seed=seed)

    with (
        dspy.context(lm=answer_until(32, ValueError("a bug"))),
        pytest.raises(EvaluationError, match="a bug") as raised,
    ):
        optimizer(Turning()).compile(student, trainset=reviews())
    assert raised.value.__notes__ == ["The best instructions so far score 0.3125: {'self': 'Be warm'}"]


def test_an_infiller_that_goes_away_ends_the_run_with_the_best_so_far(student, no_pauses):
    class Leaving(ScriptedInfiller):
        def infill(self, canvases, *, num_candidates, seed):
            if self.canvases:
                raise InfillerUnavailableError("no answer")
            return super().infill(canvases, num_candidates=num_candidates, seed=seed)

    tuned = optimizer(Leaving("Be warm")).compile(student, trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "outage: no answer"
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_the_cost_is_logged_before_the_first_call(student, lm, caplog):
    class Silent(ScriptedInfiller):
        name = "silent"

    with caplog.at_level(logging.INFO, "dspy.teleprompt.diffusion_infill"):
        optimizer(Silent("x")).compile(student, trainset=reviews())
    first, second = [record.getMessage() for record in caplog.records][:2]
    assert first == "This run may spend 480 metric calls."
    assert second == "It selects on 16 examples, with fillings of silent."


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"lock": ["lable"]}, "These locks lock nothing in the present instructions: ['lable']."),
        ({"budget": Budget(metric_calls=63)}, "The budget may end before the first window is decided"),
        ({"budget": Budget(metric_calls=64)}, ""),
        ({"lock": ["Rate"]}, ""),
    ],
)
def test_settings_that_may_do_nothing_are_told(student, caplog, settings, warning):
    optimizer(ScriptedInfiller("x"), **settings).compile(student, trainset=reviews())
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message.startswith(warning) for message in told] == [True] * bool(warning)


@pytest.mark.parametrize(
    ("temperature", "repeats", "told"), [(0.7, 1, 1), (0.7, 2, 0), (0.0, 1, 0), (None, 1, 0)]
)
def test_an_lm_that_answers_by_chance_is_told_once(caplog, temperature, repeats, told):
    lm = rule_lm(obey)
    lm.kwargs["temperature"] = temperature
    program = dspy.Predict("review -> rating")
    with dspy.context(lm=lm):
        warn_if_noisy(repeats, program)
    assert caplog.text.count("answers by chance (temperature above 0)") == told


def test_a_predictors_own_temperature_comes_before_its_lms(student, lm):
    lm.kwargs["temperature"] = 0.0
    with pytest.raises(SettingsError, match="repeats must be 1"):
        optimizer(selection=Selection(repeats=2)).compile(student, trainset=reviews())
    student.config["temperature"] = 0.9
    optimizer(selection=Selection(repeats=2), budget=Budget(metric_calls=32)).compile(
        student, trainset=reviews()
    )


def test_a_base_that_rewrites_what_is_locked_is_not_started_from(lm, caplog):
    class Rewriting(Teleprompter):
        def compile(self, student, *, trainset):
            tuned = student.deepcopy()
            tuned.signature = tuned.signature.with_instructions(f"Be warm and five. {self.kept}")
            return tuned

    student = dspy.Predict(dspy.Signature("review -> rating", "Rate it. Never give advice."))
    for kept, starts in (("", "Rate it."), ("Never give advice.", "Be warm and five.")):
        base = Rewriting()
        base.kept = kept
        tuning = optimizer(ScriptedInfiller("x"), base=base, lock=["Never give advice."])
        tuned = tuning.compile(student, trainset=reviews())
        assert instructions_of(tuned)["self"].startswith(starts)
        assert "Never give advice." in instructions_of(tuned)["self"]
    assert caplog.text.count("The base rewrote 'Never give advice.', which is locked") == 1


def test_a_prompt_that_outgrew_the_infiller_ends_the_run_with_the_best_so_far(student, caplog):
    infiller = ScriptedInfiller("Be warm", "Be warm and five")
    fits = infiller.num_tokens

    def num_tokens(canvas):
        return 10**6 if infiller.canvases else fits(canvas)

    infiller.num_tokens = num_tokens
    tuned = optimizer(infiller).compile(student, trainset=reviews())
    assert "warm" in instructions_of(tuned)["self"]
    assert tuned.detailed_results["stop_reason"].startswith("prompt too long: The prompt of predictor 'self'")
    assert tuned.detailed_results["score_after"] > 0


def test_examples_are_named_by_the_users_own_numbers(student):
    """Some are kept out of the search, so that those left stand elsewhere."""

    def metric(example, prediction, trace=None):
        if example.review == "77":
            raise KeyError("nope")
        if example.review == "70":
            raise Unscored("tired")
        return exact(example, prediction)

    examples = reviews(80)
    with pytest.raises(MetricError, match="metric raised KeyError on valset example 77"):
        optimizer(metric=metric).compile(student, trainset=examples)
    examples[77] = examples[3]
    tuned = optimizer(metric=metric).compile(student, trainset=examples)
    assert set(tuned.detailed_results["unscored"]) <= {70}
    moved = {number for edit in tuned.edits for number, _ in edit.moved}
    assert moved
    assert moved <= set(range(15)), "the LM can answer no others"


def test_a_program_that_runs_asynchronously_alone_is_refused_at_once(lm):
    class Asynchronous(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rate = dspy.Predict("review -> rating")

        async def aforward(self, **inputs):
            return await self.rate.acall(**inputs)

    with pytest.raises(SettingsError, match=r"must have a forward method.*dspy.syncify"):
        optimizer().compile(Asynchronous(), trainset=reviews())
    assert lm.engine.num_calls == 0


def test_inputs_that_no_example_has_are_told(student, caplog):
    student.signature = student.signature.append("context", dspy.InputField())
    optimizer(ScriptedInfiller("x")).compile(student, trainset=reviews())
    assert "The program asks for ['context'], which no example has among its inputs." in caplog.text


def test_the_cost_is_estimated_without_a_call(student, lm):
    student.signature = student.signature.with_instructions("a b c d")
    masking = SlidingWindow(window=2, stride=1, mask=2)
    run = optimizer(masking=masking, base=COPRO(metric=exact), budget="light")
    found = run.estimate(student, trainset=reviews())
    assert (found.metric_calls, found.base_metric_calls, found.start_metric_calls) == (160, 80, 32)
    assert (found.lm_calls_per_metric_call, found.windows, found.fillings_per_pass) == (1, {"self": 3}, 9)
    assert str(found) == (
        "Metric calls: at most 160, up to 32 of them to score the start, and up to 48 a window; LM calls in "
        "each: 1 or more; windows in a pass: 3, with 9 fillings."
    )
    assert lm.engine.num_calls == 0


@pytest.mark.parametrize(
    ("program", "settings", "start", "window"),
    [
        (dspy.Predict("review -> rating"), {}, 5, 15),
        (dspy.Predict("review -> rating"), {"condition_on": "traces"}, 5, 15 + 4),
        (Pipeline(), {}, 5 + 4, 15),
        (Pipeline(), {"condition_on": "both"}, 5 + 4, 15 + 4),
        (dspy.Predict("review -> rating"), {"base": COPRO(metric=exact)}, 10, 15),
    ],
)
def test_what_canvases_show_is_in_the_estimate(program, settings, start, window):
    tuning = optimizer(selection=Selection(shots=2), **settings)
    examples = reviews()
    found = tuning.estimate(program, trainset=examples[5:], valset=examples[:5])
    assert (found.start_metric_calls, found.window_metric_calls) == (start, window)


def test_an_estimate_takes_what_compile_takes(student):
    logged = [Trace({"review": "1"}, {"rating": "y1"})]
    tuning = optimizer(base=COPRO(metric=exact), condition_on="both")
    asked = {"trainset": reviews(), "teacher": student, "base_kwargs": {"eval_kwargs": {}}}
    assert tuning.estimate(student, traces=logged, **asked).windows == {"self": 1}
    with pytest.raises(SettingsError, match="traces must be left out"):
        optimizer().estimate(student, trainset=reviews(), traces=logged)
    with pytest.raises(SettingsError, match="base_kwargs must be left out without a base"):
        optimizer().estimate(student, trainset=reviews(), base_kwargs={"eval_kwargs": {}})


@needs_usage
def test_tokens_end_a_run(student, lm):
    # each call of the double costs a token in and a token out
    outer = UsageTracker()
    with dspy.context(usage_tracker=outer):
        tuned = optimizer(budget=Budget(tokens=70), num_threads=2).compile(student, trainset=reviews())
    results = tuned.detailed_results
    assert results["stop_reason"] == "budget spent (tokens: 70)"
    assert 70 <= results["tokens"] == 2 * lm.engine.num_calls <= 70 + 2
    assert sum(entry["total_tokens"] for entry in outer.usage_data["rule/test"]) == results["tokens"]


@needs_usage
def test_the_base_pays_with_the_same_tokens(student, lm):
    base = optimizer(ScriptedInfiller("Be warm"), budget="light")
    tuned = optimizer(base=base, budget=Budget(tokens=100)).compile(student, trainset=reviews())
    assert tuned.detailed_results["base_stopped"]
    assert tuned.detailed_results["tokens"] == 2 * lm.engine.num_calls <= 100 + 2


@needs_usage
def test_a_metric_may_ask_what_a_prediction_used(student):
    """As in `dspy.Evaluate`, for the search and its base alike."""
    seen = []

    def metric(example, prediction, trace=None):
        seen.append(prediction.get_lm_usage())
        return exact(example, prediction)

    class Twice(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = student

        def forward(self, **inputs):
            self.first(**inputs)
            return self.second(**inputs)

    rater = rule_lm(propose_or_obey)
    with dspy.context(track_usage=True, lm=rater, adapter=dspy.ChatAdapter()):
        base = COPRO(metric=metric, breadth=2, depth=1)
        tuning = DiffusionInfill(metric, base=base, infiller=ScriptedInfiller("Be warm"), num_threads=2)
        tuned = tuning.compile(Twice(), trainset=reviews())
    used = [sum(entry["total_tokens"] for entry in one.values()) for one in seen]
    assert tuned.detailed_results["base_error"] is None
    assert len(seen) == tuned.detailed_results["metric_calls"]
    assert set(used) == {2 * 2}, "two calls of two tokens each"


@needs_usage
def test_dollars_end_a_run(student, lm, monkeypatch):
    monkeypatch.setattr(usage, "price_of", lambda name: {"rule/test": (0.01, 0.02)}[name])
    tuned = optimizer(budget=Budget(usd=0.9), num_threads=1).compile(student, trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "budget spent (usd: 0.9)"
    assert lm.engine.num_calls == 30


@needs_usage
def test_a_cap_in_dollars_is_refused_where_no_price_is_known(student, lm, monkeypatch):
    monkeypatch.setattr(usage, "price_of", lambda name: None)
    with pytest.raises(SettingsError, match=r"no price is known, .*got LMs \['rule/test'\]"):
        optimizer(budget=Budget(usd=1.0)).compile(student, trainset=reviews())
    assert lm.engine.num_calls == 0


@needs_usage
def test_a_cap_on_tokens_that_may_never_be_reached_is_told(student, caplog, monkeypatch):
    monkeypatch.setattr(usage.Usage, "add_usage", lambda self, lm, entry: None)
    optimizer(budget=Budget(tokens=5)).compile(student, trainset=reviews())
    assert "No tokens were counted while the start was scored" in caplog.text


def test_callbacks_hear_of_this_run_alone(student):
    class Heard(BaseCallback):
        def __init__(self):
            self.calls = 0

        def on_module_start(self, call_id, instance, inputs):
            self.calls += 1

    heard = Heard()
    tuned = optimizer(callbacks=[heard]).compile(student, trainset=reviews())
    during = heard.calls
    assert during >= tuned.detailed_results["metric_calls"]
    tuned(review="1")
    assert heard.calls == during


def test_settings_are_plain_data():
    params = optimizer(base=COPRO(metric=exact)).get_params()
    assert (params["metric"], params["base"], params["infiller"]) == ("exact", "COPRO", "scripted:4")
    assert (params["masking.window"], params["budget"], params["seed"]) == (8, "medium", 0)
    assert (params["lock"], params["guard"]) == ("auto", "auto")
    lock = {"self": ["well", re.compile("n+")]}
    named = optimizer(lock=lock, guard=Guard(repeats=3), budget=Budget(seconds=9)).get_params()
    assert (named["lock"], named["guard.repeats"]) == ({"self": ["well", "n+"]}, 3)
    assert (named["budget.metric_calls"], named["budget.seconds"]) == (None, 9)
    json.dumps([params, named])


def test_a_trial_tells_what_lost_and_what_was_spent_by_then(student):
    tuned = optimizer(ScriptedInfiller("Be warm", "x" * 501), guard=None).compile(student, trainset=reviews())
    first = tuned.trial_logs[0]
    tried = {filling["text"]: (filling["score"], filling["num_scored"]) for filling in first["candidates"]}
    assert tried == {"Be warm": (5 / 16, 16), "x" * 500: (0.0, tried["x" * 500][1])}
    assert first["spent"] == 16 + first["metric_calls"]
    assert tuned.trial_logs[-1]["spent"] == tuned.detailed_results["metric_calls"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": None}, "A metric must be given"),
        ({"metric": None, "base": COPRO()}, "A metric must be given"),
        ({"base": "copro"}, "base must be a DSPy optimizer, or None; got 'copro'"),
        ({"masking": 8}, "masking must be a SlidingWindow or a Template; got 8"),
        ({"budget": "lite"}, "budget must be .*got 'lite'"),
        ({"num_threads": 0}, "num_threads must be at least 1, or None; got 0"),
    ],
)
def test_a_bad_setting_is_refused_at_construction(settings, message):
    with pytest.raises(SettingsError, match=message):
        DiffusionInfill(**{"metric": exact, **settings})


def test_an_unknown_option_is_a_type_error(student):
    with pytest.raises(TypeError, match="maskng"):
        DiffusionInfill(exact, maskng=SlidingWindow())
    with pytest.raises(TypeError, match="testset"):
        optimizer().compile(student, trainset=reviews(), testset=[])


class Empty(dspy.Module):
    def forward(self, review):
        return dspy.Prediction(rating="y0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainset": None}, "trainset must be a list of dspy.Example objects; got None"),
        ({"valset": 5}, "valset must be a list of dspy.Example objects; got 5"),
        ({"trainset": []}, "trainset must hold at least one example"),
        ({"valset": []}, "valset must hold at least one example"),
        ({"trainset": [{"review": "0"}]}, "trainset must hold dspy.Example objects"),
        (
            {"trainset": [dspy.Example(review="0", rating="y0")]},
            "trainset must hold examples that name their inputs",
        ),
        ({"student": Empty()}, "The program has no predictors"),
        ({"student": "program"}, "student must be a dspy.Module; got 'program'"),
        ({"base_kwargs": {"depth": 1}}, r"base_kwargs must be left out without a base; got \['depth'\]"),
    ],
)
def test_a_bad_argument_is_refused_before_any_call(arguments, message, student, lm):
    infiller = helpful()
    with pytest.raises(SettingsError, match=message):
        optimizer(infiller).compile(**{"student": student, "trainset": reviews(), **arguments})
    assert (lm.engine.num_calls, infiller.canvases) == (0, [])


def test_a_budget_too_small_for_the_valset_is_refused_before_any_call(student, lm):
    with pytest.raises(
        SettingsError, match="metric_calls must be at least the number of validation examples, 16"
    ):
        optimizer(budget=Budget(metric_calls=15)).compile(student, trainset=reviews())
    assert lm.engine.num_calls == 0


def test_without_a_served_model_nothing_is_spent(student, lm, monkeypatch):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", "http://127.0.0.1:9")
    with pytest.raises(InfillerUnavailableError, match=r"No served model answers at http://127.0.0.1:9"):
        DiffusionInfill(exact).compile(student, trainset=reviews())
    assert lm.engine.num_calls == 0


class Hiding(CompactAdapter):
    def format(self, signature, demos, inputs):
        return super().format(signature.with_instructions("Hidden."), demos, inputs)


@pytest.mark.parametrize(
    ("adapter", "length", "message"),
    [(Hiding(), 10_000, "instructions"), (CompactAdapter(), 5, "at most 5 tokens, the context length")],
)
def test_a_prompt_that_cannot_be_infilled_is_told_before_any_call(adapter, length, message, student, lm):
    unfit = optimizer(ScriptedInfiller("x", context_length=length))
    for call in (unfit.compile, unfit.estimate):
        with dspy.context(adapter=adapter), pytest.raises(CanvasError, match=message):
            call(student, trainset=reviews())
    assert lm.engine.num_calls == 0


def test_locked_text_is_never_masked(student):
    student.signature = student.signature.with_instructions("Cite {source} and rate the review `now` well")
    infiller = ScriptedInfiller("warm", "be five")
    tuned = optimizer(infiller, lock=["well"]).compile(student, trainset=reviews())
    after = instructions_of(tuned)["self"]
    assert tuned.detailed_results["score_after"] == 10 / 16
    for canvas in infiller.canvases:
        assert [kept in system_text(canvas) for kept in ("{source}", "review", "`now`", "well")] == [True] * 4
    assert after.index("{source}") < after.index("review") < after.index("`now`") < after.index("well")


class GluedInfiller(ScriptedInfiller):
    """Tokens are words and marks with the space before them, as those of a language model are."""

    def offsets(self, text):
        return [match.span() for match in re.finditer(r"\s*(?:\w+|[^\w\s])", text)]


@pytest.mark.parametrize(
    ("text", "kept", "fills", "lock"),
    [
        ('Rate now. Answer "yes" or "no" only.', '"yes".*"no"', ('Use a 12" mark now.', " X"), "auto"),
        ("Rate the review. Take care.", r"\breview\b", ("er as king", " X"), "auto"),
        (
            "Be kind.\nNEVER lie.",
            "NEVER",
            ("Be warm.", " X"),
            {"self": [re.compile(r"(?<=kind\.\n)NEVER.*")]},
        ),
    ],
)
def test_an_edit_that_would_unlock_a_text_is_rejected(text, kept, fills, lock):
    def greedy(example, prediction):
        return float(prediction.rating)

    def answer(system, user):  # better the more of what is locked is gone, and for the edit that leads there
        return str(0.1 * (fills[0] in system) + 0.9 * (not re.search(kept, system)))

    with dspy.context(lm=rule_lm(answer)):
        program = dspy.Predict(dspy.Signature("review -> rating", text))
        tuned = optimizer(GluedInfiller(*fills), greedy, lock=lock, guard=None, budget="heavy").compile(
            program, trainset=reviews(4)
        )
    assert re.search(kept, instructions_of(tuned)["self"])
    rejected = {one["reason"] for trial in tuned.trial_logs for one in trial["rejected"]}
    assert any(reason.startswith("unlocks ") for reason in rejected)


def test_without_locks_everything_is_rewritten(student):
    student.signature = student.signature.with_instructions("Cite {source} and rate the review")
    infiller = ScriptedInfiller("warm")
    optimizer(infiller, lock=None).compile(student, trainset=reviews())
    assert system_text(infiller.canvases[0]) == "________"


def test_a_guarded_filling_is_refused_before_any_call_and_its_reason_is_kept(student, lm):
    masking = SlidingWindow(passes=1)
    leaky = [
        dspy.Example(review=f"{n} the plot was thin", rating=f"y{n}").with_inputs("review") for n in range(3)
    ]
    tuned = optimizer(ScriptedInfiller("2 the plot was thin"), masking=masking).compile(
        student, trainset=leaky
    )
    (trial,) = tuned.trial_logs
    assert lm.engine.num_calls == 3
    assert trial["rejected"][0]["reason"] == "copies 5 words from an example: '2 the plot was thin'"
    unguarded = optimizer(ScriptedInfiller("2 the plot was thin"), masking=masking, guard=None)
    assert unguarded.compile(student, trainset=leaky).trial_logs[0]["num_candidates"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lock": "all"}, "lock must be 'auto', None"),
        ({"guard": True}, "guard must be 'auto', a Guard, or None"),
    ],
)
def test_a_bad_lock_or_guard_is_refused_at_construction(settings, message):
    with pytest.raises(SettingsError, match=message):
        DiffusionInfill(exact, **settings)

"""What a DSPy user may rely on, item by item, with DSPy's own modules, adapters and optimizers.

`CONTRACT` names every item and the tests that hold it; those that are not here are in the file it names.
"""

import asyncio
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import cloudpickle
import dspy
import pydantic
import pytest
from dspy import teleprompt
from dspy.teleprompt import BetterTogether, Teleprompter
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill import Budget, Denoising, DiffusionInfill, Edit, revert
from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.program import instructions_of, signature_of
from dspy_diffusion_infill.prompts.protocols import protocols
from dspy_diffusion_infill.search import failures
from tests.doubles import ScriptedInfiller, rule_lm

CONTRACT = {
    "bare Predict, CoT, ReAct, RLM, PoT, Refine": [
        "test_a_module_of_dspys_is_improved_and_keeps_its_protocol"
    ],
    "nested containers": ["test_predictors_that_dspy_does_not_find_are_named_and_left_alone"],
    "shared predictor": ["test_a_predictor_under_two_names_is_one"],
    "frozen child": ["test_a_frozen_part_stays_as_it_is"],
    "no predictor": ["test_optimizer.py: test_a_bad_argument_is_refused_before_any_call"],
    "typed and custom-type signatures with desc": ["test_types_and_descriptions_stay"],
    "same Signature class in two predictors": [
        "test_one_signature_class_in_two_predictors_is_not_written_to"
    ],
    "Chat, JSON, XML adapters": [
        "test_every_adapter_gives_the_same_winner",
        "test_render.py: test_the_prompt_is_that_of_a_call_with_the_window_masked",
    ],
    "student unchanged: instructions, demos, LM identity, class-level docstring": [
        "test_optimizer.py: test_the_result_is_a_program_of_the_students_type_and_the_student_is_untouched",
        "test_one_signature_class_in_two_predictors_is_not_written_to",
    ],
    "result _compiled": [
        "test_optimizer.py: test_the_result_is_a_program_of_the_students_type_and_the_student_is_untouched"
    ],
    "deepcopy, JSON save and load, pickle": [
        "test_optimizer.py: test_a_tuned_program_is_saved_loaded_and_copied",
        "test_edits.py: test_edits_survive_copies_and_come_back_from_their_plain_data",
        "test_a_tuned_program_can_be_pickled_and_saved_whole",
    ],
    "BetterTogether both ways": [
        "test_optimizer.py: test_it_works_inside_better_together",
        "test_better_together_can_be_the_base",
    ],
    "each base": [
        "test_every_optimizer_of_dspys_can_be_the_base",
        "test_optimizer.py: test_the_result_is_never_worse_than_the_bases",
        "test_base.py: test_demos_are_kept_and_so_are_the_students_lms",
    ],
    "MLflow autolog with import order": ["test_mlflow_finds_what_it_patches"],
    "callbacks nested order": ["test_callbacks_hear_the_base_within_the_run"],
    "thread, asyncio.to_thread, dspy.context LM": ["test_it_compiles_in_a_thread_and_beside_an_event_loop"],
    "seed=0": ["test_optimizer.py: test_the_same_seed_gives_the_same_run_with_one_and_eight_threads"],
    "1, 8 threads give the same winner": [
        "test_optimizer.py: test_the_same_seed_gives_the_same_run_with_one_and_eight_threads",
        "test_orders.py: test_a_run_gives_the_same_on_eight_threads_and_from_its_journal",
    ],
    "budget exact under threads": [
        "test_optimizer.py: test_the_metric_is_called_as_often_as_it_says_and_never_beyond_the_cap",
        "test_budget.py: test_permits_are_exact_under_threads",
    ],
    "SIGINT returns best": [
        "test_a_real_sigint_returns_the_best_so_far",
        "test_optimizer.py: test_ctrl_c_returns_the_best_so_far",
        "test_orders.py: test_ctrl_c_in_a_pass_returns_the_best_window_so_far",
    ],
    "resume at every line cut of the journal": [
        "test_resume.py: test_a_run_cut_anywhere_goes_on_to_the_same_end_and_pays_for_no_score_twice",
        "test_chaos.py: test_a_process_killed_at_any_moment_goes_on_to_the_same_end_and_loses_no_score",
    ],
    "perfect baseline stops after N calls": [
        "test_optimizer.py: test_a_perfect_start_costs_one_evaluation_and_no_infilling"
    ],
    "negative, >1, NaN metrics": [
        "test_the_scale_of_a_metric_does_not_change_the_winner",
        "test_metrics.py: test_what_is_no_number_names_the_example",
    ],
    "429, 500": [
        "test_chaos.py: test_a_faulty_server_changes_neither_winner_nor_scores",
        "test_failures.py: test_every_error_has_its_kind",
        "test_optimizer.py: test_an_outage_in_the_middle_returns_the_best_so_far",
    ],
    "parse error, context overflow": [
        "test_a_prompt_that_is_at_fault_counts_against_its_candidate_alone",
        "test_evaluation.py: test_an_answer_that_cannot_be_parsed_counts_as_the_lowest_score",
    ],
    "empty stdout": [
        "test_nothing_is_printed",
        "test_base.py: test_what_the_base_prints_is_dropped",
    ],
    "warnings are errors on import": ["test_the_import_warns_of_nothing_and_loads_no_torch"],
    "import without torch": ["test_the_import_warns_of_nothing_and_loads_no_torch"],
}

TASK = "Rate the text."
ABLE = {"warm": 3, "five": 3}
"""Each of these words in a prompt lets the task LM answer three more of the examples."""


def rate(system, user):
    number = int(re.findall(r"#(\d+)", f"#99 {user}")[-1])  # other questions than ours name no example
    return f"y{number}" if number < sum(count for word, count in ABLE.items() if word in system) else "no"


def answer(system, user):
    """Answer every field that the prompt asks for, in the form that it asks for."""
    asked = user.rpartition("Respond with")[2]
    names = [name for name in re.findall(r"`(?:\[\[ ## |<)?(\w+)", asked) if name != "completed"]
    fixed = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": "{}"}
    code = {name: f"```python\nSUBMIT({rate(system, user)})\n```" for name in ("code", "generated_code")}
    values = {name: {**fixed, **code}.get(name) or rate(system, user) for name in names}
    if "JSON" in asked:
        return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values.items()) + "}"
    if "`<" in asked:
        return "\n".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return "\n".join(f"[[ ## {name} ## ]]\n{value}\n" for name, value in values.items())


@pytest.fixture(autouse=True)
def lm():
    lm = rule_lm(answer)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(), num_threads=2):
        yield lm


def examples(count=6):
    return [dspy.Example(review=f"#{n}", rating=f"y{n}").with_inputs("review") for n in range(count)]


def same(example, prediction, trace=None, pred_name=None, pred_trace=None):
    return float(example.rating == prediction.rating)


def optimizer(*script, metric=same, **settings):
    settings = {"denoising": Denoising(num_candidates=2), "budget": Budget(metric_calls=60), **settings}
    return DiffusionInfill(metric, infiller=ScriptedInfiller(*(script or ("Be warm", "Judge"))), **settings)


def compile_once(program, *script, **settings):
    return optimizer(*script, **settings).compile(program, trainset=examples())


def signature(text=TASK):
    return dspy.Signature("review -> rating", text)


class Holder(dspy.Module):
    """A program around what it is given."""

    def __init__(self, **parts):
        super().__init__()
        vars(self).update(parts)

    def forward(self, review):
        return self.rate(review=review)


def test_every_item_of_the_contract_is_held_by_a_test():
    folder = Path(__file__).parent
    for item, tests in CONTRACT.items():
        for test in tests:
            file, _, name = test.rpartition(": ")
            assert f"\ndef {name}(" in (folder / (file or Path(__file__).name)).read_text(), item


class Submitting:
    """An interpreter for code that does nothing but submit."""

    def __init__(self):
        self.tools = {}

    def start(self):
        pass

    def shutdown(self):
        pass

    def execute(self, code, variables=None):
        submitted = re.search(r"SUBMIT\((\w+)\)", code)
        return FINAL({"rating": submitted[1]}) if submitted else ""


FINAL = getattr(importlib.import_module("dspy.primitives"), "FinalOutput", lambda output: output)


def search(query: str) -> str:
    """Look it up."""
    return query


def with_interpreter(module):
    """A module of DSPy's whose code runs in a double."""
    if "interpreter_factory" in inspect.signature(module.__init__).parameters:
        return module(signature(), interpreter_factory=Submitting)
    return module(signature(), interpreter=Submitting())


MODULES = {
    "Predict": lambda: dspy.Predict(signature()),
    "ChainOfThought": lambda: dspy.ChainOfThought(signature()),
    "ReAct": lambda: dspy.ReAct(signature(), tools=[search]),
    "Refine": lambda: dspy.Refine(dspy.Predict(signature()), 2, lambda inputs, prediction: 1.0, 1.0),
    "ProgramOfThought": lambda: with_interpreter(dspy.ProgramOfThought),
    "RLM": lambda: with_interpreter(dspy.RLM),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_dspys_is_improved_and_keeps_its_protocol(name):
    if not hasattr(dspy, name):
        pytest.skip(f"DSPy {dspy.__version__} has no {name} yet")
    program = MODULES[name]()
    before = instructions_of(program)
    tuned = compile_once(program)
    after, kept = instructions_of(tuned), protocols(program)
    assert type(tuned) is type(program)
    if name == "ProgramOfThought":  # whose instructions are all protocol, the task's own not among them
        assert after == before
    else:
        assert "warm" in "".join(after.values())
        assert tuned.detailed_results["score_after"] == 0.5
    assert all(text in after[predictor] for predictor, texts in kept.items() for text in texts)
    assert bool(any(kept.values())) == (name in ("ReAct", "ProgramOfThought", "RLM"))
    assert instructions_of(program) == before


def test_predictors_that_dspy_does_not_find_are_named_and_left_alone(caplog):
    program = Holder(rate=dspy.Predict(signature()), many=[[dspy.Predict(signature())]])
    tuned = compile_once(program)
    assert instructions_of(tuned) == {"rate": "Be warm"}
    assert tuned.many[0][0].signature.instructions == TASK
    assert "DSPy does not find the predictors ['many[0][0]']" in caplog.text


def test_no_warning_names_a_predictor_that_dspy_finds_or_that_is_frozen(caplog):
    frozen = Holder(rate=dspy.Predict(signature()))
    frozen._compiled = True
    compile_once(Holder(rate=dspy.ChainOfThought(signature()), frozen=frozen, many=[frozen.rate]))
    assert "does not find" not in caplog.text


def test_a_predictor_under_two_names_is_one():
    predictor = dspy.Predict(signature())
    tuned = compile_once(Holder(rate=predictor, again=predictor))
    assert instructions_of(tuned) == {"rate": "Be warm"}
    assert tuned.again is tuned.rate


def test_a_frozen_part_stays_as_it_is():
    frozen = Holder(rate=dspy.Predict(signature("Take note.")))
    frozen._compiled = True
    tuned = compile_once(Holder(rate=dspy.Predict(signature()), frozen=frozen))
    assert instructions_of(tuned) == {"rate": "Be warm"}
    assert tuned.frozen.rate.signature.instructions == "Take note."
    assert (tuned.frozen._compiled, tuned._compiled) == (True, False)


class Person(pydantic.BaseModel):
    name: str


class Typed(dspy.Signature):
    """Rate the text."""

    review: str = dspy.InputField(desc="in English")
    author: Person | None = dspy.InputField(desc="who wrote it")
    stars: Literal["none", "one", "two"] = dspy.OutputField(desc="two are best")
    rating: str = dspy.OutputField(min_length=1)


def test_types_and_descriptions_stay():
    typed = rule_lm(lambda system, user: re.sub(r"(stars ## \]\]\n)\w+", r"\g<1>two", answer(system, user)))
    more = {"author": Person(name="A"), "stars": "two"}
    data = [dspy.Example(**example, **more).with_inputs("review", "author") for example in examples()]
    with dspy.context(lm=typed):
        tuned = optimizer().compile(dspy.Predict(Typed), trainset=data)
    assert instructions_of(tuned) == {"self": "Be warm"}
    assert signature_of(tuned).equals(Typed.with_instructions("Be warm"))
    assert tuned(review="#1", author=Person(name="A"), lm=typed).stars == "two"


def test_one_signature_class_in_two_predictors_is_not_written_to():
    class Rate(dspy.Signature):
        """Rate the text."""

        review: str = dspy.InputField()
        rating: str = dspy.OutputField()

    program = Holder(rate=dspy.Predict(Rate), spare=dspy.Predict(Rate))
    tuned = compile_once(program, lock={"spare": [TASK]})
    assert instructions_of(tuned) == {"rate": "Be warm", "spare": TASK}
    assert instructions_of(program) == {"rate": TASK, "spare": TASK}
    assert (Rate.instructions, Rate.__doc__) == (TASK, TASK)
    assert program.rate.signature is program.spare.signature is Rate


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
def test_every_adapter_gives_the_same_winner(adapter):
    with dspy.context(adapter=adapter()):
        tuned = compile_once(dspy.Predict(signature()))
    assert instructions_of(tuned) == {"self": "Be warm"}
    assert tuned.detailed_results["score_after"] == 0.5
    assert tuned.detailed_results["num_failures"] == 0


def test_a_tuned_program_can_be_pickled_and_saved_whole(tmp_path):
    tuned = compile_once(dspy.ChainOfThought(signature()))
    whole = cloudpickle.loads(cloudpickle.dumps(tuned))  # signatures made at run time are beyond pickle
    tuned.save(tmp_path / "program", save_program=True)
    allowed = {"allow_pickle": True} if "allow_pickle" in inspect.signature(dspy.load).parameters else {}
    loaded = dspy.load(str(tmp_path / "program"), **allowed)
    for copied in (whole, loaded):
        assert instructions_of(copied) == instructions_of(tuned)
        assert [Edit.of(vars(edit)) for edit in copied.edits] == tuned.edits
        assert copied.edits[0].after == tuned.edits[0].after
        assert instructions_of(revert(copied, 0)) == instructions_of(revert(tuned, 0))
        assert copied.detailed_results == tuned.detailed_results


@pytest.mark.skipif(dspy.__version__ < "3.2", reason="BetterTogether took no optimizers by name yet")
def test_better_together_can_be_the_base(lm):
    student = dspy.Predict(signature())
    student.lm = lm
    base = BetterTogether(metric=same, infill=optimizer("Be warm"), again=optimizer("Judge"))
    inner = {"valset": examples(), "strategy": "infill -> again"}
    tuned = optimizer("warm five", base=base, budget=Budget(metric_calls=200)).compile(
        student, trainset=examples(), base_kwargs=inner
    )
    results = tuned.detailed_results
    assert (results["base_error"], results["instructions_before"]) == (None, {"self": "Be warm"})
    assert (results["score_before"], results["score_after"]) == (0.5, 1.0)
    assert tuned.lm is lm


BASES = {
    "BootstrapFewShot": lambda lm: teleprompt.BootstrapFewShot(metric=same),
    "BootstrapFewShotWithRandomSearch": lambda lm: teleprompt.BootstrapFewShotWithRandomSearch(
        metric=same, num_candidate_programs=1, num_threads=2
    ),
    "LabeledFewShot": lambda lm: teleprompt.LabeledFewShot(k=2),
    "SIMBA": lambda lm: teleprompt.SIMBA(metric=same, bsize=4, num_candidates=2, max_steps=1, num_threads=2),
    "InferRules": lambda lm: teleprompt.InferRules(metric=same, num_candidates=1, num_threads=2),
    "MIPROv2": lambda lm: teleprompt.MIPROv2(
        metric=same, prompt_model=lm, task_model=lm, auto=None, num_candidates=2, num_threads=2
    ),
}
ARGUMENTS = {"MIPROv2": {"num_trials": 2, "minibatch": False}}
if "requires_permission_to_run" in inspect.signature(teleprompt.MIPROv2.compile).parameters:
    ARGUMENTS["MIPROv2"]["requires_permission_to_run"] = False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BASES)
def test_every_optimizer_of_dspys_can_be_the_base(name, lm):
    if name == "MIPROv2":
        pytest.importorskip("optuna")
    student = dspy.Predict(signature())
    settings = {"base": BASES[name](lm), "metric": same, "budget": Budget(metric_calls=150, base_share=0.6)}
    tuned = optimizer("Be warm", **settings).compile(
        student, trainset=examples(), base_kwargs=ARGUMENTS.get(name)
    )
    results = tuned.detailed_results
    assert results["base_error"] is None
    assert results["metric_calls"] <= 150
    assert results["score_after"] >= 0.5
    assert instructions_of(student) == {"self": TASK}


def test_mlflow_finds_what_it_patches():
    # mlflow.dspy.autolog() patches `compile` of the subclasses that Teleprompter itself has by then
    assert DiffusionInfill in Teleprompter.__subclasses__()
    assert "compile" in vars(DiffusionInfill)
    plain = (str, int, float, type(None), dict, list)
    assert all(isinstance(value, plain) for value in optimizer().get_params().values())


class Order(BaseCallback):
    def __init__(self):
        self.heard = []

    def on_compile_start(self, call_id, instance, inputs):
        self.heard.append(f"start {type(instance).__name__}")

    def on_compile_end(self, call_id, outputs, exception=None):
        self.heard.append("end")

    def on_evaluate_start(self, call_id, instance, inputs):
        self.heard.append("evaluate")


@pytest.mark.skipif(not hasattr(BaseCallback, "on_compile_start"), reason="this DSPy tells of no compile")
def test_callbacks_hear_the_base_within_the_run():
    order = Order()
    base = teleprompt.BootstrapFewShotWithRandomSearch(metric=same, num_candidate_programs=1, num_threads=1)
    with dspy.context(callbacks=[order]):
        compile_once(dspy.Predict(signature()), base=base, budget=Budget(metric_calls=150))
    first, second, *_, last = order.heard
    assert (first, second, last) == (
        "start DiffusionInfill",
        "start BootstrapFewShotWithRandomSearch",
        "end",
    )
    assert order.heard.index("evaluate") < len(order.heard) - 2
    assert order.heard[-2] == "end"


def test_it_compiles_in_a_thread_and_beside_an_event_loop(lm):
    found = []

    def compile_here():
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            found.append(instructions_of(compile_once(dspy.Predict(signature()))))

    thread = threading.Thread(target=compile_here)
    thread.start()
    thread.join()

    async def beside():
        # nothing is configured anew: the context of this test reaches the thread
        return await asyncio.to_thread(compile_once, dspy.Predict(signature()))

    found.append(instructions_of(asyncio.run(beside())))
    assert found == [{"self": "Be warm"}] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_a_real_sigint_returns_the_best_so_far():
    calls = []

    def metric(example, prediction):
        calls.append(example)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return same(example, prediction)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        tuned = compile_once(dspy.Predict(signature()), "Be warm", "Be warm and five", metric=metric)
    finally:
        signal.signal(signal.SIGINT, before)
    results = tuned.detailed_results
    assert results["stop_reason"] == "interrupted"
    assert results["metric_calls"] == len(calls) < 60
    assert instructions_of(tuned) == results["instructions_after"]


@pytest.mark.parametrize(("factor", "offset"), [(1.0, -5.0), (100.0, 0.0), (-0.01, 0.02), (0.5, 0.5)])
def test_the_scale_of_a_metric_does_not_change_the_winner(factor, offset):
    def metric(example, prediction):
        return factor * same(example, prediction) + offset

    tuned = compile_once(dspy.Predict(signature()), "Be warm", "Judge", metric=metric)
    better = "Be warm" if factor > 0 else TASK
    assert instructions_of(tuned) == {"self": better}
    assert tuned.detailed_results["score_before"] == pytest.approx(offset)


def overflow(prompt):
    """What DSPy raises where a prompt is too long, in this version of it."""
    from dspy.utils import exceptions

    kind = getattr(exceptions, "ContextWindowExceededError", None)
    if kind is not None:
        return kind(message=prompt)
    from litellm import ContextWindowExceededError

    return ContextWindowExceededError(message=prompt, model="rule/test", llm_provider="rule")


@pytest.mark.parametrize("fault", ["parse", "overflow"])
def test_a_prompt_that_is_at_fault_counts_against_its_candidate_alone(fault):
    def at_fault(system, user):
        if "Judge" not in system:
            return answer(system, user)
        if fault == "overflow":
            raise overflow("too long")
        return "no fields at all"

    with dspy.context(lm=rule_lm(at_fault)):
        tuned = compile_once(dspy.Predict(signature()), "Judge", "Be warm")
    results = tuned.detailed_results
    assert instructions_of(tuned) == {"self": "Be warm"}
    assert results["num_failures"] >= 3
    assert results["stop_reason"] == "no window helped in 2 passes"


@pytest.mark.parametrize("name", ["LMRateLimitError", "LMServerError", "LMAuthError"])
def test_an_error_of_a_service_is_never_a_score(name, monkeypatch):
    from dspy.utils import exceptions

    monkeypatch.setattr(failures, "PAUSES", (0,))
    error = getattr(exceptions, name, None) or type(name, (Exception,), {})

    def down(system, user):
        raise error("down")

    lm = rule_lm(down)
    lm.num_retries = 0  # DSPy's own, with pauses
    with dspy.context(lm=lm), pytest.raises(EvaluationError, match="down"):
        compile_once(dspy.Predict(signature()))


def test_nothing_is_printed(capfd):
    compile_once(dspy.Predict(signature()), base=teleprompt.COPRO(metric=same, breadth=2, depth=1))
    assert capfd.readouterr().out == ""


def python(code):
    """Run code in a process of its own; what it prints."""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stdout


EVERYTHING = """
import warnings, dspy, dspy.teleprompt
warnings.simplefilter("error")
import dspy_diffusion_infill as package
for name in package.__all__:
    if name not in ("DiffusionLM", "align_judge"):  # need extras
        getattr(package, name)
"""


HEARD = """
import sys
try:
    warnings.warn("anything")
except UserWarning:
    print("warnings are errors")
print("torch" in sys.modules, "json" in sys.modules)
"""


def test_the_import_warns_of_nothing_and_loads_no_torch():
    assert python(EVERYTHING + HEARD) == "warnings are errors\nFalse True\n"

"""Runs are the same run if their data, metric and program are, in this process or another one."""

import dataclasses
import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import dspy
import pydantic
import pytest
from dspy.teleprompt import COPRO

from dspy_diffusion_infill.search.canonical import canonical
from dspy_diffusion_infill.search.fingerprint import digest, fingerprint
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.task import make_task
from tests.doubles import ScriptedInfiller, obey, reviews, rule_lm


@pytest.fixture(autouse=True)
def lm():
    with dspy.context(lm=rule_lm(obey)):
        yield


def marks(metric=lambda example, prediction: 1.0, program=None, examples=None, **settings):
    task = make_task(program or dspy.Predict("review -> rating"), examples or reviews(2), None)
    return fingerprint(task, metric=Metric(metric), infiller=ScriptedInfiller("a"), settings=settings)


@dataclasses.dataclass
class Point:
    x: int
    seen: set[str]


class Stars(pydantic.BaseModel):
    count: int
    tags: set[str]


class Plain:
    def __init__(self, *values):
        self.values, self.lock = values, threading.Lock()


TAGS = {"Paris", "Rome", "Berlin", "Oslo", "Bern", "Wien", "Prag", "Riga"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1: "a", "b": 2}, {1: "a", "b": 3}),
        ({("a", 1): "a"}, {("a", 2): "a"}),
        ({1: "a"}, {"1": "a"}),
        ({"Paris", "Rome"}, {"Paris", "Berlin"}),
        (Point(1, TAGS), Point(2, TAGS)),
        (Stars(count=1, tags=TAGS), Stars(count=1, tags=set())),
        (Plain("a", TAGS), Plain("b", TAGS)),
        (dspy.Example(a=TAGS).with_inputs("a"), dspy.Example(a={"Rome"}).with_inputs("a")),
    ],
)
def test_any_data_are_told_apart(one, other):
    assert digest({"meta": [one]}) != digest({"meta": [other]})
    assert (
        marks(examples=[dspy.Example(review="0", meta=one).with_inputs("review")])["trainset"]
        != (marks(examples=[dspy.Example(review="0", meta=other).with_inputs("review")])["trainset"])
    )


def test_numbers_that_the_text_of_an_array_leaves_out_count():
    numpy = pytest.importorskip("numpy")
    long = numpy.zeros(5000)
    changed = long.copy()
    changed[2500] = 1
    assert digest(long) != digest(changed)


def test_what_holds_itself_has_a_digest():
    loop = [1]
    loop.append(loop)
    assert canonical(loop) == [1, "..."]


def test_the_digest_of_plain_data_is_that_of_its_json():
    assert digest({"b": [1, None], "a": "x"}) == digest({"a": "x", "b": (1, None)})
    assert canonical({"b": [1, None], "a": "x"}) == {"b": [1, None], "a": "x"}


def test_a_digest_is_the_same_in_every_process():
    data = "digest([TAGS, Point(1, TAGS), Stars(count=1, tags=TAGS), Plain('a', TAGS), bonus, Judge(1)])"
    found = "marks(program=holding(good=TAGS, search=bonus), base=copro())"
    values = f"[{data}, *map({found}.get, ('program', 'base', 'adapter'))]"
    other = subprocess.run(
        [sys.executable, "-c", f"from tests.test_fingerprint import *\nprint({values})"],
        env={**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str(eval(values))


def bonus(example, prediction, trace=None, *, bonus=0.0):
    return bonus


def scaled(by):
    counts = []

    def metric(example, prediction):
        counts.append(1)
        return by

    return metric


def defaulting(value):
    def metric(example, prediction, by=value):
        return by

    return metric


class Judge:
    def __init__(self, weight):
        self.weight, self.lock, self.seen = {"weight": weight}, threading.Lock(), [threading.Lock()]

    def __call__(self, example, prediction):
        return self.weight["weight"]

    def score(self, example, prediction):
        return self.weight["weight"]


@pytest.mark.parametrize(
    "make",
    [
        lambda by: functools.partial(bonus, bonus=by),
        lambda by: functools.partial(functools.partial(bonus, bonus=by), trace=None),
        scaled,
        defaulting,
        Judge,
        lambda by: Tallying(by),
        lambda by: Judge(by).score,
        lambda by: Scorer(by).score,
        lambda by: functools.partial(Judge(by)),
    ],
)
def test_a_metric_is_what_it_was_made_with(make):
    assert marks(make(0.0))["metric"] == marks(make(0.0))["metric"] != marks(make(0.3))["metric"]


def counting():
    calls = 0

    def metric(example, prediction):
        nonlocal calls
        calls += 1
        return 1.0

    return metric


class Counting(Judge):
    def __init__(self, weight=1):
        super().__init__(weight)
        self.calls, self.seen = 0, []

    def __call__(self, example, prediction):
        self.calls += 1
        self.seen.append(self.calls)
        return 1.0


class Scorer:
    def __init__(self, weight=1.0):
        self.weight, self.calls = weight, 0

    def score(self, example, prediction):
        self.calls += 1
        return self.weight


@dataclasses.dataclass
class Tallying:
    weight: float = 1.0
    calls: int = 0

    def __call__(self, example, prediction):
        self.calls += 1
        return self.weight


@pytest.mark.parametrize("make", [lambda: scaled(1.0), counting, Counting, Tallying, lambda: Scorer().score])
def test_what_a_metric_counts_makes_it_no_other(make):
    metric = make()
    before = marks(metric)
    metric(None, None)
    assert marks(metric) == before


def rater(top=1, change=None):
    class Rater(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rate, self.top = dspy.Predict("review -> rating"), top

        def forward(self, review):
            return self.rate(review=review)

    if change:
        Rater.forward = change
    return Rater()


def other_forward(self, review):
    return None


def test_a_program_is_its_code_and_its_settings():
    outer = dspy.Module()
    outer.steps = [rater()]
    deeper = dspy.Module()
    deeper.steps = [rater(change=other_forward)]
    programs = [rater(), rater(top=2), rater(change=other_forward), outer, deeper]
    assert len({marks(program=program)["program"] for program in programs}) == 5
    assert marks(program=rater()) == marks(program=rater())


def looking(found):
    def search(query: str) -> str:
        """Look it up."""
        return found

    return search


def holding(**attributes):
    program = rater()
    vars(program).update(attributes)
    return program


def frozen(text):
    inner = dspy.Predict(dspy.Signature("review -> rating", text))
    inner._compiled = True
    return holding(inner=inner)


SAMPLED = dspy.Predict("review -> rating", temperature=0.9)
CLIENTS = [threading.Lock(), threading.Lock()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dspy.Predict("review -> rating"), SAMPLED),
        (dspy.ReAct("review -> rating", [looking("a")]), dspy.ReAct("review -> rating", [looking("b")])),
        (holding(search=looking("a")), holding(search=looking("b"))),
        (
            holding(search=functools.partial(bonus, bonus=1)),
            holding(search=functools.partial(bonus, bonus=2)),
        ),
        (holding(good=[1, 2]), holding(good=[1])),
        (holding(good={"a": {1}}), holding(good={"a": {2}})),
        (frozen("Rate it."), frozen("Grade it.")),
    ],
)
def test_another_program_is_told_by_what_it_holds(one, other):
    assert marks(program=one)["program"] == marks(program=one)["program"] != marks(program=other)["program"]
    assert marks(teacher=one)["teacher"] != marks(teacher=other)["teacher"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (holding(client=CLIENTS[0]), holding(client=CLIENTS[1])),
        (holding(api_key="sk-1", headers={"a": 1}), holding(api_key="sk-2", headers={"a": 2})),
        (holding(how={"auth_token": "1", "top": 2}), holding(how={"auth_token": "2", "top": 2})),
        (holding(tools=[Judge(1).score]), holding(tools=[Judge(2).score])),
        (holding(edits=[1], detailed_results={"seconds": 1}, history=[1]), holding(cache={"a": 1})),
    ],
)
def test_clients_secrets_and_what_runs_leave_behind_make_no_other_program(one, other):
    assert marks(program=one) == marks(program=other)


def test_a_program_that_holds_itself_has_a_digest():
    loop = ["a"]
    loop.append(loop)
    assert marks(program=holding(loop=loop)) != marks(program=holding(loop=["b", loop]))


def test_examples_with_other_inputs_are_others():
    rows = [
        dspy.Example(review="0", hint="a").with_inputs(*inputs) for inputs in (["review"], ["review", "hint"])
    ]
    one, other = (marks(examples=[row]) for row in rows)
    assert one["trainset"] != other["trainset"]
    assert one["valset"] != other["valset"]


def copro(metric=bonus, lm="rule/one", **settings):
    return COPRO(metric=metric, prompt_model=dspy.LM(lm), **settings)


def test_a_base_is_its_settings_its_metric_and_its_lm():
    bases = [copro(), copro(breadth=4), copro(metric=other_forward), copro(lm="rule/two")]
    assert len({marks(base=base)["base"] for base in bases}) == 4
    assert marks(base=copro()) == marks(base=copro())


def test_an_adapter_is_its_parameters():
    adapters = [
        dspy.ChatAdapter(),
        dspy.ChatAdapter(use_native_function_calling=True),
        dspy.TwoStepAdapter(dspy.LM("rule/one")),
        dspy.TwoStepAdapter(dspy.LM("rule/two")),
    ]
    found = set()
    for adapter in adapters * 2:
        with dspy.context(adapter=adapter):
            found.add(marks()["adapter"])
    assert len(found) == 4


def test_code_without_a_source_is_what_it_was_compiled_to():
    found = []
    for constant in ("1.0", "2.0", "[n for n in (3,)]"):
        names = {}
        exec(f"def metric(example, prediction): return {constant}", names)
        found.append(marks(names["metric"])["metric"])
    assert len(set(found)) == 3

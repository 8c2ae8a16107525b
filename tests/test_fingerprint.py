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

from dspy_diffusion_infill.search.canonical import canonical
from dspy_diffusion_infill.search.fingerprint import digest, fingerprint
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.task import make_task
from tests.doubles import ScriptedInfiller, obey, reviews, rule_lm


@pytest.fixture(autouse=True)
def lm():
    with dspy.context(lm=rule_lm(obey)):
        yield


def marks(metric=lambda example, prediction: 1.0, program=None, examples=None):
    task = make_task(program or dspy.Predict("review -> rating"), examples or reviews(2), None)
    return fingerprint(task, metric=Metric(metric), infiller=ScriptedInfiller("a"), settings={})


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
    values = "digest([TAGS, Point(1, TAGS), Stars(count=1, tags=TAGS), Plain('a', TAGS), bonus, Judge(1)])"
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


@dataclasses.dataclass
class Tallying:
    weight: float = 1.0
    calls: int = 0

    def __call__(self, example, prediction):
        self.calls += 1
        return self.weight


@pytest.mark.parametrize("make", [lambda: scaled(1.0), counting, Counting, Tallying])
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


def test_code_without_a_source_is_what_it_was_compiled_to():
    found = []
    for constant in ("1.0", "2.0", "[n for n in (3,)]"):
        names = {}
        exec(f"def metric(example, prediction): return {constant}", names)
        found.append(marks(names["metric"])["metric"])
    assert len(set(found)) == 3

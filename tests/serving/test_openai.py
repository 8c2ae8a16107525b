"""The clients that people have already: curl, the openai package, dspy.LM."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import dspy
import httpx
import openai
import pytest
from dspy.utils.exceptions import LMError

from dspy_diffusion_infill.engine.denoise import denoise, row_seed
from dspy_diffusion_infill.engine.generation import Generation, read_answer
from dspy_diffusion_infill.engine.reverse import Task
from dspy_diffusion_infill.prompts.canvas import Message

QUESTION = [{"role": "user", "content": "A dull, predictable story."}]


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_an_answer_is_that_of_this_process(client, embedded):
    vocabulary = embedded.vocabulary
    laid_out = vocabulary.lay_out([Message.text("user", QUESTION[0]["content"])], answer_tokens=6)
    task = Task(laid_out.ids, row_seed(7, laid_out.ids, 1))
    (filled,) = denoise(embedded, [task], Generation().decoding(1.0, vocabulary.stop_ids))
    here = read_answer(vocabulary, filled.ids[laid_out.masked[-1].start :], ())
    there = client.chat.completions.create(
        model="embedded", messages=QUESTION, max_tokens=6, temperature=1.0, seed=7, n=2
    )
    assert [choice.index for choice in there.choices] == [0, 1]
    assert there.choices[1].message.content == here.text
    assert there.choices[1].finish_reason == ("stop" if here.stopped else "length")
    assert there.usage.prompt_tokens == len(laid_out.ids) - 6


def test_a_stream_adds_up_to_the_answer(client):
    asked = {"model": "embedded", "messages": QUESTION, "max_tokens": 24}
    body = {"extra_body": {"threshold": None, "block_length": 4}}
    whole = client.chat.completions.create(**asked, **body)
    chunks = list(
        client.chat.completions.create(**asked, **body, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stop_text_ends_the_answer(client):
    whole = client.chat.completions.create(model="embedded", messages=QUESTION, max_tokens=12).choices[0]
    stop = whole.message.content[1:3]
    cut = client.chat.completions.create(
        model="embedded", messages=QUESTION, max_tokens=12, stop=[stop]
    ).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole.message.content.partition(stop)[0], "stop")


def test_completions_continue_texts_and_fill_what_stands_before_a_suffix(client):
    found = client.completions.create(
        model="embedded", prompt=["Rate the", "Rate it"], max_tokens=4, n=2, temperature=1, seed=1
    )
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    between = client.completions.create(
        model="embedded", prompt="Rate the", suffix=" from 1 to 5.", max_tokens=3
    )
    assert between.usage.completion_tokens == 3
    streamed = client.completions.create(
        model="embedded", prompt="Rate the", suffix=" from 1 to 5.", max_tokens=3, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == between.choices[0].text


def test_equal_prompts_get_answers_of_their_own(client):
    def ask(prompts):
        found = client.completions.create(
            model="embedded", prompt=prompts, max_tokens=8, temperature=5, seed=1, n=2
        )
        return [choice.text for choice in found.choices]

    found = ask(["Rate the"] * 2)
    assert len(set(found)) == 4
    assert ask("Rate the") == found[:2]


def test_choices_that_share_a_task_are_streamed_each(client):
    body = {"threshold": None, "block_length": 4}
    asked = {"model": "embedded", "prompt": "Rate the", "max_tokens": 12, "extra_body": body}
    whole = client.completions.create(**asked)
    texts = ["", "", ""]
    for chunk in client.completions.create(**asked, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [whole.choices[0].text] * 3


def test_answers_that_share_a_task_count_each(client):
    with pytest.raises(openai.BadRequestError, match="max_tokens times n must be at most 65536"):
        client.completions.create(model="embedded", prompt="Rate the", max_tokens=65, n=1024, stream=True)


def test_models_are_listed_and_other_names_refused(client):
    assert [model.id for model in client.models.list()] == ["embedded"]
    assert client.models.retrieve("embedded").id == "embedded"
    with pytest.raises(openai.NotFoundError, match="model must be 'embedded'; got 'gpt'"):
        client.chat.completions.create(model="gpt", messages=QUESTION)


def test_what_is_not_supported_is_refused_and_not_ignored(client):
    with pytest.raises(openai.BadRequestError, match="tools: Extra inputs are not permitted"):
        client.chat.completions.create(
            model="embedded", messages=QUESTION, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.BadRequestError, match="at most 512 tokens together"):
        client.chat.completions.create(model="embedded", messages=QUESTION, max_tokens=5000)


@pytest.mark.parametrize("name", ["hosted_vllm/embedded", "openai/embedded"])
def test_a_dspy_program_runs_on_it(url, name):
    lm = dspy.LM(name, api_base=f"{url}/v1", api_key="none", max_tokens=8, cache=False, num_retries=0)
    assert len(lm("A dull, predictable story.")) == 1
    several = lm("A dull, predictable story.", n=2, temperature=1.0)
    assert len(several) == 2
    assert lm.history[-1]["usage"]["completion_tokens"] >= 1


def test_dspy_hears_what_is_wrong(url):
    lm = dspy.LM("openai/nobody", api_base=f"{url}/v1", api_key="none", cache=False, num_retries=0)
    with pytest.raises(LMError, match="nobody"):
        lm("hello")


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_gets_a_filling(url):
    body = {"canvases": [{"messages": [{"role": "system", "content": ["Rate the text", {"mask": 4}, "."]}]}]}
    command = [
        "curl",
        "-sS",
        f"{url}/v1/infill",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(body),
    ]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    ((filling,),) = answer["fillings"]
    assert len(filling["texts"]) == 1
    assert len(filling["confidences"][0]) == filling["num_passes"] == 4


def test_a_client_that_leaves_a_stream_frees_its_place(url):
    body = {"model": "embedded", "messages": QUESTION, "max_tokens": 400, "stream": True, "threshold": None}
    before = left(url)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 120
    while "running_rows 0.0" not in httpx.get(f"{url}/metrics", timeout=60).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "open_requests 0.0" in httpx.get(f"{url}/metrics", timeout=60).text
    assert left(url) == before + 1


def left(url):
    """How many clients left."""
    metrics = httpx.get(f"{url}/metrics", timeout=60).text
    return float(metrics.partition("\ndiffusion_infill_cancelled_requests_total ")[2].partition("\n")[0])


@pytest.mark.parametrize(("field", "value"), [("echo", 0), ("best_of", True), ("presence_penalty", False)])
def test_zero_is_not_false_and_one_is_not_true(url, field, value):
    body = {"model": "embedded", "prompt": "Rate", "max_tokens": 1, field: value}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]

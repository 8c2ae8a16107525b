from __future__ import annotations

import asyncio
import copy
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
import torch
from dspy import lm15
from dspy.utils.exceptions import ContextWindowExceededError, LMUnsupportedFeatureError

from dspy_diffusion_infill.engine import requests
from dspy_diffusion_infill.engine.generation import Generation
from dspy_diffusion_infill.engine.lm import DiffusionEngine, DiffusionLM
from dspy_diffusion_infill.errors import ModelError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from tests.engine.checkpoints import write_llama_shaped


class BareAdapter(dspy.Adapter):
    """Shows the input, takes the completion: random weights follow no format."""

    def format(self, signature, demos, inputs):
        return [{"role": "user", "content": str(inputs)}]

    def parse(self, signature, completion):
        return {name: completion for name in signature.output_fields}


@pytest.fixture
def lm(llama_shaped):
    return DiffusionLM(str(llama_shaped), max_tokens=6, cache=False, generation=Generation(threshold=None))


def request(text="Rate it.", **config):
    return lm15.Request(
        model="m", messages=(lm15.Message.user(text),), config=lm15.Config(max_tokens=6, **config)
    )


def batches(engine):
    """Record the size of each batch the engine runs."""
    sizes = []
    run = engine._batcher._run
    engine._batcher._run = lambda jobs: (sizes.append(len(jobs)), run(jobs))[1]
    return sizes


def test_weights_are_placed_as_load_places_them(llama_shaped):
    with pytest.raises(SettingsError, match=r"bits must be 4, 8 or None; got 3"):
        DiffusionLM(str(llama_shaped), bits=3)
    with pytest.raises(SettingsError, match=r"memory_gb must be None on cpu"):
        DiffusionLM(str(llama_shaped), device="cpu", memory_gb=8)


def test_a_predict_gets_its_answer_from_the_model(lm):
    with dspy.context(lm=lm, adapter=BareAdapter()):
        prediction = dspy.Predict("review -> rating")(review="What a fine film!")
    assert isinstance(prediction.rating, str)
    usage = lm.history[-1]["usage"]
    prompt = [Message.text("user", "{'review': 'What a fine film!'}")]
    laid_out = lm.engine._model.vocabulary.lay_out(prompt, answer_tokens=6)
    assert usage["prompt_tokens"] == len(laid_out.ids) - 6
    assert usage["completion_tokens"] == 6


def test_an_answer_is_what_precedes_the_first_stop_token(lm, monkeypatch):
    vocabulary = lm.engine._model.vocabulary
    eot, text = 5, vocabulary.encode("a fine film")

    def plant(answer):
        def logits(ids, attention_mask, wanted):
            at = wanted.nonzero()[:, 1] - ids.shape[1] + 6
            return 9.0 * torch.nn.functional.one_hot(torch.tensor(answer)[at], 400)

        monkeypatch.setattr(lm.engine._model, "logits", logits)

    plant([*text, eot, *vocabulary.encode("!!!!")])
    response = lm.engine.complete(request())
    assert response.text == "a fine film"
    assert response.finish_reason == "stop"
    assert response.usage.output_tokens == len(text) + 1
    assert lm.engine.complete(request(stop=("fine",))).text == "a "
    plant(vocabulary.encode("!!!!!!"))
    assert lm.engine.complete(request()).text == "!!!!!!"
    assert lm.engine.complete(request()).finish_reason == "length"


def test_the_system_message_is_a_turn_of_its_own(lm):
    both = lm15.Request(model="m", system="Be brief.", messages=(lm15.Message.user("Hi"),))
    assert requests.read_messages(both) == [Message.text("system", "Be brief."), Message.text("user", "Hi")]
    developer = lm15.Request(model="m", messages=(lm15.Message.developer("Be brief."),))
    assert requests.read_messages(developer) == [Message.text("system", "Be brief.")]


def test_greedy_answers_are_equal_and_several_at_a_temperature_differ(lm, llama_shaped):
    assert len(set(lm("Rate it.", n=4))) == 1
    hot = lm("Rate it.", n=4, temperature=1.5)
    assert len(set(hot)) == 4
    again = DiffusionLM(str(llama_shaped), max_tokens=6, cache=False, generation=Generation(threshold=None))
    assert again("Rate it.", n=4, temperature=1.5) == hot


def test_a_seed_in_the_request_is_obeyed(llama_shaped):
    def answer(seed):
        return DiffusionEngine(str(llama_shaped)).complete(request(temperature=1.5, seed=seed)).text

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_concurrent_requests_become_few_batches_and_answer_as_alone(lm):
    prompts = [f"Rate the text {'very ' * (index % 5)}well {index}" for index in range(32)]
    alone = [lm(prompt)[0] for prompt in prompts]
    sizes = batches(lm.engine)
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda prompt: lm(prompt)[0], prompts))
    assert together == alone
    assert sum(sizes) == 32
    assert len(sizes) <= 8


def test_requests_of_different_temperatures_keep_their_own(lm):
    async def both():
        calls = [lm.acall("Rate it.", temperature=temperature) for temperature in (0.0, 1.5, 0.0)]
        return await asyncio.gather(*calls)

    cold, _, again = asyncio.run(both())
    assert cold == again == lm("Rate it.")


def test_awaited_requests_share_batches(lm):
    async def all_at_once():
        return await asyncio.gather(*(lm.acall(f"Rate {index}") for index in range(16)))

    sizes = batches(lm.engine)
    assert len(asyncio.run(all_at_once())) == 16
    assert len(sizes) <= 4


def test_an_answer_can_be_streamed(lm):
    program = dspy.streamify(dspy.Predict("review -> rating"))

    async def last():
        with dspy.context(lm=lm, adapter=BareAdapter()):
            return [item async for item in program(review="Fine.")][-1]

    assert asyncio.run(last()).rating == lm("{'review': 'Fine.'}")[0]


def test_copies_share_the_weights(lm):
    assert copy.deepcopy(lm).engine is lm.engine
    assert lm.copy(temperature=1.0).engine is lm.engine
    program = dspy.Predict("review -> rating")
    program.set_lm(lm)
    assert program.deepcopy().lm.engine is lm.engine


def test_a_program_is_saved_without_weights_and_loads_with_them(lm, tmp_path):
    program = dspy.Predict("review -> rating")
    program.set_lm(lm)
    program.save(tmp_path / "program.json")
    assert (tmp_path / "program.json").stat().st_size < 4000
    loaded = dspy.Predict("review -> rating")
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert loaded.lm.model == lm.model
    assert loaded.lm.engine._model is lm.engine._model
    assert loaded.lm("Rate it.") == lm("Rate it.")
    assert copy.copy(loaded.lm.engine) is loaded.lm.engine


def test_a_saved_lm_keeps_its_precision_wherever_it_is_loaded(llama_shaped):
    engine = DiffusionEngine(str(llama_shaped), loading={"dtype": "bfloat16"})
    assert DiffusionEngine.load_state(engine.dump_state()).name == engine.name
    assert DiffusionEngine(str(llama_shaped)).dump_state()["loading"]["dtype"] == "float32"


def test_a_saved_lm_refuses_another_checkpoint(lm, tmp_path):
    state = lm.engine.dump_state()
    state["model"] = str(write_llama_shaped(tmp_path, seed=9))
    with pytest.raises(ModelError, match=r"The saved LM must find tiny@.*; got "):
        DiffusionEngine.load_state(state)


def test_the_name_tells_the_checkpoint_and_every_setting(llama_shaped, lm):
    name = (
        f"{lm.engine._model.name}?steps=None&block_length=32&threshold=None&remasking=low_confidence&seed=0"
    )
    assert lm.model == f"diffusion/{name}"
    assert DiffusionLM(str(llama_shaped), generation=Generation(seed=1)).model != lm.model


def test_a_prompt_beyond_the_context_is_refused_with_the_counts(lm):
    with pytest.raises(
        ContextWindowExceededError, match=r"at most 128 tokens together; got \d+ and max_tokens=120"
    ):
        lm("Rate it.", max_tokens=120)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"top_p": 0.9}, "top_p"), ({"response_format": {"type": "json_object"}}, "response_format")],
)
def test_an_option_that_would_be_ignored_is_refused(lm, options, name):
    with pytest.raises(
        LMUnsupportedFeatureError, match=f"supports max_tokens, temperature, seed, stop; got {name}"
    ):
        lm("Rate it.", **options)


def test_tools_and_images_are_refused(lm):
    tool = lm15.FunctionTool(name="search", description="", parameters={"type": "object", "properties": {}})
    with pytest.raises(lm15.UnsupportedFeatureError, match="does not call tools"):
        lm.engine.complete(lm15.Request(model="m", messages=(lm15.Message.user("x"),), tools=(tool,)))
    picture = lm15.ImagePart(media_type="image/png", url="http://localhost/x.png")
    with pytest.raises(lm15.UnsupportedFeatureError, match="reads text only; the user turn holds more"):
        lm.engine.complete(
            lm15.Request(
                model="m", messages=(lm15.Message.user([picture]),), config=lm15.Config(max_tokens=2)
            )
        )


def test_an_answer_needs_a_length(lm):
    with pytest.raises(lm15.InvalidRequestError, match="max_tokens must be set"):
        lm.engine.complete(lm15.Request(model="m", messages=(lm15.Message.user("x"),)))


def test_an_older_dspy_is_told_what_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "dspy.lm15", None)
    monkeypatch.delattr(dspy, "lm15")
    with pytest.raises(ImportError, match=r"DiffusionLM needs dspy 3.4 or newer.*; found 3\."):
        runpy.run_path(requests.__file__)


def test_settings_are_checked_at_construction():
    with pytest.raises(SettingsError, match="block_length must be at least 1; got 0"):
        Generation(block_length=0)
    with pytest.raises(SettingsError, match="threshold must be above 0"):
        Generation(threshold=0.0)
    with pytest.raises(SettingsError, match="steps must be at least 1"):
        Generation(steps=0)

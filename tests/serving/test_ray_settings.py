"""What the application on Ray is told, and what Ray is told by it; Ray itself is not needed."""

from __future__ import annotations

import importlib

import pytest

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError
from dspy_diffusion_infill.serving import ray_app


def options(**arguments):
    return ray_app.deployment_options(ray_app.read_settings(arguments))


def test_arguments_of_a_command_line_are_read():
    settings = ray_app.read_settings({"model": "some/model", "replicas": "3", "gpus": "0.5", "bits": "4"})
    assert (settings.model, settings.replicas, settings.gpus, settings.bits) == ("some/model", 3, 0.5, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": "0"}, "replicas: Input should be greater than or equal to 1; got '0'"),
        ({"replica": 2}, "replica: Extra inputs are not permitted. See"),
        ({"apikey": "sesame"}, "apikey: Extra inputs are not permitted. See"),
        ({"max_seconds": "inf"}, "max_seconds: Input should be a finite number; got 'inf'"),
        ({"api_key": "sesame"}, "DIFFUSION_INFILL_API_KEY, not among the arguments"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas must be at least replicas, 3; got 2"),
    ],
)
def test_an_argument_that_breaks_its_rule_is_refused(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        ray_app.read_settings(arguments)
    assert "sesame" not in str(caught.value)
    assert caught.value.__cause__ is None  # it would show the value


def test_ray_is_told_how_many_replicas_and_what_each_needs():
    found = options(replicas=2, gpus=4, cpus=8, max_requests=32, drain_seconds=7)
    assert found == {
        "name": "diffusion-infill",
        "num_replicas": 2,
        "max_ongoing_requests": 32,
        "max_queued_requests": 32,
        "graceful_shutdown_timeout_s": 7.0,
        "ray_actor_options": {"num_cpus": 8.0, "num_gpus": 4.0},
    }


def test_between_two_numbers_of_replicas_ray_chooses():
    found = options(replicas=2, max_replicas=6, target_requests=5)
    assert "num_replicas" not in found
    assert found["autoscaling_config"] == {
        "min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 5.0
    }  # fmt: skip


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_is_always_needed(monkeypatch, value):
    monkeypatch.delenv("DIFFUSION_INFILL_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("DIFFUSION_INFILL_API_KEY", value)
    with pytest.raises(SettingsError, match="DIFFUSION_INFILL_API_KEY must hold a key on Ray"):
        ray_app.app({"model": "embedded"})


def test_several_keys_stand_beside_one_another():
    assert ray_app.read_keys({"DIFFUSION_INFILL_API_KEY": "one two\n"}) == ["one", "two"]


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setenv("DIFFUSION_INFILL_API_KEY", "sesame")
    real = importlib.import_module

    def without(name):
        if name == "ray.serve":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(ray_app.importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"Serving on Ray .* 'dspy-diffusion-infill\[ray\]'"):
        ray_app.app({"model": "embedded"})

from __future__ import annotations

import pytest
import torch

from dspy_diffusion_infill.engine import calibrate as module
from dspy_diffusion_infill.engine import probe
from dspy_diffusion_infill.engine.calibrate import FILE, Measured, calibrate, stored_choice
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import ToyModel
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising


@pytest.fixture
def roomy(model, tmp_path):
    """The tiny model with a context that holds the measured prompt, in a folder of its own."""
    return BidirectionalDecoder(model.network, model.vocabulary, "roomy@1:float32", 1024, folder=tmp_path)


@pytest.fixture
def planted(monkeypatch):
    """Sets what is measured, mode by mode: seconds and nats."""

    def plant(**measured):
        monkeypatch.setattr(module, "_measure", lambda mode, *rest: Measured(mode, *measured[mode]))

    return plant


def test_every_mode_is_measured_on_fillings_of_the_same_canvases(roomy, monkeypatch):
    monkeypatch.setattr(probe, "INSTRUCTIONS", "Rate the review from 1 to 5.")
    monkeypatch.setattr(probe, "EXAMPLES", (("A fine film", "5"), ("A dull plot", "2")))
    calibration = calibrate(roomy)
    assert [one.mode for one in calibration.measured] == ["exact", "window", "context"]
    exact, *others = calibration.measured
    assert all(one.seconds > 0 for one in calibration.measured)
    assert all(one.nll == pytest.approx(exact.nll, rel=0.5) for one in others)
    assert f"cache mode {calibration.choice} (exact: " in str(calibration)


@pytest.mark.parametrize(
    ("context_nll", "window_nll", "choice"),
    [(3.05, 3.03, "context"), (3.07, 3.03, "window"), (3.07, 3.07, "exact"), (2.0, 3.0, "context")],
)
def test_the_fastest_mode_within_two_percent_of_exact_is_chosen(
    roomy, planted, context_nll, window_nll, choice
):
    planted(exact=(4.0, 3.0), window=(2.0, window_nll), context=(1.0, context_nll))
    assert calibrate(roomy).choice == choice


def test_the_choice_is_kept_beside_the_checkpoint_and_taken_by_auto(roomy, planted, tmp_path):
    assert stored_choice(roomy) is None
    assert DiffusionInfiller(roomy).denoising.cache == "window"
    planted(exact=(4.0, 3.0), window=(2.0, 3.0), context=(1.0, 3.0))
    assert calibrate(roomy).path == tmp_path / FILE
    assert stored_choice(roomy) == "context"
    assert DiffusionInfiller(roomy).name.endswith("&cache=context")
    assert DiffusionInfiller(roomy, Denoising(cache="exact")).denoising.cache == "exact"


def test_models_that_share_a_folder_keep_their_own_choices(model, roomy, planted, tmp_path):
    other = BidirectionalDecoder(model.network, model.vocabulary, "roomy@1:bfloat16", 1024, folder=tmp_path)
    planted(exact=(4.0, 3.0), window=(2.0, 3.0), context=(1.0, 3.0))
    calibrate(roomy)
    assert stored_choice(other) is None
    planted(exact=(4.0, 3.0), window=(2.0, 9.0), context=(1.0, 9.0))
    calibrate(other)
    assert (stored_choice(roomy), stored_choice(other)) == ("context", "exact")


def test_where_the_checkpoint_cannot_be_written_the_users_folder_takes_the_choice(
    model, planted, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "USER_FOLDER", tmp_path / "user" / "cache")
    (tmp_path / "file").write_text("")
    locked = BidirectionalDecoder(
        model.network, model.vocabulary, "locked", 1024, folder=tmp_path / "file" / "model"
    )
    planted(exact=(4.0, 3.0), window=(2.0, 3.0), context=(1.0, 9.0))
    assert calibrate(locked).path == tmp_path / "user" / "cache" / FILE
    assert stored_choice(locked) == "window"


def test_a_model_made_in_memory_is_measured_and_nothing_is_written(model, planted):
    memory = BidirectionalDecoder(model.network, model.vocabulary, "memory", 1024)
    planted(exact=(4.0, 3.0), window=(2.0, 3.0), context=(1.0, 9.0))
    assert calibrate(memory).path is None
    assert calibrate(memory).choice == "window"
    assert stored_choice(memory) is None


def test_a_model_with_one_mode_is_refused():
    with pytest.raises(
        SettingsError, match="must keep keys and values; toy runs in cache mode 'exact' alone"
    ):
        calibrate(ToyModel(torch.tensor([1]), 3, 2))


@pytest.mark.parametrize("damaged", ["{broken", "[]", '{"roomy@1:float32 on cpu": {"choice": "sideways"}}'])
def test_a_damaged_choice_is_as_none_and_can_be_made_again(roomy, planted, tmp_path, damaged):
    (tmp_path / FILE).write_text(damaged)
    assert stored_choice(roomy) is None
    assert DiffusionInfiller(roomy).denoising.cache == "window"
    planted(exact=(4.0, 3.0), window=(2.0, 3.0), context=(1.0, 3.0))
    assert calibrate(roomy).choice == stored_choice(roomy) == "context"

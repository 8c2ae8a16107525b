"""What a user types for a budget."""

import pytest

from dspy_diffusion_infill.commands.caps import read_budget
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.budget import Budget


def test_a_budget_is_a_preset_a_number_or_caps():
    assert read_budget("heavy") == "heavy"
    assert read_budget("120") == Budget(metric_calls=120)
    assert read_budget("seconds=1.5, usd=2,tokens=9") == Budget(seconds=1.5, usd=2.0, tokens=9)


@pytest.mark.parametrize("text", ["", "lots", "metric_calls=1.5", "hours=2", "usd=", "base_share=0.5"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(SettingsError, match=f"a number of metric calls, or caps .*; got '{text}'"):
        read_budget(text)


@pytest.mark.parametrize("text", ["200,300", "usd=1,metric_calls=2,usd=1"])
def test_a_cap_is_named_once(text: str):
    with pytest.raises(SettingsError, match=f"name a cap once; got (metric_calls|usd) again in '{text}'"):
        read_budget(text)


def test_a_cap_that_breaks_its_own_rule_says_so():
    with pytest.raises(SettingsError, match="metric_calls must be at least 1, or None; got 0"):
        read_budget("0")

"""What a user can import, and that importing one name does not pay for the others."""

import importlib
import importlib.util

import pytest

import dspy_diffusion_infill

NEEDS = {"DiffusionLM": "torch", "align_judge": "scipy"}
"""Names that want more than the plain package."""


def test_every_public_name_can_be_imported_and_comes_from_where_it_says():
    for name, home in dspy_diffusion_infill._HOMES.items():
        if name not in NEEDS or importlib.util.find_spec(NEEDS[name]):
            module = importlib.import_module(f"dspy_diffusion_infill.{home}")
            assert getattr(dspy_diffusion_infill, name) is getattr(module, name)


def test_the_list_of_public_names_is_sorted_and_complete():
    names = dspy_diffusion_infill.__all__
    assert names == sorted(names)
    assert set(names) == {*dspy_diffusion_infill._HOMES, "__version__"} == set(dir(dspy_diffusion_infill))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Diffusion'"):
        dspy_diffusion_infill.Diffusion  # noqa: B018

"""Traces as JSON and back, by the types of a program's fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dspy
import pydantic

from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.search.journal import is_faithful
from dspy_diffusion_infill.search.steps import Step


class TraceRecords:
    """Writes steps so that the very same ones can be read again, Pydantic's objects included.

    Args:
        program: Its signatures name the type of every field.
    """

    def __init__(self, program: dspy.Module) -> None:
        self._adapters: dict[tuple[str, str], pydantic.TypeAdapter[Any]] = {}
        self._types: dict[tuple[str, str], Any] = {
            (name, field): info.annotation
            for name, predictor in program.named_predictors()
            for field, info in signature_of(predictor).fields.items()
        }

    def pack(self, steps: Sequence[Step]) -> list[Any] | None:
        """Steps for a journal; None if JSON cannot hold them."""
        try:
            rows = [
                [
                    step.predictor,
                    *(self._packed(step.predictor, values) for values in (step.inputs, step.outputs)),
                ]
                for step in steps
            ]
            return rows if is_faithful(rows) and self.unpack(rows) == tuple(steps) else None
        except Exception:  # noqa: BLE001  (types are the user's, and so is what they raise)
            return None

    def unpack(self, rows: Iterable[Sequence[Any]]) -> tuple[Step, ...]:
        """Steps from a journal."""
        return tuple(
            Step(name, self._unpacked(name, inputs), self._unpacked(name, outputs))
            for name, inputs, outputs in rows
        )

    def _packed(self, predictor: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What JSON holds as it is, and what it holds by its type."""
        plain = {field: value for field, value in values.items() if is_faithful(value)}
        typed = {
            field: self._dumped(predictor, field, value)
            for field, value in values.items()
            if field not in plain
        }
        return [plain, typed]

    def _dumped(self, predictor: str, field: str, value: Any) -> Any:
        if isinstance(value, pydantic.BaseModel) and is_faithful(parts := dict(value)):
            return parts  # DSPy's images and the like are dumped as the text of a prompt
        return self._adapter(predictor, field).dump_python(value, mode="json")

    def _unpacked(self, predictor: str, packed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        plain, typed = packed
        return {
            **plain,
            **{field: self._adapter(predictor, field).validate_python(one) for field, one in typed.items()},
        }

    def _adapter(self, predictor: str, field: str) -> pydantic.TypeAdapter[Any]:
        place = (predictor, field)
        if place not in self._adapters:
            self._adapters[place] = pydantic.TypeAdapter(self._types[place])
        return self._adapters[place]

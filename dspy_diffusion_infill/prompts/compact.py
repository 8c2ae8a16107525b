"""A prompt layout for small models with short contexts: instructions, values, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import dspy
from dspy.adapters.utils import format_field_value, parse_value
from dspy.utils.exceptions import AdapterParseError


class CompactAdapter(dspy.Adapter):
    """Say no more than the instructions and the values.

    The system message is the signature's instructions, stripped. A user turn is the input value alone if the
    signature has one input field, else one `name: value` line per field; an assistant turn is laid out the
    same way with the output fields, and the system message then ends in that layout. Demos are user and
    assistant turns. Field descriptions and types are not shown, so the instructions must say what is wanted;
    values are parsed by DSPy's own rules for their types.

    The embedded model is taught in exactly this layout.

    Raises:
        AdapterParseError: If a completion lacks a required output field, or a value does not fit its type.

    Example:
        >>> adapter = CompactAdapter()
        >>> signature = dspy.Signature("review -> rating", "Rate the text.")
        >>> adapter.format(signature, [{"review": "Bad.", "rating": "1"}], {"review": "Good."})[0]
        {'role': 'system', 'content': 'Rate the text.'}
        >>> adapter.parse(signature, " 5 ")
        {'rating': '5'}
    """

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """The instructions, stripped; with several output fields, then the form of an answer."""
        instructions = signature.instructions.strip()
        if len(signature.output_fields) == 1:
            return instructions
        return "\n".join((instructions, "", "Answer in this form:", *map(_slot, signature.output_fields)))

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """The input values; a field that is absent is left out."""
        present = {name: inputs[name] for name in signature.input_fields if name in inputs}
        return "\n".join(part for part in (prefix, _lay_out(signature.input_fields, present), suffix) if part)

    def format_assistant_message_content(
        self,
        signature: type[dspy.Signature],
        outputs: dict[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The output values; an absent one reads `missing_field_message`, or is left out without one."""
        values = {name: outputs.get(name, missing_field_message) for name in signature.output_fields}
        present = {name: value for name, value in values.items() if value is not None}
        return _lay_out(signature.output_fields, present)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Read the output values back, each by the rules of its type."""
        texts = _read(completion, signature.output_fields)
        try:
            values = {
                name: parse_value(text, signature.output_fields[name].annotation)
                for name, text in texts.items()
            }
        except ValueError as error:
            raise _parse_error(signature, completion, str(error)) from error
        for name, field in signature.output_fields.items():
            if name not in values and not field.is_required():
                values[name] = field.get_default(call_default_factory=True)
        if values.keys() != signature.output_fields.keys():
            missing = [name for name in signature.output_fields if name not in values]
            raise _parse_error(signature, completion, f"The answer lacks {missing}.")
        return {name: values[name] for name in signature.output_fields}


def _slot(name: str) -> str:
    return f"{name}: <{name}>"


def _parse_error(signature: type[dspy.Signature], completion: str, message: str) -> AdapterParseError:
    # DSPy annotates the signature as an instance and takes the class
    return AdapterParseError("CompactAdapter", cast(dspy.Signature, signature), completion, message)


def _lay_out(fields: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    texts = {name: str(format_field_value(fields[name], value)) for name, value in values.items()}
    if len(fields) == 1:
        return "".join(texts.values())
    return "\n".join(f"{name}: {text}" for name, text in texts.items())


def _read(completion: str, names: Iterable[str]) -> dict[str, str]:
    names = list(names)
    if len(names) == 1:
        return {names[0]: completion.strip()} if completion.strip() else {}
    heading = re.compile(rf"^({'|'.join(map(re.escape, names))}):", re.MULTILINE)
    # split gives: text before the first heading, then name, value, name, value, ...
    _, *pieces = heading.split(completion)
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return {
        name: text.strip() for name, text in reversed(list(pairs))
    }  # a repeated heading: the first one counts

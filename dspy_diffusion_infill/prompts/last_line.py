"""A prompt layout for small models that write a thought before they answer."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_diffusion_infill.prompts.compact import CompactAdapter


class LastLineAdapter(CompactAdapter):
    r"""Lay prompts out as `CompactAdapter` does, and read the answer from the last line of a completion.

    What stands before that line is the model's own thought, which no field asks for. Models made by the
    recipe of the embedded model (`training/embedded.py`) open with an impression ("great") and end with
    the rating.

    Raises:
        AdapterParseError: If a completion is empty, or a value does not fit its type.

    Example:
        >>> signature = dspy.Signature("review -> rating", "Rate the text (1-5).")
        >>> LastLineAdapter().parse(signature, "great\n5\n")
        {'rating': '5'}
    """

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Read the last line that is not blank; with several output fields, the whole completion."""
        if len(signature.output_fields) == 1:
            completion = completion.rstrip().rpartition("\n")[2]
        return super().parse(signature, completion)

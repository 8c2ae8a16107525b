"""What a server is told so that a judge's reply always ends in a verdict.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.parse import Form, Scale

MAX_FEEDBACK = 1500
"""Characters; English of that length leaves room for the score within the published 1,024 tokens."""
MAX_SPAN = 100


def reply_pattern(scale: Scale, form: Form) -> str:
    r"""A regular expression for replies that `read_reply` reads: feedback if the form has it, then a score.

    Scores may have two decimals. Feedback may not hold an opening bracket, so that there is one `[RESULT]`.

    Raises:
        SettingsError: If the ends of the scale are not whole numbers from 0 on, at most 100 apart.

    Example:
        >>> reply_pattern(Scale(1, 3), "bare")
        '((1|2)(\\.[0-9]{1,2})?|3)'
    """
    lowest, highest = int(scale.lowest), int(scale.highest)
    if (lowest, highest) != (scale.lowest, scale.highest) or lowest < 0 or highest - lowest > MAX_SPAN:
        raise SettingsError(
            f"constrained needs a scale between whole numbers from 0 on, at most {MAX_SPAN} apart; "
            f"got {scale}."
        )
    whole = "|".join(map(str, range(lowest, highest)))
    number = rf"(({whole})(\.[0-9]{{1,2}})?|{highest})"
    before = {
        "result": rf"[^\[]{{1,{MAX_FEEDBACK}}}\[RESULT\] ",
        "line": rf"[^\n]{{1,{MAX_FEEDBACK}}}\n",
        "bare": "",
    }
    return before[form] + number

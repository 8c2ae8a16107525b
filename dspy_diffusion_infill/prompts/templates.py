"""Templated infilling: the user writes the instructions and leaves regions for the model to fill.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.windows import Cutter, Offsets, Order, Window

MASK = re.compile(r"\{\{\s*mask\b([^{}]*)\}\}")
MEANT = re.compile(r"\{\{\s*masks?\b[^{}]*\}\}|\{+\s*instructions?\s*\}+", re.IGNORECASE)
"""What a typing error makes of the two."""
INSTRUCTIONS = "{instructions}"
"""Stands for the instructions that the search starts from."""


@dataclass(frozen=True, slots=True)
class Template:
    """Fill the regions of a text that the user names; every character around them stays as it is written.

    `{{mask:N}}` is a region of N mask tokens. `{instructions}` stands for the instructions that the search
    starts from, so that text can be put in front of or behind them; what a template leaves out of them is
    left out, locked or not. All else is text, also what looks like a mask token of some model. The regions of
    a template are filled together, and again in every pass.

    Source: templated prompt infilling (arXiv:2604.03677, Sec. 3.2, App. J), e.g. the rubric of a judge's
    prompt, and its tokens prepended to a prompt.

    Raises:
        SettingsError: If there is no region, or one without a number.

    Example:
        >>> cut = Template("{{mask:4}} {instructions}").cutter("self", "Rate it.")
        >>> cut("Rate it.", [], [])
        [Window(start=0, end=8, masks=(4,), around=('', ' Rate it.'))]
    """

    text: str | Mapping[str, str]
    """For the program's predictor, or by predictor name; a predictor that is left out is not rewritten. A
    text with `{instructions}` may be for several predictors."""
    passes: int | None = None
    """How often the regions are filled, at most. None: until that helped in none of two passes running."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str | Mapping) or not self.text:
            raise SettingsError(f"text must be a text, or texts by predictor name; got {self.text!r}.")
        for text in [self.text] if isinstance(self.text, str) else self.text.values():
            _parse(text)
        if self.passes is not None:
            check_whole({"passes": self.passes})
        if self.passes is not None and self.passes < 1:
            raise SettingsError(f"passes must be at least 1, or None; got {self.passes}.")

    @property
    def order(self) -> Order:
        """Of the predictors; each has one window."""
        return "successive"

    def cutter(self, predictor: str, first: str) -> Cutter:
        """What says which windows one predictor has: the whole text with the template's regions, or none."""
        template = self._of(predictor)
        if template is None:
            return lambda text, offsets, locked: []
        around, masks = _parse(template)
        around = tuple(piece.replace(INSTRUCTIONS, first) for piece in around)

        def cut(text: str, offsets: Offsets, locked: Iterable[tuple[int, int]]) -> list[Window]:
            return [Window(0, len(text), masks, around)]

        return cut

    def check(self, needed: Mapping[str, Sequence[str]]) -> None:
        """Check the template against a program.

        Args:
            needed: By the name of every predictor, text that its instructions must hold.

        Raises:
            SettingsError: If it names no predictor of the program, gives several the same instructions, or
                leaves out what one needs.
        """
        if not isinstance(self.text, str) and (unknown := sorted(set(self.text) - set(needed))):
            raise SettingsError(f"text must name predictors of the program, {list(needed)}; got {unknown}.")
        if isinstance(self.text, str) and INSTRUCTIONS not in self.text and len(needed) > 1:
            raise SettingsError(
                f"text must be by predictor name, or hold {INSTRUCTIONS}, for a program with several "
                f"predictors, {list(needed)}; got one text for all of them."
            )
        for predictor, pieces in needed.items():
            template = self._of(predictor) or INSTRUCTIONS
            missing = [piece for piece in pieces if piece not in template]
            if missing and INSTRUCTIONS not in template:
                raise SettingsError(
                    f"text must keep what predictor {predictor!r} relies on; it leaves out {missing[0]!r}. "
                    f"Write {INSTRUCTIONS} where the present instructions belong."
                )

    def _of(self, predictor: str) -> str | None:
        return self.text if isinstance(self.text, str) else self.text.get(predictor)


def _parse(template: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The text around the masks, one piece more than there are masks; and the tokens of each mask."""
    if not isinstance(template, str):
        raise SettingsError(f"A template must be a text; got {template!r}.")
    # in the form that DSPy reads instructions back in; the pieces, with what each mask says between them
    split = MASK.split(inspect.cleandoc(template))
    wrong = [said for piece in split[::2] for said in MEANT.findall(piece) if said != INSTRUCTIONS]
    if wrong:
        raise SettingsError(f"A template must read {{{{mask:N}}}} and {INSTRUCTIONS}; got {wrong[0]}.")
    around, counts = split[::2], [re.fullmatch(r":\s*(\d+)\s*", said) for said in split[1::2]]
    if not counts:
        raise SettingsError(f"A template must hold at least one {{{{mask:N}}}}; got {template!r}.")
    for said, count in zip(split[1::2], counts, strict=True):
        if count is None or int(count[1]) < 1:
            raise SettingsError(f"A mask must read {{{{mask:N}}}}, N at least 1; got {{{{mask{said}}}}}.")
    return tuple(around), tuple(int(count[1]) for count in counts if count)

"""What judges are told: templates, conversation forms and rubrics, read from `assets/judges.toml`.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from dspy_diffusion_infill.checks import check_finite
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.parse import Form, Scale, defuse, write_number

Field = Literal["instruction", "response", "reference_answer", "source"]
"""What a judge may be shown."""


@dataclass(frozen=True, slots=True)
class Rubric:
    r"""What is judged, and what each score means.

    Raises:
        SettingsError: If the criterion is no text, or descriptions are not two texts or more, by numbers.

    Example:
        >>> Rubric("Is it short?", {1: "No.", 2: "Yes."}).text
        '[Is it short?]\nScore 1: No.\nScore 2: Yes.'
    """

    criterion: str
    descriptions: Mapping[float, str]
    """By score; the least and the greatest are the ends of the scale."""
    source: str = "the user"

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, str):
            raise SettingsError(f"criterion must be a text; got {self.criterion!r}.")
        if not isinstance(self.descriptions, Mapping) or len(self.descriptions) < 2:
            raise SettingsError(f"descriptions must be two or more, by score; got {self.descriptions!r}.")
        check_finite({f"Every score of descriptions, as {score!r},": score for score in self.descriptions})
        for score, text in self.descriptions.items():
            if not isinstance(text, str):
                raise SettingsError(f"Every description must be a text; got {text!r} for {score}.")

    @property
    def scale(self) -> Scale:
        return Scale(min(self.descriptions), max(self.descriptions))

    @property
    def text(self) -> str:
        lines = [
            f"Score {write_number(score)}: {self.descriptions[score]}" for score in sorted(self.descriptions)
        ]
        return "\n".join([f"[{self.criterion}]", *lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """How a judge was fine-tuned to be addressed, and how its authors decode."""

    source: str
    system: str
    join: str | None = None
    """Between the system text and the user's in one user turn; None for a system message of its own."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for `dspy.LM`."""
    chat_template: str | None = None
    """File in `assets/chat` that a server renders turns with; None for the model's own."""

    def messages(self, user: str) -> list[dict[str, Any]]:
        """The turns that ask.

        Example:
            >>> Conversation(source="", system="Be fair.", join=" ").messages("Rate it.")
            [{'role': 'user', 'content': 'Be fair. Rate it.'}]
        """
        if not self.system or self.join is not None:
            return [{"role": "user", "content": self.system + (self.join or "") + user}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTemplate:
    """What a judge is told, with places for what it judges.

    Example:
        >>> template("c-gen").fields
        ('source', 'reference_answer', 'response')
    """

    name: str
    source: str
    text: str
    fields: tuple[Field, ...]
    form: Form
    opening: str
    """Begins the reply, at the end of the prompt."""
    conversation: str
    """Name of the usual conversation form."""
    scale: Scale | None = None
    """None if the rubric says it."""

    @property
    def is_page(self) -> bool:
        """Whether the text has places for what is judged, which else is a user turn of its own."""
        return any(f"{{{name}}}" in self.text for name in self.fields)

    def with_rubric(self, rubric: Rubric | None) -> JudgeTemplate:
        """The template with rubric and scale written in: its text is then what an optimizer edits.

        Raises:
            SettingsError: If there is no rubric where one is needed.
        """
        needs = [word for word in ("rubric", "criterion") if f"{{{word}}}" in self.text]
        scale = self.scale or (rubric and rubric.scale)
        if scale is None or (needs and rubric is None):
            raise SettingsError(
                f"rubric must be a Rubric, which the template {self.name!r} writes in; got None."
            )
        words = {"lowest": write_number(scale.lowest), "highest": write_number(scale.highest)}
        words |= {"rubric": rubric.text, "criterion": rubric.criterion} if rubric else {}
        return replace(self, text=_write_in(self.text, words), scale=scale)

    def page(self, instructions: str, values: Mapping[str, str]) -> str:
        """Lay out what is judged within the instructions, each value at its place.

        A value whose place the instructions have lost, since an optimizer rewrote them, follows under its
        heading. Values are written in once, without any verdict of their own (`defuse`); a value that is not
        given leaves its place.
        """
        lost = [name for name in self.fields if name in values and f"{{{name}}}" not in instructions]
        text = "\n\n".join([instructions, *map(self._section, lost)])
        return "\n\n".join(filter(None, [self._filled(text, values), self.opening]))

    def example(self, values: Mapping[str, str]) -> str:
        """What is judged alone, each value under its heading: the user's part of an example."""
        shown = [self._section(name) for name in self.fields if name in values]
        return self._filled("\n\n".join(shown), values)

    def _filled(self, text: str, values: Mapping[str, str]) -> str:
        given = {name: values[name] for name in self.fields if name in values}
        for name, value in given.items():
            if not isinstance(value, str):
                raise SettingsError(f"{name} must be a text to be judged, or judged by; got {value!r}.")
        return _write_in(text, {name: defuse(value) for name, value in given.items()})

    def _section(self, name: str) -> str:
        """A place with the heading before it, as far as the template has one."""
        place = f"{{{name}}}"
        found = re.search(rf"^[^\n]*:\n+{re.escape(place)}", self.text, re.MULTILINE)
        return found[0] if found else place


def template(name: str) -> JudgeTemplate:
    """A template by its name.

    Raises:
        SettingsError: If there is none of that name.
    """
    entry = dict(_entry("template", name))
    scale = Scale(*entry.pop("scale")) if "scale" in entry else None
    return JudgeTemplate(name=name, scale=scale, fields=tuple(entry.pop("fields")), **entry)


def conversation(name: str) -> Conversation:
    """A conversation form by its name.

    Raises:
        SettingsError: If there is none of that name.
    """
    return Conversation(**_entry("conversation", name))


def rubric(name: str) -> Rubric:
    """A rubric by its name.

    Raises:
        SettingsError: If there is none of that name.
    """
    return _rubric(_entry("rubric", name))


def read_rubric(name: str) -> Rubric:
    """A rubric by its name, or from a TOML file that holds `criterion` and a table `descriptions`.

    Raises:
        SettingsError: If there is neither, or the file lacks something.
    """
    file = Path(name)
    if not file.is_file():
        return rubric(name)
    try:
        entry = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"rubric must be a TOML file in UTF-8; got {name}: {error}.") from error
    table = entry.get("descriptions")
    if not (entry.get("criterion") and isinstance(table, dict) and len(table) > 1):
        raise SettingsError(
            f"rubric must hold criterion and two descriptions or more; got {list(entry)} in {name}."
        )
    return _rubric({"source": name, **entry})


def _rubric(entry: Mapping[str, Any]) -> Rubric:
    descriptions = {_score(score, text): text for score, text in entry["descriptions"].items()}
    return Rubric(entry["criterion"], descriptions, entry["source"])


def _score(key: str, text: object) -> float:
    """The score that a key of a TOML table says; an unquoted `2.5` is a key within another there."""
    try:
        score = float(key)
    except ValueError as error:
        raise SettingsError(f"Every key of descriptions must be a score; got {key!r}.") from error
    if isinstance(text, dict):
        raise SettingsError(
            f"Every description must be a text; got {text!r} for {key}. Quote a score with a point in its "
            f'key: "{key}.{next(iter(text), 5)}".'
        )
    return score


def _write_in(text: str, words: Mapping[str, str]) -> str:
    """Put each word in its place at once, so that no word's own braces are a place."""
    places = "|".join(map(re.escape, words))
    return re.sub(rf"\{{({places})\}}", lambda found: words[found[1]], text) if words else text


def _entry(kind: str, name: str) -> Mapping[str, Any]:
    known = _data()[kind]
    if name not in known:
        raise SettingsError(f"{kind} must be one of {', '.join(map(repr, known))}; got {name!r}.")
    return known[name]


@functools.cache
def _data() -> Mapping[str, Mapping[str, Any]]:
    file = resources.files("dspy_diffusion_infill").joinpath("assets", "judges.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))

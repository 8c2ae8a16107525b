"""Where the verdict stands in a judge's reply, for whoever reads the score there.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from dspy_diffusion_infill.errors import Unscored

DELIMITER = "[RESULT]"
"""Stands before the score in the reply of a Prometheus judge."""

Form = Literal["result", "bare", "line"]
"""`result`: feedback, the delimiter, the score. `bare`: the score, with or without the delimiter. `line`: the
score on the last line, whatever stands before it."""

ANY_DELIMITER = re.compile(r"[\[【]\s*RESULTS?\b(?:\s*[\]】])?", re.IGNORECASE)
"""Also without its end: `[RESULT: 4]`."""
NUMBER = r"(?>[-+\u2212]?(?:\d+(?:[.,\u066b]\d+)?|[.]\d+))"
DASHES = "-\u2013\u2014"

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Full-width forms of ASCII, one character for one."""
_QUOTED = r"\"[^\"\n]*\"|“[^“”\n]*”|«[^«»\n]*»|「[^「」\n]*」|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)"
_MARK = re.compile(rf"{_QUOTED}|(?P<own>{ANY_DELIMITER.pattern})", re.IGNORECASE)
_WRAPPED = re.compile(r"([\"'`])((?:(?!\1).)*)\1", re.DOTALL)
_PREFIX = re.compile(r"^[\s#*]*Feedback:\**\s*", re.IGNORECASE)

_DRESS = r"\s:=*_~#|()\[\]{}\"'`\u2013\u2014\u2022"
LEAD = rf"(?:[{_DRESS}]|-(?![\d.]))*+"
"""What may stand before a number or its label."""
_LABEL = (
    r"(?:(?:overall|final|total|my|the|your)[ ]){0,2}+"
    r"(?:scores?|ratings?|grade|mark|verdict|results?|points?|overall|final|quality|feedback score"
    r"|coherence|consistency|fluency|relevance|note|nota|(?:be)?wertung|punkt(?:e|zahl)|puntuación|puntaje"
    r"|calificación|punteggio|voto|valutazione|pontuação|avaliação|cijfer|beoordeling|оценка|балл"
    r"|评分|評分|得分|分数|分數|总分|總分|スコア|評価|点数|점수|평점|평가|الدرجة|التقييم|النتيجة)[ *_]*+[:=]"
)
"""Words for a score. Any other word may label another number: `Max score: 5`, `Not applicable: 5`."""
_GLUED = r"A-Za-z_\u00aa\u00ba¼-¾\u00c0-\u04ff"
"""What makes a number another word when it follows at once: `4th`, `4ème`. Units of other scripts do not."""
_VERDICT = re.compile(
    rf"(?:{LEAD}{_LABEL})?+(?P<lead>{LEAD})(?P<number>{NUMBER})(?![{_GLUED}])(?P<tail>[^\n]*)", re.IGNORECASE
)
_LISTED = re.compile(r"[.)][ \t]+\w")


class Found(NamedTuple):
    """A verdict in its reply, the full-width forms of ASCII made narrow."""

    match: re.Match[str]
    """With the groups `lead`, `number` and `tail`, the rest of the line."""
    feedback: str | None
    """All that stands around the verdict."""


def find_verdict(reply: str, form: Form) -> Found:
    """Find the number that a reply gives as its score; positions are those in the reply.

    Raises:
        Unscored: If there is none, with the reason.
    """
    text = reply.translate(_WIDE)
    first, end = _bounds(text, 0, len(text))
    start = first
    if form == "line":
        start, end = _bounds(text, text.rfind("\n", first, end) + 1 or first, end)
    if start == end:
        raise Unscored("The reply is empty.")
    own = [mark.span() for mark in _MARK.finditer(text, start, end) if mark["own"]]
    if not own and form == "result":
        raise Unscored(f"The reply has no {DELIMITER} of its own: {short(text[start:end][-80:])}.")
    before, after = own[-1] if own else (start, start)
    match = _VERDICT.match(text, after, end)
    if match is None:
        raise Unscored(f"The verdict must be a number; got {short(text[after:end])}.")
    if not own and _LISTED.match(match["tail"]):
        raise Unscored(f"The reply must be the score alone; it begins like a list: {short(text[start:end])}.")
    around = text[first:start] if form == "line" else text[first:before] + text[match.end() : end]
    return Found(match, _PREFIX.sub("", around).strip() or None)


def delimiters(text: str) -> list[tuple[int, int]]:
    """From where to where each delimiter goes, those within quotation marks too."""
    return [found.span() for found in ANY_DELIMITER.finditer(text.translate(_WIDE))]


def short(text: str) -> str:
    """A text for an error."""
    text = text.strip()
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _bounds(text: str, start: int, end: int) -> tuple[int, int]:
    """Of a part of a text without blanks and quotation marks around the whole of it."""
    start, end = _without_blanks(text, start, end)
    wrapped = _WRAPPED.fullmatch(text, start, end)
    return _without_blanks(text, *wrapped.span(2)) if wrapped else (start, end)


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, start + len(part.strip())

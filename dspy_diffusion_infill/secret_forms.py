r"""What keys, tokens and passwords look like, as one pattern that takes linear time.

Every form begins with a word of its own, and no repeat that can fail is unbounded where that word may stand
in what it repeats: else a long text without a secret would take minutes. Pure: no dspy, no torch.
"""

from __future__ import annotations

import re

START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
"""Where a word begins; a line end of JSON in JSON is a backslash and a letter."""
RANDOM = r"(?=[\w-]{0,60}[\dA-Z])"
"""Issuers' keys have digits or capitals; `sk-learn-is-a-library` has none."""
PEM = r"-----{} [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----"

ISSUED = (
    r"(?:sk|pk|rk)[-_]" + RANDOM + r"[\w-]{16,}",
    r"(?:hf|npm)_" + RANDOM + r"[A-Za-z0-9]{16,}",
    r"(?:gh[opsur]|github_pat)_" + RANDOM + r"\w{20,}",
    r"(?:xox[abeprs]|xapp)-[\w-]{10,}",
    r"(?:glpat|pypi)-" + RANDOM + r"[\w-]{16,}",
    r"AIza[\w-]{20,}",
    r"(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"SG\.[\w-]{16,}\.[\w-]{16,}",
)
"""Keys by the prefixes that their issuers give them."""

WORDS = r"pass(?:word|wd|phrase)|pwd|secret|(?:api|access|private|secret|signing|encryption)[ _-]?key"
EQUALS = r"\\*[\"']?\s*[:=]>?\s*"
COUNT = EQUALS + r"[\"']?\d+(?:\.\d+)?\.?(?:[\s,;)\]}\"'\\]|\Z)"
NAME = rf"(?:{WORDS})(?:\d{{1,3}}|[_-][\w-]{{1,40}})?|token(?!{COUNT})"
"""What secrets are called; a number of tokens is none."""
VALUE = (
    r'"(?:\\.|[^"\\]){4,}+'
    r"|'(?:\\.|[^'\\]){4,}+"
    r"|\\+[\"'](?:\\{2,}.|\\(?![\"'])|[^\"'\\]){4,}+"  # JSON in JSON
    r"|[\"']?(?:[^\s\"',;]|[,;](?=[^\s\"'])){4,}+"
)
"""In quotes all up to the closing one; else what has no space, but for a comma or semicolon at its end."""

SECRET = re.compile(
    "|".join((
        rf"{PEM.format('BEGIN')}.*?(?:{PEM.format('END')}|\Z)",
        r"(?:(?<![\w-])|(?<=\\[nrt]))eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]+",  # a JSON web token
        START + f"(?:{'|'.join(ISSUED)})",
        r"(?P<server>://[^\s/:@]{0,100}:)[^\s\"'<>]{1,200}(?=@)",
        r"(?P<scheme>(?i:(?:authorization\W{1,8}basic|bearer)\s+))[\w.~+/-]{8,}=*",
        rf"(?P<cookie>(?i:cookie){EQUALS}[\"']?)[\w.-]{{1,60}}=[^\s\"'\\][^\r\n\"'\\]+",
        rf"(?P<flag>--(?:\w{{1,20}}-){{0,3}}(?i:{WORDS})\s|--token\s)\s*+(?!-)(?:{VALUE})",
        rf"(?P<name>(?i:{NAME})){EQUALS}(?:{VALUE})",
    )),
    re.DOTALL,
)  # fmt: skip
"""What is hidden; its named groups are kept: they say what it was."""

"""Every exception raised on purpose.

    InfillError
      + SettingsError(ValueError)          a setting breaks its rule; nothing was spent
      + CanvasError(ValueError)            the text to infill cannot be laid out as asked
      + ModelError(ValueError)             a checkpoint cannot be loaded, or is not a masked diffusion LM
      + InfillerUnavailableError           no infiller answers where one was expected
      + RefusedError                       a server does not do what a request asks; says why, with a status
      + JudgeUnavailableError              no judge answers where one was expected, or its server died
      + MetricError                        the user's metric raised, or did not return a number
          + TooManyUnscoredError           it left more examples unscored than it may
      + EvaluationError                    the task LM failed for a reason that says nothing about a prompt
      + MissingExtraError(ImportError)     an optional dependency is not installed

    Unscored                               raised by a metric: this example cannot be judged

Messages read: *name* must be *rule, with the live bound*; got *value*; then what to do.
"""


class InfillError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(InfillError, ValueError):
    """A setting breaks its rule; raised before anything is spent."""


class CanvasError(InfillError, ValueError):
    """The text to infill cannot be laid out as asked."""


class ModelError(InfillError, ValueError):
    """A checkpoint cannot be loaded, or is not a masked diffusion LM."""


class InfillerUnavailableError(InfillError):
    """No infiller answers where one was expected."""


class RefusedError(InfillError):
    """A server does not do what a request asks.

    Args:
        status: The HTTP status that says so.
        code: A word for programs.
        message: One sentence for people.
        retry_after_s: When to ask again; None where that would not help.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class JudgeUnavailableError(InfillError):
    """No judge answers where one was expected, or its server died."""


class MetricError(InfillError):
    """The user's metric raised, or returned something that is not a number."""


class TooManyUnscoredError(MetricError):
    """The user's metric left more examples unscored than it may."""


class EvaluationError(InfillError):
    """The task LM failed for a reason that says nothing about the prompt under test."""


class MissingExtraError(InfillError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'dspy-diffusion-infill[{extra}]'.")


class Unscored(Exception):  # noqa: N818  (a verdict that a metric raises, not an error of this package)
    """Raised by a metric when an example cannot be judged; it then counts for no candidate."""

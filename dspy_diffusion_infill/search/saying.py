"""Where a run says what it may cost and what came of it: beside DSPy's optimizers, in sight by default."""

from __future__ import annotations

import logging

logger = logging.getLogger("dspy.teleprompt.diffusion_infill")
"""DSPy shows its loggers from INFO on, and `dspy.disable_logging()` silences them. What others say
below WARNING is seen by those alone who have set up logging."""

"""Settings that go together.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.selection import Selection

PAPER = {
    "masking": SlidingWindow(window=8, stride=4, mask=8, snap=False, passes=1),
    "denoising": Denoising(cache="exact"),
    "selection": Selection(rule="full", shots=1, holdout=0),
    "lock": None,
    "guard": None,
}
"""What prompt infilling does (arXiv:2604.03677, Sec. 3.2, Sec. 5.3, App. E), and nothing of ours: one pass of
windows of 8 tokens, 4 apart, 8 masks each, whatever words they cut; one example with its reference output a
canvas; one token a denoising step at temperature 0.8 (LLaDA's; Dream's is 0.1); every candidate on every
example; neither locks nor guards. The paper does not say how many candidates a window gets, nor that a tie
keeps what was there."""

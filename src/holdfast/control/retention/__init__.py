"""Retention: which images are kept, and why.

The front door. Pure functions of images, rules and a moment; must not change anything.
"""

from holdfast.control.retention.judge import (
    Candidate,
    Judgement,
    Terms,
    Verdict,
    judge,
    judge_each,
)
from holdfast.control.retention.rules import PERIODS, Period, Rules

__all__ = [
    "PERIODS",
    "Candidate",
    "Judgement",
    "Period",
    "Rules",
    "Terms",
    "Verdict",
    "judge",
    "judge_each",
]

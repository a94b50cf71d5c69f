"""Calibration (figure 9 of the paper): whether a feedback model that says 80 % is right eight times in ten.

Asked on an evaluation file in the HHH format, whose right options are known. The kinds of label that a run could
train on are computed side by side from the same answers, so that their differences are paired.
"""

from tasks.calibration.asking import Calibration, calibrate
from tasks.calibration.figures import Form, Summary, by_category, summarise
from tasks.calibration.items import Item, read_items

__all__ = ["Calibration", "Form", "Item", "Summary", "by_category", "calibrate", "read_items", "summarise"]

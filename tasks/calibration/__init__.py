"""Calibration (figure 9 of the paper): whether a model that says 80 % is right eight times in ten.

Asked on question sets in the HHH format, whose right options are known: of one model by `./solon calibrate`, of every
policy and feedback model of a run by the stage `questions`. The kinds of label that a run could train on are computed
side by side from the same answers, so that their differences are paired.
"""

from tasks.calibration.asking import Asked, answer, asked_of
from tasks.calibration.config import QuestionsConfig, QuestionSet
from tasks.calibration.figures import Form, Summary, by_category, summarise
from tasks.calibration.labels import Calibration, calibration_of, expect_labels
from tasks.calibration.reading import read_questions

__all__ = [
    "Asked",
    "Calibration",
    "Form",
    "QuestionSet",
    "QuestionsConfig",
    "Summary",
    "answer",
    "asked_of",
    "by_category",
    "calibration_of",
    "expect_labels",
    "read_questions",
    "summarise",
]

"""The report (section 4.3's figures and all that led to them): one HTML file that needs no network and no script.

*Reads* every dataset and model of a run. *Writes* `report`. Numbers come from pure functions of rows and manifests
(one file a section), pictures from `charts.py`, the page from `page.html.jinja`.
"""

from tasks.report.stage import ReportStage, read_report

__all__ = ["ReportStage", "read_report"]

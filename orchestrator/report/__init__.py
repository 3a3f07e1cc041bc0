"""What a job emitted and saved, for scripts and for people.
In: an Account of facts. Out: JSON, a text for the terminal, a picture, a page.
The command line and the web page show them; nothing here reads the store or a clock.
"""

from orchestrator.report.build import Report, as_json, build, notes, report_of
from orchestrator.report.page import page
from orchestrator.report.picture import draw, svg
from orchestrator.report.text import text

__all__ = ["Report", "as_json", "build", "draw", "notes", "page", "report_of", "svg", "text"]

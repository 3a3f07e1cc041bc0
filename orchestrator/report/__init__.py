"""What a job emitted and saved, for scripts and for people.
In: an Account of facts. Out: JSON, a text for the terminal, a picture, a page.
The command line and the web page show them; nothing here reads the store or a clock.
"""

from orchestrator.report.build import Report, as_json, build, notes, report_of

__all__ = ["Report", "as_json", "build", "notes", "report_of"]

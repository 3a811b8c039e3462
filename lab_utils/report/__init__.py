"""Formats frames as HTML, Markdown and JUnit; computes nothing."""

from lab_utils.report.pages import notebook_page, quicken_imports, runs_page
from lab_utils.report.run import publish

__all__ = ["notebook_page", "publish", "quicken_imports", "runs_page"]

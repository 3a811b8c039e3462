"""Formats frames as HTML, Markdown and JUnit; computes nothing."""

from lab_utils.output.pages.pages import notebook_page, quicken_imports, runs_page
from lab_utils.output.pages.run import publish

__all__ = ["notebook_page", "publish", "quicken_imports", "runs_page"]

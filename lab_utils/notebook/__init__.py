"""What a notebook calls: one object for a category, one for a finished run."""

from lab_utils.notebook.gallery import Gallery
from lab_utils.notebook.lab import GateFailed, Lab
from lab_utils.notebook.overview import FinishedRun, open_run
from lab_utils.notebook.protects import read_protects

__all__ = ["FinishedRun", "Gallery", "GateFailed", "Lab", "open_run", "read_protects"]

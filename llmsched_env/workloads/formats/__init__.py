"""Trace formats, one a module; `recognised` tells them apart by what is in the file."""

from llmsched_env.workloads.formats.registry import FORMATS, recognised

__all__ = ["FORMATS", "recognised"]

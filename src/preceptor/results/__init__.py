"""Results of a study as tables and numbers."""

from preceptor.results.tables import StudyTables, read

__all__ = ["StudyTables", "read"]

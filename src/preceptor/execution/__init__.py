"""Execution of a study's steps: scheduler, executors and workers."""

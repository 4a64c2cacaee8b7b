"""Example of a package with plugins for preceptor."""

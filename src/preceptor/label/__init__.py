"""Marking of images in a browser: database, server, page, and proposals of a Teacher."""

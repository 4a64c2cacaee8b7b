"""Marking of images in a browser: database, server and page of `preceptor label`."""

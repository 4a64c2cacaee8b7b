"""Saliency maps as data: map stores, committees and training targets."""

"""Saliency maps as data: map stores, controls and training targets."""

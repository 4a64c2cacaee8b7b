"""Maps without people: the part of each image that lies in the first principal components.

The training images as thumbnails x_1 … x_n of d grey values have the mean μ and the principal
components u_1 … u_k: orthonormal eigenvectors of their covariance, with the k largest eigenvalues.
The map of image i is the magnitude of its reconstruction from these components,

    m_i = |Σ_j u_j u_jᵀ (x_i − μ)|,

min-max normalized. It is high where the image differs from the mean image in the way in which most
images do, and it knows neither labels nor marks.

Principal components of images are the eigenfaces of Turk and Pentland, "Eigenfaces for
Recognition", Journal of Cognitive Neuroscience 3(1), 1991. Webster and Scheirer, "What's Old is New
Again: Classical Dimensionality Reduction for Efficient Saliency-Guided Biometric Attack Detection",
arXiv:2606.13528, 2026, guide by maps from eigenfaces and Fisherfaces. The formula above is an
adaptation of the idea, not their procedure.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.config.image_format import Fit
from preceptor.data.cache import ImageSource
from preceptor.data.geometry import fit_boxes
from preceptor.data.resampling import resample

# Cells of a thumbnail's side. The first components of images are smooth, and feature grids have 6
# to 14 cells. As uint8 a map needs 256 bytes, so that a million images fit into memory.
SIDE = 16
_BLOCK = 64  # images resized at once
_LUMA = torch.tensor([0.299, 0.587, 0.114])
# Grey levels of 255: a smaller range of a reconstruction is rounding, which min-max would enlarge.
_ROUNDING = 1e-6


def thumbnails(
    images: ImageSource, rows: NDArray[np.int64], fit: Fit
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Grey thumbnails of images.

    Args:
        images: Canvases of the images.
        rows: (n,) manifest rows.
        fit: Method that made the canvases square.

    Returns:
        (n, 16, 16) grey values, and the (n, 4) region of its image that each thumbnail covers: the
        whole image, or for `fit: crop` the central square.
    """
    boxes = fit_boxes(images.sizes[rows], fit, images.side)
    regions = boxes.clip(0, 1)
    found = np.empty((len(rows), SIDE, SIDE), np.uint8)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        canvases = torch.from_numpy(images.canvases(rows[part])).float()
        grey = canvases @ _LUMA if canvases.shape[3] == 3 else canvases[..., 0]
        own, to = torch.from_numpy(boxes[part].copy()), torch.from_numpy(regions[part])
        found[part] = resample(grey, own, to, (SIDE, SIDE)).round_().byte().numpy()
    return found, regions


def too_few_for_components(images: int, components: int) -> str:
    """Problem of a number of images that has fewer principal components; "" if there is none.

    The mean takes one degree of freedom: n images have at most n − 1 components.

    Example:
        >>> too_few_for_components(5, 5)
        '5 training images have fewer than 5 principal components; use at most 4 components'
        >>> too_few_for_components(6, 5)
        ''
    """
    if images > components:
        return ""
    remedy = f"use at most {images - 1} components" if images > 1 else "add images"
    return f"{images} training images have fewer than {components} principal components; {remedy}"


def principal_maps(images: NDArray[np.uint8], components: int) -> NDArray[np.uint8]:
    """Magnitude of the reconstruction of images from their first principal components.

    Args:
        images: (n, h, w) grey values.
        components: Number k of components, less than n.

    Returns:
        (n, h, w) maps, each with the full range 0 to 255; 0 everywhere for an image whose
        reconstruction is constant.

    Example:
        >>> images = np.zeros((3, 2, 2), np.uint8)
        >>> images[0, 0, 0], images[1, 0, 0] = 30, 60  # they differ in one cell alone
        >>> principal_maps(images, 1).tolist()
        [[[0, 0], [0, 0]], [[255, 0], [0, 0]], [[255, 0], [0, 0]]]
    """
    values = torch.from_numpy(images.reshape(len(images), -1))
    mean = values.sum(0, dtype=torch.int64).double() / len(values)
    # In blocks, since the images as float64 would need eight times their memory.
    blocks = [values[start : start + 4096] for start in range(0, len(values), 4096)]
    covariance = torch.zeros((len(mean), len(mean)), dtype=torch.float64)
    for block in blocks:
        centred = block - mean
        covariance += centred.T @ centred
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -components:]
    maps = [_magnitude(block - mean, basis) for block in blocks]
    found: NDArray[np.uint8] = torch.cat(maps).numpy().reshape(images.shape)
    return found


def _magnitude(centred: Tensor, basis: Tensor) -> Tensor:
    """(n, d) uint8: |projection on the basis|, each row scaled to the range 0 to 255."""
    values = (centred @ basis @ basis.T).abs()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    extent = high - low
    scaled = (values - low) / extent.clamp_min(_ROUNDING) * 255
    return torch.where(extent > _ROUNDING, scaled, 0).round_().byte()

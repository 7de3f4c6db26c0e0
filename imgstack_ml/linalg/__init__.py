"""The mathematics, on NumPy blocks: no Dask, no scikit-learn.

Letters have the same meaning in all modules. A prime marks a transpose, I is the identity matrix.

====================  ==================================================================================
n                     number of images
p                     number of values in an image: height x width x channels
k                     number of components wanted
m                     number of rows in a block of a basis
r                     number of rows in a whole basis
X (n, p)              images as rows, as they were read
A (n, p)              centred images: X less the mean image
C = A'A (p, p)        scatter matrix: n - 1 times the covariance of the pixels
G = AA' (n, n)        Gram matrix: inner products of the centred images
lambda_1 >= ...       eigenvalues of C, and those of G where they are not 0
T                     sum of all lambda_j: n - 1 times the total variance
W (r, p), V (m, p)    a basis and one block of it: orthonormal rows
Y = AV' (n, m)        scores: the centred images in coordinates of V
eps                   distance from 1 to the next number of a dtype
====================  ==================================================================================

So do arguments:

- `blocks` are consecutive blocks of raw images, (b_i, *image_shape) each, of any real dtype. They are never changed.
- `start` is the position of their first image in the stack.
- `lo` and `hi` limit the work to a range of pixels.
- `shift` (p,) is subtracted from every image before a product. `dtype` must hold it exactly, so that differences of
  integers have no rounding error.
- `dtype` is that of the products, float32 or float64. Sums of many products are float64.

A function with the arguments ``(blocks, start, ...)`` is the step of a pass, and a function ``merge_...`` joins two of
its results, the first of which belongs to earlier images.
"""

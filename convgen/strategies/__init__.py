"""Ways to compute a convolution, one a file, and the ordered registry of them."""

"""Linear algebra: products, parts of matrices, equations, decompositions, functions of a matrix, norms."""

"""Several strategies in one experiment of NNI: what each sees of it, and what its manager sees of them."""

"""How a network is trained: recipe, batches, checkpoints, several devices."""

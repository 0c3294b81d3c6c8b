"""Floor 1: which array library and device an array belongs to. Knows nothing of tensors."""

"""The autodiff engine, from the bottom: arrays and devices (backend), what ops leave behind (tape), Tensor (tensor), what is
known of an op (rules), its call (call), its definition (primitive), the two walks (autodiff)."""

"""The autodiff engine: arrays and devices (backend), the tape (tape), Tensor (tensor), ops (primitive), walks (autodiff)."""

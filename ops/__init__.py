"""Every primitive of the framework: forward, derivative rule and formula, one topic per file."""
if __name__ != "tinygrad_ms.ops":
    raise ImportError("import tinygrad_ms.ops, not the source folder 'ops' directly")

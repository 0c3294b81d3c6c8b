"""NVRTC without a card: the compiler of CUDA C, from NVIDIA's package, called by ctypes."""

import ctypes
import importlib.util
from pathlib import Path


def find_library() -> Path | None:
    """Where ``nvidia-cuda-nvrtc-cu12`` (or the one of CUDA 13) has put it."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations or [] if spec else []
    found = [path for folder in folders for path in Path(folder).rglob("libnvrtc.so*")]
    return found[0] if found else None


def compiled(library: Path, source: str, options) -> tuple[bytes, str]:
    """The machine code, empty where it cannot be compiled, and what the compiler says."""
    nvrtc, program = ctypes.CDLL(str(library)), ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    given = [option.encode() for option in options]
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    code = ctypes.create_string_buffer(0)
    if status == 0:
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw, log.value.decode()

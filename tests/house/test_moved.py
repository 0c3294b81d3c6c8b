"""Old paths of modules and names work, with a warning that names the new one; old pickles of tensors load."""

import base64
import importlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.moved import HOME, LEFT, MOVED, RENAMED

OLD = {  # names that people used, by their old modules
    "engine.autodiff": "backward walk push_forward accumulate make_seed freed_error",
    "engine.backend": "BACKENDS Backend register DEFAULT_FLOAT is_float default_device to_device sum_over",
    "engine.rules": "Primitive Plan Linear Multilinear Joint PerArgument shape_of",
    "engine.call": "describe mixed_devices prepare",
    "engine.tape": "no_grad enable_grad inference_mode hooks scope forward_mode Mode State notify",
    "engine.tensor": "tensor asarray raw_index",
    "ops.aliases": "alias",
    "ops.losses": "softmax_cross_entropy cross_entropy nll pick_label place_label",
    "ops.decompositions": "cholesky qr eigh eigvalsh svd svdvals matrix_norm inverse_gaps",
    "ops.linear_algebra": "inv solve solve_triangular pinv det slogdet cofactors matrix_power expm matrices symmetric",
    "ops.matrix_equations": "mcsgn solve_sylvester solve_lyapunov solve_skew_with_inverse symmetric",
    "ops.matrix_functions": "msign polar nuclear_norm sqrtm inv_sqrtm minimax_coefficients",
    "ops.matrix_parts": "diag diagonal embed_diagonal trace tril triu vec",
    "ops.msign_alternatives": "msign_unrolled msign_dense_vjp",
    "ops.newton_schulz": "orthogonalise orthogonalise_smooth solve_symmetric KnownInverse check_matrices plan_for",
    "ops.newton_sign": "newton_sign sign sylvester inverses",
    "ops.products": "matmul dot inner outer vecdot einsum tensordot kron",
    "ops.quintics": "POLISH TABLES minimax_coefficients rows_to_one fixed_rows converge shifts Plan make_plan",
    "ops.reductions": "norm euclidean_norm MATRIX_NORMS",
}


def old_module(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(HOME + name)


@pytest.mark.parametrize("module, name", [(module, name) for module, names in OLD.items() for name in names.split()])
def test_an_old_path_works_and_names_the_new_one(module, name):
    old = old_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} has moved and will go: it is tinygrad_ms") as caught:
        value = getattr(old, name)
    assert caught[0].filename == __file__
    new, _, known = str(caught[0].message).partition(" it is ")[2].removesuffix(" now").rpartition(".")
    assert known == name or known == RENAMED[name]
    assert value is getattr(importlib.import_module(new), known)


def test_every_old_module_is_tried():
    assert OLD.keys() >= MOVED.keys() and LEFT.keys() - OLD.keys() <= {"engine.primitive"}


def test_an_old_module_says_where_its_names_are():
    sys.modules.pop("tinygrad_ms.ops.quintics", None)
    with pytest.warns(
        DeprecationWarning, match="ops.quintics has moved .* see tinygrad_ms.ops.iterations.coefficients"
    ):
        import tinygrad_ms.ops.quintics as quintics
    assert sys.modules["tinygrad_ms.ops.quintics"] is quintics
    sys.modules.pop("tinygrad_ms.ops.products", None)
    vars(tg.ops).pop("products", None)
    with pytest.warns(DeprecationWarning, match="has moved and will go"):
        assert tg.ops.products.matmul is tg.matmul  # as an attribute of the package


def test_all_names_of_an_old_module_at_once():
    names = {}
    with pytest.warns(DeprecationWarning, match=r"ops.products(.\w+)? has moved and will go"):
        exec("from tinygrad_ms.ops.products import *", names)
    assert names["matmul"] is tg.matmul and names["einsum"] is tg.einsum


@pytest.mark.parametrize("module", ["ops.products", "ops.reductions", "engine.tape", "ops"])
def test_a_name_that_never_was_is_an_error(module):
    with pytest.raises(AttributeError, match=f"module 'tinygrad_ms.{module}' has no attribute 'nothing'"):
        _ = old_module(module).nothing
    with pytest.raises(ImportError):
        importlib.import_module(f"tinygrad_ms.{module}.nothing")


def test_the_library_itself_uses_no_old_path():
    everything = """
import importlib, pkgutil, tinygrad_ms
for module in pkgutil.walk_packages(tinygrad_ms.__path__, "tinygrad_ms."):
    if module.name not in ("tinygrad_ms.__main__", "tinygrad_ms.interop.torch", "tinygrad_ms.interop.jax"):
        importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", everything], check=True)


PICKLED = (  # [tg.tensor([[1.0, -2.5]], name="w", requires_grad=True), tg.nn.Parameter([3.0])] of version 0.1.0
    "fCQB>0RR9100018lqifDbZKsRXL4a=Uu|<PWo~C_Ze=cXWo~nCa+Hh-Uv+M9X=7__Wt5YYC};tU22^Ekb8m8#la!1WZgp*Nc`jdLZ*pZWZFOvPX"
    "<>45VR@8{3}13(V{dMAbaHiLbd-~nj0J9WZE$&%j0bLHVRCX|d6bisO8|wGLjhuxhm=y3C`$oL0ZRgglxPWz1!Q!2aAlN}l#BvqG?a;mhm=y3C`"
    "$v30X&pWPEJby|Ns9=|NsC0O8|6~Vu?ct004kL001DslysD0j00nEb(DyV0e6&ilv0#v11O9YbZKsRXL4a=Uu|<PZf-7ZZ)A0BWt5BwP+@XmZDn+"
    "2a+H&lXb5NvO8|wGXbp#yQj{o50ZRdelxP)+Lj(W-KtPmqlwxQah)#5rQj}#b"
)


def test_pickles_of_the_version_before_load_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor, parameter = pickle.loads(base64.b85decode(PICKLED))
    assert type(tensor) is tg.Tensor and tensor.name == "w" and tensor.requires_grad
    np.testing.assert_array_equal(tensor.numpy(), np.array([[1.0, -2.5]], "float32"))
    assert type(parameter) is tg.nn.Parameter and parameter.requires_grad
    np.testing.assert_array_equal(parameter.numpy(), np.array([3.0], "float32"))

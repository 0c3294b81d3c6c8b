"""Checkpoints: nested state in one file. It is written whole or not at all, and reading executes nothing.

A state is what `state_dict()` gives: dicts, lists and tuples of arrays, Tensors, numbers, strings, booleans
and None. A file holds its arrays as they are, named by their place in the state (`model.0.weight`), and one
JSON text that describes everything else:

- `.npz`: an uncompressed zip of structure.json and one .npy file per array. It is built in; `numpy.load` opens it.
- `.safetensors`: the JSON is in the metadata. It needs the package safetensors. Other programs can read the arrays.

Both are checked when they are loaded. A zip has a CRC-32 of each member. The safetensors that `save` writes have one
for each array and one for the JSON in the metadata. Files of version 1 have none, and load unchecked. So do the
.safetensors of other programs, as a dict of their arrays by name. Neither format uses pickle, because loading a pickle
may run any code.
"""

import glob
import json
import math
import os
import re
import secrets
import stat
import zipfile
import zlib

import numpy as np

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed: a temporary of a living writer stays
    fcntl = None  # type: ignore[assignment]

VERSIONS = {".npz": (1,), ".safetensors": (1, 2)}  # those that `load` reads; `save` writes the last
CHECKED = 2  # the first version of .safetensors with checksums
MAX_DEPTH = 100
MAX_BITS = 14_000  # of an integer: Python reads 4,300 digits
MAX_STRUCTURE = 1 << 26  # bytes of JSON: each may become some thirty bytes of Python objects
STRUCTURE, CHECKSUMS, CHECKSUM = "structure.json", "checksums", "structure.json.crc32"
RESERVED = {STRUCTURE, "__metadata__"}  # the latter by safetensors
CONTAINERS = {"list": list, "tuple": tuple}
NPY_DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
}  # fmt: skip
DTYPES = {".npz": NPY_DTYPES, ".safetensors": NPY_DTYPES - {"complex128"} | {"bfloat16"}}


class CheckpointError(ValueError):
    """The file is damaged, hostile, or was not written by `save`."""


def save(path, state):
    """Write nested `state` to `path`; the suffix, .npz or .safetensors, chooses the format.

    The file is first written under another name in the same folder and then moved, so that a crash leaves
    the old file or the new one, never half of one. Tensors and device arrays are copied to the host. Dtypes,
    shapes, Python's and NumPy's kinds of number, lists, tuples, dicts and their keys (strings or integers)
    come back as they were; subclasses of them come back as the plain kind. The file keeps the permissions of a file
    that it replaces. Temporary files of writers that died are removed.

    Raises TypeError for a value, dtype or dict key that the file cannot hold, naming its place; ValueError
    for an unknown suffix or a state that contains itself; FileNotFoundError if the folder is not there;
    ImportError if safetensors is wanted and not installed.

    >>> model = tg.nn.Linear(2, 1, rng=0)
    >>> tg.save("model.npz", {"model": model.state_dict(), "epoch": 3})
    >>> tg.load("model.npz")["epoch"]
    3
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"save: path is a {type(path).__name__}; the path comes first: save(path, state)")
    path = os.path.realpath(os.fsdecode(path))  # replaces what a symbolic link points at, not the link
    suffix = _suffix("save", path)
    arrays: dict[str, np.ndarray] = {}
    tree = _encode(state, (), arrays, suffix)
    document = {"format": "tinygrad_ms", "version": VERSIONS[suffix][-1], "state": tree}
    if document["version"] >= CHECKED:
        document[CHECKSUMS] = {name: _checksum(array) for name, array in arrays.items()}
    structure = json.dumps(document)
    if len(structure) > MAX_STRUCTURE:
        raise ValueError(
            f"save: the state without its arrays takes {len(structure):,} bytes, and {MAX_STRUCTURE:,} is the limit;"
            " make arrays of its long lists of numbers"
        )
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"save: there is no folder {folder}; make it first")
    if os.path.isdir(path):
        raise IsADirectoryError(f"save: {path} is a folder; give the name of a file in it")
    file = _temporary(folder, name)
    try:
        with file:
            if os.path.exists(path):
                os.chmod(file.name, stat.S_IMODE(os.stat(path).st_mode))
            WRITERS[suffix](file, arrays, structure)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except BaseException:  # Ctrl-C as well
        if os.path.exists(file.name):
            os.unlink(file.name)
        raise
    for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.{'[0-9a-f]' * 8}.tmp")):
        _remove_if_dead(left)


def _temporary(folder, name):
    """A new file beside ``name``, open and locked as long as its writer lives."""
    while True:
        file = open(os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp"), "xb")  # noqa: SIM115
        if fcntl is None or _locked(file):
            return file
        file.close()  # a reader of the folder took it for one of a dead writer before it was locked


def _locked(file):
    """Lock an open file, unless another process or thread has; whether it is ours and still in its folder."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:
        return False
    except OSError as error:
        return not isinstance(error, BlockingIOError)  # a file system without locks: as good as it gets


def _remove_if_dead(path):
    """Remove a temporary file if its writer, who would hold the lock, is gone."""
    try:
        with open(path, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        if fcntl is None:
            os.unlink(path)
    except OSError:  # it is being written, somebody else removed it, or it is not ours
        pass


def load(path):
    """The nested state in a file that `save` wrote, with NumPy arrays where it had arrays or Tensors.

    A .safetensors file of another program gives the dict of its arrays; nothing says whether they are intact.
    The arrays are on the host; `load_state_dict` copies them to their devices. Nothing in the file is executed, and
    no header can make this reserve more memory than the file has bytes.
    Raises CheckpointError, a ValueError that names the file and what is wrong with it; FileNotFoundError;
    MemoryError; ImportError if safetensors is needed and not installed.

    >>> tg.save("numbers.npz", {"a": [1, 2], "b": tg.ones(2)})
    >>> tg.load("numbers.npz")
    {'a': [1, 2], 'b': array([1., 1.], dtype=float32)}
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"load: path is a {type(path).__name__}, expected the name of a file")
    path = os.fsdecode(path)
    suffix = _suffix("load", path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"load: there is no file {path}")
    with open(path, "rb") as file:
        try:
            structure, arrays = READERS[suffix](file)
            if structure is None:
                return arrays
            return _decode_document(json.loads(structure), arrays, VERSIONS[suffix])
        except MemoryError:
            raise
        except Exception as error:  # zipfile, json, NumPy and safetensors have many types for bad files
            reason = str(error) or type(error).__name__
            raise CheckpointError(f"load: {path} is not a usable checkpoint: {reason}") from error


def _suffix(caller, path):
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in DTYPES:
        raise ValueError(f"{caller}: {path} ends in {suffix!r}, expected one of {', '.join(DTYPES)}")
    if suffix == ".safetensors":
        try:
            import safetensors.numpy  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{caller}: {path} needs the package safetensors: `pip install safetensors`; or use the suffix .npz"
            ) from error
    return suffix


# State <-> tree of JSON, with the arrays set aside under names


def _encode(value, place, arrays, suffix):
    if len(place) > MAX_DEPTH:
        raise ValueError(f"save: the state is nested over {MAX_DEPTH} levels deep; does it contain itself?")
    if value is None or isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic):
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            where = "state" + "".join(f"[{key!r}]" for key in place)
            raise ValueError(f"save: {where} has an integer of {value.bit_length():,} bits; save it as a string")
        return value
    where = "state" + "".join(f"[{key!r}]" for key in place)
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(
                    f"save: {where} has the key {key!r} of type {type(key).__name__}, expected strings or integers"
                )
        return {"dict": [[key, _encode(item, (*place, key), arrays, suffix)] for key, item in value.items()]}
    for tag, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return {tag: [_encode(item, (*place, i), arrays, suffix) for i, item in enumerate(value)]}
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"save: {where} is a masked array, whose mask would be lost; save its .filled(...) or .data and .mask"
        )
    array = _host_array(value)
    if array is None:
        raise TypeError(
            f"save: {where} is a {type(value).__name__}, expected an array, a Tensor, a number, "
            "a string, a boolean, None, or a dict, list or tuple of these"
        )
    if array.dtype.name not in DTYPES[suffix]:
        fitting = [other for other in DTYPES if array.dtype.name in DTYPES[other]]
        raise TypeError(
            f"save: {where} has dtype {array.dtype}, which {suffix} files cannot hold; "
            + (f"use the suffix {fitting[0]} or " if fitting else "")
            + "convert it first"
        )
    name = base = re.sub(r"[^\w.-]", "_", ".".join(map(str, place)), flags=re.ASCII) or "state"
    count = 1
    while name in arrays or name in RESERVED:  # {"a.b": x, "a": {"b": y}} gives a.b and a.b-2
        count += 1
        name = f"{base}-{count}"
    arrays[name] = array
    return {"scalar" if isinstance(value, np.generic) else "array": name}


def _host_array(value):
    """A NumPy array in C order and native byte order, or None for what is no array."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
    elif hasattr(value, "numpy") and hasattr(value, "device"):  # a Tensor
        array = value.numpy()
    elif hasattr(value, "get") and hasattr(value, "dtype"):  # a CuPy array
        array = value.get()
    else:
        return None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # safetensors 0.8 writes strided arrays in the wrong order. (np.ascontiguousarray makes 0-d ones 1-d.)
    return np.asarray(array, order="C")


def _decode_document(document, arrays, versions):
    if not isinstance(document, dict) or not {"format", "version", "state"} <= document.keys():
        raise CheckpointError("it was not written by tinygrad_ms.save")
    if document["format"] != "tinygrad_ms":
        raise CheckpointError(f"it has the format {str(document['format'])[:40]!r}; tinygrad_ms.save did not write it")
    if type(document["version"]) is not int or document["version"] not in versions:
        raise CheckpointError(
            f"it has version {document['version']!r}, this program reads {' and '.join(map(str, versions))}"
        )
    if document["version"] >= CHECKED:
        _check_arrays(document.get(CHECKSUMS), arrays)
    state = _decode(document["state"], arrays)
    if arrays:
        raise CheckpointError(f"its structure does not name the arrays {sorted(arrays)[:5]}")
    return state


def _checksum(array) -> list:
    """What is recorded of an array: the CRC-32 of its bytes, its dtype and its shape."""
    return [zlib.crc32(array.reshape(-1).view(np.uint8)), array.dtype.name, list(array.shape)]


def _check_arrays(checksums, arrays):
    if not isinstance(checksums, dict) or checksums.keys() != arrays.keys():
        raise CheckpointError("its checksums are not those of its arrays")
    if damaged := [name for name, array in arrays.items() if checksums[name] != _checksum(array)]:
        raise CheckpointError(f"the checksums of its arrays {sorted(damaged)[:5]} differ: the file is damaged")


def _decode(tree, arrays, depth=0):
    """The state that a tree describes; takes each array that it names out of `arrays`."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"it is nested over {MAX_DEPTH} levels deep")
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, dict) and len(tree) == 1:
        [(tag, content)] = tree.items()
        if tag in ("array", "scalar") and isinstance(content, str):
            if content not in arrays:
                raise CheckpointError(f"its structure names the array {content!r} twice, or it is not there")
            array = arrays.pop(content)
            return array if tag == "array" else array[()]
        if tag in CONTAINERS and isinstance(content, list):
            return CONTAINERS[tag](_decode(item, arrays, depth + 1) for item in content)
        if tag == "dict" and isinstance(content, list) and all(map(_is_entry, content)):
            if len({key for key, _ in content}) < len(content):
                raise CheckpointError("its structure has a dict with one key twice")
            return {key: _decode(item, arrays, depth + 1) for key, item in content}
    raise CheckpointError(f"its structure has an entry of unknown kind: {str(tree)[:60]}")


def _is_entry(pair):
    return isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int)


# The two formats


def _write_npz(file, arrays, structure):
    with zipfile.ZipFile(file, "w") as archive:
        # A ZipInfo has no time stamp, so that equal states make equal files.
        archive.writestr(zipfile.ZipInfo(STRUCTURE), structure)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_npz(file):
    if not zipfile.is_zipfile(file):
        raise CheckpointError("it is no complete zip archive; it is some other kind of file or was cut short")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError("its zip members are compressed, which save never does")
        if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
            raise CheckpointError("its zip members claim more bytes than the file has")
        if len({member.filename for member in members}) < len(members):
            raise CheckpointError("it has two members of one name")
        if STRUCTURE not in archive.namelist():
            raise CheckpointError(f"it has no {STRUCTURE}: it was not written by tinygrad_ms.save")
        structure = _small(archive.read(STRUCTURE))
        arrays = {
            member.filename.removesuffix(".npy"): _read_npy(archive, member)
            for member in members
            if member.filename != STRUCTURE
        }
    return structure, arrays


def _small(structure):
    if len(structure) > MAX_STRUCTURE:
        raise CheckpointError(f"its structure has {len(structure):,} bytes, and {MAX_STRUCTURE:,} is the limit")
    return structure


def _read_npy(archive, member):
    """One array; its header is checked against the bytes that are there before any memory is reserved."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise CheckpointError(f"{member.filename} has npy version {version}, expected (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        found = member.file_size - file.tell()
    if dtype.name not in NPY_DTYPES:
        raise CheckpointError(
            f"{member.filename} has dtype {dtype}, which is not loaded "
            "(objects are pickles, and a pickle may run any code)"
        )
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected != found:
        raise CheckpointError(f"{member.filename} has {found} bytes for its shape {shape} of {dtype}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _write_safetensors(file, arrays, structure):
    from safetensors.numpy import save as serialize

    file.write(serialize(arrays, metadata={STRUCTURE: structure, CHECKSUM: str(zlib.crc32(structure.encode()))}))


def _read_safetensors(file):
    from safetensors import safe_open

    with safe_open(file.name, framework="np") as archive:
        metadata = archive.metadata() or {}
        ours = {STRUCTURE, CHECKSUM} & metadata.keys() or any('"tinygrad_ms"' in text for text in metadata.values())
        structure = _small(metadata.get(STRUCTURE, "")) if ours else None
        if structure is None:
            intact = True  # as far as anybody knows
        elif CHECKSUM in metadata:
            intact = metadata[CHECKSUM] == str(zlib.crc32(structure.encode()))
        else:
            intact = bool(structure) and _has_version_1(structure)
        if not intact:
            raise CheckpointError("the checksum of its structure differs: the file is damaged")
        names = archive.keys()
        if any(archive.get_slice(name).get_dtype() == "BF16" for name in names):
            _import_bfloat16()
        return structure, {name: archive.get_tensor(name) for name in names}


def _has_version_1(structure):
    """Whether the file is from before there were checksums."""
    document = json.loads(structure)
    return not isinstance(document, dict) or document.get("version") == 1 and CHECKSUMS not in document


def _import_bfloat16():
    try:
        import ml_dtypes  # noqa: F401
    except ImportError as error:
        raise CheckpointError("it holds bfloat16 arrays: `pip install ml_dtypes` to read them") from error


WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}

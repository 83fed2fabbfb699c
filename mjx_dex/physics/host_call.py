"""NumPy functions that compiled programs call by name, on CPUs.

``jax.pure_callback`` puts a pointer of this process into the program: JAX does not keep
that in its compilation cache, and every command would compile for half a minute.
A function that is registered with XLA's foreign function interface (FFI) is a name.

The structures are those of ``xla/ffi/api/c_api.h``, which XLA keeps binary compatible
for at least a year after a change.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_void_p

import jax
import numpy as np

API_VERSION = (0, 3)
"""Of the structures below."""

DTYPES = {4: np.dtype(np.int32), 11: np.dtype(np.float32)}
"""``XLA_FFI_DataType``: what engines take and return."""

METADATA = 1
"""``XLA_FFI_Extension_Metadata``: asks for the version, and calls nothing."""

INTERNAL = 13
"""``XLA_FFI_Error_Code_INTERNAL``."""

HostFunction = Callable[[list[np.ndarray], list[np.ndarray]], None]
"""Reads arrays and writes its results into others; keeps none of them."""


class _Buffer(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    ]

    def array(self) -> np.ndarray:
        """The memory itself, not a copy."""
        shape, dtype = tuple(self.dims[: self.rank]), DTYPES[self.dtype]
        count = int(np.prod(shape)) * dtype.itemsize
        if not count:
            return np.empty(shape, dtype)
        memory = (ctypes.c_char * count).from_address(self.data)
        return np.frombuffer(memory, dtype).reshape(shape)


class _Buffers(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("buffers", POINTER(POINTER(_Buffer))),
    ]

    def arrays(self) -> list[np.ndarray]:
        return [self.buffers[k].contents.array() for k in range(self.size)]


class _Version(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("major", c_int),
        ("minor", c_int),
    ]


class _Metadata(Structure):
    _fields_ = [("struct_size", c_size_t), ("version", _Version)]


class _Extension(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("type", c_int),
        ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    ]


class _NewError(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("message", c_char_p),
        ("code", c_int),
    ]


class _Api(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("version", _Version),
        ("internal", c_void_p),
        ("create_error", ctypes.CFUNCTYPE(c_void_p, POINTER(_NewError))),
    ]


class _CallFrame(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension", POINTER(_Extension)),
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
    ]


_handlers: dict[str, tuple] = {}
"""By name, the C function and what it calls; compiled programs may at any time."""


def register(name: str, function: HostFunction) -> None:
    """Let programs on CPUs call ``function`` by ``name``; see ``call``.

    Of several functions with one name the last one is called: they must do the same.
    """
    if name in _handlers:
        _handlers[name][1][0] = function
        return
    newest = [function]
    handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_CallFrame))(_handle(newest))
    pointer = ctypes.cast(handler, c_void_p)
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(pointer), platform="cpu")
    _handlers[name] = handler, newest


def call(name: str, results, *arguments: jax.Array):
    """Call what is registered; worlds of ``vmap`` are leading axes of all arrays.

    Args:
        name: of the function.
        results: list of ``jax.ShapeDtypeStruct``, of a single world.
        arguments: of a single world.
    """
    return jax.ffi.ffi_call(name, results, vmap_method="broadcast_all")(*arguments)


def _handle(newest: list[HostFunction]):
    """What XLA calls: returns the address of an error, or None."""

    def handle(pointer):
        frame = pointer.contents
        if frame.extension and frame.extension.contents.type == METADATA:
            version = frame.extension.contents.metadata.contents.version
            version.major, version.minor = API_VERSION
            return None
        try:
            newest[0](frame.arguments.arrays(), frame.results.arrays())
        except Exception as error:
            message = f"{type(error).__name__}: {error}".encode()
            new = _NewError(ctypes.sizeof(_NewError), None, message, INTERNAL)
            return frame.api.contents.create_error(ctypes.byref(new))
        return None

    return handle

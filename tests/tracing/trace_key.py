"""Two parts with one key have one graph: a digest of all that a trace can read of a part."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial, reduce
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from alm.ports import Port, Span
from wrappers import dialect
from wrappers.checkpoint.weights.tensors import Weights

ATOMS = (type(None), bool, int, float, complex, str, bytes, range, torch.dtype, torch.device)
VALUES = (tuple, frozenset, Port, Span)  # one that is shared and two that are equal are the same
LIBRARIES = ("torch", "numpy", "transformers", "collections", "functools", "builtins")


class Unknown(Exception):
    """Something whose state cannot be told for sure: what holds it is traced each time."""


def key_of(traced: object, ours: Callable[[str], bool]) -> str:
    """The key of what is handed to the tracer.

    `ours` says of a module's name whether it is known that no test changed the module. The classes
    and functions of such a module, and of LIBRARIES, are told by their names.

    Raises:
        Unknown: there is none.
    """
    walk = _Walk(ours)
    walk.see((traced, dialect.current(), torch.get_default_dtype()))
    return walk.digest.hexdigest()


class _Walk:
    """Says everything to one digest; what was seen before is said by its number."""

    def __init__(self, ours: Callable[[str], bool]) -> None:
        self.ours = ours
        self.digest = hashlib.sha256()
        self.seen: dict[int, tuple[int, object]] = {}  # objects too: else an id could come again

    def say(self, *words: object) -> None:
        self.digest.update(repr(words).encode())

    def see(self, thing: Any) -> None:
        if type(thing) in ATOMS:
            self.say(type(thing).__name__, thing)
        elif isinstance(thing, type | FunctionType | BuiltinFunctionType | ModuleType):
            self.see_code(thing)
        elif isinstance(thing, VALUES):
            self.see_content(thing)
        elif id(thing) in self.seen:
            self.say("seen", self.seen[id(thing)][0])
        else:
            self.seen[id(thing)] = len(self.seen), thing
            self.see_content(thing)

    def see_content(self, thing: Any) -> None:
        if isinstance(thing, Weights):
            self.say("weights")  # a trace has stand-ins for them
        elif isinstance(thing, nn.Parameter):
            self.say("weight", thing.dtype, thing.shape, thing.stride(), thing.device)
        elif isinstance(thing, Tensor | np.ndarray):
            self.see_array(thing)
        elif isinstance(thing, dict):
            self.see_all(thing, [item for pair in thing.items() for item in pair])
        elif isinstance(thing, tuple | list):
            self.see_all(thing, thing)
        elif isinstance(thing, set | frozenset):
            self.see_all(thing, sorted(thing, key=repr))
        elif isinstance(thing, partial):
            self.see_all(thing, (thing.func, thing.args, thing.keywords))
        elif isinstance(thing, MethodType):
            self.see_all(thing, (thing.__func__, thing.__self__))
        elif isinstance(thing, torch.export.Dim):
            self.say("axis", thing.__name__, thing.min, thing.max)
        elif isinstance(thing, Enum):
            self.see_all(thing, (thing.name,))
        else:
            self.see_instance(thing)

    def see_all(self, thing: object, content: Iterable[object]) -> None:
        items = list(content)
        self.see(type(thing))
        self.say(len(items))
        for item in items:
            self.see(item)

    def see_array(self, array: Tensor | np.ndarray) -> None:
        if type(array) not in (Tensor, np.ndarray):
            raise Unknown(type(array))  # a stand-in, or worse
        self.say(type(array).__name__, array.dtype, tuple(array.shape))
        if isinstance(array, Tensor):
            if array.device.type != "cpu" or array.requires_grad:
                raise Unknown(array.device)
            self.say(array.stride())
            array = array.contiguous().flatten().view(torch.uint8).numpy()
        if array.dtype.hasobject:
            raise Unknown(array.dtype)
        self.digest.update(array.tobytes())

    def see_instance(self, thing: Any) -> None:
        """An object that is its class and its attributes."""
        kind = type(thing)
        if not isinstance(thing, nn.Module | PretrainedConfig) and not self.ours(kind.__module__):
            raise Unknown(kind)
        if any("__slots__" in vars(base) for base in kind.__mro__) or not hasattr(
            thing, "__dict__"
        ):
            raise Unknown(kind)
        self.see(kind)
        for name, value in vars(thing).items():
            if name == "_name_or_path":  # of a config: where its file was
                continue
            self.say(name)
            hooks = isinstance(thing, nn.Module) and "_hooks" in name and isinstance(value, dict)
            self.see(list(value.values()) if hooks else value)  # hooks are numbered as they come

    def see_code(self, thing: Any) -> None:
        """A class, a function or a module, which its name leads to."""
        if isinstance(thing, ModuleType):
            if not self.ours(thing.__name__):
                raise Unknown(thing)
            self.say("module", thing.__name__)
            return
        self.say("code", thing.__module__, thing.__qualname__)
        if isinstance(thing, FunctionType) and self.ours(thing.__module__):
            self.see(_told(thing.__code__))
            cells = [cell.cell_contents for cell in thing.__closure__ or ()]
            self.see([thing.__defaults__, thing.__kwdefaults__, cells])
            return
        module = thing.__module__ or ""
        if not self.ours(module) and module.partition(".")[0] not in LIBRARIES:
            raise Unknown(thing)
        if not isinstance(thing, BuiltinFunctionType) and _found(thing) is not thing:
            raise Unknown(thing)


def _told(code: CodeType) -> tuple[object, ...]:
    """What a function does. marshal says the same code in other bytes from time to time."""
    consts = [_told(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, tuple(consts)


def _found(thing: Any) -> object:
    """What stands where this class or function says that it does."""
    try:
        return reduce(getattr, thing.__qualname__.split("."), sys.modules[thing.__module__])
    except (AttributeError, KeyError):
        return None

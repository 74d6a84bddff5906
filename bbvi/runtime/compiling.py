"""How bbvi's programs are compiled.

On a CPU, jaxlib since 0.10.2 leaves sums over large arrays to a library, YNNPACK, and wrong numbers came of it without
a word: in 0.10.2 of products of a matrix with more than 16 384 vectors (github.com/jax-ml/jax/issues/39103); in 0.12.0
of sums with two different logarithms in them, as a normal log density with an unknown variance has. So bbvi's programs
do without it. Besides, the older way of compiling loops takes two thirds of the time; jaxlib 0.10 has it still. And
the compiler's first level of optimisation takes two thirds of the time of its highest, for programs as fast.

A JAX program that a user compiles is compiled as before, unless bbvi calls it. What the environment says in XLA_FLAGS
holds for bbvi's programs, too.
"""

import os
from collections.abc import Callable
from functools import cache, cached_property, partial, update_wrapper
from typing import Any

import jax

from bbvi.runtime.deadline import call
from bbvi.runtime.lapack import in_pieces

OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": 1,
}


@cache
def options() -> dict[str, Any]:
    """Those of `OPTIONS` that the present device and version of jaxlib know, and the environment leaves open."""
    if jax.default_backend() != "cpu":
        return {}
    asked = os.environ.get("XLA_FLAGS", "")
    wanted = {name: value for name, value in OPTIONS.items() if name not in asked}
    if _are_known(wanted):
        return wanted
    return {name: value for name, value in wanted.items() if _are_known({name: value})}


def _are_known(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


class Program:
    """What `program` makes: like the result of `jax.jit`, but another program has to call its `function`."""

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.function, self._arguments = function, arguments
        update_wrapper(self, function, updated=())  # attributes of the function stay its own: one may be `function`

    @cached_property
    def jitted(self) -> Any:
        """The result of `jax.jit`; made when it is first called, since it depends on the device."""
        return jax.jit(in_pieces(self.function), compiler_options=options(), **self._arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call(partial(self.jitted, *args, **kwargs))


def program(function: Callable[..., Any] | None = None, **arguments: Any) -> Any:
    """`jax.jit` for functions that are called from the host. Arguments, such as static ones, are those of `jax.jit`."""
    return partial(program, **arguments) if function is None else Program(function, arguments)

"""How long JAX traced and compiled, and how often, as JAX itself reports it."""

import threading

import jax.monitoring

_PHASES = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class _Clock(threading.local):
    seconds: float = 0.0
    compilations: int = 0


_clock = _Clock()


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event in _PHASES[1:]:  # tracing is nested, and would be counted twice
        _clock.seconds += duration_secs
    if event == _PHASES[2]:
        _clock.compilations += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_seconds() -> float:
    """Seconds that this thread has spent lowering and compiling so far."""
    return _clock.seconds


def compilations() -> int:
    """Programs that this thread has compiled so far."""
    return _clock.compilations

"""How long JAX compiled, and how often, as JAX itself reports it."""

import threading

import jax.monitoring

_PHASES = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class _Clock(threading.local):
    seconds: float = 0.0


_clock = _Clock()
_counts = dict.fromkeys(_PHASES, 0)


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event in _PHASES:
        _clock.seconds += duration_secs
        _counts[event] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_seconds() -> float:
    """Seconds that this thread has spent lowering and compiling so far."""
    return _clock.seconds


def add_compile_seconds(seconds: float) -> None:
    """Count what another thread has spent for this one."""
    _clock.seconds += seconds


def compilations() -> int:
    """Programs that this process has compiled so far."""
    return _counts[_PHASES[-1]]

"""What to say of a log density with which JAX cannot do what is needed."""


def no_gradient(reason: Exception) -> TypeError:
    """What to say of a log density that JAX cannot differentiate."""
    return TypeError(
        f"JAX cannot differentiate logprob ({in_short(reason)}). Write the part concerned with other functions, give "
        'it a derivative by jax.custom_jvp, or give the gradient to bbvi.external. method="advi" with '
        'estimator="score_function" needs none.'
    )


def no_derivative(what: str, reason: Exception) -> TypeError:
    """What to say of a log density of which JAX cannot make the second derivatives that something needs."""
    error = TypeError(
        f"{what} needs second derivatives of the log density, and JAX cannot make them: "
        f'{in_short(reason)}. Use what needs gradients only, such as method="newton", "advi", "bam", '
        '"pathfinder" or "ivon"; or write that part of the log density with other functions, or give bbvi.external its '
        "hvp=."
    )
    error.__cause__ = reason
    return error


def in_short(error: Exception) -> str:
    """Type and first sentence of an error."""
    first = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {first}"

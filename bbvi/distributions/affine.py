"""An affine map with a structured scale: the coordinates of a problem, a place to start from, a Gaussian."""

from bbvi.distributions.scales import Array, Diagonal, Scale, Triangular
from bbvi.runtime.pytree import pytree


@pytree
class Affine:
    """x = loc + S y. As a distribution, where y is standard normal, it is N(loc, S S^T).

    Arguments:
        loc: `(dim,)`.
        scale: S, a `Scale`.
    """

    loc: Array
    scale: Scale

    @property
    def dim(self) -> int:
        """Length of x."""
        return self.loc.shape[-1]

    def __call__(self, y: Array) -> Array:
        """x `(dim,)` of y `(columns,)`."""
        return self.loc + self.scale.apply(y)

    def inverse(self) -> "Affine":
        """The map from x to y, of a diagonal scale."""
        if not isinstance(self.scale, Diagonal):
            raise TypeError(f"the inverse of a {type(self.scale).__name__} map is not made: solve with its scale.")
        return Affine(-self.loc / self.scale.diagonal, Diagonal(-self.scale.log_scale))

    def distance(self, x: Array) -> Array:
        """How far x `(dim,)` is from loc, in standard deviations, a scalar."""
        return self.scale.square(x - self.loc) ** 0.5

    @property
    def is_dense(self) -> bool:
        """Whether the scale holds correlations between all coordinates."""
        return isinstance(self.scale, Triangular)

    @property
    def dense(self) -> "Affine":
        """The same Gaussian with a triangular scale."""
        return Affine(self.loc, Triangular.around(self.scale))

    def draws(self, noise: Array) -> Array:
        """x `(n, dim)` of y `(n, dim)`, all at once."""
        if isinstance(self.scale, Diagonal):
            return self.loc + noise * self.scale.diagonal
        return self.loc + noise @ self.scale.matrix().T

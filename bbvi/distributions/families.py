"""The named families: a scale and a base each."""

from bbvi.distributions.affine_couplings import AffineCouplings
from bbvi.distributions.bases import HeavyTailed, Normal
from bbvi.distributions.location_scale import Family
from bbvi.distributions.low_rank import DiagonalPlusLowRank
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.distributions.sinh_arcsinh import SinhArcsinhBase
from bbvi.distributions.spiked import SpikedDiagonal
from bbvi.distributions.spline_couplings import SplineCouplings

MeanField = Family(
    "mean_field",
    Diagonal,
    Normal,
    """N(loc, diag(exp(log_scale))^2): the mean-field Gaussian, `MeanField(loc, log_scale)`.

    Against a correlated target its best fit has the right means (for a symmetric target) and standard deviations
    `1 / sqrt(P_ii)`, with P the target's precision: too small whenever coordinates are correlated.
    """,
)
FullRank = Family(
    "full_rank",
    Triangular,
    Normal,
    """N(loc, L L^T) with L lower triangular, `FullRank(loc, raw_tril)`: see `Triangular` for `raw_tril`.""",
)
LowRank = Family(
    "low_rank",
    DiagonalPlusLowRank,
    Normal,
    """N(loc, diag(exp(log_diagonal))^2 + F F^T), `LowRank(loc, log_diagonal, factor)`: memory and time linear in dim.

    `LowRank.standard(dim, rank=3)`, for `fit(family=...)`, has three columns in F.

    Reference: Ong, Nott and Smith 2018 (arXiv:1701.03208).
    """,
)
Spiked = Family(
    "spiked",
    SpikedDiagonal,
    Normal,
    """A Gaussian whose covariance is a diagonal, stretched or squeezed along a few directions: `SpikedDiagonal`.

    `Spiked(loc, log_diagonal, directions, log_spikes)`; `Spiked.standard(dim, rank=3)` has three directions.
    """,
)
StudentT = Family(
    "student_t",
    Triangular,
    HeavyTailed,
    """x = loc + L e sqrt(nu / chi^2_nu), e ~ N(0, I): heavier tails than a Gaussian in all directions at once.

    `StudentT(loc, raw_tril, degrees_of_freedom=5)`, where optimisation leaves nu, an integer of at least 3, as it is.
    The covariance is L L^T nu / (nu - 2).
    """,
)
SinhArcsinh = Family(
    "sinh_arcsinh",
    Triangular,
    SinhArcsinhBase,
    """A Gaussian whose whitened coordinates are bent: skewed, and with lighter or heavier tails. See `SinhArcsinhBase`.

    `SinhArcsinh(loc, raw_tril, skew, log_tail)`.
    """,
)
RealNVP = Family(
    "flow",
    Triangular,
    AffineCouplings,
    """A normalising flow of affine couplings around a Gaussian. See `Couplings` for its leaves.

    Holds funnels, bananas and other posteriors with one mode. `RealNVP.standard(dim, layers=6, width=24)`, for
    `fit(family=...)`, gives its size.

    References: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); Agrawal, Sheldon and Domke 2020
    (arXiv:2006.10343).
    """,
)
NeuralSpline = Family(
    "spline_flow",
    Triangular,
    SplineCouplings,
    """A normalising flow of affine and rational-quadratic spline couplings. Richer than `RealNVP`, and slower.

    For posteriors in few dimensions whose shape is far from a Gaussian, such as two modes that are not far apart.

    Reference: Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).
    """,
)
GAUSSIAN = (MeanField, FullRank, LowRank, Spiked)

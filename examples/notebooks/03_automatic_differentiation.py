# %% [markdown]
# # Automatic differentiation, from the chain rule to `bbvi`
#
# All that makes variational inference *black-box* is that a computer can differentiate a program. This notebook
# explains how: the two orders in which the chain rule can be multiplied out, what they cost, how they nest to give
# Hessians, and how a differentiator is built, in a page of plain Python that is checked against JAX at the end. Costs
# are counted rather than timed: in operations of the compiled program, as XLA reports them.

# %%
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import grad, jacfwd, jacrev, jvp, vjp, vmap

from bbvi import curvature

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})


def flops(fun, *args):
    """Floating point operations of the compiled program."""
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]


# %% [markdown]
# ## The chain rule has two ends
#
# A program that computes $y = f(x)$ is a chain of elementary steps, $f = f_3 \circ f_2 \circ f_1$. Its Jacobian is a
# product of matrices, one for each step:
#
# $$
# J = \frac{\partial y}{\partial x} = J_3 \, J_2 \, J_1 .
# $$
#
# Nobody wants to multiply these matrices: each step is a function of thousands of numbers. What is cheap is to
# multiply by a *vector*, and there are two ends to begin from.
#
# - **Forward accumulation** begins on the right: $J v = J_3 (J_2 (J_1 v))$. It carries a tangent along with the
#   evaluation. With $v$ a unit vector it yields a **column** of $J$: how all outputs respond to one input. In JAX:
#   `jvp`.
# - **Reverse accumulation** begins on the left: $u^\top J = ((u^\top J_3) J_2) J_1$. It evaluates first, and then runs
#   back. With $u$ a unit vector it yields a **row** of $J$: how one output responds to all inputs. In JAX: `vjp`.


# %%
def f(x):
    """From three inputs to two outputs."""
    return jnp.stack([x[0] * x[1], x[1] * jnp.sin(x[2])])


x = jnp.array([2.0, 3.0, 0.5])
columns = [jvp(f, (x,), (v,))[1] for v in jnp.eye(3)]
y, pull_back = vjp(f, x)
rows = [pull_back(u)[0] for u in jnp.eye(2)]

by_hand = np.array([[x[1], x[0], 0], [0, np.sin(x[2]), x[1] * np.cos(x[2])]])
np.testing.assert_allclose(np.stack(columns, axis=1), by_hand, rtol=1e-6)
np.testing.assert_allclose(np.stack(rows), by_hand, rtol=1e-6)
print(f"{len(columns)} forward passes make the columns, {len(rows)} reverse passes the rows, of\n{by_hand.round(2)}")

# %% [markdown]
# So a full Jacobian of $m$ outputs by $n$ inputs takes $n$ forward passes or $m$ reverse ones. For a scalar function,
# $m = 1$, such as a log density, one reverse pass gives the whole gradient, however many inputs there are. It is this
# fact on which deep learning and `bbvi` rest. Counted for a two-layer network with 50 inputs:

# %%
rng = np.random.default_rng(0)
INPUTS, HIDDEN = 50, 50
first = rng.standard_normal((HIDDEN, INPUTS)) / 7
point = rng.standard_normal(INPUTS)


def network(outputs):
    last = rng.standard_normal((outputs, HIDDEN)) / 7
    return lambda x: last @ jnp.tanh(first @ x)


sizes = [1, 10, 50, 100, 200]
costs = {"forward (columns)": jacfwd, "reverse (rows)": jacrev}
figure, axes = plt.subplots(figsize=(6, 3.4))
for (name, jacobian), colour in zip(costs.items(), (ORANGE, BLUE), strict=True):
    networks = [network(m) for m in sizes]
    counted = [flops(jacobian(each), point) / flops(each, point) for each in networks]
    print(f"{name:18}", ", ".join(f"{count:.0f} for m = {m}" for m, count in zip(sizes, counted, strict=True)))
    axes.loglog(sizes, counted, "o-", color=colour, label=name)
axes.axvline(INPUTS, color="0.7", linestyle="--", linewidth=1, label="as many outputs as inputs")
axes.set(
    xlabel="outputs m of a function of 50 inputs",
    ylabel="cost of the Jacobian\n(evaluations of the function)",
    title="Few outputs: go backwards. Many outputs: go forwards",
)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Derivatives of derivatives
#
# A derivative is a function again, so it can be differentiated. `grad` is reverse accumulation of a scalar function;
# nested, it gives derivatives of any order, and `vmap` applies them to a whole grid of points:

# %%
t = jnp.linspace(-4, 4, 401)
figure, axes = plt.subplots(figsize=(6.5, 3.6))
derivative, primes = jnp.tanh, ""
for colour in ("black", BLUE, ORANGE, GREEN, "#CC79A7"):
    axes.plot(t, vmap(derivative)(t), color=colour, label=rf"$\tanh{primes}$")
    derivative, primes = grad(derivative), primes + "'"
axes.set(xlabel="t", ylabel="value", title="tanh and its first four derivatives, by nesting grad")
axes.legend(frameon=False)
plt.show()

np.testing.assert_allclose(grad(grad(jnp.tanh))(0.7), -2 * np.tanh(0.7) / np.cosh(0.7) ** 2, rtol=1e-5)

# %% [markdown]
# ## Hessians, and how to do without them
#
# The Hessian is the Jacobian of the gradient. The gradient is best taken in reverse, since the function has one
# output; it has as many outputs as inputs, so that forward is the better choice on top of it: `jacfwd(jacrev(f))`.
#
# Where a Hessian has too many entries, its *product with a vector* is all that most methods need, and this costs no
# more than a few gradients. There are two ways to write it (Pearlmutter 1994):
#
# $$
# H v = \frac{\mathrm{d}}{\mathrm{d} t} \nabla f(x + t v) \Big|_{t = 0}
# \quad \text{(forward over reverse)}, \qquad
# H v = \nabla \big( \nabla f(x) \cdot v \big)
# \quad \text{(the gradient of a gradient)}.
# $$


# %%
def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def hessian(x):
    return jacfwd(jacrev(rosenbrock))(x)


def forward_over_reverse(x, v):
    return jvp(grad(rosenbrock), (x,), (v,))[1]


def reverse_over_reverse(x, v):
    return grad(lambda x: jnp.vdot(grad(rosenbrock)(x), v))(x)


x, v = jnp.asarray(rng.standard_normal((2, 6)), jnp.float32)
expected = hessian(x) @ v
np.testing.assert_allclose(forward_over_reverse(x, v), expected, rtol=1e-4)
np.testing.assert_allclose(reverse_over_reverse(x, v), expected, rtol=1e-4)
print("H v, three times the same:", np.asarray(expected).round(1))

# %%
dims = [3, 10, 30, 100, 300]
counted = {"Hessian": [], "H v, reverse over reverse": [], "H v, forward over reverse": [], "gradient": []}
for dim in dims:
    x = jnp.ones(dim)
    evaluation = flops(rosenbrock, x)
    counted["Hessian"].append(flops(hessian, x) / evaluation)
    counted["H v, reverse over reverse"].append(flops(reverse_over_reverse, x, x) / evaluation)
    counted["H v, forward over reverse"].append(flops(forward_over_reverse, x, x) / evaluation)
    counted["gradient"].append(flops(grad(rosenbrock), x) / evaluation)

figure, axes = plt.subplots(figsize=(6.5, 3.6))
for (name, values), style in zip(counted.items(), ("s-", "o-", "o--", "^-"), strict=True):
    axes.loglog(dims, values, style, label=name)
    print(f"{name:26}", ", ".join(f"{value:.1f}" for value in values))
axes.set(
    xlabel="dimension",
    ylabel="cost (evaluations of the function)",
    title="A product with the Hessian costs some 2.5 evaluations in any dimension",
)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Fan-in and fan-out
#
# Real programs are graphs rather than chains. A step may take several values (*fan-in*), and a value may be used by
# several steps (*fan-out*). Backwards, the two trade places. At a fan-in the cotangent goes to each of the arguments;
# at a fan-out the cotangents of all uses **add up**, since the total derivative is a sum over all ways from the value
# to the result:
#
# $$
# z = g(a(x), b(x)) \quad \Longrightarrow \quad
# \frac{\mathrm{d} z}{\mathrm{d} x} =
# \frac{\partial z}{\partial a} \frac{\mathrm{d} a}{\mathrm{d} x} +
# \frac{\partial z}{\partial b} \frac{\mathrm{d} b}{\mathrm{d} x} .
# $$
#
# To copy and to add are each other's transpose. Broadcasting is copying, too: a bias that is added to a hundred rows
# has a hundred uses, and its gradient is the sum over the rows.

# %%
one = jnp.float32(1)
_, back_of_add = vjp(lambda a, b: a + b, one, one)
_, back_of_copy = vjp(lambda a: (a, a), one)
_, back_of_broadcast = vjp(lambda bias: jnp.zeros((100, 3)) + bias, jnp.ones(3))
print("back through a sum:      ", *map(float, back_of_add(5 * one)))
print("back through a copy:     ", *map(float, back_of_copy((5 * one, 2 * one))))
print("back through a broadcast:", *np.asarray(back_of_broadcast(jnp.ones((100, 3)))))

# %% [markdown]
# ## A differentiator in a page
#
# Nothing else is needed to build reverse accumulation. A **primitive** is a function with a rule for pulling
# cotangents back through it. When it is called with a traced value, it computes its result and notes where it came
# from: running a program this way **builds its graph**. The backward pass then visits the graph from the result to the
# inputs, each node after all of its uses, and adds up cotangents as it goes.


# %%
class Node:
    """A value in the graph of a computation, and how to pull a cotangent back to the values that it was made from."""

    __array_ufunc__ = None  # so that NumPy's arrays leave `array @ node` to the node

    def __init__(self, value, name="input", parents=()):
        self.value, self.name, self.parents = value, name, parents  # parents: pairs (node, pull_back)

    def __add__(self, other):
        return add(self, other)

    def __sub__(self, other):
        return subtract(self, other)

    def __mul__(self, other):
        return multiply(self, other)

    def __matmul__(self, other):
        return matmul(self, other)

    def __rmatmul__(self, other):
        return matmul(other, self)

    __radd__, __rmul__ = __add__, __mul__


RULES = {}  # for each primitive, one function (cotangent, result, *arguments) -> cotangent for each argument


def defvjp(primitive, *rules):
    RULES[primitive] = rules


def primitive(function):
    """A function of arrays that leaves a trace when it meets a Node."""

    def traced(*args):
        values = [arg.value if isinstance(arg, Node) else arg for arg in args]
        result = function(*values)
        parents = [
            (arg, lambda g, rule=rule: rule(g, result, *values))
            for arg, rule in zip(args, RULES[traced], strict=True)
            if isinstance(arg, Node)
        ]
        return Node(result, function.__name__, parents) if parents else result

    return traced


def in_order(result):
    """All nodes that `result` depends on, each after those that it was made from: a topological order."""
    ordered, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent, _ in node.parents:
                visit(parent)
            ordered.append(node)

    visit(result)
    return ordered


def backward(result, cotangent):
    """Cotangents of all nodes that `result` depends on, by id."""
    cotangents = {id(result): cotangent}
    for node in reversed(in_order(result)):  # a node comes after all of its uses, so that its cotangent is complete
        for parent, pull_back in node.parents:
            cotangents[id(parent)] = cotangents.get(id(parent), 0) + pull_back(cotangents[id(node)])  # fan-out: add
    return cotangents


def make_vjp(fun, *args):
    """`fun(*args)`, and the function from its cotangent to those of the arguments."""
    inputs = [Node(arg) for arg in args]
    output = fun(*inputs)

    def pull_back(cotangent):
        cotangents = backward(output, cotangent)
        return [cotangents.get(id(each), np.zeros_like(each.value)) for each in inputs]

    return output.value, pull_back


def my_grad(fun):
    """Gradient of a scalar function with respect to each of its arguments."""
    return lambda *args: make_vjp(fun, *args)[1](1.0)


# %% [markdown]
# The primitives with their rules. NumPy broadcasts silently, and as we saw, the transpose of broadcasting is a sum:
# `unbroadcast` sums a cotangent over the axes that were stretched or added.


# %%
def unbroadcast(g, like):
    shape = np.shape(like)
    g = np.sum(g, axis=tuple(range(np.ndim(g) - len(shape))))  # axes that were added in front
    stretched = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] != 1)
    return np.sum(g, axis=stretched, keepdims=True)


add, subtract, multiply = primitive(np.add), primitive(np.subtract), primitive(np.multiply)
matmul, tanh, total = primitive(np.matmul), primitive(np.tanh), primitive(np.sum)

defvjp(add, lambda g, y, a, b: unbroadcast(g, a), lambda g, y, a, b: unbroadcast(g, b))
defvjp(subtract, lambda g, y, a, b: unbroadcast(g, a), lambda g, y, a, b: unbroadcast(-g, b))
defvjp(multiply, lambda g, y, a, b: unbroadcast(g * b, a), lambda g, y, a, b: unbroadcast(g * a, b))
defvjp(matmul, lambda g, y, a, b: g @ b.T, lambda g, y, a, b: a.T @ g)
defvjp(tanh, lambda g, y, a: g * (1 - y**2))
defvjp(total, lambda g, y, a: np.broadcast_to(g, np.shape(a)))

# %% [markdown]
# What a program leaves behind when it is run once, and the cotangents of a pass back through it. Both $x$ and the
# product are used twice:

# %%
x, y = Node(np.array(0.5)), Node(np.array(2.0))
product = x * y
result = product * product + tanh(x)

cotangents, names = backward(result, 1.0), {}
for node in in_order(result):
    names[id(node)] = f"v{len(names)}"
    origin = f"{node.name}({', '.join(names[id(parent)] for parent, _ in node.parents)})"
    print(f"{names[id(node)]} = {origin:16} = {node.value:.3f}   cotangent {cotangents[id(node)]:.3f}")

np.testing.assert_allclose(cotangents[id(x)], 2 * 0.5 * 2.0**2 + 1 - np.tanh(0.5) ** 2)

# %% [markdown]
# The test is a network with two hidden layers and a squared loss. It has everything: matrix products, biases that are
# broadcast over the rows, and an error that is used twice where it is squared. The same Python runs under our tracer
# and under JAX's; only their `tanh` and sum differ.

# %%
layers = [4, 16, 16, 1]
weights = []
for inputs, outputs in pairwise(layers):
    weights += [rng.standard_normal((inputs, outputs)) / np.sqrt(inputs), 0.1 * rng.standard_normal(outputs)]
features, targets = rng.standard_normal((100, 4)), rng.standard_normal((100, 1))


def loss(tanh, total, w1, b1, w2, b2, w3, b3):
    hidden = tanh(tanh(features @ w1 + b1) @ w2 + b2)
    error = hidden @ w3 + b3 - targets
    return total(error * error)


ours = my_grad(lambda *weights: loss(tanh, total, *weights))(*weights)
with jax.enable_x64(True):
    jax_loss = jax.jit(grad(lambda weights: loss(jnp.tanh, jnp.sum, *weights)))
    theirs = jax.tree.map(np.asarray, jax_loss(list(map(jnp.asarray, weights))))

for mine, jaxs in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(mine, jaxs, rtol=1e-9, atol=1e-12)
print("shapes of the gradients:", *(each.shape for each in ours))
print(f"largest difference to JAX: {max(np.max(np.abs(a - b)) for a, b in zip(ours, theirs, strict=True)):.0e}")

# %% [markdown]
# ## What JAX does with a function
#
# JAX traces as well, but what it records is a small program, the *jaxpr*, rather than a graph of closures. Every
# transformation is a map from programs to programs, and that is why they nest. Here is one layer:


# %%
def predict(w, b, x):
    return jnp.tanh(x @ w + b)


w, b, row = jnp.ones((4, 3)), jnp.zeros(3), jnp.ones(4)
print(jax.make_jaxpr(predict)(w, b, row))

# %% [markdown]
# **Forward derivative.** Each line gets a companion that computes its tangent, in the same order. The derivative of
# `tanh` is found from its result, $1 - y^2 = (1 - y)(1 + y)$:

# %%
print(jax.make_jaxpr(lambda x, v: jvp(lambda x: predict(w, b, x), (x,), (v,)))(row, row))

# %% [markdown]
# **Reverse derivative.** First the evaluation, which keeps what the way back needs, $y$ and $1 - y$; then the
# transposed steps in opposite order. The product with $w$ on the way there is one with its transpose on the way back:

# %%
print(jax.make_jaxpr(grad(lambda x: predict(w, b, x).sum()))(row))

# %% [markdown]
# **Batch.** `vmap` rewrites each operation for an additional axis. No loop appears: a vector times a matrix has become
# a matrix times a matrix.

# %%
print(jax.make_jaxpr(vmap(predict, (None, None, 0)))(w, b, jnp.ones((100, 4))))

# %% [markdown]
# **Compile.** `jit` hands the program to XLA, which fuses operations so that intermediate results never reach memory.
# The effect is largest where little is computed for each number that is fetched, as in $x^2 + 2x$. Done one operation
# after the other, three operations read and write seven arrays: $x \cdot x$ reads one and writes one, $2 x$ too, and
# the sum reads two and writes one. Fused, one is read and one is written.


# %%
def polynomial(x):
    return x * x + 2 * x


def seconds(fun, big):
    fun(big).block_until_ready()  # compiles
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        fun(big).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return best


big = jnp.ones((5000, 5000))
apart, fused = seconds(polynomial, big), seconds(jax.jit(polynomial), big)
print(f"op by op takes {apart / fused:.1f} times as long as fused; the count of arrays says {7 / 2}")

# %% [markdown]
# ## How `bbvi` uses all this
#
# **The gradient of the ELBO is one reverse pass.** Draws $x_s = m + L \varepsilon_s$ fan out from the parameters of
# $q$, `vmap` evaluates the log density at all of them, and the cotangents of all draws add up in $m$ and $L$. Notebook
# 02 is this and no more.
#
# **Curvature comes as products.** Laplace's approximation, DADVI and natural gradients see the Hessian of the log
# density through its products with vectors. The toolbox beneath them, `bbvi.curvature`, can be used by itself. Let us
# ask for the curvature of the network's loss in its 369 weights:


# %%
def network_loss(weights):
    return loss(jnp.tanh, jnp.mean, *weights)


@jax.jit
def look(weights):
    operator = curvature.HessianOperator(network_loss, weights)  # linearised once, and never a matrix
    ritz = curvature.lanczos(operator.matvec, jnp.ones(operator.shape[0]), 40)
    return ritz.values, curvature.hessian_diagonal(network_loss, weights, probes=100)


with jax.enable_x64(True):
    values, (diagonal, error) = look(list(map(jnp.asarray, weights)))
print("largest eigenvalues: ", np.asarray(values[-3:]).round(2))
print("smallest eigenvalues:", np.asarray(values[:2]).round(2))
print(f"diagonal entry of the last bias, from 100 probes: {diagonal[5][0]:.2f} ± {error[5][0]:.2f}")

# %% [markdown]
# One negative eigenvalue is enough to know that these random weights are no minimum, and it took 40 products to find
# out instead of a matrix. The loss is a mean of squares in the last bias, so that its diagonal entry is exactly 2.
#
# `curvature.jacobian` chooses between rows and columns by counting them, `curvature.hvp` offers both ways of writing a
# product, and `curvature.derivative` nests forward passes for functions of one number. The page on curvature in the
# documentation has them all with their costs.

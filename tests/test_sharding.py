"""Several devices and hosts: the same numbers as on one device.

The number of virtual devices is fixed when JAX starts, so fits run in processes of their own.
"""

import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import bbvi
from tests import sharded_fits

SCRIPT = Path(sharded_fits.__file__)
NORMAL = lambda x: -0.5 * jnp.sum(x**2)
ONE = np.array(jax.devices()[:1])


def start(devices, *arguments):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def lines(process):
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@cache
def table():
    return {(row["case"], row["mesh"]): row for row in lines(start(8, "table"))}


MESHES = [(case, str(shape)) for case, (*_, shapes) in sharded_fits.CASES.items() for shape in shapes]


@pytest.mark.parametrize(("case", "mesh"), MESHES)
def test_the_mesh_changes_rounding_only(case, mesh):
    one, many = table()[case, "one"], table()[case, mesh]
    for name in ("q", "mean", "sample", "elbo"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("case", "mesh", "split"),
    [
        ("advi", "(1, 8)", {"x", "y"}),
        ("advi", "(8, 1)", set()),
        ("dadvi", "(2, 4)", {"x", "y"}),
        ("advi", "one", set()),
    ],
)
def test_rows_are_split_where_they_divide(case, mesh, split):
    assert {name for name, each in table()[case, mesh]["split"].items() if each} == split


def test_two_processes_end_where_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [start(2, "process", address, rank, 2, tmp_path / "state") for rank in range(2)]
    first, second = map(lines, processes)
    assert first == second
    assert [found["case"] for found in first] == ["default", "tall", "advi"]  # the last one resumed
    for found in first:
        assert {name for name, split in found["split"].items() if split} == {"x", "y"}
        np.testing.assert_allclose(found["mean"], table()[found["case"], "one"]["mean"], rtol=1e-8)


@pytest.mark.parametrize(
    ("devices", "error", "says"),
    [
        ("cpu", TypeError, "sequence of JAX devices"),
        (4, TypeError, "sequence of JAX devices"),
        ([], ValueError, "at least one"),
        ([jax.devices()[0]] * 2, ValueError, "none twice"),
        (Mesh(ONE, ("batch",)), ValueError, "must be 'draw' and 'data'"),
    ],
)
def test_what_is_no_mesh_is_refused(devices, error, says):
    with pytest.raises(error, match=says):
        bbvi.fit(NORMAL, 2, devices=devices)


def test_rows_are_split_rather_than_draws_when_they_are_large():
    code = (
        "import jax, numpy as np; from bbvi.runtime.sharding import make_layout\n"
        "for rows in (2**16, 2**16 - 1, 8): print(dict(make_layout(jax.devices(), [np.zeros(rows)]).mesh.shape))"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=SCRIPT.parents[1]
    )
    draws, data = {"draw": 4, "data": 1}, {"draw": 1, "data": 4}
    assert done.stdout.splitlines() == [str(data), str(draws), str(draws)]

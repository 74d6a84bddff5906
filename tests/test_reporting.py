"""The report: one page that needs nothing else, for good posteriors, bad ones and large ones."""

import re
from contextlib import chdir
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import bbvi
from bbvi.__main__ import main
from bbvi.reporting.plots import marginals
from bbvi.reporting.plots.drawing import short_number
from bbvi.reporting.report import ROWS, _number
from bbvi.reporting.scalars import read_variables, worst

NASTY = '<script>alert(1)</script> $v$ & "co"'


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    noise = numpyro.sample("noise", dist.HalfNormal(2))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, noise), obs=y)


def funnel(p):
    v = p[NASTY]
    return -(v**2) / 18 - jnp.sum(p["x"] ** 2 * jnp.exp(-v)) / 2 - 4.5 * v


def wide(p, scale):
    return -0.5 * jnp.sum((p["w"] * scale) ** 2) - 0.5 * jnp.sum(p["b"] ** 2)


def fit_regression():
    x = np.linspace(-1, 1, 30)
    return bbvi.fit(bbvi.from_numpyro(regression, x, y=2 * x + 0.3 * np.cos(17 * x)))


def fit_funnel():
    return bbvi.fit(funnel, {NASTY: (), "x": (9,)}, method="pathfinder")


def fit_wide():
    dim = {"w": (60, 10), "b": ()}
    return bbvi.fit(wide, dim, data=np.linspace(0.5, 2, 600).reshape(60, 10), method="advi", num_steps=3)


def constrained(p):
    return -p["rate"] - jnp.sum(p["share"] ** 2)


class Page(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.targets, self.text, self.open = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.targets += [found[name] for name in ("src", "href", "xlink:href") if name in found]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "link", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def needs_nothing_else(posterior, html, page):
    assert not page.open
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert not re.search(r"url\((?!#)", html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert len(html) < 2_000_000


def pictures_have_alternatives_and_ids_of_their_own(posterior, html, page):
    pictures = [found for tag, found in page.tags if tag == "svg"]
    assert len(pictures) >= 4
    assert all(found["role"] == "img" and found["aria-label"] for found in pictures)
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target.startswith("#")} <= set(page.ids)


def says_what_the_verdict_says(posterior, html, page):
    text, diagnosis = " ".join(page.text.split()), posterior.diagnosis
    for words in (diagnosis.status.name.capitalize(), *diagnosis.reasons, *diagnosis.advice):
        assert " ".join(words.split()) in text
    assert posterior.origin.call in text
    assert posterior.origin.versions["jax"] in text
    name = posterior.origin.name
    assert name in ("regression", "funnel", "wide")
    assert f"{name}: posterior report" in text


def shows_names_as_text(posterior, html, page):
    assert "no log likelihood of each observation" in page.text
    assert NASTY in page.text


def sums_up(posterior, html, page):
    assert "60 × 10" in page.text
    assert 10 <= len(re.findall(r"w\[\d+\]\[\d+\]", page.text)) <= 4 * ROWS


def checks_predictions_and_loo(posterior, html, page):
    assert "Posterior predictive check of y" in page.text
    assert "elpd" in page.text


def can_be_made_of_a_file(posterior, html, page, folder):
    posterior.save(folder / "fit.nc")
    with chdir(folder):
        assert main(["report", "fit.nc"]) == 0
    again = Page((folder / "fit.html").read_text())
    says_what_the_verdict_says(posterior, "", again)
    assert "bbvi.load(path, logprob=...) takes it" in again.text


@pytest.mark.usefixtures("first_stage_only")
@pytest.mark.parametrize(
    ("make", "special"),
    [(fit_regression, checks_predictions_and_loo), (fit_funnel, shows_names_as_text), (fit_wide, sums_up)],
    ids=lambda function: function.__name__,
)
def test_a_page(make, special, tmp_path):
    posterior = make()
    posterior.report(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    page = Page(html)
    needs_nothing_else(posterior, html, page)
    pictures_have_alternatives_and_ids_of_their_own(posterior, html, page)
    says_what_the_verdict_says(posterior, html, page)
    special(posterior, html, page)
    can_be_made_of_a_file(posterior, html, page, tmp_path)


def test_leaving_one_out_is_for_rows_that_are_few_enough(tmp_path, monkeypatch):
    density = bbvi.Factorized(lambda m: -0.5 * m @ m, lambda m, y: -0.5 * (y - m[0]) ** 2)
    posterior = bbvi.fit(density, 1, data=np.linspace(-1, 1, 30), method="laplace")
    posterior.report(tmp_path / "page.html")
    assert "elpd" in Page((tmp_path / "page.html").read_text()).text
    monkeypatch.setattr("bbvi.reporting.report.MOST_LIKELIHOODS", 10_000)
    posterior.report(tmp_path / "page.html")
    text = Page((tmp_path / "page.html").read_text()).text
    assert "of 30 observations are more than 10,000 numbers" in text
    assert "elpd" not in text


def test_a_page_of_a_model_with_masked_rows(tmp_path):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        numpyro.sample("y", dist.Normal(mu, 1).expand([4]).mask(np.array([True, True, True, False])), obs=y)

    posterior = bbvi.fit(bbvi.from_numpyro(model, np.array([1.0, 2.0, 1.5, 99.0])), method="laplace")
    posterior.report(tmp_path / "report.html")
    assert "0 of 3" in Page((tmp_path / "report.html").read_text()).text  # k-hats of LOO, of the rows observed


def test_a_page_of_a_single_observation(tmp_path):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        numpyro.sample("y", dist.MultivariateNormal(mu * jnp.ones(2), jnp.eye(2)), obs=y)

    posterior = bbvi.fit(bbvi.from_numpyro(model, np.array([1.0, 2.0])), method="laplace")
    posterior.report(tmp_path / "report.html")
    assert "(LOO) of y is left out: it is a single observation" in (tmp_path / "report.html").read_text()


def test_a_page_of_counts(tmp_path):
    def model(y):
        numpyro.sample("y", dist.Bernoulli(logits=numpyro.sample("z", dist.Normal(0, 1))), obs=y)

    posterior = bbvi.fit(bbvi.from_numpyro(model, np.arange(20) % 2), method="laplace")  # integers of 64 bits
    posterior.report(tmp_path / "report.html")
    assert "mean field with linear response" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("ticks", "shown"),
    [
        ([0, 50_000, 100_000], ["0", "50k", "100k"]),
        ([1e6, 1.5e6, 2e6], ["1M", "1.5M", "2M"]),
        ([12_345.5, 12_345.6], ["12,345.5", "12,345.6"]),
        ([-0.2, 0.0, 0.1 + 0.2], ["-0.2", "0", "0.3"]),
    ],
)
def test_ticks_are_short_and_whole(ticks, shown):
    assert [short_number(tick, np.array(ticks)) for tick in ticks] == shown


def test_neighbours_share_an_axis_unless_one_would_be_a_spike():
    def of_scales(p):
        return -0.5 * jnp.sum((p / jnp.array([1.0, 2.0, 1e3])) ** 2)

    posterior = bbvi.fit(of_scales, 3, method="laplace")
    rows = worst(posterior, read_variables(posterior), 3)
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in marginals(posterior, rows).axes]
    assert labels == [["x[0]", "x[1]"], ["x[2]"]]


@pytest.mark.parametrize(
    ("value", "sd", "shown"), [(13_043.4783, 0.07, "13043.478"), (100_260, 3e4, "100260"), (0.5, 0.0, "0.5")]
)
def test_numbers_have_the_digits_that_their_sd_asks_for(value, sd, shown):
    assert _number(value, sd) == shown


def test_calibration_and_full_checks_are_shown(tmp_path):
    density = lambda mu, y: -0.5 * mu**2 - 0.5 * jnp.sum((y - mu) ** 2)
    found = bbvi.calibrate(lambda rng: rng.normal(), lambda rng, mu: rng.normal(mu, 1, 5), density, (), num_fits=40)
    bbvi.fit(density, (), data=np.ones(5)).report(tmp_path / "page.html", level="full", calibration=found)
    text = Page((tmp_path / "page.html").read_text()).text
    assert str(found).splitlines()[0] in text
    assert "Stein test" in text


def test_the_origin_says_how_to_run_it_again():
    posterior = bbvi.fit(
        constrained,
        {"rate": (), "share": (2,)},
        constraints={"rate": constraints.positive, "share": constraints.interval(0.0, 2.0)},
        method=bbvi.ADVI(num_draws=4),
        num_steps=2,
    )
    assert posterior.origin.call == (
        "bbvi.fit(constrained, {'rate': (), 'share': (2,)}, constraints={'rate': constraints.positive, 'share': "
        "constraints.interval(lower_bound=0.0, upper_bound=2.0)}, method=bbvi.StochasticVI(num_draws=4), num_steps=2)"
    )
    assert "def constrained(p):" in posterior.origin.source
    eval(posterior.origin.call)


def test_the_origin_shows_the_source_of_the_function_and_its_name():
    def tilted(x):
        return -0.5 * x @ x - jnp.logaddexp(0, x).sum()

    origin = bbvi.fit(tilted, 2, method="laplace").origin
    assert origin.source.splitlines() == [
        "def tilted(x):",
        "    return -0.5 * x @ x - jnp.logaddexp(0, x).sum()",
    ]
    assert origin.name == "tilted"


def test_the_origin_of_a_function_without_a_name():
    assert bbvi.fit(lambda x: -(x**2).sum(), 2, method="laplace").origin.name == ""


def test_the_origin_of_a_function_without_a_module():
    space = {}
    exec("def logprob(x): return -(x**2).sum()", space)
    assert "logprob" in bbvi.fit(space["logprob"], 2, method="laplace").origin.call


def test_the_origin_of_a_sum_over_rows_names_its_parts():
    def log_prior(m):
        return -0.5 * m @ m

    def log_lik(m, rows):
        return -0.5 * (rows - m[0]) ** 2

    posterior = bbvi.fit(bbvi.Factorized(log_prior, log_lik), 1, data=np.zeros(3), method="laplace")
    call = "bbvi.fit(bbvi.Factorized(log_prior=log_prior, log_likelihood=log_lik), 1, data=data, method='laplace')"
    assert posterior.origin.call == call
    assert posterior.origin.name == ""


def test_the_command_line_refuses_what_is_no_posterior(tmp_path, capsys):
    (tmp_path / "page.html").write_text("<html>")
    assert main(["report", str(tmp_path / "page.html")]) == 2
    assert "is no bbvi posterior" in capsys.readouterr().err


def test_the_command_line_runs_the_demo(tmp_path, capsys, first_stage_only):
    assert main(["demo", "-o", str(tmp_path / "demo.html")]) == 0
    assert "Status: " in capsys.readouterr().out
    assert "tau" in Page((tmp_path / "demo.html").read_text()).text


def test_the_command_line_tells_versions_and_devices(capsys):
    assert main(["info"]) == 0
    assert {"jax", "devices", "precision"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}

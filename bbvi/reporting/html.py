"""A posterior as a small piece of HTML, for notebooks."""

from html import escape

from bbvi.record import Record
from bbvi.reporting import tables

COLOURS = {"RELIABLE": "#2e7d32", "USABLE": "#b26a00", "UNRELIABLE": "#c62828", "FAILED": "#c62828"}


def to_html(posterior: Record, max_rows: int = 30) -> str:
    """The verdict and a table of parameters; names are escaped."""
    diagnosis = posterior.diagnosis
    rows = tables.printed(posterior, max_rows)
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *rows[0][1]))
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        + "".join(f"<td>{value:.4g}</td>" for value in row.values())
        + "</tr>"
        for name, row in rows
    )
    left_out = posterior.num_scalars - len(rows)
    more = f"<p>and {left_out} more: summary() has them all</p>" if left_out > 0 else ""
    items = "".join(f"<li>{escape(text)}</li>" for text in (*diagnosis.reasons, *diagnosis.advice))
    status = diagnosis.status
    return (
        f"<div><p><b style='color:{COLOURS[status.name]}'>{escape(status.name.lower())}</b>: "
        f"{escape(diagnosis.words)}. k-hat {diagnosis.resampling_k_hat:.2f}, "
        f"ELBO {escape(str(diagnosis.elbo))}, log evidence {escape(str(diagnosis.log_evidence))}</p>"
        f"{f'<ul>{items}</ul>' if items else ''}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
    )

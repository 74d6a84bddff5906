"""A record that anyone can check: every posterior with a known answer, by bbvi and by others, and what came of it.

`python -m benchmarks.record` makes the record, a line of JSON for each fit, and the pages and pictures from it.
"""

"""The documentation site: `sphinx-build -W --keep-going docs docs/_build`. Nothing is fetched, nothing is executed."""

import shutil
import sys
from pathlib import Path

import bbvi

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project, release = "bbvi", bbvi.__version__
copyright = "the bbvi authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "mathml"]
exclude_patterns = ["_build", "jupyter_execute", "extensions"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "bbvi"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["bbvi.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https"]

nb_execution_mode = "off"
nb_merge_streams = True

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "code"  # docstrings write `x` as Markdown does
highlight_language = "text"  # equations in them are indented
python_maximum_signature_line_length = 100
napoleon_custom_sections = [("Fields", "params_style")]

for notebook in HERE.parent.glob("examples/notebooks/*.ipynb"):
    shutil.copy(notebook, HERE / "notebooks")

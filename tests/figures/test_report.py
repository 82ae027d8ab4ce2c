"""The page about a run says what the tables say, and needs nothing but itself."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

from pacbed.examples.labels import OUTPUTS, PARAMETERS
from pacbed.exceptions import PacbedError
from pacbed.figures import TITLES
from pacbed.figures.report import costs_by_rule, read_captions, write_report
from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = ROOT / "workflow/report"
OTHERS = {"map", "errors", "bounds", "bounds_mean", "calibration", "draws", "report", "workflow"}
BASELINE = {"rotation_deg": 5.0, "tilt_x_mrad": 2.5, "tilt_y_mrad": 2.5}
COMPLETE = {"strain-rotation-tilt": "linear", "strain-rotation": "sqrt"}


def network(semiangle, layers, outputs, **more):
    """The rows of one network: 0.1 % of strain, a tenth of the baseline in other parameters."""
    rows = []
    for parameter in OUTPUTS[outputs]:
        baseline = BASELINE.get(parameter, 0.02)
        mae = more.get(parameter, baseline / 20)
        for split, dose in (("test", "all"), ("test", "1"), ("train", "all")):
            rows.append(
                {
                    "method": more.get("method", "network"),
                    "semiangle_mrad": semiangle,
                    "layers": layers,
                    "outputs": outputs,
                    "intensity": COMPLETE[outputs],
                    "split": split,
                    "dose": dose,
                    "parameter": parameter,
                    "mae": mae if (split, dose) == ("test", "all") else 77 * mae,
                    "mae_low": 0.9 * mae,
                    "mae_high": 1.1 * mae,
                    "baseline_mae": baseline,
                    "prior_bound_mae": more.get("bound", float("nan")),
                    "data_bound_mae": more.get("bound", float("nan")),
                    "no_lattice": more.get("no_lattice", 0.0),
                    "flagged": more.get("flagged", 0.0),
                }
            )
    return pd.DataFrame(rows)


def bounds(*states):
    return pd.DataFrame(
        {
            "semiangle_mrad": 6.35,
            "layers": 5,
            "state": state,
            "parameter": parameter,
            "electrons": electrons,
            "sigma": 1e-4 if electrons > 1e6 else 1e-3,
            "sigma_prior": 1e-4,
            "probe_nm": 0.401,
        }
        for state in states
        for parameter in PARAMETERS
        for electrons in (5e7, 1e6)
    )


def png(path):
    """Write a black picture."""
    imsave(path, np.zeros((300, 2160)))
    return path


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/demo.yaml"]).plain()


@pytest.fixture
def page(tmp_path, config):
    """Write a page, some of it other than usual, and return its text."""

    def write(*networks, names=("fig1",), **other):
        given = {
            "errors": pd.concat(networks or [network(6.35, 5, "strain-rotation-tilt")]),
            "draws": pd.DataFrame(
                {"semiangle_mrad": 6.35, "split": ["train", "train", "validation", "test"]}
            ),
            "bounds": bounds("undeformed"),
            "calibration": None,
            "figures": [png(tmp_path / f"{name}.png") for name in names],
            "captions": read_captions(CAPTIONS, config),
            "config": config,
            "revision": "83a9145",
            "costs": costs_by_rule([]),
            "patterns": {},
        }
        path = tmp_path / "report.html"
        write_report(path, **{**given, **other})
        return path.read_text(encoding="utf-8")

    return write


def text(page, section=None):
    """What a reader sees of a page, or of a section of it."""
    if section:
        page = re.search(rf'<section aria-labelledby="{section}">.*?</section>', page, re.S)[0]
    plain = re.sub(r"<(style|title)>.*?</\1>|<[^>]*>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", plain).replace("ε xx", "ε_xx").replace("φ x", "φ_x")


# The page


def test_a_page_needs_nothing_but_itself(page):
    written = page(names=TITLES)
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", written)
    assert len(sources) > len(TITLES)
    assert [s[:40] for s in sources if not s.startswith(("data:image/png;base64,", "#"))] == []
    assert not re.search(r"url\(|@import|<script|<link", written)


def test_every_link_leads_somewhere_and_every_tag_is_closed(page):
    written = page()
    targets = re.findall(r'href="#(\w+)"', written)
    assert len(targets) >= 5
    assert all(written.count(f'id="{target}"') == 1 for target in targets)
    opened = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img", "br"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Parser().feed(written)
    assert opened == []


def test_figures_come_in_order_with_title_caption_and_alternative_text(page, config):
    written = page(names=TITLES)
    names = re.findall(r'<h3 id="(\w+)">', written)
    assert names == list(TITLES)
    captions = read_captions(CAPTIONS, config)
    alternatives = re.findall(r'alt="([^"]*)"', written)
    assert [html.unescape(alternative) for alternative in alternatives] == [
        f"{('Fig. ' + n[3:] + '. ') if n.startswith('fig') else ''}{TITLES[n]}: {captions[n]}"
        for n in TITLES
    ]
    assert 'width="2160" height="300"' in written


def test_the_table_has_the_errors_of_the_test_set_at_all_doses(page):
    shown = text(page(network(6.35, 5, "strain-rotation-tilt", strain_xx=0.00123)), "errors")
    assert "0.123 0.11–0.14" in shown  # in %
    assert "0.250 0.23–0.28" in shown  # of 5 degrees
    assert not re.search(r"9\.47|0\.0947", shown)  # 77 times as much: of training, or of one dose


def test_a_network_without_tilt_has_empty_cells_and_stands_after_that_with_it(page):
    written = page(network(6.35, 1, "strain-rotation"), network(6.35, 1, "strain-rotation-tilt"))
    rows = re.findall(r"<tr class=.*?</tr>", written, re.S)[:2]
    assert [row.count("<td></td>") for row in rows] == [0, 2]
    # The sample is named once for the eye, and in every row for others.
    written = written.replace("\N{NO-BREAK SPACE}", " ")
    assert written.count('<th scope="row">6.35 mrad, 1 layer</th>') == 1
    assert written.count('<th scope="row"><span hidden>6.35 mrad, 1 layer</span></th>') == 1


def test_what_no_network_reads_is_marked_with_the_error_of_the_mean(page):
    table = network(6.35, 1, "strain-rotation-tilt", tilt_x_mrad=2.4, tilt_y_mrad=2.6)
    marked = re.findall(r'<td class="helpless">(.*?)</td>', page(table))
    assert [text(one).split() for one in marked] == [
        ["2.40", "2.2–2.6", "mean", "2.50"],
        ["2.60", "2.3–2.9", "mean", "2.50"],
    ]
    # Without an interval the error itself is compared.
    written = page(table.assign(mae_low=float("nan"), mae_high=float("nan")))
    marked = re.findall(r'<td class="helpless">(.*?)</td>', written)
    assert [text(one).split() for one in marked] == [["2.60", "mean", "2.50"]]
    assert not re.search(r"\bnan\b|––", text(written))


def test_classical_methods_stand_after_the_networks_with_the_share_of_images_without_a_lattice(
    page,
):
    discs = network(6.35, 1, "strain-rotation", method="discs", no_lattice=0.043)
    known = network(6.35, 1, "strain-rotation", method="discs-calibrated")
    of_networks = network(6.35, 1, "strain-rotation-tilt"), network(6.35, 1, "strain-rotation")
    written = page(known, discs, *of_networks)
    assert re.findall(r'<td class="text">([^<]*)<', written) == [
        *("with tilt, linear intensity", "without tilt, square-root intensity"),
        *("disc positions", "disc positions, calibrated"),
    ]
    assert len(re.findall(r'<tr class="[^"]*\bclassical">', written)) == 2
    shown = text(written, "errors")
    assert "disc positions 4 % without a lattice" in shown
    assert shown.count("% without a lattice") == 1


def test_how_many_times_the_bound_stands_where_a_bound_is_known(page):
    known = network(6.35, 1, "strain-rotation", method="discs-calibrated")
    shown = text(page(known, network(6.35, 1, "strain-rotation-tilt", bound=0.0004)), "errors")
    assert shown.count("2.5 ×") == 3  # the strains
    assert "×" not in text(page(known), "errors")


# The summary


def test_the_summary_has_the_smallest_strain_error_its_baseline_and_the_distance_to_the_bound(page):
    shown = text(
        page(
            network(6.35, 5, "strain-rotation-tilt", bound=0.0004),
            network(12.65, 10, "strain-rotation-tilt", bound=0.0004, strain_xx=0.0004),
        ),
        "summary",
    )
    # The mean of 0.04, 0.1 and 0.1 %.
    assert "(mean of the components), at 12.65 mrad, 10 layers 0.0800 %" in shown
    assert "always answering the mean 2.00 %" in shown
    assert "median strain error over the bound 2.5 ×" in shown
    assert "All 12 errors of networks are smaller than" in shown
    one = page(network(6.35, 1, "strain-rotation-tilt", tilt_x_mrad=2.4))
    assert "1 of 6 errors of networks are no better" in text(one, "summary")


# The intervals end at 0.0011; with normal ranges a bound may be 8 % above the best.
@pytest.mark.parametrize(("bound", "below"), [(0.00119, 0), (0.0012, 3)])
@pytest.mark.parametrize("interval", [True, False])
def test_an_error_below_the_bound_for_the_noise_of_the_examples_is_called_a_mistake(
    page, bound, below, interval
):
    table = network(6.35, 5, "strain-rotation-tilt", bound=bound).assign(prior_bound_mae=0.1)
    if not interval:  # the error itself is compared
        table = table.assign(mae=table["mae_high"], mae_low=float("nan"), mae_high=float("nan"))
    written = page(table)
    summary = text(written, "summary")
    assert ("3 errors lie more than 8 % below the bound" in summary) is bool(below)
    assert text(written, "errors").count("below the bound") == below


def test_costs_add_up_by_rule_the_dearest_first_and_are_shown(page):
    job = SimpleNamespace(rule="train", threads=4, gpus=1, seconds=3600.0)
    small = SimpleNamespace(rule="errors", threads=1, gpus=0, seconds=36.0)
    table = costs_by_rule([small, job, job])
    assert table.to_dict("records") == [
        {"rule": "train", "jobs": 2, "core_hours": 8, "gpu_hours": 2},
        {"rule": "errors", "jobs": 1, "core_hours": 0.01, "gpu_hours": 0},
    ]
    written = page(costs=table)
    assert "core-hours and 2.00 GPU-hours used 8.01" in text(written, "summary")
    assert "all 3 8.01 2.00" in text(written, "cost")


# What may be absent


def test_without_costs_and_bounds_nothing_is_said_of_them(page):
    written = page()
    assert 'id="cost"' not in written
    assert not re.search("bound|core-hours", text(written, "summary"))
    assert not re.search(r"\bnan\b", text(written))


@pytest.mark.parametrize("fixed", [PARAMETERS[:3], PARAMETERS[3:4], PARAMETERS[4:]])
def test_parameters_that_do_not_vary_are_left_out(page, fixed):
    errors, of_bounds = network(6.35, 5, "strain-rotation-tilt"), bounds("undeformed")
    errors = errors[~errors["parameter"].isin(fixed)]
    of_bounds.loc[of_bounds["parameter"].isin(fixed), "sigma_prior"] = float("nan")
    written = page(errors, bounds=of_bounds)
    for section in ("errors", "bounds"):
        shown = text(written, section)
        assert len([s for s in ("ε_xx", "γ", "φ_x") if f"{s} (" in shown]) == 2
    assert ("smallest strain error" in text(written)) is ("strain_xx" not in fixed)


def test_bounds_are_of_the_undeformed_crystal_at_both_ends_of_the_dose(page):
    shown = text(page(bounds=bounds("00012", "undeformed")), "bounds")
    assert "above at 1,000,000, beneath at 50,000,000 electrons" in shown
    assert "Crystal: undeformed" in shown
    assert "6.35 mrad, 5 layers 0.080 0.0080" in shown  # 0.798 of 0.1 and 0.01 %
    assert "Crystal: 00012" in text(page(bounds=bounds("00012")), "bounds")


# Provenance


def test_the_page_says_what_made_the_results(page, config):
    patterns = {"engine": "planewave", "prismatic_version": "2.0", "seconds": 3}
    written = page(patterns=patterns, config={**config, "results": "<b>results</b>"})
    assert "&lt;b&gt;results" in written  # it is no markup
    shown = text(written, "provenance")
    for part in ("revision 83a9145", "seed 2026", "prismatic version 2.0", "band_limit converged"):
        assert part in shown
    assert "seconds" not in shown
    assert "6.35 mrad 4 2 1 1" in shown  # the draws
    assert "formula: MoS2" in shown  # the configuration


# Captions


def test_every_figure_and_table_has_a_caption_of_some_sentences(config):
    captions = read_captions(CAPTIONS, config)
    assert set(captions) == OTHERS | set(TITLES)
    for name in captions.keys() - {"workflow"}:
        caption = captions[name]
        assert caption.endswith("."), name
        assert 2 <= len(re.findall(r"[.!?](?: |$)", caption)) <= 4, name
        assert not re.search(r"[{}`*]", caption), f"{name}: plain sentences only"


def test_the_page_of_another_crystal_names_it(page, config):
    other = load([ROOT / "config/demo.yaml"]).changed({"material": "graphene"}).plain()
    written = page(names=("cell", "fig1"), config=other, captions=read_captions(CAPTIONS, other))
    assert '<h3 id="cell">The crystal</h3>' in written
    assert "Patterns of undeformed graphene at 80 keV" in text(written, "figures")
    assert "tilt of graphene from one PACBED pattern" in text(written)


def test_error_bars_have_a_table(page):
    of_sample = {"semiangle_mrad": 6.35, "layers": 5, "intensity": "sqrt"}
    quantiles = dict(zip(("q025", "q16", "q50", "q84", "q975"), (-1.9, -1, 0, 1, 2.1), strict=True))
    of_fit = {"flagged": 0.03, "spread": 1.07, "failed": 0.01, "failed_unflagged": 0.0, **quantiles}
    tilt_too = "strain-rotation-tilt"
    readers = ("fit", tilt_too), ("network", tilt_too), ("network", "strain-rotation")
    rows = [
        {"parameter": name, "examples": 100, "method": method, "outputs": outputs}
        | of_sample
        | of_fit
        for method, outputs in readers
        for name in PARAMETERS
    ]
    shown = text(page(calibration=pd.DataFrame(rows)), "errorbars")
    places = [
        shown.index(label)
        for label in ("with tilt, square-root", "without tilt, square-root", "fit without network")
    ]
    assert places == sorted(places)
    assert "1.1" in shown
    assert "-1.9 to 2.1" in shown
    assert "errorbars" not in page()


def test_captions_are_what_snakemake_can_show(config):
    core = pytest.importorskip("docutils.core")
    jinja2 = pytest.importorskip("jinja2")
    for file in sorted(CAPTIONS.glob("*.rst")):
        content = file.read_text(encoding="utf-8")
        shown = jinja2.Template(content).render(snakemake={"config": config})
        body = core.publish_parts(shown, writer="html", settings_overrides={"halt_level": 2})[
            "body"
        ]
        assert "system-message" not in body
        assert "problematic" not in body


def test_a_caption_that_names_an_unknown_key_is_named(tmp_path):
    (tmp_path / "fig1.rst").write_text('At {{ snakemake.config["energy"] }} keV.')
    with pytest.raises(PacbedError, match=r"fig1\.rst.*energy"):
        read_captions(tmp_path, {})


# What cannot be used


def test_what_cannot_be_shown_is_named(page, tmp_path):
    (tmp_path / "fig5.png").write_text("no picture")
    with pytest.raises(PacbedError, match=r"fig5\.png is no PNG file"):
        page(figures=[tmp_path / "fig5.png"])
    table = network(6.35, 5, "strain-rotation-tilt")
    with pytest.raises(PacbedError, match="no row of the test set"):
        page(table[table["split"] == "train"])

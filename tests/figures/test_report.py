"""The page about a run says what the tables say, and needs nothing but itself."""

import html
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from pacbed.examples.labels import OUTPUTS, PARAMETERS
from pacbed.exceptions import PacbedError
from pacbed.figures import TITLES
from pacbed.figures.report import contradictions, costs_by_rule, read_captions, write_report
from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = ROOT / "workflow/report"
TABLES = {"errors", "bounds", "bounds_mean", "draws", "report"}
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
                    "failed": more.get("failed", 0.0),
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


def png(path, width=2160, height=300):
    """Write a PNG file that says how large it is, and is black."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    lines = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/demo.yaml"]).plain()


@pytest.fixture
def page(tmp_path, config):
    """Write a page, some of it other than usual, and return its text."""

    def write(*networks, figures=("fig1",), **other):
        given = {
            "errors": pd.concat(networks or [network(6.35, 5, "strain-rotation-tilt")]),
            "draws": pd.DataFrame(
                {"semiangle_mrad": 6.35, "split": ["train", "train", "validation", "test"]}
            ),
            "bounds": bounds("undeformed"),
            "figures": [f if isinstance(f, Path) else png(tmp_path / f"{f}.png") for f in figures],
            "captions": read_captions(CAPTIONS, config),
            "config": config,
            "revision": "83a9145",
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
    written = page(figures=TITLES)
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
    written = page(figures=reversed(TITLES))
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
    assert "0.123 0.111–0.135" in shown  # in %
    assert "0.250 0.225–0.275" in shown  # of 5 degrees
    assert not re.search(r"9\.47|0\.0947", shown)  # 77 times as much: of training, or of one dose


def test_a_network_without_tilt_has_empty_cells_and_stands_after_that_with_it(page):
    written = page(network(6.35, 1, "strain-rotation"), network(6.35, 1, "strain-rotation-tilt"))
    rows = re.findall(r"<tr class=.*?</tr>", written, re.S)[:2]
    assert [row.count("<td></td>") for row in rows] == [0, 2]


def test_a_sample_is_named_once_for_the_eye_and_in_every_row_for_others(page):
    written = page(network(6.35, 1, "strain-rotation"), network(6.35, 1, "strain-rotation-tilt"))
    written = written.replace("\N{NO-BREAK SPACE}", " ")
    assert written.count('<th scope="row">6.35 mrad, 1 layer</th>') == 1
    assert written.count('<th scope="row"><span hidden>6.35 mrad, 1 layer</span></th>') == 1


def test_what_no_network_reads_is_marked_with_the_error_of_the_mean(page):
    written = page(network(6.35, 1, "strain-rotation-tilt", tilt_x_mrad=2.4))
    marked = re.findall(r'<td class="helpless">(.*?)</td>', written)
    assert len(marked) == 1
    assert text(marked[0]).split() == ["2.40", "2.16–2.64", "mean", "2.50"]


def test_an_error_without_interval_is_compared_itself(page):
    table = network(6.35, 1, "strain-rotation-tilt", tilt_x_mrad=2.4, tilt_y_mrad=2.6)
    written = page(table.assign(mae_low=float("nan"), mae_high=float("nan")))
    marked = re.findall(r'<td class="helpless">(.*?)</td>', written)
    assert [text(one).split() for one in marked] == [["2.60", "mean", "2.50"]]
    assert "1 of 6 errors are no better" in text(written, "summary")
    assert not re.search(r"\bnan\b|––", text(written))


def test_the_share_of_images_without_a_lattice_stands_with_the_classical_method(page):
    discs = network(6.35, 1, "strain-rotation", method="discs", failed=0.043)
    known = network(6.35, 1, "strain-rotation", method="discs-calibrated")
    shown = text(page(network(6.35, 1, "strain-rotation-tilt"), discs, known), "errors")
    assert "disc positions 4 % without a lattice" in shown
    assert shown.count("% without a lattice") == 1


def test_how_many_times_the_bound_stands_where_a_bound_is_known(page):
    known = network(6.35, 1, "strain-rotation", method="discs-calibrated")
    shown = text(page(known, network(6.35, 1, "strain-rotation-tilt", bound=0.0004)), "errors")
    assert shown.count("2.5 ×") == 3  # the strains
    assert "×" not in text(page(known), "errors")


# The summary


def test_the_summary_names_the_most_precise_network_and_its_baseline(page):
    written = page(
        network(6.35, 5, "strain-rotation-tilt"),
        network(12.65, 10, "strain-rotation-tilt", strain_xx=0.0004),
    )
    shown = text(written, "summary")
    assert "The most precise network (12.65 mrad, 10 layers;" in shown
    assert "ε_xx to 0.0400 %" in shown
    assert "would give 2.00, 2.00 and 2.00 %" in shown
    assert "0.0800 %" in shown  # the mean of 0.04, 0.1 and 0.1


def test_the_summary_says_how_close_to_the_bound_and_where(page):
    shown = text(
        page(
            network(6.35, 5, "strain-rotation-tilt", bound=0.0004),
            network(12.65, 5, "strain-rotation-tilt", bound=0.0004, strain_xx=0.0006),
        ),
        "summary",
    )
    assert "2.5 times the Cramér–Rao bound" in shown
    assert "1.5 times where they come closest (ε_xx at 12.65 mrad, 5 layers)" in shown


# The intervals end at 0.0011; with normal ranges a bound may be 8 % above the best.
@pytest.mark.parametrize(("bound", "below"), [(0.00105, 0), (0.00119, 0), (0.0012, 3)])
@pytest.mark.parametrize("noise", ["counted", "of the examples"])
def test_an_error_below_the_bound_is_called_a_mistake(page, bound, below, noise):
    table = network(6.35, 5, "strain-rotation-tilt", bound=bound)
    if noise == "of the examples":
        table["prior_bound_mae"] = 0.1
    shown = text(page(table), "summary")
    assert ("3 errors lie more than 8 % below the bound" in shown) is bool(below)
    assert ("below the bound" in shown) is bool(below)
    # Without an interval the error itself, 0.001, is compared.
    shown = text(page(table.assign(mae_low=float("nan"), mae_high=float("nan"))), "summary")
    assert ("below the bound" in shown) is (bound > 0.00109)


def test_the_summary_says_what_is_no_better_than_the_mean(page):
    shown = text(page(network(6.35, 1, "strain-rotation-tilt", tilt_x_mrad=2.4)), "summary")
    assert "1 of 6 errors are no better" in shown
    assert "6.35 mrad, 1 layer (strain, rotation, tilt; linear intensity): φ_x" in shown
    assert "better than the mean would" in text(page(), "summary")


def test_the_classical_method_is_compared_with_the_best_network_of_a_sample(page):
    discs = network(6.35, 1, "strain-rotation", method="discs", strain_xx=0.0009)
    known = network(6.35, 1, "strain-rotation", method="discs-calibrated", strain_xx=0.0001)
    written = page(
        network(6.35, 1, "strain-rotation-tilt", strain_xx=0.003),
        network(6.35, 1, "strain-rotation", strain_xx=0.002),
        known,
        discs,
    )
    shown = text(written, "summary")
    for method in ("disc positions", "disc positions, calibrated"):
        assert f"({method}) is better than every network in 1 of 4 comparisons" in shown
    assert shown.count("in 1 of them beyond both 95 % intervals") == 2
    assert "6.35 mrad, 1 layer: ε_xx 0.0900 % instead of 0.200 %" in shown
    methods = re.findall(r'<td class="text">([^<]*)<', written)
    assert methods == [
        *("strain, rotation, tilt", "strain, rotation"),
        *("disc positions", "disc positions, calibrated"),
    ]
    assert len(re.findall(r'<tr class="[^"]*\bclassical">', written)) == 2


def test_costs_are_summed_and_shown(page):
    costs = pd.DataFrame(
        {
            "rule": ["train", "simulate"],
            "jobs": [2, 1200],
            "core_hours": [3.0, 1.5],
            "cpu_hours": [2.0, 1.25],
            "gpu_hours": [0.5, 0.0],
        }
    )
    written = page(costs=costs)
    assert "1,202 jobs used 4.50 core-hours and 0.500 GPU-hours." in text(written, "summary")
    assert "all 1,202 4.50 3.25 0.500" in text(written, "cost")


# What may be absent


def test_without_costs_and_classical_method_nothing_is_said_of_them(page):
    for costs in (None, pd.DataFrame()):
        written = page(costs=costs)
        assert 'id="cost"' not in written
        summary = text(written, "summary")
        assert not re.search("bound|classical|core-hours", summary)
        assert not re.search(r"\bnan\b", text(written))


@pytest.mark.parametrize("fixed", [PARAMETERS[:3], PARAMETERS[3:4], PARAMETERS[4:]])
def test_parameters_that_do_not_vary_are_left_out_and_that_is_said_once(page, fixed):
    errors, of_bounds = network(6.35, 5, "strain-rotation-tilt"), bounds("undeformed")
    errors = errors[~errors["parameter"].isin(fixed)]
    of_bounds.loc[of_bounds["parameter"].isin(fixed), "sigma_prior"] = float("nan")
    shown = text(page(errors, bounds=of_bounds))
    assert shown.count("not vary") == 1
    symbols = [s for s in ("ε_xx", "γ", "φ_x") if f"{s} (" in text(page(errors), "errors")]
    assert len(symbols) == 2
    assert [
        s for s in ("ε_xx", "γ", "φ_x") if f"{s} (" in text(page(bounds=of_bounds), "bounds")
    ] == symbols
    assert ("most precise" in shown) is ("strain_xx" not in fixed)
    assert "not vary" not in text(page())


def test_bounds_are_of_the_undeformed_crystal_at_both_ends_of_the_dose(page):
    shown = text(page(bounds=bounds("00012", "undeformed")), "bounds")
    assert "above at 1,000,000, beneath at 50,000,000 electrons" in shown
    assert "Crystal: undeformed" in shown
    assert "6.35 mrad, 5 layers 0.080 0.0080" in shown  # 0.798 of 0.1 and 0.01 %
    assert "Crystal: 00012" in text(page(bounds=bounds("00012")), "bounds")


# Provenance


def test_the_page_says_what_made_the_results(page):
    patterns = {"engine": "planewave", "prismatic_version": "2.0", "seconds": 3}
    shown = text(page(patterns=patterns), "provenance")
    for part in ("revision 83a9145", "seed 2026", "prismatic version 2.0", "band_limit converged"):
        assert part in shown
    assert "seconds" not in shown
    assert "6.35 mrad 4 2 1 1" in shown  # the draws
    assert "formula: MoS2" in shown  # the configuration


def test_text_of_the_configuration_is_no_markup(page, config):
    other = {**config, "results": "<b>results</b>"}
    assert "&lt;b&gt;results" in page(config=other)


def test_the_contradictions_are_those_of_the_documentation(page):
    text_of = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    lines = text_of.split("## Contradictions")[1].split("\n## ")[0].splitlines()
    written = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|") and not line.startswith("| ---")
    ]
    table = contradictions()
    assert [list(table[0]), *(list(row.values()) for row in table)] == written
    assert len(table) == 6
    shown = text(page(), "paper")
    assert "ε = F − I = R E Rᵀ" in shown
    assert "35,055,846" in shown
    assert "`" not in shown


# Costs


def test_costs_add_up_by_rule_the_dearest_first(page):
    job = SimpleNamespace(rule="train", threads=4, gpus=1, seconds=3600.0, cpu_s=900.0)
    small = SimpleNamespace(rule="errors", threads=1, gpus=0, seconds=36.0, cpu_s=0.0)
    table = costs_by_rule([small, job, job])
    assert table.to_dict("records") == [
        {"rule": "train", "jobs": 2, "core_hours": 8, "cpu_hours": 0.5, "gpu_hours": 2},
        {"rule": "errors", "jobs": 1, "core_hours": 0.01, "cpu_hours": 0, "gpu_hours": 0},
    ]
    assert 'id="cost"' in page(costs=table)


def test_without_finished_jobs_there_is_no_table_of_costs(page):
    assert costs_by_rule([]).empty
    assert 'id="cost"' not in page(costs=costs_by_rule([]))


# Captions


def test_every_figure_and_table_has_a_caption_of_some_sentences(config):
    captions = read_captions(CAPTIONS, config)
    assert set(captions) == TABLES | set(TITLES)
    for name, caption in captions.items():
        assert caption.endswith("."), name
        assert 2 <= len(re.findall(r"[.!?](?: |$)", caption)) <= 4, name
        assert not re.search(r"[{}`*]", caption), f"{name}: plain sentences only"


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


def test_what_cannot_be_shown_is_named(page, config, tmp_path):
    captions = read_captions(CAPTIONS, config)
    del captions["fig5"]
    with pytest.raises(PacbedError, match=r"write workflow/report/fig5\.rst"):
        page(figures=["fig5"], captions=captions)
    with pytest.raises(PacbedError, match="figure fig9 is unknown"):
        page(figures=["fig9"])
    (tmp_path / "fig5.png").write_text("no picture")
    with pytest.raises(PacbedError, match=r"fig5\.png is no PNG file"):
        page(figures=[tmp_path / "fig5.png"])
    table = network(6.35, 5, "strain-rotation-tilt")
    with pytest.raises(PacbedError, match="no row of the test set"):
        page(table[table["split"] == "train"])

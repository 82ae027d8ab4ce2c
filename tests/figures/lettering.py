"""Whether what is written in a figure can be read."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg

from pacbed.figures.style import paper_style


def panels(figure):
    """Return all axes, also those within others."""
    return [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]


def outside(figure):
    """Return what is written outside of panels."""
    found = list(figure.texts)
    for legend in figure.legends:
        found += legend.get_texts()
    for axes in panels(figure):
        found += [axes.title, axes._left_title, axes._right_title]
        if not axes.axison:
            continue
        found += [axes.xaxis.label, axes.yaxis.label]
        for number, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            found += [t for t in axis.get_ticklabels() if low <= t.get_position()[number] <= high]
    return [text for text in found if text.get_visible() and text.get_text()]


def assert_legible(figure, smallest=6):
    """No text covers another or a panel, none leaves the figure, none is too small."""
    with paper_style():
        FigureCanvasAgg(figure).draw()
    labels = outside(figure)
    inside = [t for axes in panels(figure) for t in axes.texts if t.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in labels + inside]
    assert len(boxes) > 3
    for (one, box), (other, another) in combinations(boxes, 2):
        assert not box.padded(1).overlaps(another), f"'{one}' covers '{other}'"
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for text, box in boxes[: len(labels)]:
        for axes in panels(figure):
            covered = axes.axison and box.padded(-1).overlaps(axes.bbox)
            assert not covered, f"'{text}' covers a panel"
    for text in labels + inside:
        assert text.get_fontsize() >= smallest, text


def assert_filled(figure):
    """Every panel shows something."""
    for axes in figure.axes:
        if axes.axison:
            assert axes.images or axes.lines or axes.collections or axes.patches, axes.get_title()

"""Draw the README's picture from a run: python docs/make_picture.py runs/r56.

The run is that of the README's main command.
"""

import sys
from pathlib import Path

from lfgcl_env.page.markup import Html, element
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.problem_file import read_problem

PATH = Path(__file__).with_name("resnet56.svg")
HEIGHT, STEP, WIDE, LEFT, TOP = 120, 15, 10, 30, 34
STYLE = Html(
    "text{font:13px system-ui,sans-serif;fill:#444c56}.whole{fill:#d0d7de}.left{fill:#1f66b5}"
    "@media(prefers-color-scheme:dark){text{fill:#adbac7}.whole{fill:#444c56}.left{fill:#6fb0f5}}"
)


def picture(run: Path) -> str:
    """Return an SVG with the output channels of every layer, before and after."""
    best, problem = read_best(run), read_problem(run)
    assert problem is not None
    layers = [layer.outputs for layer in best.layers if layer.outputs]
    most = max(before for before, _ in layers)
    title = (
        f"{problem.network}: output channels of every layer, before (grey) and after pruning to "
        f"{best.macs_ratio:.0%} of the MACs (blue)"
    )
    bars = [element("text", title, x=LEFT, y=16)]
    for value in (most // 4, most // 2, most):
        place = TOP + HEIGHT * (1 - value / most) + 4
        bars.append(element("text", str(value), x=LEFT - 8, y=f"{place:.0f}", text_anchor="end"))
    for index, channels in enumerate(layers):
        for kind, count in zip(("whole", "left"), channels, strict=True):
            tall = HEIGHT * count / most
            bars.append(
                element(
                    "rect", x=LEFT + STEP * index, y=f"{TOP + HEIGHT - tall:.1f}", width=WIDE,
                    height=f"{tall:.1f}", class_=kind,
                )
            )  # fmt: skip
    size = f"0 0 {LEFT + STEP * len(layers)} {TOP + HEIGHT + 6}"
    return element(
        "svg", element("style", STYLE), *bars, xmlns="http://www.w3.org/2000/svg", viewBox=size
    )


if __name__ == "__main__":
    PATH.write_text(f"{picture(Path(sys.argv[1]))}\n", encoding="utf-8")

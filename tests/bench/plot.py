"""The distribution of fill to wire as a picture: cumulative shares over a logarithmic time axis.

SVG by hand; a PNG of it beside it where there is a Chromium to draw one.
"""

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.chromium import CHROMIUM

_WIDTH, _HEIGHT = 760, 380
_LEGEND = 350  # between the curves of those that listen and of the one that polls
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 46, 52
_LINES = (
    ("relay", "bare relay (floor)", "#7f8c8d"),
    ("otocod", "otocod", "#1f77b4"),
    ("slow", "otocod, every disk sync 5 ms slower", "#9ecae1"),
    ("sdk", "script on the tastytrade package", "#d95f02"),
    ("recipe", "loop that polls every 5 s", "#b2182b"),
)


def svg(samples: dict[str, list[float]]) -> str:
    """`samples`: µs from the fill to the second exit, by client."""
    shown = [(name, label, colour) for name, label, colour in _LINES if samples.get(name)]
    every = [sample for name, _, _ in shown for sample in samples[name]]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))

    def x(us: float) -> float:
        return _LEFT + (math.log10(us) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">From the fill to both exits at the broker</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at:.1f} {y(0):.1f}V{y(1):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{_duration(10.0**power)}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{_LEFT} {y(share):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for place, (name, label, colour) in enumerate(shown):
        points = " ".join(f"{x(us):.1f},{y(share):.1f}" for us, share in _steps(samples[name]))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = y(1) + 14 + 17 * place
        parts.append(f'<path d="M{_LEGEND} {at - 4:.1f}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEGEND + 24}" y="{at:.1f}">{label}</text>')
    axis = "time, logarithmic; share of fills answered within it"
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{axis}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _steps(samples: Sequence[float], points: int = 200) -> list[tuple[float, float]]:
    ordered = sorted(samples)
    places = sorted({round(step * (len(ordered) - 1) / points) for step in range(points + 1)})
    return [(ordered[place], (place + 1) / len(ordered)) for place in places]


def _duration(us: float) -> str:
    if us >= 1_000_000:
        return f"{us / 1_000_000:g} s"
    return f"{us / 1_000:g} ms" if us >= 1_000 else f"{us:g} µs"


def write(path: Path, samples: dict[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(samples))
    if CHROMIUM is not None:
        _draw(CHROMIUM, path, path.with_suffix(".png"))


def _draw(chromium: str, picture: Path, target: Path) -> None:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2"]
    size = f"--window-size={_WIDTH},{_HEIGHT}"
    asked = [chromium, *flags, size, f"--screenshot={target}", picture.resolve().as_uri()]
    subprocess.run(asked, check=True, capture_output=True, timeout=60)

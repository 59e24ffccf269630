"""What the transfer room shows, as HTML: features, a map of photos, accuracies, and votes on a photo. Strings out; no events."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor

from .. import own_networks, shipped_features
from ..checkpoints import UNTRAINED
from ..drawing import heat
from ..embedding import title
from ..images import square
from ..live_transfer import AROUND, Map, Score, around, kind_of, laid_out
from ..texts import later, say
from .panels import data_url

WORDS = {"tench": "tench (fish)", "english_springer": "springer (dog)"}  # what not everybody knows
CLASSES = (later("cassette player"), later("chain saw"), later("church"), later("springer (dog)"), later("french horn"),
           later("garbage truck"), later("gas pump"), later("golf ball"), later("parachute"), later("tench (fish)"))  # as ship
MAP = 400  # units of the map's drawing a side
OPEN = 5  # shapes from this one on are drawn with lines
COLORS = 10
# Of the small maps, which are pictures: as --k0 to --k9 of transfer.css on a light ground; on a dark one the page lightens them.
PALETTE = ("#2f6fb7", "#c4501e", "#1f7a4d", "#8d45b5", "#9a7200", "#0c8189", "#c02a68", "#5f7016", "#7d4f2c", "#566173")
SMALL = 96  # pixels of a small map a side


def readable(name: str) -> str:
    """A class as a person reads it."""
    return say(WORDS.get(name, name.replace("_", " ")))


def readable_encoder(encoder: str) -> str:
    """An encoder as a person reads it; what never learned says so first, where a long name cannot hide it."""
    if kind_of(encoder) == UNTRAINED:
        return html.escape(say("Untrained {name}", name=say(title(encoder.partition(":")[0]))))
    return html.escape(say(title(encoder)))


def shape(kind: int, x: float, y: float, r: float) -> str:
    """The path of a class's mark at (x, y): no two of ten classes share one, so that colour is not the only sign."""
    x, y = round(float(x), 1), round(float(y), 1)
    left, top, bottom, twice = round(x - r, 1), round(y - r, 1), round(y + r, 1), 2 * r
    circle = f"M{left:g},{y:g}a{r:g},{r:g} 0 1 0 {twice:g} 0a{r:g},{r:g} 0 1 0 {-twice:g} 0"
    block = f"M{left:g},{top:g}h{twice:g}v{twice:g}h{-twice:g}z"
    up = f"M{x:g},{top:g}l{r:g},{twice:g}h{-twice:g}z"
    down = f"M{x:g},{bottom:g}l{r:g},{-twice:g}h{-twice:g}z"
    diamond = f"M{x:g},{top:g}l{r:g},{r:g}l{-r:g},{r:g}l{-r:g},{-r:g}z"
    plus = f"M{left:g},{y:g}h{twice:g}m{-r:g},{-r:g}v{twice:g}"
    cross = f"M{left:g},{top:g}l{twice:g},{twice:g}m0,{-twice:g}l{-twice:g},{twice:g}"
    return (circle, block, up, diamond, down, circle, block, up, plus, cross)[kind % COLORS]


def style(kind: int) -> str:
    return f"kind-{kind % COLORS} {'open' if kind % COLORS >= OPEN else 'solid'}"


def mark(kind: int) -> str:
    """A class's mark beside its name."""
    path = f'<path class="{style(kind)}" d="{shape(kind, 6, 6, 4)}"/>'
    return f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{path}</svg>'


def step(number: int, heading: str, name: str, body: str) -> str:
    return f'<section class="step step-{name}"><h3><span>{number}</span>{heading}</h3>{body}</section>'


def features_html(photo: Image.Image, own: np.ndarray, spread: np.ndarray, encoder: str) -> str:
    """The photo, and the features (D,) that an encoder makes of it, as so many cells.

    spread: (N, D), the same features of other photos, whose mean is the middle of the colours.
    """
    cells = (own - spread.mean(axis=0)) / (spread.std(axis=0) + 1e-6)
    columns = 16 if len(cells) % 16 == 0 else 12
    rows = -(-len(cells) // columns)
    grid = np.pad(cells, (0, rows * columns - len(cells))).reshape(rows, columns)
    picture = heat(np.clip(0.5 + grid / 5, 0, 1)).repeat(8, axis=0).repeat(8, axis=1)
    own_photo, cells_picture = data_url(np.asarray(square(photo, 144))), data_url(picture)
    kept = say("{count} numbers: all that is kept of your photo. The encoder never heard of a class.", count=len(cells))
    return (f'<figure class="panel"><img src="{own_photo}" alt="{say("Your photo")}" width="144" height="144"></figure>'
            f'<p class="then">↓ {readable_encoder(encoder)}</p><figure class="panel"><img class="wide" src="{cells_picture}" '
            f'alt="{say("{count} numbers as coloured cells", count=len(cells))}" width="144" height="{9 * rows}">'
            f"<figcaption>{kept}</figcaption></figure>")


def map_html(shown: Map, classes: Sequence[str], photo: Image.Image | None, says: str) -> str:
    """The photos as marks, those whose labels are known in full colour; lines from a visitor's photo to those that vote on it."""
    known = np.zeros(len(shown.classes), dtype=bool)
    known[shown.labelled] = True
    places = _across(shown.points)
    drawn = []
    for layer, those, r in (("pale", ~known, 2.4), ("known", known, 3.2)):  # what is known lies on top
        for kind in range(len(classes)):
            path = "".join(shape(kind, x, y, r) for x, y in places[those & (shown.classes == kind)])
            drawn.append(f'<path class="{layer} {style(kind)}" data-kind="{kind}" d="{path}"/>')
    if shown.own is not None:
        x, y = _across(np.clip(shown.own, -1.02, 1.02))
        lines = "".join(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{places[voter][0]:.1f}" y2="{places[voter][1]:.1f}" '
                        f'opacity="{0.15 + 0.75 * weight / shown.weights[0]:.2f}"/>'
                        for voter, weight in zip(shown.voters, shown.weights))
        own = data_url(np.asarray(square(photo, 72)))
        drawn.append(f'<g class="votes">{lines}</g><g class="own"><rect x="{x - 19:.1f}" y="{y - 19:.1f}" width="38" height="38" '
                     f'rx="4"/><image href="{own}" x="{x - 17:.1f}" y="{y - 17:.1f}" width="34" height="34"/></g>')
    legend = "".join(f'<li data-kind="{kind}" tabindex="0">{mark(kind)}{html.escape(readable(name))}</li>'
                     for kind, name in enumerate(classes))
    return (f'<figure class="panel"><svg class="map" viewBox="0 0 {MAP} {MAP}" role="img" aria-label="{html.escape(says)}">'
            f'{"".join(drawn)}</svg><ul class="classes">{legend}</ul><figcaption>{html.escape(says)}</figcaption></figure>')


def _across(points: np.ndarray) -> np.ndarray:
    """From about [-1, 1] to the drawing, with room for the marks."""
    return MAP / 2 + (MAP / 2 - 22) * np.asarray(points) * (1, -1)


def maps_html(places: Mapping[str, np.ndarray], order: Sequence[str], chosen: str, map_kind: str, classes: Sequence[str]) -> str:
    """Every encoder's map, small, with a ring where a visitor's photo lies on it. places: (2,) by the encoder's name."""
    items = []
    for name in order:
        label, count = around(name, map_kind, places[name])
        says = html.escape(say("Around your photo: {label}, {count} of {most}", label=readable(classes[label]), count=count,
                               most=AROUND))
        left, top = 50 + (50 - 100 / SMALL) * np.clip(places[name], -1, 1) * (1, -1)
        items.append(f'<li class="{"chosen" if name == chosen else ""}" {_choice(name, name == chosen)}><div title="{says}">'
                     f'<img src="{small_map(name, map_kind)}" alt="{says}" width="{SMALL}" height="{SMALL}">'
                     f'<i style="left:{left:.1f}%;top:{top:.1f}%"></i></div>{_name(name)}</li>')
    return (f'<div class="every-map"><h4>{say("The same photo on every map")}</h4>'
            f'<p class="soft">{say("Ring: your photo. Colours: as on the large map.")}</p>'
            f'<ul class="maps" role="radiogroup" aria-label="{say("Encoders by their maps")}">{"".join(items)}</ul></div>')


@own_networks.remembered(128)
def small_map(encoder: str, kind: str) -> str:
    """An encoder's map as the URL of a tiny PNG, four pixels a photo on a clear ground. Cached: no visitor changes it.

    Of all encoders, paths as those of the large map would be two megabytes. Only training photos are on it, for the test photos
    too would leave no gaps to tell groups apart by.
    """
    classes = shipped_features.load(encoder).train_labels
    points = laid_out(encoder, kind)[0][: len(classes)]
    x, y = ((points * (1, -1) + 1) / 2 * (SMALL - 2)).round().astype(int).T
    mixed = np.random.default_rng(0).permutation(len(points))  # so that no class lies above another
    canvas = np.zeros((SMALL, SMALL), dtype=np.uint8)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        canvas[y[mixed] + down, x[mixed] + right] = 1 + classes[mixed] % COLORS
    picture, stream = Image.fromarray(canvas, "P"), io.BytesIO()
    picture.putpalette([0, 0, 0, *(part for color in PALETTE for part in ImageColor.getrgb(color))])
    picture.save(stream, "PNG", transparency=0, optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def accuracy_html(scores: Sequence[Score], chosen: str, classes: int, says: str) -> str:
    """The chosen encoder by two probes, and all encoders by their neighbours."""
    one = next(score for score in scores if score.encoder == chosen)
    both = "".join(f"<li><span>{label}</span>{_track(value, half)}<b>{value:.1%}</b></li>" for label, value, half in (
        (say("Neighbours"), one.knn, one.margin), (say("Linear layer"), one.linear, one.linear_margin)) if value is not None)
    rows = "".join(f'<li class="{score.kind}{" chosen" if score is one else ""}" {_choice(score.encoder, score is one)}>'
                   f"{_name(score.encoder)}{_track(score.knn, score.margin)}<b>{score.knn:.1%}</b></li>"
                   for score in scores)
    chance = f"--chance:{1 / classes:.1%}"
    return (f'<h4>{readable_encoder(chosen)}</h4><ul class="rates both" style="{chance}">{both}</ul>'
            f'<h4>{say("Every encoder, by its neighbours")}</h4><ul class="rates all" role="radiogroup" '
            f'aria-label="{say("Encoders by their accuracy")}" style="{chance}">{rows}</ul>'
            f'<p class="soft">{html.escape(says)}</p>')


def votes_html(votes: Mapping[str, np.ndarray], order: Sequence[str], chosen: str, classes: Sequence[str], says: str) -> str:
    """The chosen encoder's two likeliest classes, and what every encoder would call the photo, in the given order."""
    best = "".join(f"<li>{_class(kind, classes)}{_track(votes[chosen][kind])}<b>{votes[chosen][kind]:.0%}</b></li>"
                   for kind in np.argsort(-votes[chosen], kind="stable")[:2])
    rows = []
    for name in order:
        kind = int(votes[name].argmax())
        rows.append(f'<li class="{"chosen" if name == chosen else ""}" {_choice(name, name == chosen)}>{_name(name)}'
                    f"{_class(kind, classes)}{_track(votes[name][kind])}<b>{votes[name][kind]:.0%}</b></li>")
    return (f'<h4>{readable_encoder(chosen)}</h4><ul class="rates both">{best}</ul>'
            f'<h4>{say("By every encoder")}</h4><ul class="rates four" role="radiogroup" '
            f'aria-label="{say("Encoders by their vote")}">{"".join(rows)}</ul><p class="soft">{html.escape(says)}</p>')


def _name(encoder: str) -> str:
    """An encoder's name in a row, in full where the pointer rests on it."""
    return f'<span title="{readable_encoder(encoder)}">{readable_encoder(encoder)}</span>'


def _class(kind: int, classes: Sequence[str]) -> str:
    return f'<span class="class">{mark(kind)}{html.escape(readable(classes[kind]))}</span>'


def _choice(encoder: str, is_chosen: bool) -> str:
    """What makes a row a button that chooses its encoder."""
    return f'data-encoder="{html.escape(encoder)}" role="radio" tabindex="0" aria-checked="{str(is_chosen).lower()}"'


def _track(value: float, half: float | None = None) -> str:
    """A bar of the share, and the line across of its interval, where that is known."""
    half = half or 0.0
    low, high = max(0.0, value - half), min(1.0, value + half)
    line = f'<i style="left:{low:.1%};width:{high - low:.1%}"></i>' if half else ""
    return f'<div class="track"><div class="fill" style="width:{value:.1%}"></div>{line}</div>'


# Rows are buttons; a class under the pointer stands out on the map.
CLICKS = """
const choose = (event) => {
  const row = event.target.closest('[data-encoder]');
  if (row) trigger('select', {encoder: row.dataset.encoder});
  return row;
};
element.addEventListener('click', choose);
element.addEventListener('keydown', (event) => {
  if ((event.key === 'Enter' || event.key === ' ') && choose(event)) event.preventDefault();
});
const light = (event) => {
  const item = event.target.closest('li[data-kind]');
  element.querySelectorAll('path[data-kind]').forEach((path) => {
    path.classList.toggle('dim', Boolean(item) && path.dataset.kind !== item.dataset.kind);
  });
};
for (const kind of ['pointerover', 'pointerleave', 'focusin', 'focusout']) element.addEventListener(kind, light);
const tell = () => {  // what is set here stands in the address
  const story = element.querySelector('.story.transfer');
  if (story) window.place?.settings('transfer', story.dataset.settings);
};
new MutationObserver(tell).observe(element, {childList: true, subtree: true, attributeFilter: ['data-settings']});
tell();
"""

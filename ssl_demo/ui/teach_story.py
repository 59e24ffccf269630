"""What the room for teaching tells, as HTML: every encoder's bar with its interval, and what each says of the photo."""

import html

import numpy as np

from .. import embedding, teach
from ..images import square
from ..teach import LEAST, Lesson
from ..texts import say
from .panels import data_url

MEASURED = say("Each picture in turn is left out: a linear layer on the frozen features hears the labels of all others and is "
               "asked about it. Thin lines: Wilson's 95 % intervals, which held in 84 of 100 trials with five benchmark photos a "
               "class. Dashed: always naming the largest class. Blue: trained encoders. Framed: yours.")
CHOOSES = say("They must choose among your classes, even for a photo of something else. Another photo is classified at once.")
WAITING = say("As soon as two classes have {least} pictures each: how many of your pictures each encoder tells rightly.",
              least=LEAST)
UNDECIDED = 0.1  # mean shares that are no further apart name no class
ASKING = say("Then every encoder puts your photo into one of your classes.")
EASY = " " + say("These are parts of one photo a class, which is easy.")


def teach_story(lesson: Lesson) -> str:
    """Steps 2 and 3: what is said of the classes that take part, and of the photo; with too few pictures, what will be."""
    ready = lesson.ready()
    if len(ready) < 2:
        names = "".join(f"<li><span>{html.escape(say(embedding.title(name)))}</span><div class='lane'></div><span></span></li>"
                        for name in (*teach.encoders(), *lesson.own))
        return _columns(f"<p class='says'>{WAITING}</p>", f"<ul class='lanes'>{names}</ul>", "",
                        f"<p class='says'>{ASKING}</p>", "", "")
    assert lesson.asked is not None
    photo = lesson.asked[1]
    told = teach.report(ready, photo, lesson.scores, lesson.own)
    says = teach.conclusion(told) + (EASY if lesson.is_example() else "")
    if lone := [f"“{group.name}”" for group in lesson.groups if 0 < len(group.pictures) < LEAST]:
        says += " " + say("{classes} will take part from the second picture on.", classes=f" {say('and')} ".join(lone))
    return _columns(f"<p class='says'>{html.escape(says)}</p>", bars(told), MEASURED, together(told, photo), votes(told), CHOOSES)


def _columns(*parts: str) -> str:
    columns = []
    for number, heading, (head, rows, note) in ((2, say("What every encoder makes of them"), parts[:3]),
                                                  (3, say("Your photo"), parts[3:])):
        columns.append(f'<section class="step"><h3><span>{number}</span>{heading}</h3><div class="head">{head}</div>'
                       f'<div>{rows}</div><p class="note">{note}</p></section>')
    return f'<div class="taught">{"".join(columns)}</div>'


def bars(told: dict) -> str:
    """A row for every encoder, the best first: its accuracy as a bar, its interval as a line over it, and chance as a mark."""
    rows, chance = [], told["chance"]
    for row in told["encoders"]:
        title = html.escape(say(row["title"]))
        says = say("{title}: {right} of {of} told rightly; interval {low:.0%} to {high:.0%}", **{**row, "title": title})
        kind = ("ours" if row["trained"] else "rival") + " own" * row["own"]
        rows.append(
            f'<li class="{kind}" title="{says}"><span>{title}</span><div class="lane" role="img" aria-label="{says}">'
            f'<i class="bar" style="width:{row["accuracy"]:.1%}"></i>'
            f'<i class="reach" style="left:{row["low"]:.1%};width:{row["high"] - row["low"]:.1%}"></i>'
            f'<i class="chance-line" style="left:{chance:.1%}"></i></div><span>{row["accuracy"]:.0%}</span></li>')
    axis = (f'<li class="axis"><span></span><div class="lane"><em style="left:{chance:.1%}">{say("chance")} {chance:.0%}</em>'
            "</div><span></span></li>")
    return f'<ul class="lanes">{"".join(rows)}{axis}</ul>'


def together(told: dict, photo: teach.Picture) -> str:
    """The answer of all trained encoders together, in large type beside the photo."""
    joint, small = told["together"], data_url(np.asarray(square(photo.image, 96)))
    is_open = joint["ahead"] < UNDECIDED
    told = say("{agree} of {encoders} trained encoders say “{name}”; the mean of their shares, {probability:.0%}, is hardly "
               "above that of the next class." if is_open else
               "All {encoders} trained encoders say so; the mean of their shares is {probability:.0%}."
               if joint["agree"] == joint["encoders"] else
               "{agree} of {encoders} trained encoders say so; the mean of their shares is {probability:.0%}.",
               name=joint["class"], **joint)
    answer = html.escape(say("Undecided") if is_open else joint["class"])
    return (f'<div class="joint"><img src="{small}" alt="{say("Your photo")}"><div><strong id="teach-joint">{answer}</strong>'
            f'<p class="says">{html.escape(told)}</p></div></div>')


def votes(told: dict) -> str:
    """What each encoder says of the photo, in the order of the bars; blue where it says what all say together."""
    rows, joint = [], told["together"]["class"]
    for row in told["encoders"]:
        kind, share = ("ours" if row["class"] == joint else "rival") + " own" * row["own"], row["probability"]
        who, says = html.escape(say(row["title"])), html.escape(row["class"])
        rows.append(f'<li class="{kind}" title="{who}: {says}"><span class="who">{who}</span><span>{says}</span><div '
                    f'class="lane"><i class="bar" style="width:{share:.1%}"></i></div><span>{share:.0%}</span></li>')
    return f'<ul class="lanes votes">{"".join(rows)}</ul>'

"""The curves that README shows: those of recorded runs, between two marks."""

ALT = {
    "forward": "forward: packets per second over live sessions, beside testpmd",
    "cycles": "cycles: cycles per packet over live sessions, beside the two-line probe",
    "new-sessions": "new-sessions: cycles per session over the use of the local pool",
    "latency": "latency: round trips at 10, 50 and 90 % of the no-drop rate",
}
BEGIN, END = "<!-- curves -->\n", "<!-- end of curves -->"


def shown(text, directory, base):
    """A document with the curves of `directory` between its two marks, as links from `base`."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    paths = [(directory / f"{case}.svg", alt) for case, alt in ALT.items()]
    links = [f"![{alt}]({path.relative_to(base)})\n" for path, alt in paths if path.exists()]
    return head + BEGIN + "".join(links) + END + tail

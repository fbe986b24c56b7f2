"""A little plain English, on which models are tried: any model of English knows which of its tokens comes next."""

from __future__ import annotations

TEXT = """\
The old bridge crosses the river where the water is narrow and fast. Every morning the baker walks over it with a basket
of warm bread, and every evening he comes home with the basket empty. In the year of the great flood the middle of the
bridge was carried away, and for three winters the people on the two sides had to shout to each other across the water.
They built it again in stone, wider than before, and on the first day of May the whole town came out to dance on it.
There was music, and there was a long table with cheese and apples and wine. The mayor gave a speech, which was too
long, and the children threw small stones into the river to see how deep it was. When the sun went down behind the
hills, an old woman said that she had never been on the other side. "It is only a bridge," said the baker. "You walk to
the end of it, and then you are there." So she took his arm, and they went over together in the last light of the day.
""".replace("\n", " ")

AWKWARD = (
    "  two  spaces, and at the end  ",
    "line feed\nreturn\r\n\n\ttab",
    "family \U0001f469\u200d\U0001f469\u200d\U0001f467 flag \U0001f1e9\U0001f1ea",
    "na\u00efve caf\u00e9, e\u0301, \ufb01, \u201cquotes\u201d \u2014",
    "\u65e5\u672c\u8a9e and \u05e2\u05d1\u05e8\u05d9\u05ea",
    "1234567890 3.14 1e-5",
    "no\u00a0break, zero\u200bwidth",
)
"""Texts that a tokeniser easily loses something of."""

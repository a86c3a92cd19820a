"""Texts about images and their pixels in words for other data, whose examples, such as documents, have features."""

import re

RANGE = " (pixels in [0, 1])"  # of images alone
_WORDS = re.compile(r"\b(image|example|pixel)(s?)\b", re.IGNORECASE)


def reword(text: str, noun: str) -> str:
    """Return a text about images for data whose examples are called `noun`, unless that is `image`.

    `the pixels of an image` becomes `the features of an example`, or `the features of a document`.
    """
    if noun == "image":
        return text

    def other_word(match: re.Match[str]) -> str:
        word = ("feature" if match[1].lower() == "pixel" else noun) + match[2]
        return word[:1].upper() + word[1:] if match[0][0].isupper() else word

    text = text.replace(RANGE, "")
    starts_with_vowel = noun[0] in "aeio"
    article = re.compile(r"\b([Aa])n (?=(?:image|example)\b)")
    return _WORDS.sub(other_word, text if starts_with_vowel else article.sub(r"\1 ", text))

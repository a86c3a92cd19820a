"""Texts about images and their pixels in words for other data, whose examples have features."""

import re

OTHER_WORDS = {"image": "example", "images": "examples", "pixel": "feature", "pixels": "features"}
_IMAGE_WORDS = re.compile(r"\b(image|pixel)s?\b", re.IGNORECASE)


def reword(text: str, kind: str) -> str:
    """Return a text about images for another kind of data: `the pixels of an image`, `the features of an example`."""
    if kind == "image":
        return text

    def other_word(match: re.Match[str]) -> str:
        word = OTHER_WORDS[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _IMAGE_WORDS.sub(other_word, text)

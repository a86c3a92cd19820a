"""The interface of the data sets made of a user's own files: their settings, and messages about their values."""

from dataclasses import dataclass, field

from aetrain.data.image_dataset import ImageDataset
from aetrain.data.pixel_values import StoredValues, check_white
from aetrain.data.user_files import check_fraction


@dataclass(kw_only=True)
class UserDataset(ImageDataset):
    """Images of a user's own files at `path`.

    `test_fraction` of the training images are for testing where the source has no test images. `white` is the stored
    value that becomes white, such as 4095 for 12 bits; None is the largest value of the type of the file.
    """

    path: str
    test_fraction: float = 0.1
    white: float | None = None
    values: StoredValues = field(default_factory=StoredValues, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)
        check_white(self.white)

    def describe_dark(self, largest: int) -> str:
        """Return the message about training images that are nearly black, with a better `white` where there is one."""
        if self.values.is_white_too_large:
            return self.values.describe_dark()
        return (  # files of other splits are brighter, or resizing has darkened small bright parts
            f"the largest pixel of the training images is {largest} of 255: they are nearly black; check their files"
        )

    def warn_of_clipping(self) -> None:
        """Add a warning where stored values are above white."""
        if text := self.values.describe_clipped():
            self.add_warning(text)

"""The settings by which training compares its epochs: they need examples that are held out."""

from aetrain.training.early_stopping import StopRule
from aetrain.training.schedules import reads_objective


def name_selectors(keep: str, stop: StopRule | None, schedule: object) -> list[str]:
    """Return the settings that compare epochs by the objective, in words: those of the three that are in use.

    `schedule` is a schedule, the class of one, or None.
    """
    kind = schedule if isinstance(schedule, type) else type(schedule)
    used = {
        "keep=best": keep == "best",
        "stop.patience": stop is not None and stop.is_active,
        f"schedule ({kind.__name__})": reads_objective(schedule),
    }
    return [name for name, is_used in used.items() if is_used]

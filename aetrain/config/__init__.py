"""Everything that knows Hydra: where configs lie, what they may contain, the messages for mistakes."""

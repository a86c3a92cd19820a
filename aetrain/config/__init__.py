"""The rooms that know Hydra: where configs lie, what a config may say, what to answer when it is wrong."""
